import { invariant } from "../common/assert.js";
import type { Env } from "../common/env/env.js";
import { REQUEST_HEADROOM_BYTES } from "../protocol/message-codec.js";
import { singleRecordBatchBytes } from "../protocol/record-encoder.js";
import type { BufferPool, MemoryAccount } from "./buffer-pool.js";
import type { ErrorPlace } from "./errors.js";
import { RecordTooLargeError } from "./errors.js";
import type { OnAcknowledged } from "./producer-batch.js";
import { ProducerBatch } from "./producer-batch.js";
import type { ProducerRecord } from "./producer-record.js";
import { headerList } from "./producer-record.js";

/** What an accumulator needs of its producer. */
export interface AccumulatorHost {
  readonly env: Env;
  readonly settings: { readonly lingerMs: number; readonly deliveryTimeoutMs: number };
  readonly pool: BufferPool;
  /** Records wait for memory, or soon will: nothing lingers. */
  isMemoryTight(): boolean;
  /** What is known of the cluster is of no use; it is to be asked again. */
  refresh(): void;
  /** A batch may wait for more records until this time of the monotonic clock. */
  onLingering(untilMs: number): void;
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
 * when it is taken: at the end of `lingerMs`, in a flush, or when memory is tight.
 *
 * A batch begins in a small buffer and goes on in others that are in proportion to what it has, so that a few bytes take
 * little of the memory. As long as open batches take little of it altogether, one begins as large as the one before it became.
 */
export class RecordAccumulator {
  readonly #ready: ProducerBatch[] = [];
  #open: ProducerBatch | undefined;
  #isFlushing = false;
  /** What a batch of several records may hold: what the topic accepts, or less when it has refused that. */
  #limitBytes: number;
  /** Of the buffer of the batch that was closed last. */
  #lastBytes = 0;

  constructor(
    private readonly host: AccumulatorHost,
    private readonly place: ErrorPlace,
    private readonly account: MemoryAccount,
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
   * Encodes a record into the open batch, or a new one; false when there is no memory for that. `deadlineMs` undefined: the
   * record was handed over only now. A record that has waited may be older than those that its batch has, and then gives
   * it its deadline. Throws RecordTooLargeError.
   */
  append(
    record: ProducerRecord,
    timestamp: number,
    deadlineMs: number | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    const { key, value } = record;
    const headers = record.headers === undefined ? undefined : headerList(record.headers);
    const open = this.#open;
    let batch = open;
    if (batch === undefined || !batch.encoder.tryAppend(timestamp, key, value, headers)) {
      const recordBytes = batch?.encoder.bytesOf(timestamp, key, value, headers);
      const growthBytes = recordBytes === undefined ? undefined : batch?.growthFor(recordBytes);
      if (batch === undefined || growthBytes === undefined) {
        if (this.closeOpen()) this.events.onFull();
        batch = this.#newBatch(singleRecordBatchBytes(key, value, headers), deadlineMs);
        if (batch === undefined) return false;
        this.#open = batch;
        this.host.pool.openBytes += batch.memoryBytes;
        if (this.host.settings.lingerMs > 0) this.host.onLingering(this.#lingersUntilMs(batch));
      } else if (!this.#grow(batch, growthBytes)) {
        return false;
      }
      const fits = batch.encoder.tryAppend(timestamp, key, value, headers);
      invariant(fits, () => "a record does not fit into the room that was made for it");
    }
    batch.note(timestamp, onAcknowledged, record.partition !== undefined);
    if (batch === open && deadlineMs !== undefined && deadlineMs < batch.deadlineMs) {
      batch.deadlineMs = deadlineMs;
      if (this.host.settings.lingerMs > 0) this.host.onLingering(this.#lingersUntilMs(batch));
    }
    return true;
  }

  /** The open batch, if there is one, waits for its turn from now on; whether there was one. */
  closeOpen(): boolean {
    const batch = this.#open;
    if (batch === undefined) return false;
    this.#open = undefined;
    this.#isFlushing = false;
    this.#lastBytes = Math.min(batch.memoryBytes, this.host.pool.bufferBytes);
    this.host.pool.openBytes -= batch.memoryBytes;
    this.#ready.push(batch);
    this.events.onClosed();
    return true;
  }

  /** Whether a batch waits for its turn that takes no more records. */
  get hasReady(): boolean {
    return this.#ready.length > 0;
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

  /** A batch whose deadline is over; undefined when there is none. Records that came back stand behind younger ones. */
  takeExpired(nowMs: number): ProducerBatch | undefined {
    const index = this.#ready.findIndex(({ deadlineMs }) => nowMs >= deadlineMs);
    if (index >= 0) return this.#ready.splice(index, 1)[0];
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

  /** A batch for a record that takes so many bytes, alone, and for more; undefined when there is no memory for one. */
  #newBatch(recordBytes: number, deadlineMs: number | undefined): ProducerBatch | undefined {
    const { env, pool, settings } = this.host;
    const neededBytes = REQUEST_HEADROOM_BYTES + recordBytes;
    const ordinaryBytes = Math.min(this.#limitBytes, pool.bufferBytes);
    const isLarge = neededBytes > ordinaryBytes;
    if (isLarge && recordBytes > this.batchBytesMax) {
      // It may have been raised meanwhile, perhaps because of this very error.
      this.host.refresh();
      throw new RecordTooLargeError(recordBytes, this.batchBytesMax, "max.message.bytes of the topic", this.place);
    }
    const beginBytes = pool.isGenerous(this.#lastBytes) ? Math.max(neededBytes, this.#lastBytes) : neededBytes;
    const buffer = pool.take(this.account, beginBytes);
    if (buffer === undefined) return undefined;
    const nowMs = env.clock.monotonicMs();
    const limitBytes = isLarge ? neededBytes : ordinaryBytes;
    return new ProducerBatch(buffer, nowMs, deadlineMs ?? nowMs + settings.deliveryTimeoutMs, limitBytes);
  }

  /** False when there is no memory for that. */
  #grow(batch: ProducerBatch, bytes: number): boolean {
    const { pool } = this.host;
    const buffer = pool.take(this.account, bytes);
    if (buffer === undefined) return false;
    pool.openBytes += buffer.length;
    batch.growBy(buffer);
    return true;
  }

  #isOpenDue(nowMs: number): boolean {
    const open = this.#open;
    if (open === undefined) return false;
    if (this.host.settings.lingerMs === 0 || this.#isFlushing) return true;
    return nowMs >= this.#lingersUntilMs(open) || this.host.isMemoryTight();
  }

  /** What has waited for memory for long does not linger until its time is over. */
  #lingersUntilMs({ openedAtMs, deadlineMs }: ProducerBatch): number {
    return openedAtMs + Math.min(this.host.settings.lingerMs, (deadlineMs - openedAtMs) / 2);
  }
}
