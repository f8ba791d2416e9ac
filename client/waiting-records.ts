import type { Clock } from "../common/env/time.js";
import { reasonOf } from "../common/logger.js";
import type { ApiError } from "../protocol/error-codes.js";
import { ClientError, DeadlineExceededError, InvalidArgumentError, toClientError } from "./errors.js";
import { FifoQueue } from "./fifo-queue.js";
import type { OnAcknowledged } from "./producer-batch.js";
import type { ProducerRecord } from "./producer-record.js";

/** What `WaitingRecords` needs of its producer. */
export interface WaitingHost {
  /** Encodes a record; false when there is no memory for it. Throws what is wrong with it. */
  tryAppend(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    deadlineMs: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean;
  /** A record has failed without having been encoded. */
  onFailed(error: ClientError, onAcknowledged: OnAcknowledged | undefined): void;
}

interface WaitingRecord {
  readonly topic: string;
  readonly record: ProducerRecord;
  readonly timestamp: number;
  readonly onAcknowledged: OnAcknowledged | undefined;
  /** Of the monotonic clock; the record's own, wherever it waits. */
  readonly deadlineMs: number;
  /** Called when the record is encoded or has failed. */
  resolve: () => void;
}

/**
 * Records of a producer that cannot be encoded yet: each waits for its topic to be known, then for memory, at most
 * `timeoutMs`. What is left of that goes along with it: it is the time for its delivery. Whoever handed one over holds a
 * promise for it; that is the back-pressure, and the only bound on how many wait here.
 */
export class WaitingRecords {
  /** In the order of their calls. */
  readonly #forMemory = new FifoQueue<WaitingRecord>();
  readonly #forTopic = new Map<string, FifoQueue<WaitingRecord>>();
  #isAdmitting = false;

  constructor(
    private readonly clock: Clock,
    private readonly timeoutMs: number,
    private readonly host: WaitingHost,
  ) {}

  get isEmpty(): boolean {
    return this.#forMemory.length === 0 && this.#forTopic.size === 0;
  }

  /** Whether some record waits for memory: one that comes now must stand behind it. */
  get isMemoryShort(): boolean {
    return this.#forMemory.length > 0;
  }

  /** Resolves when the record is encoded or has failed. */
  awaitTopic(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    let line = this.#forTopic.get(topic);
    if (line === undefined) this.#forTopic.set(topic, (line = new FifoQueue()));
    return this.#wait(line, topic, record, timestamp, onAcknowledged);
  }

  /** Resolves when the record is encoded or has failed. */
  awaitMemory(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return this.#wait(this.#forMemory, topic, record, timestamp, onAcknowledged);
  }

  /** Resolves when the records that wait now are encoded, or have failed. */
  async drained(): Promise<void> {
    await Promise.all(
      this.#lines().map((line) => {
        const waiting = line.last;
        if (waiting === undefined) return undefined;
        return new Promise<void>((resolve) => {
          const { resolve: resolveFirst } = waiting;
          waiting.resolve = () => {
            resolveFirst();
            resolve();
          };
        });
      }),
    );
  }

  /**
   * Encodes what waited, as far as there is memory now. May be called while it does: whatever ends then is found by the
   * loop.
   */
  admit(): void {
    if (this.#isAdmitting) return;
    this.#isAdmitting = true;
    const line = this.#forMemory;
    try {
      for (let waiting = line.first; waiting !== undefined && this.#admit(waiting); waiting = line.first) line.shift();
    } finally {
      this.#isAdmitting = false;
    }
  }

  /** From now on records of known topics wait for memory only. */
  onTopics(isKnown: (topic: string) => boolean): void {
    for (const [topic, line] of [...this.#forTopic]) {
      if (!isKnown(topic)) continue;
      this.#forTopic.delete(topic);
      this.#lineUp(line);
    }
    this.admit();
  }

  /** Fails the records of topics that the cluster refuses to describe. */
  failRefused(refusalOf: (topic: string) => ApiError | undefined): void {
    for (const [topic, line] of [...this.#forTopic]) {
      const refusal = refusalOf(topic);
      if (refusal === undefined) continue;
      this.#forTopic.delete(topic);
      for (let waiting = line.shift(); waiting !== undefined; waiting = line.shift()) {
        this.#fail(waiting, toClientError(refusal, { topic }));
      }
    }
  }

  /** Fails what has waited for too long. */
  expire(nowMs: number): void {
    const limit = `deliveryTimeoutMs ${this.timeoutMs}`;
    this.#expireLine(this.#forMemory, nowMs, [
      `a record found no room within ${limit}`,
      "raise bufferBytes, or send less at a time",
    ]);
    for (const [topic, line] of [...this.#forTopic]) {
      this.#expireLine(line, nowMs, [
        `the topic could not be looked up within ${limit}`,
        "check that the brokers run, or raise deliveryTimeoutMs",
      ]);
      if (line.length === 0) this.#forTopic.delete(topic);
    }
  }

  #expireLine(line: FifoQueue<WaitingRecord>, nowMs: number, [what, hint]: readonly [string, string]): void {
    for (let waiting = line.first; waiting !== undefined && waiting.deadlineMs <= nowMs; waiting = line.first) {
      line.shift();
      this.#fail(waiting, new DeadlineExceededError(what, hint, { topic: waiting.topic }));
    }
  }

  /** Merges a line into that for memory; both are in the order of their calls, which is that of their deadlines. */
  #lineUp(line: FifoQueue<WaitingRecord>): void {
    const all: WaitingRecord[] = [];
    for (const part of [this.#forMemory, line])
      for (let waiting = part.shift(); waiting !== undefined; waiting = part.shift()) all.push(waiting);
    for (const waiting of all.sort((left, right) => left.deadlineMs - right.deadlineMs)) this.#forMemory.push(waiting);
  }

  #lines(): FifoQueue<WaitingRecord>[] {
    return [this.#forMemory, ...this.#forTopic.values()];
  }

  #wait(
    line: FifoQueue<WaitingRecord>,
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    const deadlineMs = this.clock.monotonicMs() + this.timeoutMs;
    return new Promise((resolve) => {
      line.push({ topic, record, timestamp, onAcknowledged, deadlineMs, resolve });
    });
  }

  /** False when it must go on waiting for memory. */
  #admit(waiting: WaitingRecord): boolean {
    const { topic, record, timestamp, deadlineMs, onAcknowledged } = waiting;
    try {
      if (!this.host.tryAppend(topic, record, timestamp, deadlineMs, onAcknowledged)) return false;
    } catch (error) {
      this.#fail(waiting, error instanceof ClientError ? error : unencodable(topic, error));
      return true;
    }
    waiting.resolve();
    return true;
  }

  #fail(waiting: WaitingRecord, error: ClientError): void {
    this.host.onFailed(error, waiting.onAcknowledged);
    waiting.resolve();
  }
}

/** What a partitioner throws, or the encoder about a record that changed since it was checked, is the record's failure. */
const unencodable = (topic: string, cause: unknown): ClientError =>
  new InvalidArgumentError(
    `a record could not be encoded (${reasonOf(cause)})`,
    "correct the record or the partitioner",
    {
      topic,
      cause,
    },
  );
