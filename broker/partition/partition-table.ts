import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import type { TopicState } from "../../protocol/messages.js";
import type { BrokerId, TopicId } from "../../protocol/types.js";
import type { BrokerConfig } from "../config.js";
import { TopicConfig } from "../config.js";
import type { LogManager, LogSettings } from "../log/index.js";
import { logSettings } from "./log-settings.js";
import { Partition } from "./partition.js";
import type { PartitionParts } from "./partition.js";
import { committedState } from "./partition-state.js";

interface HostedTopic {
  changes: TopicState["config"];
  /** As the controller resolved it, so that every replica keeps what the controller counts on. Empty: it did not say. */
  durability: string;
  /** What the changes and the broker's own settings come to. */
  config: TopicConfig;
  logSettings: LogSettings;
  readonly partitions: Map<number, Partition>;
}

/**
 * The replicas on this broker, by topic id and partition: turns what the controller committed into roles. A topic created
 * again under the same name has another id, so its partitions are others.
 */
export class PartitionTable {
  readonly #topics = new Map<TopicId, HostedTopic>();
  /** All of them, in one list; undefined when it is to be made anew. */
  #list: readonly Partition[] | undefined;

  constructor(
    private readonly logger: Logger,
    private readonly brokerId: BrokerId,
    private readonly brokerConfig: BrokerConfig,
    private readonly logs: LogManager,
    private readonly parts: PartitionParts,
  ) {}

  get(topicId: TopicId, partition: number): Partition | undefined {
    return this.#topics.get(topicId)?.partitions.get(partition);
  }

  /** The same list until a partition comes or goes. */
  all(): readonly Partition[] {
    return (this.#list ??= [...this.#topics.values()].flatMap(({ partitions }) => [...partitions.values()]));
  }

  /** Takes over the states of a topic's partitions. Config comes first, so that no partition ever runs without its own. */
  applyTopic(topic: TopicState): void {
    const { config: changes, durability } = topic;
    let hosted = this.#topics.get(topic.topicId);
    if (hosted === undefined) {
      hosted = { ...this.#resolve(changes, durability), partitions: new Map() };
      this.#topics.set(topic.topicId, hosted);
    } else if (hosted.durability !== durability || !isSameConfig(hosted.changes, changes)) {
      this.#reconfigure(hosted, changes, durability);
    }
    for (const message of topic.partitions) {
      if (!message.replicas.includes(this.brokerId)) {
        this.#giveUp(topic.topicId, message.partition);
        continue;
      }
      const partition = hosted.partitions.get(message.partition) ?? this.#host(topic, message.partition, hosted);
      partition.applyState(committedState(message));
    }
  }

  /** The broker's own settings changed: what topics inherit changes with them. */
  reconfigure(): void {
    for (const topic of this.#topics.values()) this.#reconfigure(topic, topic.changes, topic.durability);
  }

  async deleteTopic(topicId: TopicId): Promise<void> {
    const deleted = this.forgetTopic(topicId, "the topic is deleted");
    await Promise.all(deleted.map((partition) => this.logs.remove(partition.topicId, partition.partition)));
  }

  /** Ends the roles of a topic's partitions, within this turn. Their logs stay. */
  forgetTopic(topicId: TopicId, reason: string): readonly Partition[] {
    const partitions = [...(this.#topics.get(topicId)?.partitions.values() ?? [])];
    for (const partition of partitions) this.#forget(partition, reason);
    this.#topics.delete(topicId);
    this.#list = undefined;
    return partitions;
  }

  /**
   * After a complete image: logs on the disk that no order names are renamed aside, never served and never silently deleted.
   */
  async setStraysAside(): Promise<void> {
    this.logs.forgetStartsWithoutLog();
    for (const log of [...this.logs.all()]) {
      // An order may have named it while others were renamed.
      if (this.get(log.topicId, log.partition) !== undefined) continue;
      this.logger.warn(
        `${log.topic}-${log.partition} (topic id ${log.topicId}) is not among this broker's replicas; its log is set aside`,
      );
      await this.logs.setAside(log.topicId, log.partition);
    }
  }

  /** Within this turn: no partition leads or follows any more. */
  dropRoles(reason: string): void {
    for (const partition of this.all()) partition.dropRole(reason);
  }

  #host(topic: TopicState, index: number, hosted: HostedTopic): Partition {
    const { topicId, name } = topic;
    const log = this.logs.create(topicId, name, index, hosted.logSettings);
    const partition = new Partition(this.parts, topicId, name, index, log, hosted.config);
    hosted.partitions.set(index, partition);
    this.#list = undefined;
    return partition;
  }

  #resolve(changes: TopicState["config"], durability: string): Omit<HostedTopic, "partitions"> {
    const config = new TopicConfig(this.brokerConfig, changes);
    return { changes, durability, config, logSettings: logSettings(this.brokerConfig, config, durability) };
  }

  #reconfigure(topic: HostedTopic, changes: TopicState["config"], durability: string): void {
    Object.assign(topic, this.#resolve(changes, durability));
    for (const partition of topic.partitions.values()) {
      partition.log.updateSettings(topic.logSettings);
      partition.setConfig(topic.config);
    }
  }

  #giveUp(topicId: TopicId, index: number): void {
    const partition = this.get(topicId, index);
    if (partition === undefined) return;
    this.#forget(partition, "this broker is no replica of it any more");
    this.logs.setAside(topicId, index).catch((error: unknown) => {
      this.logger.error(`${partition.name}: its log could not be set aside: ${reasonOf(error)}`);
    });
  }

  #forget(partition: Partition, reason: string): void {
    partition.dropRole(reason);
    this.#topics.get(partition.topicId)?.partitions.delete(partition.partition);
    this.#list = undefined;
  }
}

function isSameConfig(left: TopicState["config"], right: TopicState["config"]): boolean {
  return (
    left.length === right.length &&
    left.every(({ name, value }, index) => right[index]?.name === name && right[index].value === value)
  );
}
