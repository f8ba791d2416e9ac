import { StorageFailure } from "../../../common/env/files.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import type { Offset } from "../../../protocol/types.js";
import type { LogSettings } from "../log-settings.js";
import { shouldRoll } from "../segment/roll.js";
import type { DamagedRange } from "../segment/scan.js";
import { SegmentFiles } from "../segment/segment-files.js";
import { Segment } from "../segment/segment.js";
import type { LogDamage } from "./damage.js";
import type { LogDirectory } from "./directory.js";
import type { LogContext } from "./log-context.js";

/** Bytes that have their place at the end of a segment's file and are to be written there. */
export interface PlannedWrite {
  readonly segment: Segment;
  readonly files: SegmentFiles;
  readonly piece: Buffer;
  /** Where the batches in the piece end. */
  readonly endOffset: Offset;
}

/**
 * The segments of a log, in the order of their offsets; the last one is active. Finds them, opens them through the cache
 * that all logs share, adds them at the end while batches are laid out, and takes them off at both ends. Taking a segment
 * off is a matter of memory; its files are dropped by whoever knows when that is safe.
 */
export class SegmentList {
  constructor(
    private readonly context: LogContext,
    private readonly directory: LogDirectory,
    private readonly segments: Segment[],
    private readonly damage: LogDamage,
    private readonly settings: () => LogSettings,
    /** Counts what is cut off the end. */
    private readonly cuts: () => number,
  ) {}

  get all(): readonly Segment[] {
    return this.segments;
  }
  get active(): Segment | undefined {
    return this.segments.at(-1);
  }
  /** Whether there is no batch, not even a planned one. */
  get isEmpty(): boolean {
    return this.segments.length === 0 || (this.segments.length === 1 && this.segments[0]?.plannedBytes === 0);
  }

  /** Where in `all` the segment stands whose offsets hold this one. */
  indexOf(offset: Offset): number {
    let low = 0;
    let high = this.segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.segments[middle] as Segment).baseOffset <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  /**
   * Runs the task with the files of a segment, which are opened if they are not. Damage that this shows is noted, unless a cut
   * came in between: what was read is perhaps no part of the log any more.
   */
  use<T>(segment: Segment, task: (files: SegmentFiles) => Promise<T>): Promise<T> {
    const cuts = this.cuts();
    const note = (damage: readonly DamagedRange[]): void => {
      if (this.cuts() === cuts) this.damage.add(damage);
    };
    const open = (): ReturnType<Segment["open"]> => segment.open(this.settings().indexIntervalBytes);
    return this.context.cache.use(segment, open, note, task);
  }

  /**
   * Lays batches (stamped) out behind all others, over new segments where one is due. Throws StorageFailure and leaves
   * everything as it was.
   */
  plan(records: Buffer, batches: readonly RecordBatch[]): PlannedWrite[] {
    const settings = this.settings();
    const writes: PlannedWrite[] = [];
    const countBefore = this.segments.length;
    const activeBefore = this.active;
    const before = activeBefore && { offset: activeBefore.endOffset, position: activeBefore.plannedBytes };
    try {
      let segment = activeBefore ?? this.#createFirst((batches[0] as RecordBatch).baseOffset);
      let start = 0;
      for (const batch of batches) {
        if (shouldRoll(segment.rollFacts, batch, settings)) {
          if (batch.start > start) writes.push(plannedWrite(segment, records.subarray(start, batch.start)));
          start = batch.start;
          segment = this.create(segment.endOffset);
        }
        segment.plan(batch, settings.indexIntervalBytes);
      }
      writes.push(plannedWrite(segment, records.subarray(start)));
    } catch (error) {
      if (!(error instanceof StorageFailure)) throw error;
      this.#forget(countBefore);
      if (activeBefore !== undefined && before !== undefined) activeBefore.cut(before.offset, before.position);
      throw error;
    }
    return writes;
  }

  #createFirst(baseOffset: Offset): Segment {
    this.directory.make();
    return this.create(baseOffset);
  }

  /** A new active segment. Throws StorageFailure. */
  create(baseOffset: Offset): Segment {
    const segment = Segment.create(this.context.env.files, this.directory.path, baseOffset);
    this.directory.namesChanged();
    this.segments.push(segment);
    return segment;
  }

  /**
   * Forgets the segment that an empty log has if it does not begin at the offset. Its file stays behind empty and is removed
   * by the next recovery, if no segment takes its name before.
   */
  beginAt(offset: Offset): void {
    if (offset !== this.segments[0]?.baseOffset) this.#forget(0);
  }

  #forget(from: number): void {
    for (const segment of this.segments.splice(from)) void segment.files?.retire();
  }

  takeOldest(count: number): Segment[] {
    return this.segments.splice(0, count);
  }

  /** From this place in `all` on. */
  takeFrom(index: number): Segment[] {
    return this.segments.splice(index);
  }

  /** All at the end that nothing was written to, but for the first: by its name and snapshot a log goes on that was emptied. */
  takeUnwritten(): Segment[] {
    let count = 0;
    while (count < this.segments.length - 1 && this.segments.at(-1 - count)?.sizeBytes === 0) count += 1;
    return this.segments.splice(this.segments.length - count).reverse();
  }

  /** Closes a segment for good that was active until now: its indexes are completed, its files go to the cache. */
  async seal(segment: Segment): Promise<void> {
    const files = segment.openFiles;
    // In use, because the cache may have had them before, from a reader, and would close them meanwhile.
    await files.use(async () => {
      await segment.seal();
      this.context.cache.adopt(segment, files);
    });
  }

  /** Opens the file of a segment for writing, as the active one needs it. */
  async reopen(segment: Segment): Promise<SegmentFiles> {
    const known = await this.use(segment, (files) => Promise.resolve(files));
    this.context.cache.release(segment);
    const file = await this.context.env.files.open(segment.path("log"), "write");
    const files = new SegmentFiles(file, known.index, known.timeIndex);
    segment.files = files;
    await known.retire();
    return files;
  }

  /** With the next use the indexes of a closed segment are made anew, with an entry behind each damaged range. */
  async rebuildIndexes(segment: Segment): Promise<void> {
    this.context.cache.release(segment);
    const files = segment.files;
    segment.files = undefined;
    await this.context.env.files.remove(segment.path("index"));
    await files?.retire();
  }

  /** Closes the files when their last reader is done. */
  async release(segment: Segment): Promise<void> {
    this.context.cache.release(segment);
    await segment.files?.retire();
    segment.files = undefined;
  }

  /** Removes the files of a segment that was taken off. */
  async drop(segment: Segment): Promise<void> {
    await this.release(segment);
    await segment.removeFiles();
    this.directory.namesChanged();
  }

  async close(): Promise<void> {
    for (const segment of this.segments) await this.release(segment);
  }
}

function plannedWrite(segment: Segment, piece: Buffer): PlannedWrite {
  return { segment, files: segment.openFiles, piece, endOffset: segment.endOffset };
}
