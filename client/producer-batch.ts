import { invariant } from "../common/assert.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import { BATCH_HEAD_BYTES_MAX, readBatch } from "../protocol/record-batch.js";
import { RecordCursor, readHeaders } from "../protocol/record-cursor.js";
import type { BatchIdentity } from "../protocol/record-encoder.js";
import { RecordEncoder } from "../protocol/record-encoder.js";
import type { BrokerId } from "../protocol/types.js";
import type { ClientError } from "./errors.js";

/** What a buffer must hold besides records: the head of the request, and that of the batch. */
const PRODUCER_BATCH_HEAD_BYTES = REQUEST_HEADROOM_BYTES + BATCH_HEAD_BYTES_MAX;
const TIMESTAMP_BYTES_MAX = 10;

/** Where a record went. */
export interface RecordMetadata {
  readonly topic: string;
  readonly partition: number;
  /** -1 with `acks: "none"`: nothing was waited for. */
  readonly offset: number;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
}

/** How sending a record ended: with an error, or with the place where it is. */
export type Acknowledgement = [error: ClientError, metadata: undefined] | [error: undefined, metadata: RecordMetadata];

/** Called once for a record, when it is acknowledged or has failed for good. */
export type OnAcknowledged = (...outcome: Acknowledgement) => void;

/** Where an exception of a callback goes. */
export type OnThrown = (error: unknown) => void;

/**
 * Records of one partition that travel together, and what became of them so far. A batch is open while records are
 * added; then its bytes stay as they are for every attempt to send it, because that is how a broker knows a repetition.
 * It belongs to one `PartitionQueue`, which alone changes it.
 */
export class ProducerBatch {
  readonly encoder: RecordEncoder;
  /** One for each record as soon as one record has one. */
  callbacks: (OnAcknowledged | undefined)[] | undefined;
  timestamps: number[] | undefined;
  /** Counts the batches of a queue in the order in which they were first sent. */
  ordinal = 0;
  /** Sequence of the first record; -1 until it is first sent, and without idempotence. */
  baseSequence = -1;
  /** The whole batch, once it has an identity. */
  bytes: Buffer | undefined;
  /** Grows with each attempt, so that an answer to an earlier one is recognized. */
  attempts = 0;
  /** A request with this batch is not answered yet. */
  isPending = false;
  sentTo: BrokerId = -1;
  sentAtMs = 0;
  /** Some attempt may have been appended without our knowing. */
  outcomeUnknown = false;
  /** One behind it is in the log. */
  isOvertaken = false;
  isDone = false;
  /** Why the last attempt failed. */
  lastError: ClientError | undefined;
  /** Why the batch as a whole failed. */
  failure: ClientError | undefined;
  /** Told when the batch is done, either way. */
  onDone: (() => void)[] | undefined;

  constructor(
    readonly buffer: Buffer,
    readonly openedAtMs: number,
    /** Of the monotonic clock. */
    readonly deadlineMs: number,
    /** How much of the buffer the batch may fill. */
    limitBytes: number = buffer.length,
  ) {
    this.encoder = new RecordEncoder(
      limitBytes < buffer.length ? buffer.subarray(0, limitBytes) : buffer,
      REQUEST_HEADROOM_BYTES,
    );
  }

  get recordCount(): number {
    return this.encoder.recordCount;
  }

  /** Remembers whom to tell about the record that was appended last. */
  note(timestamp: number, onAcknowledged: OnAcknowledged | undefined): void {
    if (this.callbacks === undefined || this.timestamps === undefined) {
      if (onAcknowledged === undefined) return;
      const earlier = this.recordCount - 1;
      this.callbacks = new Array<undefined>(earlier).fill(undefined);
      this.timestamps = new Array<number>(earlier).fill(0);
    }
    this.callbacks.push(onAcknowledged);
    this.timestamps.push(timestamp);
  }

  /**
   * Tells everybody who asked where their records are; `baseOffset` -1: not known. What one of them throws goes to
   * `onThrown`, and the others are told.
   */
  tellPlaces(topic: string, partition: number, baseOffset: number, onThrown: OnThrown): void {
    const { callbacks, timestamps } = this;
    if (callbacks === undefined || timestamps === undefined) return;
    for (let index = 0; index < callbacks.length; index += 1) {
      const offset = baseOffset < 0 ? -1 : baseOffset + index;
      try {
        callbacks[index]?.(undefined, { topic, partition, offset, timestamp: timestamps[index] as number });
      } catch (error) {
        onThrown(error);
      }
    }
  }

  /** As `tellPlaces`. */
  tellFailure(error: ClientError, onThrown: OnThrown): void {
    for (const callback of this.callbacks ?? []) {
      try {
        callback?.(error, undefined);
      } catch (thrown) {
        onThrown(thrown);
      }
    }
  }

  /** Gives the batch its place in its producer's sequence. */
  identify(identity: BatchIdentity): void {
    this.baseSequence = identity.baseSequence;
    this.bytes = this.encoder.finish(identity);
  }

  /** The same records as two batches of half the count each, not yet identified. `allocate` gives their buffers. */
  split(allocate: (bytes: number) => Buffer): [ProducerBatch, ProducerBatch] {
    const { bytes, recordCount, callbacks, timestamps, onDone } = this;
    invariant(bytes !== undefined && recordCount > 1, () => `a batch of ${recordCount} records cannot be split`);
    const stored = readBatch(bytes, 0);
    const cursor = new RecordCursor(stored);
    const take = (from: number, to: number): ProducerBatch => {
      // Distances in time are counted from another record, which may take more bytes.
      const buffer = allocate(PRODUCER_BATCH_HEAD_BYTES + bytes.length + (to - from) * TIMESTAMP_BYTES_MAX);
      const half = new ProducerBatch(buffer, this.openedAtMs, this.deadlineMs);
      for (let index = from; index < to && cursor.next(); index += 1) {
        const fits = half.encoder.tryAppend(
          cursor.timestamp,
          cursor.keyStart < 0 ? null : bytes.subarray(cursor.keyStart, cursor.keyEnd),
          cursor.valueStart < 0 ? null : bytes.subarray(cursor.valueStart, cursor.valueEnd),
          readHeaders(bytes, cursor.headersStart, cursor.headersEnd),
        );
        invariant(fits, () => "half of a batch does not fit in the room of a whole one");
      }
      half.callbacks = callbacks?.slice(from, to);
      half.timestamps = timestamps?.slice(from, to);
      half.lastError = this.lastError;
      half.ordinal = this.ordinal;
      half.isOvertaken = this.isOvertaken;
      return half;
    };
    const middle = recordCount >>> 1;
    const halves: [ProducerBatch, ProducerBatch] = [take(0, middle), take(middle, recordCount)];
    for (const tell of onDone ?? []) {
      let left = halves.length;
      const tellOnce = (): void => {
        left -= 1;
        if (left === 0) tell();
      };
      for (const half of halves) (half.onDone ??= []).push(tellOnce);
    }
    return halves;
  }
}
