import { isUtf8 } from "node:buffer";
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
const TAG_MAX = 2 ** 32 - 1;
/** Of 64 bits. */
const VARINT_BYTES_MAX = 10;

/**
 * Steps from field to field of a protobuf message. Whoever looks at the fields of records, to check them or to read them,
 * takes its steps here: so all see the same fields, whatever form the bytes have, and nobody reads behind the end of what
 * it looks at.
 */
class FieldWalker {
  /** Of the field that `step` found: number and wire type, in however many bytes they stand. */
  tag = 0;
  /** Where the content of that field begins, behind its length, if it has one. It ends where the field does. */
  start = 0;
  /** Its content, if that is a number. Beyond 2^53 the last bits are lost. */
  number = 0;
  readonly #buffer: Buffer;
  readonly #refuse: (detail: string) => never;

  constructor(buffer: Buffer, refuse: (detail: string) => never) {
    this.#buffer = buffer;
    this.#refuse = refuse;
  }

  /** Finds the field at `position` of a message that ends at `end`, and returns the position behind the field. */
  step(position: number, end: number): number {
    // Nearly all have a tag of one byte, and a number or length of one or two.
    if (position + 3 <= end) {
      const buffer = this.#buffer;
      const tag = buffer[position] as number;
      let number = buffer[position + 1] as number;
      let at = position + 2;
      if (number >= 0x80) number = (number & 0x7f) | ((buffer[at++] as number) << 7);
      if (number < 0x4000 && tag >= 0x08 && tag < 0x80) {
        const wireType = tag & 7;
        if (wireType === 2) {
          const after = at + number;
          if (after <= end) {
            this.tag = tag;
            this.start = at;
            return after;
          }
        } else if (wireType === 0) {
          this.tag = tag;
          this.number = number;
          return at;
        }
      }
    }
    return this.#stepSlowly(position, end);
  }

  /** `number`, where it is a zigzag one. */
  signed(): number {
    const { number } = this;
    if (number < 0x80000000) return (number >>> 1) ^ -(number & 1);
    // The last bit, which may be lost, is the sign. So long a number was found slowly, and `start` is where it begins.
    return ((this.#buffer[this.start] as number) & 1) === 0 ? number / 2 : -(number + 1) / 2;
  }

  #stepSlowly(position: number, end: number): number {
    let at = this.#varint(position, end);
    const tag = this.number;
    if (tag >>> 3 === 0) this.#refuse("a field has the number 0");
    if (tag > TAG_MAX) this.#refuse(`a field has the tag ${tag}`);
    this.tag = tag;
    switch (tag & 7) {
      case 0:
        this.start = at;
        return this.#varint(at, end);
      case 1:
        at += 8;
        break;
      case 2:
        at = this.#varint(at, end);
        this.start = at;
        at += this.number;
        break;
      case 5:
        at += 4;
        break;
      default:
        this.#refuse(`a field has wire type ${tag & 7}`);
    }
    if (at > end) this.#refuse("a field ends after what it is part of");
    return at;
  }

  /** Reads a varint of up to 64 bits into `number` and returns the position after it. */
  #varint(position: number, end: number): number {
    const buffer = this.#buffer;
    let number = 0;
    for (let at = position, factor = 1; at < position + VARINT_BYTES_MAX; factor *= 0x80) {
      if (at >= end) this.#refuse("it ends inside a number");
      const byte = buffer[at++] as number;
      number += (byte & 0x7f) * factor;
      if (byte < 0x80) {
        this.number = number;
        return at;
      }
    }
    return this.#refuse(`a number has more than ${VARINT_BYTES_MAX} bytes`);
  }
}

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
  readonly #fields: FieldWalker;
  readonly #batchStart: number;
  readonly #end: number;
  readonly #baseOffset: number;
  readonly #baseTimestamp: number;
  readonly #lastOffsetDelta: number;
  readonly #recordCount: number;
  #at: number;
  #count = 0;
  #previousDelta = -1;

  constructor(batch: RecordBatch) {
    this.#fields = new FieldWalker(batch.buffer, (detail) => this.#refuse(detail));
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
    const fields = this.#fields;
    const end = this.#end;
    let recordEnd = this.#at;
    // A newer version may have put fields of another kind between the records.
    do {
      if (recordEnd >= end) {
        if (this.#count !== this.#recordCount)
          this.#refuse(`has ${this.#count} records where its head says ${this.#recordCount}`);
        return false;
      }
      recordEnd = fields.step(recordEnd, end);
    } while ((fields.tag as number) !== RECORD_TAG);

    let timestampDelta = 0;
    let offsetDelta = 0;
    this.keyStart = -1;
    this.keyEnd = -1;
    this.valueStart = -1;
    this.valueEnd = -1;
    this.headersStart = -1;
    this.headersEnd = -1;
    for (let position = fields.start, at = position; at < recordEnd; position = at) {
      at = fields.step(position, recordEnd);
      switch (fields.tag) {
        case TIMESTAMP_DELTA_TAG:
          timestampDelta = fields.signed();
          break;
        case OFFSET_DELTA_TAG:
          offsetDelta = fields.number;
          break;
        case KEY_TAG:
          this.keyStart = fields.start;
          this.keyEnd = at;
          break;
        case VALUE_TAG:
          this.valueStart = fields.start;
          this.valueEnd = at;
          break;
        case HEADER_TAG:
          if (this.headersStart < 0) this.headersStart = position;
          this.headersEnd = recordEnd;
          for (let inner = fields.start; inner < at;) {
            inner = fields.step(inner, at);
            if ((fields.tag as number) === HEADER_KEY_TAG && !isText(this.#buffer, fields.start, inner))
              this.#refuse("the key of a header is not UTF-8");
          }
          break;
      }
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

  #refuse(detail: string): never {
    throw new BatchFault(
      "not-canonical",
      this.#batchStart,
      `the batch at byte ${this.#batchStart} (offset ${this.#baseOffset}): ${detail}`,
    );
  }
}

/** Whether the bytes are UTF-8, which code that is generated from the schema insists on. Most keys of headers are ASCII. */
function isText(buffer: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    if ((buffer[at] as number) >= 0x80) return isUtf8(buffer.subarray(at, end));
  }
  return true;
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
 * their numbers with no header among them. What is written in another way may be just as good: a cursor decides.
 */
function hasPlainRecords(batch: RecordBatch): boolean {
  const { buffer, end, recordCount, lastOffsetDelta } = batch;
  if (lastOffsetDelta < recordCount - 1) return false;
  let at = batch.recordsStart;
  for (let count = 0; count < recordCount; count += 1) {
    if (at >= end || buffer[at] !== RECORD_TAG) return false;
    at = readNumber(buffer, at + 1);
    const recordEnd = at + lastNumber;
    if (recordEnd > end) return false;
    if (at < recordEnd && buffer[at] === TIMESTAMP_DELTA_TAG) at = readNumber(buffer, at + 1);
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
  const fields = new FieldWalker(buffer, (detail) => {
    throw new BatchFault("not-canonical", start, `the headers at byte ${start}: ${detail}`);
  });
  for (let at = start; at < end;) {
    at = fields.step(at, end);
    if (fields.tag === HEADER_TAG) headers.push(readHeader(buffer, fields, fields.start, at));
  }
  return headers;
}

function readHeader(buffer: Buffer, fields: FieldWalker, start: number, end: number): DecodedHeader {
  let key = "";
  let value: Buffer | null = null;
  for (let at = start; at < end;) {
    at = fields.step(at, end);
    if (fields.tag === HEADER_KEY_TAG) key = buffer.toString("utf8", fields.start, at);
    else if (fields.tag === HEADER_VALUE_TAG) value = buffer.subarray(fields.start, at);
  }
  return { key, value };
}
