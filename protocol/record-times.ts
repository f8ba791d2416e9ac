import type { RecordBatch } from "./record-batch.js";
import { BatchFault } from "./record-batch.js";
import { RecordCursor } from "./record-cursor.js";
import type { Offset } from "./types.js";
import { toOffset } from "./types.js";

/** A record by its place and time. */
export interface RecordTime {
  readonly offset: Offset;
  readonly timestamp: number;
}

/**
 * The first record of a batch at or behind `from` whose timestamp is `timestamp` or later; undefined when there is none.
 * A batch whose records it cannot read (compressed, or not in the form the schema prescribes, as logs may hold from brokers
 * that did not check it) answers as a whole: its first offset and greatest timestamp.
 */
export function firstRecordAt(batch: RecordBatch, timestamp: number, from: Offset): RecordTime | undefined {
  if (batch.maxTimestamp < timestamp) return undefined;
  const whole = { offset: batch.baseOffset > from ? batch.baseOffset : from, timestamp: batch.maxTimestamp };
  if (batch.compression !== 0) return whole;
  try {
    const cursor = new RecordCursor(batch);
    while (cursor.next()) {
      if (cursor.timestamp >= timestamp && cursor.offset >= from)
        return { offset: toOffset(cursor.offset), timestamp: cursor.timestamp };
    }
    return undefined;
  } catch (error) {
    if (error instanceof BatchFault) return whole;
    throw error;
  }
}
