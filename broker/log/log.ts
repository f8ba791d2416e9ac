import { join } from "node:path";
import { invariant } from "../../common/assert.js";
import { StorageFailure } from "../../common/env/files.js";
import type { Timer } from "../../common/env/time.js";
import { reasonOf } from "../../common/logger.js";
import { SerialQueue } from "../../common/serial-queue.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RecordBatch } from "../../protocol/record-batch.js";
import { parseOffset, toOffset } from "../../protocol/types.js";
import type { LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import { checkProduced, checkReplicated, parseBatches } from "./append-checks.js";
import { writeCheckpoint } from "./checkpoint-file.js";
import type { LeaderEpochCache } from "./leader-epoch-cache.js";
import type { LogContext } from "./log-context.js";
import { LogDamage } from "./log-damage.js";
import type { LogOffsets } from "./log-offsets.js";
import type { LogSettings } from "./log-settings.js";
import { LogState } from "./log-state.js";
import { LogTail } from "./log-tail.js";
import { LogWaiters } from "./log-waiters.js";
import type { LogListener } from "./log-waiters.js";
import { EPOCHS_FILE, METADATA_FILE, encodePartitionMetadata } from "./partition-directory.js";
import { removeOldSnapshots, restoreSnapshot, takeSnapshot, writeSnapshot } from "./producer-snapshots.js";
import type { ProducerSnapshot } from "./producer-snapshots.js";
import { ProducerStates } from "./producer-states.js";
import { firstRecordAt } from "./record-times.js";
import type { RecordTime } from "./record-times.js";
import { expiredSegments, shouldRoll, wallClockJumped } from "./retention.js";
import type { ClockReading } from "./retention.js";
import { scanBatches, surveySegment } from "./segment-scan.js";
import type { DamagedRange } from "./segment-scan.js";
import { emptyRead, readFromSegment, UnreadableSegment } from "./segment-reader.js";
import type { LogRead } from "./segment-reader.js";
import { Segment, SegmentFiles } from "./segment.js";

export type { LogListener } from "./log-waiters.js";
export type { LogRead } from "./segment-reader.js";

/** The result of an append. */
export interface LogAppend {
  readonly baseOffset: Offset;
  /** One past the last offset. */
  readonly endOffset: Offset;
  /** The batch had been appended before; the offsets are the original's. */
  readonly duplicate: boolean;
  /**
   * Resolves when the batches are written (with `fsync`: on disk); undefined when they are. Rejects with ApiError
   * STORAGE_ERROR when they could not be written and are not in the log.
   */
  readonly written: Promise<void> | undefined;
}

/** What recovery found, and a new log begins with. */
export interface LogContent {
  /** In order; the last one is active and has its files open. Empty: there are no files yet. */
  readonly segments: Segment[];
  readonly offsets: LogOffsets;
  readonly epochs: LeaderEpochCache;
  readonly producers: ProducerStates;
  readonly damage: readonly DamagedRange[];
  readonly wasCut: boolean;
}

interface QueuedWrite {
  readonly segment: Segment;
  readonly files: SegmentFiles;
  readonly piece: Buffer;
  readonly endOffset: Offset;
}

/** A write that took longer turns the log to queued writes: the disk would hold up the event loop. */
const SLOW_WRITE_MS = 1;
/** For so long at first; doubled each time that the first write after it is slow again. */
const QUEUED_MS_MIN = 1_000;
const QUEUED_MS_MAX = 8_000;
/** One gathered write takes no more than this. */
const GATHERED_BYTES_MAX = 8 * 1024 * 1024;
const GATHERED_PIECES_MAX = 512;
/** A flush begins when so many bytes wait for it, whatever the interval: recovery scans little. */
const UNFLUSHED_BYTES_MAX = 32 * 1024 * 1024;
/** After so many bytes indexes and producers are written, so that recovery need not read the whole segment. */
const SIDECAR_INTERVAL_BYTES = 16 * 1024 * 1024;
const TAIL_BYTES_PER_LOG_MAX = 16 * 1024 * 1024;
/**
 * One replica of one partition on this disk: a sequence of batches, kept in segments.
 *
 * One writer: appends take their place synchronously, and are written in that order. An idle log on a quick disk is
 * written to in the caller's turn of the event loop; otherwise batches queue while a write is in flight and then leave as
 * one gathered write. The log end offset covers what is written and nothing else. Everything that changes files in
 * another way (flush, truncation, retention, healing) goes through one queue of its own, one after the other.
 *
 * It keeps the order of its offsets (LogOffsets), never serves bytes it knows to be damaged, and never repeats a failed
 * sync. It knows nothing of leaders, replicas and requests: Partition does.
 */
export class Log {
  #settings: LogSettings;
  #settingsGiven: boolean;
  readonly #segments: Segment[];
  readonly #offsets: LogOffsets;
  readonly #epochs: LeaderEpochCache;
  #producers: ProducerStates;
  readonly #damage: LogDamage;
  readonly #tail: LogTail;
  readonly #directory: string;
  readonly #maintenance: SerialQueue;
  readonly #state: LogState;
  readonly #waiters: LogWaiters;

  readonly #queue: QueuedWrite[] = [];
  #writing = false;
  #idleWaiters: (() => void)[] = [];
  #queuedUntilMs = 0;
  #queuedMs = QUEUED_MS_MIN;
  #syncing = false;

  /** Counts cuts, so that a read that was under way notices one. */
  #cuts = 0;
  #epochsChanged = false;
  #directoryChanged = false;
  #parentDirectoryChanged = false;
  /** The log start has moved without the checkpoint knowing; it must before the flushed offset moves beyond it. */
  #startChanged = false;
  #metadataFile: { sync(): Promise<void>; close(): Promise<void> } | undefined;
  #snapshots: ProducerSnapshot[] = [];
  #sidecarBytes = 0;
  #unflushedBytes = 0;
  #dirty = false;
  #lastRetention: ClockReading;
  readonly #removals = new Map<string, Timer>();

  /** For LogManager. `blockedUntil`: files of a former incarnation still bear the directory's name. */
  constructor(
    private readonly context: LogContext,
    readonly identity: {
      readonly topicId: TopicId;
      readonly topic: string;
      readonly partition: number;
      readonly directoryName: string;
    },
    settings: { readonly settings: LogSettings; readonly given: boolean },
    content: LogContent,
    blockedUntil?: Promise<void>,
  ) {
    const name = identity.directoryName;
    this.#waiters = new LogWaiters(context.env.timers);
    this.#state = new LogState(context, name, this.#waiters, blockedUntil);
    this.#damage = new LogDamage(name, context.logger, this.#waiters, content.damage);
    this.#settings = settings.settings;
    this.#settingsGiven = settings.given;
    this.#segments = content.segments;
    this.#offsets = content.offsets;
    this.#epochs = content.epochs;
    this.#producers = content.producers;
    this.wasCut = content.wasCut;
    this.#tail = new LogTail(context.tailBudget, TAIL_BYTES_PER_LOG_MAX);
    this.#directory = join(context.directory, identity.directoryName);
    this.#lastRetention = { wallMs: context.env.clock.wallMs(), monotonicMs: context.env.clock.monotonicMs() };
    this.#maintenance = new SerialQueue(`log ${identity.directoryName}`);
  }

  /** Recovery at this start cut records off: this replica may lack what others have. */
  readonly wasCut: boolean;

  get topicId(): TopicId {
    return this.identity.topicId;
  }
  get topic(): string {
    return this.identity.topic;
  }
  get partition(): number {
    return this.identity.partition;
  }
  get settings(): LogSettings {
    return this.#settings;
  }
  get logStartOffset(): Offset {
    return this.#offsets.logStart;
  }
  /** End of what is written, and so of what may be read. */
  get logEndOffset(): Offset {
    return this.#offsets.logEnd;
  }
  /** What is below it survives a power cut. */
  get flushedOffset(): Offset {
    return this.#offsets.flushed;
  }
  get highWatermark(): Offset {
    return this.#offsets.highWatermark;
  }
  /** The newest leader epoch that this log has heard of; undefined when it never had a record. */
  get lastEpoch(): LeaderEpoch | undefined {
    return this.#epochs.latest;
  }
  /** Offsets below the flushed point that cannot be read: never served, kept until a truncation replaces them. */
  get damage(): readonly DamagedRange[] {
    return this.#damage.ranges;
  }
  /** Whether appends are taken now; false while the disk is full, during a truncation, after a failure. */
  get isWritable(): boolean {
    return this.#state.isWritable;
  }
  /** Bytes of the batches on disk. */
  get sizeBytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.sizeBytes, 0);
  }

  updateSettings(settings: LogSettings): void {
    this.#settings = settings;
    this.#settingsGiven = true;
  }

  /** There is one listener; a new one replaces the old. */
  setListener(listener: LogListener | undefined): void {
    this.#waiters.listener = listener;
  }

  /**
   * Checks the batches, gives them offsets, stamps them in place and writes or queues them. `records` may be used again
   * once they are written. An idempotent producer sends one batch at a time.
   * Throws ApiError INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER,
   * DUPLICATE_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, STORAGE_ERROR: then nothing was appended.
   */
  appendAsLeader(records: Buffer, leaderEpoch: LeaderEpoch): LogAppend {
    this.#state.assertWritable();
    const { latest } = this.#epochs;
    invariant(
      latest === undefined || leaderEpoch >= latest,
      () => `${this.identity.directoryName}: append at leader epoch ${leaderEpoch}, but the log has epoch ${latest}`,
    );
    const batches = parseBatches(records);
    const wallMs = this.context.env.clock.wallMs();
    for (const batch of batches) checkProduced(batch, wallMs, this.#settings.maxMessageBytes);
    const [only] = batches as [RecordBatch, ...RecordBatch[]];
    if (batches.some((batch) => batch.producerId >= 0)) {
      if (batches.length > 1)
        throw new ApiError("INVALID_RECORD", "an idempotent producer sends one batch for a partition in a request");
      const earlier = this.#producers.check(only, wallMs, this.#settings);
      if (earlier !== undefined) return { ...earlier, duplicate: true, written: this.#whenWritten(earlier.endOffset) };
    }
    let offset = this.#offsets.next;
    for (const batch of batches) {
      const endOffset = parseOffset(offset + batch.recordCount);
      if (endOffset === undefined) throw new ApiError("INVALID_RECORD", "the log has no offsets left");
      batch.stamp(offset, leaderEpoch);
      offset = endOffset;
    }
    return this.#append(records, batches, wallMs);
  }

  /**
   * Appends batches as the leader stamped them. Both checksums are checked, base offsets are not below the log end (an
   * empty log takes any), epochs do not descend. `records` may be used again once they are written. Throws ApiError
   * CORRUPT_MESSAGE, INVALID_RECORD, STORAGE_ERROR: then nothing was appended.
   */
  appendAsFollower(records: Buffer): LogAppend {
    this.#state.assertWritable();
    const batches = parseBatches(records);
    const [first] = batches as [RecordBatch, ...RecordBatch[]];
    const isEmpty = this.#isEmpty;
    if (isEmpty && first.endOffset <= this.#offsets.next)
      throw new ApiError("INVALID_RECORD", `the batch at offset ${first.baseOffset} ends before the log start`);
    checkReplicated(batches, isEmpty ? first.baseOffset : this.#offsets.next, this.#epochs.latest);
    // An empty log goes where the leader's first batch is. That one may hold offsets before the log start: they are in the
    // file and are not served.
    if (isEmpty && first.baseOffset > this.#offsets.next) this.#startAt(first.baseOffset);
    if (isEmpty && first.baseOffset !== this.#segments[0]?.baseOffset) {
      // Its file stays behind empty and is removed by the next recovery, if no segment takes its name before.
      for (const segment of this.#segments.splice(0)) void segment.files?.retire();
    }
    return this.#append(records, batches, this.context.env.clock.wallMs());
  }

  /** The batches have their place and are good; nothing after the planning may refuse them. */
  #append(records: Buffer, batches: readonly RecordBatch[], wallMs: number): LogAppend {
    const first = batches[0] as RecordBatch;
    const last = batches[batches.length - 1] as RecordBatch;
    const writes = this.#plan(records, batches);
    const { baseOffset } = first;
    const { endOffset } = last;
    this.#offsets.plannedTo(endOffset);
    for (const batch of batches) {
      if (this.#epochs.assign(batch.leaderEpoch, batch.baseOffset)) this.#epochsChanged = true;
      this.#producers.update(batch, wallMs, this.#settings);
    }
    this.#tail.append(baseOffset, endOffset, records);
    if (this.#mayWriteNow()) this.#writeNow(writes, endOffset);
    else {
      this.#queue.push(...writes);
      if (!this.#writing) void this.#writeQueued();
    }
    return { baseOffset, endOffset, duplicate: false, written: this.#whenWritten(endOffset) };
  }

  /** Lays the batches out over segments. Throws ApiError STORAGE_ERROR and leaves everything as it was. */
  #plan(records: Buffer, batches: readonly RecordBatch[]): QueuedWrite[] {
    const writes: QueuedWrite[] = [];
    const segmentsBefore = this.#segments.length;
    const activeBefore = this.#segments.at(-1);
    const before = activeBefore && {
      offset: activeBefore.endOffset,
      position: activeBefore.plannedBytes,
      sizeBytes: activeBefore.sizeBytes,
      syncedBytes: activeBefore.syncedBytes,
    };
    try {
      let segment = activeBefore ?? this.#createFirstSegment((batches[0] as RecordBatch).baseOffset);
      let start = 0;
      for (const batch of batches) {
        if (shouldRoll(segment.rollFacts, batch, this.#settings)) {
          if (batch.start > start) writes.push(queuedWrite(segment, records.subarray(start, batch.start)));
          start = batch.start;
          segment = this.#createSegment(segment.endOffset);
        }
        segment.plan(batch, filesOf(segment), this.#settings.indexIntervalBytes);
      }
      writes.push(queuedWrite(segment, records.subarray(start)));
    } catch (error) {
      if (!(error instanceof StorageFailure)) throw error;
      for (const segment of this.#segments.splice(segmentsBefore)) void segment.files?.retire();
      if (activeBefore !== undefined && before !== undefined) activeBefore.cut(before.offset, before.position);
      throw this.#state.refusal(error);
    }
    if (this.#segments.length > segmentsBefore) {
      // The producers as of the new segment's base: the batches of this append are not in yet, so it must begin with them.
      const active = this.#segments.at(-1) as Segment;
      if (active.baseOffset === this.#offsets.next)
        this.#snapshots.push(takeSnapshot(this.#producers, active.baseOffset));
      if (segmentsBefore > 0) this.#flushInBackground();
    }
    return writes;
  }

  #mayWriteNow(): boolean {
    return (
      !this.#writing &&
      this.#queue.length === 0 &&
      !this.#syncing &&
      this.context.env.clock.monotonicMs() >= this.#queuedUntilMs
    );
  }

  #writeNow(writes: readonly QueuedWrite[], endOffset: Offset): void {
    const { clock } = this.context.env;
    const startedMs = clock.monotonicMs();
    try {
      for (const write of writes) {
        write.files.file.writeSync([write.piece], write.segment.sizeBytes);
        write.segment.sizeBytes += write.piece.length;
        this.#unflushedBytes += write.piece.length;
      }
    } catch (error) {
      throw this.#writeFailed(error);
    }
    const endedMs = clock.monotonicMs();
    if (endedMs - startedMs > SLOW_WRITE_MS) {
      this.#queuedUntilMs = endedMs + this.#queuedMs;
      this.#queuedMs = Math.min(this.#queuedMs * 2, QUEUED_MS_MAX);
    } else this.#queuedMs = QUEUED_MS_MIN;
    this.#wroteTo(endOffset);
  }

  async #writeQueued(): Promise<void> {
    this.#writing = true;
    try {
      for (let group = this.#nextGroup(); group !== undefined; group = this.#nextGroup()) {
        const { segment, files, endOffset } = group;
        await files.use(({ file }) => file.write(group.pieces, segment.sizeBytes));
        if (!this.#state.isHealthy) return;
        segment.sizeBytes += group.bytes;
        this.#unflushedBytes += group.bytes;
        this.#wroteTo(endOffset);
        this.#waiters.listener?.onWritten();
      }
    } catch (error) {
      this.#writeFailed(error);
    } finally {
      this.#writing = false;
      if (this.#queue.length > 0 && this.#state.isHealthy) void this.#writeQueued();
      else for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
  }

  /** The next writes that go to one file, as one. */
  #nextGroup():
    { segment: Segment; files: SegmentFiles; pieces: Buffer[]; bytes: number; endOffset: Offset } | undefined {
    const [first] = this.#queue;
    if (first === undefined) return undefined;
    const group = {
      segment: first.segment,
      files: first.files,
      pieces: [] as Buffer[],
      bytes: 0,
      endOffset: first.endOffset,
    };
    let taken = 0;
    for (const write of this.#queue) {
      const fits = group.bytes + write.piece.length <= GATHERED_BYTES_MAX && taken < GATHERED_PIECES_MAX;
      if (write.segment !== group.segment || (taken > 0 && !fits)) break;
      group.pieces.push(write.piece);
      group.bytes += write.piece.length;
      group.endOffset = write.endOffset;
      taken += 1;
    }
    this.#queue.splice(0, taken);
    return group;
  }

  #wroteTo(endOffset: Offset): void {
    this.#offsets.writtenTo(endOffset);
    this.#waiters.writtenTo(endOffset);
    if (this.#settings.durability === "fsync") {
      if (!this.#syncing) void this.#syncWhatIsWritten();
    } else if (!this.#dirty) {
      this.#dirty = true;
      this.context.becameDirty(this);
    }
    if (this.#unflushedBytes > UNFLUSHED_BYTES_MAX) {
      this.#unflushedBytes = 0;
      this.#flushInBackground();
      this.context.checkpointSoon();
    }
  }

  /** Group commit: one sync for all that was written before it, again until nothing is left. */
  async #syncWhatIsWritten(): Promise<void> {
    this.#syncing = true;
    try {
      // A full disk syncs as well as any.
      while (this.#offsets.flushed < this.#offsets.logEnd && !this.#state.hasEnded) await this.flush();
    } catch (error) {
      // Who waits for the sync was told by the flush itself.
      this.context.logger.warn(`${this.identity.directoryName}: flush failed: ${reasonOf(error)}`);
    } finally {
      this.#syncing = false;
    }
  }

  /** Undefined when what ends here is written already, as the durability demands. */
  #whenWritten(endOffset: Offset): Promise<void> | undefined {
    const { logEnd, flushed } = this.#offsets;
    if (this.#settings.durability === "fsync")
      return endOffset <= flushed ? undefined : this.#waiters.whenFlushed(endOffset);
    return endOffset <= logEnd ? undefined : this.#waiters.whenWritten(endOffset);
  }

  get #isEmpty(): boolean {
    return this.#segments.length === 0 || (this.#segments.length === 1 && this.#segments[0]?.plannedBytes === 0);
  }

  #createFirstSegment(baseOffset: Offset): Segment {
    const { files } = this.context.env;
    files.makeDirectorySync(this.#directory);
    void this.#metadataFile?.close();
    const metadata = files.openSync(join(this.#directory, METADATA_FILE), "create");
    const content = Buffer.from(encodePartitionMetadata(this.topicId));
    if (metadata.size() > content.length) metadata.truncateSync(content.length);
    metadata.writeSync([content], 0);
    this.#metadataFile = metadata;
    this.#parentDirectoryChanged = true;
    return this.#createSegment(baseOffset);
  }

  #createSegment(baseOffset: Offset): Segment {
    const segment = Segment.create(this.context.env.files, this.#directory, baseOffset);
    this.#directoryChanged = true;
    this.#segments.push(segment);
    return segment;
  }

  /** The segment whose offsets hold this one. */
  #segmentIndexOf(offset: Offset): number {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#segments[middle] as Segment).baseOffset <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  #withFiles<T>(segment: Segment, task: (files: SegmentFiles) => Promise<T>): Promise<T> {
    const open = (): ReturnType<Segment["open"]> => segment.open(this.#settings.indexIntervalBytes);
    return this.context.cache.use(segment, open, (damage) => this.#damage.add(damage), task);
  }

  async #dropSegment(segment: Segment): Promise<void> {
    this.context.cache.release(segment);
    await segment.files?.retire();
    segment.files = undefined;
    await segment.removeFiles();
  }

  #startAt(offset: Offset): void {
    this.#offsets.startAt(offset);
    this.#startChanged = true;
  }

  /**
   * A write failed, and may have left anything behind the last good byte. Nothing that was not written stays in memory;
   * the file is cut before anything is appended again, or a valid batch of the failed write could come back to life behind
   * a shorter one. Returns the error for who waits.
   */
  #writeFailed(error: unknown): ApiError {
    const failure = error instanceof StorageFailure ? error : undefined;
    const refusal = this.#state.refusal(failure ?? reasonOf(error));
    if (!this.#state.isHealthy) return refusal;
    this.#queue.length = 0;
    this.#waiters.rejectUnwritten(this.#offsets.logEnd, refusal);
    if (failure?.reason !== "full" && failure?.reason !== "too-many-open-files") {
      this.#state.fail(error);
      return refusal;
    }
    this.#state.becomeFull(failure, refusal);
    const dropped = this.#dropPlanned();
    this.#maintenance
      .run(() => this.#cutBack(dropped))
      .then(
        () => this.#state.awaitSpace(() => this.#settings.maxMessageBytes),
        (cause: unknown) => this.#state.fail(cause),
      );
    return refusal;
  }

  /** Takes back, in memory, all that was planned and not written. Returns segments that have no batch left. */
  #dropPlanned(): Segment[] {
    const { logEnd } = this.#offsets;
    this.#offsets.dropPlanned();
    this.#cuts += 1;
    this.#tail.cutEnd(logEnd);
    if (this.#epochs.cutEnd(logEnd)) this.#epochsChanged = true;
    this.#snapshots = this.#snapshots.filter((snapshot) => snapshot.offset <= logEnd);
    const dropped: Segment[] = [];
    for (let last = this.#segments.at(-1); last?.sizeBytes === 0; last = this.#segments.at(-1)) {
      dropped.push(last);
      this.#segments.pop();
    }
    return dropped;
  }

  /** The same on disk. */
  async #cutBack(dropped: readonly Segment[]): Promise<void> {
    await this.#drained();
    for (const segment of dropped) await this.#dropSegment(segment);
    const active = this.#segments.at(-1);
    if (active !== undefined) await this.#cutFile(active, this.#offsets.logEnd, active.sizeBytes);
    await this.#restoreProducers();
  }

  /** Resolves when no write is queued or in flight. */
  #drained(): Promise<void> {
    if (!this.#writing && this.#queue.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Makes durable what is written now; the flushed offset follows. A failed sync stops the process. */
  flush(): Promise<void> {
    return this.#maintenance.run(() => this.#flushNow());
  }

  #flushInBackground(): void {
    this.flush().catch((error: unknown) => {
      if (!this.#state.isClosed)
        this.context.logger.warn(`${this.identity.directoryName}: flush failed: ${reasonOf(error)}`);
    });
  }

  async #flushNow(): Promise<void> {
    if (this.#state.hasEnded) return;
    const target = this.#offsets.logEnd;
    this.#dirty = false;
    this.#unflushedBytes = 0;
    for (const segment of this.#segments.filter((candidate) => candidate.syncedBytes < candidate.sizeBytes)) {
      const bytes = segment.sizeBytes;
      await this.#state.syncOrFail(() => filesOf(segment).use(({ file }) => file.sync()));
      segment.syncedBytes = bytes;
    }
    try {
      await this.#flushSidecars();
    } catch (error) {
      this.#becameDirtyAgain();
      throw error;
    }
    if (this.#offsets.flushed >= target) return;
    this.#offsets.flushedTo(target);
    this.context.checkpointSoon();
    this.#waiters.flushedTo(target);
  }

  /** All that must be on disk, and need not be, before the flushed offset says that the batches are. */
  async #flushSidecars(): Promise<void> {
    const { files } = this.context.env;
    const metadata = this.#metadataFile;
    if (metadata !== undefined) {
      await this.#state.syncOrFail(() => metadata.sync());
      this.#metadataFile = undefined;
      await metadata.close();
    }
    if (this.#epochsChanged && this.#segments.length > 0) {
      this.#epochsChanged = false;
      try {
        await writeCheckpoint(files, join(this.#directory, EPOCHS_FILE), this.#epochs.toLines());
      } catch (error) {
        this.#epochsChanged = true;
        throw error;
      }
    }
    if (this.#directoryChanged) {
      this.#directoryChanged = false;
      await this.#state.syncOrFail(() => files.syncDirectory(this.#directory));
    }
    if (this.#parentDirectoryChanged) {
      this.#parentDirectoryChanged = false;
      await this.#state.syncOrFail(() => files.syncDirectory(this.context.directory));
    }
    if (this.#startChanged) {
      await this.context.checkpointNow();
      this.#startChanged = false;
    }
    const active = this.#segments.at(-1);
    for (const segment of this.#segments) {
      if (segment === active || segment.sealed || segment.files === undefined) continue;
      // It may have been active still when this flush looked what to sync.
      if (segment.syncedBytes < segment.plannedBytes) continue;
      await segment.seal(segment.files);
      this.context.cache.adopt(segment, segment.files);
    }
    for (let snapshot = this.#snapshots.shift(); snapshot !== undefined; snapshot = this.#snapshots.shift())
      await writeSnapshot(files, this.#directory, snapshot);
    if (active === undefined || active.plannedBytes - this.#sidecarBytes < SIDECAR_INTERVAL_BYTES) {
      if (active !== undefined && active.plannedBytes < this.#sidecarBytes) this.#sidecarBytes = 0;
      return;
    }
    this.#sidecarBytes = active.plannedBytes;
    const snapshot = takeSnapshot(this.#producers, this.#offsets.next);
    await active.writeIndexes(filesOf(active));
    await writeSnapshot(files, this.#directory, snapshot);
    await removeOldSnapshots(files, this.#directory, (offset) =>
      this.#segments.some((segment) => segment.baseOffset === offset),
    );
  }

  #becameDirtyAgain(): void {
    if (this.#dirty || this.#state.isClosed) return;
    this.#dirty = true;
    this.context.becameDirty(this);
  }

  /**
   * Whole batches from the one that holds `from`, below `end` (the log end if not given), at most `maxBytes` but at least
   * one (KIP-74); nothing when there is none yet. At once when the tail has them, else by a promise. Checks no checksum.
   * Throws or rejects with ApiError OFFSET_OUT_OF_RANGE, or CORRUPT_LOG when `from` is known to be damaged.
   */
  read(from: Offset, options: { readonly maxBytes: number; readonly end?: Offset }): LogRead | Promise<LogRead> {
    if (from < this.#offsets.logStart || from > this.#offsets.logEnd)
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.identity.directoryName}: offset ${from} is not in ${this.#offsets.logStart} to ${this.#offsets.logEnd}`,
      );
    const limit = options.end === undefined || options.end > this.#offsets.logEnd ? this.#offsets.logEnd : options.end;
    const end = this.#damage.undamagedEnd(from, limit);
    if (from >= end) return emptyRead;
    const inMemory = this.#tail.read(from, end, options.maxBytes);
    if (inMemory !== undefined) return inMemory;
    return this.#readFiles(from, end, options);
  }

  /**
   * At least so many bytes of batches lie between the offsets; all of them may be more. Infinite when they are not all in
   * memory: whoever waits for a minimum need not wait then.
   */
  bytesBetween(from: Offset, end: Offset): number {
    if (from >= end) return 0;
    return this.#tail.bytesBetween(from, end) ?? Number.POSITIVE_INFINITY;
  }

  async #readFiles(
    from: Offset,
    end: Offset,
    options: { readonly maxBytes: number; readonly end?: Offset },
    isRetry = false,
  ): Promise<LogRead> {
    const cuts = this.#cuts;
    const { pool } = this.context;
    let segment: Segment | undefined;
    try {
      for (let at = this.#segmentIndexOf(from); ; at += 1) {
        segment = this.#segments[at];
        if (segment === undefined || segment.baseOffset >= end) return emptyRead;
        const source = segment;
        const read = await this.#withFiles(source, (files) =>
          readFromSegment(source, files, pool, { from, end, maxBytes: options.maxBytes }),
        );
        if (this.#cuts !== cuts) {
          read?.release();
          return await this.read(from, options);
        }
        if (read !== undefined) return read;
        // Opening the segment may have shown that what should be here is lost.
        this.#damage.undamagedEnd(from, end);
      }
    } catch (error) {
      if (this.#cuts !== cuts) return this.read(from, options);
      if (error instanceof StorageFailure) {
        // Retention may have removed the segment between the look and the opening.
        if (segment !== undefined && !this.#segments.includes(segment)) return this.read(from, options);
        throw this.#state.refusal(error);
      }
      if (!(error instanceof UnreadableSegment)) throw error;
      const found = await this.verifyRange(from);
      if (found.length > 0 && !isRetry)
        return await this.#readFiles(from, this.#damage.undamagedEnd(from, end), options, true);
      throw new ApiError(
        "CORRUPT_LOG",
        `${this.identity.directoryName}: offset ${from} cannot be read: ${error.message}`,
        {
          cause: error,
        },
      );
    }
  }

  /**
   * Reads the disk again where someone got a bad batch. Returns the damage that this finds, and from then on does not serve
   * it; nothing when the disk is innocent.
   */
  async verifyRange(from: Offset): Promise<readonly DamagedRange[]> {
    const segment = this.#segments[this.#segmentIndexOf(from)];
    if (segment === undefined) return [];
    const damage = await this.verifySegment(segment.baseOffset);
    return damage.filter((range) => range.to > from);
  }

  /** Base offsets of the segments that no append changes any more. */
  closedSegments(): Offset[] {
    return this.#segments.slice(0, -1).map((segment) => segment.baseOffset);
  }

  /** Checks every checksum of a segment, as slowly as `pace` says. What it finds is not served from then on. */
  async verifySegment(baseOffset: Offset, pace?: (bytes: number) => Promise<void>): Promise<readonly DamagedRange[]> {
    const segment = this.#segments.find((candidate) => candidate.baseOffset === baseOffset);
    if (segment === undefined || segment.sizeBytes === 0) return [];
    const cuts = this.#cuts;
    const end = segment === this.#segments.at(-1) ? this.#offsets.logEnd : segment.endOffset;
    const endPosition = segment.sizeBytes;
    const file = await this.context.env.files.open(segment.path("log"), "read");
    try {
      const survey = await surveySegment(
        file,
        { position: 0, endPosition, offset: baseOffset },
        end,
        () => undefined,
        pace,
      );
      // A cut or a removal in the meantime changed what the bytes should be.
      if (this.#cuts !== cuts || survey.damage.length === 0) return [];
      if (segment !== this.#segments.at(-1)) await this.#rebuildIndexes(segment);
      this.#damage.add(survey.damage);
      return survey.damage;
    } finally {
      await file.close();
    }
  }

  /** With the next use the indexes of a closed segment are made anew, with an entry behind each damaged range. */
  async #rebuildIndexes(segment: Segment): Promise<void> {
    this.context.cache.release(segment);
    const files = segment.files;
    segment.files = undefined;
    await this.context.env.files.remove(segment.path("index"));
    await files?.retire();
  }

  /** The greatest known epoch that is not greater than the asked one, and the offset where it ends. */
  endOffsetForEpoch(epoch: LeaderEpoch): { epoch: LeaderEpoch; endOffset: Offset } | undefined {
    return this.#epochs.endOffsetFor(epoch, this.#offsets.logEnd);
  }

  /** A new leader's first record will have this offset. */
  assignEpochStart(epoch: LeaderEpoch, startOffset: Offset): void {
    if (this.#epochs.assign(epoch, startOffset)) this.#epochsChanged = true;
  }

  /** The first record below `end` whose timestamp is this or later. */
  async offsetForTimestamp(timestamp: number, end: Offset): Promise<RecordTime | undefined> {
    const cuts = this.#cuts;
    for (const segment of [...this.#segments]) {
      if (segment.baseOffset >= end || this.#cuts !== cuts) break;
      if (segment.endOffset <= this.#offsets.logStart) continue;
      const found = await this.#withFiles(segment, (files) => this.#searchTime(segment, files, timestamp, end));
      if (found !== undefined) return found;
    }
    return this.#cuts === cuts ? undefined : this.offsetForTimestamp(timestamp, end);
  }

  async #searchTime(
    segment: Segment,
    files: SegmentFiles,
    timestamp: number,
    end: Offset,
  ): Promise<RecordTime | undefined> {
    if (segment.maxTimestamp < timestamp) return undefined;
    const indexed = files.index.floor(files.timeIndex.searchStart(timestamp));
    const start = {
      position: indexed?.position ?? 0,
      offset: toOffset(segment.baseOffset + (indexed?.relativeOffset ?? 0)),
      endPosition: segment.sizeBytes,
    };
    let found: RecordTime | undefined;
    await surveySegment(files.file, start, segment.endOffset, (batch) => {
      if (found === undefined && batch.endOffset <= end)
        found = firstRecordAt(batch, timestamp, this.#offsets.logStart);
    });
    return found;
  }

  /** All in-sync replicas have what is below it. Never moves back; not beyond the log end. */
  advanceHighWatermark(offset: Offset): void {
    if (this.#offsets.advanceHighWatermark(offset)) this.context.checkpointSoon();
  }

  /**
   * Records below it are gone, durably when this resolves; their segments follow. Rejects with ApiError OFFSET_OUT_OF_RANGE
   * above the high watermark.
   */
  async advanceLogStart(offset: Offset): Promise<void> {
    if (offset > this.#offsets.highWatermark)
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.identity.directoryName}: log start cannot be ${offset}, behind the high watermark ${this.#offsets.highWatermark}`,
      );
    if (!this.#offsets.advanceLogStart(offset)) return;
    if (this.#epochs.cutStart(offset)) this.#epochsChanged = true;
    this.#damage.cutStart(offset);
    await this.context.checkpointNow();
    await this.#maintenance.run(() =>
      this.#removeOldest(expiredSegments(this.#segments, this.#bounds, { retentionMs: -1, retentionBytes: -1 }, 0)),
    );
  }

  /**
   * Deletes what the settings say is too old or too much, never above the high watermark. Resolves with how many segments.
   * Does nothing before the log was given its own settings, and nothing once after the wall clock was set.
   */
  applyRetention(wallMs: number): Promise<number> {
    const before = this.#lastRetention;
    this.#lastRetention = { wallMs, monotonicMs: this.context.env.clock.monotonicMs() };
    if (wallClockJumped(before, this.#lastRetention)) {
      this.context.logger.warn(
        `${this.identity.directoryName}: the wall clock was set by more than 5 minutes; retention is skipped once`,
      );
      return Promise.resolve(0);
    }
    if (!this.#settingsGiven) return Promise.resolve(0);
    return this.#maintenance.run(async () => {
      if (this.#state.hasEnded) return 0;
      for (;;) {
        const facts = this.#segments.map((segment) => ({
          endOffset: segment.endOffset,
          sizeBytes: segment.sizeBytes,
          // Unknown until its indexes are read: decided as if it had just been written, then read, then decided again.
          maxTimestamp: segment.timesKnown ? segment.maxTimestamp : wallMs,
        }));
        const expired = expiredSegments(facts, this.#bounds, this.#settings, wallMs);
        const next = this.#segments[expired];
        if (next === undefined || next.timesKnown || this.#settings.retentionMs < 0) {
          await this.#removeOldest(expired);
          return expired;
        }
        await this.#withFiles(next, () => Promise.resolve());
        next.timesKnown = true;
      }
    });
  }

  get #bounds(): { logStartOffset: Offset; highWatermark: Offset } {
    return { logStartOffset: this.#offsets.logStart, highWatermark: this.#offsets.highWatermark };
  }

  async #removeOldest(count: number): Promise<void> {
    if (count === 0) return;
    if (count === this.#segments.length) {
      // Even the active one is too old. Nobody may be writing to it.
      if (this.#writing || this.#queue.length > 0) return;
      const { next } = this.#offsets;
      this.#createSegment(next);
      this.#snapshots.push(takeSnapshot(this.#producers, next));
      await this.#flushNow();
    }
    const removed = this.#segments.splice(0, count);
    const first = this.#segments[0] as Segment;
    this.#offsets.advanceLogStart(first.baseOffset);
    if (this.#epochs.cutStart(this.#offsets.logStart)) this.#epochsChanged = true;
    this.#damage.cutStart(this.#offsets.logStart);
    // In the checkpoint first: a log that begins later than it says is taken for one that lost its beginning.
    await this.#state.checkpointInSpiteOfFullDisk();
    for (const segment of removed) {
      this.context.cache.release(segment);
      await segment.files?.retire();
      segment.files = undefined;
      await this.#removeLater(segment);
    }
    this.context.logger.info(
      `${this.identity.directoryName}: deleted ${count} segments; the log starts at ${this.#offsets.logStart} now`,
    );
  }

  /** Renamed at once, so that it is no segment any more; removed when readers who found it before are done. */
  async #removeLater(segment: Segment): Promise<void> {
    const { files, timers } = this.context.env;
    const path = segment.path("log");
    const renamed = `${path}.deleted`;
    await files.rename(path, renamed);
    await segment.removeFiles();
    const timer = timers.after(this.#settings.fileDeleteDelayMs, () => {
      this.#removals.delete(renamed);
      files.remove(renamed).catch((error: unknown) => {
        this.context.logger.warn(
          `${renamed} could not be removed; it is tried again at the next start: ${reasonOf(error)}`,
        );
      });
    });
    this.#removals.set(renamed, timer);
  }

  /**
   * Cuts the log so that it ends at the offset; a batch that holds it goes as a whole. Waits for writes in flight; appends
   * are refused until it is done. Resolves when the cut is durable.
   */
  truncateTo(offset: Offset): Promise<void> {
    return this.#runTruncation(() =>
      offset < this.#offsets.logStart ? this.#restartAt(offset) : this.#truncate(offset),
    );
  }

  /** Drops everything; the next batch has this offset (or is the one that holds it). */
  truncateFullyAndStartAt(offset: Offset): Promise<void> {
    return this.#runTruncation(() => this.#restartAt(offset));
  }

  #runTruncation(task: () => Promise<void>): Promise<void> {
    return this.#state.duringTruncation(() =>
      this.#maintenance.run(async () => {
        await this.#drained();
        if (this.#state.hasEnded) throw this.#state.refusal("the log is closed");
        await task();
      }),
    );
  }

  async #truncate(offset: Offset): Promise<void> {
    if (offset >= this.#offsets.next) {
      // An epoch in which this replica led without a record is not the leader's all the same: left in place, the two would
      // never agree where their logs part.
      if (this.#epochs.cutEnd(offset)) this.#epochsChanged = true;
      return;
    }
    const segment = this.#segments[this.#segmentIndexOf(offset)] as Segment;
    const { position, end } = await this.#findCut(segment, offset);
    const { logStart } = this.#offsets;
    if (end <= logStart || (position === 0 && segment === this.#segments[0])) {
      await this.#restartAt(end < logStart ? logStart : end, true);
      return;
    }
    const removed = this.#segments.splice(this.#segments.indexOf(segment) + 1);
    if (position === 0) removed.unshift(this.#segments.pop() as Segment);
    await this.#forgetFrom(end);
    for (const gone of removed.reverse()) await this.#dropSegment(gone);
    const active = this.#segments.at(-1) as Segment;
    await this.#cutFile(active, end, active === segment ? position : active.sizeBytes);
    this.#directoryChanged = true;
    await this.#restoreProducers();
    await this.#flushAfterCut();
  }

  async #flushAfterCut(): Promise<void> {
    try {
      await this.#flushNow();
    } catch (error) {
      // The cut itself is durable; the rest is written when there is space, and could be made anew from the batches.
      if (!(error instanceof StorageFailure) || error.reason !== "full") throw error;
    }
  }

  /** Where in the file the batch that holds the offset begins, or the first one behind it, and where the one before ends. */
  async #findCut(segment: Segment, offset: Offset): Promise<{ position: number; end: Offset }> {
    if (offset <= segment.baseOffset) return { position: 0, end: segment.baseOffset };
    return this.#withFiles(segment, async ({ file, index }) => {
      for (let below: number = offset; ;) {
        const indexed = index.floor(below - segment.baseOffset - 1);
        const start = {
          position: indexed?.position ?? 0,
          offset: toOffset(segment.baseOffset + (indexed?.relativeOffset ?? 0)),
          endPosition: segment.sizeBytes,
        };
        const cut = { position: start.position, end: start.offset };
        // Ends early at damage: then the log is cut there.
        await scanBatches(file, start, (batch, position) => {
          if (batch.endOffset > offset) return false;
          cut.position = position + batch.sizeBytes;
          cut.end = batch.endOffset;
          return true;
        });
        // The first batch that was looked at is the one to cut. There may be a gap in front of it: look further back.
        if (indexed === undefined || cut.position > start.position) return cut;
        below = start.offset;
      }
    });
  }

  /** Empties the log. `keepStart`: records below the new end were deleted before, which is no news. */
  async #restartAt(offset: Offset, keepStart = false): Promise<void> {
    const removed = this.#segments.splice(0);
    if (keepStart) await this.#forgetFrom(offset);
    else {
      await this.#forgetFrom(this.#offsets.logStart);
      this.#offsets.startAt(offset);
      this.#epochs.clear();
    }
    // Without segments only the checkpoint knows where the log begins.
    await this.#state.checkpointInSpiteOfFullDisk();
    this.#snapshots = [];
    for (const gone of removed.reverse()) await this.#dropSegment(gone);
    if (removed.length > 0) {
      this.#epochsChanged = true;
      this.#directoryChanged = true;
    }
    await this.#restoreProducers();
    await this.#flushAfterCut();
  }

  /**
   * Forgets, in memory and then in the checkpoints, what is at or behind the offset. The recovery point must be lower on
   * disk before the files are: else a crash in between would look like rot.
   */
  async #forgetFrom(offset: Offset): Promise<void> {
    const flushedBefore = this.#offsets.flushed;
    this.#cuts += 1;
    this.#offsets.truncateTo(offset);
    this.#tail.cutEnd(offset);
    if (this.#epochs.cutEnd(offset)) this.#epochsChanged = true;
    this.#snapshots = this.#snapshots.filter((snapshot) => snapshot.offset <= offset);
    this.#damage.cutEnd(offset);
    this.#sidecarBytes = 0;
    if (flushedBefore > offset) await this.#state.checkpointInSpiteOfFullDisk();
  }

  /** Makes the segment the active one, ending at the position, durably. */
  async #cutFile(segment: Segment, end: Offset, position: number): Promise<void> {
    const known = await this.#withFiles(segment, (files) => Promise.resolve(files));
    this.context.cache.release(segment);
    const file = await this.context.env.files.open(segment.path("log"), "write");
    segment.files = new SegmentFiles(file, known.index, known.timeIndex);
    await known.retire();
    segment.cut(end, position);
    await file.truncate(position);
    await this.#state.syncOrFail(() => file.sync());
    await segment.cutIndexFiles(segment.files);
  }

  async #restoreProducers(): Promise<void> {
    if (this.#isEmpty) {
      this.#producers.clear();
      return;
    }
    const { files, clock } = this.context.env;
    const { logEnd } = this.#offsets;
    const snapshot = await restoreSnapshot(files, this.#directory, logEnd);
    const producers = snapshot?.producers ?? new ProducerStates();
    const from = snapshot?.offset ?? toOffset(0);
    for (const segment of this.#segments.slice(this.#segmentIndexOf(from))) {
      if (segment.endOffset <= from) continue;
      await this.#withFiles(segment, ({ file, index }) =>
        replayProducers(segment, file, index, from, (batch) => producers.update(batch, clock.wallMs(), this.#settings)),
      );
    }
    this.#producers = producers;
  }

  /** Writes everything down, so that the next start has nothing to recover, and closes the files. Idempotent. */
  async close(): Promise<void> {
    if (this.#state.isClosed) return;
    const wasFailed = this.#state.isFailed;
    await this.#drained();
    try {
      if (!wasFailed && this.#segments.length > 0) {
        await this.flush();
        await this.#maintenance.run(() => this.#writeSidecars());
      }
    } finally {
      await this.stop();
    }
  }

  /** What spares the next start from reading. */
  async #writeSidecars(): Promise<void> {
    const active = this.#segments.at(-1);
    if (active === undefined) return;
    const snapshot = takeSnapshot(this.#producers, this.#offsets.logEnd);
    await writeSnapshot(this.context.env.files, this.#directory, snapshot);
    await active.writeIndexes(filesOf(active));
  }

  /** Stops at once and writes nothing more, as a crash would. */
  abandon(): void {
    if (this.#state.isClosed) return;
    this.#state.close();
    for (const timer of this.#removals.values()) timer.cancel();
    this.#removals.clear();
    this.#queue.length = 0;
    this.#tail.clear();
  }

  /** For LogManager, before the directory is renamed: nothing is written any more when this resolves. */
  async stop(): Promise<void> {
    this.abandon();
    await this.#drained();
    await this.#maintenance.close();
    await this.#closeFiles();
  }

  async #closeFiles(): Promise<void> {
    await this.#metadataFile?.close();
    for (const segment of this.#segments) {
      this.context.cache.release(segment);
      await segment.files?.retire();
      segment.files = undefined;
    }
  }
}

/** Feeds the batches of a segment from an offset on, over damage. */
export async function replayProducers(
  segment: Segment,
  file: SegmentFiles["file"],
  index: SegmentFiles["index"],
  from: Offset,
  update: (batch: RecordBatch) => void,
): Promise<void> {
  const indexed = from <= segment.baseOffset ? undefined : index.floor(from - segment.baseOffset);
  const start = {
    position: indexed?.position ?? 0,
    offset: toOffset(segment.baseOffset + (indexed?.relativeOffset ?? 0)),
    endPosition: segment.sizeBytes,
  };
  await surveySegment(file, start, segment.endOffset, (batch) => {
    if (batch.baseOffset >= from) update(batch);
  });
}

function filesOf(segment: Segment): SegmentFiles {
  const { files } = segment;
  invariant(files !== undefined, () => `${segment.path("log")} is written to, but not open`);
  return files;
}

function queuedWrite(segment: Segment, piece: Buffer): QueuedWrite {
  return { segment, files: filesOf(segment), piece, endOffset: segment.endOffset };
}
