import { InvalidArgumentError, topicReplacedError } from "./errors.js";
import type { KnownTopic, Metadata } from "./metadata.js";
import type { Partitioner } from "./options.js";
import type { QueueHost } from "./partition-queue.js";
import { PartitionQueue } from "./partition-queue.js";
import type { ProducerRecord } from "./producer-record.js";

/**
 * The queues of one topic, one for each partition, and which of them a record goes to. Records that name no partition and
 * have no key stick to one until the batch there is closed, because full batches are cheaper than many small ones.
 */
export class TopicQueues {
  readonly name: string;
  readonly #host: QueueHost;
  readonly #queues: PartitionQueue[] = [];
  /** Where records without a key go; -1: to be chosen. */
  #sticky = -1;

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
    throw new InvalidArgumentError(
      `${this.name} has no partition ${partition}`,
      `choose one from 0 to ${this.#queues.length - 1}`,
    );
  }

  /** The topic was described anew: it may have got partitions, or be another one of the same name. */
  onMetadata(topic: KnownTopic): void {
    // Only one that was created again can have fewer partitions.
    const gone = this.#queues.splice(topic.partitions.length);
    if (this.#sticky >= this.#queues.length) this.#sticky = -1;
    this.#follow(topic);
    for (const queue of gone) queue.failAll(topicReplacedError({ topic: this.name, partition: queue.partition }));
    for (const queue of this.#queues) queue.onMetadata(topic);
  }

  /** No more records go into the batch that was open in a partition. */
  onClosedBatch(partition: number): void {
    if (this.#sticky === partition) this.#sticky = -1;
  }

  #follow(topic: KnownTopic): void {
    for (let partition = this.#queues.length; partition < topic.partitions.length; partition += 1) {
      this.#queues.push(new PartitionQueue(this.#host, topic, partition));
    }
  }

  #partitionOf(record: ProducerRecord): number {
    if (record.partition !== undefined) return record.partition;
    if (record.key !== undefined && record.key !== null) return this.partitioner(record.key, this.#queues.length);
    if (this.#sticky < 0) this.#sticky = this.#chooseSticky();
    return this.#sticky;
  }

  /** Any partition that has a leader, or any at all when none has. */
  #chooseSticky(): number {
    const count = this.#queues.length;
    const start = this.#host.env.random.below(count);
    for (let step = 0; step < count; step += 1) {
      const partition = (start + step) % count;
      if (this.metadata.leaderOf(this.name, partition) !== undefined) return partition;
    }
    return start;
  }
}
