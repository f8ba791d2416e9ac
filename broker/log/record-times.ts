import type { RecordBatch } from "../../protocol/record-batch.js";
import type { Offset } from "../../protocol/types.js";
import { toOffset } from "../../protocol/types.js";

/** A record by its place and time. */
export interface RecordTime {
  readonly offset: Offset;
  readonly timestamp: number;
}

/**
 * The first record of a batch at or behind `from` whose timestamp is `timestamp` or later; undefined when there is none.
 * Reads two fields of each record. A batch whose records it cannot read (compressed, or not in the form the schema
 * prescribes, as logs may hold from brokers that did not check it) answers as a whole: its first offset and greatest
 * timestamp.
 */
export function firstRecordAt(batch: RecordBatch, timestamp: number, from: Offset): RecordTime | undefined {
  if (batch.maxTimestamp < timestamp) return undefined;
  const whole = { offset: batch.baseOffset > from ? batch.baseOffset : from, timestamp: batch.maxTimestamp };
  if (batch.compression !== 0) return whole;
  const reader = new FieldReader(batch.buffer, batch.recordsStart, batch.end);
  let found: RecordTime | undefined;
  while (reader.at < reader.end) {
    const tag = reader.varint();
    const length = reader.varint();
    if (tag !== RECORD_TAG || length === undefined || reader.at + length > reader.end) return whole;
    const record = recordTime(batch, new FieldReader(batch.buffer, reader.at, reader.at + length));
    if (record === undefined) return whole;
    reader.at += length;
    if (record.timestamp >= timestamp && record.offset >= from && (found === undefined || record.offset < found.offset))
      found = record;
  }
  return found;
}

const RECORD_TAG = 0x0a;
const TIMESTAMP_DELTA_TAG = 0x08;
const OFFSET_DELTA_TAG = 0x10;

function recordTime(batch: RecordBatch, reader: FieldReader): RecordTime | undefined {
  let timestampDelta = 0;
  let offsetDelta = 0;
  while (reader.at < reader.end) {
    const tag = reader.varint();
    const value = reader.varint();
    if (tag === undefined || value === undefined) return undefined;
    if (tag === TIMESTAMP_DELTA_TAG) timestampDelta = value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    else if (tag === OFFSET_DELTA_TAG) offsetDelta = value;
    // All other fields of a record are length-delimited.
    else if ((tag & 7) === 2) reader.at += value;
    else return undefined;
  }
  if (reader.at !== reader.end || offsetDelta > batch.lastOffsetDelta) return undefined;
  return { offset: toOffset(batch.baseOffset + offsetDelta), timestamp: batch.baseTimestamp + timestampDelta };
}

class FieldReader {
  constructor(
    private readonly buffer: Buffer,
    public at: number,
    readonly end: number,
  ) {}

  /** Undefined when the bytes end inside it or it is longer than a number can hold. */
  varint(): number | undefined {
    let value = 0;
    for (let shift = 1; this.at < this.end && shift < 2 ** 56; shift *= 128) {
      const byte = this.buffer[this.at] as number;
      this.at += 1;
      value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
    }
    return undefined;
  }
}
