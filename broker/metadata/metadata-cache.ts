import type { ErrorReport } from "../../protocol/error-codes.js";
import { errorReport } from "../../protocol/error-codes.js";
import type { ControllerOrdersRequest, LeaderHint, RegisteredBroker } from "../../protocol/messages.js";
import type { BrokerId, ControllerEpoch, TopicId } from "../../protocol/types.js";
import type { CommittedState } from "../partition/partition-state.js";
import { committedState, isAtLeastAsNew } from "../partition/partition-state.js";

export interface CachedTopic {
  readonly topicId: TopicId;
  readonly name: string;
  readonly config: ControllerOrdersRequest["topics"][number]["config"];
  readonly partitions: ReadonlyMap<number, CommittedState>;
}

/**
 * What this broker was last told about the cluster, for whoever asks. It may lag behind the controller and says so by
 * nothing but its epochs; a partition's state is replaced only by one at least as new within the same topic id.
 */
export class MetadataCache {
  controllerEpoch: ControllerEpoch = 0;
  /** Set once a controller has told everything: before that, what is not here may exist all the same. */
  isComplete = false;
  /** The controller cannot read all topics in ZooKeeper: a topic that is not here may exist, and must not be denied. */
  lacksUnreadable = false;
  /** A controller has told everything there is: it has judged in each topic how this broker's last run ended. */
  get isWhole(): boolean {
    return this.isComplete && !this.lacksUnreadable;
  }
  #brokers = new Map<BrokerId, RegisteredBroker>();
  readonly #topics = new Map<
    TopicId,
    { topicId: TopicId; name: string; config: CachedTopic["config"]; partitions: Map<number, CommittedState> }
  >();
  readonly #idsByName = new Map<string, TopicId>();

  brokers(): IterableIterator<RegisteredBroker> {
    return this.#brokers.values();
  }
  /** Registered ones, as far as heard of. */
  get brokerCount(): number {
    return this.#brokers.size;
  }
  broker(id: BrokerId): RegisteredBroker | undefined {
    return this.#brokers.get(id);
  }
  topics(): IterableIterator<CachedTopic> {
    return this.#topics.values();
  }
  topic(topicId: TopicId): CachedTopic | undefined {
    return this.#topics.get(topicId);
  }
  topicNamed(name: string): CachedTopic | undefined {
    const id = this.#idsByName.get(name);
    return id === undefined ? undefined : this.#topics.get(id);
  }

  /** Where the leader of a partition is reached on a listener; null when it is not known. */
  leaderHint(topicId: TopicId, partition: number, listener: string): LeaderHint | null {
    const state = this.#topics.get(topicId)?.partitions.get(partition);
    if (state?.leaderId === undefined) return null;
    const endpoint = this.#brokers.get(state.leaderId)?.endpoints.find((one) => one.listener === listener);
    if (endpoint === undefined) return null;
    return { leaderId: state.leaderId, leaderEpoch: state.leaderEpoch, host: endpoint.host, port: endpoint.port };
  }

  /** Takes over what the controller ordered. */
  apply(orders: ControllerOrdersRequest): void {
    this.#brokers = new Map(orders.brokers.map((broker) => [broker.id, broker]));
    for (const topicId of orders.deletedTopicIds) this.forget(topicId);
    for (const topic of orders.topics) {
      let cached = this.#topics.get(topic.topicId);
      if (cached === undefined) {
        cached = { topicId: topic.topicId, name: topic.name, config: topic.config, partitions: new Map() };
        this.#topics.set(topic.topicId, cached);
        this.#idsByName.set(topic.name, topic.topicId);
      }
      cached.config = topic.config;
      for (const message of topic.partitions) {
        const state = committedState(message);
        const known = cached.partitions.get(message.partition);
        if (known === undefined || isAtLeastAsNew(state, known)) cached.partitions.set(message.partition, state);
      }
    }
  }

  /** What to answer about a topic that is not here. `denial` would be believed, so it is given only when it is true. */
  refusal(denial: ErrorReport): ErrorReport {
    return this.lacksUnreadable
      ? errorReport(
          "LEADER_NOT_AVAILABLE",
          "the controller cannot read all topics in ZooKeeper, and this may be one of them; its log says which node has to be repaired",
        )
      : denial;
  }

  forget(topicId: TopicId): void {
    const topic = this.#topics.get(topicId);
    if (topic === undefined) return;
    this.#topics.delete(topicId);
    if (this.#idsByName.get(topic.name) === topicId) this.#idsByName.delete(topic.name);
  }
}
