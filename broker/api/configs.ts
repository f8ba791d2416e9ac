import { ApiError, errorNameOf, errorReport } from "../../protocol/error-codes.js";
import type { DescribedConfig, Init } from "../../protocol/messages.js";
import { ConfigResource } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { BrokerConfig, BrokerSettingName, SettingEntry, TopicSettingName } from "../config.js";
import { brokerSettings, TopicConfig, topicSettings } from "../config.js";
import type { CachedTopic, MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler } from "../net/request-context.js";

/** Answers every setting of a topic or of this broker: its value, where that comes from, and what it means. */
export function describeConfigsHandler(
  brokerId: BrokerId,
  config: BrokerConfig,
  metadata: MetadataCache,
): Handler<"describeConfigs"> {
  return (request) => {
    switch (request.resource) {
      case ConfigResource.TOPIC: {
        const topic = metadata.topicNamed(request.name);
        if (topic === undefined) {
          const denial = `there is no topic ${JSON.stringify(request.name.slice(0, 249))}`;
          const { code, message } = metadata.refusal(
            errorReport("UNKNOWN_TOPIC_OR_PARTITION", denial),
            metadata.isTold(request.name),
          );
          throw new ApiError(errorNameOf(code), message);
        }
        const own = new TopicConfig(config, topic.config);
        return {
          body: {
            config: describe(topicSettings, (name: TopicSettingName) => ({
              value: name === "min.insync.replicas" ? minimumOf(topic, own) : own.get(name),
              source: own.sourceOf(name),
            })),
          },
        };
      }
      case ConfigResource.BROKER: {
        if (request.name !== "" && request.name !== String(brokerId)) {
          throw new ApiError(
            "INVALID_REQUEST",
            `this is broker ${brokerId}; ask broker ${request.name.slice(0, 32)} itself for its settings`,
          );
        }
        return {
          body: {
            config: describe(brokerSettings, (name: BrokerSettingName) => ({
              value: config.get(name),
              source: config.sourceOf(name),
            })),
          },
        };
      }
      case ConfigResource.CLIENT:
        throw new ApiError("INVALID_CONFIG", "clients have no settings at brokers yet");
      default:
        throw new ApiError("INVALID_REQUEST", `this broker knows no kind of resource ${String(request.resource)}`);
    }
  };
}

/** The one in force, which depends on the number of replicas if nobody set it. */
function minimumOf(topic: CachedTopic, own: TopicConfig): number {
  const states = [...topic.partitions.values()];
  return Math.min(
    ...states.map(({ minInsyncReplicas, replicas }) => minInsyncReplicas ?? own.minInsyncReplicas(replicas.length)),
    ...(states.length === 0 ? [own.get("min.insync.replicas")] : []),
  );
}

function describe<Name extends string>(
  table: Readonly<Record<Name, SettingEntry>>,
  read: (name: Name) => { readonly value: unknown; readonly source: string },
): Init<DescribedConfig>[] {
  return (Object.keys(table) as Name[]).map((name) => {
    const entry = table[name];
    const { value, source } = read(name);
    return {
      name,
      value: String(value),
      source,
      type: entry.type,
      unit: entry.unit ?? "",
      documentation: entry.doc,
      readOnly: entry.dynamic !== true,
    };
  });
}
