import { invariant } from "../../common/assert.js";
import { StorageFailure } from "../../common/env/files.js";
import { reasonOf } from "../../common/logger.js";
import { SerialQueue } from "../../common/serial-queue.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RecordBatch } from "../../protocol/record-batch.js";
import type { RecordTime } from "../../protocol/record-times.js";
import { parseOffset } from "../../protocol/types.js";
import type { LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import { LogDisk } from "./content/disk.js";
import { LogContent } from "./content/log-content.js";
import type { RecoveredLog } from "./content/log-content.js";
import type { LogContext, LogIdentity } from "./content/log-context.js";
import type { PlannedWrite } from "./content/segment-list.js";
import { LogWaiters } from "./content/waiters.js";
import type { LogListener } from "./content/waiters.js";
import { Writability } from "./content/writability.js";
import type { LogSettings } from "./log-settings.js";
import { checkProduced, checkReplicated, parseBatches } from "./operations/append-checks.js";
import { LogFlusher } from "./operations/flusher.js";
import { FullDisk } from "./operations/full-disk.js";
import { LogReader } from "./operations/reader.js";
import type { ReadOptions } from "./operations/reader.js";
import { LogRemoval } from "./operations/removal.js";
import { LogTruncation } from "./operations/truncation.js";
import { LogVerifier } from "./operations/verifier.js";
import { LogWriter } from "./operations/writer.js";
import type { LogRead } from "./segment/read.js";
import type { DamagedRange } from "./segment/scan.js";

export type { LogListener } from "./content/waiters.js";
export type { LogRead } from "./segment/read.js";

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

const always = (): boolean => true;

/**
 * One replica of one partition on this disk: a sequence of batches, kept in segments.
 *
 * One writer: appends take their place synchronously, and are written in that order. An idle log on a quick disk is
 * written to in the caller's turn of the event loop; otherwise batches queue while a write is in flight and then leave as
 * one gathered write. The log end offset covers what is written and nothing else. Everything that changes files in
 * another way (flush, truncation, retention, healing) goes through one queue of its own, one after the other.
 *
 * What it holds is in LogContent, in memory, and whether appends are taken in Writability. LogWriter writes, LogFlusher makes
 * durable, LogTruncation and LogRemoval take off at the two ends, LogReader and LogVerifier look. None of them knows Log or
 * has the queue: what they do in it, Log gives them a turn for.
 *
 * It keeps the order of its offsets (LogOffsets), never serves bytes it knows to be damaged, and never repeats a failed
 * sync. It knows nothing of leaders, replicas and requests: Partition does.
 */
export class Log {
  readonly #waiters: LogWaiters;
  readonly #writability: Writability;
  readonly #disk: LogDisk;
  readonly #fullDisk: FullDisk;
  readonly #content: LogContent;
  readonly #writer: LogWriter;
  /** The one queue for what changes files and is no append. */
  readonly #maintenance: SerialQueue;
  readonly #flusher: LogFlusher;
  readonly #truncation: LogTruncation;
  readonly #removal: LogRemoval;
  readonly #verifier: LogVerifier;
  readonly #reader: LogReader;

  /** For LogManager. `blockedUntil`: files of a former incarnation still bear the directory's name. */
  constructor(
    private readonly context: LogContext,
    readonly identity: LogIdentity,
    /** As long as nobody gives it others. */
    settings: LogSettings,
    recovered: RecoveredLog,
    /** Something is written that the disk does not have: a flush is due when the interval of the settings has passed. */
    onDirty: () => void,
    blockedUntil?: Promise<void>,
  ) {
    const name = identity.directoryName;
    this.#waiters = new LogWaiters(context.env.timers);
    const onFailed = (error: Error): void => {
      this.#waiters.rejectAll(this.#writability.refusal(reasonOf(error)));
      context.onFatal(error);
    };
    this.#writability = new Writability(name, onFailed, blockedUntil);
    this.#disk = new LogDisk(context, this.#writability);
    this.#fullDisk = new FullDisk(context, name, this.#writability, this.#disk, this.#waiters);
    this.#content = new LogContent(context, identity, this.#disk, settings, recovered, () => this.#onDamage());
    this.#writer = new LogWriter(context.env.clock, this.#writability, {
      onWritten: (endOffset, bytes, wasQueued) => this.#onWritten(endOffset, bytes, wasQueued),
      onWriteFailed: (error) => this.#onWriteFailed(error),
    });
    this.#maintenance = new SerialQueue(`log ${name}`);
    this.#flusher = new LogFlusher(context, this.#content, this.#writability, this.#disk, this.#waiters, {
      flush: () => this.flush(),
      flushLater: onDirty,
    });
    this.#truncation = new LogTruncation(this.#content, this.#writability, this.#disk, this.#waiters, this.#flusher);
    this.#removal = new LogRemoval(context, this.#content, this.#writability, this.#disk, this.#writer, this.#flusher);
    this.#verifier = new LogVerifier(context.env.files, this.#content, (change) => this.#maintenance.run(change));
    this.#reader = new LogReader(context.pool, this.#content, this.#writability, this.#verifier);
    this.wasCut = recovered.wasCut;
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
    return this.#content.settings;
  }
  get logStartOffset(): Offset {
    return this.#content.offsets.logStart;
  }
  /** Where the log begins at the latest after any end of this run: what others are told must not be taken back. */
  get durableLogStart(): Offset {
    return this.#content.durableStart;
  }
  /** End of what is written, and so of what may be read. */
  get logEndOffset(): Offset {
    return this.#content.offsets.logEnd;
  }
  /** Where the next batch goes: ahead of the log end while writes wait for their turn. */
  get nextOffset(): Offset {
    return this.#content.offsets.next;
  }
  /** What is below it survives a power cut. */
  get flushedOffset(): Offset {
    return this.#content.offsets.flushed;
  }
  get highWatermark(): Offset {
    return this.#content.offsets.highWatermark;
  }
  /** The newest leader epoch that this log has heard of; undefined when it never had a record. */
  get lastEpoch(): LeaderEpoch | undefined {
    return this.#content.epochs.latest;
  }
  /** Offsets below the flushed point that cannot be read: never served, kept until a truncation replaces them. */
  get damage(): readonly DamagedRange[] {
    return this.#content.damage.ranges;
  }
  /** Appends are refused until the disk has space again. */
  get isFull(): boolean {
    return this.#writability.isFull;
  }

  /** What was written under other settings is made durable now, if these say `fsync`. */
  updateSettings(settings: LogSettings): void {
    this.#content.settings = settings;
    this.#flusher.settingsChanged();
  }

  /** There is one listener; a new one replaces the old. */
  setListener(listener: LogListener | undefined): void {
    this.#waiters.listener = listener;
  }

  /**
   * Checks the batches, gives them offsets, stamps them in place and writes or queues them. `records` may be used again
   * once they are written. An idempotent producer sends one batch at a time.
   * Throws ApiError INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER,
   * DUPLICATE_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID, INVALID_PRODUCER_EPOCH, STORAGE_ERROR: then nothing was appended.
   */
  appendAsLeader(records: Buffer, leaderEpoch: LeaderEpoch): LogAppend {
    this.#writability.assertWritable();
    const { latest } = this.#content.epochs;
    invariant(
      latest === undefined || leaderEpoch >= latest,
      () => `${this.identity.directoryName}: append at leader epoch ${leaderEpoch}, but the log has epoch ${latest}`,
    );
    const batches = parseBatches(records);
    const wallMs = this.context.env.clock.wallMs();
    for (const batch of batches) checkProduced(batch, wallMs, this.#content.settings.maxMessageBytes);
    const [only] = batches as [RecordBatch, ...RecordBatch[]];
    if (batches.some((batch) => batch.producerId >= 0)) {
      if (batches.length > 1)
        throw new ApiError("INVALID_RECORD", "an idempotent producer sends one batch for a partition in a request");
      const earlier = this.#content.producers.check(only);
      if (earlier !== undefined) return { ...earlier, duplicate: true, written: this.#whenWritten(earlier.endOffset) };
    }
    let offset = this.#content.offsets.next;
    for (const batch of batches) {
      const endOffset = parseOffset(offset + batch.recordCount);
      if (endOffset === undefined) throw new ApiError("INVALID_RECORD", "the log has no offsets left");
      batch.stamp(offset, leaderEpoch);
      offset = endOffset;
    }
    return this.#append(records, batches, wallMs);
  }

  /**
   * Appends batches as the leader of that epoch stamped them. Both checksums are checked, base offsets are not below the log
   * end (an empty log takes any), epochs do not descend and are not above the leader's. `records` may be used again once
   * they are written. Throws ApiError CORRUPT_MESSAGE, INVALID_RECORD, STORAGE_ERROR: then nothing was appended.
   */
  appendAsFollower(records: Buffer, leaderEpoch: LeaderEpoch): LogAppend {
    this.#writability.assertWritable();
    const batches = parseBatches(records);
    const { segments, offsets } = this.#content;
    const [first] = batches as [RecordBatch, ...RecordBatch[]];
    const { isEmpty } = segments;
    if (isEmpty && first.endOffset <= offsets.next)
      throw new ApiError("INVALID_RECORD", `the batch at offset ${first.baseOffset} ends before the log start`);
    checkReplicated(batches, isEmpty ? first.baseOffset : offsets.next, this.#content.epochs.latest, leaderEpoch);
    if (isEmpty) {
      // An empty log goes where the leader's first batch is. That one may hold offsets before the log start: they are in
      // the file and are not served.
      if (first.baseOffset > offsets.next) this.#content.startAt(first.baseOffset);
      segments.beginAt(first.baseOffset);
    }
    return this.#append(records, batches, this.context.env.clock.wallMs());
  }

  /** The batches are good and have their offsets; nothing after the planning may refuse them. */
  #append(records: Buffer, batches: readonly RecordBatch[], wallMs: number): LogAppend {
    const { segments } = this.#content;
    const activeBefore = segments.active;
    const writes = this.#plan(records, batches, wallMs);
    if (activeBefore !== undefined && segments.active !== activeBefore) this.#flusher.inBackground();
    const { baseOffset } = batches[0] as RecordBatch;
    const { endOffset } = batches[batches.length - 1] as RecordBatch;
    this.#writer.write(writes, !this.#flusher.isCommitting);
    return { baseOffset, endOffset, duplicate: false, written: this.#whenWritten(endOffset) };
  }

  #plan(records: Buffer, batches: readonly RecordBatch[], wallMs: number): PlannedWrite[] {
    try {
      return this.#content.plan(records, batches, wallMs);
    } catch (error) {
      if (!(error instanceof StorageFailure)) throw error;
      // No segment can be begun, and writes that wait for their turn would fail as well.
      if (error.reason === "full") throw this.#onWriteFailed(error);
      throw this.#writability.refusal(error);
    }
  }

  #onWritten(endOffset: Offset, bytes: number, wasQueued: boolean): void {
    this.#content.offsets.writtenTo(endOffset);
    this.#waiters.writtenTo(endOffset);
    this.#flusher.wrote(bytes);
    if (wasQueued) this.#waiters.listener?.onWritten();
  }

  /** Appends do not suffer from damage; the partition may, and the next run is to know. */
  #onDamage(): void {
    this.context.checkpointSoon();
    this.#waiters.fault("onDamaged");
  }

  /** Undefined when what ends here is written already, as the durability demands. */
  #whenWritten(endOffset: Offset): Promise<void> | undefined {
    const { logEnd, flushed } = this.#content.offsets;
    if (this.#content.settings.durability === "fsync")
      return endOffset <= flushed ? undefined : this.#waiters.whenFlushed(endOffset);
    return endOffset <= logEnd ? undefined : this.#waiters.whenWritten(endOffset);
  }

  /**
   * A write failed, and may have left anything behind the last good byte. Nothing that was not written stays in memory;
   * the file is cut before anything is appended again, or a valid batch of the failed write could come back to life behind
   * a shorter one. Returns the error for who waits.
   */
  #onWriteFailed(error: unknown): ApiError {
    const failure = error instanceof StorageFailure ? error : undefined;
    const refusal = this.#writability.refusal(failure ?? reasonOf(error));
    if (!this.#writability.isHealthy) return refusal;
    this.#writer.drop();
    this.#waiters.rejectUnwritten(this.#content.offsets.logEnd, refusal);
    if (failure?.reason !== "full") {
      this.#writability.fail(error);
      return refusal;
    }
    this.#fullDisk.begin(failure);
    const dropped = this.#content.dropPlanned();
    this.#maintenance
      .run(async () => {
        await this.#writer.drained();
        await this.#truncation.cutBack(dropped);
      })
      .then(
        () =>
          this.#fullDisk.awaitSpace(
            () => this.#content.settings.maxMessageBytes,
            // A flush may have written down the epoch of what was taken back.
            () => this.#maintenance.run(() => this.#content.saveEpochs()),
          ),
        (cause: unknown) => this.#writability.fail(cause),
      );
    return refusal;
  }

  /**
   * Resolves when no write and no truncation waits or runs, so that what follows the log end can be appended; undefined
   * when that is so now.
   */
  whenSettled(): Promise<void> | undefined {
    if (this.#writability.isBeingTruncated) return this.#maintenance.run(() => this.#writer.drained());
    return this.#writer.isIdle ? undefined : this.#writer.drained();
  }

  /** Makes durable what is written now; the flushed offset follows. A failed sync stops the process. */
  flush(): Promise<void> {
    return this.#maintenance.run(() => this.#flusher.flush());
  }

  /**
   * Whole batches from the one that holds `from`, below `end` (the log end if not given), at most `maxBytes` but at least
   * one (KIP-74); nothing when there is none yet. At once when the tail has them, else by a promise. Checks no checksum.
   * Throws or rejects with ApiError OFFSET_OUT_OF_RANGE, or CORRUPT_LOG when `from` is known to be damaged.
   */
  read(from: Offset, options: ReadOptions): LogRead | Promise<LogRead> {
    return this.#reader.read(from, options);
  }

  /**
   * Reads the disk again where someone got a bad batch. Returns the damage that this finds, and from then on does not serve
   * it; nothing when the disk is innocent.
   */
  verifyRange(from: Offset): Promise<readonly DamagedRange[]> {
    return this.#verifier.verifyRange(from);
  }

  /** The base offset of the segment that holds the offset; undefined when there is none. */
  segmentOf(offset: Offset): Offset | undefined {
    const { segments } = this.#content;
    return segments.all[segments.indexOf(offset)]?.baseOffset;
  }

  /** Base offsets of the segments that no append changes any more. */
  closedSegments(): Offset[] {
    return this.#content.segments.all.slice(0, -1).map((segment) => segment.baseOffset);
  }

  /** Checks every checksum of a segment, as slowly as `pace` says. What it finds is not served from then on. */
  verifySegment(baseOffset: Offset, pace?: (bytes: number) => Promise<void>): Promise<readonly DamagedRange[]> {
    return this.#verifier.verifySegment(baseOffset, pace);
  }

  /** The greatest known epoch that is not greater than the asked one, and the offset where it ends. */
  endOffsetForEpoch(epoch: LeaderEpoch): { epoch: LeaderEpoch; endOffset: Offset } | undefined {
    return this.#content.epochs.endOffsetFor(epoch, this.#content.offsets.logEnd);
  }

  /** A new leader's first record will have this offset. */
  assignEpochStart(epoch: LeaderEpoch, startOffset: Offset): void {
    this.#content.epochs.assign(epoch, startOffset);
  }

  /** The first record below `end` whose timestamp is this or later. */
  offsetForTimestamp(timestamp: number, end: Offset): Promise<RecordTime | undefined> {
    return this.#reader.offsetForTimestamp(timestamp, end);
  }

  /**
   * All in-sync replicas have what is below it. Never moves back, and not beyond the log end. Returns whether it moved.
   */
  advanceHighWatermark(offset: Offset): boolean {
    const moved = this.#content.offsets.advanceHighWatermark(offset);
    if (moved) this.context.checkpointSoon();
    return moved;
  }

  /** For LogManager: the checkpoint says so now. */
  logStartIsDurable(offset: Offset): void {
    // The log may have begun anew before that meanwhile.
    if (offset <= this.#content.durableStart || offset > this.#content.offsets.logStart) return;
    this.#content.durableStart = offset;
    this.#waiters.listener?.onLogStart();
  }

  /**
   * Records below it are gone, durably when this resolves, and their files as well. It waits for space on a full disk.
   * Rejects with ApiError OFFSET_OUT_OF_RANGE above the high watermark.
   */
  async advanceLogStart(offset: Offset): Promise<void> {
    this.#assertReplicated(offset);
    const { offsets } = this.#content;
    if (offset > offsets.logStart && offset > offsets.flushed) {
      // Nothing is looked at any more below the log start: what a power cut leaves of it there must be readable, because
      // records go on behind it in the same file.
      await this.#disk.inSpiteOfFullDisk(() => this.flush());
      this.#assertReplicated(offset);
    }
    this.#content.advanceLogStart(offset);
    // Whatever becomes of the checkpoint now, one of the next has it.
    this.context.checkpointSoon();
    // Also when it did not move: another call may have moved it and not come to its end.
    if (!(await this.#content.checkpointStart(() => this.#disk.checkpointInSpiteOfFullDisk()))) return;
    await this.#maintenance.run(() => this.#removal.removeBelowLogStart());
  }

  #assertReplicated(offset: Offset): void {
    const { highWatermark } = this.#content.offsets;
    if (offset <= highWatermark) return;
    throw new ApiError(
      "OFFSET_OUT_OF_RANGE",
      `${this.identity.directoryName}: log start cannot be ${offset}, behind the high watermark ${highWatermark}`,
    );
  }

  /**
   * Deletes what the settings say is too old or too much, never above the high watermark. Resolves with how many segments.
   * Does nothing once after the wall clock was set.
   */
  applyRetention(wallMs: number): Promise<number> {
    if (!this.#removal.trustsClock(wallMs)) return Promise.resolve(0);
    return this.#maintenance.run(() => this.#removal.removeExpired(wallMs));
  }

  /**
   * Cuts the log so that it ends at the offset; a batch that holds it goes as a whole. Waits for writes in flight;
   * appends are refused until it is done. Resolves when the cut is durable. `isWanted` is asked when its turn has come:
   * whoever wanted to follow another log may lead by then, and what would be cut off may be committed.
   */
  truncateTo(offset: Offset, isWanted: () => boolean = always): Promise<void> {
    return this.#truncate(() => this.#truncation.truncateTo(offset, isWanted));
  }

  /** Drops everything; the next batch has this offset (or is the one that holds it). */
  truncateFullyAndStartAt(offset: Offset, isWanted: () => boolean = always): Promise<void> {
    return this.#truncate(() => this.#truncation.startAt(offset, isWanted));
  }

  #truncate(task: () => Promise<void>): Promise<void> {
    return this.#writability.duringTruncation(() =>
      this.#maintenance.run(async () => {
        await this.#writer.drained();
        if (this.#writability.hasEnded) throw this.#writability.refusal("the log is closed");
        await task();
      }),
    );
  }

  /** Writes everything down, so that the next start has nothing to recover, and closes the files. Idempotent. */
  async close(): Promise<void> {
    if (this.#writability.isClosed) return;
    const wasFailed = this.#writability.isFailed;
    await this.#writer.drained();
    try {
      if (!wasFailed && this.#content.segments.all.length > 0) {
        await this.flush();
        await this.#maintenance.run(() => this.#flusher.finish());
      }
    } finally {
      await this.stop();
    }
  }

  /** Stops at once and writes nothing more, as a crash would. */
  abandon(): void {
    if (this.#writability.isClosed) return;
    this.#writability.close();
    this.#fullDisk.cancel();
    this.#waiters.rejectAll(this.#writability.refusal("the log is closed"));
    this.#waiters.listener = undefined;
    this.#removal.cancel();
    this.#writer.drop();
    this.#content.tail.clear();
  }

  /** For LogManager, before the directory is renamed: nothing is written any more when this resolves. */
  async stop(): Promise<void> {
    this.abandon();
    await this.#writer.drained();
    await this.#maintenance.close();
    await this.#content.close();
  }
}
