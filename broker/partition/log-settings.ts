import type { BrokerConfig, TopicConfig } from "../config.js";
import type { LogSettings } from "../log/index.js";

/** What a log needs to know of the settings of its broker and topic. `durability`: as the controller resolved it. */
export function logSettings(broker: BrokerConfig, topic: TopicConfig, durability = ""): LogSettings {
  return {
    segmentBytes: topic.get("segment.bytes"),
    segmentMs: topic.get("segment.ms"),
    retentionMs: topic.get("retention.ms"),
    retentionBytes: topic.get("retention.bytes"),
    durability: isDurability(durability) ? durability : (topic.get("durability") as LogSettings["durability"]),
    flushMs: topic.get("flush.ms"),
    indexIntervalBytes: topic.get("index.interval.bytes"),
    maxMessageBytes: topic.get("max.message.bytes"),
    fileDeleteDelayMs: topic.get("file.delete.delay.ms"),
    producerIdExpirationMs: broker.get("producer.id.expiration.ms"),
    producersMax: broker.get("producers.per.partition.max"),
  };
}

const isDurability = (name: string): name is LogSettings["durability"] => name === "fsync" || name === "page-cache";
