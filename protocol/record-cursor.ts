import type { RecordBatch } from "./record-batch.js";
import { BatchFault } from "./record-batch.js";

/** A header as it was sent: names may repeat, a value may be absent. */
export interface DecodedHeader {
  readonly key: string;
  readonly value: Buffer | null;
}

const RECORD_TAG = 0x0a;
const TIMESTAMP_DELTA_TAG = 0x08;
const OFFSET_DELTA_TAG = 0x10;
const KEY_TAG = 0x1a;
const VALUE_TAG = 0x22;
const HEADER_TAG = 0x2a;
const HEADER_KEY_TAG = 0x0a;
const HEADER_VALUE_TAG = 0x12;

/** Where the fields of a record lie; what `RecordCursor.next` has found and what outlives its next step. */
export interface RecordPositions {
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly valueStart: number;
  readonly valueEnd: number;
  readonly headersStart: number;
  readonly headersEnd: number;
}

/**
 * Walks over the records of a batch, whose checksum the caller has verified. It makes no object for a record: after
 * `next` its fields say where the record's parts lie. It trusts no length: a batch whose producer lied about it gets a
 * BatchFault, and nothing outside of the batch is ever read as part of a record. It also proves that the records are as
 * many as the head says and that their offsets grow within the batch.
 */
export class RecordCursor implements RecordPositions {
  offset = 0;
  /** Milliseconds since 1970. */
  timestamp = 0;
  /** -1: the record has no key. */
  keyStart = -1;
  keyEnd = -1;
  /** -1: the record has no value (a tombstone). */
  valueStart = -1;
  valueEnd = -1;
  /** From the first header to the end of the record; -1: it has none. */
  headersStart = -1;
  headersEnd = -1;

  readonly #buffer: Buffer;
  readonly #batchStart: number;
  readonly #end: number;
  readonly #baseOffset: number;
  readonly #baseTimestamp: number;
  readonly #lastOffsetDelta: number;
  readonly #recordCount: number;
  #at: number;
  #count = 0;
  #previousDelta = -1;
  /** The result of the last `#varint`, which returns the position after it. */
  #number = 0;

  constructor(batch: RecordBatch) {
    this.#buffer = batch.buffer;
    this.#batchStart = batch.start;
    this.#end = batch.end;
    this.#at = batch.recordsStart;
    this.#baseOffset = batch.baseOffset;
    this.#baseTimestamp = batch.baseTimestamp;
    this.#lastOffsetDelta = batch.lastOffsetDelta;
    this.#recordCount = batch.recordCount;
  }

  /** Steps to the next record; false after the last one. Throws BatchFault `not-canonical`. */
  next(): boolean {
    const buffer = this.#buffer;
    const end = this.#end;
    let at = this.#at;
    if (at >= end) {
      if (this.#count !== this.#recordCount)
        this.#refuse(`has ${this.#count} records where its head says ${this.#recordCount}`);
      return false;
    }
    if (buffer[at] !== RECORD_TAG) this.#refuse(`byte ${at} does not begin a record`);
    at = this.#varint(at + 1, end);
    const recordEnd = at + this.#number;
    if (recordEnd > end) this.#refuse("a record ends after it");

    let timestampDelta = 0;
    let offsetDelta = 0;
    this.keyStart = -1;
    this.keyEnd = -1;
    this.valueStart = -1;
    this.valueEnd = -1;
    this.headersStart = -1;
    this.headersEnd = -1;
    while (at < recordEnd) {
      const tag = buffer[at] as number;
      switch (tag) {
        case TIMESTAMP_DELTA_TAG: {
          const first = at + 1 < recordEnd ? (buffer[at + 1] as number) : 0xff;
          if (first < 0x80) {
            timestampDelta = (first >>> 1) ^ -(first & 1);
            at += 2;
          } else {
            at = this.#signedVarint(at + 1, recordEnd);
            timestampDelta = this.#number;
          }
          break;
        }
        case OFFSET_DELTA_TAG:
          at = this.#varint(at + 1, recordEnd);
          offsetDelta = this.#number;
          break;
        case KEY_TAG:
          at = this.#varint(at + 1, recordEnd);
          this.keyStart = at;
          at += this.#number;
          this.keyEnd = at;
          break;
        case VALUE_TAG:
          at = this.#varint(at + 1, recordEnd);
          this.valueStart = at;
          at += this.#number;
          this.valueEnd = at;
          break;
        case HEADER_TAG:
          if (this.headersStart < 0) this.headersStart = at;
          this.headersEnd = recordEnd;
          at = this.#varint(at + 1, recordEnd);
          this.#checkHeader(at, Math.min(at + this.#number, recordEnd));
          at += this.#number;
          break;
        default:
          at = this.#skip(at, recordEnd);
      }
      if (at > recordEnd) this.#refuse("a field ends after its record");
    }
    if (offsetDelta <= this.#previousDelta || offsetDelta > this.#lastOffsetDelta) {
      this.#refuse(`offset delta ${offsetDelta} after ${this.#previousDelta} is not within ${this.#lastOffsetDelta}`);
    }
    this.#previousDelta = offsetDelta;
    this.#count += 1;
    if (this.#count > this.#recordCount) this.#refuse(`has more records than the ${this.#recordCount} its head says`);
    this.offset = this.#baseOffset + offsetDelta;
    this.timestamp = this.#baseTimestamp + timestampDelta;
    this.#at = recordEnd;
    return true;
  }

  /** Reads a varint of up to 31 bits into `#number` and returns the position after it. */
  #varint(position: number, end: number): number {
    const buffer = this.#buffer;
    if (position < end) {
      const first = buffer[position] as number;
      if (first < 0x80) {
        this.#number = first;
        return position + 1;
      }
    }
    let value = 0;
    let at = position;
    for (let factor = 1; factor <= 2 ** 28; factor *= 0x80) {
      if (at >= end) this.#refuse("it ends inside a number");
      const byte = buffer[at++] as number;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        if (value > 0x7fffffff) break;
        this.#number = value;
        return at;
      }
    }
    return this.#refuse("a length or offset delta is above 2^31 - 1");
  }

  /** The same for a zigzag number of up to 64 bits; one beyond 2^53 loses its last bits, as no timestamp is that large. */
  #signedVarint(position: number, end: number): number {
    const buffer = this.#buffer;
    let at = position;
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= end) this.#refuse("it ends inside a number");
      const byte = buffer[at++] as number;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) {
        const zigzag = BigInt.asUintN(64, value);
        const half = zigzag >> 1n;
        this.#number = Number((zigzag & 1n) === 0n ? half : -half - 1n);
        return at;
      }
    }
    return this.#refuse("a timestamp delta has more than ten bytes");
  }

  /** The position after a field that this version does not know. */
  #skip(position: number, end: number): number {
    const at = this.#varint(position, end);
    const tag = this.#number;
    if (tag >>> 3 === 0) this.#refuse("a field has the number 0");
    switch (tag & 7) {
      case 0:
        return this.#signedVarint(at, end);
      case 1:
        return at + 8;
      case 2: {
        const content = this.#varint(at, end);
        return content + this.#number;
      }
      case 5:
        return at + 4;
      default:
        return this.#refuse(`a field has wire type ${tag & 7}`);
    }
  }

  /** Leaves `#number` as it was. */
  #checkHeader(start: number, end: number): void {
    const length = this.#number;
    let at = start;
    while (at < end) at = this.#skip(at, end);
    if (at > end) this.#refuse("a header ends after its record");
    this.#number = length;
  }

  #refuse(detail: string): never {
    throw new BatchFault(
      "not-canonical",
      this.#batchStart,
      `the batch at byte ${this.#batchStart} (offset ${this.#baseOffset}): ${detail}`,
    );
  }
}

/**
 * Why nobody could read the records of a batch, though head and checksum may be right; undefined: all of them can be read.
 * A leader asks before it appends. Records as most encoders write them take no more than a look at their first bytes.
 */
export function recordsRefusal(batch: RecordBatch): string | undefined {
  if (hasPlainRecords(batch)) return undefined;
  try {
    const cursor = new RecordCursor(batch);
    while (cursor.next()) continue;
    return undefined;
  } catch (error) {
    if (error instanceof BatchFault) return error.message;
    throw error;
  }
}

/**
 * Whether the records are as many as the head says, their offsets one behind the other, and their fields in the order of
 * their numbers with no header among them. What is written in another way may be just as good.
 */
function hasPlainRecords(batch: RecordBatch): boolean {
  const { buffer, end, recordCount } = batch;
  let at = batch.recordsStart;
  for (let count = 0; count < recordCount; count += 1) {
    if (at >= end || buffer[at] !== RECORD_TAG) return false;
    at = readNumber(buffer, at + 1);
    const recordEnd = at + lastNumber;
    if (recordEnd > end) return false;
    if (buffer[at] === TIMESTAMP_DELTA_TAG) at = readNumber(buffer, at + 1);
    let offsetDelta = 0;
    if (at < recordEnd && buffer[at] === OFFSET_DELTA_TAG) {
      at = readNumber(buffer, at + 1);
      offsetDelta = lastNumber;
    }
    if (offsetDelta !== count) return false;
    if (at < recordEnd && buffer[at] === KEY_TAG) at = readNumber(buffer, at + 1) + lastNumber;
    if (at < recordEnd && buffer[at] === VALUE_TAG) at = readNumber(buffer, at + 1) + lastNumber;
    // A number may have ended behind the record; then nothing fits any more.
    if (at !== recordEnd) return false;
  }
  return at === end;
}

/** What `readNumber` has read. Beside its result, because an object for both would cost more than all the rest. */
let lastNumber = 0;

/** Reads a varint of up to 21 bits and returns the position after it; at a longer one a position behind all bytes. */
function readNumber(buffer: Buffer, position: number): number {
  const first = buffer[position] as number;
  if (first < 0x80) {
    lastNumber = first;
    return position + 1;
  }
  const second = buffer[position + 1] as number;
  if (second < 0x80) {
    lastNumber = (first & 0x7f) | (second << 7);
    return position + 2;
  }
  const third = buffer[position + 2] as number;
  lastNumber = (first & 0x7f) | ((second & 0x7f) << 7) | (third << 14);
  return third < 0x80 ? position + 3 : Number.MAX_SAFE_INTEGER;
}

/** The headers between two positions that a cursor has found and checked. */
export function readHeaders(buffer: Buffer, start: number, end: number): DecodedHeader[] {
  const headers: DecodedHeader[] = [];
  if (start < 0) return headers;
  let at = start;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 0x80) {
      const byte = buffer[at++] as number;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };
  /** Steps over the field whose tag was just read; for those of another wire type than expected, too. */
  const skip = (tag: number): void => {
    const wireType = tag & 7;
    if (wireType === 0) varint();
    else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else at += varint();
  };
  while (at < end) {
    const tag = varint();
    if (tag !== HEADER_TAG) {
      skip(tag);
      continue;
    }
    const headerEnd = varint() + at;
    let key = "";
    let value: Buffer | null = null;
    while (at < headerEnd) {
      const fieldTag = varint();
      if (fieldTag === HEADER_KEY_TAG) {
        const bytes = varint();
        key = buffer.toString("utf8", at, at + bytes);
        at += bytes;
      } else if (fieldTag === HEADER_VALUE_TAG) {
        const bytes = varint();
        value = buffer.subarray(at, at + bytes);
        at += bytes;
      } else {
        skip(fieldTag);
      }
    }
    headers.push({ key, value });
  }
  return headers;
}
