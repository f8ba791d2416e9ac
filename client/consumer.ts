import { EarliestTimer } from "./earliest-timer.js";
import type { Env } from "../common/env/env.js";
import type { Logger } from "../common/logger.js";
import { errorCodes } from "../protocol/error-codes.js";
import type { ApiError, ErrorName } from "../protocol/error-codes.js";
import type { FetchedPartition } from "../protocol/messages.js";
import type { RecordBatch } from "../protocol/record-batch.js";
import { BatchFault } from "../protocol/record-batch.js";
import type { BrokerId } from "../protocol/types.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ConnectionSettings } from "./broker-connections.js";
import { BrokerConnections } from "./broker-connections.js";
import type { BatchIterator, ConsumerRecord } from "./consumer-record.js";
import { ConsumerBatch } from "./consumer-record.js";
import {
  ClientError,
  ClosedError,
  CorruptBatchError,
  InvalidArgumentError,
  OffsetOutOfRangeError,
  ProtocolError,
  toClientError,
} from "./errors.js";
import { FetchLoop } from "./fetch-loop.js";
import type { FetchHost, FetchSettings } from "./fetch-loop.js";
import { FramePool } from "./frame-pool.js";
import { FifoQueue } from "./fifo-queue.js";
import type { KnownTopic, Metadata } from "./metadata.js";
import type { OffsetQuery } from "./offset-lookup.js";
import { lookUpOffsets } from "./offset-lookup.js";
import type {
  ConsumerOptions,
  OutOfRangePolicy,
  Position,
  StartPosition,
  TopicPartition,
  TopicPartitionOffset,
} from "./options.js";
import { numberOption, refuseUnknownOptions, wordOption } from "./options.js";
import type { FetchedChunk } from "./partition-reader.js";
import { PartitionReader } from "./partition-reader.js";
import { Backoff } from "./retry.js";

/** What a consumer shares with the rest of its cluster object. */
export interface ConsumerContext {
  readonly env: Env;
  readonly logger: Logger;
  readonly metadata: Metadata;
  readonly caller: BrokerCaller;
  readonly connectionSettings: ConnectionSettings;
  readonly deadlineMs: number;
  readonly waitForTopic: (topic: string) => Promise<KnownTopic>;
  readonly refusalOf: (topic: string) => ApiError | undefined;
  readonly onClosed: (consumer: Consumer) => void;
}

/** How far a loop reads. */
export interface ReadOptions {
  /**
   * End the loop at the high watermarks that the partitions have when it starts, instead of waiting for more.
   * @defaultValue false
   */
  readonly untilEnd?: boolean;
}

/** How far a loop over batches reads, and what becomes of their memory. */
export interface BatchReadOptions extends ReadOptions {
  /**
   * Use the memory of a batch for others as soon as the next one is asked for. About a quarter quicker; but then keys,
   * values and headers must not be kept beyond their turn of the loop: copy what is to stay (`Buffer.from(value)`).
   * @defaultValue false
   */
  readonly reuseMemory?: boolean;
}

const PREFETCH_BYTES = 4 * 1024 * 1024;
const PARTITION_BYTES = 1024 * 1024;
const FETCH_WAIT_MS = 500;
const STALL_MS = 10_000;
const CHECK_MS = 100;
const AGAIN_MS = 20;
const RETRY_MS = 20;
const RETRY_MS_MAX = 250;

const optionNames = [
  "topics",
  "topic",
  "partitions",
  "from",
  "onOutOfRange",
  "prefetchBytes",
  "partitionBytes",
  "fetchBytesMin",
  "fetchWaitMs",
  "stallMs",
  "signal",
];

/**
 * Reads records of whole topics or of some partitions, from a place of its own choosing. Made by `Cluster.consumer`.
 *
 * Records of one partition come in the order of their offsets; partitions are interleaved as their batches arrive. What
 * is fetched ahead of the reader is bounded by `prefetchBytes`. Every batch's checksum is verified before anything of it
 * is delivered. Leaving a loop stops fetching and keeps the position: another loop goes on behind the last record that was
 * delivered. One loop at a time. An error ends the loop by being thrown; reading can go on with another loop.
 *
 * @example
 * await using consumer = cluster.consumer({ topics: ["orders"], from: "earliest" });
 * for await (const record of consumer) console.log(record.offset, record.value?.toString());
 */
export class Consumer implements AsyncIterable<ConsumerRecord>, AsyncDisposable {
  readonly #context: ConsumerContext;
  readonly #env: Env;
  readonly #topics: readonly string[];
  readonly #chosenPartitions: readonly number[] | undefined;
  readonly #from: StartPosition;
  readonly #onOutOfRange: OutOfRangePolicy;
  readonly #stallMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #settings: FetchSettings;
  readonly #frames: FramePool;
  readonly #connections: BrokerConnections;
  readonly #host: FetchHost;
  readonly #readers = new Map<string, PartitionReader>();
  readonly #loops = new Map<BrokerId, FetchLoop>();
  readonly #ready = new FifoQueue<FetchedChunk>();
  readonly #errors: ClientError[] = [];
  readonly #stallSaid = new Set<BrokerId>();
  #chunk: FetchedChunk | undefined;
  #prepared: Promise<void> | undefined;
  #isReading = false;
  #untilEnd = false;
  /** Of the loop that is reading. */
  #reusesMemory = false;
  #records: BatchIterator | undefined;
  /** The `next` that waits. */
  #waiter: (() => void) | undefined;
  readonly #timer: EarliestTimer;
  readonly #stopListening: () => void;
  readonly #onAbort: () => void;
  #closed = false;

  /** Use `Cluster.consumer`. */
  constructor(context: ConsumerContext, options: ConsumerOptions) {
    refuseUnknownOptions("a consumer", options, optionNames);
    this.#context = context;
    this.#env = context.env;
    this.#timer = new EarliestTimer(this.#env, () => this.#onTimer());
    this.#topics = options.topics ?? [options.topic];
    if (this.#topics.length === 0 || this.#topics.some((topic) => typeof topic !== "string" || topic === "")) {
      throw new InvalidArgumentError("a consumer has no topic to read", 'give topics: ["orders"] or topic: "orders"');
    }
    this.#chosenPartitions = options.partitions;
    for (const partition of options.partitions ?? [])
      numberOption("partitions", partition, { min: 0, defaultValue: 0 });
    this.#from = options.from ?? "latest";
    checkStart(this.#from);
    this.#onOutOfRange = wordOption("onOutOfRange", options.onOutOfRange, ["earliest", "latest", "error"], "error");
    this.#stallMs = numberOption("stallMs", options.stallMs, { min: 1, defaultValue: STALL_MS });
    this.#signal = options.signal;
    this.#settings = {
      prefetchBytes: numberOption("prefetchBytes", options.prefetchBytes, { min: 1, defaultValue: PREFETCH_BYTES }),
      partitionBytes: numberOption("partitionBytes", options.partitionBytes, {
        min: 1,
        max: 32 * 1024 * 1024,
        defaultValue: PARTITION_BYTES,
      }),
      fetchBytesMin: numberOption("fetchBytesMin", options.fetchBytesMin, { min: 1, defaultValue: 1 }),
      fetchWaitMs: numberOption("fetchWaitMs", options.fetchWaitMs, {
        min: 1,
        max: 60_000,
        defaultValue: FETCH_WAIT_MS,
      }),
      requestTimeoutMs: context.connectionSettings.requestTimeoutMs,
    };
    this.#frames = new FramePool(2 * this.#settings.prefetchBytes);
    this.#connections = new BrokerConnections(
      context.env,
      context.metadata,
      context.connectionSettings,
      { onOpened: () => this.#wakeLoops() },
      (bytes) => (this.#reusesMemory ? this.#frames.allocate(bytes) : Buffer.allocUnsafeSlow(bytes)),
    );
    this.#host = this.#fetchHost();
    this.#stopListening = context.metadata.onChange(() => this.#onMetadata());
    this.#onAbort = () => this.#wakeWaiter();
    this.#signal?.addEventListener("abort", this.#onAbort, { once: true });
    for (const topic of this.#topics) context.metadata.want(topic);
  }

  /** Record by record; the same as `records()`. */
  [Symbol.asyncIterator](): AsyncIterableIterator<ConsumerRecord> {
    return this.records();
  }

  /**
   * Record by record. Convenient, and about half as quick as `batches`.
   *
   * @example
   * for await (const record of consumer.records({ untilEnd: true })) console.log(record.value?.toString());
   */
  records(options: ReadOptions = {}): AsyncIterableIterator<ConsumerRecord> {
    return new ReadLoop<ConsumerRecord>(this.#loopOf(options, () => this.#takeRecord()));
  }

  /**
   * Batch by batch: the quick way, because only one promise is made for each batch.
   *
   * @example
   * for await (const batch of consumer.batches()) {
   *   for (const record of batch) total += record.value?.length ?? 0;
   * }
   */
  batches(options: BatchReadOptions = {}): AsyncIterableIterator<ConsumerBatch> {
    return new ReadLoop<ConsumerBatch>(this.#loopOf(options, () => this.#takeBatch()));
  }

  /** The partitions that are read. Waits until the topics are known. */
  async partitions(): Promise<TopicPartition[]> {
    await this.#prepare();
    return [...this.#readers.values()].map(({ topic, partition }) => ({ topic, partition }));
  }

  /** Goes on at another place of a partition; what was fetched of it is dropped. */
  async seek(target: TopicPartition, to: Position): Promise<void> {
    checkPosition(to);
    await this.#prepare();
    const reader = this.#reader(target);
    if (this.#records?.topic === target.topic && this.#records.partition === target.partition)
      this.#records = undefined;
    startAt(reader, to);
    if (reader.position === undefined) await this.#resolvePositions([reader]);
    this.#wakeLoops();
  }

  /** Delivers nothing more of these partitions until `resume`; a loop over batches still has the batch it was given. */
  async pause(targets: readonly TopicPartition[]): Promise<void> {
    await this.#prepare();
    for (const target of targets) {
      const reader = this.#reader(target);
      reader.isPaused = true;
      const current = this.#records;
      if (current?.topic !== target.topic || current.partition !== target.partition) continue;
      // The rest of the batch that is being read comes again after `resume`.
      this.#records = undefined;
      reader.restartAt(current.nextOffset);
    }
  }

  async resume(targets: readonly TopicPartition[]): Promise<void> {
    await this.#prepare();
    for (const target of targets) {
      const reader = this.#reader(target);
      reader.isPaused = false;
      for (const chunk of reader.held.splice(0)) this.#ready.push(chunk);
    }
    this.#wakeLoops();
    this.#wakeWaiter();
  }

  /** The offset of the next record that will be delivered of a partition. Looks it up when nothing was read yet. */
  async position(target: TopicPartition): Promise<number> {
    await this.#prepare();
    const reader = this.#reader(target);
    if (reader.position === undefined) await this.#resolvePositions([reader]);
    const current = this.#records;
    if (current?.topic === target.topic && current.partition === target.partition) return current.nextOffset;
    return reader.position ?? 0;
  }

  /** The high watermarks now: the offsets that the next records will have. */
  async endOffsets(): Promise<TopicPartitionOffset[]> {
    await this.#prepare();
    const readers = [...this.#readers.values()];
    const offsets = await this.#lookUp(readers, "latest");
    return readers.map(({ topic, partition }, index) => ({ topic, partition, offset: offsets[index] as number }));
  }

  /** Ends a loop that is waiting, and the connections. Idempotent. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    this.#stopListening();
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#isReading = false;
    this.#timer.cancel();
    this.#connections.close();
    this.#wakeWaiter();
    this.#context.onClosed(this);
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #fetchHost(): FetchHost {
    const { metadata } = this.#context;
    const isReading = (): boolean => this.#isReading;
    return {
      env: this.#env,
      settings: this.#settings,
      get isReading(): boolean {
        return isReading();
      },
      connectionTo: (brokerId) => {
        const connection = this.#connections.tryGet(brokerId);
        if (connection === undefined) this.#wakeAt(this.#env.clock.monotonicMs() + AGAIN_MS);
        return connection;
      },
      leaderEpochOf: (reader) => metadata.leaderOf(reader.topic, reader.partition)?.leaderEpoch,
      onFetched: (chunks) => {
        for (const chunk of chunks) this.#ready.push(chunk);
        this.#wakeWaiter();
      },
      onDamaged: (reader, offset, fault) => this.#onDamaged(reader, offset, fault),
      onPartitionError: (reader, brokerId, answer, name) => this.#onPartitionError(reader, brokerId, answer, name),
      onRefused: (brokerId, error) => this.#fail(toClientError(error, { brokerId })),
      onTrouble: (brokerId) => metadata.onTrouble(brokerId),
      wakeAt: (timeMs) => this.#wakeAt(timeMs),
      frameOf: (records) => (this.#reusesMemory ? this.#frames.frameOf(records) : undefined),
    };
  }

  #loopOf<T>(options: BatchReadOptions, take: () => T | undefined): ReadSource<T> {
    return {
      begin: () => this.#begin(options.untilEnd ?? false, options.reuseMemory ?? false),
      take,
      isOver: () => this.#closed || (this.#untilEnd && [...this.#readers.values()].every((reader) => reader.isAtEnd)),
      more: () => this.#more(),
      end: () => this.#end(),
    };
  }

  async #begin(untilEnd: boolean, reuseMemory: boolean): Promise<void> {
    if (this.#closed) throw new ClosedError("consumer");
    if (this.#isReading) {
      throw new InvalidArgumentError(
        "the consumer is being read by another loop",
        "end that one first, or make a second consumer",
      );
    }
    this.#signal?.throwIfAborted();
    this.#isReading = true;
    this.#untilEnd = untilEnd;
    this.#reusesMemory = reuseMemory;
    try {
      await this.#prepare();
      const readers = [...this.#readers.values()];
      for (const reader of readers) {
        reader.hasFailed = false;
        reader.endOffset = undefined;
      }
      await this.#resolvePositions(readers.filter((reader) => reader.position === undefined));
      if (untilEnd) {
        const offsets = await this.#lookUp(readers, "latest");
        readers.forEach((reader, index) => (reader.endOffset = offsets[index]));
      }
    } catch (error) {
      this.#isReading = false;
      throw error;
    }
    if (this.#closed) return;
    this.#assign();
    this.#wakeAt(this.#env.clock.monotonicMs() + CHECK_MS);
  }

  /** The loop was left: what was fetched is dropped, what was delivered stays so. */
  #end(): void {
    this.#isReading = false;
    const current = this.#records;
    this.#records = undefined;
    this.#chunk = undefined;
    for (let chunk = this.#ready.shift(); chunk !== undefined; chunk = this.#ready.shift()) chunk.release?.();
    for (const reader of this.#readers.values()) {
      if (reader.position === undefined) continue;
      const isCurrent = current?.topic === reader.topic && current.partition === reader.partition;
      reader.restartAt(isCurrent ? current.nextOffset : reader.position);
    }
    this.#errors.splice(0);
    this.#timer.cancel();
  }

  /** Waits until something can be taken, or the loop is over. */
  #more(): Promise<void> {
    if (this.#waiter !== undefined) {
      throw new InvalidArgumentError("next() is called while an earlier call waits", "await each call before the next");
    }
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  #wakeWaiter(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.();
  }

  #takeRecord(): ConsumerRecord | undefined {
    for (;;) {
      if (this.#records !== undefined) {
        const { value } = this.#records.next();
        if (value !== undefined) return value;
        this.#records = undefined;
      }
      const batch = this.#takeBatch();
      if (batch === undefined) return undefined;
      this.#records = batch[Symbol.iterator]();
    }
  }

  /** The next batch that has something to deliver; undefined when none is here. Throws what went wrong meanwhile. */
  #takeBatch(): ConsumerBatch | undefined {
    this.#signal?.throwIfAborted();
    for (;;) {
      const chunk = this.#chunk ?? this.#ready.shift();
      this.#chunk = undefined;
      if (chunk === undefined) {
        const error = this.#errors.shift();
        if (error !== undefined) throw error;
        return undefined;
      }
      const { reader } = chunk;
      if (chunk.generation !== reader.generation || reader.position === undefined) {
        chunk.release?.();
        continue;
      }
      if (reader.isPaused) {
        reader.held.push(chunk);
        continue;
      }
      const stored = chunk.batches[chunk.next];
      if (stored === undefined) {
        reader.bufferedBytes -= chunk.bytes;
        chunk.release?.();
        reader.loop?.wake();
        continue;
      }
      this.#chunk = chunk;
      const batch = this.#deliver(reader, chunk, stored);
      if (batch !== undefined) return batch;
    }
  }

  /** Checks a batch and moves the position behind it; undefined when there is nothing in it for the reader. */
  #deliver(reader: PartitionReader, chunk: FetchedChunk, stored: RecordBatch): ConsumerBatch | undefined {
    const { topic, partition, position = 0 } = reader;
    chunk.next += 1;
    try {
      stored.verify();
    } catch (error) {
      if (!(error instanceof BatchFault)) throw error;
      this.#onDamaged(reader, position, error);
      return undefined;
    }
    if (reader.damagedAt !== undefined && stored.endOffset > reader.damagedAt) reader.damagedAt = undefined;
    if (stored.endOffset <= position) return undefined;
    if (stored.compression !== 0) {
      this.#fail(
        new ProtocolError("UNSUPPORTED_VERSION", `the batch at offset ${position} is compressed`, { topic, partition }),
        reader,
      );
      return undefined;
    }
    const endOffset = Math.min(stored.endOffset, reader.endOffset ?? Number.POSITIVE_INFINITY);
    reader.position = stored.endOffset;
    if (stored.isControl || endOffset <= position) return undefined;
    if (endOffset < stored.endOffset) reader.position = endOffset;
    return new ConsumerBatch(
      topic,
      partition,
      stored,
      Math.max(position, stored.baseOffset),
      endOffset,
      chunk.highWatermark,
    );
  }

  /** A damaged batch is fetched once more, because it may have been damaged on the way; then it is an error. */
  #onDamaged(reader: PartitionReader, offset: number, fault: BatchFault): void {
    const place = { topic: reader.topic, partition: reader.partition };
    this.#context.logger.warn("a batch arrived damaged", { ...place, offset, reason: fault.message });
    const isRepeated = reader.damagedAt === offset;
    reader.restartAt(offset);
    if (isRepeated) {
      reader.damagedAt = undefined;
      this.#fail(new CorruptBatchError(offset, { ...place, cause: fault }), reader);
      return;
    }
    reader.damagedAt = offset;
    reader.notBeforeMs = this.#env.clock.monotonicMs() + reader.backoff.next();
    reader.loop?.wake();
  }

  #onPartitionError(reader: PartitionReader, brokerId: BrokerId, answer: FetchedPartition, name: ErrorName): void {
    const { topic, partition } = reader;
    const { metadata } = this.#context;
    if (name === "OFFSET_OUT_OF_RANGE") {
      this.#onOutOfRangeError(reader, answer);
      return;
    }
    const { retriable, refreshMetadata } = errorCodes[name];
    if (!retriable) {
      this.#fail(new ProtocolError(name, answer.error?.message, { topic, partition, brokerId }), reader);
      return;
    }
    const askedEpoch = metadata.leaderOf(topic, partition)?.leaderEpoch ?? -1;
    reader.failedEpoch = askedEpoch;
    reader.notBeforeMs = this.#env.clock.monotonicMs() + reader.backoff.next();
    if (refreshMetadata) {
      metadata.believe(topic, partition, answer.leader);
      metadata.refreshSoon();
    }
    this.#wakeAt(reader.notBeforeMs);
  }

  #onOutOfRangeError(reader: PartitionReader, answer: FetchedPartition): void {
    const { topic, partition } = reader;
    if (this.#onOutOfRange === "error") {
      const { logStartOffset, highWatermark } = answer;
      const error = new OffsetOutOfRangeError(reader.fetchPosition, logStartOffset, highWatermark, {
        topic,
        partition,
      });
      this.#fail(error, reader);
      return;
    }
    const to = this.#onOutOfRange === "earliest" ? answer.logStartOffset : answer.highWatermark;
    this.#context.logger.warn("the position is not in the log any more; going on elsewhere", {
      topic,
      partition,
      offset: reader.fetchPosition,
      to,
    });
    // What is buffered is still to be delivered; the position follows when there is none.
    reader.fetchPosition = to;
    if (reader.bufferedBytes === 0) reader.position = to;
    this.#wakeWaiter();
  }

  #fail(error: ClientError, reader?: PartitionReader): void {
    if (reader !== undefined) reader.hasFailed = true;
    this.#errors.push(error);
    this.#wakeWaiter();
  }

  /** Looks the topics up, once. */
  #prepare(): Promise<void> {
    if (this.#closed) return Promise.reject(new ClosedError("consumer"));
    this.#prepared ??= this.#lookUpTopics().catch((error: unknown) => {
      this.#prepared = undefined;
      throw error;
    });
    return this.#prepared;
  }

  async #lookUpTopics(): Promise<void> {
    const topics = await Promise.all(this.#topics.map((topic) => this.#context.waitForTopic(topic)));
    for (const topic of topics) {
      const partitions = this.#chosenPartitions ?? topic.partitions.map(({ partition }) => partition);
      for (const partition of partitions) {
        if (topic.partitions[partition] === undefined) {
          throw new InvalidArgumentError(
            `${topic.name} has no partition ${partition}`,
            `choose from 0 to ${topic.partitions.length - 1}`,
          );
        }
        this.#addReader(topic, partition, this.#startOf(topic.name, partition));
      }
    }
  }

  #startOf(topic: string, partition: number): Position {
    if (!isList(this.#from)) return this.#from;
    const chosen = this.#from.find((one) => one.topic === topic && one.partition === partition);
    return chosen === undefined ? "earliest" : { offset: chosen.offset };
  }

  #addReader(topic: KnownTopic, partition: number, from: Position): PartitionReader {
    const backoff = new Backoff(this.#env.random, RETRY_MS, RETRY_MS_MAX);
    const reader = new PartitionReader(topic.name, topic.topicId, partition, backoff);
    startAt(reader, from);
    this.#readers.set(readerKey(topic.name, partition), reader);
    return reader;
  }

  #reader({ topic, partition }: TopicPartition): PartitionReader {
    const reader = this.#readers.get(readerKey(topic, partition));
    if (reader === undefined) {
      throw new InvalidArgumentError(
        `the consumer does not read ${topic}-${partition}`,
        "name one of its partitions()",
      );
    }
    return reader;
  }

  async #resolvePositions(readers: readonly PartitionReader[]): Promise<void> {
    if (readers.length === 0) return;
    const generations = readers.map((reader) => reader.generation);
    const offsets = await this.#lookUp(readers, (reader) => reader.startQuery ?? "earliest");
    readers.forEach((reader, index) => {
      // A seek meanwhile has decided otherwise.
      if (reader.generation === generations[index]) reader.restartAt(offsets[index] as number);
    });
  }

  async #lookUp(
    readers: readonly PartitionReader[],
    query: OffsetQuery | ((reader: PartitionReader) => OffsetQuery),
  ): Promise<number[]> {
    const { caller, deadlineMs } = this.#context;
    const answers = await lookUpOffsets(
      caller,
      readers.map((reader) => ({
        topic: reader.topic,
        partition: reader.partition,
        query: typeof query === "function" ? query(reader) : query,
      })),
      caller.deadline(deadlineMs),
      this.#signal,
    );
    return answers.map((answer) => {
      if (answer instanceof ClientError) throw answer;
      return answer.offset;
    });
  }

  #onMetadata(): void {
    if (!this.#isReading || this.#closed || this.#readers.size === 0) return;
    for (const name of this.#topics) {
      const topic = this.#context.metadata.topic(name);
      if (topic !== undefined) this.#follow(topic);
    }
    this.#assign();
  }

  /** A topic may have got partitions, or be another one of the same name. */
  #follow(topic: KnownTopic): void {
    const first = [...this.#readers.values()].find((reader) => reader.topic === topic.name);
    if (first !== undefined && first.topicId !== topic.topicId) {
      this.#onTopicReplaced(topic);
      return;
    }
    if (this.#chosenPartitions !== undefined) return;
    for (const { partition } of topic.partitions) {
      if (this.#readers.has(readerKey(topic.name, partition))) continue;
      // Also under "latest": records may have been written there before the partition was noticed.
      this.#restore(this.#addReader(topic, partition, "earliest"));
    }
  }

  #onTopicReplaced(topic: KnownTopic): void {
    for (const reader of [...this.#readers.values()].filter((one) => one.topic === topic.name)) {
      reader.loop?.readers.delete(reader);
      reader.hasFailed = true;
      reader.generation += 1;
      if (topic.partitions[reader.partition] === undefined) {
        this.#readers.delete(readerKey(topic.name, reader.partition));
        continue;
      }
      const policy = this.#onOutOfRange;
      const fresh = this.#addReader(topic, reader.partition, policy === "error" ? "earliest" : policy);
      if (policy !== "error") this.#restore(fresh);
    }
    if (this.#onOutOfRange === "error") {
      this.#fail(
        new ProtocolError("UNKNOWN_TOPIC_ID", "the topic was deleted and created again", { topic: topic.name }),
      );
    }
  }

  /** Finds the start of a partition that appeared while reading. */
  #restore(reader: PartitionReader): void {
    this.#resolvePositions([reader]).then(
      () => this.#assign(),
      (error: unknown) => this.#fail(toClientError(error), reader),
    );
  }

  /** Gives each partition to the loop of its leader. */
  #assign(): void {
    const { metadata } = this.#context;
    for (const reader of this.#readers.values()) {
      const leader = metadata.leaderOf(reader.topic, reader.partition);
      if (leader === undefined) {
        metadata.refreshSoon();
        continue;
      }
      const nowMs = this.#env.clock.monotonicMs();
      if (leader.leaderEpoch !== reader.failedEpoch) reader.notBeforeMs = 0;
      // Asking on, so that a new leader is seen when it is there, and not only at the next attempt.
      if (reader.notBeforeMs > nowMs || this.#connections.isFailing(leader.leaderId)) metadata.refreshSoon();
      if (reader.loop?.brokerId === leader.leaderId) continue;
      const old = reader.loop;
      old?.readers.delete(reader);
      reader.loop = this.#loopTo(leader.leaderId);
      reader.loop.readers.add(reader);
      if (old !== undefined && old.overdueMs(nowMs) >= 0) {
        // It stays silent, and has lost a partition to another: not to be waited for.
        this.#connections.drop(old.brokerId);
        old.abandon();
      }
    }
    this.#wakeLoops();
  }

  #loopTo(brokerId: BrokerId): FetchLoop {
    let loop = this.#loops.get(brokerId);
    if (loop === undefined) {
      loop = new FetchLoop(this.#host, brokerId);
      this.#loops.set(brokerId, loop);
    }
    return loop;
  }

  #wakeLoops(): void {
    for (const loop of this.#loops.values()) loop.wake();
  }

  #wakeAt(timeMs: number): void {
    if (this.#isReading && !this.#closed) this.#timer.wakeAt(timeMs);
  }

  #onTimer(): void {
    const nowMs = this.#env.clock.monotonicMs();
    for (const loop of this.#loops.values()) {
      const overdueMs = loop.overdueMs(nowMs);
      if (overdueMs < 0) this.#stallSaid.delete(loop.brokerId);
      else this.#onOverdue(loop, overdueMs);
    }
    for (const topic of this.#topics) {
      const refusal = this.#context.refusalOf(topic);
      const readers = [...this.#readers.values()].filter((reader) => reader.topic === topic && !reader.hasFailed);
      if (refusal === undefined || readers.length === 0) continue;
      for (const reader of readers) reader.hasFailed = true;
      this.#fail(toClientError(refusal, { topic }));
    }
    this.#wakeLoops();
    this.#wakeAt(nowMs + CHECK_MS);
  }

  #onOverdue(loop: FetchLoop, overdueMs: number): void {
    this.#context.metadata.onTrouble(loop.brokerId);
    if (overdueMs < this.#stallMs || this.#stallSaid.has(loop.brokerId)) return;
    this.#stallSaid.add(loop.brokerId);
    this.#context.logger.warn("a leader does not answer, so nothing is read of its partitions", {
      brokerId: loop.brokerId,
      partitions: [...loop.readers].map(({ topic, partition }) => `${topic}-${partition}`),
      silentMs: Math.round(overdueMs),
    });
  }
}

/** What a `ReadLoop` draws from. */
interface ReadSource<T> {
  begin(): Promise<void>;
  /** undefined: nothing is here now. Throws what went wrong. */
  take(): T | undefined;
  isOver(): boolean;
  more(): Promise<void>;
  end(): void;
}

/**
 * An async iterator by hand: while something is here, `next` returns it without a promise, which `for await` takes as
 * well, and which doubles the rate of record-wise reading. Never an async generator.
 */
class ReadLoop<T> implements AsyncIterableIterator<T> {
  #state: "new" | "open" | "ended" = "new";

  constructor(private readonly source: ReadSource<T>) {}

  next(): Promise<IteratorResult<T, undefined>> {
    if (this.#state !== "open") return this.#next();
    let value: T | undefined;
    try {
      value = this.source.take();
    } catch (error) {
      this.#end();
      return Promise.reject(error as Error);
    }
    if (value === undefined) return this.#next();
    // The language takes a plain result wherever it takes a promise of one; only its types do not say so.
    return { value, done: false } as unknown as Promise<IteratorResult<T, undefined>>;
  }

  return(): Promise<IteratorResult<T, undefined>> {
    this.#end();
    return Promise.resolve({ value: undefined, done: true });
  }

  #end(): void {
    if (this.#state === "open") this.source.end();
    this.#state = "ended";
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #next(): Promise<IteratorResult<T, undefined>> {
    if (this.#state === "new") {
      await this.source.begin();
      this.#state = "open";
    }
    try {
      while (this.#state === "open") {
        const value = this.source.take();
        if (value !== undefined) return { value, done: false };
        if (this.source.isOver()) break;
        await this.source.more();
      }
    } catch (error) {
      this.#end();
      throw error;
    }
    return this.return();
  }
}

const readerKey = (topic: string, partition: number): string => `${topic}:${partition}`;

const isList = (from: StartPosition): from is readonly TopicPartitionOffset[] => Array.isArray(from);

function startAt(reader: PartitionReader, to: Position): void {
  if (typeof to === "object" && "offset" in to) reader.restartAt(to.offset);
  else reader.restartFrom(to);
}

function checkStart(from: StartPosition): void {
  if (isList(from)) for (const one of from) checkPosition({ offset: one.offset });
  else checkPosition(from);
}

function checkPosition(position: Position): void {
  if (position === "earliest" || position === "latest") return;
  if (typeof position === "object" && "timestamp" in position) return;
  if (typeof position === "object" && Number.isSafeInteger(position.offset) && position.offset >= 0) return;
  throw new InvalidArgumentError(
    `the position ${JSON.stringify(position)} is none`,
    'give "earliest", "latest", { offset } from 0 on, or { timestamp }',
  );
}
