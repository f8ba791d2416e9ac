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
  /**
   * Where a record of a known topic goes. undefined: it names a partition that the topic is not known to have, which may be
   * new, unless `isCertain`. Throws when there is no such place.
   */
  placeOf(topic: string, record: ProducerRecord, isCertain: boolean): Place | undefined;
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
  /** It is encoded or has failed: whichever line it is found in, it waits no more. */
  isOver: boolean;
  /** Called when the record is encoded or has failed. */
  resolve: () => void;
}

type Line<Place> = FifoQueue<WaitingRecord<Place>>;

/** Records that name one partition which their topic is not known to have. */
interface PartitionLine<Place> {
  readonly topic: string;
  readonly partition: number;
  /** Since when (monotonic) the cluster is asked for it. */
  readonly sinceMs: number;
  readonly records: Line<Place>;
}

/**
 * Records of a producer that cannot be encoded yet: each waits for its topic to be known, then, if it names a partition that
 * the topic is not known to have, for that, and then for memory, at most `timeoutMs`. What is left of that goes along with it:
 * it is the time for its delivery. Whoever handed one over holds a promise for it; that is the back-pressure, and the only
 * bound on how many wait here.
 *
 * Records for one leader wait for memory in one line, in the order of their calls; those for another leader do not wait
 * behind them.
 */
export class WaitingRecords<Place extends RecordPlace> {
  /** In the order of their calls. None is empty. */
  readonly #forMemory = new Map<MemoryShare, Line<Place>>();
  readonly #forTopic = new Map<string, Line<Place>>();
  /** By topic and partition. None is empty. */
  readonly #forPartition = new Map<string, PartitionLine<Place>>();
  #isAdmitting = false;

  constructor(
    private readonly clock: Clock,
    private readonly timeoutMs: number,
    private readonly host: WaitingHost<Place>,
  ) {}

  get isEmpty(): boolean {
    return this.#forMemory.size === 0 && this.#forTopic.size === 0 && this.#forPartition.size === 0;
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
    return this.#wait({ topic, record, timestamp, onAcknowledged, place: undefined }, (waiting) => {
      let line = this.#forTopic.get(topic);
      if (line === undefined) this.#forTopic.set(topic, (line = new FifoQueue()));
      line.push(waiting);
    });
  }

  /** Of a record that names a partition which its topic is not known to have. Resolves when it is encoded or has failed. */
  awaitPartition(
    topic: string,
    partition: number,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return this.#wait({ topic, record, timestamp, onAcknowledged, place: undefined }, (waiting) =>
      this.#lineUpForPartition(waiting, partition),
    );
  }

  /** Resolves when the record is encoded or has failed. */
  awaitMemory(
    topic: string,
    place: Place,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return this.#wait({ topic, record, timestamp, onAcknowledged, place }, (waiting) =>
      this.#lineUp(waiting, place.share),
    );
  }

  /** The time for its delivery counts from here. */
  #wait(
    call: Pick<WaitingRecord<Place>, "topic" | "record" | "timestamp" | "onAcknowledged" | "place">,
    lineUp: (waiting: WaitingRecord<Place>) => void,
  ): Promise<void> {
    return new Promise((resolve) => {
      lineUp({ ...call, deadlineMs: this.clock.monotonicMs() + this.timeoutMs, isOver: false, resolve });
    });
  }

  /** Takes in records that were encoded already and must be placed anew. They keep their deadline. */
  takeBack(topic: string, records: readonly RecordBack[]): void {
    const resolve = (): void => undefined;
    this.#lineUpAll(records.map((back) => ({ ...back, topic, place: undefined, isOver: false, resolve })));
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
        while (this.#admitFirst(line)) continue;
        this.#dropIfEmpty(share, line);
      }
    } finally {
      this.#isAdmitting = false;
    }
  }

  /**
   * The cluster was described anew: records of topics and partitions that are known now wait for memory only. `hasMoved`:
   * places have moved to other leaders, or are gone; each record waits where its place is now. `takeOlderBack` is called
   * before any of them is encoded.
   */
  onMetadata(hasMoved: boolean, isKnown: (topic: string) => boolean, takeOlderBack?: () => void): void {
    const records = hasMoved ? this.#takeAllForMemory() : [];
    for (const [topic, line] of [...this.#forTopic]) {
      if (!isKnown(topic)) continue;
      this.#forTopic.delete(topic);
      records.push(...emptied(line));
    }
    for (const [key, { topic, records: line }] of [...this.#forPartition]) {
      if (line.first === undefined || this.host.placeOf(topic, line.first.record, false) === undefined) continue;
      this.#forPartition.delete(key);
      records.push(...emptied(line));
    }
    this.#lineUpAll(records);
    takeOlderBack?.();
    this.admit();
  }

  /** What is over waits in no line, wherever it was put meanwhile. */
  #leaveOutOver(): void {
    for (const [share, line] of this.#forMemory) {
      for (const waiting of emptied(line)) if (!waiting.isOver) line.push(waiting);
      this.#dropIfEmpty(share, line);
    }
  }

  #takeAllForMemory(): WaitingRecord<Place>[] {
    return [...this.#forMemory].flatMap(([share, line]) => {
      const records = emptied(line);
      this.#dropIfEmpty(share, line);
      return records;
    });
  }

  /**
   * Fails the records of topics that the cluster refuses to describe, and those for partitions that it has not had since they
   * were asked for, if `isBelieved`.
   */
  failRefused(
    refusalOf: (topic: string) => ApiError | undefined,
    isBelieved: (topic: string, sinceMs: number) => boolean,
  ): void {
    for (const [topic, line] of [...this.#forTopic]) {
      const refusal = refusalOf(topic);
      if (refusal === undefined) continue;
      this.#forTopic.delete(topic);
      this.#failAll(line, toClientError(refusal, { topic }));
    }
    for (const [key, { topic, sinceMs, records }] of [...this.#forPartition]) {
      const refusal = refusalOf(topic);
      if (refusal === undefined && !isBelieved(topic, sinceMs)) continue;
      this.#forPartition.delete(key);
      if (refusal === undefined) this.#lineUpAll(emptied(records), true);
      else this.#failAll(records, toClientError(refusal, { topic }));
    }
  }

  #failAll(line: Line<Place>, error: ClientError): void {
    for (let waiting = line.shift(); waiting !== undefined; waiting = line.shift()) this.#fail(waiting, error);
  }

  /** Fails what has waited for too long. `lookupFailure`: why nothing is heard of the cluster, as far as is known. */
  expire(nowMs: number, lookupFailure: () => ClientError | undefined = () => undefined): void {
    const limit = `deliveryTimeoutMs ${this.timeoutMs}`;
    const lookUp = (line: Line<Place>, what: string, partition?: number): void => {
      if (line.first === undefined || line.first.deadlineMs > nowMs) return;
      const cause = lookupFailure();
      const why = cause === undefined ? "" : ` (${cause.what})`;
      this.#expireLine(
        line,
        nowMs,
        [
          `the ${what} could not be looked up within ${limit}${why}`,
          "check that the brokers run, or raise deliveryTimeoutMs",
        ],
        { partition, cause },
      );
    };
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
      lookUp(line, "topic");
      if (line.length === 0) this.#forTopic.delete(topic);
    }
    for (const [key, { partition, records }] of [...this.#forPartition]) {
      lookUp(records, "partition", partition);
      if (records.length === 0) this.#forPartition.delete(key);
    }
  }

  #expireLine(
    line: Line<Place>,
    nowMs: number,
    [what, hint]: readonly [string, string],
    more: { readonly partition?: number | undefined; readonly cause?: unknown } = {},
  ): void {
    for (let waiting = line.first; waiting !== undefined && waiting.deadlineMs <= nowMs; waiting = line.first) {
      line.shift();
      this.#fail(waiting, new DeadlineExceededError(what, hint, { topic: waiting.topic, ...more }));
    }
  }

  #lineUp(waiting: WaitingRecord<Place>, share: MemoryShare): void {
    let line = this.#forMemory.get(share);
    if (line === undefined) this.#forMemory.set(share, (line = new FifoQueue()));
    share.isShort = true;
    line.push(waiting);
  }

  #lineUpForPartition(waiting: WaitingRecord<Place>, partition: number): void {
    const { topic } = waiting;
    const key = `${topic}:${partition}`;
    let line = this.#forPartition.get(key);
    if (line === undefined) {
      line = { topic, partition, sinceMs: this.clock.monotonicMs(), records: new FifoQueue() };
      this.#forPartition.set(key, line);
    }
    line.records.push(waiting);
  }

  /**
   * Merges records into the lines for memory. All are in the order of their calls, which is that of their deadlines.
   * `isCertain`: partitions that are not known do not exist.
   */
  #lineUpAll(records: readonly WaitingRecord<Place>[], isCertain = false): void {
    const byShare = new Map<MemoryShare, WaitingRecord<Place>[]>();
    const failures: (() => void)[] = [];
    for (const waiting of records) {
      try {
        const { place, topic, record } = waiting;
        if (place === undefined || place.isGone) {
          waiting.place = this.host.placeOf(topic, record, isCertain || place !== undefined);
        }
      } catch (error) {
        failures.push(() => this.#fail(waiting, asClientError(waiting.topic, error)));
        continue;
      }
      if (waiting.place === undefined) {
        this.#lineUpForPartition(waiting, waiting.record.partition as number);
        continue;
      }
      const { share } = waiting.place;
      const sharing = byShare.get(share);
      if (sharing === undefined) byShare.set(share, [waiting]);
      else sharing.push(waiting);
    }
    for (const [share, sharing] of byShare) {
      const line = this.#forMemory.get(share);
      // Of the same moment, what is taken back was encoded before.
      const all = line === undefined ? sharing : [...sharing, ...emptied(line)];
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
    const forPartition = [...this.#forPartition.values()].map(({ records }) => records);
    return [...this.#forMemory.values(), ...this.#forTopic.values(), ...forPartition];
  }

  /** False when nothing is in the line, or it must go on waiting for memory. */
  #admitFirst(line: Line<Place>): boolean {
    const waiting = line.first;
    if (waiting === undefined) return false;
    const { place, record, timestamp, deadlineMs, onAcknowledged } = waiting;
    let failure: { readonly error: unknown } | undefined;
    try {
      if (!this.host.tryAppend(place as Place, record, timestamp, deadlineMs, onAcknowledged)) return false;
    } catch (error) {
      failure = { error };
    }
    waiting.isOver = true;
    // What the append has ended may have moved the others to another line, or put others before this one.
    if (line.first === waiting) line.shift();
    else this.#leaveOutOver();
    // Only now: whoever hears of it may have the lines made anew.
    if (failure !== undefined) this.host.onFailed(asClientError(waiting.topic, failure.error), onAcknowledged);
    waiting.resolve();
    return true;
  }

  #fail(waiting: WaitingRecord<Place>, error: ClientError): void {
    if (waiting.isOver) return;
    waiting.isOver = true;
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
const asClientError = (topic: string, cause: unknown): ClientError => {
  if (cause instanceof ClientError) return cause;
  return new InvalidArgumentError(
    `a record could not be encoded (${reasonOf(cause)})`,
    "correct the record or the partitioner",
    { topic, cause },
  );
};
