import type { Env } from "../common/env/env.js";
import type { ApiError } from "../protocol/error-codes.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ConsumerSettings } from "./consumer-settings.js";
import { startOf } from "./consumer-settings.js";
import {
  ClientError,
  ClosedError,
  InvalidArgumentError,
  noPartitionError,
  OffsetOutOfRangeError,
  ProtocolError,
  toClientError,
  topicReplacedError,
} from "./errors.js";
import type { FetchBuffer } from "./fetch-buffer.js";
import type { KnownTopic, Metadata } from "./metadata.js";
import type { OffsetLookup, OffsetQuery } from "./offset-lookup.js";
import { lookUpOffsets, startQueries } from "./offset-lookup.js";
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
  /** Partitions whose reader is gone, and was paused: so will be the next one. */
  readonly #paused = new Set<string>();
  /** The present loop of the application ends where the partitions ended when it began. */
  #untilEnd = false;
  #prepared: Promise<void> | undefined;
  #isPrepared = false;
  /** Of the present loop of the application; aborted when it is left. */
  #search: AbortController | undefined;
  /** That partitions can be fetched will be told at the end of the turn. */
  #isTelling = false;

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

  /**
   * Makes the partitions ready for a new loop of the application, each as soon as its leader has said where it begins; what
   * has no leader now holds up none of the others. `untilEnd`: it ends where they end now.
   */
  async begin(untilEnd: boolean): Promise<void> {
    this.#untilEnd = untilEnd;
    this.#search = new AbortController();
    if (this.signal.aborted) this.end();
    for (const topic of this.settings.topics) this.context.metadata.want(topic);
    // What changed while nothing was read; where that starts is looked up below.
    this.#follow();
    // A topic that was created again had fewer partitions than the application wants, and may have more by now.
    if (this.#isIncomplete()) await this.#lookUpTopics();
    const { readers } = this;
    for (const reader of readers) {
      reader.hasFailed = false;
      reader.endOffset = undefined;
      reader.awaitsEnd = untilEnd;
    }
    this.#locate(readers);
  }

  /** The loop was left: nothing is looked up for it any more. */
  end(): void {
    this.#search?.abort(new ClosedError("loop"));
    this.#search = undefined;
  }

  /** The present loop has read all that it was to read. */
  get isAtEnd(): boolean {
    return this.#untilEnd && this.readers.every((reader) => reader.isAtEnd);
  }

  /** Rejects with InvalidArgumentError when it is none of the partitions, also when the cluster is asked anew. */
  async readerOf({ topic, partition }: TopicPartition): Promise<PartitionReader> {
    const key = readerKey(topic, partition);
    if (!this.#readers.has(key) && this.settings.partitions === undefined && this.settings.topics.includes(topic)) {
      await this.context.waitForTopic(topic, [partition], this.signal);
      this.onMetadata();
    }
    return this.presentReaderOf({ topic, partition });
  }

  /** The same for one that is known, without a wait. */
  presentReaderOf({ topic, partition }: TopicPartition): PartitionReader {
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
    while (reader.position === undefined) {
      const { generation, startQuery = "earliest" } = reader;
      const { queries, offsetOf } = startQueries(startQuery);
      const offset = offsetOf(await this.#lookUp(queries.map((query) => ({ reader, query }))));
      // A seek meanwhile has decided otherwise.
      if (reader.generation === generation) reader.restartAt(offset);
      reader.hasBegun = true;
    }
    return reader.position;
  }

  /** The high watermarks now. */
  async endOffsets(): Promise<TopicPartitionOffset[]> {
    const { readers } = this;
    const offsets = await this.#lookUp(readers.map((reader) => ({ reader, query: "latest" })));
    return readers.map(({ topic, partition }, index) => ({ topic, partition, offset: offsets[index] as number }));
  }

  /** The cluster was described anew: topics may have got partitions, or be others of the same name. */
  onMetadata(): void {
    this.#locate(this.#follow());
  }

  /** Fails the partitions of topics that the cluster refuses to describe. */
  failRefused(): void {
    for (const topic of this.settings.topics) {
      const refusal = this.context.refusalOf(topic);
      if (refusal === undefined) {
        // It is believed when it is said again.
        if (this.context.metadata.isRefused(topic)) this.context.metadata.refreshSoon();
        continue;
      }
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
        if (this.#readers.has(readerKey(topic.name, partition))) continue;
        if (topic.partitions[partition] === undefined) {
          throw noPartitionError(topic.name, partition, topic.partitions.length);
        }
        // One that was missing for a while is read whole.
        const isNew = this.#isPrepared;
        this.#add(topic, partition, isNew ? "earliest" : startOf(this.settings.from, topic.name, partition));
      }
    }
    this.#isPrepared = true;
  }

  /** Whether partitions that the application named are not read, because their topic has lost them. */
  #isIncomplete(): boolean {
    const { topics, partitions = [] } = this.settings;
    return topics.some((topic) => partitions.some((partition) => !this.#readers.has(readerKey(topic, partition))));
  }

  #add(topic: KnownTopic, partition: number, from: Position): PartitionReader {
    const backoff = new Backoff(this.context.env.random);
    const reader = new PartitionReader(topic.name, topic.topicId, partition, backoff);
    startAt(reader, from);
    reader.isPaused = this.#paused.delete(readerKey(topic.name, partition));
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
    if (first !== undefined && first.topicId !== topic.topicId) {
      const former = this.readers.filter((reader) => reader.topic === topic.name);
      return former.some(({ hasBegun }) => hasBegun) ? this.#onReplaced(topic, former) : this.#startAnew(topic, former);
    }
    if (this.settings.partitions !== undefined) return [];
    return (
      topic.partitions
        .filter(({ partition }) => !this.#readers.has(readerKey(topic.name, partition)))
        // Also under "latest": records may have been written there before the partition was noticed.
        .map(({ partition }) => this.#add(topic, partition, "earliest"))
    );
  }

  /** The topic was created again before anything of the former one was read: what is there now is what is wanted. */
  #startAnew(topic: KnownTopic, former: readonly PartitionReader[]): PartitionReader[] {
    const { partitions: named, from } = this.settings;
    for (const reader of former) this.#readers.delete(this.#retire(reader));
    const lost = former.filter(({ partition }) => topic.partitions[partition] === undefined);
    if (named !== undefined) for (const reader of lost) this.buffer.fail(lostPartition(topic, reader));
    const wanted = topic.partitions.filter(({ partition }) => named?.includes(partition) ?? true);
    return wanted.map(({ partition }) => {
      const reader = this.#add(topic, partition, startOf(from, topic.name, partition));
      const old = former.find((one) => one.partition === partition);
      if (old !== undefined) {
        // The application may have sought.
        if (old.position === undefined) reader.restartFrom(old.startQuery ?? "earliest");
        else reader.restartAt(old.position);
      }
      reader.endOffset = undefined;
      reader.awaitsEnd = this.#untilEnd;
      return reader;
    });
  }

  /** Nothing more is fetched for it, and what was is void. What takes its place is paused if it was. Returns its key. */
  #retire(reader: PartitionReader): string {
    reader.loop?.readers.delete(reader);
    reader.hasFailed = true;
    reader.generation += 1;
    const key = readerKey(reader.topic, reader.partition);
    if (reader.isPaused) this.#paused.add(key);
    return key;
  }

  #onReplaced(topic: KnownTopic, former: readonly PartitionReader[]): PartitionReader[] {
    const policy = this.settings.onOutOfRange;
    const added: PartitionReader[] = [];
    for (const reader of former) {
      const key = this.#retire(reader);
      if (topic.partitions[reader.partition] === undefined) {
        this.#readers.delete(key);
        if (policy !== "error" && this.settings.partitions !== undefined)
          this.buffer.fail(lostPartition(topic, reader));
        continue;
      }
      added.push(this.#add(topic, reader.partition, policy === "error" ? "earliest" : policy));
    }
    if (policy !== "error") return added;
    this.buffer.fail(topicReplacedError({ topic: topic.name }, "make a new consumer, which reads the present one"));
    return [];
  }

  /** Finds where reading begins in these partitions, and where it ends, as long as the present loop lasts. */
  #locate(readers: readonly PartitionReader[]): void {
    const searches = readers.map((reader) => new StartSearch(reader)).filter(({ queries }) => queries.length > 0);
    const signal = this.#search?.signal;
    // Without a loop nobody wants to know; the next one looks it up.
    if (searches.length === 0 || signal === undefined) return;
    this.#locateAll(searches, signal).catch((error: unknown) => {
      // The loop was left, or ends with the reason of its signal, which may be anything.
      if (!signal.aborted && !this.signal.aborted) this.buffer.fail(toClientError(error));
    });
  }

  async #locateAll(searches: readonly StartSearch[], signal: AbortSignal): Promise<void> {
    const { caller, deadlineMs } = this.context;
    for (let open = searches; open.length > 0;) {
      const asked = open.flatMap((search) => search.queries.map((query, index) => ({ search, query, index })));
      const deadline = caller.deadline(deadlineMs);
      const lookups = asked.map(({ search: { reader }, query }) => lookupOf(reader, query));
      const answers = await lookUpOffsets(caller, lookups, deadline, signal, (index, answer) => {
        const one = asked[index];
        // What comes when the loop was left already is nobody's.
        if (one === undefined || signal.aborted) return;
        if (answer instanceof ClientError) this.#giveUp(one.search, answer);
        else if (one.search.onAnswer(one.index, answer.offset)) this.#onLocated(one.search, signal);
      });
      open = open.filter(({ isOver }) => !isOver);
      // Others can be read: those that cannot be for now are waited for, as they are when they stop while they are read.
      const isHopeful = !this.#untilEnd && this.readers.some(({ position }) => position !== undefined);
      for (const search of open) {
        const error = answers.find((answer, index) => asked[index]?.search === search && answer instanceof ClientError);
        if (!(error instanceof ClientError)) continue;
        if (isHopeful) search.reader.trouble = error;
        else this.#giveUp(search, error);
      }
      if (!isHopeful) open = [];
    }
  }

  /** Its topic was created again without the partition, or with another reader for it: it concerns no loop any more. */
  #isReplaced(reader: PartitionReader): boolean {
    return this.#readers.get(readerKey(reader.topic, reader.partition)) !== reader;
  }

  #giveUp(search: StartSearch, error: ClientError): void {
    if (search.isOver) return;
    search.isOver = true;
    if (this.#isReplaced(search.reader)) return;
    // The present loop reads nothing of it.
    if (search.reader.endOffset === 0) return;
    this.buffer.fail(error, search.reader);
  }

  #onLocated(search: StartSearch, signal: AbortSignal): void {
    const { reader, endOffset } = search;
    if (this.#isReplaced(reader)) return;
    reader.hasBegun = true;
    reader.trouble = undefined;
    if (search.startOffset !== undefined && search.generation === reader.generation)
      reader.restartAt(search.startOffset);
    const { position = 0 } = reader;
    if (endOffset !== undefined && position > endOffset) {
      this.#leaveBeyondEnd(reader, endOffset, signal).catch((error: unknown) => {
        if (!signal.aborted && !this.signal.aborted) this.buffer.fail(toClientError(error), reader);
      });
      return;
    }
    this.#onReady(reader, endOffset);
  }

  /** Nothing would ever be fetched for a position behind the end, so that no broker says that it is none. */
  async #leaveBeyondEnd(reader: PartitionReader, endOffset: number, signal: AbortSignal): Promise<void> {
    const { topic, partition, position = 0, generation } = reader;
    const [logStart = 0] = await this.#lookUp([{ reader, query: "earliest" }], signal);
    const { onOutOfRange } = this.settings;
    if (this.#isReplaced(reader)) return;
    // A seek meanwhile has decided otherwise.
    if (reader.generation === generation) {
      if (onOutOfRange === "error")
        throw new OffsetOutOfRangeError(position, logStart, endOffset, { topic, partition });
      reader.restartAt(onOutOfRange === "earliest" ? logStart : endOffset);
    }
    this.#onReady(reader, endOffset);
  }

  #onReady(reader: PartitionReader, endOffset: number | undefined): void {
    if (endOffset !== undefined) reader.endOffset = endOffset;
    reader.awaitsEnd = false;
    // Many are found together.
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.context.env.timers.afterThisTurn(() => {
      this.#isTelling = false;
      this.onAdded();
      this.buffer.wake();
    });
  }

  async #lookUp(
    questions: readonly { readonly reader: PartitionReader; readonly query: OffsetQuery }[],
    signal = this.signal,
  ): Promise<number[]> {
    const { caller, deadlineMs } = this.context;
    const lookups = questions.map(({ reader, query }) => lookupOf(reader, query));
    const answers = await lookUpOffsets(caller, lookups, caller.deadline(deadlineMs), signal);
    return answers.map((answer) => {
      if (answer instanceof ClientError) throw answer;
      return answer.offset;
    });
  }
}

/** The questions by which it is found where reading of a partition begins and ends, and what was answered. */
class StartSearch {
  readonly generation: number;
  readonly queries: readonly OffsetQuery[];
  startOffset: number | undefined;
  endOffset: number | undefined;
  isOver = false;
  readonly #startOf: ((offsets: readonly number[]) => number) | undefined;
  readonly #offsets: number[] = [];
  #answered = 0;

  constructor(readonly reader: PartitionReader) {
    this.generation = reader.generation;
    const start = reader.position === undefined ? startQueries(reader.startQuery ?? "earliest") : undefined;
    this.#startOf = start?.offsetOf;
    this.queries = [...(start?.queries ?? []), ...(reader.awaitsEnd ? (["latest"] as const) : [])];
  }

  /** Whether all are answered now. */
  onAnswer(index: number, offset: number): boolean {
    if (this.#offsets[index] === undefined) this.#answered += 1;
    this.#offsets[index] = offset;
    if (this.isOver || this.#answered < this.queries.length) return false;
    this.isOver = true;
    this.startOffset = this.#startOf?.(this.#offsets);
    if (this.reader.awaitsEnd) this.endOffset = this.#offsets[this.queries.length - 1];
    return true;
  }
}

const lookupOf = ({ topic, partition }: TopicPartition, query: OffsetQuery): OffsetLookup => ({
  topic,
  partition,
  query,
});

const lostPartition = ({ name, partitions }: KnownTopic, { partition }: TopicPartition): ClientError =>
  new ProtocolError(
    "UNKNOWN_TOPIC_OR_PARTITION",
    `the topic was created again with ${partitions.length} partition${partitions.length === 1 ? "" : "s"}`,
    { topic: name, partition },
  );

const readerKey = (topic: string, partition: number): string => `${topic}:${partition}`;

function startAt(reader: PartitionReader, to: Position): void {
  if (typeof to === "object" && "offset" in to) reader.restartAt(to.offset);
  else reader.restartFrom(to);
}
