import { basename, dirname, join } from "node:path";
import { InvariantViolation } from "../../common/assert.js";
import { BytePool } from "../../common/byte-pool.js";
import { counted } from "../../common/counted.js";
import { EarliestTimer } from "../../common/earliest-timer.js";
import type { Env } from "../../common/env/env.js";
import { Limiter } from "../../common/limiter.js";
import { reasonOf } from "../../common/logger.js";
import type { Logger } from "../../common/logger.js";
import { QueueClosed } from "../../common/serial-queue.js";
import { partitionKey } from "../../protocol/types.js";
import type { PartitionKey, TopicId } from "../../protocol/types.js";
import { LogCheckpoints } from "./checkpoints.js";
import type { FoundCheckpoints } from "./checkpoints.js";
import { LeaderEpochCache } from "./content/leader-epoch-cache.js";
import type { LogContext } from "./content/log-context.js";
import { LogOffsets } from "./content/offsets.js";
import { ProducerStates } from "./content/producer-states.js";
import { TailBudget } from "./content/tail.js";
import { markClean, markRunning, readLastRun } from "./files/last-run.js";
import type { LastRun } from "./files/last-run.js";
import type { LastStop } from "./files/last-stop.js";
import {
  asideName,
  METADATA_FILE,
  nameBefore,
  parsePartitionDirectoryName,
  parseSegmentFileName,
  partitionDirectoryName,
  readPartitionMetadata,
} from "./files/names.js";
import type { Aside } from "./files/names.js";
import type { LogSettings } from "./log-settings.js";
import { Log } from "./log.js";
import { recoverLog } from "./operations/recovery.js";
import { Scrubber } from "./scrubber.js";
import { SegmentCache } from "./segment/cache.js";

/** Logs that wait for a flush are looked at this often at least. */
const FLUSH_LOOK_MS_MAX = 10_000;
const RECOVERIES_AT_ONCE = 4;
const CLOSES_AT_ONCE = 4;
/** Thousands of logs may fall due together; a flush is more than its sync. */
const FLUSHES_AT_ONCE = 4;
/** Of the four threads that do all file work; the others are left for reads and writes. */
const SYNCS_AT_ONCE = 2;
/** Buffers for reads from files that lie idle for the next one. */
const IDLE_READ_BYTES_MAX = 16 * 1024 * 1024;
const PROGRESS_EVERY_MS = 5_000;

/** What LogManager.open needs to know. */
export interface LogManagerOptions {
  /** The log directory; made when missing. */
  readonly directory: string;
  /** For logs that were found on disk, until `updateSettings` gives them their own. */
  readonly defaultSettings: LogSettings;
  /** Bytes that the in-memory tails of all logs together may pin. */
  readonly tailBytesMax: number;
  /** Files of closed segments that stay open. */
  readonly openFilesMax: number;
  /** The disk failed so that this process can promise nothing any more; it must stop. */
  readonly onFatal: (error: Error) => void;
  /** Bytes of closed segments that are verified in a second; 0 verifies none. @defaultValue 4194304 */
  readonly scrubBytesPerSecond?: number;
  /** So long after a change the checkpoints are written. @defaultValue 5000 */
  readonly checkpointIntervalMs?: number;
}

/**
 * The logs of one directory: finds and recovers them at the start, makes, removes and puts aside, and does what they need
 * done at intervals (flush, checkpoints, scrubbing). Retention is applied by whoever knows that the settings are in.
 */
export class LogManager {
  readonly #logs = new Map<PartitionKey, Log>();
  readonly #logsByDirectory = new Map<string, Log>();
  /** Names of directories that exist or may soon; for names that are free. */
  readonly #names: Set<string>;
  /** Directories that are about to be renamed, by the name they still have. */
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #dirtySinceMs = new Map<Log, number>();
  readonly #flushTimer: EarliestTimer;
  readonly #flushes = new Limiter(FLUSHES_AT_ONCE);
  readonly #checkpoints: LogCheckpoints;
  readonly #scrubber: Scrubber;
  readonly #background = new Set<Promise<void>>();
  /** How the runs before ended, as far as the cluster has not been told. */
  #untoldStop: LastStop = "lost";
  #lossMark: Promise<void> | undefined;
  /** Logs that were cut and of which the cluster has not been told. */
  #untoldCut = new Set<PartitionKey>();
  readonly #context: LogContext;
  #failed = false;
  #closed = false;

  private constructor(
    private readonly env: Env,
    private readonly logger: Logger,
    private readonly options: LogManagerOptions,
    names: readonly string[],
  ) {
    this.#names = new Set(names);
    this.#checkpoints = new LogCheckpoints(env, logger, options.directory, this.#logs, options.checkpointIntervalMs);
    this.#flushTimer = new EarliestTimer(env, () => this.#flushDue());
    this.#scrubber = new Scrubber(
      env.timers,
      logger,
      () => this.#logs.values(),
      options.scrubBytesPerSecond ?? 4 * 1024 * 1024,
    );
    this.#context = {
      env,
      logger,
      directory: options.directory,
      pool: new BytePool(IDLE_READ_BYTES_MAX),
      cache: new SegmentCache(options.openFilesMax),
      tailBudget: new TailBudget(options.tailBytesMax),
      syncs: new Limiter(SYNCS_AT_ONCE),
      onFatal: (error) => {
        this.#failed = true;
        options.onFatal(error);
      },
      checkpointSoon: () => this.#checkpoints.soon(),
      checkpointNow: () => this.#checkpoints.now(),
    };
  }

  /** Recovers every log in the directory. Rejects when the directory cannot be used. */
  static async open(env: Env, logger: Logger, options: LogManagerOptions): Promise<LogManager> {
    const { files } = env;
    await files.makeDirectory(options.directory);
    await files.syncDirectory(dirname(options.directory));
    const lastRun = await readLastRun(env, options.directory);
    if (lastRun.stop === "lost")
      logger.info(`no run before this one is known in ${options.directory}: the directory counts as new`);
    const manager = new LogManager(env, logger, options, await files.list(options.directory));
    manager.#untoldStop = lastRun.stop;
    await manager.#recoverAll(lastRun);
    await markRunning(env, options.directory, { stop: manager.#untoldStop, cut: manager.#untoldCut });
    await manager.#checkpoints.now();
    manager.#finishRenamed();
    manager.#scrubber.start();
    return manager;
  }

  /** How the runs before ended, with what recovery found out: `lost` if the directory of a log is gone. */
  get untoldStop(): LastStop {
    return this.#untoldStop;
  }

  /**
   * The cluster knows how the last run ended and which logs were cut. Until this is called the next start says so again,
   * even after a clean stop or a mere crash.
   */
  async recoveryReported(): Promise<void> {
    this.#untoldStop = "clean";
    this.#untoldCut = new Set();
    await markRunning(this.env, this.options.directory, { stop: "clean", cut: this.#untoldCut });
  }

  get(topicId: TopicId, partition: number): Log | undefined {
    return this.#logs.get(partitionKey(topicId, partition));
  }

  all(): Iterable<Log> {
    return this.#logs.values();
  }

  /**
   * A log without files; they are made at the first append. It begins at 0, or where the checkpoint says that it did. The
   * directory of another incarnation of the topic is put aside first, and appends are refused until it is. A log that
   * exists is returned as it is, with these settings.
   */
  create(topicId: TopicId, topic: string, partition: number, settings: LogSettings): Log {
    const key = partitionKey(topicId, partition);
    const existing = this.#logs.get(key);
    if (existing !== undefined) {
      existing.updateSettings(settings);
      return existing;
    }
    const directoryName = partitionDirectoryName(topic, partition);
    const former = this.#logsByDirectory.get(directoryName);
    if (former !== undefined) this.#inBackground(this.setAside(former.topicId, former.partition));
    const start = this.#checkpoints.takeStart(key);
    const log: Log = new Log(
      this.#context,
      { topicId, topic, partition, directoryName },
      settings,
      {
        segments: [],
        offsets: new LogOffsets({ logStart: start, highWatermark: start, logEnd: start }),
        epochs: new LeaderEpochCache(),
        producers: new ProducerStates(),
        damage: [],
        hasDirectory: false,
        isDirectoryDurable: true,
        wasCut: false,
      },
      () => this.#becameDirty(log),
      this.#leaving.get(directoryName),
    );
    log.logStartIsDurable(start);
    this.#add(log);
    this.#names.add(directoryName);
    return log;
  }

  /** All logs that belong here are created now: what else the checkpoint knows of was given up. */
  forgetStartsWithoutLog(): void {
    this.#checkpoints.forgetStartsWithoutLog();
  }

  /** The log is gone when this is called. Its directory is renamed when this resolves, and removed later. */
  async remove(topicId: TopicId, partition: number): Promise<void> {
    const renamed = await this.#rename(topicId, partition, "deleted");
    // Not before the checkpoints have forgotten it: to the next start it would be a log that was lost.
    if (renamed !== undefined)
      this.#inBackground(this.#checkpoints.now().then(() => this.env.files.removeTree(renamed)));
  }

  /** For a replica that should not be here: its directory is renamed and kept, for a person to decide. */
  async setAside(topicId: TopicId, partition: number): Promise<void> {
    const renamed = await this.#rename(topicId, partition, "leaving");
    // A stray replica says nothing of where its log is, if another one that came to this place should be lost one day. So it is
    // called one only when the checkpoints have forgotten it: until then the next start is to know that this log is not lost.
    if (renamed !== undefined)
      this.#inBackground(this.#checkpoints.now().then(() => this.#becomeStray(basename(renamed))));
  }

  async #becomeStray(leaving: string): Promise<void> {
    const { directory } = this.options;
    const stray = asideName(nameBefore(leaving, "leaving") ?? leaving, "stray", (name) => this.#names.has(name));
    this.#names.add(stray);
    await this.env.files.rename(join(directory, leaving), join(directory, stray));
    await this.env.files.syncDirectory(directory);
    this.#names.delete(leaving);
    this.logger.warn(`a replica that does not belong here was put aside as ${join(directory, stray)}`);
  }

  /** Flushes and closes all logs, writes the checkpoints and the mark of a clean stop. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#stopTimers();
    await this.#scrubber.stop();
    await Promise.allSettled(this.#leaving.values());
    try {
      await eachOf(this.#logs.values(), CLOSES_AT_ONCE, (log) => log.close());
      if (!this.#failed) {
        await this.#checkpoints.now();
        await markClean(this.env, this.options.directory, { stop: this.#untoldStop, cut: this.#untoldCut });
      }
    } finally {
      this.#closed = true;
      await Promise.all(this.#background);
      await this.#checkpoints.close();
      await this.#context.cache.close();
    }
  }

  /** Drops everything and writes nothing more, as a crash would; for tests. Files are closed a little later. */
  abandon(): void {
    this.#closed = true;
    this.#stopTimers();
    for (const log of this.#logs.values()) log.abandon();
    this.#inBackground(this.#closeAbandoned());
  }

  async #closeAbandoned(): Promise<void> {
    await this.#scrubber.stop();
    await Promise.all([...this.#logs.values()].map((log) => log.stop()));
    await this.#context.cache.close();
  }

  #add(log: Log): void {
    this.#logs.set(partitionKey(log.topicId, log.partition), log);
    this.#logsByDirectory.set(log.identity.directoryName, log);
  }

  async #recoverAll(lastRun: LastRun): Promise<void> {
    const { directory } = this.options;
    const checkpoints = await this.#checkpoints.read();
    const found = [...this.#names].filter((name) => parsePartitionDirectoryName(name) !== undefined);
    if (found.length > 0)
      this.logger.info(
        `recovering ${counted(found.length, "log")} in ${directory}; how the last run ended: ${lastRun.ended}`,
      );
    let done = 0;
    let toldMs = this.env.clock.monotonicMs();
    await eachOf(found, RECOVERIES_AT_ONCE, async (name) => {
      await this.#recover(name, lastRun, checkpoints);
      done += 1;
      const nowMs = this.env.clock.monotonicMs();
      if (nowMs - toldMs < PROGRESS_EVERY_MS) return;
      toldMs = nowMs;
      this.logger.info(`recovered ${done} of ${counted(found.length, "log")}`);
    });
    for (const [key, start] of checkpoints.logStarts ?? [])
      if (!this.#logs.has(key)) this.#checkpoints.keepStart(key, start);
    // Some log may begin earlier now than was promised.
    if (checkpoints.logStarts === undefined) this.#untoldStop = "lost";
    await this.#findLost(checkpoints);
  }

  async #findLost({ withRecords }: FoundCheckpoints): Promise<void> {
    const gone = [...withRecords].filter(([key]) => !this.#logs.has(key));
    if (gone.length === 0) return;
    const renamed = await this.#renamedLogs();
    for (const [key, offset] of gone) {
      if (renamed.has(key)) continue;
      this.#untoldStop = "lost";
      this.logger.error(`the log ${key} had records up to offset ${offset}, but its directory is gone`);
    }
  }

  /** Logs that the last run was about to remove, or to put aside. */
  async #renamedLogs(): Promise<ReadonlySet<PartitionKey>> {
    const renamed = new Set<PartitionKey>();
    for (const name of this.#names) {
      const was = parsePartitionDirectoryName(nameBefore(name, "deleted", "leaving") ?? "");
      if (was === undefined) continue;
      const topicId = await readPartitionMetadata(this.env.files, join(this.options.directory, name, METADATA_FILE));
      if (topicId !== undefined) renamed.add(partitionKey(topicId, was.partition));
    }
    return renamed;
  }

  /** The checkpoints have forgotten what the last run was about to remove, or to put aside. */
  #finishRenamed(): void {
    for (const name of [...this.#names]) {
      if (nameBefore(name, "deleted") !== undefined)
        this.#inBackground(this.env.files.removeTree(join(this.options.directory, name)));
      if (nameBefore(name, "leaving") !== undefined) this.#inBackground(this.#becomeStray(name));
    }
  }

  async #recover(directoryName: string, lastRun: LastRun, checkpoints: FoundCheckpoints): Promise<void> {
    const name = parsePartitionDirectoryName(directoryName);
    if (name === undefined) return;
    const path = join(this.options.directory, directoryName);
    const topicId = await readPartitionMetadata(this.env.files, join(path, METADATA_FILE));
    if (topicId === undefined) {
      await this.#setAsideUnknown(directoryName, path);
      return;
    }
    const key = partitionKey(topicId, name.partition);
    const settings = this.options.defaultSettings;
    const { env, logger } = this;
    const { syncs } = this.#context;
    const onLoss = (): Promise<void> => this.#noteLoss(lastRun);
    const content = await recoverLog(
      { env, logger, syncs, settings, lastStop: lastRun.ended, onLoss },
      path,
      checkpoints.of(key),
    );
    const wasCut = content.wasCut || lastRun.cut.has(key);
    if (wasCut) this.#untoldCut.add(key);
    const identity = { topicId, topic: name.topic, partition: name.partition, directoryName };
    const recovered = { ...content, wasCut };
    const log: Log = new Log(this.#context, identity, settings, recovered, () => this.#becameDirty(log));
    this.#add(log);
  }

  /**
   * Synced records lie behind the recovery point too, so what the disk has lost there may have been acknowledged for good. A
   * start that dies before the cluster has heard of it must not hide it.
   */
  #noteLoss({ cut, bootId }: LastRun): Promise<void> {
    this.#untoldStop = "lost";
    this.#lossMark ??= markRunning(this.env, this.options.directory, { stop: "lost", cut }, bootId);
    return this.#lossMark;
  }

  /** Nobody can tell which incarnation of the topic it belonged to; an empty one is what a crash left of a creation. */
  async #setAsideUnknown(directoryName: string, path: string): Promise<void> {
    const hasLog = (await this.env.files.list(path)).some((name) => parseSegmentFileName(name)?.kind === "log");
    if (!hasLog) {
      await this.env.files.removeTree(path);
      this.#names.delete(directoryName);
      return;
    }
    const aside = asideName(directoryName, "stray", (name) => this.#names.has(name));
    await this.env.files.rename(path, join(this.options.directory, aside));
    this.#names.delete(directoryName);
    this.#names.add(aside);
    this.logger.error(`${path} does not say which topic id it belongs to; it was put aside as ${aside}`);
  }

  async #rename(topicId: TopicId, partition: number, why: Aside): Promise<string | undefined> {
    const key = partitionKey(topicId, partition);
    const log = this.#logs.get(key);
    if (log === undefined) return undefined;
    log.abandon();
    this.#logs.delete(key);
    this.#logsByDirectory.delete(log.identity.directoryName);
    this.#dirtySinceMs.delete(log);
    const { directoryName } = log.identity;
    const aside = asideName(directoryName, why, (name) => this.#names.has(name));
    this.#names.delete(directoryName);
    this.#names.add(aside);
    const { files } = this.env;
    const from = join(this.options.directory, directoryName);
    const to = join(this.options.directory, aside);
    let existed = false;
    const leave = async (): Promise<void> => {
      // A log that was itself waiting for its predecessor to leave has no files yet.
      await this.#leaving.get(directoryName);
      await log.stop();
      existed = await files.exists(from);
      if (!existed) return;
      await files.rename(from, to);
      await files.syncDirectory(this.options.directory);
    };
    const leaving = leave();
    this.#leaving.set(directoryName, leaving);
    try {
      await leaving;
    } finally {
      if (this.#leaving.get(directoryName) === leaving) this.#leaving.delete(directoryName);
    }
    this.#checkpoints.soon();
    return existed ? to : undefined;
  }

  #inBackground(work: Promise<void>): void {
    const guarded = work
      .catch((error: unknown) => {
        if (error instanceof InvariantViolation) this.#context.onFatal(error);
        // What was closed meanwhile, as the log of a topic that was deleted, needs nothing any more.
        else if (!(error instanceof QueueClosed))
          this.logger.warn(`background work on ${this.options.directory} failed: ${reasonOf(error)}`);
      })
      .finally(() => this.#background.delete(guarded));
    this.#background.add(guarded);
  }

  #becameDirty(log: Log): void {
    const nowMs = this.env.clock.monotonicMs();
    this.#dirtySinceMs.set(log, nowMs);
    if (!this.#closed) this.#lookForFlushes(nowMs + log.settings.flushMs, nowMs);
  }

  #lookForFlushes(dueMs: number, nowMs: number): void {
    // Settings may become others meanwhile.
    this.#flushTimer.wakeAt(Math.min(dueMs, nowMs + FLUSH_LOOK_MS_MAX));
  }

  #flushDue(): void {
    const nowMs = this.env.clock.monotonicMs();
    for (const [log, sinceMs] of this.#dirtySinceMs) {
      const dueMs = sinceMs + log.settings.flushMs;
      if (dueMs > nowMs) {
        this.#lookForFlushes(dueMs, nowMs);
        continue;
      }
      this.#dirtySinceMs.delete(log);
      this.#inBackground(this.#flushes.run(() => log.flush()));
    }
  }

  #stopTimers(): void {
    this.#flushTimer.cancel();
    this.#checkpoints.stop();
  }
}

/** Runs the task for each item, a few at a time; rejects with the first failure when all that were begun have ended. */
async function eachOf<T>(items: Iterable<T>, atOnce: number, task: (item: T) => Promise<void>): Promise<void> {
  const waiting = [...items];
  let failure: { error: unknown } | undefined;
  const work = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined && failure === undefined; item = waiting.shift()) {
      try {
        await task(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  if (failure !== undefined) throw failure.error;
}
