import type { ApiError } from "../../protocol/error-codes.js";
import type { FetchPartition, FetchRequest } from "../../protocol/messages.js";
import type { BrokerId, LeaderEpoch, Offset, PartitionKey, TopicId } from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";
import type { Divergence } from "../partition/leadership.js";
import type { Partition, PartitionObserver } from "../partition/partition.js";

/** One partition of a fetch session: what its reader asked for last, and what it was told last. */
export interface SessionPartition {
  readonly topicId: TopicId;
  readonly index: number;
  partition: Partition | undefined;
  fetchOffset: Offset;
  leaderEpoch: LeaderEpoch | undefined;
  /** Of a follower: where its own log begins. */
  logStartOffset: number;
  maxBytes: number;
  /** What came of the reader's last word on this partition, told in place of records: it is refused, or its log parts. */
  refusal: ApiError | undefined;
  divergence: Divergence | undefined;
  /** The reader got a damaged batch from here. */
  verify: boolean;
  /** For which question (`asked`) that is being done, or was. */
  verifying: number | undefined;
  /** Grows each time the reader asks: what comes of an older question is no answer to a newer one. */
  asked: number;
  /** Records are being read or were sent, so the reader's next position is not known until it asks again. */
  awaitsReader: boolean;
  /** It has changed since then. */
  changedMeanwhile: boolean;
  /** undefined: never told. */
  toldHighWatermark: Offset | undefined;
  toldLogStart: Offset | undefined;
}

/** How many partitions the fetches of all consumers name. */
export interface NamedPartitions {
  count: number;
}

/** How strongly a change asks for an answer. `records`: now. `watermark`: soon, a follower need not hear of it at once. */
export type Urgency = "records" | "watermark";

/**
 * A reader's standing interest in partitions (KIP-227). Partitions tell the session when they change, so a fetch looks only
 * at those that did, however many the session holds.
 */
export class FetchSession implements PartitionObserver {
  /** The next request must carry this. */
  nextEpoch = 2;
  /** Called by `close`. */
  onClosed: (() => void) | undefined;
  readonly #partitions = new Map<PartitionKey, SessionPartition>();
  readonly #byPartition = new Map<Partition, SessionPartition>();
  /** Those with something to tell, longest waiting first. */
  readonly #changed = new Set<SessionPartition>();
  #onChange: ((urgency: Urgency) => void) | undefined;

  constructor(
    /** 0: lasts for one request. */
    readonly id: number,
    readonly connectionId: number,
    /** The follower that reads; undefined: a consumer. */
    readonly replicaId: BrokerId | undefined,
    private readonly named: NamedPartitions,
  ) {}

  /** How many partitions it would hold after a request. */
  sizeAfter(request: Pick<FetchRequest, "partitions" | "forgotten">): number {
    const keys = new Set(this.#partitions.keys());
    for (const { topicId, partition } of request.forgotten) keys.delete(partitionKey(topicId, partition));
    for (const { topicId, partition } of request.partitions) keys.add(partitionKey(topicId, partition));
    return keys.size;
  }

  get size(): number {
    return this.#partitions.size;
  }

  changed(): ReadonlySet<SessionPartition> {
    return this.#changed;
  }

  markTold(partition: SessionPartition): void {
    this.#changed.delete(partition);
  }

  /** The disk is read again where the reader got damage. It is told nothing of the partition before that is done. */
  verify(entry: SessionPartition): void {
    const { partition, asked } = entry;
    if (partition === undefined || entry.verifying === asked) return;
    entry.verifying = asked;
    void partition.verify(entry.fetchOffset).then(() => {
      if (entry.asked !== asked || entry.partition !== partition) return;
      entry.verify = false;
      this.#noteChange(partition, "records");
    });
  }

  /** No records are sent after all, so it is not for the reader to ask again: what has changed meanwhile is to be told. */
  nothingRead(entry: SessionPartition, asked: number): void {
    if (entry.asked !== asked || !entry.awaitsReader || entry.partition === undefined) return;
    entry.awaitsReader = false;
    if (entry.changedMeanwhile) this.#noteChange(entry.partition, "records");
    entry.changedMeanwhile = false;
  }

  /** Adds a partition or changes what is asked of it. */
  put(request: FetchPartition, partition: Partition | undefined, fetchOffset: Offset): SessionPartition {
    const key = partitionKey(request.topicId, request.partition);
    let entry = this.#partitions.get(key);
    if (entry === undefined) {
      entry = {
        topicId: request.topicId,
        index: request.partition,
        partition: undefined,
        fetchOffset,
        leaderEpoch: undefined,
        logStartOffset: 0,
        maxBytes: 0,
        refusal: undefined,
        divergence: undefined,
        verify: false,
        verifying: undefined,
        asked: 0,
        awaitsReader: false,
        changedMeanwhile: false,
        toldHighWatermark: undefined,
        toldLogStart: undefined,
      };
      this.#partitions.set(key, entry);
      this.named.count += 1;
    }
    this.#attach(entry, partition);
    entry.fetchOffset = fetchOffset;
    entry.leaderEpoch = request.leaderEpochPlusOne === 0 ? undefined : request.leaderEpochPlusOne - 1;
    entry.logStartOffset = request.logStartOffset;
    entry.maxBytes = request.maxBytes;
    // It was told and does not have it: an answer may have come when it could not use it.
    if (this.replicaId !== undefined && request.logStartOffset < (entry.toldLogStart ?? 0))
      entry.toldLogStart = undefined;
    entry.refusal = undefined;
    entry.divergence = undefined;
    entry.verify = request.verify;
    entry.awaitsReader = false;
    entry.changedMeanwhile = false;
    entry.asked += 1;
    this.#changed.add(entry);
    return entry;
  }

  forget(key: PartitionKey): void {
    const entry = this.#partitions.get(key);
    if (entry === undefined) return;
    this.#attach(entry, undefined);
    this.#partitions.delete(key);
    this.named.count -= 1;
    this.#changed.delete(entry);
  }

  /** `onChange` is called whenever a partition of the session changes, until it is replaced. */
  park(onChange: ((urgency: Urgency) => void) | undefined): void {
    this.#onChange = onChange;
  }

  close(): void {
    this.#onChange = undefined;
    for (const entry of this.#partitions.values()) this.#attach(entry, undefined);
    this.named.count -= this.#partitions.size;
    this.#partitions.clear();
    this.#changed.clear();
    this.onClosed?.();
    this.onClosed = undefined;
  }

  onAppended(partition: Partition): void {
    if (this.replicaId !== undefined) this.#noteChange(partition, "records");
  }

  onHighWatermark(partition: Partition): void {
    this.#noteChange(partition, this.replicaId === undefined ? "records" : "watermark");
  }

  onLogStart(partition: Partition): void {
    if (this.replicaId !== undefined) this.#noteChange(partition, "records");
  }

  onRoleChanged(partition: Partition): void {
    this.#noteChange(partition, "records");
  }

  #noteChange(partition: Partition, urgency: Urgency): void {
    const entry = this.#byPartition.get(partition);
    if (entry === undefined) return;
    if (entry.awaitsReader) {
      entry.changedMeanwhile = true;
      return;
    }
    this.#changed.add(entry);
    this.#onChange?.(urgency);
  }

  #attach(entry: SessionPartition, partition: Partition | undefined): void {
    if (entry.partition === partition) return;
    if (entry.partition !== undefined) {
      entry.partition.unobserve(this);
      this.#byPartition.delete(entry.partition);
    }
    entry.partition = partition;
    if (partition !== undefined) {
      partition.observe(this);
      this.#byPartition.set(partition, entry);
    }
  }
}
