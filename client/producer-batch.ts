import type { BatchIdentity } from "../protocol/record-encoder.js";
import { RecordEncoder } from "../protocol/record-encoder.js";
import type { BrokerId } from "../protocol/types.js";
import type { ClientError } from "./errors.js";

/** Where a record went. */
export interface RecordMetadata {
  readonly topic: string;
  readonly partition: number;
  /** -1: not known, because nothing was waited for (`acks: "none"`) or the broker remembers only that it has the record. */
  readonly offset: number;
  /** Milliseconds since 1970. */
  readonly timestamp: number;
}

/** How sending a record ended: with an error, or with the place where it is. */
export type Acknowledgement = [error: ClientError, metadata: undefined] | [error: undefined, metadata: RecordMetadata];

/** Called once for a record, when it is acknowledged or has failed for good. */
export type OnAcknowledged = (...outcome: Acknowledgement) => void;

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
  ) {
    this.encoder = new RecordEncoder(buffer);
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

  /** Gives the batch its place in its producer's sequence. */
  identify(identity: BatchIdentity): void {
    this.baseSequence = identity.baseSequence;
    this.bytes = this.encoder.finish(identity);
  }
}
