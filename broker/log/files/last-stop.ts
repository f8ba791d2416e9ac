/**
 * How the last run ended. `crash`: the process died, the kernel lived on, so all that was written can be read. `power-cut`:
 * the kernel died too, and writes that were not synced are there in part, or not at all. `lost`: nothing says what was here,
 * or something is gone that had been synced; as after a power cut, and no sync is a reason to believe that all is there.
 */
export type LastStop = "clean" | "crash" | "power-cut" | "lost";
