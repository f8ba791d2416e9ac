import type { File } from "../../../common/env/files.js";
import type { Offset } from "../../../protocol/types.js";
import type { LogDisk } from "../content/disk.js";
import type { LogContent } from "../content/log-content.js";
import type { LogWaiters } from "../content/waiters.js";
import type { Writability } from "../content/writability.js";
import { findBatch, scanBatches } from "../segment/scan.js";
import type { DamagedRange, ScanStart } from "../segment/scan.js";
import type { Segment } from "../segment/segment.js";
import type { LogFlusher } from "./flusher.js";

/** What ends where a log is cut. */
type CutContent = Pick<
  LogContent,
  | "settings"
  | "offsets"
  | "segments"
  | "damage"
  | "directory"
  | "epochs"
  | "producers"
  | "forgetFrom"
  | "startAt"
  | "saveEpochs"
  | "clearProducers"
>;

/** Where a segment is cut. */
interface Cut {
  /** Bytes from here on go. */
  readonly position: number;
  /** Where the log ends then. */
  readonly end: Offset;
  /** What stands in front of it and cannot be read. */
  readonly damage: readonly DamagedRange[];
}

/**
 * Cuts the end of a log, in memory and on disk. All of it runs in the queue of what changes files, while appends are
 * refused and no write is in flight. The order is the same each time, so that a crash in between is no news to recovery:
 *
 *   1. memory forgets, so that nobody reads what will go
 *   2. the checkpoints: a recovery point behind the end of the files would look like rot
 *   3. the epochs: those that a file still has when other batches take the place of the old ones would come back with the
 *      next start. Recovery adds the ones that batches show, so a file that knows too few does no harm
 *   4. the files, the newest first
 *   5. the producers, from what is left
 *
 * What the disk may bring back after a power cut, names that were removed, is synced before an append is taken.
 */
export class LogTruncation {
  constructor(
    private readonly content: CutContent,
    private readonly writability: Writability,
    private readonly disk: LogDisk,
    private readonly waiters: LogWaiters,
    private readonly flusher: LogFlusher,
  ) {}

  /**
   * The log ends at the offset then; a batch that holds it goes as a whole. Damage in front of it stays, and is told: others
   * may rely on what this replica holds up to there. Does nothing when `isWanted` says no in the turn in which memory would
   * forget.
   */
  async truncateTo(offset: Offset, isWanted: () => boolean): Promise<void> {
    const { segments, offsets, epochs } = this.content;
    if (!isWanted()) return;
    if (offset < offsets.logStart) {
      await this.#empty(offset);
      return;
    }
    if (offset >= offsets.next) {
      // An epoch in which this replica led without a record is not the leader's all the same: left in place, the two would
      // never agree where their logs part.
      epochs.cutEnd(offset);
      await this.#saveEpochs();
      return;
    }
    const segment = segments.all[segments.indexOf(offset)] as Segment;
    const { position, end, damage } = await this.#findCut(segment, offset);
    if (!isWanted()) return;
    if (end <= offsets.logStart || (position === 0 && segment === segments.all[0])) {
      await this.#empty(end);
      return;
    }
    const removed = segments.takeFrom(segments.all.indexOf(segment) + (position === 0 ? 0 : 1));
    const isNews = this.#forgetFrom(end);
    this.content.damage.add(damage);
    if (isNews || damage.length > 0) await this.disk.checkpointInSpiteOfFullDisk();
    await this.#saveEpochs();
    await this.#drop(removed);
    const active = segments.active as Segment;
    await this.#cutFile(active, end, active === segment ? position : active.sizeBytes);
    await this.#restoreProducers();
    await this.flusher.flushAfterCut();
  }

  /** Drops everything; the log starts and ends at the offset then. */
  async startAt(offset: Offset, isWanted: () => boolean): Promise<void> {
    const { segments, offsets, epochs } = this.content;
    if (!isWanted()) return;
    const removed = segments.takeFrom(0);
    this.#forgetFrom(offsets.logStart);
    this.content.startAt(offset);
    epochs.clear();
    await this.#dropAll(removed);
  }

  /** Drops everything; the log ends at the offset then. Records below it were deleted before, which is no news. */
  async #empty(end: Offset): Promise<void> {
    const { segments, offsets } = this.content;
    const removed = segments.takeFrom(0);
    this.#forgetFrom(end < offsets.logStart ? offsets.logStart : end);
    await this.#dropAll(removed);
  }

  async #dropAll(removed: Segment[]): Promise<void> {
    // Without segments only the checkpoint knows where the log begins.
    await this.disk.checkpointInSpiteOfFullDisk();
    await this.#saveEpochs();
    // Snapshots before the segments: without those they would be believed.
    await this.content.clearProducers();
    await this.#drop(removed);
    await this.content.directory.syncNames();
    await this.flusher.flushAfterCut();
  }

  /**
   * Takes back on disk what was planned and not written, when memory has forgotten it (`dropped` are segments that have no
   * batch left). Else a valid batch of a failed write could come back to life behind a shorter one.
   */
  async cutBack(dropped: readonly Segment[]): Promise<void> {
    const { segments, offsets } = this.content;
    const { active } = segments;
    // The log may have been given a segment of the same name meanwhile: what stands in that file is cut off below.
    for (const segment of dropped)
      await (segment.baseOffset === active?.baseOffset ? segments.release(segment) : segments.drop(segment));
    if (active !== undefined) await this.#cutFile(active, offsets.logEnd, active.sizeBytes);
    await this.#restoreProducers();
  }

  /** Where in the file the batch that holds the offset begins, or the first one behind it, and where the one before ends. */
  async #findCut(segment: Segment, offset: Offset): Promise<Cut> {
    if (offset <= segment.baseOffset) return { position: 0, end: segment.baseOffset, damage: [] };
    return this.content.segments.use(segment, async ({ file, index }) => {
      for (let below: number = offset; ;) {
        const indexed = index.floor(below - segment.baseOffset - 1);
        const start = segment.scanFrom(indexed);
        const { position, end, fault } = await lastBatchBelow(offset, file, start);
        // The first batch that was looked at is the one to cut. There may be a gap in front of it: look further back.
        if (indexed === undefined || position > start.position)
          return fault === undefined || end === offset
            ? { position, end, damage: [] }
            : behindDamage(offset, file, { position, end, fault, endPosition: segment.sizeBytes });
        below = start.offset;
      }
    });
  }

  /** In memory. Returns whether the checkpoints say more now than is true. */
  #forgetFrom(offset: Offset): boolean {
    const { flushed, highWatermark } = this.content.offsets;
    this.content.forgetFrom(offset);
    // Else they would wait for what will never be there, or take what comes in its place for their own.
    const reason = "the records were cut off again, because another log is followed";
    this.waiters.rejectUnwritten(offset, this.writability.refusal(reason));
    return flushed > offset || highWatermark > offset;
  }

  #saveEpochs(): Promise<void> {
    return this.disk.inSpiteOfFullDisk(() => this.content.saveEpochs());
  }

  async #drop(removed: Segment[]): Promise<void> {
    for (const segment of removed.reverse()) await this.content.segments.drop(segment);
  }

  /** Makes the segment the active one, ending at the position, durably. */
  async #cutFile(segment: Segment, end: Offset, position: number): Promise<void> {
    const files = await this.content.segments.reopen(segment);
    segment.cut(end, position);
    await files.file.truncate(position);
    await this.disk.sync(() => files.file.sync());
    await segment.cutIndexFiles();
  }

  async #restoreProducers(): Promise<void> {
    const { producers, segments, offsets, settings, directory } = this.content;
    await producers.restore(segments, offsets.logEnd, settings);
    // What was cut off, and snapshots of it, must not come back behind what is appended now.
    await directory.syncNames();
  }
}

/** Where the last good batch ends that ends at the offset or before; `fault`: why nothing is good behind it. */
async function lastBatchBelow(
  offset: Offset,
  file: File,
  start: ScanStart,
): Promise<{ position: number; end: Offset; fault: string | undefined }> {
  let { position, offset: end } = start;
  const { fault } = await scanBatches(file, start, (batch, at) => {
    if (batch.endOffset > offset) return false;
    position = at + batch.sizeBytes;
    end = batch.endOffset;
    return true;
  });
  return { position, end, fault };
}

/**
 * The cut where damage stands in front of it. Its bytes stay up to the next good batch, so that the next start finds the damage
 * again.
 */
async function behindDamage(
  offset: Offset,
  file: File,
  found: { readonly position: number; readonly end: Offset; readonly fault: string; readonly endPosition: number },
): Promise<Cut> {
  const { endPosition } = found;
  const damage: DamagedRange[] = [];
  let { position, end } = found;
  for (let fault: string | undefined = found.fault; fault !== undefined && end < offset;) {
    const from = end;
    const next = await findBatch(file, position + 1, endPosition, ({ baseOffset }) => baseOffset >= from);
    const to = next === undefined || next.baseOffset > offset ? offset : next.baseOffset;
    if (to > from) damage.push({ from, to, reason: fault });
    const start = { position: next?.position ?? endPosition, endPosition, offset: to };
    ({ position, end, fault } = await lastBatchBelow(offset, file, start));
  }
  return { position, end, damage };
}
