import { invariant } from "../common/assert.js";
import type { Env } from "../common/env/env.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import type { EncodableBytes, EncodableHeader } from "../protocol/record-encoder.js";
import { singleRecordBatchBytes } from "../protocol/record-encoder.js";
import type { BufferPool } from "./buffer-pool.js";
import type { ErrorPlace } from "./errors.js";
import { RecordTooLargeError } from "./errors.js";
import type { OnAcknowledged } from "./producer-batch.js";
import { ProducerBatch } from "./producer-batch.js";

/** What an accumulator needs of its producer. */
export interface AccumulatorHost {
  readonly env: Env;
  readonly settings: { readonly lingerMs: number; readonly deliveryTimeoutMs: number };
  readonly pool: BufferPool;
  /** What is known of the cluster is of no use; it is to be asked again. */
  refresh(): void;
  /** Has what is due looked for at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void;
}

/** What an accumulator tells the queue that it belongs to. */
export interface AccumulatorEvents {
  /** No more records go into the batch that was open. */
  onClosed(): void;
  /** In the middle of an append: a batch is full, and may be sent before the record that did not fit gets a new one. */
  onFull(): void;
}

/** A limit below this would make batches of less than one ordinary record. */
const LIMIT_BYTES_MIN = 1024;

/**
 * Where records of one partition become batches, until these are sent:
 *
 *        ready             open
 *     [ b3 ][ b4 ]       [ b5 ..
 *      full, wait         takes
 *      for their turn     records
 *
 * Records keep the order in which they came. The open batch is closed when it is full, or, with nothing ready before it,
 * when it is taken: at the end of `lingerMs`, or in a flush.
 */
export class RecordAccumulator {
  readonly #ready: ProducerBatch[] = [];
  #open: ProducerBatch | undefined;
  #isFlushing = false;
  /** What a batch of several records may hold: what the topic accepts, or less when it has refused that. */
  #limitBytes: number;

  constructor(
    private readonly host: AccumulatorHost,
    private readonly place: ErrorPlace,
    /** The largest batch that the topic accepts. */
    private batchBytesMax: number,
    private readonly events: AccumulatorEvents,
  ) {
    this.#limitBytes = batchBytesMax;
  }

  get isEmpty(): boolean {
    return this.#open === undefined && this.#ready.length === 0;
  }

  /**
   * Encodes a record into the open batch, or a new one; false when there is no memory for that. A new batch has the
   * deadline of this record, its oldest; undefined: the record was handed over only now. Throws RecordTooLargeError.
   */
  append(
    timestamp: number,
    key: EncodableBytes,
    value: EncodableBytes,
    headers: readonly EncodableHeader[] | undefined,
    deadlineMs: number | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    let batch = this.#open;
    if (batch === undefined || !batch.encoder.tryAppend(timestamp, key, value, headers)) {
      if (this.closeOpen()) this.events.onFull();
      batch = this.#newBatch(deadlineMs);
      if (batch === undefined) return false;
      if (!batch.encoder.tryAppend(timestamp, key, value, headers)) {
        this.host.pool.give(batch.buffer, true);
        batch = this.#newLargeBatch(singleRecordBatchBytes(key, value, headers), deadlineMs);
        if (batch === undefined) return false;
        const fits = batch.encoder.tryAppend(timestamp, key, value, headers);
        invariant(fits, () => "a record does not fit into a batch of its own size");
      }
      this.#open = batch;
      const { lingerMs } = this.host.settings;
      if (lingerMs > 0) this.host.wakeAt(batch.openedAtMs + lingerMs);
    }
    batch.note(timestamp, onAcknowledged);
    return true;
  }

  /** The open batch, if there is one, waits for its turn from now on; whether there was one. */
  closeOpen(): boolean {
    const batch = this.#open;
    if (batch === undefined) return false;
    this.#open = undefined;
    this.#isFlushing = false;
    this.#ready.push(batch);
    this.events.onClosed();
    return true;
  }

  /** Whether there is a batch to send now. */
  hasDue(nowMs: number): boolean {
    return this.#ready.length > 0 || this.#isOpenDue(nowMs);
  }

  /** The batch to send now, oldest first. */
  takeDue(nowMs: number): ProducerBatch | undefined {
    if (this.#ready.length === 0 && this.#isOpenDue(nowMs)) this.closeOpen();
    return this.#ready.shift();
  }

  /** Sent before all others: batches that were taken, and turned out not to be appended. */
  putBack(batches: readonly ProducerBatch[]): void {
    this.#ready.unshift(...batches);
  }

  /** The open batch does not wait for more records; returns all that is here. */
  flush(): ProducerBatch[] {
    this.#isFlushing = this.#open !== undefined;
    return this.#open === undefined ? [...this.#ready] : [...this.#ready, this.#open];
  }

  /** A batch whose deadline is over; undefined when there is none. Deadlines stand in the order of the records. */
  takeExpired(nowMs: number): ProducerBatch | undefined {
    const oldest = this.#ready[0];
    if (oldest !== undefined && nowMs >= oldest.deadlineMs) return this.#ready.shift();
    if (this.#open === undefined || nowMs < this.#open.deadlineMs) return undefined;
    this.closeOpen();
    return this.#ready.pop();
  }

  takeAll(): ProducerBatch[] {
    this.closeOpen();
    return this.#ready.splice(0);
  }

  /** What the topic accepts was told anew. */
  setBatchBytesMax(bytes: number): void {
    if (bytes === this.batchBytesMax) return;
    this.batchBytesMax = bytes;
    this.#limitBytes = bytes;
  }

  /** The topic refuses batches of so many bytes: those of several records are made at most half as large. */
  keepBelow(bytes: number): void {
    this.#limitBytes = Math.max(LIMIT_BYTES_MIN, Math.min(this.#limitBytes, Math.ceil(bytes / 2)));
  }

  /** A batch of the usual size; undefined when there is no memory for one. */
  #newBatch(deadlineMs: number | undefined): ProducerBatch | undefined {
    const buffer = this.host.pool.take(0);
    return buffer && this.#batchIn(buffer, deadlineMs, this.#limitBytes);
  }

  /** A batch for a record that takes so many bytes, alone; undefined when there is no memory for one. */
  #newLargeBatch(bytes: number, deadlineMs: number | undefined): ProducerBatch | undefined {
    if (bytes > this.batchBytesMax) {
      // It may have been raised meanwhile, perhaps because of this very error.
      this.host.refresh();
      throw new RecordTooLargeError(bytes, this.batchBytesMax, "max.message.bytes of the topic", this.place);
    }
    const buffer = this.host.pool.take(REQUEST_HEADROOM_BYTES + bytes);
    return buffer && this.#batchIn(buffer, deadlineMs);
  }

  #batchIn(buffer: Buffer, deadlineMs: number | undefined, limitBytes?: number): ProducerBatch {
    const nowMs = this.host.env.clock.monotonicMs();
    return new ProducerBatch(buffer, nowMs, deadlineMs ?? nowMs + this.host.settings.deliveryTimeoutMs, limitBytes);
  }

  #isOpenDue(nowMs: number): boolean {
    const { lingerMs } = this.host.settings;
    return (
      this.#open !== undefined && (lingerMs === 0 || this.#isFlushing || nowMs >= this.#open.openedAtMs + lingerMs)
    );
  }
}
