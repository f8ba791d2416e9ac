import type { Env } from "../common/env/env.js";
import type { ApiError } from "../protocol/error-codes.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ConsumerSettings } from "./consumer-settings.js";
import { startOf } from "./consumer-settings.js";
import {
  ClientError,
  InvalidArgumentError,
  OffsetOutOfRangeError,
  toClientError,
  topicReplacedError,
} from "./errors.js";
import type { FetchBuffer } from "./fetch-buffer.js";
import type { KnownTopic, Metadata } from "./metadata.js";
import type { OffsetQuery } from "./offset-lookup.js";
import { lookUpOffsets } from "./offset-lookup.js";
import type { Position, TopicPartition, TopicPartitionOffset } from "./options.js";
import { PartitionReader } from "./partition-reader.js";
import { Backoff } from "./retry.js";

/** What a subscription shares with the rest of its cluster object. */
export interface SubscriptionContext {
  readonly env: Env;
  readonly metadata: Metadata;
  readonly caller: BrokerCaller;
  readonly deadlineMs: number;
  /** Rejects when there is no such topic. It may turn out not to have all of the partitions. */
  readonly waitForTopic: (topic: string, partitions: readonly number[], signal: AbortSignal) => Promise<KnownTopic>;
  readonly refusalOf: (topic: string) => ApiError | undefined;
}

/**
 * The partitions that a consumer reads, and the offsets at which it begins and ends in each. It looks the topics up, asks
 * leaders for offsets, and keeps up with topics that get partitions, are replaced or disappear. Who fetches the
 * partitions, and how far they have been read, is not its business.
 */
export class Subscription {
  readonly #readers = new Map<string, PartitionReader>();
  /** The present loop of the application ends where the partitions ended when it began. */
  #untilEnd = false;
  #prepared: Promise<void> | undefined;

  constructor(
    private readonly context: SubscriptionContext,
    private readonly settings: ConsumerSettings,
    /** Where errors go that no call waits for. */
    private readonly buffer: FetchBuffer,
    /** A partition that appeared while reading can be fetched. */
    private readonly onAdded: () => void,
    /** Ends what is being looked up. */
    private readonly signal: AbortSignal,
  ) {
    for (const topic of settings.topics) context.metadata.want(topic);
  }

  /** Empty until `prepare` has resolved. */
  get readers(): PartitionReader[] {
    return [...this.#readers.values()];
  }

  /** Looks the topics up, once. */
  prepare(): Promise<void> {
    this.#prepared ??= this.#lookUpTopics().catch((error: unknown) => {
      this.#prepared = undefined;
      throw error;
    });
    return this.#prepared;
  }

  /** Makes the partitions ready for a new loop of the application. `untilEnd`: it ends where they end now. */
  async begin(untilEnd: boolean): Promise<void> {
    this.#untilEnd = untilEnd;
    // What changed while nothing was read; where that starts is looked up below.
    this.#follow();
    const { readers } = this;
    for (const reader of readers) {
      reader.hasFailed = false;
      reader.endOffset = undefined;
    }
    await this.#findPositions(readers.filter((reader) => reader.position === undefined));
    if (!untilEnd) return;
    const offsets = await this.#lookUp(readers, () => "latest");
    readers.forEach((reader, index) => (reader.endOffset = offsets[index]));
    await this.#leaveBeyondEnd(readers.filter(({ position = 0, endOffset = 0 }) => position > endOffset));
  }

  /** The present loop has read all that it was to read. */
  get isAtEnd(): boolean {
    return this.#untilEnd && this.readers.every((reader) => reader.isAtEnd);
  }

  /** Nothing would ever be fetched for a position behind the end, so that no broker says that it is none. */
  async #leaveBeyondEnd(readers: readonly PartitionReader[]): Promise<void> {
    if (readers.length === 0) return;
    const logStarts = await this.#lookUp(readers, () => "earliest");
    const { onOutOfRange } = this.settings;
    readers.forEach((reader, index) => {
      const { topic, partition, position = 0, endOffset = 0 } = reader;
      const logStart = logStarts[index] as number;
      if (onOutOfRange === "error")
        throw new OffsetOutOfRangeError(position, logStart, endOffset, { topic, partition });
      reader.restartAt(onOutOfRange === "earliest" ? logStart : endOffset);
    });
  }

  /** Throws InvalidArgumentError when it is none of the partitions. */
  readerOf({ topic, partition }: TopicPartition): PartitionReader {
    const reader = this.#readers.get(readerKey(topic, partition));
    if (reader !== undefined) return reader;
    throw new InvalidArgumentError(`the consumer does not read ${topic}-${partition}`, "name one of its partitions()");
  }

  /** Everything fetched of the partition is void. When the place cannot be found, reading goes on at `former`. */
  async restart(reader: PartitionReader, at: Position, former: number | undefined): Promise<void> {
    startAt(reader, at);
    const { generation } = reader;
    try {
      await this.positionOf(reader);
    } catch (error) {
      // Another seek meanwhile has decided otherwise.
      if (former !== undefined && reader.generation === generation) reader.restartAt(former);
      throw error;
    }
  }

  /** Where the partition has been read to; looked up when nothing was read yet. */
  async positionOf(reader: PartitionReader): Promise<number> {
    if (reader.position === undefined) await this.#findPositions([reader]);
    return reader.position ?? 0;
  }

  /** The high watermarks now. */
  async endOffsets(): Promise<TopicPartitionOffset[]> {
    const { readers } = this;
    const offsets = await this.#lookUp(readers, () => "latest");
    return readers.map(({ topic, partition }, index) => ({ topic, partition, offset: offsets[index] as number }));
  }

  /** The cluster was described anew: topics may have got partitions, or be others of the same name. */
  onMetadata(): void {
    for (const reader of this.#follow()) this.#findStart(reader);
  }

  /** Fails the partitions of topics that the cluster refuses to describe. */
  failRefused(): void {
    for (const topic of this.settings.topics) {
      const refusal = this.context.refusalOf(topic);
      if (refusal === undefined) continue;
      const readers = this.readers.filter((reader) => reader.topic === topic && !reader.hasFailed);
      if (readers.length === 0) continue;
      for (const reader of readers) reader.hasFailed = true;
      this.buffer.fail(toClientError(refusal, { topic }));
    }
  }

  async #lookUpTopics(): Promise<void> {
    const topics = await Promise.all(
      this.settings.topics.map((topic) =>
        this.context.waitForTopic(topic, this.settings.partitions ?? [], this.signal),
      ),
    );
    for (const topic of topics) {
      const partitions = this.settings.partitions ?? topic.partitions.map(({ partition }) => partition);
      for (const partition of partitions) {
        if (topic.partitions[partition] === undefined) {
          throw new InvalidArgumentError(
            `${topic.name} has no partition ${partition}`,
            `choose from 0 to ${topic.partitions.length - 1}`,
          );
        }
        this.#add(topic, partition, startOf(this.settings.from, topic.name, partition));
      }
    }
  }

  #add(topic: KnownTopic, partition: number, from: Position): PartitionReader {
    const backoff = new Backoff(this.context.env.random);
    const reader = new PartitionReader(topic.name, topic.topicId, partition, backoff);
    startAt(reader, from);
    // It did not exist when the loop began.
    if (this.#untilEnd) reader.endOffset = 0;
    this.#readers.set(readerKey(topic.name, partition), reader);
    return reader;
  }

  /** Follows what is known of the topics, and returns the partitions that are to be read whose start is not known yet. */
  #follow(): PartitionReader[] {
    return this.settings.topics.flatMap((name) => {
      const topic = this.context.metadata.topic(name);
      return topic === undefined ? [] : this.#followTopic(topic);
    });
  }

  #followTopic(topic: KnownTopic): PartitionReader[] {
    const first = this.readers.find((reader) => reader.topic === topic.name);
    if (first !== undefined && first.topicId !== topic.topicId) return this.#onReplaced(topic);
    if (this.settings.partitions !== undefined) return [];
    return (
      topic.partitions
        .filter(({ partition }) => !this.#readers.has(readerKey(topic.name, partition)))
        // Also under "latest": records may have been written there before the partition was noticed.
        .map(({ partition }) => this.#add(topic, partition, "earliest"))
    );
  }

  #onReplaced(topic: KnownTopic): PartitionReader[] {
    const policy = this.settings.onOutOfRange;
    const added: PartitionReader[] = [];
    for (const reader of this.readers.filter((one) => one.topic === topic.name)) {
      reader.loop?.readers.delete(reader);
      reader.hasFailed = true;
      reader.generation += 1;
      if (topic.partitions[reader.partition] === undefined) {
        this.#readers.delete(readerKey(topic.name, reader.partition));
        continue;
      }
      added.push(this.#add(topic, reader.partition, policy === "error" ? "earliest" : policy));
    }
    if (policy !== "error") return added;
    this.buffer.fail(topicReplacedError({ topic: topic.name }));
    return [];
  }

  /** Finds the start of a partition that appeared while reading. */
  #findStart(reader: PartitionReader): void {
    this.#findPositions([reader]).then(
      () => {
        this.onAdded();
        this.buffer.wake();
      },
      (error: unknown) => {
        // The loop ends with the reason of its signal, which may be anything.
        if (!this.signal.aborted) this.buffer.fail(toClientError(error), reader);
      },
    );
  }

  async #findPositions(readers: readonly PartitionReader[]): Promise<void> {
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
    query: (reader: PartitionReader) => OffsetQuery,
  ): Promise<number[]> {
    const { caller, deadlineMs } = this.context;
    const answers = await lookUpOffsets(
      caller,
      readers.map((reader) => ({ topic: reader.topic, partition: reader.partition, query: query(reader) })),
      caller.deadline(deadlineMs),
      this.signal,
    );
    return answers.map((answer) => {
      if (answer instanceof ClientError) throw answer;
      return answer.offset;
    });
  }
}

const readerKey = (topic: string, partition: number): string => `${topic}:${partition}`;

function startAt(reader: PartitionReader, to: Position): void {
  if (typeof to === "object" && "offset" in to) reader.restartAt(to.offset);
  else reader.restartFrom(to);
}
