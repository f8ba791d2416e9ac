/**
 * The client library of ottla. What is not named here is no part of its surface and may change.
 *
 * @example
 * import { connect } from "ottla/client";
 *
 * await using cluster = await connect({ bootstrapBrokers: ["localhost:9092"], clientId: "billing" });
 *
 * await using producer = cluster.producer();
 * const { partition, offset } = await producer.send("orders", { key: "42", value: "paid" });
 *
 * await using consumer = cluster.consumer({ topics: ["orders"], from: "earliest" });
 * for await (const record of consumer) console.log(record.offset, record.value?.toString());
 */
export { connect } from "./cluster.js";
export type { Cluster } from "./cluster.js";
export type { OnFailure, Producer } from "./producer.js";
export type { Acknowledgement, OnAcknowledged, RecordMetadata } from "./producer-batch.js";
export type { ProducerRecord } from "./producer-record.js";
export type { BatchReadOptions, Consumer, ReadOptions } from "./consumer.js";
export type { ConsumerBatch, ConsumerRecord } from "./consumer-record.js";
export type { DecodedHeader } from "../protocol/record-cursor.js";
export type { EncodableHeader } from "../protocol/record-encoder.js";
export type {
  Admin,
  ClusterDescription,
  ConfigDescription,
  ConfigTarget,
  CreatedTopic,
  ElectionResult,
  NewTopic,
  OffsetDescription,
  PartitionDescription,
  TopicDescription,
  TopicListing,
} from "./admin.js";
export type { KnownBroker } from "./metadata.js";
export type { OffsetLookup, OffsetQuery } from "./offset-lookup.js";
export type {
  Acks,
  CallOptions,
  ConnectOptions,
  ConsumerOptions,
  OutOfRangePolicy,
  Partitioner,
  Position,
  ProducerOptions,
  StartPosition,
  TopicPartition,
  TopicPartitionOffset,
  UnreadablePolicy,
} from "./options.js";
export {
  ClientError,
  ClosedError,
  ConnectionError,
  CorruptBatchError,
  DeadlineExceededError,
  InvalidArgumentError,
  OffsetOutOfRangeError,
  OutcomeUnknownError,
  ProtocolError,
  RecordTooLargeError,
  UnreadableBatchError,
} from "./errors.js";
export type { ClientErrorCode, ErrorPlace } from "./errors.js";
export { murmur2, partitionOfKey } from "./partitioner.js";
export type { Env } from "../common/env/env.js";
export type { LogFields, Logger } from "../common/logger.js";
