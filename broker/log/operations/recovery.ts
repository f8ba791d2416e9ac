import { dirname, join } from "node:path";
import type { Env } from "../../../common/env/env.js";
import type { Limiter } from "../../../common/limiter.js";
import type { Logger } from "../../../common/logger.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import type { LeaderEpoch, Offset } from "../../../protocol/types.js";
import { isDamaged } from "../content/damage.js";
import { LeaderEpochCache } from "../content/leader-epoch-cache.js";
import type { RecoveredLog } from "../content/log-content.js";
import { LogOffsets } from "../content/offsets.js";
import { removeSnapshots } from "../content/producer-snapshots.js";
import type { ProducerStates } from "../content/producer-states.js";
import { rebuildProducers, snapshotProducers } from "../content/producers.js";
import { DamagedCheckpoint, readCheckpoint, writeCheckpoint } from "../files/checkpoint-file.js";
import type { LastStop } from "../files/last-stop.js";
import { EPOCHS_FILE, METADATA_FILE, parseSegmentFileName } from "../files/names.js";
import type { LogSettings } from "../log-settings.js";
import { findBatch, scanBatches, surveySegment } from "../segment/scan.js";
import type { DamagedRange, Survey } from "../segment/scan.js";
import { SegmentFiles } from "../segment/segment-files.js";
import { Segment } from "../segment/segment.js";

const COPY_BYTES = 1024 * 1024;

/** What the checkpoint files say of a partition. */
export interface CheckpointedOffsets {
  /** Undefined when the checkpoint cannot be read. */
  readonly logStart: Offset | undefined;
  readonly highWatermark: Offset | undefined;
  /** What is below it was durable. */
  readonly recoveryPoint: Offset | undefined;
  /** From here on the last run knew of damage. */
  readonly damagedFrom: Offset | undefined;
}

/** What recovery works with. */
export interface RecoveryContext {
  readonly env: Env;
  readonly logger: Logger;
  readonly syncs: Limiter;
  readonly settings: LogSettings;
  readonly lastStop: LastStop;
  /**
   * What had been written is lost, though only the process had died. Called before a file is cut: once that is done nothing on
   * the disk shows it any more.
   */
  readonly onLoss: () => Promise<void>;
}

/**
 * Brings the files of one partition into a state from which a Log can go on, after any end of the last run.
 *
 * Everything from the recovery point on is checked byte by byte, over all segments, and cut at the first byte that is
 * not a good batch: writeback is unordered, so behind a hole nothing counts. Below the recovery point bytes were
 * durable; what cannot be read there is damage, which is kept apart and never cut. It is looked for where the last run
 * knew of some; else readers and the scrubber find it. The bytes past the recovery point
 * are copied to new files and synced, because a page that failed to be written earlier counts as clean and would not be
 * written by a sync now; after a power cut too, for it may lie some runs back. Then indexes, epochs and producers are
 * brought to the same end.
 */
export async function recoverLog(
  context: RecoveryContext,
  directory: string,
  checkpointed: CheckpointedOffsets,
): Promise<RecoveredLog> {
  const recovery = new LogRecovery(context, directory, checkpointed);
  return recovery.run();
}

class LogRecovery {
  readonly #files;
  #segments: Segment[] = [];
  #damage: DamagedRange[] = [];
  #wasCut = false;
  #hasLost = false;
  /** Bytes were copied, and all names made durable with them. */
  #hasCopied = false;
  /** Where a segment begins since then, and none did before. */
  #begunAt: Offset | undefined;
  /** Epochs of the batches that were scanned, in order. */
  readonly #scannedEpochs: { epoch: LeaderEpoch; offset: Offset }[] = [];
  /** Where the recovery point lies: the first byte that must be copied after a crash. */
  #copyFrom: { segment: Segment; position: number; offset: Offset } | undefined;
  readonly #recoveryPoint: Offset;
  /** From here on every byte is checked. */
  readonly #checkFrom: Offset;

  constructor(
    private readonly context: RecoveryContext,
    private readonly directory: string,
    private readonly checkpointed: CheckpointedOffsets,
  ) {
    this.#files = context.env.files;
    this.#recoveryPoint = checkpointed.recoveryPoint ?? toOffset(0);
    this.#checkFrom = toOffset(Math.min(this.#recoveryPoint, checkpointed.damagedFrom ?? this.#recoveryPoint));
  }

  async run(): Promise<RecoveredLog> {
    await this.#openSegments();
    await this.#checkBeginning();
    await this.#checkSegments();
    await this.#dropBehindLogStart();
    if (this.context.lastStop !== "clean") {
      await this.#copyWhatMayNotBeOnDisk();
      // Files that were removed by a process that died then may be back after a power cut: segments behind what is appended to
      // the others from now on, snapshots of producers whose batches were cut off. A copy has made all names durable.
      if (!this.#hasCopied) await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
    }
    const logEnd = this.#logEnd();
    await this.#startNewSegmentBehindDamage(logEnd);
    const logStart = this.#logStart(logEnd);
    const epochs = await this.#recoverEpochs(logStart, logEnd);
    const producers = await this.#recoverProducers(logEnd);
    const highWatermark = this.checkpointed.highWatermark ?? logStart;
    return {
      segments: this.#segments,
      offsets: new LogOffsets({ logStart, highWatermark, logEnd }),
      epochs,
      producers,
      damage: this.#damage,
      hasDirectory: true,
      isDirectoryDurable: this.context.lastStop === "clean" || this.#hasCopied,
      wasCut: this.#wasCut,
    };
  }

  /** Lists the segments with their sizes, and removes what a crash left lying about. */
  async #openSegments(): Promise<void> {
    const names = await this.#files.list(this.directory);
    const bases: Offset[] = [];
    for (const name of names) {
      const file = parseSegmentFileName(name);
      if (file?.kind === "log") bases.push(file.offset);
      else if (/\.(deleted|copy|tmp)$/.test(name)) await this.#files.remove(join(this.directory, name));
    }
    for (const base of bases) {
      const segment = new Segment(this.#files, this.directory, base);
      const file = await this.#files.open(segment.path("log"), "read");
      segment.sizeBytes = file.size();
      await file.close();
      segment.plannedBytes = segment.sizeBytes;
      segment.syncedBytes = segment.sizeBytes;
      segment.timesKnown = false;
      this.#segments.push(segment);
    }
    // An empty file among others is a roll, or a restart, that did not come to its first write.
    const empty = this.#segments.filter((segment) => segment.sizeBytes === 0);
    const kept = empty.length === this.#segments.length ? empty.pop() : undefined;
    for (const segment of empty) await segment.removeFiles();
    if (empty.length > 0) await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
    this.#segments = this.#segments.filter((segment) => segment.sizeBytes > 0 || segment === kept);
    this.#segments.forEach((segment, at) => {
      segment.endOffset = this.#segments[at + 1]?.baseOffset ?? segment.baseOffset;
    });
  }

  /**
   * The log start moves in the checkpoint before it moves in the directory. So a log that begins later than the checkpoint
   * says has lost its first segments: after a power cut perhaps only their names, while later ones are there.
   */
  async #checkBeginning(): Promise<void> {
    const start = this.checkpointed.logStart;
    const first = this.#segments[0];
    if (start === undefined || first === undefined || first.baseOffset <= start) return;
    const durableTo = Math.min(this.#recoveryPoint, first.baseOffset);
    if (durableTo > start) {
      this.#damage.push({ from: start, to: toOffset(durableTo), reason: "the segment files are missing" });
      if (first.baseOffset <= this.#recoveryPoint) return;
    }
    // A crash loses no names: an empty log was begun here by a leader's first batch, a moment ago.
    if (this.context.lastStop === "clean" || this.context.lastStop === "crash") return;
    this.#wasCut = true;
    for (const segment of this.#segments.splice(0)) {
      this.context.logger.warn(
        `${segment.path("log")}: ${segment.sizeBytes} bytes dropped: the segments before it are not there`,
      );
      await segment.removeFiles();
    }
    await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
  }

  async #checkSegments(): Promise<void> {
    const trusted = this.#recoveryPoint;
    for (let at = 0; at < this.#segments.length; at += 1) {
      const segment = this.#segments[at] as Segment;
      const next = this.#segments[at + 1];
      // Durable as a whole: its first reader, or the scrubber, finds out whether it still is what was written. One that the
      // recovery point ends may hold more: what was copied to the next one by a start that was cut short.
      if (next !== undefined && next.baseOffset < this.#checkFrom) continue;
      const goOn = await this.#checkSegment(segment, next);
      if (goOn) continue;
      await this.#cutBehind(at);
      return;
    }
    const missingFrom = this.#logEnd();
    if (missingFrom < trusted) {
      // The files of durable batches are gone.
      this.#damage.push({ from: missingFrom, to: trusted, reason: "the segment files are missing" });
    }
  }

  /** Returns whether the segments behind this one still belong to the log. */
  async #checkSegment(segment: Segment, next: Segment | undefined): Promise<boolean> {
    const trusted = this.#recoveryPoint;
    const file = await this.#files.open(segment.path("log"), "write");
    const index = await segment.readIndex();
    const timeIndex = await segment.readTimeIndex();
    const indexCount = index.count;
    const timeCount = timeIndex.count;
    // An index entry is believed as far as the batches in front of it need no check.
    const relativeCheckFrom = Math.max(0, this.#checkFrom - segment.baseOffset);
    index.cut(relativeCheckFrom + 1, segment.sizeBytes);
    const last = await this.#firstTrueEntry(segment, file, index);
    timeIndex.cut(last?.relativeOffset ?? 0);
    if ((timeIndex.last()?.relativeOffset ?? 0) < (last?.relativeOffset ?? 0)) {
      // The time index lost more: both are made anew.
      index.cut(0, 0);
      timeIndex.cut(-1);
    }
    const from = index.entry(index.count - 1);
    const files = new SegmentFiles(file, index, timeIndex);
    segment.resumeIndexes(files, Math.min(indexCount, index.count), Math.min(timeCount, timeIndex.count));
    const sizeBytes = segment.sizeBytes;
    segment.plannedBytes = from?.position ?? 0;
    segment.endOffset = toOffset(segment.baseOffset + (from?.relativeOffset ?? 0));
    const survey = await surveySegment(
      file,
      {
        position: segment.plannedBytes,
        endPosition: sizeBytes,
        offset: segment.endOffset,
        endOffset: next?.baseOffset,
      },
      trusted,
      (batch, position, afterDamage) => {
        if (batch.endOffset > trusted) this.#copyFrom ??= { segment, position, offset: batch.baseOffset };
        if (this.#scannedEpochs.at(-1)?.epoch !== batch.leaderEpoch)
          this.#scannedEpochs.push({ epoch: batch.leaderEpoch, offset: batch.baseOffset });
        segment.plannedBytes = position;
        segment.plan(batch, this.context.settings.indexIntervalBytes, afterDamage);
      },
    );
    segment.timesKnown = true;
    segment.endOffset = survey.offset;
    this.#damage.push(...survey.damage);
    const lastIsDamage =
      survey.damage.at(-1)?.to === survey.offset && survey.offset <= trusted && survey.damage.length > 0;
    if (lastIsDamage) {
      segment.plannedBytes = sizeBytes;
      // What may have stood behind the damage cannot be told from it.
      if (next === undefined) this.#wasCut = true;
      return next === undefined || survey.offset === next.baseOffset;
    }
    segment.plannedBytes = survey.position;
    if (segment.firstTimestamp === undefined && survey.position > 0) await segment.readFirstTimestamp();
    const reachesNext = next === undefined || survey.offset === next.baseOffset;
    if (survey.position < sizeBytes) {
      // Where the next segment goes on, what is cut off stands there too: a start was killed in the middle of copying it.
      const isDoubled = next !== undefined && reachesNext;
      if (!isDoubled && (await this.#isLossInCrash(segment, files, survey))) await this.#noteLoss(segment);
      await this.#cutFile(segment, files, survey);
    } else await segment.cutIndexFiles();
    segment.sizeBytes = survey.position;
    segment.syncedBytes = survey.position;
    if (!reachesNext) return false;
    // What two segments hold is not lost by cutting it from the first.
    if (survey.fault !== undefined && next === undefined) this.#wasCut = true;
    return true;
  }

  /** Drops index entries until the last one points at the batch that it names. */
  async #firstTrueEntry(
    segment: Segment,
    file: SegmentFiles["file"],
    index: SegmentFiles["index"],
  ): Promise<{ relativeOffset: number } | undefined> {
    for (let last = index.entry(index.count - 1); last !== undefined; last = index.entry(index.count - 1)) {
      const { position } = last;
      const offset = toOffset(segment.baseOffset + last.relativeOffset);
      let matches = false;
      await scanBatches(file, { position, endPosition: segment.sizeBytes, offset }, (batch) => {
        matches = batch.baseOffset === offset;
        return false;
      });
      if (matches) return last;
      index.cut(last.relativeOffset, position);
    }
    return undefined;
  }

  async #cutFile(segment: Segment, files: SegmentFiles, survey: Survey): Promise<void> {
    const { position, fault } = survey;
    this.context.logger.warn(
      `${segment.path("log")}: cut at offset ${segment.endOffset}, byte ${position}; ${segment.sizeBytes - position} bytes dropped: ${fault ?? "they do not belong to it"}`,
    );
    await files.file.truncate(position);
    await this.context.syncs.run(() => files.file.sync());
    await segment.cutIndexFiles();
  }

  /**
   * A process that dies leaves the beginning of its last write, and the kernel every byte that it got. Bytes that begin no
   * batch are not that, nor is a batch behind the one that is torn: its length is what is wrong.
   */
  async #isLossInCrash(segment: Segment, { file }: SegmentFiles, survey: Survey): Promise<boolean> {
    if (this.context.lastStop !== "crash") return false;
    if (survey.stop !== "torn") return survey.stop === "bad";
    const isLater = (batch: RecordBatch): boolean => batch.baseOffset > segment.endOffset;
    return (await findBatch(file, survey.position + 1, segment.sizeBytes, isLater)) !== undefined;
  }

  async #noteLoss(segment: Segment): Promise<void> {
    if (this.#hasLost) return;
    this.#hasLost = true;
    this.context.logger.error(
      `${segment.path("log")}: from offset ${segment.endOffset} on records are lost that had been written, though only the process had died`,
    );
    await this.context.onLoss();
  }

  /** The log ends in this segment; the ones behind it were written later and mean nothing without what is missing. */
  async #cutBehind(at: number): Promise<void> {
    this.#wasCut = true;
    const removed = this.#segments.splice(at + 1);
    if (this.context.lastStop === "crash" && removed.some(({ sizeBytes }) => sizeBytes > 0))
      await this.#noteLoss(this.#segments[at] as Segment);
    for (const segment of removed.reverse()) {
      this.context.logger.warn(
        `${segment.path("log")}: ${segment.sizeBytes} bytes dropped: the log ends before them, at offset ${this.#logEnd()}`,
      );
      await segment.removeFiles();
    }
    const last = this.#segments.at(-1) as Segment;
    if (last.sizeBytes === 0 && this.#segments.length > 1) {
      await last.files?.retire();
      await last.removeFiles();
      this.#segments.pop();
      await this.#reopenLast();
    }
    await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
  }

  /** A segment that was skipped, because it was durable, is the last one now and must be open for appends. */
  async #reopenLast(): Promise<void> {
    const last = this.#segments.at(-1) as Segment;
    if (last.files === undefined) await this.#checkSegment(last, undefined);
  }

  #logEnd(): Offset {
    const end = this.#segments.at(-1)?.endOffset ?? toOffset(0);
    const start = this.checkpointed.logStart ?? toOffset(0);
    const damagedTo = this.#damage.at(-1)?.to ?? end;
    return toOffset(Math.max(end, start, damagedTo));
  }

  #logStart(logEnd: Offset): Offset {
    const first = this.#segments[0]?.baseOffset ?? logEnd;
    const damagedFrom = this.#damage[0]?.from ?? first;
    const checkpointed = this.checkpointed.logStart ?? toOffset(0);
    return toOffset(Math.min(logEnd, Math.max(Math.min(first, damagedFrom), checkpointed)));
  }

  /** A restart of the log at a later offset was cut short: its old segments are behind the log start as a whole. */
  async #dropBehindLogStart(): Promise<void> {
    const start = this.checkpointed.logStart;
    const last = this.#segments.at(-1);
    if (start === undefined || last === undefined) return;
    if (last.endOffset >= start || (this.#damage.at(-1)?.to ?? 0) > start) return;
    await removeSnapshots(this.#files, this.directory);
    for (const segment of this.#segments.splice(0)) {
      await segment.files?.retire();
      await segment.removeFiles();
    }
    this.#damage = [];
    this.#copyFrom = undefined;
    await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
  }

  async #copyWhatMayNotBeOnDisk(): Promise<void> {
    const from = this.#copyFrom;
    const first = from === undefined ? -1 : this.#segments.indexOf(from.segment);
    await this.#cutAgain(first < 0 ? this.#segments : this.#segments.slice(0, first));
    if (from === undefined || first < 0) return;
    // The directory may be as new as the bytes in it.
    const metadata = join(this.directory, METADATA_FILE);
    await writeCheckpoint(this.#files, metadata, (await readCheckpoint(this.#files, metadata)) ?? []);
    await this.context.syncs.run(() => this.#files.syncDirectory(dirname(this.directory)));
    for (const segment of this.#segments.slice(first)) {
      const { position, offset } = segment === from.segment ? from : { position: 0, offset: segment.baseOffset };
      if (segment.sizeBytes <= position) continue;
      await this.#copySegment(segment, position, offset);
      this.#hasCopied = true;
    }
  }

  /**
   * What was cut off these files before may stand in them on the disk all the same, when the sync of the cut had failed: it
   * would come back with a power cut, behind whatever the file holds then.
   */
  async #cutAgain(segments: readonly Segment[]): Promise<void> {
    for (const { files, sizeBytes } of segments) {
      if (files === undefined) continue;
      await files.file.truncate(sizeBytes);
      await this.context.syncs.run(() => files.file.sync());
    }
  }

  /**
   * The bytes from the position on get a file of their own, synced, under the name of a segment: a new one when there is
   * something in front of them. Steps, and what a crash after each leaves: the copy (removed at the next start); its name
   * (the old segment holds the same batches, and is cut where the next one begins); the cut.
   */
  async #copySegment(segment: Segment, position: number, offset: Offset): Promise<void> {
    const old = segment.files as SegmentFiles;
    const base = position === 0 ? segment.baseOffset : await this.#offsetAt(segment, old, position, offset);
    const copy = new Segment(this.#files, this.directory, base);
    const path = `${copy.path("log")}.copy`;
    const file = await this.#files.open(path, "create");
    const buffer = Buffer.allocUnsafeSlow(Math.min(COPY_BYTES, segment.sizeBytes - position));
    for (let at = position; at < segment.sizeBytes;) {
      const count = await old.file.read(buffer.subarray(0, Math.min(buffer.length, segment.sizeBytes - at)), at);
      await file.write([buffer.subarray(0, count)], at - position);
      at += count;
    }
    await this.context.syncs.run(() => file.sync());
    await file.close();
    await this.#files.rename(path, copy.path("log"));
    await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
    if (position > 0) {
      segment.cut(base, position);
      await old.file.truncate(position);
      await this.context.syncs.run(() => old.file.sync());
      await segment.cutIndexFiles();
      this.#segments.splice(this.#segments.indexOf(segment) + 1, 0, copy);
      this.#begunAt = base;
    } else {
      await old.retire();
      this.#segments.splice(this.#segments.indexOf(segment), 1, copy);
    }
    const opened = await this.#files.open(copy.path("log"), "write");
    copy.sizeBytes = opened.size();
    await opened.close();
    copy.endOffset = base;
    await this.#checkSegment(copy, undefined);
  }

  /** `offset`: of the batch at the position. */
  async #offsetAt(segment: Segment, files: SegmentFiles, position: number, offset: Offset): Promise<Offset> {
    // The old end: where the batch in front of the position ends. A new segment always begins where the last one ended.
    const indexed = files.index.floor(this.#recoveryPoint - segment.baseOffset - 1);
    const end = await scanBatches(files.file, { ...segment.scanFrom(indexed), endPosition: position }, () => true);
    // What is in front of it may be damaged, and not known to be, because it needs no check: nobody must take the offsets of
    // what is there for the first ones of the new segment.
    return end.position < position ? offset : end.offset;
  }

  /** Nothing is appended behind bytes that cannot be read. */
  async #startNewSegmentBehindDamage(logEnd: Offset): Promise<void> {
    const last = this.#segments.at(-1);
    const isDamagedToItsEnd = this.#damage.at(-1)?.to === logEnd;
    if (isDamagedToItsEnd) {
      const segment = Segment.create(this.#files, this.directory, logEnd);
      if (last !== undefined) last.endOffset = logEnd;
      this.#segments.push(segment);
      await this.context.syncs.run(() => this.#files.syncDirectory(this.directory));
    }
    // A log start behind all batches leaves a gap in the last segment.
    const active = this.#segments.at(-1);
    if (active !== undefined && active.endOffset < logEnd) active.endOffset = logEnd;
    // Only the active segment stays open.
    for (const segment of this.#segments.slice(0, -1)) {
      const { files } = segment;
      if (files === undefined) continue;
      if (!isDamaged(this.#damage, segment)) await segment.seal();
      segment.files = undefined;
      await files.retire();
    }
  }

  async #recoverEpochs(logStart: Offset, logEnd: Offset): Promise<LeaderEpochCache> {
    const path = join(this.directory, EPOCHS_FILE);
    let epochs: LeaderEpochCache | undefined;
    let changed = false;
    try {
      const lines = await readCheckpoint(this.#files, path);
      epochs = lines && LeaderEpochCache.fromLines(lines);
    } catch (error) {
      if (!(error instanceof DamagedCheckpoint)) throw error;
      this.context.logger.warn(`${error.message}; it is made anew from the batches`);
    }
    const known = epochs?.entries ?? [];
    // The file was written when the log began later, and that had not become durable: the records before are here again.
    const beginsLate = known[0] !== undefined && known[0].startOffset > logStart && logStart < logEnd;
    if (epochs === undefined || beginsLate) {
      epochs = await this.#epochsOfAllBatches();
      for (const { epoch, startOffset } of known) epochs.assign(epoch, startOffset);
      changed = this.#segments.length > 0;
    }
    for (const { epoch, offset } of this.#scannedEpochs) if (epochs.assign(epoch, offset)) changed = true;
    // Where all records were deleted, the epoch of the last one is all that says how new this log is.
    const isEmptied = logStart > 0 && logStart === logEnd;
    if (epochs.cutEnd(isEmptied ? toOffset(logEnd + 1) : logEnd)) changed = true;
    epochs.cutStart(logStart);
    if (changed) await writeCheckpoint(this.#files, path, epochs.toLines());
    return epochs;
  }

  async #epochsOfAllBatches(): Promise<LeaderEpochCache> {
    const epochs = new LeaderEpochCache();
    for (const segment of this.#segments) {
      await this.#withFile(segment, async (file) => {
        await surveySegment(
          file,
          { position: 0, endPosition: segment.sizeBytes, offset: segment.baseOffset },
          segment.endOffset,
          (batch) => void epochs.assign(batch.leaderEpoch, batch.baseOffset),
        );
      });
    }
    return epochs;
  }

  async #recoverProducers(logEnd: Offset): Promise<ProducerStates> {
    const { env, settings: limits } = this.context;
    const segments = this.#segments;
    const use: Parameters<typeof rebuildProducers>[3] = (segment, task) =>
      this.#withFile(segment, async (file) => task(file, segment.files?.index ?? (await segment.readIndex())));
    // What is read on the way is not read again when the segments in front are removed one day.
    if (this.#begunAt !== undefined)
      await snapshotProducers(env, this.directory, { segments, offset: this.#begunAt, limits }, use);
    return rebuildProducers(env, this.directory, { segments, logEnd, limits }, use);
  }

  async #withFile(segment: Segment, task: (file: SegmentFiles["file"]) => Promise<void>): Promise<void> {
    if (segment.files !== undefined) {
      await task(segment.files.file);
      return;
    }
    const file = await this.#files.open(segment.path("log"), "read");
    try {
      await task(file);
    } finally {
      await file.close();
    }
  }
}
