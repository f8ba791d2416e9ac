import { join } from "node:path";
import type { Env } from "../../../common/env/env.js";
import type { PartitionKey } from "../../../protocol/types.js";
import { DamagedCheckpoint, readCheckpoint, writeCheckpoint } from "./checkpoint-file.js";
import type { LastStop } from "./last-stop.js";

/*
 * The mark by which a start knows how the last run ended. First line: `clean <last stop>` or `running <boot id> <last
 * stop>`, where the last stop is the one that the cluster has not been told of yet; `clean` alone: it was told. Then a
 * line `cut <partition key>` for each log of which recovery cut records off, also until the cluster was told: a second
 * stop must not hide what the first one cost.
 */
const FILE = "last-run";

/** What the cluster has not been told of. */
interface Untold {
  /** The worst of the stops since it was told one. */
  readonly stop: LastStop;
  /** Logs of which recovery cut records off. */
  readonly cut: ReadonlySet<PartitionKey>;
}

/** What a start needs to know of the runs before. */
export interface LastRun extends Untold {
  /** How the last run itself ended: what the files may lack now. */
  readonly ended: LastStop;
  /** The kernel that it ran on; undefined: it ended clean, or nothing says so. */
  readonly bootId?: string | undefined;
}

const severity: Record<LastStop, number> = { clean: 0, crash: 1, "power-cut": 2, lost: 3 };

/** How the last run in this log directory ended. */
export async function readLastRun(env: Env, directory: string): Promise<LastRun> {
  let lines: string[] | undefined;
  try {
    lines = await readCheckpoint(env.files, join(directory, FILE));
  } catch (error) {
    if (!(error instanceof DamagedCheckpoint)) throw error;
    return { stop: "lost", ended: "lost", cut: new Set() };
  }
  // The directory of a new broker, or what took the place of one that had records: from here they look the same.
  if (lines === undefined) return { stop: "lost", ended: "lost", cut: new Set() };
  const cut = new Set(lines.slice(1).map((line) => line.slice("cut ".length)));
  const [state, ...rest] = (lines[0] ?? "").split(" ");
  if (state === "clean") return { stop: untoldStop(rest[0] ?? "clean"), ended: "clean", cut };
  const [bootId, untold] = rest;
  const ended: LastStop = bootId === encodeURIComponent(env.bootId) ? "crash" : "power-cut";
  const before = untoldStop(untold);
  return {
    stop: severity[before] > severity[ended] ? before : ended,
    ended,
    cut,
    bootId: bootId === undefined ? undefined : decodeURIComponent(bootId),
  };
}

function untoldStop(text: string | undefined): LastStop {
  return text === "clean" || text === "crash" || text === "power-cut" ? text : "lost";
}

/**
 * From now on, until it is marked clean, the run counts as ended by whatever happens to it. `bootId`: of the last run, while
 * this one still looks at what that one has left.
 */
export async function markRunning(env: Env, directory: string, untold: Untold, bootId = env.bootId): Promise<void> {
  const first = `running ${encodeURIComponent(bootId)} ${untold.stop}`;
  await writeCheckpoint(env.files, join(directory, FILE), [first, ...[...untold.cut].map((key) => `cut ${key}`)]);
}

/** Everything is written and synced. */
export async function markClean(env: Env, directory: string, untold: Untold): Promise<void> {
  const first = untold.stop === "clean" ? "clean" : `clean ${untold.stop}`;
  await writeCheckpoint(env.files, join(directory, FILE), [first, ...[...untold.cut].map((key) => `cut ${key}`)]);
}
