import type { Logger } from "../../../../common/logger.js";
import { silentLogger } from "../../../../common/logger.js";
import type { LastStop } from "../../../../broker/log/files/last-stop.js";
import { readLastRun } from "../../../../broker/log/files/last-run.js";
import { LogManager } from "../../../../broker/log/log-manager.js";
import type { LogManagerOptions } from "../../../../broker/log/log-manager.js";
import type { LogSettings } from "../../../../broker/log/log-settings.js";
import type { Log, LogRead } from "../../../../broker/log/log.js";
import { BATCH_HEAD_BYTES_MAX, readBatches, writeBatchHead } from "../../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../../protocol/record-batch.js";
import { toOffset } from "../../../../protocol/types.js";
import type { Offset } from "../../../../protocol/types.js";
import { Simulation } from "../../../simulation/sim-env.js";
import type { SimProcess } from "../../../simulation/sim-process.js";

export const TOPIC_ID = "0f8fad5b-d9cb-469f-a165-70867728950e";
export const DIRECTORY = "/data";
/** The simulation's wall clock stands here or a little later; batches bear this time if they are given no other. */
export const WALL_MS = Date.UTC(2026, 0, 1);

export const SETTINGS: LogSettings = {
  segmentBytes: 128 * 1024 * 1024,
  segmentMs: 7 * 86_400_000,
  retentionMs: 7 * 86_400_000,
  retentionBytes: -1,
  durability: "page-cache",
  flushMs: 1_000,
  indexIntervalBytes: 4096,
  maxMessageBytes: 1024 * 1024,
  fileDeleteDelayMs: 60_000,
  producerIdExpirationMs: 86_400_000,
  producersMax: 1_000,
};

export interface BatchOptions {
  readonly records?: number;
  /** The first byte of each value, so that batches differ. */
  readonly mark?: number;
  readonly valueBytes?: number;
  readonly timestamp?: number;
  /** One for each record, in place of `timestamp`. */
  readonly timestamps?: readonly number[];
  readonly producerId?: number;
  readonly producerEpoch?: number;
  readonly baseSequence?: number;
  readonly attributes?: number;
}

/** A batch as a producer makes it: not stamped. */
export function batch(options: BatchOptions = {}): Buffer {
  const count = options.timestamps?.length ?? options.records ?? 1;
  const timestamps = options.timestamps ?? Array<number>(count).fill(options.timestamp ?? WALL_MS);
  const base = timestamps[0] ?? 0;
  const records: number[] = [];
  timestamps.forEach((timestamp, at) => {
    const value = Array<number>(options.valueBytes ?? 1).fill(options.mark ?? 0);
    const delta = timestamp - base;
    const zigzag = delta >= 0 ? delta * 2 : -delta * 2 - 1;
    const record = [0x08, ...varint(zigzag), 0x10, ...varint(at), 0x22, ...varint(value.length), ...value];
    records.push(0x0a, ...varint(record.length), ...record);
  });
  const buffer = Buffer.alloc(BATCH_HEAD_BYTES_MAX + records.length);
  buffer.set(records, BATCH_HEAD_BYTES_MAX);
  const start = writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, buffer.length, {
    attributes: options.attributes ?? 0,
    lastOffsetDelta: count - 1,
    baseTimestamp: base,
    maxTimestamp: Math.max(...timestamps),
    producerId: options.producerId ?? -1,
    producerEpoch: options.producerEpoch ?? (options.producerId === undefined ? -1 : 0),
    baseSequence: options.baseSequence ?? -1,
    recordCount: count,
  });
  return buffer.subarray(start);
}

/** A batch as a leader sends it. */
export function stampedBatch(baseOffset: number, epoch: number, options: BatchOptions = {}): Buffer {
  const bytes = batch(options);
  for (const view of readBatches(bytes)) view.stamp(toOffset(baseOffset), epoch);
  return bytes;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return [...bytes, rest];
}

export function offset(value: number): Offset {
  return toOffset(value);
}

/** What a read delivers, each batch verified as a consumer would. */
export async function readAll(log: Log, from: number = log.logStartOffset, end?: number): Promise<RecordBatch[]> {
  const found: RecordBatch[] = [];
  for (let at = toOffset(from); at < (end ?? log.logEndOffset);) {
    const read = await log.read(at, { maxBytes: 1000, ...(end === undefined ? {} : { end: toOffset(end) }) });
    const batches = batchesOf(read);
    if (batches.length === 0) break;
    found.push(...batches);
    at = (found.at(-1) as RecordBatch).endOffset;
  }
  return found;
}

export function batchesOf(read: LogRead): RecordBatch[] {
  const batches = readBatches(Buffer.concat(read.pieces));
  read.release();
  for (const view of batches) view.verify();
  return batches;
}

/** `base..end@epoch:mark` of each batch: what must be equal for two logs to be. */
export function summary(batches: readonly RecordBatch[]): string[] {
  return batches.map(
    (view) => `${view.baseOffset}-${view.lastOffset}@${view.leaderEpoch}:${view.buffer[view.end - 1]}`,
  );
}

type StartOptions = { settings?: Partial<LogSettings> } & Partial<LogManagerOptions>;

/** One simulated machine with a log directory, on which processes come and go. */
export class LogWorld {
  readonly simulation: Simulation;
  process: SimProcess;
  manager!: LogManager;
  readonly fatal: Error[] = [];
  readonly #lines: string[] = [];

  private constructor(seed: number) {
    this.simulation = new Simulation({ seed });
    this.process = this.simulation.startProcess("host");
  }

  static async open(options: { seed?: number; settings?: Partial<LogSettings> } & Partial<LogManagerOptions> = {}) {
    const world = new LogWorld(options.seed ?? 1);
    await world.start(options);
    return world;
  }

  get disk() {
    return this.simulation.host("host").disk;
  }

  /** Lines that were logged, `level sentence`. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** A start that does not come to its end: after so many milliseconds it is killed, or the power goes and comes back. */
  async startCutShort(afterMs: number, end: "kill" | "powerCut", options: StartOptions = {}): Promise<void> {
    const { env } = this.process;
    void LogManager.open(env, silentLogger, this.#options(options));
    await this.run(afterMs);
    this[end]();
  }

  async start(options: StartOptions = {}): Promise<void> {
    const { env } = this.process;
    this.manager = await this.complete(LogManager.open(env, this.#logger(), this.#options(options)));
  }

  /** What the next start would say of the last stop. */
  async lastStop(): Promise<LastStop> {
    return (await this.complete(readLastRun(this.process.env, DIRECTORY))).stop;
  }

  #options({ settings, ...rest }: StartOptions): LogManagerOptions {
    return {
      directory: DIRECTORY,
      defaultSettings: { ...SETTINGS, ...settings },
      tailBytesMax: 64 * 1024 * 1024,
      openFilesMax: 1,
      scrubBytesPerSecond: 0,
      onFatal: (error) => this.fatal.push(error),
      ...rest,
    };
  }

  log(settings: Partial<LogSettings> = {}): Log {
    return this.manager.get(TOPIC_ID, 0) ?? this.manager.create(TOPIC_ID, "orders", 0, { ...SETTINGS, ...settings });
  }

  complete<T>(work: Promise<T>, limitMs = 600_000): Promise<T> {
    return this.simulation.complete(work, limitMs);
  }

  run(ms: number): Promise<void> {
    return this.simulation.run(ms);
  }

  /** Reads the whole log. */
  contents(): Promise<string[]> {
    return this.complete(readAll(this.log()).then(summary));
  }

  async stopCleanly(): Promise<void> {
    await this.complete(this.manager.close());
    this.process.crash();
    this.process = this.simulation.startProcess("host");
  }

  /** kill -9: the page cache stays. */
  kill(): void {
    this.process.crash();
    this.process = this.simulation.startProcess("host");
  }

  powerCut(): void {
    const host = this.simulation.host("host");
    host.powerCut();
    host.powerOn();
    this.process = this.simulation.startProcess("host");
  }

  /** The power goes and comes back, and nothing is lost by it: the kernel had written everything back. */
  powerCutWithoutLoss(): void {
    this.disk.writeBack();
    this.powerCut();
  }

  #logger(): Logger {
    const write = (level: string) => (sentence: string) => void this.#lines.push(`${level} ${sentence}`);
    return {
      ...silentLogger,
      debug: write("debug"),
      info: write("info"),
      warn: write("warn"),
      error: write("error"),
    };
  }
}
