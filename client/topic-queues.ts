import type { MemoryShare } from "./buffer-pool.js";
import { noPartitionError } from "./errors.js";
import type { KnownTopic, Metadata } from "./metadata.js";
import type { Partitioner } from "./options.js";
import type { QueueHost } from "./partition-queue.js";
import { PartitionQueue } from "./partition-queue.js";
import type { ProducerRecord } from "./producer-record.js";

/** After so many records without a key that wait for memory, others wait for another partition. */
const WAITING_THERE_MAX = 100;

/**
 * The queues of one topic, one for each partition, and which of them a record goes to. Records that name no partition and
 * have no key stick to one until the batch there is closed, because full batches are cheaper than many small ones.
 */
export class TopicQueues {
  readonly name: string;
  readonly #host: QueueHost;
  readonly #queues: PartitionQueue[] = [];
  /** Partitions that are no more, with what they hold yet. */
  readonly #gone: PartitionQueue[] = [];
  /** Where records without a key go; -1: to be chosen. */
  #sticky = -1;
  /** So many have stuck to it that wait for memory. */
  #waitingThere = 0;

  constructor(
    host: QueueHost,
    private readonly metadata: Metadata,
    private readonly partitioner: Partitioner,
    topic: KnownTopic,
  ) {
    this.#host = host;
    this.name = topic.name;
    this.#follow(topic);
  }

  /** Whether the topic is known to have this partition. */
  has(partition: number): boolean {
    return this.#queues[partition] !== undefined;
  }

  /** Throws InvalidArgumentError when there is no such partition. */
  queueOf(record: ProducerRecord): PartitionQueue {
    const partition = this.#partitionOf(record);
    const queue = this.#queues[partition];
    if (queue !== undefined) return queue;
    throw noPartitionError(this.name, partition, this.#queues.length);
  }

  /**
   * Where a record goes that found no room where it was to go; undefined: nowhere else. Only one without a key has the
   * choice.
   */
  queueInsteadOf(queue: PartitionQueue, record: ProducerRecord): PartitionQueue | undefined {
    if (!isFree(record)) return undefined;
    const other = this.#chooseSticky(({ share }) => !share.isShort && share !== queue.share);
    if (other < 0) return undefined;
    this.#sticky = other;
    return this.#queues[other];
  }

  /**
   * The topic was described anew: it may have got partitions or other leaders, or be another one of the same name. Called
   * before `onMetadata`; returns whether some partition has moved to another share of the memory, or is gone.
   */
  place(topic: KnownTopic): boolean {
    // Only one that was created again can have fewer partitions.
    const gone = this.#queues.splice(topic.partitions.length);
    if (this.#sticky >= this.#queues.length) this.#sticky = -1;
    for (const queue of gone) queue.isGone = true;
    this.#gone.push(...gone);
    let hasMoved = gone.length > 0;
    for (const queue of this.#queues) {
      const share = this.#shareOf(queue.partition);
      if (share === queue.share) continue;
      queue.moveTo(share);
      hasMoved = true;
    }
    this.#follow(topic);
    return hasMoved;
  }

  onMetadata(topic: KnownTopic): void {
    const gone = this.#gone.splice(0);
    for (const queue of gone) queue.leave(noPartitionError(this.name, queue.partition, topic.partitions.length));
    for (const queue of this.#queues) queue.onMetadata(topic);
  }

  /** No more records go into the batch that was open in a partition. */
  onClosedBatch(partition: number): void {
    if (this.#sticky === partition) this.#sticky = -1;
  }

  #follow(topic: KnownTopic): void {
    for (let partition = this.#queues.length; partition < topic.partitions.length; partition += 1) {
      this.#queues.push(new PartitionQueue(this.#host, topic, partition, this.#shareOf(partition)));
    }
  }

  #shareOf(partition: number): MemoryShare {
    return this.#host.pool.shareOf(this.metadata.leaderOf(this.name, partition)?.leaderId ?? -1);
  }

  #partitionOf(record: ProducerRecord): number {
    if (record.partition !== undefined) return record.partition;
    if (record.key !== undefined && record.key !== null) return this.partitioner(record.key, this.#queues.length);
    if (this.#queues[this.#sticky]?.share.isShort === true) this.#unstick();
    if (this.#sticky < 0) {
      this.#waitingThere = 0;
      this.#sticky = this.#chooseSticky(() => true);
    }
    return this.#sticky;
  }

  /** A record that comes now would wait for memory where it sticks: it goes where there is some, or where others wait. */
  #unstick(): void {
    this.#waitingThere += 1;
    const roomy = this.#host.pool.hasRoom ? this.#chooseSticky(({ share }) => !share.isShort) : -1;
    if (roomy >= 0) this.#sticky = roomy;
    else if (this.#waitingThere >= WAITING_THERE_MAX) this.#sticky = -1;
  }

  /** Any partition of those allowed that has a leader, or any of them when none has; -1: none is allowed. */
  #chooseSticky(isAllowed: (queue: PartitionQueue) => boolean): number {
    const count = this.#queues.length;
    const start = this.#host.env.random.below(count);
    let any = -1;
    for (let step = 0; step < count; step += 1) {
      const partition = (start + step) % count;
      if (!isAllowed(this.#queues[partition] as PartitionQueue)) continue;
      if (this.metadata.leaderOf(this.name, partition) !== undefined) return partition;
      if (any < 0) any = partition;
    }
    return any;
  }
}

/** Neither its author nor its key says where it goes. */
const isFree = ({ partition, key }: ProducerRecord): boolean =>
  partition === undefined && (key === undefined || key === null);
