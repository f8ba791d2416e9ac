import { join } from "node:path";
import type { Env } from "../../common/env/env.js";
import type { FileSystem } from "../../common/env/files.js";
import type { PartitionKey } from "../../protocol/types.js";
import { DamagedCheckpoint, readCheckpoint, writeCheckpoint } from "./checkpoint-file.js";
import type { LastStop } from "./log-recovery.js";
import { parsePartitionDirectoryName } from "./partition-directory.js";

/*
 * The mark by which a start knows how the last run ended. First line: `clean`, or `running <boot id> <last stop>`, where the
 * last stop is the one that the cluster has not been told of yet. Then a line `cut <partition key>` for each log of which
 * recovery cut records off, also until the cluster was told: a second crash must not hide what the first one cost.
 */
const FILE = "last-run";

/** What a start needs to know of the runs before. */
export interface LastRun {
  readonly stop: LastStop;
  /** Logs that were cut by a recovery that nobody was told of. */
  readonly cut: ReadonlySet<PartitionKey>;
}

const severity: Record<LastStop, number> = { clean: 0, crash: 1, "power-cut": 2 };

/** How the last run in this log directory ended. Must be asked before LogManager.open, which begins a new run. */
export async function readLastRun(env: Env, directory: string): Promise<LastRun> {
  let lines: string[] | undefined;
  try {
    lines = await readCheckpoint(env.files, join(directory, FILE));
  } catch (error) {
    if (!(error instanceof DamagedCheckpoint)) throw error;
    return { stop: "power-cut", cut: new Set() };
  }
  if (lines === undefined)
    return { stop: (await hasLogs(env.files, directory)) ? "power-cut" : "clean", cut: new Set() };
  const cut = new Set(lines.slice(1).map((line) => line.slice("cut ".length)));
  const [state, bootId, untold] = (lines[0] ?? "").split(" ");
  if (state === "clean") return { stop: "clean", cut };
  const stop: LastStop = bootId === encodeURIComponent(env.bootId) ? "crash" : "power-cut";
  const before: LastStop = untold === "clean" || untold === "crash" ? untold : "power-cut";
  return { stop: severity[before] > severity[stop] ? before : stop, cut };
}

/** From now on, until it is marked clean, the run counts as ended by whatever happens to it. */
export async function markRunning(env: Env, directory: string, untold: LastRun): Promise<void> {
  const first = `running ${encodeURIComponent(env.bootId)} ${untold.stop}`;
  await writeCheckpoint(env.files, join(directory, FILE), [first, ...[...untold.cut].map((key) => `cut ${key}`)]);
}

/** Everything is written and synced. */
export async function markClean(env: Env, directory: string, untoldCut: ReadonlySet<PartitionKey>): Promise<void> {
  await writeCheckpoint(env.files, join(directory, FILE), ["clean", ...[...untoldCut].map((key) => `cut ${key}`)]);
}

async function hasLogs(files: FileSystem, directory: string): Promise<boolean> {
  if (!(await files.exists(directory))) return false;
  return (await files.list(directory)).some((name) => parsePartitionDirectoryName(name) !== undefined);
}
