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
  /** All that were told of. */
  readonly partitions: ReadonlyMap<number, CommittedState>;
  /** It is getting partitions that were not all told of yet: clients are told of the first so many only. */
  readonly growsFrom: number | undefined;
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
    {
      topicId: TopicId;
      name: string;
      config: CachedTopic["config"];
      partitions: Map<number, CommittedState>;
      growsFrom: number | undefined;
    }
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
  /** undefined also as long as it is being made. */
  topicNamed(name: string): CachedTopic | undefined {
    const id = this.#idsByName.get(name);
    const topic = id === undefined ? undefined : this.#topics.get(id);
    return topic?.growsFrom === 0 ? undefined : topic;
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
        const { topicId, name, config } = topic;
        cached = { topicId, name, config, partitions: new Map(), growsFrom: undefined };
        this.#topics.set(topic.topicId, cached);
        this.#idsByName.set(topic.name, topic.topicId);
      }
      cached.config = topic.config;
      const countBefore = cached.partitions.size;
      for (const message of topic.partitions) {
        const state = committedState(message);
        const known = cached.partitions.get(message.partition);
        if (known === undefined || isAtLeastAsNew(state, known)) cached.partitions.set(message.partition, state);
      }
      if (cached.partitions.size >= topic.partitionCount) cached.growsFrom = undefined;
      else if (hasFirst(cached.partitions, topic.growsFrom))
        cached.growsFrom = Math.max(topic.growsFrom, cached.growsFrom ?? countBefore);
      else cached.growsFrom ??= countBefore;
    }
  }

  /**
   * What to answer about a topic that is not here. `denial` would be believed, so it is given only when it is true. `isTold`: it
   * is here, but not all of it.
   */
  refusal(denial: ErrorReport, isTold = false): ErrorReport {
    if (isTold) {
      return errorReport(
        "LEADER_NOT_AVAILABLE",
        "the topic is being made, and the controller has not told of all its partitions yet; ask again",
      );
    }
    return this.lacksUnreadable
      ? errorReport(
          "LEADER_NOT_AVAILABLE",
          "the controller cannot read all topics in ZooKeeper, and this may be one of them; its log says which node has to be repaired",
        )
      : denial;
  }

  /** Whether a topic of that name was told of, be it in part. */
  isTold(name: string): boolean {
    return this.#idsByName.has(name);
  }

  forget(topicId: TopicId): void {
    const topic = this.#topics.get(topicId);
    if (topic === undefined) return;
    this.#topics.delete(topicId);
    if (this.#idsByName.get(topic.name) === topicId) this.#idsByName.delete(topic.name);
  }
}

function hasFirst(partitions: ReadonlyMap<number, CommittedState>, count: number): boolean {
  for (let partition = 0; partition < count; partition += 1) if (!partitions.has(partition)) return false;
  return true;
}
