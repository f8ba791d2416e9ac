import type { Logger } from "../../common/logger.js";
import type { BrokerEpoch, BrokerId, TopicId } from "../../protocol/types.js";
import { minInsyncReplicas } from "../config.js";
import type { ConfigZnode } from "../zookeeper/znodes.js";
import { NO_LEADER } from "../zookeeper/znodes.js";
import type { BrokerChannel } from "./broker-channel.js";
import type { ClusterState, Partition, Topic } from "./cluster-state.js";
import type { ControllerSettings } from "./controller-settings.js";
import type { ControllerStore, PartitionWrite } from "./controller-store.js";
import type { ElectionGround, ElectionRules } from "./leader-election.js";
import type { PartitionMove } from "./partition-state-machine.js";
import { isSame, newPartition } from "./partition-state-machine.js";

/** A partition's next state, and why. */
export interface PartitionChange {
  readonly topic: Topic;
  readonly from: Partition;
  readonly to: Partition;
  readonly ground?: ElectionGround | undefined;
  /** It is written though nothing but its partition epoch changes. */
  readonly renewed?: boolean;
  readonly why: string;
}

export interface PartitionChangesParts {
  readonly state: ClusterState;
  readonly store: ControllerStore;
  readonly settings: ControllerSettings;
  readonly channels: ReadonlyMap<BrokerId, BrokerChannel>;
  readonly isElectable: (brokerId: BrokerId) => boolean;
  readonly isReached: (brokerId: BrokerId) => boolean;
  readonly isAwaited: (brokerId: BrokerId) => boolean;
}

/**
 * The way from a decision to the brokers: write it to ZooKeeper, then apply it to the state in memory, then order it.
 * Nothing reaches the second step that was not committed. Also knows the rules that hold for a topic's elections now.
 */
export class PartitionChanges {
  readonly #logger: Logger;
  readonly #parts: PartitionChangesParts;

  constructor(logger: Logger, parts: PartitionChangesParts) {
    this.#logger = logger;
    this.#parts = parts;
  }

  /** What holds for the topic now, with its settings as they are or as they are about to be. */
  rules(
    topic: Topic,
    { config = topic.config, shared }: { readonly config?: ConfigZnode; readonly shared?: ConfigZnode } = {},
  ): (partition: { readonly replicas: readonly BrokerId[] }) => ElectionRules {
    const { state, settings, isElectable, isReached, isAwaited } = this.#parts;
    const setting = (name: string): string | undefined =>
      config.get(name) ?? (shared === undefined ? state.sharedSetting(name) : shared.get(name));
    const minimum = setting("min.insync.replicas");
    const unclean = setting("unclean.leader.election.enable");
    return ({ replicas }) => ({
      isElectable,
      isAwaited,
      isReached,
      isAlive: (brokerId) => state.brokers.has(brokerId),
      minInsyncReplicas: minInsyncReplicas(
        minimum === undefined ? settings.minInsyncReplicas : Number(minimum),
        replicas.length,
      ),
      durability: this.durability(topic, { config, ...(shared !== undefined && { shared }) }),
      uncleanAllowed: unclean === undefined ? settings.uncleanLeaderElection : unclean === "true",
    });
  }

  /** What holds for all replicas of the topic, whatever is in their brokers' own files. Arguments as for `rules`. */
  durability(
    topic: Topic,
    { config = topic.config, shared }: { readonly config?: ConfigZnode; readonly shared?: ConfigZnode } = {},
  ): string {
    const { settings, state } = this.#parts;
    const inherited = shared === undefined ? state.sharedSetting("log.durability") : shared.get("log.durability");
    return config.get("durability") ?? inherited ?? settings.durability;
  }

  /** The changes that `move` makes of all partitions. */
  collect(
    why: string,
    move: (partition: Partition, rules: ElectionRules, topic: Topic) => PartitionMove | undefined,
  ): PartitionChange[] {
    const changes: PartitionChange[] = [];
    for (const topic of this.#parts.state.topics.values()) {
      const rulesOf = this.rules(topic);
      for (const from of topic.partitions.values()) {
        const moved = move(from, rulesOf(from), topic);
        if (moved !== undefined) changes.push({ topic, from, to: moved.to, ground: moved.ground, why });
      }
    }
    return changes;
  }

  /**
   * Writes and applies. Partitions whose leader changes go first, each transaction's orders leave as soon as it is
   * committed: nobody waits for a leader longer than for the ones before it. Rejects as the store does.
   */
  async commit(changes: readonly PartitionChange[]): Promise<void> {
    const written: PartitionChange[] = [];
    for (const change of changes) {
      if (isSame(change.from, change.to) && change.renewed !== true)
        change.topic.partitions.set(change.to.partition, change.to);
      else
        written.push({ ...change, to: this.#seated({ ...change.to, partitionEpoch: change.from.partitionEpoch + 1 }) });
    }
    const isElection = ({ from, to }: PartitionChange): boolean => from.leader !== to.leader;
    for (const part of [written.filter(isElection), written.filter((change) => !isElection(change))]) {
      const byState = new Map<Partition, PartitionChange>(part.map((change) => [change.to, change]));
      await this.#parts.store.writeStates(part, (chunk) => {
        this.apply(chunk);
        for (const { to } of chunk) this.#say(byState.get(to));
      });
    }
  }

  /** The first state of a new partition. */
  born(topic: Topic, partition: number, replicas: readonly BrokerId[]): Partition {
    return this.#seated(newPartition(partition, replicas, this.rules(topic)({ replicas })));
  }

  /**
   * A state that is about to be written, with the processes that hold its seats: as they are registered, which has been
   * judged in the state or is with this write. Whoever is away holds its seat as the process that it was.
   */
  #seated(partition: Partition): Partition {
    const brokerEpochs = new Map<BrokerId, BrokerEpoch>();
    for (const id of [...partition.isr, ...partition.elr, ...partition.unverified]) {
      const epoch = this.#parts.state.brokers.get(id)?.epoch ?? partition.brokerEpochs.get(id);
      if (epoch !== undefined) brokerEpochs.set(id, epoch);
    }
    return { ...partition, brokerEpochs };
  }

  /** Applies what is committed, and orders it. */
  apply(chunk: readonly PartitionWrite[]): void {
    const byTopic = new Map<TopicId, number[]>();
    for (const { topic, to } of chunk) {
      topic.partitions.set(to.partition, to);
      const numbers = byTopic.get(topic.topicId);
      if (numbers === undefined) byTopic.set(topic.topicId, [to.partition]);
      else numbers.push(to.partition);
    }
    for (const channel of this.#parts.channels.values()) {
      for (const [topicId, numbers] of byTopic) channel.partitionsChanged(topicId, numbers);
    }
  }

  /** Orders all of a topic again. */
  tell({ topicId, partitions }: Topic): void {
    for (const channel of this.#parts.channels.values()) channel.partitionsChanged(topicId, partitions.keys());
  }

  #say(change: PartitionChange | undefined): void {
    if (change === undefined) return;
    const { topic, from, to, ground, why } = change;
    const name = `${topic.name}-${to.partition}`;
    if (from.leader !== to.leader) {
      const leader = (id: BrokerId): string => (id === NO_LEADER ? "none" : String(id));
      const how = ground === undefined || ground === "in sync" ? "" : `, ${ground}`;
      const sentence = `${name}: leader ${leader(from.leader)} -> ${leader(to.leader)} in epoch ${to.leaderEpoch}${how}, ISR ${to.isr.join()} (${why}).`;
      if (ground === "unclean") this.#logger.warn(`${sentence} Acknowledged records may be lost.`);
      else this.#logger.info(sentence);
    } else {
      this.#logger.info(
        `${name}: ISR ${from.isr.join()} -> ${to.isr.join()}${eligible(to)}${uncertain(to)}${durability(from, to)} (${why}).`,
      );
    }
  }
}

function durability(from: Partition, to: Partition): string {
  return from.durability === to.durability ? "" : `, durability ${to.durability}`;
}

function uncertain({ unverified }: Partition): string {
  return unverified.length > 0 ? `, uncertain ${unverified.join()}` : "";
}

function eligible({ elr }: Partition): string {
  return elr.length > 0 ? `, eligible ${elr.join()}` : "";
}
