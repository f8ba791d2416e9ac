import type { File } from "../../../common/env/files.js";
import { BatchFault, batchSizeAt, BATCH_BYTES_MIN, readBatch } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import type { LeaderEpoch, Offset } from "../../../protocol/types.js";

const CHUNK_BYTES = 1024 * 1024;
/** A batch in a file is never larger: settings bound what is appended far below this. */
const BATCH_BYTES_MAX = 256 * 1024 * 1024;

/** What a scan must find for bytes to count as batches of this log. */
export interface ScanStart {
  /** Where the first batch begins. */
  readonly position: number;
  /** Bytes from here on are not looked at. */
  readonly endPosition: number;
  /** The first batch begins here or later. */
  readonly offset: Offset;
  /** Batches from here on belong to the next segment; the scan stops in front of them. */
  readonly endOffset?: Offset | undefined;
  /** Epochs never descend, from this one on. */
  readonly epoch?: LeaderEpoch | undefined;
}

/** Where a scan ended. */
export interface ScanEnd {
  /** One past the last good byte. */
  readonly position: number;
  /** One past the last good offset. */
  readonly offset: Offset;
  readonly epoch: LeaderEpoch;
  /** Why the byte at `position` is not the first of a good batch; undefined when all bytes were good or nothing follows. */
  readonly fault: string | undefined;
  readonly stop: ScanStop;
}

/**
 * What stands where a scan stopped. `nothing`: it saw all bytes, or `visit` had enough. `torn`: the beginning of a batch,
 * as a write that was cut short leaves it. `bad`: what no write leaves. `next-segment`: a good batch of the next segment.
 */
export type ScanStop = "nothing" | "torn" | "bad" | "next-segment";

/**
 * Walks the batches of a segment file and checks all that can be checked: form, both checksums, ascending offsets, epochs
 * that do not descend. Stops at the first byte that is not a good batch. Reads in chunks of 1 MiB, each in its own turn of
 * the event loop, so that a long scan stalls nobody. `visit` gets each good batch (valid during the call only) and may
 * stop the scan by returning false; `pace` is waited for after each chunk, for scans that must be slow.
 */
export async function scanBatches(
  file: File,
  start: ScanStart,
  visit: (batch: RecordBatch, position: number) => boolean | void,
  pace?: (bytes: number) => Promise<void>,
): Promise<ScanEnd> {
  let chunk: Buffer = Buffer.allocUnsafeSlow(Math.max(1, Math.min(CHUNK_BYTES, start.endPosition - start.position)));
  let { position, offset } = start;
  let epoch = start.epoch ?? 0;
  const ended = (fault?: string, stop: ScanStop = fault === undefined ? "nothing" : "bad"): ScanEnd => ({
    position,
    offset,
    epoch,
    fault,
    stop,
  });
  while (position < start.endPosition) {
    const wanted = Math.min(chunk.length, start.endPosition - position);
    const bytes = await file.read(chunk.subarray(0, wanted), position);
    let at = 0;
    while (at < bytes) {
      let batch: RecordBatch;
      try {
        const size = batchSizeAt(chunk, at, bytes);
        if (size === undefined || at + size > bytes) break;
        batch = readBatch(chunk, at, bytes);
        batch.verify();
      } catch (error) {
        if (error instanceof BatchFault) return ended(`no good batch begins here (${error.kind})`);
        throw error;
      }
      if (batch.baseOffset < offset) return ended(`offset ${batch.baseOffset} where ${offset} or more must come`);
      if (batch.leaderEpoch < epoch) return ended(`leader epoch ${batch.leaderEpoch} behind ${epoch}`);
      if (start.endOffset !== undefined && batch.baseOffset >= start.endOffset) return ended(undefined, "next-segment");
      const goOn = visit(batch, position);
      at += batch.sizeBytes;
      position += batch.sizeBytes;
      offset = batch.endOffset;
      epoch = batch.leaderEpoch;
      if (goOn === false) return ended();
    }
    if (pace !== undefined) await pace(bytes);
    if (at > 0) continue;
    // Not even one batch fitted into the chunk: it is larger, or the file ends inside it.
    if (bytes < wanted) return ended(`the file ends at byte ${position + bytes}`);
    const size = batchSizeAt(chunk, 0, bytes);
    if (size === undefined || position + size > start.endPosition || size > BATCH_BYTES_MAX)
      return ended("the last batch is not whole", "torn");
    chunk = Buffer.allocUnsafeSlow(size);
  }
  return ended();
}

/**
 * The first good batch of a log at or behind a position that is known to be bad: where reading can begin again. Tries
 * every byte, which is cheap, because few look like the beginning of a batch.
 */
export async function findBatch(
  file: File,
  from: number,
  endPosition: number,
  isPlausible: (batch: RecordBatch) => boolean,
): Promise<{ position: number; baseOffset: Offset } | undefined> {
  let chunk: Buffer = Buffer.allocUnsafeSlow(Math.max(1, Math.min(CHUNK_BYTES, endPosition - from)));
  let position = from;
  while (endPosition - position >= BATCH_BYTES_MIN) {
    const bytes = await file.read(chunk.subarray(0, Math.min(chunk.length, endPosition - position)), position);
    if (bytes < BATCH_BYTES_MIN) return undefined;
    let at = 0;
    let largerThanChunk = 0;
    for (; at + BATCH_BYTES_MIN <= bytes; at += 1) {
      // The tag of a batch and, behind a length of one to five bytes, the tag of its first field.
      if (chunk[at] !== 0x0a) continue;
      let size: number | undefined;
      try {
        size = batchSizeAt(chunk, at, bytes);
        if (size === undefined || chunk[at + lengthBytes(chunk, at + 1) + 1] !== 0x09) continue;
        if (at + size > bytes) {
          if (position + at + size > endPosition || size > BATCH_BYTES_MAX) continue;
          largerThanChunk = size;
          break;
        }
        const batch = readBatch(chunk, at, bytes);
        if (batch.stampMatches && batch.crcMatches && isPlausible(batch)) {
          return { position: position + at, baseOffset: batch.baseOffset };
        }
      } catch (error) {
        if (!(error instanceof BatchFault)) throw error;
      }
    }
    if (largerThanChunk > 0 && at === 0) {
      // It stands first and is larger than the chunk: look at the whole of it, then step over its first byte.
      const whole = Buffer.allocUnsafeSlow(largerThanChunk);
      const count = await file.read(whole, position);
      if (count === largerThanChunk && isGoodBatch(whole, isPlausible)) {
        return { position, baseOffset: readBatch(whole, 0).baseOffset };
      }
      at = 1;
    }
    if (position + bytes >= endPosition && largerThanChunk === 0) return undefined;
    position += at;
    if (chunk.length < CHUNK_BYTES) chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  }
  return undefined;
}

function isGoodBatch(bytes: Buffer, isPlausible: (batch: RecordBatch) => boolean): boolean {
  try {
    const batch = readBatch(bytes, 0);
    return batch.stampMatches && batch.crcMatches && isPlausible(batch);
  } catch (error) {
    if (error instanceof BatchFault) return false;
    throw error;
  }
}

function lengthBytes(chunk: Buffer, at: number): number {
  let count = 1;
  while (count < 5 && (chunk[at + count - 1] as number) >= 0x80) count += 1;
  return count;
}

/** Offsets whose records the disk has lost or changed: never served, never dropped in silence. */
export interface DamagedRange {
  readonly from: Offset;
  /** Exclusive. */
  readonly to: Offset;
  readonly reason: string;
}

/** What a survey found out. */
export interface Survey {
  readonly damage: readonly DamagedRange[];
  /** One past the last good byte. */
  readonly position: number;
  /** One past the last offset that is good or known to be damaged. */
  readonly offset: Offset;
  readonly epoch: LeaderEpoch;
  /** Why the bytes from `position` on are no batches of this segment; undefined when there are none. */
  readonly fault: string | undefined;
  readonly stop: ScanStop;
}

/**
 * Scans to the end of a segment, over damage where that is certain to be damage. Offsets below `trustedEnd` were durable
 * once: what cannot be read there is rot, reported as damaged, and the scan goes on behind it. From `trustedEnd` on the
 * first bad byte is the end, because a torn write leaves anything behind it. `visit` learns in its third argument that the
 * batch follows damage, and may stop the scan by returning false.
 */
export async function surveySegment(
  file: File,
  start: ScanStart,
  trustedEnd: Offset,
  visit: (batch: RecordBatch, position: number, afterDamage: boolean) => boolean | void,
  pace?: (bytes: number) => Promise<void>,
): Promise<Survey> {
  const damage: DamagedRange[] = [];
  const trusted = start.endOffset === undefined || start.endOffset > trustedEnd ? trustedEnd : start.endOffset;
  let from: ScanStart = start;
  for (;;) {
    let afterDamage = from !== start;
    let isStopped = false;
    const end = await scanBatches(
      file,
      from,
      (batch, position) => {
        isStopped = visit(batch, position, afterDamage) === false;
        afterDamage = false;
        return !isStopped;
      },
      pace,
    );
    const { position, offset, epoch, stop } = end;
    const fault = stop === "next-segment" ? "batches that the next segment holds too" : end.fault;
    if (isStopped || offset >= trusted) return { damage, position, offset, epoch, fault, stop };
    const found =
      end.fault === undefined
        ? undefined
        : await findBatch(
            file,
            position + 1,
            start.endPosition,
            (batch) => batch.baseOffset >= offset && batch.baseOffset <= trusted && batch.leaderEpoch >= epoch,
          );
    const reason = end.fault ?? "the file ends too early";
    damage.push({ from: offset, to: found?.baseOffset ?? trusted, reason });
    if (found === undefined) return { damage, position, offset: trusted, epoch, fault, stop };
    from = { ...start, position: found.position, offset: found.baseOffset, epoch };
  }
}
