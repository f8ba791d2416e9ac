/** The words that brokers, clients and tools share. */

declare const offsetBrand: unique symbol;
/** Position of a record in its partition, from 0. A whole number up to 2^53 - 1; checked where it enters the program. */
export type Offset = number & { readonly [offsetBrand]: true };

/** A number that is known to be an offset: a sum or a constant of the program. Input is checked by `parseOffset`. */
export const toOffset = (value: number): Offset => value as Offset;

/** The offset that `value` is, or undefined when it is not one (negative, fractional, above 2^53 - 1). */
export function parseOffset(value: number): Offset | undefined {
  return Number.isSafeInteger(value) && value >= 0 ? (value as Offset) : undefined;
}

/** Grows with each leader of a partition, from 0. */
export type LeaderEpoch = number;
/** Grows with each change of a partition's state (the version of its znode). */
export type PartitionEpoch = number;
/** Grows with each controller. */
export type ControllerEpoch = number;
/** From 0. */
export type BrokerId = number;
/** czxid of the broker's registration, decimal digits, because it uses all 64 bits: `isOlderBrokerEpoch` compares. */
export type BrokerEpoch = string;
/** A UUID, lower case. A topic deleted and created again has another one. */
export type TopicId = string;

/** To compare with; 0, which no registration has, for what is no epoch. */
export const brokerEpochNumber = (epoch: BrokerEpoch | undefined): bigint =>
  epoch !== undefined && /^\d+$/.test(epoch) ? BigInt(epoch) : 0n;

/** Whether a broker has registered again since. */
export const isOlderBrokerEpoch = (epoch: BrokerEpoch, other: BrokerEpoch): boolean =>
  epoch !== other && brokerEpochNumber(epoch) < brokerEpochNumber(other);

const TOPIC_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether the text may be the id of a topic, known or not. */
export const isTopicId = (text: string): boolean => text.length === 36 && TOPIC_ID.test(text);

/** One partition, whatever its topic is called. */
export interface TopicPartition {
  readonly topicId: TopicId;
  readonly partition: number;
}

/** A key for maps. */
export type PartitionKey = string;
export const partitionKey = (topicId: TopicId, partition: number): PartitionKey => `${topicId}:${partition}`;

/** What a producer waits for: `all` in-sync replicas (-1 on the wire), the leader (1), nothing (0). */
export const acksCodes = { all: -1, leader: 1, none: 0 } as const;
