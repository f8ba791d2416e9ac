import type { Logger } from "../common/logger.js";
import { onAbort } from "../common/on-abort.js";
import { booleanOption, checkCount, checkOptions, checkPartition, checkPartitions } from "./arguments.js";
import type { ConsumerBatch, ConsumerRecord } from "./consumer-record.js";
import { checkPosition, consumerSettings } from "./consumer-settings.js";
import { ClosedError, InvalidArgumentError, toClientError } from "./errors.js";
import { FetchBuffer } from "./fetch-buffer.js";
import { FetchCollector } from "./fetch-collector.js";
import { FetchErrors } from "./fetch-errors.js";
import type { FetcherContext } from "./fetcher.js";
import { Fetcher } from "./fetcher.js";
import type { ConsumerOptions, Position, TopicPartition, TopicPartitionOffset } from "./options.js";
import type { PartitionReader } from "./partition-reader.js";
import type { ReadSource } from "./read-loop.js";
import { ReadLoop } from "./read-loop.js";
import { ReadWatch } from "./read-watch.js";
import type { SubscriptionContext } from "./subscription.js";
import { Subscription } from "./subscription.js";

/** What a consumer shares with the rest of its cluster object. */
export interface ConsumerContext extends FetcherContext, SubscriptionContext {
  readonly logger: Logger;
  readonly onClosed: (consumer: Consumer) => void;
}

/** How far a loop reads. */
export interface ReadOptions {
  /**
   * End the loop at the high watermarks that the partitions have when it starts, instead of waiting for more. Fails when
   * nothing comes of what is missing for the `deadlineMs` of the connection; partitions that are paused are waited for.
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

/**
 * Reads records of whole topics or of some partitions, from a place of its own choosing. Made by `Cluster.consumer`.
 *
 * Records of one partition come in the order of their offsets; partitions are interleaved as their batches arrive. What
 * is fetched ahead of the reader is bounded by `prefetchBytes`. Every batch's checksum is verified before anything of it
 * is delivered. Leaving a loop stops fetching and keeps the position: another loop goes on behind the last record that was
 * delivered. One loop at a time. An error ends the loop by being thrown; reading can go on with another loop.
 *
 * A partition of which nothing can be had is waited for while the others are read, and the log says which and why after
 * `stallMs`. A loop fails with LEADER_NOT_AVAILABLE after the `deadlineMs` of the connection when none of its partitions can
 * be found when it begins. Otherwise an endless loop goes on for ever. One that reads to the end fails when it has waited for
 * `deadlineMs` and nothing has come of what is still missing: with LEADER_NOT_AVAILABLE, else with DeadlineExceededError,
 * which name a partition and the cause. Time that the application takes between two records does not count, and a partition
 * that it has paused is waited for until `resume`.
 *
 * @example
 * await using consumer = cluster.consumer({ topics: ["orders"], from: "earliest" });
 * for await (const record of consumer) console.log(record.offset, record.value?.toString());
 */
export class Consumer implements AsyncIterable<ConsumerRecord>, AsyncDisposable {
  readonly #context: ConsumerContext;
  readonly #signal: AbortSignal | undefined;
  readonly #buffer = new FetchBuffer();
  readonly #subscription: Subscription;
  readonly #fetcher: Fetcher;
  readonly #collector: FetchCollector;
  readonly #watch: ReadWatch;
  readonly #stopListening: () => void;
  readonly #stopListeningToSignal: () => void;
  /** Aborted when the consumer is closed, or its signal is aborted. */
  readonly #stopped = new AbortController();
  #closed = false;

  /** Use `Cluster.consumer`. */
  constructor(context: ConsumerContext, options: ConsumerOptions) {
    const { env, logger, metadata, connectionSettings } = context;
    const settings = consumerSettings(options, connectionSettings.requestTimeoutMs);
    this.#context = context;
    this.#signal = settings.signal;
    const wakeAt = (timeMs: number): void => this.#fetcher.wakeAt(timeMs);
    const errors = new FetchErrors(env, logger, metadata, settings, this.#buffer, wakeAt);
    this.#subscription = new Subscription(context, settings, this.#buffer, () => this.#assign(), this.#stopped.signal);
    this.#fetcher = new Fetcher(context, settings.fetch, {
      onFetched: (chunks) => {
        this.#watch.onProgress();
        this.#buffer.push(chunks);
      },
      onDamaged: (reader, offset, fault) => errors.onDamaged(reader, offset, fault),
      onPartitionError: (reader, brokerId, answer, name) => errors.onPartitionError(reader, brokerId, answer, name),
      onRefused: (brokerId, error) => this.#buffer.fail(toClientError(error, { brokerId })),
      onCheck: (arrives) => {
        this.#subscription.failRefused();
        // Behind a slow link an answer may take longer than the deadline of a loop.
        if (arrives) this.#watch.onProgress();
        this.#watch.look(this.#subscription.readers, this.#buffer.isAwaited);
      },
    });
    this.#watch = new ReadWatch(
      {
        clock: env.clock,
        logger,
        troubleOf: (reader) => this.#fetcher.troubleOf(reader),
        fail: (error) => this.#buffer.fail(error),
      },
      { deadlineMs: context.deadlineMs, stallMs: settings.stallMs },
    );
    this.#collector = new FetchCollector(this.#buffer, errors, settings.signal);
    this.#stopListening = metadata.onChange(() => this.#onMetadata());
    const stop = (): void => {
      this.#stopped.abort(this.#signal?.reason);
      this.#buffer.wake();
    };
    if (this.#signal?.aborted === true) stop();
    this.#stopListeningToSignal = onAbort(this.#signal, stop);
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
    checkCount("records", arguments.length, 1);
    checkOptions("records", options, ["untilEnd"]);
    return new ReadLoop<ConsumerRecord>(this.#loopOf(options, () => this.#collector.takeRecord()));
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
    checkCount("batches", arguments.length, 1);
    checkOptions("batches", options, ["untilEnd", "reuseMemory"]);
    return new ReadLoop<ConsumerBatch>(this.#loopOf(options, () => this.#collector.takeBatch()));
  }

  /** The partitions that are read. Waits until the topics are known. */
  async partitions(): Promise<TopicPartition[]> {
    checkCount("partitions", arguments.length, 0);
    await this.#prepare();
    return this.#subscription.readers.map(({ topic, partition }) => ({ topic, partition }));
  }

  /**
   * Goes on at another place of a partition; what was fetched of it is dropped. Rejects with InvalidArgumentError for what
   * is no place or a partition that is not read, and when the place cannot be looked up; then reading goes on where it was.
   */
  async seek(target: TopicPartition, to: Position): Promise<void> {
    checkCount("seek", arguments.length, 2);
    checkPartition(target);
    checkPosition(to);
    await this.#prepare();
    const reader = await this.#subscription.readerOf(target);
    const former = this.#collector.leave(reader) ?? reader.position;
    try {
      await this.#subscription.restart(reader, to, former);
    } finally {
      this.#fetcher.wake();
    }
  }

  /**
   * Delivers nothing more of these partitions until `resume`; a loop over batches still has the batch it was given. Rejects
   * with InvalidArgumentError when one of them is not read; then none is paused.
   */
  async pause(targets: readonly TopicPartition[]): Promise<void> {
    checkCount("pause", arguments.length, 1);
    checkPartitions(targets);
    await this.#prepare();
    for (const reader of await this.#readersOf(targets)) {
      reader.isPaused = true;
      // The rest of the batch that is being read comes again after `resume`.
      const nextOffset = this.#collector.leave(reader);
      if (nextOffset !== undefined) reader.restartAt(nextOffset);
    }
  }

  /** Delivers records of these partitions again. Rejects with InvalidArgumentError for one that is not read. */
  async resume(targets: readonly TopicPartition[]): Promise<void> {
    checkCount("resume", arguments.length, 1);
    checkPartitions(targets);
    await this.#prepare();
    for (const reader of await this.#readersOf(targets)) {
      reader.isPaused = false;
      this.#buffer.putBack(reader.held.splice(0));
    }
    this.#fetcher.wake();
  }

  async #readersOf(targets: readonly TopicPartition[]): Promise<PartitionReader[]> {
    await Promise.all(targets.map((target) => this.#subscription.readerOf(target)));
    // What one of them was waited for may have put others in the place of those that were found before.
    return targets.map((target) => this.#subscription.presentReaderOf(target));
  }

  /** The offset of the next record that will be delivered of a partition. Looks it up when nothing was read yet. */
  async position(target: TopicPartition): Promise<number> {
    checkCount("position", arguments.length, 1);
    checkPartition(target);
    await this.#prepare();
    const reader = await this.#subscription.readerOf(target);
    const position = await this.#subscription.positionOf(reader);
    return this.#collector.nextOffsetIn(reader) ?? position;
  }

  /** The high watermarks now: the offsets that the next records will have. */
  async endOffsets(): Promise<TopicPartitionOffset[]> {
    checkCount("endOffsets", arguments.length, 0);
    await this.#prepare();
    return this.#subscription.endOffsets();
  }

  /** Ends a loop that is waiting, and the connections. Idempotent. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    this.#stopListening();
    this.#stopListeningToSignal();
    this.#stopped.abort(new ClosedError("consumer"));
    this.#subscription.end();
    this.#fetcher.close();
    this.#buffer.wake();
    this.#context.onClosed(this);
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #loopOf<T>(options: BatchReadOptions, take: () => T | undefined): ReadSource<T> {
    const untilEnd = booleanOption("untilEnd", options.untilEnd, false);
    const reuseMemory = booleanOption("reuseMemory", options.reuseMemory, false);
    return {
      begin: () => this.#begin(untilEnd, reuseMemory),
      onWaiting: () => this.#watch.onProgress(),
      take,
      isOver: () => this.#closed || this.#subscription.isAtEnd,
      more: () => this.#buffer.more(),
      end: () => this.#end(),
    };
  }

  async #begin(untilEnd: boolean, reuseMemory: boolean): Promise<void> {
    if (this.#closed) throw new ClosedError("consumer");
    if (this.#fetcher.isRunning) {
      throw new InvalidArgumentError(
        "the consumer is being read by another loop",
        "end that one first, or make a second consumer",
      );
    }
    this.#signal?.throwIfAborted();
    this.#fetcher.start(reuseMemory);
    this.#watch.begin(untilEnd);
    try {
      await this.#prepare();
      await this.#subscription.begin(untilEnd);
    } catch (error) {
      this.#fetcher.stop();
      // Closed meanwhile: the loop ends.
      if (!this.#closed) throw error;
    }
    if (!this.#closed) this.#assign();
  }

  /** The loop was left: what was fetched is dropped, what was delivered stays so. */
  #end(): void {
    this.#fetcher.stop();
    this.#subscription.end();
    for (const reader of this.#subscription.readers) {
      if (reader.position === undefined) continue;
      reader.restartAt(this.#collector.nextOffsetIn(reader) ?? reader.position);
    }
    this.#collector.clear();
    // A `next` that waits has nothing to wait for.
    this.#buffer.wake();
  }

  /** Resolves when the partitions are known. */
  #prepare(): Promise<void> {
    return this.#closed ? Promise.reject(new ClosedError("consumer")) : this.#subscription.prepare();
  }

  #assign(): void {
    if (this.#fetcher.isRunning) this.#fetcher.assign(this.#subscription.readers);
  }

  #onMetadata(): void {
    if (!this.#fetcher.isRunning || this.#subscription.readers.length === 0) return;
    this.#subscription.onMetadata();
    this.#assign();
  }
}
