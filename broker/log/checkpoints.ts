import { join } from "node:path";
import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import { reasonOf } from "../../common/logger.js";
import type { Logger } from "../../common/logger.js";
import { SerialQueue } from "../../common/serial-queue.js";
import { parseOffset, toOffset } from "../../protocol/types.js";
import type { Offset, PartitionKey } from "../../protocol/types.js";
import { DamagedCheckpoint, readCheckpoint, writeCheckpoint } from "./files/checkpoint-file.js";
import type { CheckpointedOffsets } from "./operations/recovery.js";
import type { DamagedRange } from "./segment/scan.js";

const RECOVERY_POINTS_FILE = "recovery-point-offset-checkpoint";
const LOG_STARTS_FILE = "log-start-offset-checkpoint";
const HIGH_WATERMARKS_FILE = "replication-offset-checkpoint";
/** Where the damage of a log begins, if it has any. Lost, it is found again by whoever reads there. */
const DAMAGE_FILE = "damage-offset-checkpoint";

const INTERVAL_MS = 5_000;

/** What the checkpoints say of a log, and what it learns from them. */
export interface CheckpointedLog {
  readonly logStartOffset: Offset;
  readonly flushedOffset: Offset;
  readonly highWatermark: Offset;
  readonly damage: readonly DamagedRange[];
  /** The file says so now. */
  logStartIsDurable(offset: Offset): void;
}

/** The checkpoint files as a start finds them. */
export interface FoundCheckpoints {
  /** What they say of one partition. */
  of(key: PartitionKey): CheckpointedOffsets;
  /** Logs that had synced records behind their log start. */
  readonly withRecords: ReadonlyMap<PartitionKey, Offset>;
  /** Undefined when the file cannot be read: some log may begin earlier now than was promised. */
  readonly logStarts: ReadonlyMap<PartitionKey, Offset> | undefined;
}

/**
 * The checkpoint files of a log directory: where its logs start, what of them is durable, committed and damaged. Written a
 * while after something changed, and at once where somebody must not go on before.
 */
export class LogCheckpoints {
  readonly #queue = new SerialQueue("checkpoints");
  #queued: Promise<void> | undefined;
  #timer: Timer | undefined;
  #isStopped = false;
  /** What each file holds, as far as this run has written it. */
  readonly #written = new Map<string, string>();
  /** What the file of log starts says; empty before this run has written it, with no start further in front than it said. */
  #startsInFile: ReadonlyMap<PartitionKey, Offset> = new Map();
  /** Where logs begin that have no files. They are in the checkpoint only, and must not begin anew at 0. */
  readonly #startsWithoutLog = new Map<PartitionKey, Offset>();

  constructor(
    private readonly env: Env,
    private readonly logger: Logger,
    private readonly directory: string,
    private readonly logs: ReadonlyMap<PartitionKey, CheckpointedLog>,
    private readonly intervalMs = INTERVAL_MS,
  ) {}

  async read(): Promise<FoundCheckpoints> {
    const recoveryPoints = await this.#read(RECOVERY_POINTS_FILE);
    const logStarts = await this.#read(LOG_STARTS_FILE);
    const highWatermarks = await this.#read(HIGH_WATERMARKS_FILE);
    const damage = await this.#read(DAMAGE_FILE);
    const withRecords = [...(recoveryPoints ?? [])].filter(([key, offset]) => offset > (logStarts?.get(key) ?? 0));
    return {
      of: (key) => ({
        recoveryPoint: recoveryPoints?.get(key),
        // The file has no line for a log that starts at 0.
        logStart: logStarts && (logStarts.get(key) ?? toOffset(0)),
        highWatermark: highWatermarks?.get(key),
        damagedFrom: damage?.get(key),
      }),
      withRecords: new Map(withRecords),
      logStarts,
    };
  }

  /** Undefined when the file is damaged. A file that is missing is that of a new directory. */
  async #read(file: string): Promise<Map<PartitionKey, Offset> | undefined> {
    const offsets = new Map<PartitionKey, Offset>();
    try {
      for (const line of (await readCheckpoint(this.env.files, join(this.directory, file))) ?? []) {
        const [key, text] = line.split(" ") as [string, string | undefined];
        const offset = parseOffset(Number(text));
        if (offset !== undefined) offsets.set(key, offset);
      }
    } catch (error) {
      if (!(error instanceof DamagedCheckpoint)) throw error;
      this.logger.error(`${error.message}; logs are recovered without it`);
      return undefined;
    }
    return offsets;
  }

  /** A log without files begins at the offset; the files go on saying so until it is made or forgotten. */
  keepStart(key: PartitionKey, start: Offset): void {
    this.#startsWithoutLog.set(key, start);
  }

  /** Where the log begins that is made now: the files say it with the others from now on. */
  takeStart(key: PartitionKey): Offset {
    const start = this.#startsWithoutLog.get(key) ?? toOffset(0);
    this.#startsWithoutLog.delete(key);
    return start;
  }

  /** All logs that belong here are made: what else the files know of was given up. */
  forgetStartsWithoutLog(): void {
    this.#startsWithoutLog.clear();
  }

  /** Something changed that the files should say. */
  soon(): void {
    if (this.#isStopped || this.#timer !== undefined) return;
    this.#timer = this.env.timers.after(this.intervalMs, () => {
      this.#timer = undefined;
      this.now().catch((error: unknown) => {
        this.logger.warn(`checkpoints in ${this.directory} could not be written: ${reasonOf(error)}`);
        this.soon();
      });
    });
  }

  /** Resolves when the offsets as they are now are in the files, durably. */
  now(): Promise<void> {
    this.#queued ??= this.#queue.run(() => {
      this.#queued = undefined;
      return this.#write();
    });
    return this.#queued;
  }

  async #write(): Promise<void> {
    const logs = [...this.logs];
    const lines = (offset: (log: CheckpointedLog) => Offset): string[] =>
      logs.filter(([, log]) => offset(log) > 0).map(([key, log]) => `${key} ${offset(log)}`);
    const damage = logs.flatMap(([key, log]) => log.damage.slice(0, 1).map(({ from }) => `${key} ${from}`));
    // All are of one moment. Log starts first: a recovery point behind a log start that is not in the file yet would
    // look like lost segments. For the same reason one that went back, with its recovery point, follows that.
    const starts = logs.map(([key, log]) => ({ key, log, start: log.logStartOffset }));
    const withoutLog = [...this.#startsWithoutLog].map(([key, start]) => ({ key, start }));
    const former = this.#startsInFile;
    const forwards = starts.map(({ key, start }) => ({ key, start: laterOf(start, former.get(key)) }));
    const recoveryPoints = lines((log) => log.flushedOffset);
    const highWatermarks = lines((log) => log.highWatermark);
    await this.#writeStarts([...forwards, ...withoutLog]);
    for (const { log, start } of starts) log.logStartIsDurable(start);
    await this.#writeFile(RECOVERY_POINTS_FILE, recoveryPoints);
    await this.#writeStarts([...starts, ...withoutLog]);
    await this.#writeFile(HIGH_WATERMARKS_FILE, highWatermarks);
    await this.#writeFile(DAMAGE_FILE, damage);
  }

  async #writeStarts(starts: readonly { readonly key: PartitionKey; readonly start: Offset }[]): Promise<void> {
    const known = starts.filter(({ start }) => start > 0);
    await this.#writeFile(
      LOG_STARTS_FILE,
      known.map(({ key, start }) => `${key} ${start}`),
    );
    this.#startsInFile = new Map(known.map(({ key, start }) => [key, start]));
  }

  async #writeFile(file: string, lines: readonly string[]): Promise<void> {
    const content = lines.join("\n");
    if (this.#written.get(file) === content) return;
    await writeCheckpoint(this.env.files, join(this.directory, file), lines);
    this.#written.set(file, content);
  }

  /** Nothing is written by itself any more; what somebody waits for still is. */
  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  /** Nothing is written any more when this resolves. */
  async close(): Promise<void> {
    this.stop();
    await this.#queue.close();
  }
}

function laterOf(offset: Offset, other: Offset | undefined): Offset {
  return other !== undefined && other > offset ? other : offset;
}
