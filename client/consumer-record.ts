import type { RecordBatch } from "../protocol/record-batch.js";
import { BatchFault } from "../protocol/record-batch.js";
import type { DecodedHeader } from "../protocol/record-cursor.js";
import { RecordCursor, readHeaders } from "../protocol/record-cursor.js";
import { UnreadableBatchError } from "./errors.js";

/**
 * A record as it was read. Key, value and headers are made when they are read, each time anew: keep them in a variable.
 * They are views of the bytes that arrived; copy what has to outlive the batch by long (`Buffer.from(record.value)`),
 * because a view keeps all that arrived with it in memory.
 */
export class ConsumerRecord {
  /** Use the iterators of a consumer. */
  constructor(
    private readonly batch: ConsumerBatch,
    readonly offset: number,
    /** Milliseconds since 1970. */
    readonly timestamp: number,
    private readonly keyStart: number,
    private readonly keyEnd: number,
    private readonly valueStart: number,
    private readonly valueEnd: number,
    private readonly headersStart: number,
    private readonly headersEnd: number,
  ) {}

  get topic(): string {
    return this.batch.topic;
  }

  get partition(): number {
    return this.batch.partition;
  }

  /** null: the record has none. */
  get key(): Buffer | null {
    return this.keyStart < 0 ? null : this.batch.bytes.subarray(this.keyStart, this.keyEnd);
  }

  /** null: a tombstone. */
  get value(): Buffer | null {
    return this.valueStart < 0 ? null : this.batch.bytes.subarray(this.valueStart, this.valueEnd);
  }

  /**
   * In the order in which they were sent; names may repeat. A name is text: a batch in which one is not UTF-8 is refused by
   * leaders, and is unreadable here (`onUnreadable`). Values are the bytes that were sent.
   */
  get headers(): readonly DecodedHeader[] {
    return readHeaders(this.batch.bytes, this.headersStart, this.headersEnd);
  }
}

/**
 * Records of one partition that were written together. Iterating makes one object for each record; nothing is decoded
 * before. Those before the consumer's position, or behind the end it reads to, are left out.
 */
export class ConsumerBatch implements Iterable<ConsumerRecord> {
  readonly #batch: RecordBatch;

  /** Use `Consumer.batches`. */
  constructor(
    readonly topic: string,
    readonly partition: number,
    batch: RecordBatch,
    /** The first offset that is delivered. */
    readonly startOffset: number,
    /** One past the last offset that is delivered. */
    readonly endOffset: number,
    /** Of the partition, when the batch was fetched: where the log ended for consumers. */
    readonly highWatermark: number,
  ) {
    this.#batch = batch;
  }

  /** Bytes of the batch as it travels and is stored. */
  get sizeBytes(): number {
    return this.#batch.sizeBytes;
  }

  /** Of the batch as it is stored, those that are left out included. */
  get recordCount(): number {
    return this.#batch.recordCount;
  }

  /** The buffer that the positions of its records refer to. */
  get bytes(): Buffer {
    return this.#batch.buffer;
  }

  [Symbol.iterator](): BatchIterator {
    return new BatchIterator(this, this.#batch);
  }
}

/** Walks over the records of a batch. Throws UnreadableBatchError where they are not what the head of the batch says. */
export class BatchIterator implements IterableIterator<ConsumerRecord> {
  readonly #batch: ConsumerBatch;
  readonly #cursor: RecordCursor;
  /** The offset to go on from when the walk is left here. */
  nextOffset: number;

  constructor(batch: ConsumerBatch, stored: RecordBatch) {
    this.#batch = batch;
    this.#cursor = new RecordCursor(stored);
    this.nextOffset = batch.startOffset;
  }

  get topic(): string {
    return this.#batch.topic;
  }

  get partition(): number {
    return this.#batch.partition;
  }

  next(): IteratorResult<ConsumerRecord, undefined> {
    const cursor = this.#cursor;
    const batch = this.#batch;
    while (this.#step()) {
      const offset = cursor.offset;
      if (offset < batch.startOffset) continue;
      if (offset >= batch.endOffset) break;
      this.nextOffset = offset + 1;
      const value = new ConsumerRecord(
        batch,
        offset,
        cursor.timestamp,
        cursor.keyStart,
        cursor.keyEnd,
        cursor.valueStart,
        cursor.valueEnd,
        cursor.headersStart,
        cursor.headersEnd,
      );
      return { value, done: false };
    }
    this.nextOffset = batch.endOffset;
    return { value: undefined, done: true };
  }

  [Symbol.iterator](): this {
    return this;
  }

  #step(): boolean {
    try {
      return this.#cursor.next();
    } catch (cause) {
      if (!(cause instanceof BatchFault)) throw cause;
      const { topic, partition, endOffset } = this.#batch;
      throw new UnreadableBatchError(this.nextOffset, endOffset, { topic, partition, cause });
    }
  }
}
