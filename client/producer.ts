import { invariant } from "../common/assert.js";
import { EarliestTimer } from "../common/earliest-timer.js";
import type { Env } from "../common/env/env.js";
import { throwUncaught } from "../common/env/time.js";
import type { LeaderHint } from "../protocol/messages.js";
import type { RpcConnection } from "../protocol/rpc-connection.js";
import type { BrokerId } from "../protocol/types.js";
import { checkCount, checkList, checkTopicName, shown } from "./arguments.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ConnectionSettings } from "./broker-connections.js";
import { BrokerConnections } from "./broker-connections.js";
import { BufferPool } from "./buffer-pool.js";
import type { ClientError } from "./errors.js";
import { ClosedError, InvalidArgumentError, toClientError } from "./errors.js";
import { LeaderTurns } from "./leader-turns.js";
import type { KnownPartition, Metadata } from "./metadata.js";
import type { ProducerOptions } from "./options.js";
import type { PartitionQueue, QueueHost } from "./partition-queue.js";
import type { OnAcknowledged, OnThrown, ProducerBatch, RecordMetadata } from "./producer-batch.js";
import { ProducerIds } from "./producer-ids.js";
import type { ProducerRecord } from "./producer-record.js";
import { checkRecord } from "./producer-record.js";
import type { ProducerSettings } from "./producer-settings.js";
import { producerSettings } from "./producer-settings.js";
import { ProducerTurn } from "./producer-turn.js";
import { TopicQueues } from "./topic-queues.js";
import { WaitingRecords } from "./waiting-records.js";

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

/** How often deadlines and silent leaders are looked at while something is under way. */
const CHECK_MS = 100;
/** How soon a leader or connection that was not there is asked for again. */
const AGAIN_MS = 20;

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
  readonly #ids: ProducerIds;
  readonly #host: QueueHost;
  readonly #turn: ProducerTurn;
  readonly #pool: BufferPool;
  readonly #waiting: WaitingRecords<PartitionQueue>;
  readonly #topics = new Map<string, TopicQueues>();
  #lastTopic: TopicQueues | undefined;
  /** Queues that may hold something. */
  readonly #active = new Set<PartitionQueue>();
  readonly #turns = new Map<BrokerId, LeaderTurns>();
  /** Some batch may linger though memory has got short. */
  #mayLinger = false;
  /** Callbacks wait for the end of the turn. */
  #isAppending = false;
  /** What is to be told when all queues have followed a change of the cluster; undefined: it is told at once. */
  #untold: (() => void)[] | undefined;
  /** The first failure that no callback was told about. */
  #unreported: ClientError | undefined;
  readonly #timer: EarliestTimer;
  readonly #stopListening: () => void;
  #closing: Promise<void> | undefined;
  /** Aborted when the producer is closed. */
  readonly #stopped = new AbortController();

  /** An exception of a callback is its author's: it surfaces as uncaught, and stops nothing here. */
  readonly #surface: OnThrown = (error) => throwUncaught(this.#env.timers, error);

  /** Use `Cluster.producer`. */
  constructor(context: ProducerContext, options: ProducerOptions) {
    const { env, metadata, caller, connectionSettings } = context;
    const settings = producerSettings(options, connectionSettings.requestTimeoutMs);
    this.#context = context;
    this.#env = env;
    this.#settings = settings;
    this.#timer = new EarliestTimer(env, () => this.#onTimer());
    this.#connections = new BrokerConnections(env, metadata, connectionSettings, () => this.#pumpAll());
    this.#ids = new ProducerIds(caller, settings.requestTimeoutMs, this.#stopped.signal, {
      onFetched: () => this.#pumpAll(),
      onFailed: () => {
        if (this.#active.size > 0) this.#wakeIn(CHECK_MS);
      },
    });
    this.#turn = new ProducerTurn(env);
    this.#pool = new BufferPool(settings.batchBytes, settings.bufferBytes);
    this.#waiting = new WaitingRecords<PartitionQueue>(env.clock, settings.deliveryTimeoutMs, {
      placeOf: (topic, record, isCertain) => {
        const queues = this.#queuesOf(topic);
        invariant(queues !== undefined, () => `${topic} is not known any more`);
        if (!isCertain && record.partition !== undefined && !queues.has(record.partition)) return undefined;
        return queues.queueOf(record);
      },
      tryAppend: (queue, record, timestamp, deadlineMs, onAcknowledged) =>
        this.#append(queue, record, timestamp, deadlineMs, onAcknowledged),
      onFailed: (error, onAcknowledged) => this.#fail(error, onAcknowledged),
    });
    this.#host = this.#queueHost();
    this.#stopListening = metadata.onChange(() => this.#onMetadata());
    // Asked for early, so that the first batch need not wait for it.
    if (settings.idempotent) this.#ids.identity();
  }

  /**
   * Sends one record and resolves when it is acknowledged. Rejects with a ClientError, with InvalidArgumentError for what is
   * no record. Convenient; for the highest rates use `produce`, because a promise costs more than a record.
   *
   * @example
   * const { partition, offset } = await producer.send("orders", { key: "42", value: "paid", headers: { source: "web" } });
   */
  send(topic: string, record: ProducerRecord): Promise<RecordMetadata> {
    return new Promise((resolve, reject) => {
      checkCount("send", arguments.length, 2);
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
    checkCount("sendBatch", arguments.length, 2);
    checkTopicName(topic);
    checkList("the records of a batch are", records, "records");
    const places: RecordMetadata[] = [];
    if (records.length === 0) return places;
    await new Promise<void>((resolve, reject) => {
      let left = records.length;
      let failure: ClientError | undefined;
      [...records].forEach((record, index) => {
        const onOutcome: OnAcknowledged = (error, metadata) => {
          if (error === undefined) places[index] = metadata;
          else failure ??= error;
          left -= 1;
          if (left > 0) return;
          if (failure === undefined) resolve();
          else reject(failure);
        };
        try {
          void this.produce(topic, record, onOutcome);
        } catch (error) {
          // The others go their way all the same.
          onOutcome(error as ClientError, undefined);
        }
      });
    });
    return places;
  }

  /**
   * Sends one record and costs nothing but its encoding. Returns nothing as long as there is memory; a promise when there
   * is none, or the topic or the partition is not known yet: await it before the next call, or memory is no longer bounded.
   * It never rejects. `onAcknowledged` is called once, with the record's place or with an error; a failure nobody asked about is
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
    checkCount("produce", arguments.length, 3);
    // Whoever takes the first parameter only may be given both.
    const onAcknowledged = onOutcome as OnAcknowledged | undefined;
    if (this.#closing !== undefined) throw new ClosedError("producer");
    // The last one was checked when it came first.
    const last = this.#lastTopic;
    if (last === undefined || last.name !== topic) checkTopicName(topic);
    checkRecord(record);
    if (onAcknowledged !== undefined && typeof onAcknowledged !== "function") {
      throw new InvalidArgumentError(`the callback is ${shown(onAcknowledged)}`, "give a function, or leave it out");
    }
    const timestamp = record.timestamp ?? this.#turn.nowMs();
    const queues = last?.name === topic ? last : this.#queuesOf(topic);
    // Others of the topic wait still, which may be known by now: this one stands behind them.
    if (queues === undefined || this.#waiting.awaitsTopic(topic)) {
      this.#wakeIn(CHECK_MS);
      return this.#waiting.awaitTopic(topic, record, timestamp, onAcknowledged);
    }
    const { partition } = record;
    if (partition !== undefined && !queues.has(partition)) {
      const { metadata } = this.#context;
      metadata.want(topic);
      metadata.refreshSoon();
      this.#wakeIn(CHECK_MS);
      return this.#waiting.awaitPartition(topic, partition, record, timestamp, onAcknowledged);
    }
    return this.#place(queues, record, timestamp, onAcknowledged);
  }

  /** Encodes a record where it goes, or lets it wait for memory. Throws what is wrong with it. */
  #place(
    queues: TopicQueues,
    record: ProducerRecord,
    timestamp: number,
    onAcknowledged: OnAcknowledged | undefined,
  ): void | Promise<void> {
    let queue = queues.queueOf(record);
    if (!queue.share.isShort && this.#append(queue, record, timestamp, undefined, onAcknowledged)) return;
    const other = queues.queueInsteadOf(queue, record);
    if (other !== undefined) {
      if (this.#append(other, record, timestamp, undefined, onAcknowledged)) return;
      queue = other;
    }
    this.#wakeIn(CHECK_MS);
    const room = this.#waiting.awaitMemory(queues.name, queue, record, timestamp, onAcknowledged);
    this.#endLingering();
    return room;
  }

  /**
   * Resolves when every record that was handed over before has an outcome. Rejects with the first failure since the last
   * `flush` that no callback and no promise was told about.
   */
  async flush(): Promise<void> {
    checkCount("flush", arguments.length, 0);
    await this.#settled();
    const failure = this.#unreported;
    this.#unreported = undefined;
    if (failure !== undefined) throw failure;
  }

  /**
   * Refuses further records, waits for those under way, at most `deliveryTimeoutMs`, and ends the connections.
   * Idempotent.
   */
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
      this.#stopped.abort();
      this.#stopListening();
      this.#timer.cancel();
      this.#connections.close();
      this.#context.onClosed(this);
    }
  }

  /** Resolves when every record that is here now has an outcome. */
  async #settled(): Promise<void> {
    // What is encoded already does not linger while others wait for their topic.
    for (const queue of [...this.#active]) queue.flush(() => undefined);
    await this.#waiting.drained();
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
  }

  #queueHost(): QueueHost {
    const { metadata } = this.#context;
    const ids = this.#ids;
    return {
      env: this.#env,
      settings: this.#settings,
      pool: this.#pool,
      isMemoryTight: () => this.#waiting.isMemoryShort || this.#pool.isTight,
      onLingering: (untilMs) => {
        this.#mayLinger ||= !this.#pool.isTight;
        this.#wakeAt(untilMs);
      },
      leaderOf: (topic, partition) => this.#leaderOf(topic, partition),
      connectionTo: (brokerId) => this.#connectionTo(brokerId),
      dropConnection: (brokerId) => this.#connections.drop(brokerId),
      connectionFailure: (brokerId) => this.#connections.failureOf(brokerId),
      turnsAt: (brokerId) => this.#turnsAt(brokerId),
      identity: () => ids.identity(),
      get identityFailure() {
        return ids.identityFailure;
      },
      discardIdentity: (identity) => ids.discardIdentity(identity),
      onMoved: (topic, partition, hint) => this.#onMoved(topic, partition, hint),
      onTrouble: (brokerId) => {
        metadata.onTrouble(brokerId);
        this.#connections.onSilence(brokerId);
      },
      refresh: () => metadata.refreshSoon(),
      wakeAt: (timeMs) => this.#wakeAt(timeMs),
      pumpDuringAppend: (queue) => this.#pumpDuringAppend(queue),
      onClosedBatch: (queue) => this.#topics.get(queue.topic)?.onClosedBatch(queue.partition),
      onHomeless: (batches, error) => this.#onHomeless(batches, error),
      onDoneBatch: (batch, run) => this.#onDoneBatch(batch, run),
    };
  }

  #turnsAt(brokerId: BrokerId): LeaderTurns {
    let turns = this.#turns.get(brokerId);
    if (turns === undefined) this.#turns.set(brokerId, (turns = new LeaderTurns()));
    return turns;
  }

  /** Records have begun to wait for memory: what lingers holds some. Not now, because its callbacks may append. */
  #endLingering(): void {
    if (!this.#mayLinger) return;
    this.#mayLinger = false;
    this.#env.timers.afterThisTurn(() => this.#pumpAll());
  }

  /** The queues of a topic; undefined when it is not known, and then it is being looked up. */
  #queuesOf(topic: string): TopicQueues | undefined {
    let queues = this.#topics.get(topic);
    if (queues === undefined) {
      const { metadata } = this.#context;
      // Also one that is known: it may be so for the sake of another call only.
      metadata.want(topic);
      const known = metadata.topic(topic);
      if (known === undefined) return undefined;
      queues = new TopicQueues(this.#host, metadata, this.#settings.partitioner, known);
      this.#topics.set(topic, queues);
    }
    this.#lastTopic = queues;
    return queues;
  }

  /** False when there is no memory for the record. Throws what is wrong with it. */
  #append(
    queue: PartitionQueue,
    record: ProducerRecord,
    timestamp: number,
    deadlineMs: number | undefined,
    onAcknowledged: OnAcknowledged | undefined,
  ): boolean {
    if (!queue.accumulator.append(record, timestamp, deadlineMs, onAcknowledged)) return false;
    if (!queue.isListed) {
      // It was refused before, and forgotten: now it is asked for again.
      if (this.#context.metadata.topic(queue.topic) === undefined) this.#context.metadata.want(queue.topic);
      this.#turn.list(queue);
      // From now on deadlines are watched; `#onTimer` goes on as long as there is something.
      if (this.#active.size === 0) this.#wakeIn(CHECK_MS);
      this.#active.add(queue);
    }
    return true;
  }

  #leaderOf(topic: string, partition: number): KnownPartition | undefined {
    const leader = this.#context.metadata.leaderOf(topic, partition);
    if (leader === undefined) {
      this.#context.metadata.refreshSoon();
      this.#wakeIn(CHECK_MS);
    }
    return leader;
  }

  #connectionTo(brokerId: BrokerId): RpcConnection | undefined {
    const connection = this.#connections.tryGet(brokerId);
    if (connection === undefined) {
      if (this.#connections.isFailing(brokerId)) this.#context.metadata.refreshSoon();
      this.#wakeIn(AGAIN_MS);
    }
    return connection;
  }

  #onMoved(topic: string, partition: number, hint: LeaderHint | null): void {
    this.#context.metadata.believe(topic, partition, hint);
    this.#context.metadata.refreshSoon();
  }

  #pumpDuringAppend(queue: PartitionQueue): void {
    this.#isAppending = true;
    try {
      queue.pump();
    } finally {
      this.#isAppending = false;
    }
  }

  #onDoneBatch(batch: ProducerBatch, run: (onThrown: OnThrown) => void): void {
    const tell = (): void => this.#tellDoneBatch(batch, run);
    if (this.#isAppending) this.#env.timers.afterThisTurn(tell);
    else this.#tell(tell);
  }

  /** The flushes that wait for the batches wait for whatever their records become part of. */
  #onHomeless(batches: readonly ProducerBatch[], error: ClientError): void {
    const records = batches.flatMap((batch) => batch.recordsBack());
    this.#waiting.takeBack(
      error.topic ?? "",
      records.filter(({ isNamed }) => !isNamed),
    );
    this.#wakeIn(CHECK_MS);
    this.#tell(() => {
      // Only now: what a callback hands over stands behind those.
      for (const { isNamed, onAcknowledged } of records) if (isNamed) this.#fail(error, onAcknowledged);
      this.#waiting.admit();
      for (const { onDone } of batches) for (const tell of onDone ?? []) void this.#settled().then(tell);
    });
  }

  /** Tells somebody what has become of records, who may hand over more: once all is in its place. */
  #tell(tell: () => void): void {
    if (this.#untold === undefined) tell();
    else this.#untold.push(tell);
  }

  #tellDoneBatch(batch: ProducerBatch, run: (onThrown: OnThrown) => void): void {
    if (batch.failure !== undefined && (batch.callbacks === undefined || batch.callbacks.includes(undefined))) {
      this.#unreported ??= batch.failure;
    }
    run(this.#surface);
    if (batch.onDone !== undefined) for (const onDone of batch.onDone) onDone();
    this.#waiting.admit();
  }

  /** Of a record that is in no batch. */
  #fail(error: ClientError, onAcknowledged: OnAcknowledged | undefined): void {
    if (onAcknowledged === undefined) {
      this.#unreported ??= error;
      return;
    }
    this.#tell(() => {
      try {
        onAcknowledged(error, undefined);
      } catch (thrown) {
        this.#surface(thrown);
      }
    });
  }

  #onMetadata(): void {
    const { metadata } = this.#context;
    let hasMoved = false;
    for (const [name, queues] of this.#topics) {
      const known = metadata.topic(name);
      if (known !== undefined && queues.place(known)) hasMoved = true;
    }
    const isKnown = (topic: string): boolean => metadata.topic(topic) !== undefined;
    const untold: (() => void)[] = [];
    this.#untold = untold;
    try {
      this.#waiting.onMetadata(hasMoved, isKnown, () => {
        for (const [name, queues] of this.#topics) {
          const known = metadata.topic(name);
          if (known !== undefined) queues.onMetadata(known);
        }
      });
    } finally {
      this.#untold = undefined;
      for (const tell of untold) tell();
    }
  }

  #pumpAll(): void {
    for (const queue of [...this.#active]) queue.pump();
  }

  #wakeIn(delayMs: number): void {
    this.#wakeAt(this.#env.clock.monotonicMs() + delayMs);
  }

  #wakeAt(timeMs: number): void {
    if (!this.#stopped.signal.aborted) this.#timer.wakeAt(timeMs);
  }

  #onTimer(): void {
    const nowMs = this.#env.clock.monotonicMs();
    // First: what has no room in time must not be let in by the end of what held it.
    this.#waiting.expire(nowMs, () => this.#context.metadata.lookupFailure());
    for (const queue of [...this.#active]) {
      queue.check(nowMs);
      queue.pump();
      if (queue.isEmpty) this.#active.delete(queue);
    }
    for (const turns of this.#turns.values()) turns.callNext(nowMs);
    this.#failUnknownTopics(nowMs);
    if (this.#active.size > 0 || !this.#waiting.isEmpty) this.#wakeAt(nowMs + CHECK_MS);
  }

  #failUnknownTopics(nowMs: number): void {
    const { metadata, unknownTopicTimeoutMs } = this.#context;
    this.#waiting.failRefused(
      (topic) => {
        const refusal = metadata.refusalOf(topic, unknownTopicTimeoutMs);
        if (refusal === undefined) metadata.refreshSoon();
        return refusal;
      },
      (topic, sinceMs) => (metadata.describedMs(topic) ?? Number.NEGATIVE_INFINITY) - sinceMs >= unknownTopicTimeoutMs,
    );
    for (const queue of this.#active) {
      const refusal = metadata.refusalOf(queue.topic, unknownTopicTimeoutMs);
      // What is answered soon is not in doubt then; nothing more is sent.
      if (refusal !== undefined && !queue.isAnswerNear(nowMs))
        queue.failAll(toClientError(refusal, { topic: queue.topic }));
    }
  }
}
