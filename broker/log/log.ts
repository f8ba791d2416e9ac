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
import { LogContent } from "./log-content.js";
import type { RecoveredLog } from "./log-content.js";
import type { LogContext, LogIdentity } from "./log-context.js";
import { LogFlusher } from "./log-flusher.js";
import type { LogSettings } from "./log-settings.js";
import { LogState } from "./log-state.js";
import { LogWaiters } from "./log-waiters.js";
import type { LogListener } from "./log-waiters.js";
import { LogWriter } from "./log-writer.js";
import { firstRecordAt } from "./record-times.js";
import type { RecordTime } from "./record-times.js";
import { expiredSegments, wallClockJumped } from "./retention.js";
import type { ClockReading } from "./retention.js";
import { scanBatches, surveySegment } from "./segment-scan.js";
import type { DamagedRange } from "./segment-scan.js";
import { emptyRead, readFromSegment, UnreadableSegment } from "./segment-reader.js";
import type { LogRead } from "./segment-reader.js";
import type { PlannedWrite } from "./segment-list.js";
import type { Segment, SegmentFiles } from "./segment.js";

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
  #settingsGiven: boolean;
  readonly #content: LogContent;
  readonly #maintenance: SerialQueue;
  readonly #state: LogState;
  readonly #waiters: LogWaiters;

  readonly #writer: LogWriter;
  readonly #flusher: LogFlusher;
  #lastRetention: ClockReading;
  readonly #removals = new Map<string, Timer>();

  /** For LogManager. `blockedUntil`: files of a former incarnation still bear the directory's name. */
  constructor(
    private readonly context: LogContext,
    readonly identity: LogIdentity,
    settings: { readonly settings: LogSettings; readonly given: boolean },
    recovered: RecoveredLog,
    blockedUntil?: Promise<void>,
  ) {
    const name = identity.directoryName;
    this.#waiters = new LogWaiters(context.env.timers);
    this.#state = new LogState(context, name, this.#waiters, blockedUntil);
    this.#content = new LogContent(context, identity, this.#state, settings.settings, recovered);
    this.#settingsGiven = settings.given;
    this.wasCut = recovered.wasCut;
    this.#lastRetention = { wallMs: context.env.clock.wallMs(), monotonicMs: context.env.clock.monotonicMs() };
    this.#maintenance = new SerialQueue(`log ${name}`);
    this.#writer = new LogWriter(context.env.clock, this.#state, {
      onWritten: (endOffset, bytes, wasQueued) => this.#onWritten(endOffset, bytes, wasQueued),
      onWriteFailed: (error) => this.#onWriteFailed(error),
    });
    this.#flusher = new LogFlusher(context, this.#content, this.#state, this.#waiters, {
      flush: () => this.flush(),
      flushLater: () => context.becameDirty(this),
    });
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
  /** End of what is written, and so of what may be read. */
  get logEndOffset(): Offset {
    return this.#content.offsets.logEnd;
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
  /** Whether appends are taken now; false while the disk is full, during a truncation, after a failure. */
  get isWritable(): boolean {
    return this.#state.isWritable;
  }
  /** Bytes of the batches on disk. */
  get sizeBytes(): number {
    return this.#content.segments.sizeBytes;
  }

  updateSettings(settings: LogSettings): void {
    this.#content.settings = settings;
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
      const earlier = this.#content.producers.check(only, wallMs, this.#content.settings);
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
   * Appends batches as the leader stamped them. Both checksums are checked, base offsets are not below the log end (an
   * empty log takes any), epochs do not descend. `records` may be used again once they are written. Throws ApiError
   * CORRUPT_MESSAGE, INVALID_RECORD, STORAGE_ERROR: then nothing was appended.
   */
  appendAsFollower(records: Buffer): LogAppend {
    this.#state.assertWritable();
    const batches = parseBatches(records);
    const { segments, offsets } = this.#content;
    const [first] = batches as [RecordBatch, ...RecordBatch[]];
    const { isEmpty } = segments;
    if (isEmpty && first.endOffset <= offsets.next)
      throw new ApiError("INVALID_RECORD", `the batch at offset ${first.baseOffset} ends before the log start`);
    checkReplicated(batches, isEmpty ? first.baseOffset : offsets.next, this.#content.epochs.latest);
    if (isEmpty) {
      // An empty log goes where the leader's first batch is. That one may hold offsets before the log start: they are in
      // the file and are not served.
      if (first.baseOffset > offsets.next) this.#content.beginAt(first.baseOffset);
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
      if (error instanceof StorageFailure) throw this.#state.refusal(error);
      throw error;
    }
  }

  #onWritten(endOffset: Offset, bytes: number, wasQueued: boolean): void {
    this.#content.offsets.writtenTo(endOffset);
    this.#waiters.writtenTo(endOffset);
    this.#flusher.wrote(bytes);
    if (wasQueued) this.#waiters.listener?.onWritten();
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
    const refusal = this.#state.refusal(failure ?? reasonOf(error));
    if (!this.#state.isHealthy) return refusal;
    this.#writer.drop();
    this.#waiters.rejectUnwritten(this.#content.offsets.logEnd, refusal);
    if (failure?.reason !== "full" && failure?.reason !== "too-many-open-files") {
      this.#state.fail(error);
      return refusal;
    }
    this.#state.becomeFull(failure, refusal);
    const dropped = this.#content.dropPlanned();
    this.#maintenance
      .run(() => this.#cutBack(dropped))
      .then(
        () => this.#state.awaitSpace(() => this.#content.settings.maxMessageBytes),
        (cause: unknown) => this.#state.fail(cause),
      );
    return refusal;
  }

  /** Takes back on disk what was planned and not written. */
  async #cutBack(dropped: readonly Segment[]): Promise<void> {
    await this.#writer.drained();
    for (const segment of dropped) await this.#content.segments.drop(segment);
    const active = this.#content.segments.active;
    if (active !== undefined) await this.#cutFile(active, this.#content.offsets.logEnd, active.sizeBytes);
    await this.#restoreProducers();
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
  read(from: Offset, options: { readonly maxBytes: number; readonly end?: Offset }): LogRead | Promise<LogRead> {
    if (from < this.#content.offsets.logStart || from > this.#content.offsets.logEnd)
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.identity.directoryName}: offset ${from} is not in ${this.#content.offsets.logStart} to ${this.#content.offsets.logEnd}`,
      );
    const limit =
      options.end === undefined || options.end > this.#content.offsets.logEnd
        ? this.#content.offsets.logEnd
        : options.end;
    const end = this.#content.damage.undamagedEnd(from, limit);
    if (from >= end) return emptyRead;
    const inMemory = this.#content.tail.read(from, end, options.maxBytes);
    if (inMemory !== undefined) return inMemory;
    return this.#readFiles(from, end, options);
  }

  /**
   * At least so many bytes of batches lie between the offsets; all of them may be more. Infinite when they are not all in
   * memory: whoever waits for a minimum need not wait then.
   */
  bytesBetween(from: Offset, end: Offset): number {
    if (from >= end) return 0;
    return this.#content.tail.bytesBetween(from, end) ?? Number.POSITIVE_INFINITY;
  }

  async #readFiles(
    from: Offset,
    end: Offset,
    options: { readonly maxBytes: number; readonly end?: Offset },
    isRetry = false,
  ): Promise<LogRead> {
    const cuts = this.#content.cuts;
    const { pool } = this.context;
    let segment: Segment | undefined;
    try {
      for (let at = this.#content.segments.indexOf(from); ; at += 1) {
        segment = this.#content.segments.all[at];
        if (segment === undefined || segment.baseOffset >= end) return emptyRead;
        const source = segment;
        const read = await this.#content.segments.use(source, (files) =>
          readFromSegment(source, files, pool, { from, end, maxBytes: options.maxBytes }),
        );
        if (this.#content.cuts !== cuts) {
          read?.release();
          return await this.read(from, options);
        }
        if (read !== undefined) return read;
        // Opening the segment may have shown that what should be here is lost.
        this.#content.damage.undamagedEnd(from, end);
      }
    } catch (error) {
      if (this.#content.cuts !== cuts) return this.read(from, options);
      if (error instanceof StorageFailure) {
        // Retention may have removed the segment between the look and the opening.
        if (segment !== undefined && !this.#content.segments.all.includes(segment)) return this.read(from, options);
        throw this.#state.refusal(error);
      }
      if (!(error instanceof UnreadableSegment)) throw error;
      const found = await this.verifyRange(from);
      if (found.length > 0 && !isRetry)
        return await this.#readFiles(from, this.#content.damage.undamagedEnd(from, end), options, true);
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
    const segment = this.#content.segments.all[this.#content.segments.indexOf(from)];
    if (segment === undefined) return [];
    const damage = await this.verifySegment(segment.baseOffset);
    return damage.filter((range) => range.to > from);
  }

  /** Base offsets of the segments that no append changes any more. */
  closedSegments(): Offset[] {
    return this.#content.segments.all.slice(0, -1).map((segment) => segment.baseOffset);
  }

  /** Checks every checksum of a segment, as slowly as `pace` says. What it finds is not served from then on. */
  async verifySegment(baseOffset: Offset, pace?: (bytes: number) => Promise<void>): Promise<readonly DamagedRange[]> {
    const segment = this.#content.segments.all.find((candidate) => candidate.baseOffset === baseOffset);
    if (segment === undefined || segment.sizeBytes === 0) return [];
    const cuts = this.#content.cuts;
    const end = segment === this.#content.segments.active ? this.#content.offsets.logEnd : segment.endOffset;
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
      if (this.#content.cuts !== cuts || survey.damage.length === 0) return [];
      if (segment !== this.#content.segments.active) await this.#content.segments.rebuildIndexes(segment);
      this.#content.damage.add(survey.damage);
      return survey.damage;
    } finally {
      await file.close();
    }
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
  async offsetForTimestamp(timestamp: number, end: Offset): Promise<RecordTime | undefined> {
    const cuts = this.#content.cuts;
    for (const segment of [...this.#content.segments.all]) {
      if (segment.baseOffset >= end || this.#content.cuts !== cuts) break;
      if (segment.endOffset <= this.#content.offsets.logStart) continue;
      const found = await this.#content.segments.use(segment, (files) =>
        this.#searchTime(segment, files, timestamp, end),
      );
      if (found !== undefined) return found;
    }
    return this.#content.cuts === cuts ? undefined : this.offsetForTimestamp(timestamp, end);
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
        found = firstRecordAt(batch, timestamp, this.#content.offsets.logStart);
    });
    return found;
  }

  /** All in-sync replicas have what is below it. Never moves back; not beyond the log end. */
  advanceHighWatermark(offset: Offset): void {
    if (this.#content.offsets.advanceHighWatermark(offset)) this.context.checkpointSoon();
  }

  /**
   * Records below it are gone, durably when this resolves; their segments follow. Rejects with ApiError OFFSET_OUT_OF_RANGE
   * above the high watermark.
   */
  async advanceLogStart(offset: Offset): Promise<void> {
    if (offset > this.#content.offsets.highWatermark)
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.identity.directoryName}: log start cannot be ${offset}, behind the high watermark ${this.#content.offsets.highWatermark}`,
      );
    if (!this.#content.advanceLogStart(offset)) return;
    await this.context.checkpointNow();
    await this.#maintenance.run(() =>
      this.#removeOldest(
        expiredSegments(this.#content.segments.all, this.#bounds, { retentionMs: -1, retentionBytes: -1 }, 0),
      ),
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
        const facts = this.#content.segments.all.map((segment) => ({
          endOffset: segment.endOffset,
          sizeBytes: segment.sizeBytes,
          // Unknown until its indexes are read: decided as if it had just been written, then read, then decided again.
          maxTimestamp: segment.timesKnown ? segment.maxTimestamp : wallMs,
        }));
        const expired = expiredSegments(facts, this.#bounds, this.#content.settings, wallMs);
        const next = this.#content.segments.all[expired];
        if (next === undefined || next.timesKnown || this.#content.settings.retentionMs < 0) {
          await this.#removeOldest(expired);
          return expired;
        }
        await this.#content.segments.use(next, () => Promise.resolve());
        next.timesKnown = true;
      }
    });
  }

  get #bounds(): { logStartOffset: Offset; highWatermark: Offset } {
    return { logStartOffset: this.#content.offsets.logStart, highWatermark: this.#content.offsets.highWatermark };
  }

  async #removeOldest(count: number): Promise<void> {
    if (count === 0) return;
    if (count === this.#content.segments.all.length) {
      // Even the active one is too old. Nobody may be writing to it.
      if (!this.#writer.isIdle) return;
      const { next } = this.#content.offsets;
      this.#content.segments.create(next);
      this.#content.producers.snapshotAt(next);
      await this.#flusher.flush();
    }
    const removed = this.#content.segments.takeOldest(count);
    this.#content.advanceLogStart((this.#content.segments.all[0] as Segment).baseOffset);
    // In the checkpoint first: a log that begins later than it says is taken for one that lost its beginning.
    await this.#state.checkpointInSpiteOfFullDisk();
    for (const segment of removed) {
      await this.#content.segments.release(segment);
      await this.#removeLater(segment);
    }
    this.context.logger.info(
      `${this.identity.directoryName}: deleted ${count} segments; the log starts at ${this.#content.offsets.logStart} now`,
    );
  }

  /** Renamed at once, so that it is no segment any more; removed when readers who found it before are done. */
  async #removeLater(segment: Segment): Promise<void> {
    const { files, timers } = this.context.env;
    const path = segment.path("log");
    const renamed = `${path}.deleted`;
    await files.rename(path, renamed);
    await segment.removeFiles();
    const timer = timers.after(this.#content.settings.fileDeleteDelayMs, () => {
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
      offset < this.#content.offsets.logStart ? this.#restartAt(offset) : this.#truncate(offset),
    );
  }

  /** Drops everything; the next batch has this offset (or is the one that holds it). */
  truncateFullyAndStartAt(offset: Offset): Promise<void> {
    return this.#runTruncation(() => this.#restartAt(offset));
  }

  #runTruncation(task: () => Promise<void>): Promise<void> {
    return this.#state.duringTruncation(() =>
      this.#maintenance.run(async () => {
        await this.#writer.drained();
        if (this.#state.hasEnded) throw this.#state.refusal("the log is closed");
        await task();
      }),
    );
  }

  async #truncate(offset: Offset): Promise<void> {
    if (offset >= this.#content.offsets.next) {
      // An epoch in which this replica led without a record is not the leader's all the same: left in place, the two would
      // never agree where their logs part.
      this.#content.epochs.cutEnd(offset);
      return;
    }
    const { segments } = this.#content;
    const segment = segments.all[segments.indexOf(offset)] as Segment;
    const { position, end } = await this.#findCut(segment, offset);
    const { logStart } = this.#content.offsets;
    if (end <= logStart || (position === 0 && segment === segments.all[0])) {
      await this.#restartAt(end < logStart ? logStart : end, true);
      return;
    }
    const removed = segments.takeFrom(segments.all.indexOf(segment) + (position === 0 ? 0 : 1));
    await this.#forgetFrom(end);
    for (const gone of removed.reverse()) await this.#content.segments.drop(gone);
    const active = this.#content.segments.active as Segment;
    await this.#cutFile(active, end, active === segment ? position : active.sizeBytes);
    this.#content.directory.namesChanged();
    await this.#restoreProducers();
    await this.#flusher.flushAfterCut();
  }

  /** Where in the file the batch that holds the offset begins, or the first one behind it, and where the one before ends. */
  async #findCut(segment: Segment, offset: Offset): Promise<{ position: number; end: Offset }> {
    if (offset <= segment.baseOffset) return { position: 0, end: segment.baseOffset };
    return this.#content.segments.use(segment, async ({ file, index }) => {
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
    const removed = this.#content.segments.takeFrom(0);
    if (keepStart) await this.#forgetFrom(offset);
    else {
      await this.#forgetFrom(this.#content.offsets.logStart);
      this.#content.offsets.startAt(offset);
      this.#content.epochs.clear();
    }
    // Without segments only the checkpoint knows where the log begins.
    await this.#state.checkpointInSpiteOfFullDisk();
    this.#content.producers.clear();
    for (const gone of removed.reverse()) await this.#content.segments.drop(gone);
    if (removed.length > 0) this.#content.directory.namesChanged();
    await this.#flusher.flushAfterCut();
  }

  /**
   * Forgets, in memory and then in the checkpoints, what is at or behind the offset. The recovery point must be lower on
   * disk before the files are: else a crash in between would look like rot.
   */
  async #forgetFrom(offset: Offset): Promise<void> {
    const flushedBefore = this.#content.offsets.flushed;
    this.#content.forgetFrom(offset);
    if (flushedBefore > offset) await this.#state.checkpointInSpiteOfFullDisk();
  }

  /** Makes the segment the active one, ending at the position, durably. */
  async #cutFile(segment: Segment, end: Offset, position: number): Promise<void> {
    const files = await this.#content.segments.reopen(segment);
    segment.cut(end, position);
    await files.file.truncate(position);
    await this.#state.syncOrFail(() => files.file.sync());
    await segment.cutIndexFiles(files);
  }

  #restoreProducers(): Promise<void> {
    const { producers, segments, offsets, settings } = this.#content;
    return producers.restore(segments, offsets.logEnd, settings);
  }

  /** Writes everything down, so that the next start has nothing to recover, and closes the files. Idempotent. */
  async close(): Promise<void> {
    if (this.#state.isClosed) return;
    const wasFailed = this.#state.isFailed;
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
    if (this.#state.isClosed) return;
    this.#state.close();
    for (const timer of this.#removals.values()) timer.cancel();
    this.#removals.clear();
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
