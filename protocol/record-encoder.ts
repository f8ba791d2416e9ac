import type { BatchHeader } from "./record-batch.js";
import {
  BATCH_HEAD_BYTES_MAX,
  RECORDS_PER_BATCH_MAX,
  varintBytes,
  writeBatchHead,
  writeVarint,
} from "./record-batch.js";

/** A key or a value as a program has it; text is encoded as UTF-8. Undefined means null. */
export type EncodableBytes = Uint8Array | string | null | undefined;

/** A name and a value that travel with a record. */
export interface EncodableHeader {
  readonly key: string;
  readonly value: Uint8Array | string | null;
}

/** What a batch says of its producer, decided when it is about to be sent. */
export type BatchIdentity = Pick<BatchHeader, "producerId" | "producerEpoch" | "baseSequence">;

/** The identity of a batch whose producer is not idempotent. */
export const noIdentity: BatchIdentity = { producerId: -1, producerEpoch: -1, baseSequence: -1 };

const RECORD_TAG = 0x0a;
const TIMESTAMP_DELTA_TAG = 0x08;
const OFFSET_DELTA_TAG = 0x10;
const KEY_TAG = 0x1a;
const VALUE_TAG = 0x22;
const HEADER_TAG = 0x2a;
const HEADER_KEY_TAG = 0x0a;
const HEADER_VALUE_TAG = 0x12;

/** Tag and length of a record, tag and value of its two numbers, tags and lengths of key and value. */
const RECORD_OVERHEAD_BYTES_MAX = 1 + 5 + 1 + 10 + 1 + 5 + 1 + 5 + 1 + 5;
/** A UTF-16 code unit takes so many bytes of UTF-8 at most. */
const UTF8_BYTES_PER_UNIT_MAX = 3;
/** Up to here a loop in JavaScript is quicker than a call into native code. */
const LOOP_BYTES_MAX = 24;
/** Below this, a zigzag number fits 32 bits. */
const SMALL_DELTA = 2 ** 30;

/**
 * Encodes records one behind the other into a buffer, as the content of a `Records` message, and completes them to a
 * batch. By hand, because this runs once for each record a producer sends. It promises minimal varints and the
 * canonical form of protobuf (fields in order, defaults left out), so the bytes equal those of any other encoder. It
 * does not own the buffer, and never writes outside of it.
 */
export class RecordEncoder {
  /** Where the batch begins. */
  readonly #first: Buffer;
  readonly #recordsStart: number;
  /** What was written into buffers that are full; of the first only its end. */
  #firstEnd = -1;
  readonly #full: Buffer[] = [];
  /** Where records go now. */
  #buffer: Buffer;
  #at: number;
  #count = 0;
  #baseTimestamp = 0;
  #maxTimestamp = 0;

  /** The batch head goes in front of the first record, and whatever `headroomBytes` asks for in front of that. */
  constructor(buffer: Buffer, headroomBytes = 0) {
    this.#first = buffer;
    this.#buffer = buffer;
    this.#recordsStart = headroomBytes + BATCH_HEAD_BYTES_MAX;
    this.#at = this.#recordsStart;
  }

  get recordCount(): number {
    return this.#count;
  }

  /** How many bytes another record takes; undefined: a batch holds no more records. */
  bytesOf(
    timestamp: number,
    key: EncodableBytes,
    value: EncodableBytes,
    headers: readonly EncodableHeader[] | undefined,
  ): number | undefined {
    const count = this.#count;
    if (count >= RECORDS_PER_BATCH_MAX) return undefined;
    const headersBytes = headers === undefined ? 0 : encodedHeadersBytes(headers);
    const timestampDelta = count === 0 ? 0 : timestamp - this.#baseTimestamp;
    return fieldBytes(recordBodyBytes(timestampDelta, count, key, value, headersBytes));
  }

  /** Further records go into another buffer, from its beginning; the batch lies in several pieces then. */
  continueIn(buffer: Buffer): void {
    if (this.#firstEnd < 0) this.#firstEnd = this.#at;
    else this.#full.push(this.#buffer.subarray(0, this.#at));
    this.#buffer = buffer;
    this.#at = 0;
  }

  /** Appends a record; false, and nothing changed, when it does not fit. `timestamp` is in whole milliseconds since 1970. */
  tryAppend(
    timestamp: number,
    key: EncodableBytes,
    value: EncodableBytes,
    headers: readonly EncodableHeader[] | undefined,
  ): boolean {
    const buffer = this.#buffer;
    const start = this.#at;
    const count = this.#count;
    if (count >= RECORDS_PER_BATCH_MAX) return false;
    const keyUnits = key === undefined || key === null ? 0 : key.length;
    const valueUnits = value === undefined || value === null ? 0 : value.length;
    const headersBytes = headers === undefined || headers.length === 0 ? 0 : encodedHeadersBytes(headers);
    const boundBytes =
      RECORD_OVERHEAD_BYTES_MAX +
      headersBytes +
      (typeof key === "string" ? keyUnits * UTF8_BYTES_PER_UNIT_MAX : keyUnits) +
      (typeof value === "string" ? valueUnits * UTF8_BYTES_PER_UNIT_MAX : valueUnits);
    const timestampDelta = count === 0 ? 0 : timestamp - this.#baseTimestamp;
    // The length of the body stands before it and is known after it. It is guessed as if all text were ASCII; where that
    // was wrong, the body moves. At the end of the buffer there is no room for a wrong guess: there it is counted.
    let guessedBytes = headersBytes + keyUnits + valueUnits + 12;
    if (start + boundBytes > buffer.length) {
      guessedBytes = recordBodyBytes(timestampDelta, count, key, value, headersBytes);
      if (start + fieldBytes(guessedBytes) > buffer.length) return false;
    }
    const guessedWidth = guessedBytes < 0x80 ? 1 : guessedBytes < 0x4000 ? 2 : varintBytes(guessedBytes);
    const body = start + 1 + guessedWidth;
    let at = body;
    if (timestampDelta !== 0) {
      buffer[at++] = TIMESTAMP_DELTA_TAG;
      at = writeZigzag(buffer, at, timestampDelta);
    }
    if (count !== 0) {
      buffer[at++] = OFFSET_DELTA_TAG;
      at = writeVarint(buffer, at, count);
    }
    if (key !== undefined && key !== null)
      at = typeof key === "string" ? writeText(buffer, at, KEY_TAG, key) : writeBytes(buffer, at, KEY_TAG, key);
    if (value !== undefined && value !== null) {
      at =
        typeof value === "string" ? writeText(buffer, at, VALUE_TAG, value) : writeBytes(buffer, at, VALUE_TAG, value);
    }
    if (headersBytes !== 0 && headers !== undefined) at = writeHeaders(buffer, at, headers);

    const bodyBytes = at - body;
    const width = bodyBytes < 0x80 ? 1 : bodyBytes < 0x4000 ? 2 : varintBytes(bodyBytes);
    if (width !== guessedWidth) {
      buffer.copyWithin(start + 1 + width, body, at);
      at += width - guessedWidth;
    }
    buffer[start] = RECORD_TAG;
    writeVarint(buffer, start + 1, bodyBytes);

    this.#at = at;
    this.#count = count + 1;
    if (count === 0) {
      this.#baseTimestamp = timestamp;
      this.#maxTimestamp = timestamp;
    } else if (timestamp > this.#maxTimestamp) {
      this.#maxTimestamp = timestamp;
    }
    return true;
  }

  /**
   * Writes the head of the batch in front of the records and returns the whole batch, a view of the buffer, or, where it lies
   * in several, its beginning: `furtherPieces` follow. May be called again with another identity: the records stay as they
   * are.
   */
  finish(identity: BatchIdentity): Buffer {
    const firstEnd = this.#firstEnd < 0 ? this.#at : this.#firstEnd;
    const header = {
      attributes: 0,
      lastOffsetDelta: this.#count - 1,
      baseTimestamp: this.#baseTimestamp,
      maxTimestamp: this.#maxTimestamp,
      producerId: identity.producerId,
      producerEpoch: identity.producerEpoch,
      baseSequence: identity.baseSequence,
      recordCount: this.#count,
    };
    const start = writeBatchHead(this.#first, this.#recordsStart, firstEnd, header, this.furtherPieces);
    return this.#first.subarray(start, firstEnd);
  }

  /** What lies in other buffers than the first, in its order. */
  get furtherPieces(): readonly Buffer[] {
    return this.#firstEnd < 0 ? [] : [...this.#full, this.#buffer.subarray(0, this.#at)];
  }
}

/** The most bytes that a batch of this one record can take, head included: what its buffer must hold. */
export function singleRecordBatchBytes(
  key: EncodableBytes,
  value: EncodableBytes,
  headers: readonly EncodableHeader[] | undefined,
): number {
  return (
    BATCH_HEAD_BYTES_MAX +
    fieldBytes(recordBodyBytes(0, 0, key, value, headers === undefined ? 0 : encodedHeadersBytes(headers)))
  );
}

/** The exact size of a record, without its tag and length as an element of `Records`. */
function recordBodyBytes(
  timestampDelta: number,
  offsetDelta: number,
  key: EncodableBytes,
  value: EncodableBytes,
  headersBytes: number,
): number {
  let body = headersBytes;
  if (timestampDelta !== 0) body += 1 + zigzagBytes(timestampDelta);
  if (offsetDelta !== 0) body += 1 + varintBytes(offsetDelta);
  if (key !== undefined && key !== null) body += fieldBytes(byteLength(key));
  if (value !== undefined && value !== null) body += fieldBytes(byteLength(value));
  return body;
}

const byteLength = (data: Uint8Array | string): number =>
  typeof data === "string" ? Buffer.byteLength(data) : data.length;

/** Tag (of one byte), length and content. */
const fieldBytes = (contentBytes: number): number => 1 + varintBytes(contentBytes) + contentBytes;

function headerBodyBytes(header: EncodableHeader): number {
  const keyBytes = Buffer.byteLength(header.key);
  return (
    (keyBytes === 0 ? 0 : fieldBytes(keyBytes)) +
    (header.value === undefined || header.value === null ? 0 : fieldBytes(byteLength(header.value)))
  );
}

function encodedHeadersBytes(headers: readonly EncodableHeader[]): number {
  let total = 0;
  for (const header of headers) total += fieldBytes(headerBodyBytes(header));
  return total;
}

function writeHeaders(buffer: Buffer, position: number, headers: readonly EncodableHeader[]): number {
  let at = position;
  for (const header of headers) {
    buffer[at++] = HEADER_TAG;
    at = writeVarint(buffer, at, headerBodyBytes(header));
    if (header.key.length > 0) at = writeText(buffer, at, HEADER_KEY_TAG, header.key);
    const { value } = header;
    if (value === undefined || value === null) continue;
    at =
      typeof value === "string"
        ? writeText(buffer, at, HEADER_VALUE_TAG, value)
        : writeBytes(buffer, at, HEADER_VALUE_TAG, value);
  }
  return at;
}

function writeBytes(buffer: Buffer, position: number, tag: number, data: Uint8Array): number {
  const length = data.length;
  buffer[position] = tag;
  const at = writeVarint(buffer, position + 1, length);
  if (length <= LOOP_BYTES_MAX)
    for (let index = 0; index < length; index += 1) buffer[at + index] = data[index] as number;
  else buffer.set(data, at);
  return at + length;
}

function writeText(buffer: Buffer, position: number, tag: number, text: string): number {
  const units = text.length;
  buffer[position] = tag;
  const lengthAt = position + 1;
  const guessedWidth = varintBytes(units);
  const contentAt = lengthAt + guessedWidth;
  if (units <= LOOP_BYTES_MAX) {
    let index = 0;
    for (; index < units; index += 1) {
      const unit = text.charCodeAt(index);
      if (unit >= 0x80) break;
      buffer[contentAt + index] = unit;
    }
    if (index === units) {
      writeVarint(buffer, lengthAt, units);
      return contentAt + units;
    }
  }
  const length = buffer.write(text, contentAt);
  const width = varintBytes(length);
  if (width !== guessedWidth) buffer.copyWithin(lengthAt + width, contentAt, contentAt + length);
  writeVarint(buffer, lengthAt, length);
  return lengthAt + width + length;
}

function writeZigzag(buffer: Buffer, position: number, value: number): number {
  if (value < SMALL_DELTA && value >= -SMALL_DELTA) return writeVarint(buffer, position, (value << 1) ^ (value >> 31));
  let rest = zigzag64(value);
  let at = position;
  for (; rest >= 0x80n; rest >>= 7n) buffer[at++] = Number(rest & 0x7fn) | 0x80;
  buffer[at++] = Number(rest);
  return at;
}

function zigzagBytes(value: number): number {
  if (value < SMALL_DELTA && value >= -SMALL_DELTA) return varintBytes(((value << 1) ^ (value >> 31)) >>> 0);
  let bytes = 1;
  for (let rest = zigzag64(value); rest >= 0x80n; rest >>= 7n) bytes += 1;
  return bytes;
}

const zigzag64 = (value: number): bigint => (value < 0 ? BigInt(-value) * 2n - 1n : BigInt(value) * 2n);
