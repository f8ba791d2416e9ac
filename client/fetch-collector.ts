import type { RecordBatch } from "../protocol/record-batch.js";
import { BatchFault } from "../protocol/record-batch.js";
import type { BatchIterator, ConsumerRecord } from "./consumer-record.js";
import { ConsumerBatch } from "./consumer-record.js";
import { ProtocolError } from "./errors.js";
import type { FetchBuffer } from "./fetch-buffer.js";
import type { FetchErrors } from "./fetch-errors.js";
import type { TopicPartition } from "./options.js";
import type { FetchedChunk, PartitionReader } from "./partition-reader.js";

/**
 * Delivers what the buffer holds, batch by batch or record by record. Here a batch is verified, what is void by now or not
 * for the application is left out, and the position of its partition moves on.
 */
export class FetchCollector {
  #chunk: FetchedChunk | undefined;
  /** The batch that is being read record by record. */
  #records: BatchIterator | undefined;

  constructor(
    private readonly buffer: FetchBuffer,
    private readonly errors: FetchErrors,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** As `takeBatch`. */
  takeRecord(): ConsumerRecord | undefined {
    for (;;) {
      if (this.#records !== undefined) {
        const { value } = this.#records.next();
        if (value !== undefined) return value;
        this.#records = undefined;
      }
      const batch = this.takeBatch();
      if (batch === undefined) return undefined;
      this.#records = batch[Symbol.iterator]();
    }
  }

  /** The next batch that has something to deliver; undefined when none is here. Throws what went wrong meanwhile. */
  takeBatch(): ConsumerBatch | undefined {
    this.signal?.throwIfAborted();
    for (;;) {
      const chunk = this.#chunk ?? this.buffer.take();
      this.#chunk = undefined;
      if (chunk === undefined) return undefined;
      const { reader } = chunk;
      if (chunk.generation !== reader.generation || reader.position === undefined) {
        chunk.release?.();
        continue;
      }
      if (reader.isPaused) {
        reader.held.push(chunk);
        continue;
      }
      const stored = chunk.batches[chunk.next];
      if (stored === undefined) {
        reader.bufferedBytes -= chunk.bytes;
        if (chunk.goesOnAt !== undefined && !reader.isAtEnd) reader.position = chunk.goesOnAt;
        chunk.release?.();
        reader.loop?.wake();
        continue;
      }
      this.#chunk = chunk;
      const batch = this.#deliver(reader, chunk, stored);
      if (batch !== undefined) return batch;
    }
  }

  /** The offset of the next record, if it is this partition that is being read record by record. */
  nextOffsetIn({ topic, partition }: TopicPartition): number | undefined {
    const current = this.#records;
    return current?.topic === topic && current.partition === partition ? current.nextOffset : undefined;
  }

  /** Delivers nothing more of that batch, if it is of this partition, and returns the offset of its next record. */
  leave(target: TopicPartition): number | undefined {
    const nextOffset = this.nextOffsetIn(target);
    if (nextOffset !== undefined) this.#records = undefined;
    return nextOffset;
  }

  /** Drops all that is here and in the buffer. */
  clear(): void {
    this.#records = undefined;
    this.#chunk = undefined;
    this.buffer.clear();
  }

  /** Checks a batch and moves the position behind it; undefined when there is nothing in it for the reader. */
  #deliver(reader: PartitionReader, chunk: FetchedChunk, stored: RecordBatch): ConsumerBatch | undefined {
    const { topic, partition, position = 0 } = reader;
    chunk.next += 1;
    try {
      stored.verify();
    } catch (error) {
      if (!(error instanceof BatchFault)) throw error;
      // What stands behind it is fetched again with it.
      reader.restartAt(position);
      this.errors.onDamaged(reader, position, error);
      return undefined;
    }
    if (reader.damagedAt !== undefined && stored.endOffset > reader.damagedAt) reader.damagedAt = undefined;
    if (stored.endOffset <= position) return undefined;
    if (stored.compression !== 0) {
      // What stands behind it is not read past it.
      reader.restartAt(position);
      this.buffer.fail(
        new ProtocolError("UNSUPPORTED_VERSION", `the batch at offset ${position} is compressed`, { topic, partition }),
        reader,
      );
      return undefined;
    }
    const endOffset = Math.min(stored.endOffset, reader.endOffset ?? Number.POSITIVE_INFINITY);
    // What came later than the end that this loop reads to is the next one's.
    if (endOffset <= position) return undefined;
    reader.position = endOffset;
    if (stored.isControl || this.errors.leavesOut(reader, stored)) return undefined;
    return new ConsumerBatch(
      topic,
      partition,
      stored,
      Math.max(position, stored.baseOffset),
      endOffset,
      chunk.highWatermark,
    );
  }
}
