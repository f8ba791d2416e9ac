import { invariant } from "../common/assert.js";
import type { Env } from "../common/env/env.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import type { EncodableHeader } from "../protocol/record-encoder.js";
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
  /** The largest batch that brokers accept, in bytes. */
  readonly batchBytesMax: number;
  /** Has what is due looked for at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void;
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
  /** What a batch of several records may hold; shrinks when the topic refuses one as too large. */
  #limitBytes = Number.POSITIVE_INFINITY;

  constructor(
    private readonly host: AccumulatorHost,
    private readonly place: ErrorPlace,
    /** Told when no more records go into the batch that was open. */
    private readonly onClosed: () => void,
  ) {}

  get isEmpty(): boolean {
    return this.#open === undefined && this.#ready.length === 0;
  }

  /** Encodes a record into the open batch; false when there is none, or no room in it. */
  tryAppend(
    timestamp: number,
    key: Uint8Array | string | null | undefined,
    value: Uint8Array | string | null | undefined,
    headers: readonly EncodableHeader[] | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    const batch = this.#open;
    if (batch === undefined || !batch.encoder.tryAppend(timestamp, key, value, headers)) return false;
    batch.note(timestamp, onAcknowledged);
    return true;
  }

  /** Encodes a record into a new open batch; false when there is no memory for one. Throws RecordTooLargeError. */
  appendToNew(
    timestamp: number,
    key: Uint8Array | string | null | undefined,
    value: Uint8Array | string | null | undefined,
    headers: readonly EncodableHeader[] | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    const { host } = this;
    const buffer = host.pool.take(0);
    if (buffer === undefined) return false;
    const nowMs = host.env.clock.monotonicMs();
    const deadlineMs = nowMs + host.settings.deliveryTimeoutMs;
    let batch = new ProducerBatch(buffer, nowMs, deadlineMs, this.#limitBytes);
    if (!batch.encoder.tryAppend(timestamp, key, value, headers)) {
      host.pool.give(buffer, true);
      const bytes = singleRecordBatchBytes(key, value, headers);
      if (bytes > host.batchBytesMax) {
        throw new RecordTooLargeError(bytes, host.batchBytesMax, "message.max.bytes of the brokers", this.place);
      }
      const large = host.pool.take(REQUEST_HEADROOM_BYTES + bytes);
      if (large === undefined) return false;
      batch = new ProducerBatch(large, nowMs, deadlineMs);
      const fits = batch.encoder.tryAppend(timestamp, key, value, headers);
      invariant(fits, () => `a record announced with ${bytes} bytes does not fit in them`);
    }
    this.#open = batch;
    batch.note(timestamp, onAcknowledged);
    if (host.settings.lingerMs > 0) host.wakeAt(nowMs + host.settings.lingerMs);
    return true;
  }

  /** The open batch, if there is one, waits for its turn from now on; whether there was one. */
  closeOpen(): boolean {
    const batch = this.#open;
    if (batch === undefined) return false;
    this.#open = undefined;
    this.#isFlushing = false;
    this.#ready.push(batch);
    this.onClosed();
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

  /** A batch whose deadline is over; undefined when there is none. */
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

  /** The topic refuses batches of so many bytes: those of several records are made at most half as large. */
  keepBelow(bytes: number): void {
    this.#limitBytes = Math.max(LIMIT_BYTES_MIN, Math.min(this.#limitBytes, Math.ceil(bytes / 2)));
  }

  #isOpenDue(nowMs: number): boolean {
    const { lingerMs } = this.host.settings;
    return (
      this.#open !== undefined && (lingerMs === 0 || this.#isFlushing || nowMs >= this.#open.openedAtMs + lingerMs)
    );
  }
}
