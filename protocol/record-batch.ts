import { crc32 } from "node:zlib";
import type { LeaderEpoch, Offset } from "./types.js";
import { toOffset } from "./types.js";

/*
 * The layout of a batch inside a RecordBatches message; record-batch.proto says what the fields mean. All numbers are
 * little-endian, as protobuf has them.
 *
 *   0x0a  length (varint)                                  one element of RecordBatches
 *   |<-- body --------------------------------------------------------------------------------------->|
 *   09 base_offset 8 | 15 leader_epoch 4 | 1d stamp_crc 4 | 25 crc 4 | 2d attributes 4 | 35 last_offset_delta 4
 *   39 base_timestamp 8 | 41 max_timestamp 8 | 49 producer_id 8 | 55 producer_epoch 4 | 5d base_sequence 4
 *   65 record_count 4 | 6a length (varint) records
 *
 * stamp_crc covers the first two fields and then crc, tags included; crc covers all that follows it. So no bit of a batch
 * but the length in front is unprotected, and that one is proven by crc.
 */
const BATCH_TAG = 0x0a;
const RECORDS_TAG = 0x6a;

/** Each fixed-width field: its tag, and where the tag stands in the body. Each position follows from the one before. */
const BASE_OFFSET = { tag: 0x09, at: 0, bytes: 8 };
const LEADER_EPOCH = { tag: 0x15, at: BASE_OFFSET.at + 9, bytes: 4 };
const STAMP_CRC = { tag: 0x1d, at: LEADER_EPOCH.at + 5, bytes: 4 };
const CRC = { tag: 0x25, at: STAMP_CRC.at + 5, bytes: 4 };
const ATTRIBUTES = { tag: 0x2d, at: CRC.at + 5, bytes: 4 };
const LAST_OFFSET_DELTA = { tag: 0x35, at: ATTRIBUTES.at + 5, bytes: 4 };
const BASE_TIMESTAMP = { tag: 0x39, at: LAST_OFFSET_DELTA.at + 5, bytes: 8 };
const MAX_TIMESTAMP = { tag: 0x41, at: BASE_TIMESTAMP.at + 9, bytes: 8 };
const PRODUCER_ID = { tag: 0x49, at: MAX_TIMESTAMP.at + 9, bytes: 8 };
const PRODUCER_EPOCH = { tag: 0x55, at: PRODUCER_ID.at + 9, bytes: 4 };
const BASE_SEQUENCE = { tag: 0x5d, at: PRODUCER_EPOCH.at + 5, bytes: 4 };
const RECORD_COUNT = { tag: 0x65, at: BASE_SEQUENCE.at + 5, bytes: 4 };
const headerFields = [
  BASE_OFFSET,
  LEADER_EPOCH,
  STAMP_CRC,
  CRC,
  ATTRIBUTES,
  LAST_OFFSET_DELTA,
  BASE_TIMESTAMP,
  MAX_TIMESTAMP,
  PRODUCER_ID,
  PRODUCER_EPOCH,
  BASE_SEQUENCE,
  RECORD_COUNT,
];
/** Bytes of the body before the tag of `records`. */
const FIXED_BYTES = RECORD_COUNT.at + 5;

/** The most that may stand before the first record: tag and length, the fixed fields, tag and length of `records`. */
export const BATCH_HEAD_BYTES_MAX = 1 + 5 + FIXED_BYTES + 1 + 5;
/** A batch shorter than this cannot be one. */
export const BATCH_BYTES_MIN = 1 + 1 + FIXED_BYTES + 1 + 1;
/** More records than this in one batch are refused, compressed or not. */
export const RECORDS_PER_BATCH_MAX = 1 << 20;
/** Sequences count records and wrap here, as in Kafka: 2^31 - 1 is followed by 0. */
export const SEQUENCE_END = 2 ** 31;

const COMPRESSION_MASK = 0x07;
const TRANSACTIONAL_BIT = 0x10;
const CONTROL_BIT = 0x20;
const KNOWN_ATTRIBUTES = 0x3f;

const TWO_TO_32 = 2 ** 32;

/**
 * `truncated`: the bytes end before the batch does. `not-canonical`: these bytes are not a batch in the prescribed form.
 * `crc` and `stamp-crc`: they are, but were damaged.
 */
export type BatchFaultKind = "truncated" | "not-canonical" | "crc" | "stamp-crc";

export class BatchFault extends Error {
  override readonly name = "BatchFault";
  constructor(
    readonly kind: BatchFaultKind,
    /** Where in the given bytes the batch began. */
    readonly position: number,
    detail: string,
  ) {
    super(detail);
  }
}

/**
 * A batch as it lies in a buffer: a view, made by `readBatch`, which has checked its form but not its checksums.
 * Reads fields in place; `stamp` writes two of them.
 */
export class RecordBatch {
  constructor(
    readonly buffer: Buffer,
    /** First byte: the tag of the element. */
    readonly start: number,
    /** First byte of the body. */
    private readonly body: number,
    /** One past the last byte. */
    readonly end: number,
    /** First byte of the content of `records`. */
    readonly recordsStart: number,
  ) {}

  /** Bytes of the whole element, as it stands in a segment file. */
  get sizeBytes(): number {
    return this.end - this.start;
  }

  /** The whole element. */
  get bytes(): Buffer {
    return this.buffer.subarray(this.start, this.end);
  }

  get baseOffset(): Offset {
    return toOffset(readUnsigned64(this.buffer, this.body + BASE_OFFSET.at + 1));
  }
  get lastOffset(): Offset {
    return toOffset(this.baseOffset + this.lastOffsetDelta);
  }
  /** One past the last offset of the batch. */
  get endOffset(): Offset {
    return toOffset(this.baseOffset + this.lastOffsetDelta + 1);
  }
  get leaderEpoch(): LeaderEpoch {
    return this.buffer.readUInt32LE(this.body + LEADER_EPOCH.at + 1);
  }
  get crc(): number {
    return this.buffer.readUInt32LE(this.body + CRC.at + 1);
  }
  get attributes(): number {
    return this.buffer.readUInt32LE(this.body + ATTRIBUTES.at + 1);
  }
  get compression(): number {
    return this.attributes & COMPRESSION_MASK;
  }
  get isTransactional(): boolean {
    return (this.attributes & TRANSACTIONAL_BIT) !== 0;
  }
  get isControl(): boolean {
    return (this.attributes & CONTROL_BIT) !== 0;
  }
  get lastOffsetDelta(): number {
    return this.buffer.readUInt32LE(this.body + LAST_OFFSET_DELTA.at + 1);
  }
  get baseTimestamp(): number {
    return readUnsigned64(this.buffer, this.body + BASE_TIMESTAMP.at + 1);
  }
  get maxTimestamp(): number {
    return readUnsigned64(this.buffer, this.body + MAX_TIMESTAMP.at + 1);
  }
  /** -1: not idempotent. */
  get producerId(): number {
    const at = this.body + PRODUCER_ID.at + 1;
    const high = this.buffer.readInt32LE(at + 4);
    return high < 0 ? -1 : high * TWO_TO_32 + this.buffer.readUInt32LE(at);
  }
  get producerEpoch(): number {
    return this.buffer.readInt32LE(this.body + PRODUCER_EPOCH.at + 1);
  }
  /** -1: not idempotent. */
  get baseSequence(): number {
    return this.buffer.readInt32LE(this.body + BASE_SEQUENCE.at + 1);
  }
  get recordCount(): number {
    return this.buffer.readUInt32LE(this.body + RECORD_COUNT.at + 1);
  }

  /** Whether crc matches: the producer's part of the batch is undamaged. */
  get crcMatches(): boolean {
    return crc32(this.buffer.subarray(this.body + ATTRIBUTES.at, this.end)) === this.crc;
  }

  /** Whether stamp_crc matches: offset and epoch are the ones a leader stamped. */
  get stampMatches(): boolean {
    return this.#stampCrc() === this.buffer.readUInt32LE(this.body + STAMP_CRC.at + 1);
  }

  /** Writes what only the leader knows, in place. */
  stamp(baseOffset: Offset, leaderEpoch: LeaderEpoch): void {
    writeUnsigned64(this.buffer, this.body + BASE_OFFSET.at + 1, baseOffset);
    this.buffer.writeUInt32LE(leaderEpoch, this.body + LEADER_EPOCH.at + 1);
    this.buffer.writeUInt32LE(this.#stampCrc(), this.body + STAMP_CRC.at + 1);
  }

  /** Throws BatchFault `stamp-crc` or `crc`: for followers, recovery, consumers. */
  verify(): void {
    if (!this.stampMatches)
      throw new BatchFault(
        "stamp-crc",
        this.start,
        `the stamp of the batch at byte ${this.start} does not match its checksum`,
      );
    if (!this.crcMatches)
      throw new BatchFault(
        "crc",
        this.start,
        `the batch at byte ${this.start} (offset ${this.baseOffset}) does not match its checksum`,
      );
  }

  #stampCrc(): number {
    const stamped = crc32(this.buffer.subarray(this.body, this.body + STAMP_CRC.at));
    return crc32(this.buffer.subarray(this.body + CRC.at, this.body + ATTRIBUTES.at), stamped);
  }
}

/** The fields of a batch that its producer decides. */
export interface BatchHeader {
  readonly attributes: number;
  readonly lastOffsetDelta: number;
  readonly baseTimestamp: number;
  readonly maxTimestamp: number;
  readonly producerId: number;
  readonly producerEpoch: number;
  readonly baseSequence: number;
  readonly recordCount: number;
}

/**
 * Writes the head of a batch backwards, so that it ends where the content of `records` begins, computes crc, and returns
 * the position of the first byte. Offset, epoch and stamp are zero until a leader stamps them. There must be
 * BATCH_HEAD_BYTES_MAX bytes of room in front of `recordsStart`. What follows the content in `buffer` may lie elsewhere:
 * `furtherPieces`, in their order.
 */
export function writeBatchHead(
  buffer: Buffer,
  recordsStart: number,
  recordsEnd: number,
  header: BatchHeader,
  furtherPieces: readonly Buffer[] = [],
): number {
  let furtherBytes = 0;
  for (const piece of furtherPieces) furtherBytes += piece.length;
  const recordsBytes = recordsEnd - recordsStart + furtherBytes;
  let at = recordsStart - varintBytes(recordsBytes);
  writeVarint(buffer, at, recordsBytes);
  buffer[--at] = RECORDS_TAG;
  const body = at - FIXED_BYTES;
  for (const field of headerFields) buffer[body + field.at] = field.tag;
  writeUnsigned64(buffer, body + BASE_OFFSET.at + 1, 0);
  buffer.writeUInt32LE(0, body + LEADER_EPOCH.at + 1);
  buffer.writeUInt32LE(0, body + STAMP_CRC.at + 1);
  buffer.writeUInt32LE(header.attributes, body + ATTRIBUTES.at + 1);
  buffer.writeUInt32LE(header.lastOffsetDelta, body + LAST_OFFSET_DELTA.at + 1);
  writeUnsigned64(buffer, body + BASE_TIMESTAMP.at + 1, header.baseTimestamp);
  writeUnsigned64(buffer, body + MAX_TIMESTAMP.at + 1, header.maxTimestamp);
  writeSigned64(buffer, body + PRODUCER_ID.at + 1, header.producerId);
  buffer.writeInt32LE(header.producerEpoch, body + PRODUCER_EPOCH.at + 1);
  buffer.writeInt32LE(header.baseSequence, body + BASE_SEQUENCE.at + 1);
  buffer.writeUInt32LE(header.recordCount, body + RECORD_COUNT.at + 1);
  let crc = crc32(buffer.subarray(body + ATTRIBUTES.at, recordsEnd));
  for (const piece of furtherPieces) crc = crc32(piece, crc);
  buffer.writeUInt32LE(crc, body + CRC.at + 1);
  const bodyBytes = recordsEnd - body + furtherBytes;
  const start = body - varintBytes(bodyBytes) - 1;
  buffer[start] = BATCH_TAG;
  writeVarint(buffer, start + 1, bodyBytes);
  return start;
}

/**
 * The size in bytes of the batch whose first bytes stand at `position`, prefix included; undefined when there are too few
 * bytes to tell. Throws BatchFault `not-canonical` when they cannot begin a batch.
 */
export function batchSizeAt(buffer: Uint8Array, position: number, end: number): number | undefined {
  if (position >= end) return undefined;
  if (buffer[position] !== BATCH_TAG) {
    throw new BatchFault(
      "not-canonical",
      position,
      `byte ${position} does not begin a record batch (tag ${buffer[position]})`,
    );
  }
  const length = readVarint(buffer, position + 1, end, position);
  return length === undefined ? undefined : 1 + length.bytes + length.value;
}

/** A view of the batch at `position`, its form checked. Throws BatchFault `truncated` or `not-canonical`. */
export function readBatch(buffer: Buffer, position: number, end: number = buffer.length): RecordBatch {
  if (position >= end) truncated(position, end);
  if (buffer[position] !== BATCH_TAG) refuse(position, `begins with tag ${buffer[position]} instead of ${BATCH_TAG}`);
  const length = readVarint(buffer, position + 1, end, position) ?? truncated(position, end);
  const body = position + 1 + length.bytes;
  const batchEnd = body + length.value;
  if (length.value < FIXED_BYTES + 2) refuse(position, `has ${length.value} bytes, less than its fixed fields`);
  if (batchEnd > end) truncated(position, end);
  for (const field of headerFields) {
    if (buffer[body + field.at] !== field.tag) refuse(position, `field ${field.tag >>> 3} is not in its place`);
  }
  if (buffer[body + FIXED_BYTES] !== RECORDS_TAG) refuse(position, "field 13 is not in its place");
  const recordsLength =
    readVarint(buffer, body + FIXED_BYTES + 1, batchEnd, position) ?? refuse(position, "field 13 has no length");
  const recordsStart = body + FIXED_BYTES + 1 + recordsLength.bytes;
  if (recordsStart + recordsLength.value !== batchEnd) refuse(position, "field 13 does not fill the batch");
  for (const field of boundedFields) {
    // Both words: 2^53 - 1 is 0x001fffff ffffffff.
    if (buffer.readUInt32LE(body + field.at + 5) > 0x1fffff)
      refuse(position, `field ${field.tag >>> 3} is above 2^53 - 1`);
  }
  const producerHigh = buffer.readInt32LE(body + PRODUCER_ID.at + 5);
  const producerLow = buffer.readInt32LE(body + PRODUCER_ID.at + 1);
  if (producerHigh > 0x1fffff || (producerHigh < 0 && (producerHigh !== -1 || producerLow !== -1)))
    refuse(position, "the producer id is neither -1 nor in 0 to 2^53 - 1");
  return new RecordBatch(buffer, position, body, batchEnd, recordsStart);
}

const boundedFields = [BASE_OFFSET, BASE_TIMESTAMP, MAX_TIMESTAMP];

function refuse(position: number, detail: string): never {
  throw new BatchFault("not-canonical", position, `the batch at byte ${position}: ${detail}`);
}

function truncated(position: number, end: number): never {
  throw new BatchFault("truncated", position, `the batch at byte ${position} ends after byte ${end}`);
}

/** Views of all batches in `buffer`, which must hold whole ones only. Throws BatchFault. */
export function readBatches(buffer: Buffer): RecordBatch[] {
  const batches: RecordBatch[] = [];
  for (let position = 0; position < buffer.length;) {
    const batch = readBatch(buffer, position);
    batches.push(batch);
    position = batch.end;
  }
  return batches;
}

/** Why a batch from a client may not be appended: beyond its form, what its fields promise. undefined: it may. */
export function produceRefusal(batch: RecordBatch): string | undefined {
  if ((batch.attributes & ~KNOWN_ATTRIBUTES) !== 0) return `reserved bits of attributes are set (${batch.attributes})`;
  if (batch.isControl) return "control batches come from brokers only";
  if (batch.isTransactional) return "transactions are not supported";
  if (batch.compression !== 0) return `compression ${batch.compression} is not supported`;
  if (batch.recordCount === 0) return "it has no records";
  if (batch.recordCount > RECORDS_PER_BATCH_MAX)
    return `it has ${batch.recordCount} records, more than ${RECORDS_PER_BATCH_MAX}`;
  if (batch.lastOffsetDelta !== batch.recordCount - 1)
    return `last_offset_delta ${batch.lastOffsetDelta} does not fit record_count ${batch.recordCount}`;
  // A record takes two bytes at least: its tag and its length.
  if (batch.recordCount * 2 > batch.end - batch.recordsStart)
    return `${batch.recordCount} records do not fit in ${batch.end - batch.recordsStart} bytes`;
  if (batch.maxTimestamp < batch.baseTimestamp && batch.recordCount === 1)
    return "max_timestamp is before the only record";
  const idempotent = batch.producerId >= 0;
  if (idempotent !== batch.baseSequence >= 0 || idempotent !== batch.producerEpoch >= 0)
    return "producer id, epoch and sequence do not go together";
  return undefined;
}

/** The sequence that follows a batch. */
export function nextSequence(baseSequence: number, recordCount: number): number {
  return (baseSequence + recordCount) % SEQUENCE_END;
}

/** Bytes of `value` as a varint. */
export function varintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x200000 ? 3 : value < 0x10000000 ? 4 : 5;
}

/** Writes a varint of up to 32 bits and returns the position after it. */
export function writeVarint(buffer: Uint8Array, position: number, value: number): number {
  let rest = value >>> 0;
  let at = position;
  while (rest >= 0x80) {
    buffer[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  buffer[at++] = rest;
  return at;
}

/** A minimal varint of up to 31 bits; undefined when the bytes end inside it. */
function readVarint(
  buffer: Uint8Array,
  position: number,
  end: number,
  batchPosition: number,
): { value: number; bytes: number } | undefined {
  let value = 0;
  for (let count = 0; count < 5; count += 1) {
    const at = position + count;
    if (at >= end) return undefined;
    const byte = buffer[at] as number;
    value += (byte & 0x7f) * 2 ** (7 * count);
    if (byte < 0x80) {
      if (byte === 0 && count > 0) break;
      if (value > 0x7fffffff) break;
      return { value, bytes: count + 1 };
    }
  }
  throw new BatchFault(
    "not-canonical",
    batchPosition,
    `the batch at byte ${batchPosition} has a length that is not a minimal varint below 2^31`,
  );
}

function readUnsigned64(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at + 4) * TWO_TO_32 + buffer.readUInt32LE(at);
}

function writeUnsigned64(buffer: Buffer, at: number, value: number): void {
  buffer.writeUInt32LE(value % TWO_TO_32, at);
  buffer.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4);
}

function writeSigned64(buffer: Buffer, at: number, value: number): void {
  if (value < 0) {
    buffer.writeInt32LE(-1, at);
    buffer.writeInt32LE(-1, at + 4);
  } else {
    writeUnsigned64(buffer, at, value);
  }
}
