import type { BytePool } from "../../../common/byte-pool.js";
import { BatchFault, batchSizeAt, readBatch } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import type { Offset } from "../../../protocol/types.js";
import type { SegmentFiles } from "./segment-files.js";
import type { Segment } from "./segment.js";

/** A read from a segment file takes a buffer of this size, however little of it is asked for. */
export const READ_BUFFER_BYTES = 1024 * 1024;

/** Whole batches, as they lie in the log. */
export interface LogRead {
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  /** Gives pooled memory back. Called once, when the pieces are not needed any more; they must not be used afterwards. */
  release(): void;
}

/** Nothing to read. */
export const emptyRead: LogRead = { pieces: [], bytes: 0, release: () => undefined };

/** Bytes at this place of the file are not the batches that should be there. */
export class UnreadableSegment extends Error {
  override readonly name = "UnreadableSegment";
}

/**
 * Reads whole batches from a file: from the one that holds `from`, all below `end`, at most `maxBytes` but at least one.
 * Undefined when the segment has no batch from there on. Checks the form of what it delivers, no checksums: whoever gets it
 * does. What it only walks over is verified, because nobody else would see why a batch was passed over. Throws
 * UnreadableSegment when there is something else than batches.
 */
export async function readFromSegment(
  segment: Segment,
  files: SegmentFiles,
  pool: BytePool,
  range: { readonly from: Offset; readonly end: Offset; readonly maxBytes: number },
): Promise<LogRead | undefined> {
  const { from, end, maxBytes } = range;
  const writtenBytes = segment.sizeBytes;
  const indexed = files.index.floor(from - segment.baseOffset);
  let position = indexed?.position ?? 0;
  let offset = segment.baseOffset + (indexed?.relativeOffset ?? 0);
  const pooled = pool.take(READ_BUFFER_BYTES);
  let buffer = pooled;
  let first: number | undefined;
  let last = 0;
  try {
    while (position < writtenBytes) {
      const wanted = Math.min(buffer.length, writtenBytes - position);
      const bytes = await files.file.read(buffer.subarray(0, wanted), position);
      if (bytes < wanted) throw new UnreadableSegment(`${files.file.path} ends at byte ${position + bytes}`);
      let at = 0;
      let complete = false;
      for (;;) {
        const batch = nextBatch(buffer, at, bytes, offset);
        if (batch === undefined) break;
        if (batch instanceof UnreadableSegment) {
          // What stands in front of it is good all the same; the next read will begin here.
          if (first === undefined) throw batch;
          break;
        }
        offset = batch.endOffset;
        if (batch.endOffset > from) {
          complete = batch.endOffset > end || (first !== undefined && batch.end - first > maxBytes);
          if (complete && first === undefined) verifyPassedOver(batch);
          if (complete) break;
          first ??= at;
          last = batch.end;
        } else {
          verifyPassedOver(batch);
        }
        at = batch.end;
      }
      if (first !== undefined && last > first) {
        const bytesRead = last - first;
        const owned = buffer === pooled;
        if (!owned) pool.give(pooled);
        const release = owned ? once(() => pool.give(pooled)) : () => undefined;
        return { pieces: [buffer.subarray(first, last)], bytes: bytesRead, release };
      }
      if (complete) {
        pool.give(pooled);
        return emptyRead;
      }
      if (at === 0) {
        const size = batchSizeAt(buffer, 0, bytes);
        if (size === undefined || position + size > writtenBytes)
          throw new UnreadableSegment(`${files.file.path}: the last batch is not whole`);
        buffer = Buffer.allocUnsafeSlow(size);
      }
      position += at;
    }
  } catch (error) {
    pool.give(pooled);
    throw error;
  }
  pool.give(pooled);
  return undefined;
}

/** The batch at `at`; undefined when it is not whole in the buffer. */
function nextBatch(
  buffer: Buffer,
  at: number,
  end: number,
  offset: number,
): RecordBatch | UnreadableSegment | undefined {
  try {
    const size = batchSizeAt(buffer, at, end);
    if (size === undefined || at + size > end) return undefined;
    const batch = readBatch(buffer, at, end);
    return batch.baseOffset < offset ? new UnreadableSegment(`offset ${batch.baseOffset} twice`) : batch;
  } catch (error) {
    if (error instanceof BatchFault) return new UnreadableSegment(error.message, { cause: error });
    throw error;
  }
}

function verifyPassedOver(batch: RecordBatch): void {
  try {
    batch.verify();
  } catch (error) {
    if (error instanceof BatchFault) throw new UnreadableSegment(error.message, { cause: error });
    throw error;
  }
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
