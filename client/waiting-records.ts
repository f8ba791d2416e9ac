import type { Clock } from "../common/env/time.js";
import { reasonOf } from "../common/logger.js";
import type { ApiError } from "../protocol/error-codes.js";
import type { MemoryShare } from "./buffer-pool.js";
import { ClientError, DeadlineExceededError, InvalidArgumentError, toClientError } from "./errors.js";
import { FifoQueue } from "./fifo-queue.js";
import type { OnAcknowledged, RecordBack } from "./producer-batch.js";
import type { ProducerRecord } from "./producer-record.js";

/** Where a record is to go, as far as waiting is concerned. */
export interface RecordPlace {
  readonly share: MemoryShare;
  /** There is no such place any more. */
  readonly isGone: boolean;
}

/** What `WaitingRecords` needs of its producer. */
export interface WaitingHost<Place extends RecordPlace> {
  /** Where a record of a known topic goes. Throws when there is no such place. */
  placeOf(topic: string, record: ProducerRecord): Place;
  /** Encodes a record; false when there is no memory for it. Throws what is wrong with it. */
  tryAppend(
    place: Place,
    record: ProducerRecord,
    timestamp: number,
    deadlineMs: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean;
  /** A record has failed without having been encoded. */
  onFailed(error: ClientError, onAcknowledged: OnAcknowledged | undefined): void;
}

interface WaitingRecord<Place> {
  readonly topic: string;
  readonly record: ProducerRecord;
  readonly timestamp: number;
  readonly onAcknowledged: OnAcknowledged | undefined;
  /** Of the monotonic clock; the record's own, wherever it waits. */
  readonly deadlineMs: number;
  /** Known as soon as its topic is. */
  place: Place | undefined;
  /** Called when the record is encoded or has failed. */
  resolve: () => void;
}

type Line<Place> = FifoQueue<WaitingRecord<Place>>;

/**
 * Records of a producer that cannot be encoded yet: each waits for its topic to be known, then for memory, at most
 * `timeoutMs`. What is left of that goes along with it: it is the time for its delivery. Whoever handed one over holds a
 * promise for it; that is the back-pressure, and the only bound on how many wait here.
 *
 * Records for one leader wait for memory in one line, in the order of their calls; those for another leader do not wait
 * behind them.
 */
export class WaitingRecords<Place extends RecordPlace> {
  /** In the order of their calls. None is empty. */
  readonly #forMemory = new Map<MemoryShare, Line<Place>>();
  readonly #forTopic = new Map<string, Line<Place>>();
  #isAdmitting = false;

  constructor(
    private readonly clock: Clock,
    private readonly timeoutMs: number,
    private readonly host: WaitingHost<Place>,
  ) {}

  get isEmpty(): boolean {
    return this.#forMemory.size === 0 && this.#forTopic.size === 0;
  }

  /** Whether some record waits for memory. */
  get isMemoryShort(): boolean {
    return this.#forMemory.size > 0;
  }

  /** Whether records of the topic wait for it to be known. */
  awaitsTopic(topic: string): boolean {
    return this.#forTopic.size > 0 && this.#forTopic.has(topic);
  }

  /** Resolves when the record is encoded or has failed. */
  awaitTopic(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return new Promise((resolve) => {
      const deadlineMs = this.clock.monotonicMs() + this.timeoutMs;
      let line = this.#forTopic.get(topic);
      if (line === undefined) this.#forTopic.set(topic, (line = new FifoQueue()));
      line.push({ topic, record, timestamp, onAcknowledged, deadlineMs, place: undefined, resolve });
    });
  }

  /** Resolves when the record is encoded or has failed. */
  awaitMemory(
    topic: string,
    place: Place,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return new Promise((resolve) => {
      const deadlineMs = this.clock.monotonicMs() + this.timeoutMs;
      this.#lineUp({ topic, record, timestamp, onAcknowledged, deadlineMs, place, resolve }, place.share);
    });
  }

  /** Takes in records that were encoded already and must be placed anew. They keep their deadline. */
  takeBack(topic: string, records: readonly RecordBack[], deadlineMs: number): void {
    const resolve = (): void => undefined;
    this.#lineUpAll(records.map((back) => ({ ...back, topic, deadlineMs, place: undefined, resolve })));
  }

  /** Resolves when the records that wait now are encoded, or have failed. */
  async drained(): Promise<void> {
    const untilMs = this.clock.monotonicMs() + this.timeoutMs;
    const isOfNow = (line: Line<Place>): boolean => line.first !== undefined && line.first.deadlineMs <= untilMs;
    // More than once only where records have moved to other lines meanwhile.
    for (let lines = this.#lines(); lines.length > 0; lines = this.#lines().filter(isOfNow)) {
      await Promise.all(lines.map(({ last }) => last && resolved(last)));
    }
  }

  /**
   * Encodes what waited, as far as there is memory now. May be called while it does: whatever ends then is found by the
   * loop.
   */
  admit(): void {
    if (this.#isAdmitting || this.#forMemory.size === 0) return;
    this.#isAdmitting = true;
    try {
      for (const [share, line] of this.#forMemory) {
        for (let waiting = line.first; waiting !== undefined && this.#admit(waiting); waiting = line.first) {
          // What ends meanwhile may have moved the others to another line.
          if (line.first === waiting) line.shift();
        }
        this.#dropIfEmpty(share, line);
      }
    } finally {
      this.#isAdmitting = false;
    }
  }

  /** From now on records of known topics wait for memory only. */
  onTopics(isKnown: (topic: string) => boolean): void {
    for (const [topic, line] of [...this.#forTopic]) {
      if (!isKnown(topic)) continue;
      this.#forTopic.delete(topic);
      this.#lineUpAll(emptied(line));
    }
    this.admit();
  }

  /** Places have moved to other leaders, or are gone: each record waits where its place is now. */
  onMoved(): void {
    const all = [...this.#forMemory].flatMap(([share, line]) => {
      const records = emptied(line);
      this.#dropIfEmpty(share, line);
      return records;
    });
    this.#lineUpAll(all);
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
    for (const [share, line] of this.#forMemory) {
      const { brokerId, takenBytes } = share;
      const leader = brokerId < 0 ? "partitions without a leader" : `broker ${brokerId}`;
      this.#expireLine(line, nowMs, [
        `a record found no room in memory within ${limit} (${takenBytes} bytes hold records for ${leader} that are not acknowledged)`,
        brokerId < 0
          ? "start the brokers that hold its replicas, raise bufferBytes, or send less at a time"
          : "raise bufferBytes, or send less at a time",
      ]);
      this.#dropIfEmpty(share, line);
    }
    for (const [topic, line] of [...this.#forTopic]) {
      this.#expireLine(line, nowMs, [
        `the topic could not be looked up within ${limit}`,
        "check that the brokers run, or raise deliveryTimeoutMs",
      ]);
      if (line.length === 0) this.#forTopic.delete(topic);
    }
  }

  #expireLine(line: Line<Place>, nowMs: number, [what, hint]: readonly [string, string]): void {
    for (let waiting = line.first; waiting !== undefined && waiting.deadlineMs <= nowMs; waiting = line.first) {
      line.shift();
      this.#fail(waiting, new DeadlineExceededError(what, hint, { topic: waiting.topic }));
    }
  }

  #lineUp(waiting: WaitingRecord<Place>, share: MemoryShare): void {
    let line = this.#forMemory.get(share);
    if (line === undefined) this.#forMemory.set(share, (line = new FifoQueue()));
    share.isShort = true;
    line.push(waiting);
  }

  /** Merges records into the lines for memory. All are in the order of their calls, which is that of their deadlines. */
  #lineUpAll(records: readonly WaitingRecord<Place>[]): void {
    const byShare = new Map<MemoryShare, WaitingRecord<Place>[]>();
    const failures: (() => void)[] = [];
    for (const waiting of records) {
      try {
        if (waiting.place === undefined || waiting.place.isGone) {
          waiting.place = this.host.placeOf(waiting.topic, waiting.record);
        }
      } catch (error) {
        failures.push(() => this.#failAs(waiting, error));
        continue;
      }
      const { share } = waiting.place;
      const sharing = byShare.get(share);
      if (sharing === undefined) byShare.set(share, [waiting]);
      else sharing.push(waiting);
    }
    for (const [share, sharing] of byShare) {
      const line = this.#forMemory.get(share);
      const all = line === undefined ? sharing : [...emptied(line), ...sharing];
      for (const waiting of all.sort((left, right) => left.deadlineMs - right.deadlineMs)) this.#lineUp(waiting, share);
    }
    // Only now: what a callback hands over stands behind those that are lined up.
    for (const fail of failures) fail();
  }

  #dropIfEmpty(share: MemoryShare, line: Line<Place>): void {
    if (line.length > 0 || this.#forMemory.get(share) !== line) return;
    this.#forMemory.delete(share);
    share.isShort = false;
  }

  #lines(): Line<Place>[] {
    return [...this.#forMemory.values(), ...this.#forTopic.values()];
  }

  /** False when it must go on waiting for memory. */
  #admit(waiting: WaitingRecord<Place>): boolean {
    const { place, record, timestamp, deadlineMs, onAcknowledged } = waiting;
    try {
      if (!this.host.tryAppend(place as Place, record, timestamp, deadlineMs, onAcknowledged)) return false;
    } catch (error) {
      this.#failAs(waiting, error);
      return true;
    }
    waiting.resolve();
    return true;
  }

  #failAs(waiting: WaitingRecord<Place>, error: unknown): void {
    this.#fail(waiting, error instanceof ClientError ? error : unencodable(waiting.topic, error));
  }

  #fail(waiting: WaitingRecord<Place>, error: ClientError): void {
    this.host.onFailed(error, waiting.onAcknowledged);
    waiting.resolve();
  }
}

/** Resolves when the record is encoded or has failed. */
const resolved = <Place>(waiting: WaitingRecord<Place>): Promise<void> =>
  new Promise((resolve) => {
    const { resolve: resolveFirst } = waiting;
    waiting.resolve = () => {
      resolveFirst();
      resolve();
    };
  });

/** What was in a line. */
function emptied<T>(line: FifoQueue<T>): T[] {
  const all: T[] = [];
  for (let item = line.shift(); item !== undefined; item = line.shift()) all.push(item);
  return all;
}

/** What a partitioner throws, or the encoder about a record that changed since it was checked, is the record's failure. */
const unencodable = (topic: string, cause: unknown): ClientError =>
  new InvalidArgumentError(
    `a record could not be encoded (${reasonOf(cause)})`,
    "correct the record or the partitioner",
    { topic, cause },
  );
