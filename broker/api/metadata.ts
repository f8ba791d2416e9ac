import { ApiError, errorReport, topicIdRefusal } from "../../protocol/error-codes.js";
import type { BrokerMetadata, Init, RegisteredBroker, TopicMetadata } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { BrokerConfig } from "../config.js";
import { TopicConfig } from "../config.js";
import type { CachedTopic, MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler } from "../net/request-context.js";

/**
 * Answers who leads what, from what this broker was last told. One that has just started and was told nothing yet says so,
 * because "there is no such topic" would be believed.
 */
export function metadataHandler(
  clusterId: string,
  config: BrokerConfig,
  metadata: MetadataCache,
  controllerId: () => BrokerId | undefined,
): Handler<"metadata"> {
  /** By what was set for the topic, which is another list whenever the controller says it anew. */
  const configs = new WeakMap<CachedTopic["config"], TopicConfig>();
  const configOf = (topic: CachedTopic): TopicConfig => {
    let known = configs.get(topic.config);
    if (known === undefined) configs.set(topic.config, (known = new TopicConfig(config, topic.config)));
    return known;
  };
  const describe = (topic: CachedTopic): Init<TopicMetadata> =>
    describeTopic(topic, configOf(topic).get("max.message.bytes"));
  return (request, context) => {
    if (!metadata.isComplete) {
      throw new ApiError(
        "LEADER_NOT_AVAILABLE",
        "this broker has just started and waits for the controller to tell it about the cluster; ask another one, or again",
      );
    }
    return {
      body: {
        clusterId,
        controllerId: controllerId() ?? -1,
        controllerEpoch: metadata.controllerEpoch,
        brokers: [...metadata.brokers()].flatMap((broker) => describeBroker(broker, context.listenerName)),
        topics: request.noTopics ? [] : askedTopics(metadata, request.topics, request.topicIds, describe),
      },
    };
  };
}

/** A broker that does not have the listener the question came in on cannot be reached from there. */
function describeBroker(broker: RegisteredBroker, listener: string): Init<BrokerMetadata>[] {
  const endpoint = broker.endpoints.find((one) => one.listener === listener);
  return endpoint === undefined
    ? []
    : [{ id: broker.id, host: endpoint.host, port: endpoint.port, rack: broker.rack, epoch: broker.epoch }];
}

function askedTopics(
  metadata: MetadataCache,
  names: readonly string[],
  ids: readonly string[],
  describe: (topic: CachedTopic) => Init<TopicMetadata>,
): Init<TopicMetadata>[] {
  if (names.length === 0 && ids.length === 0) {
    return [...metadata.topics()].filter((topic) => topic.growsFrom !== 0).map(describe);
  }
  // Whoever names a large topic twenty thousand times is told of it once.
  const named = [...new Set(names)].map((name): Init<TopicMetadata> => {
    const topic = metadata.topicNamed(name);
    const error = (): Init<TopicMetadata> => ({
      name,
      error: metadata.refusal(
        errorReport(
          "UNKNOWN_TOPIC_OR_PARTITION",
          `there is no topic ${JSON.stringify(name.slice(0, 249))}; create it with: ottla topic create NAME`,
        ),
        metadata.isTold(name),
      ),
    });
    return topic === undefined ? error() : describe(topic);
  });
  const byId = [...new Set(ids)].map((topicId): Init<TopicMetadata> => {
    const topic = metadata.topic(topicId);
    if (topic !== undefined && topic.growsFrom !== 0) return describe(topic);
    const refusal = topic === undefined ? topicIdRefusal(topicId) : undefined;
    if (refusal !== undefined) return { topicId, error: refusal };
    const denial = errorReport("UNKNOWN_TOPIC_ID", `there is no topic with id ${topicId.slice(0, 64)}`);
    return { topicId, error: metadata.refusal(denial, topic !== undefined) };
  });
  return [...named, ...byId];
}

function describeTopic(topic: CachedTopic, maxBatchBytes: number): Init<TopicMetadata> {
  const { growsFrom = Number.POSITIVE_INFINITY } = topic;
  const described = [...topic.partitions].filter(([partition]) => partition < growsFrom);
  return {
    name: topic.name,
    topicId: topic.topicId,
    maxBatchBytes,
    partitions: described.map(([partition, state]) => ({
      partition,
      leaderId: state.leaderId ?? -1,
      leaderEpoch: state.leaderEpoch,
      replicas: state.replicas,
      isr: state.isr,
      elr: state.elr,
      partitionEpoch: state.partitionEpoch,
    })),
  };
}
