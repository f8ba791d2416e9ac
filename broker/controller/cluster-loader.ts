import { counted } from "../../common/counted.js";
import type { Logger } from "../../common/logger.js";
import type { BrokerId, PartitionKey } from "../../protocol/types.js";
import { brokerEpochNumber, partitionKey } from "../../protocol/types.js";
import { NO_LEADER, paths } from "../zookeeper/znodes.js";
import type { ClusterState, Partition, Topic } from "./cluster-state.js";
import { hindranceSentence, isRefusal } from "./controller-store.js";
import type { ControllerStore, StoredTopic, UnreadableNodes } from "./controller-store.js";
import type { PartitionChange, PartitionChanges } from "./partition-changes.js";
import { inTurn, withLeader, withRegistrations, withSettings } from "./partition-state-machine.js";
import { uncertainAmong } from "./uncertain-replicas.js";

/** Brokers that are not the process any more that a partition's state names. */
type RestartedReplicas = ReadonlyMap<PartitionKey, ReadonlySet<BrokerId>>;

/** What was read and has consequences. */
interface LoadedCluster {
  readonly restarted: RestartedReplicas;
  /** Topics of which a predecessor has not made all partitions. */
  readonly unfinished: readonly StoredTopic[];
  /** Topics that a predecessor has not removed as a whole. */
  readonly deleted: readonly StoredTopic[];
}

/**
 * Reads the whole cluster into memory at a takeover, and again after a write of unknown outcome: what is stored, what follows
 * from what happened while nobody looked, and what a predecessor left half done.
 */
export class ClusterLoader {
  constructor(
    private readonly logger: Logger,
    private readonly state: ClusterState,
    private readonly store: ControllerStore,
    private readonly changes: PartitionChanges,
  ) {}

  /** Replaces what memory holds of topics and settings, in one turn. The brokers are read before. */
  async read(): Promise<LoadedCluster> {
    const { state, store } = this;
    const unreadable: UnreadableNodes = new Map();
    const [{ topics, unreadable: namesOnly }, brokerConfigs, deletions] = await Promise.all([
      store.readTopics(unreadable),
      store.readBrokerConfigs(unreadable),
      store.readDeletions(),
    ]);
    for (const topic of [...state.topicsById.values()]) state.removeTopic(topic);
    // Settings that cannot be read are still those that were read before.
    for (const name of state.brokerConfigs.keys())
      if (!unreadable.has(paths.brokerConfig(name))) state.brokerConfigs.delete(name);
    for (const [name, config] of brokerConfigs) state.brokerConfigs.set(name, config);
    const repaired = new Set(state.unreadable.keys());
    state.unreadable.clear();
    for (const [path, mzxid] of unreadable) state.unreadable.set(path, mzxid);
    state.unreadableTopics.clear();
    for (const name of namesOnly) state.unreadableTopics.add(name);
    const restarted = new Map<PartitionKey, ReadonlySet<BrokerId>>();
    const unfinished: StoredTopic[] = [];
    const deleted: StoredTopic[] = [];
    for (const stored of topics) {
      if (deletions.get(stored.name) === stored.topicId) {
        deleted.push(stored);
        continue;
      }
      if (!stored.isReadable) {
        state.unreadableTopics.add(stored.name);
        continue;
      }
      if (stored.states.size < stored.assignment.length) unfinished.push(stored);
      state.addTopic(this.#restored(stored, repaired, restarted));
    }
    return { restarted, unfinished, deleted };
  }

  #restored(
    stored: StoredTopic,
    repaired: ReadonlySet<string>,
    restarted: Map<PartitionKey, ReadonlySet<BrokerId>>,
  ): Topic {
    const { name, topicId, version, config } = stored;
    const partitions = new Map<number, Partition>();
    const partitionCount = stored.assignment.length;
    const topic: Topic = { name, topicId, version, config, partitionCount, growsFrom: 0, partitions };
    const rulesOf = this.changes.rules(topic);
    for (const [number, found] of stored.states) {
      const { leader, leaderEpoch, partitionEpoch, isr, elr, unverified, lost, brokerEpochs, durability } = found;
      // One that was put back by hand is older than the transaction that did it: anybody may have restarted since.
      const writtenZxid = repaired.has(paths.partitionState(name, number)) ? 0n : found.writtenZxid;
      const replicas = stored.assignment[number] ?? [];
      partitions.set(number, {
        partition: number,
        replicas,
        leader,
        leaderEpoch,
        partitionEpoch,
        isr,
        elr,
        unverified,
        // As long as somebody is eligible the leader must not move the high watermark, whatever was set meanwhile.
        minInsyncReplicas: Math.max(rulesOf({ replicas }).minInsyncReplicas, elr.length > 0 ? isr.length + 1 : 0),
        lost,
        brokerEpochs: brokerEpochs ?? new Map(),
        durability,
      });
      // Whoever is registered as another process than the one that the state names has come back since. A state that does
      // not name processes was written by hand, or by a former version: its age has to do.
      const since = [...isr, ...elr, ...unverified].filter((id) => {
        const epoch = this.state.brokers.get(id)?.epoch;
        if (epoch === undefined) return false;
        return brokerEpochs === undefined ? brokerEpochNumber(epoch) > writtenZxid : brokerEpochs.get(id) !== epoch;
      });
      if (since.length > 0) restarted.set(partitionKey(topicId, number), new Set(since));
    }
    return topic;
  }

  /**
   * What has to change in the state of a predecessor: brokers went, or came back as another process, while nobody looked.
   * And its min.insync.replicas may have been another. Where it was larger, nobody may stay eligible whom the leader leaves
   * behind once it hears of the smaller one. Where it was smaller nothing has to be written: the leader waits for every
   * member until it is told of another ISR, and hears of the larger one with that. The durability may be another too; who
   * may have lost records is judged by the one until now, which is the one that they were acknowledged by.
   */
  reconciled(restarted: RestartedReplicas): PartitionChange[] {
    return this.changes.collect("a controller was elected", (partition, rules, topic) => {
      const since = restarted.get(partitionKey(topic.topicId, partition.partition)) ?? new Set<BrokerId>();
      const gone = new Set(
        [partition.leader, ...partition.isr].filter(
          (id) => id !== NO_LEADER && (!rules.isAlive(id) || (id === partition.leader && since.has(id))),
        ),
      );
      return inTurn(
        partition,
        (from) => withRegistrations(from, { gone, ...uncertainAmong(this.state, since, partition) }, rules),
        (from) => withLeader(from, rules),
        (from) => withSettings(from, rules),
      );
    });
  }

  /** What a predecessor left undone. If something is in its way that no other try removes, the rest goes on. */
  async finish({ unfinished, deleted }: LoadedCluster): Promise<void> {
    for (const stored of unfinished)
      await this.#unlessHindered(stored.name, "creation", () => this.#finishCreation(stored));
    for (const { name } of deleted) {
      this.logger.info(`Topic ${name}: going on with its deletion.`);
      await this.#unlessHindered(name, "deletion", () => this.store.removeTopic(name));
    }
  }

  async #unlessHindered(topic: string, what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.logger.error(hindranceSentence(topic, what, error));
    }
  }

  async #finishCreation(stored: StoredTopic): Promise<void> {
    const topic = this.state.topicsById.get(stored.topicId);
    if (topic === undefined) return;
    const missing = stored.assignment.flatMap((replicas, number) =>
      stored.states.has(number) ? [] : [this.changes.born(topic, number, replicas)],
    );
    this.logger.info(
      `Topic ${topic.name}: making ${counted(missing.length, "partition")} that a predecessor did not get to.`,
    );
    try {
      await this.store.finishCreation(topic, missing, (chunk) => this.changes.apply(chunk));
    } catch (error) {
      // What is there must do, and brokers must not wait for the rest before they tell of it.
      if (isRefusal(error)) {
        topic.partitionCount = 0;
        this.changes.tell(topic);
      }
      throw error;
    }
  }
}
