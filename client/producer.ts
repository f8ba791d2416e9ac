import { EarliestTimer } from "./earliest-timer.js";
import type { Env } from "../common/env/env.js";
import type { LeaderHint } from "../protocol/messages.js";
import type { EncodableHeader } from "../protocol/record-encoder.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import type { BrokerId } from "../protocol/types.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ConnectionSettings } from "./broker-connections.js";
import { BrokerConnections } from "./broker-connections.js";
import { BufferPool } from "./buffer-pool.js";
import { FifoQueue } from "./fifo-queue.js";
import type { ClientError } from "./errors.js";
import { ClosedError, DeadlineExceededError, InvalidArgumentError, toClientError } from "./errors.js";
import type { KnownPartition, Metadata } from "./metadata.js";
import type { ProducerOptions } from "./options.js";
import { PartitionQueue } from "./partition-queue.js";
import type { QueueHost } from "./partition-queue.js";
import type { OnAcknowledged, ProducerBatch, RecordMetadata } from "./producer-batch.js";
import type { ProducerIdentity } from "./producer-sequence.js";
import type { ProducerSettings } from "./producer-settings.js";
import { producerSettings } from "./producer-settings.js";

/** A record to be sent. */
export interface ProducerRecord {
  /** Records with the same key go to the same partition, and compaction keeps the last of them. Text is sent as UTF-8. */
  readonly key?: Uint8Array | string | null;
  /** Absent or null: a tombstone, which deletes the key from a compacted topic. */
  readonly value?: Uint8Array | string | null;
  /** By name, or a list where names repeat. */
  readonly headers?: Readonly<Record<string, Uint8Array | string | null>> | readonly EncodableHeader[];
  /** @defaultValue by the key, or any */
  readonly partition?: number;
  /**
   * Milliseconds since 1970.
   * @defaultValue now
   */
  readonly timestamp?: number;
}

/** Called once for a record; undefined when it is acknowledged. */
export type OnFailure = (error: ClientError | undefined) => void;

/** What a producer shares with the rest of its cluster object. */
export interface ProducerContext {
  readonly env: Env;
  readonly metadata: Metadata;
  readonly caller: BrokerCaller;
  readonly connectionSettings: ConnectionSettings;
  readonly unknownTopicTimeoutMs: number;
  readonly onClosed: (producer: Producer) => void;
}

interface TopicQueues {
  readonly name: string;
  readonly queues: PartitionQueue[];
  /** Where records without a key go until the batch there is closed; -1: to be chosen. */
  sticky: number;
}

/** A record for which there is no memory, or whose topic is not known yet. */
interface WaitingRecord {
  readonly topic: string;
  readonly record: ProducerRecord;
  readonly timestamp: number;
  readonly onAcknowledged: OnAcknowledged | undefined;
  readonly deadlineMs: number;
  /** Called when the record is encoded or has failed. */
  resolve: () => void;
}

/** How often deadlines and silent leaders are looked at while something is under way. */
const CHECK_MS = 100;
/** How soon a leader or connection that was not there is asked for again. */
const AGAIN_MS = 20;
/** The clock is read once for so many records of a turn: reading it costs as much as encoding a record. */
const RECORDS_PER_CLOCK_READ = 64;

/**
 * Sends records. Made by `Cluster.producer`.
 *
 * A record is encoded at once into the batch of its partition; batches leave at the end of the turn, when they are full,
 * or after `lingerMs`. With the defaults (`acks: "all"`, idempotent) an acknowledged record is in the log exactly once
 * and survives as long as one in-sync replica does; records of one partition stand there in the order of the calls. A
 * failure is retried until `deliveryTimeoutMs`; what fails then with OutcomeUnknownError may be in the log or not.
 *
 * @example
 * await using producer = cluster.producer();
 * const { partition, offset } = await producer.send("orders", { key: "42", value: "paid" });
 */
export class Producer implements AsyncDisposable {
  readonly #context: ProducerContext;
  readonly #env: Env;
  readonly #settings: ProducerSettings;
  readonly #connections: BrokerConnections;
  readonly #pool: BufferPool;
  readonly #host: QueueHost;
  readonly #topics = new Map<string, TopicQueues>();
  /** Queues that got records in this turn. */
  #listed: PartitionQueue[] = [];
  /** Queues that may hold something. */
  readonly #active = new Set<PartitionQueue>();
  /** Waiting for memory, in the order of their calls. */
  readonly #awaitingMemory = new FifoQueue<WaitingRecord>();
  /** Waiting for their topic to be known. */
  readonly #awaitingTopic = new Map<string, FifoQueue<WaitingRecord>>();
  #lastTopic: TopicQueues | undefined;
  #turnHooked = false;
  #clockReads = 0;
  #nowMs = 0;
  #identity: ProducerIdentity | undefined;
  #fetchingIdentity = false;
  /** The first failure that no callback was told about. */
  #unreported: ClientError | undefined;
  readonly #timer: EarliestTimer;
  readonly #stopListening: () => void;
  #closing: Promise<void> | undefined;
  #closed = false;
  readonly #stopped = new AbortController();

  /** Use `Cluster.producer`. */
  constructor(context: ProducerContext, options: ProducerOptions) {
    this.#settings = producerSettings(options, context.connectionSettings.requestTimeoutMs);
    this.#context = context;
    this.#env = context.env;
    this.#timer = new EarliestTimer(this.#env, () => this.#onTimer());
    const { batchBytes, bufferBytes } = this.#settings;
    this.#pool = new BufferPool(Math.min(batchBytes, context.metadata.batchBytesMax), bufferBytes);
    this.#connections = new BrokerConnections(context.env, context.metadata, context.connectionSettings, {
      onOpened: () => this.#pumpAll(),
    });
    this.#host = this.#queueHost();
    this.#stopListening = context.metadata.onChange(() => this.#onMetadata());
    if (this.#settings.idempotent) this.#fetchIdentity();
  }

  /**
   * Sends one record and resolves when it is acknowledged. Rejects with a ClientError. Convenient; for the highest rates
   * use `produce`, because a promise costs more than a record.
   *
   * @example
   * const { partition, offset } = await producer.send("orders", { key: "42", value: "paid", headers: { source: "web" } });
   */
  send(topic: string, record: ProducerRecord): Promise<RecordMetadata> {
    return new Promise((resolve, reject) => {
      // The promise of back-pressure is not needed: this one takes longer.
      void this.produce(topic, record, (error, metadata) => {
        if (error === undefined) resolve(metadata);
        else reject(error);
      });
    });
  }

  /**
   * Sends several records of one topic and resolves with their places when all are acknowledged; rejects with the first
   * failure, after all have an outcome.
   *
   * @example
   * const places = await producer.sendBatch("orders", [{ value: "a" }, { value: "b" }]);
   */
  async sendBatch(topic: string, records: readonly ProducerRecord[]): Promise<RecordMetadata[]> {
    const places: RecordMetadata[] = [];
    if (records.length === 0) return places;
    await new Promise<void>((resolve, reject) => {
      let left = records.length;
      let failure: ClientError | undefined;
      records.forEach((record, index) => {
        void this.produce(topic, record, (error, metadata) => {
          if (error === undefined) places[index] = metadata;
          else failure ??= error;
          left -= 1;
          if (left > 0) return;
          if (failure === undefined) resolve();
          else reject(failure);
        });
      });
    });
    return places;
  }

  /**
   * Sends one record and costs nothing but its encoding. Returns nothing as long as there is memory; a promise when there
   * is none, or the topic is not known yet: await it before the next call, or memory is no longer bounded. It never
   * rejects. `onAcknowledged` is called once, with the record's place or with an error; a failure nobody asked about is
   * thrown by the next `flush`.
   *
   * Throws InvalidArgumentError and RecordTooLargeError.
   *
   * @example
   * for (const line of lines) {
   *   const room = producer.produce("lines", { value: line });
   *   if (room !== undefined) await room;
   * }
   * await producer.flush();
   */
  produce(topic: string, record: ProducerRecord, onAcknowledged?: OnAcknowledged): void | Promise<void>;
  /** The same with a callback that looks at the error only. */
  produce(topic: string, record: ProducerRecord, onOutcome: OnFailure): void | Promise<void>;
  produce(topic: string, record: ProducerRecord, onOutcome?: OnAcknowledged | OnFailure): void | Promise<void> {
    // Whoever takes the first parameter only may be given both.
    const onAcknowledged = onOutcome as OnAcknowledged | undefined;
    if (this.#closing !== undefined) throw new ClosedError("producer");
    checkRecord(topic, record);
    const timestamp = record.timestamp ?? this.#now();
    const queues = this.#lastTopic?.name === topic ? this.#lastTopic : this.#queuesOf(topic);
    if (queues === undefined) return this.#awaitTopic(topic, record, timestamp, onAcknowledged);
    if (this.#awaitingMemory.length > 0 || !this.#append(queues, record, timestamp, onAcknowledged)) {
      return this.#awaitMemory(topic, record, timestamp, onAcknowledged);
    }
  }

  /**
   * Resolves when every record that was handed over before has an outcome. Rejects with the first failure since the last
   * `flush` that no callback and no promise was told about.
   */
  async flush(): Promise<void> {
    await this.#drainWaiting();
    await new Promise<void>((resolve) => {
      let left = 1;
      const onDone = (): void => {
        left -= 1;
        if (left === 0) resolve();
      };
      for (const queue of [...this.#active]) {
        // A batch may be done before `flush` returns; the one in excess keeps the count above zero until all are known.
        left += queue.flush(onDone);
      }
      onDone();
    });
    const failure = this.#unreported;
    this.#unreported = undefined;
    if (failure !== undefined) throw failure;
  }

  /** Refuses further records, waits for those under way, at most `deliveryTimeoutMs`, and ends the connections. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      this.#closed = true;
      this.#stopped.abort();
      this.#stopListening();
      this.#timer.cancel();
      this.#connections.close();
      this.#context.onClosed(this);
    }
  }

  #queueHost(): QueueHost {
    const { metadata } = this.#context;
    return {
      env: this.#env,
      settings: this.#settings,
      pool: this.#pool,
      get batchBytesMax(): number {
        return metadata.batchBytesMax;
      },
      leaderOf: (topic, partition) => this.#leaderOf(topic, partition),
      connectionTo: (brokerId) => this.#connectionTo(brokerId),
      dropConnection: (brokerId) => this.#connections.drop(brokerId),
      identity: () => {
        if (this.#identity === undefined) this.#fetchIdentity();
        return this.#identity;
      },
      discardIdentity: (identity) => {
        if (this.#identity === identity) this.#identity = undefined;
      },
      onMoved: (topic, partition, hint) => this.#onMoved(topic, partition, hint),
      onTrouble: (brokerId) => metadata.onTrouble(brokerId),
      refresh: () => metadata.refreshSoon(),
      wakeAt: (timeMs) => this.#wakeAt(timeMs),
      onClosedBatch: (queue) => this.#onClosedBatch(queue),
      onDoneBatch: (batch, run) => this.#onDoneBatch(batch, run),
    };
  }

  #now(): number {
    this.#clockReads -= 1;
    if (this.#clockReads < 0) {
      this.#clockReads = RECORDS_PER_CLOCK_READ - 1;
      this.#nowMs = this.#env.clock.wallMs();
      this.#hookTurn();
    }
    return this.#nowMs;
  }

  #hookTurn(): void {
    if (this.#turnHooked) return;
    this.#turnHooked = true;
    this.#env.timers.afterThisTurn(() => this.#onTurnEnded());
  }

  #onTurnEnded(): void {
    this.#turnHooked = false;
    this.#clockReads = 0;
    const listed = this.#listed;
    this.#listed = [];
    for (const queue of listed) {
      queue.isListed = false;
      queue.pump();
    }
  }

  /** The queues of a topic, one for each partition it has now; undefined when it is not known. */
  #queuesOf(topic: string): TopicQueues | undefined {
    let queues = this.#topics.get(topic);
    if (queues === undefined) {
      const known = this.#context.metadata.topic(topic);
      if (known === undefined) {
        this.#context.metadata.want(topic);
        return undefined;
      }
      queues = { name: topic, queues: [], sticky: -1 };
      for (const { partition } of known.partitions) {
        queues.queues.push(new PartitionQueue(this.#host, topic, known.topicId, partition));
      }
      this.#topics.set(topic, queues);
    }
    this.#lastTopic = queues;
    return queues;
  }

  #append(
    topic: TopicQueues,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    const partition = this.#partitionOf(topic, record);
    const queue = topic.queues[partition];
    if (queue === undefined) {
      throw new InvalidArgumentError(
        `${topic.name} has no partition ${partition}`,
        `choose one from 0 to ${topic.queues.length - 1}`,
      );
    }
    const { headers } = record;
    const list = headers === undefined ? undefined : headerList(headers);
    if (!queue.append(timestamp, record.key, record.value, list, onAcknowledged)) return false;
    if (!queue.isListed) {
      queue.isListed = true;
      this.#listed.push(queue);
      this.#active.add(queue);
      this.#hookTurn();
    }
    return true;
  }

  #partitionOf(topic: TopicQueues, record: ProducerRecord): number {
    if (record.partition !== undefined) return record.partition;
    const count = topic.queues.length;
    if (record.key !== undefined && record.key !== null) return this.#settings.partitioner(record.key, count);
    if (topic.sticky < 0) topic.sticky = this.#chooseSticky(topic.name, count);
    return topic.sticky;
  }

  /** Any partition that has a leader, or any at all when none has. */
  #chooseSticky(topic: string, count: number): number {
    const start = this.#env.random.below(count);
    for (let step = 0; step < count; step += 1) {
      const partition = (start + step) % count;
      if (this.#context.metadata.leaderOf(topic, partition) !== undefined) return partition;
    }
    return start;
  }

  #awaitTopic(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    let waiting = this.#awaitingTopic.get(topic);
    if (waiting === undefined) this.#awaitingTopic.set(topic, (waiting = new FifoQueue()));
    return this.#wait(waiting, topic, record, timestamp, onAcknowledged);
  }

  #awaitMemory(
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    return this.#wait(this.#awaitingMemory, topic, record, timestamp, onAcknowledged);
  }

  #wait(
    line: FifoQueue<WaitingRecord>,
    topic: string,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): Promise<void> {
    const nowMs = this.#env.clock.monotonicMs();
    this.#wakeAt(nowMs + CHECK_MS);
    return new Promise((resolve) => {
      line.push({
        topic,
        record,
        timestamp,
        onAcknowledged,
        deadlineMs: nowMs + this.#settings.deliveryTimeoutMs,
        resolve,
      });
    });
  }

  /** Resolves when the records that wait now are encoded, or have failed. */
  async #drainWaiting(): Promise<void> {
    const lines = [this.#awaitingMemory, ...this.#awaitingTopic.values()];
    await Promise.all(
      lines.map((line) => {
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

  /** Encodes what waited, as far as there is memory now. */
  #admitWaiting(): void {
    const line = this.#awaitingMemory;
    for (let waiting = line.first; waiting !== undefined && this.#admit(waiting); waiting = line.first) line.shift();
  }

  /** False when it must go on waiting for memory. */
  #admit(waiting: WaitingRecord): boolean {
    const { topic, record, timestamp, onAcknowledged, resolve } = waiting;
    const queues = this.#queuesOf(topic);
    try {
      if (queues === undefined || !this.#append(queues, record, timestamp, onAcknowledged)) return false;
    } catch (error) {
      this.#failWaiting(waiting, toClientError(error));
      return true;
    }
    resolve();
    return true;
  }

  #failWaiting(waiting: WaitingRecord, error: ClientError): void {
    const { onAcknowledged } = waiting;
    if (onAcknowledged === undefined) this.#unreported ??= error;
    else this.#runCallbacks(() => onAcknowledged(error, undefined));
    waiting.resolve();
  }

  #leaderOf(topic: string, partition: number): KnownPartition | undefined {
    const leader = this.#context.metadata.leaderOf(topic, partition);
    if (leader === undefined) {
      this.#context.metadata.refreshSoon();
      this.#wakeAt(this.#env.clock.monotonicMs() + CHECK_MS);
    }
    return leader;
  }

  #connectionTo(brokerId: BrokerId): RpcConnection | undefined {
    const connection = this.#connections.tryGet(brokerId);
    if (connection === undefined) {
      if (this.#connections.isFailing(brokerId)) this.#context.metadata.refreshSoon();
      this.#wakeAt(this.#env.clock.monotonicMs() + AGAIN_MS);
    }
    return connection;
  }

  #onMoved(topic: string, partition: number, hint: LeaderHint | null): void {
    this.#context.metadata.believe(topic, partition, hint);
    this.#context.metadata.refreshSoon();
  }

  #onClosedBatch(queue: PartitionQueue): void {
    const topic = this.#topics.get(queue.topic);
    if (topic?.sticky === queue.partition) topic.sticky = -1;
  }

  #onDoneBatch(batch: ProducerBatch, run: () => void): void {
    if (batch.failure !== undefined && (batch.callbacks === undefined || batch.callbacks.includes(undefined))) {
      this.#unreported ??= batch.failure;
    }
    this.#runCallbacks(run);
    if (batch.onDone !== undefined) for (const onDone of batch.onDone) onDone();
    if (this.#awaitingMemory.length > 0) this.#admitWaiting();
  }

  /** An exception of a callback is its author's: it surfaces as uncaught, and stops nothing here. */
  #runCallbacks(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#env.timers.afterThisTurn(() => {
        throw error;
      });
    }
  }

  #onMetadata(): void {
    for (const [name, topic] of this.#topics) {
      const known = this.#context.metadata.topic(name);
      if (known === undefined) continue;
      for (let partition = topic.queues.length; partition < known.partitions.length; partition += 1) {
        topic.queues.push(new PartitionQueue(this.#host, name, known.topicId, partition));
      }
      for (const queue of topic.queues) queue.onMetadata(known.topicId);
    }
    for (const [name, line] of [...this.#awaitingTopic]) {
      if (this.#context.metadata.topic(name) === undefined) continue;
      this.#awaitingTopic.delete(name);
      // From now on their order is that of the line for memory.
      for (let waiting = line.shift(); waiting !== undefined; waiting = line.shift())
        this.#awaitingMemory.push(waiting);
    }
    if (this.#awaitingMemory.length > 0) this.#admitWaiting();
  }

  #pumpAll(): void {
    for (const queue of [...this.#active]) queue.pump();
  }

  #wakeAt(timeMs: number): void {
    if (!this.#closed) this.#timer.wakeAt(timeMs);
  }

  #onTimer(): void {
    const nowMs = this.#env.clock.monotonicMs();
    for (const queue of [...this.#active]) {
      queue.check(nowMs);
      queue.pump();
      if (queue.isEmpty) this.#active.delete(queue);
    }
    this.#failUnknownTopics();
    this.#expireWaiting(nowMs);
    if (this.#active.size > 0 || this.#awaitingMemory.length > 0 || this.#awaitingTopic.size > 0) {
      this.#wakeAt(nowMs + CHECK_MS);
    }
  }

  #failUnknownTopics(): void {
    const { metadata, unknownTopicTimeoutMs } = this.#context;
    for (const [name, line] of [...this.#awaitingTopic]) {
      const refusal = metadata.refusalOf(name, unknownTopicTimeoutMs);
      if (refusal === undefined) {
        metadata.refreshSoon();
        continue;
      }
      this.#awaitingTopic.delete(name);
      for (let waiting = line.shift(); waiting !== undefined; waiting = line.shift()) {
        this.#failWaiting(waiting, toClientError(refusal, { topic: name }));
      }
    }
    for (const queue of this.#active) {
      const refusal = metadata.refusalOf(queue.topic, unknownTopicTimeoutMs);
      if (refusal !== undefined) queue.failAll(toClientError(refusal, { topic: queue.topic }));
    }
  }

  #expireWaiting(nowMs: number): void {
    for (const line of [this.#awaitingMemory, ...this.#awaitingTopic.values()]) {
      for (let waiting = line.first; waiting !== undefined && waiting.deadlineMs <= nowMs; waiting = line.first) {
        line.shift();
        this.#failWaiting(
          waiting,
          new DeadlineExceededError(
            `a record found no room within deliveryTimeoutMs ${this.#settings.deliveryTimeoutMs}`,
            "raise bufferBytes, or send less at a time",
            { topic: waiting.topic },
          ),
        );
      }
    }
  }

  #fetchIdentity(): void {
    if (this.#fetchingIdentity || this.#closed) return;
    this.#fetchingIdentity = true;
    const { caller } = this.#context;
    const deadline = caller.deadline(this.#settings.requestTimeoutMs);
    caller
      .call({
        kind: "initProducerId",
        body: () => ({}),
        target: caller.anyBroker,
        targetName: "any broker",
        deadline,
        signal: this.#stopped.signal,
      })
      .then(
        ({ body }) => {
          this.#fetchingIdentity = false;
          this.#identity = { producerId: body.producerId, producerEpoch: body.producerEpoch };
          this.#pumpAll();
        },
        () => {
          // Whoever needs an identity asks again, until the records' own deadline.
          this.#fetchingIdentity = false;
          if (this.#active.size > 0) this.#wakeAt(this.#env.clock.monotonicMs() + CHECK_MS);
        },
      );
  }
}

function checkRecord(topic: string, record: ProducerRecord): void {
  if (typeof topic !== "string" || topic === "") {
    throw new InvalidArgumentError("the topic of a record has no name", "pass the name as first argument");
  }
  checkBytes("key", record.key);
  checkBytes("value", record.value);
  const { timestamp, partition } = record;
  if (timestamp !== undefined && !(Number.isSafeInteger(timestamp) && timestamp >= 0)) {
    throw new InvalidArgumentError(`timestamp is ${timestamp}`, "give whole milliseconds since 1970");
  }
  if (partition !== undefined && !(Number.isSafeInteger(partition) && partition >= 0)) {
    throw new InvalidArgumentError(`partition is ${partition}`, "give a whole number from 0 on");
  }
}

function checkBytes(name: string, data: unknown): void {
  if (data === undefined || data === null || typeof data === "string" || data instanceof Uint8Array) return;
  throw new InvalidArgumentError(
    `the ${name} of a record is ${Array.isArray(data) ? "an array" : `a ${typeof data}`}`,
    "give text, a Uint8Array or null (JSON.stringify makes text of objects)",
  );
}

function headerList(headers: NonNullable<ProducerRecord["headers"]>): readonly EncodableHeader[] {
  const list: readonly EncodableHeader[] = isHeaderList(headers)
    ? headers
    : Object.entries(headers).map(([key, value]) => ({ key, value }));
  for (const header of list) checkBytes(`header "${header.key}"`, header.value);
  return list;
}

const isHeaderList = (headers: NonNullable<ProducerRecord["headers"]>): headers is readonly EncodableHeader[] =>
  Array.isArray(headers);
