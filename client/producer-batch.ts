import { invariant } from "../common/assert.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import { BATCH_HEAD_BYTES_MAX, readBatch } from "../protocol/record-batch.js";
import { RecordCursor, readHeaders } from "../protocol/record-cursor.js";
import type { BatchIdentity } from "../protocol/record-encoder.js";
import { noIdentity, RecordEncoder } from "../protocol/record-encoder.js";
import type { BrokerId } from "../protocol/types.js";
import type { ClientError } from "./errors.js";
import type { UnderWay } from "./leader-turns.js";
import type { ProducerRecord } from "./producer-record.js";

/** What a buffer must hold besides records: the head of the request, and that of the batch. */
const PRODUCER_BATCH_HEAD_BYTES = REQUEST_HEADROOM_BYTES + BATCH_HEAD_BYTES_MAX;
const TIMESTAMP_BYTES_MAX = 10;
/** Below this a batch doubles its memory when it needs more. */
const DOUBLED_BYTES_MAX = 4096;

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

/** A record that is taken out of its batch again. */
export interface RecordBack {
  readonly record: ProducerRecord;
  readonly timestamp: number;
  readonly onAcknowledged: OnAcknowledged | undefined;
  /** Of its batch. */
  readonly deadlineMs: number;
  /** It names its partition. */
  readonly isNamed: boolean;
}

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
  pieces: readonly Buffer[] | undefined;
  /** Grows with each attempt, so that an answer to an earlier one is recognized. */
  attempts = 0;
  /** A request with this batch is not answered yet. */
  isPending = false;
  sentTo: BrokerId = -1;
  /** How it counts among the batches under way to that broker. */
  underWay: UnderWay | undefined;
  sentAtMs = 0;
  /** Some attempt may have been appended without our knowing. */
  outcomeUnknown = false;
  /** One behind it is in the log. */
  isOvertaken = false;
  isDone = false;
  /** Whether each record names its partition, where some do and some do not. */
  named: boolean[] | undefined;
  #areNamed = false;
  /** Why the last attempt failed. */
  lastError: ClientError | undefined;
  /** Why the batch as a whole failed. */
  failure: ClientError | undefined;
  /** Told when the batch is done, either way. */
  onDone: (() => void)[] | undefined;

  /** All that its records lie in. */
  readonly buffers: Buffer[];
  /** How much may still be added to them. */
  #roomBytes: number;

  constructor(
    buffer: Buffer,
    readonly openedAtMs: number,
    /** Of the monotonic clock: that of its oldest record, whenever that came in. */
    public deadlineMs: number,
    /** How much the batch may fill, with what must stand in front of it. */
    limitBytes: number = buffer.length,
  ) {
    this.buffers = [buffer];
    this.#roomBytes = Math.max(0, limitBytes - buffer.length);
    this.encoder = new RecordEncoder(firstBytes(buffer, limitBytes), REQUEST_HEADROOM_BYTES);
  }

  /** Of all its buffers. */
  get memoryBytes(): number {
    let bytes = 0;
    for (const { length } of this.buffers) bytes += length;
    return bytes;
  }

  /** How large another buffer should be for so many bytes to be added; undefined: the batch is full. */
  growthFor(bytes: number): number | undefined {
    if (bytes > this.#roomBytes) return undefined;
    const { memoryBytes } = this;
    // As much as it has; later about half of that, as a power of two, so that less of it lies empty.
    const stepBytes = memoryBytes < DOUBLED_BYTES_MAX ? memoryBytes : 2 ** (30 - Math.clz32(memoryBytes));
    return Math.max(bytes, Math.min(this.#roomBytes, stepBytes));
  }

  /** Further records go into this buffer. */
  growBy(buffer: Buffer): void {
    this.encoder.continueIn(firstBytes(buffer, this.#roomBytes));
    this.#roomBytes = Math.max(0, this.#roomBytes - buffer.length);
    this.buffers.push(buffer);
  }

  get recordCount(): number {
    return this.encoder.recordCount;
  }

  /** Remembers whom to tell about the record that was appended last, and whether that names its partition. */
  note(timestamp: number, onAcknowledged: OnAcknowledged | undefined, isNamed: boolean): void {
    if (this.recordCount === 1) this.#areNamed = isNamed;
    else if (this.named === undefined && isNamed !== this.#areNamed) {
      this.named = new Array<boolean>(this.recordCount - 1).fill(this.#areNamed);
    }
    this.named?.push(isNamed);
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
    this.pieces = this.#finish(identity);
  }

  #finish(identity: BatchIdentity): readonly Buffer[] {
    const first = this.encoder.finish(identity);
    return [first, ...this.encoder.furtherPieces];
  }

  /** Its records as they were handed over, as views of its memory, and whom to tell about each. */
  recordsBack(): RecordBack[] {
    const bytes = whole(this.pieces ?? this.#finish(noIdentity));
    const cursor = new RecordCursor(readBatch(bytes, 0));
    const records: RecordBack[] = [];
    while (cursor.next()) {
      const { timestamp } = cursor;
      const index = records.length;
      records.push({
        record: recordAt(bytes, cursor),
        timestamp,
        onAcknowledged: this.callbacks?.[index],
        deadlineMs: this.deadlineMs,
        isNamed: this.named?.[index] ?? this.#areNamed,
      });
    }
    return records;
  }

  /** The same records as two batches of half the count each, not yet identified. `allocate` gives their buffers. */
  split(allocate: (bytes: number) => Buffer): [ProducerBatch, ProducerBatch] {
    const { pieces, recordCount, callbacks, timestamps, onDone } = this;
    invariant(pieces !== undefined && recordCount > 1, () => `a batch of ${recordCount} records cannot be split`);
    const bytes = whole(pieces);
    const stored = readBatch(bytes, 0);
    const cursor = new RecordCursor(stored);
    const take = (from: number, to: number): ProducerBatch => {
      // Distances in time are counted from another record, which may take more bytes.
      const buffer = allocate(PRODUCER_BATCH_HEAD_BYTES + bytes.length + (to - from) * TIMESTAMP_BYTES_MAX);
      const half = new ProducerBatch(buffer, this.openedAtMs, this.deadlineMs);
      for (let index = from; index < to && cursor.next(); index += 1) {
        const { key, value, headers } = recordAt(bytes, cursor);
        const fits = half.encoder.tryAppend(cursor.timestamp, key, value, headers);
        invariant(fits, () => "half of a batch does not fit in the room of a whole one");
      }
      half.callbacks = callbacks?.slice(from, to);
      half.timestamps = timestamps?.slice(from, to);
      half.lastError = this.lastError;
      half.ordinal = this.ordinal;
      half.isOvertaken = this.isOvertaken;
      half.named = this.named?.slice(from, to);
      half.#areNamed = this.#areNamed;
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

const recordAt = (bytes: Buffer, cursor: RecordCursor) => ({
  key: cursor.keyStart < 0 ? null : bytes.subarray(cursor.keyStart, cursor.keyEnd),
  value: cursor.valueStart < 0 ? null : bytes.subarray(cursor.valueStart, cursor.valueEnd),
  headers: readHeaders(bytes, cursor.headersStart, cursor.headersEnd),
});

const firstBytes = (buffer: Buffer, bytes: number): Buffer =>
  bytes < buffer.length ? buffer.subarray(0, bytes) : buffer;

const whole = (pieces: readonly Buffer[]): Buffer =>
  pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
