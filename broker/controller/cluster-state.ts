import type { ConfigEntry, Endpoint } from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId } from "../../protocol/types.js";
import { isForAllBrokers } from "../config.js";
import type { ConfigZnode, LastStop, PartitionDurability } from "../zookeeper/znodes.js";
import { configEntries, defaultBrokerConfig, paths } from "../zookeeper/znodes.js";

/** A registered broker. */
export interface Broker {
  readonly id: BrokerId;
  readonly epoch: BrokerEpoch;
  /** Version of its registration's znode. */
  readonly version: number;
  readonly incarnation: string;
  readonly lastStop: LastStop;
  readonly rack: string | undefined;
  readonly endpoints: readonly Endpoint[];
}

/** What was decided for one partition, as it stands in ZooKeeper. Replaced as a whole, never changed. */
export interface Partition {
  readonly partition: number;
  /** The preferred leader first. */
  readonly replicas: readonly BrokerId[];
  /** `NO_LEADER`: none. */
  readonly leader: BrokerId;
  readonly leaderEpoch: LeaderEpoch;
  /** Version of its znode. */
  readonly partitionEpoch: PartitionEpoch;
  readonly isr: readonly BrokerId[];
  /** Outside the ISR, and yet holding every committed record (KIP-966). */
  readonly elr: readonly BrokerId[];
  /**
   * Replicas whose machine lost its power or disk since they last proved what they hold: members of the ISR, which keep
   * their seat as long as nobody better is there, and those that were eligible until then. They lead only when everybody was
   * asked. In ZooKeeper, because a successor cannot tell it from the registrations: the next ones speak of a later stop.
   */
  readonly unverified: readonly BrokerId[];
  /**
   * With how many in-sync replicas the leader moves the high watermark; it learns it together with the rest. Not in
   * ZooKeeper: follows from the settings, and the state is renewed when they change.
   */
  readonly minInsyncReplicas: number;
  /**
   * Of the unverified, those that lost their disk: they are not elected as long as one that was to be asked is
   * away.
   */
  readonly lost: readonly BrokerId[];
  /**
   * The processes that those named above were when this state was written, as far as they were registered. In ZooKeeper,
   * because a successor, and this controller when it reads everything again, cannot tell otherwise whom a seat was given to:
   * by then another process may be registered under the id, and the state may be newer than its registration.
   */
  readonly brokerEpochs: ReadonlyMap<BrokerId, BrokerEpoch>;
  /** What the records that are there can be trusted to survive; behind the setting, as long as it is not confirmed. */
  readonly durability: PartitionDurability;
}

export interface Topic {
  readonly name: string;
  readonly topicId: TopicId;
  /** Version of the znode that holds the assignment. */
  version: number;
  /** Only what was set for this topic. */
  config: ConfigZnode;
  /** As the committed assignment says; 0: some of those cannot be made, and the others must do. */
  partitionCount: number;
  /** How many there were before those that are being made; 0 when it is being made itself, or nobody knows any more. */
  growsFrom: number;
  /** Those whose state is committed; all of them but in the middle of a creation. */
  readonly partitions: Map<number, Partition>;
}

/**
 * The cluster as the controller has committed it, in memory. Plain data: whoever changes it has written ZooKeeper
 * before. What is known of brokers beyond their registration (who cannot be reached, who is about to stop) is here
 * too, and is not in ZooKeeper; who has answered is in `EvidenceOfLife`.
 */
export class ClusterState {
  readonly brokers = new Map<BrokerId, Broker>();
  readonly topics = new Map<string, Topic>();
  readonly topicsById = new Map<TopicId, Topic>();
  /** By broker id or `<default>`. */
  readonly brokerConfigs = new Map<string, ConfigZnode>();
  /**
   * Nodes of topics and settings that stand in ZooKeeper and could not be read, with the transaction that wrote each. What
   * they are about is unknown, which is not the same as absent.
   */
  readonly unreadable = new Map<string, bigint>();
  /** Names of topics that are in ZooKeeper and, because a node of theirs is unreadable, not here. */
  readonly unreadableTopics = new Set<string>();
  /** Brokers nobody answers for at their address, under this epoch. */
  readonly unreachable = new Map<BrokerId, BrokerEpoch>();
  /** Brokers that asked to stop, under this epoch. */
  readonly stopping = new Map<BrokerId, BrokerEpoch>();

  addTopic(topic: Topic): void {
    this.topics.set(topic.name, topic);
    this.topicsById.set(topic.topicId, topic);
  }

  removeTopic(topic: Topic): void {
    this.topics.delete(topic.name);
    this.topicsById.delete(topic.topicId);
  }

  get partitionCount(): number {
    let count = 0;
    for (const topic of this.topics.values()) count += topic.partitions.size;
    return count;
  }

  /** Whether the broker is registered under this very epoch. */
  isCurrent(brokerId: BrokerId, epoch: BrokerEpoch): boolean {
    return this.brokers.get(brokerId)?.epoch === epoch;
  }

  /** It is not registered any more. */
  removeBroker(brokerId: BrokerId): void {
    this.brokers.delete(brokerId);
    this.unreachable.delete(brokerId);
    this.stopping.delete(brokerId);
  }

  isUnreachable(broker: Broker): boolean {
    return this.unreachable.get(broker.id) === broker.epoch;
  }

  isStopping(broker: Broker): boolean {
    return this.stopping.get(broker.id) === broker.epoch;
  }

  /** The settings changed at run time that hold for a broker: those of all brokers, and above them its own. */
  brokerConfigOf(brokerId: BrokerId): ConfigEntry[] {
    const shared = this.brokerConfigs.get(defaultBrokerConfig) ?? new Map<string, string>();
    const own = [...(this.brokerConfigs.get(String(brokerId)) ?? [])].filter(([name]) => !isForAllBrokers(name));
    return configEntries(new Map([...shared, ...own]));
  }

  /** Whether `brokerConfigOf` says all there is. */
  isBrokerConfigReadable(brokerId: BrokerId): boolean {
    return [defaultBrokerConfig, String(brokerId)].every(
      (name) => this.brokerConfigs.has(name) || !this.unreadable.has(paths.brokerConfig(name)),
    );
  }

  /** The value that all brokers were given for a setting at run time. */
  sharedSetting(name: string): string | undefined {
    return this.brokerConfigs.get(defaultBrokerConfig)?.get(name);
  }
}
