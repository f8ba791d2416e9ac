import type { Env } from "../common/env/env.js";
import type { Logger } from "../common/logger.js";
import { shown } from "./arguments.js";
import type { BrokerAddress } from "./broker-connections.js";
import { InvalidArgumentError } from "./errors.js";

/**
 * How to find a cluster, and how patient to be with it. What is wrong is refused with InvalidArgumentError, which names
 * it; nothing is converted. Times are whole milliseconds and may be as long as a number can say.
 */
export interface ConnectOptions {
  /**
   * Some brokers, as `host:port`, `host` (port 9092) or `[::1]:port`; the others are learnt from them. A list, or one text
   * with commas. At least one.
   */
  readonly bootstrapBrokers: readonly string[] | string;
  /**
   * Says who this is, in the logs of the brokers. Text of at most 256 characters.
   * @defaultValue "ottla-client"
   */
  readonly clientId?: string;
  /**
   * Where events go that are no errors of a call: partitions of which nothing comes, a cluster that cannot be reached. Has the
   * functions `debug`, `info`, `warn` and `error`.
   * @defaultValue a logger that says nothing
   */
  readonly logger?: Logger;
  /**
   * Clock, timers, sockets. Only simulations give another one.
   * @defaultValue the real world
   */
  readonly env?: Env;
  /**
   * How long `connect`, `partitionsOf`, lookups of a consumer and each call of `admin` go on trying, and a loop to the end
   * waits for what is missing, in milliseconds, from 1 on. What they reject with then is said there.
   * @defaultValue 30000
   */
  readonly deadlineMs?: number;
  /**
   * How long one request may stay unanswered, in milliseconds, from 1 on. Then it is tried again, as long as the deadline
   * of the call or the record allows.
   * @defaultValue 30000
   */
  readonly requestTimeoutMs?: number;
  /**
   * How long one attempt to connect to a broker may take, in milliseconds, from 1 on; then the next broker is tried.
   * @defaultValue 1000
   */
  readonly connectTimeoutMs?: number;
  /**
   * Brokers, leaders and partitions are looked up at least this often, in milliseconds, from 10 on.
   * @defaultValue 30000
   */
  readonly metadataMaxAgeMs?: number;
  /**
   * How long the cluster may say that there is no such topic, or no such partition of it, before that is believed, in
   * milliseconds, from 0 on: brokers hear of changes one after the other. Then calls and records fail with ProtocolError
   * UNKNOWN_TOPIC_OR_PARTITION.
   * @defaultValue 2000
   */
  readonly unknownTopicTimeoutMs?: number;
  /**
   * Ends `connect` early: it rejects with the signal's reason.
   * @defaultValue none
   */
  readonly signal?: AbortSignal;
}

/** What a producer waits for before a record counts as sent: all in-sync replicas, the leader, or nothing. */
export type Acks = "all" | "leader" | "none";

/**
 * Chooses the partition of a record that has a key and names none: a number from 0 to `partitionCount` - 1. With any other,
 * or when it throws, the record is refused with InvalidArgumentError, whose `cause` is what it has thrown. It is not called
 * for records without a key (absent or null).
 */
export type Partitioner = (key: Uint8Array | string, partitionCount: number) => number;

/** How a producer batches, retries and gives up. What is wrong is refused with InvalidArgumentError, which names it. */
export interface ProducerOptions {
  /**
   * What is waited for before a record counts as sent.
   * @defaultValue "all"
   */
  readonly acks?: Acks;
  /**
   * Whether brokers recognize a repeated batch, so that retries neither duplicate nor reorder. Needs `acks: "all"`.
   * @defaultValue true with `acks: "all"`, else false
   */
  readonly idempotent?: boolean;
  /**
   * How long a batch waits for more records, in milliseconds, from 0 to 60000; below `deliveryTimeoutMs`, and no longer than
   * half of what is left of that. 0: until the end of the current turn of the event loop. A broker that has much to do gets
   * batches that are not full only in turn, whatever is set here.
   * @defaultValue 0
   */
  readonly lingerMs?: number;
  /**
   * A batch is sent when it holds this many bytes, or as many as the topic's `max.message.bytes` allows; until then it takes
   * the memory that its records need, up to twice as much. A single record may be larger, up to that setting. Bytes, from
   * 1024 to 8388608.
   * @defaultValue 131072
   */
  readonly batchBytes?: number;
  /**
   * Memory for records that are not acknowledged yet, in bytes, from 1024 on. When it is used up, `produce` returns a
   * promise, and nothing lingers. Records for one broker take no more than seven times what they leave to those for others.
   * @defaultValue 33554432
   */
  readonly bufferBytes?: number;
  /**
   * How long a record may take from `send` to its acknowledgement, in milliseconds, from 1 on and above `lingerMs`: waiting
   * for its topic or its partition to be known or for memory, and retries, included. Records of one batch share the time of
   * the oldest.
   * Then it fails with DeadlineExceededError or ConnectionError, or with OutcomeUnknownError where it may be in the log.
   * @defaultValue 120000
   */
  readonly deliveryTimeoutMs?: number;
  /**
   * Batches without an answer, for each partition, from 1 to 1000. At most 5 when idempotent.
   * @defaultValue 5
   */
  readonly maxInFlight?: number;
  /**
   * Where records with a key go; never asked about others. Records without one fill a batch of one partition, then of another.
   * @defaultValue murmur2, as Java's clients
   */
  readonly partitioner?: Partitioner;
}

/** A record's place to start or go on reading from. Offsets and times are whole numbers from 0 on. */
export type Position =
  /** The oldest record there is. */
  | "earliest"
  /** Only records that are written from now on. */
  | "latest"
  | { readonly offset: number }
  /** So many records before the end that consumers can read to, or the oldest one if there are fewer. */
  | { readonly last: number }
  /** The first record written at or after this time; a number is milliseconds since 1970. */
  | { readonly timestamp: number | Date };

/** One partition of one topic; partitions are numbered from 0 on. Other fields are left alone, so a record is one too. */
export interface TopicPartition {
  readonly topic: string;
  readonly partition: number;
}

/** A place in one partition. */
export interface TopicPartitionOffset extends TopicPartition {
  readonly offset: number;
}

/** Where to begin: everywhere in the same way, or by partition (those not listed from "earliest"). */
export type StartPosition = Position | readonly TopicPartitionOffset[];

/** What to do with a batch that is whole, and whose records nobody can read: its producer wrote them wrong. */
export type UnreadablePolicy = "skip" | "error";

/** What to do when records at a consumer's position have been deleted. */
export type OutOfRangePolicy = "earliest" | "latest" | "error";

/** What is wrong is refused with InvalidArgumentError, which names it. */
interface ConsumerOptionsBase {
  /**
   * Where to begin.
   * @defaultValue "latest"
   */
  readonly from?: StartPosition;
  /**
   * What to do when records at the position have been deleted. "error": the loop ends with OffsetOutOfRangeError.
   * @defaultValue "error"
   */
  readonly onOutOfRange?: OutOfRangePolicy;
  /**
   * "error": `UnreadableBatchError`, at the first record that cannot be read. "skip": nothing of the batch is delivered, the
   * log mentions it. Brokers refuse such batches; logs may hold them from before.
   * @defaultValue "error"
   */
  readonly onUnreadable?: UnreadablePolicy;
  /**
   * How many bytes are fetched ahead of the reader, for all partitions of one broker together, from 1 to 2147483647.
   * @defaultValue 4194304
   */
  readonly prefetchBytes?: number;
  /**
   * The most bytes of one partition in one answer, from 1 to 33554432. A batch that is larger comes whole.
   * @defaultValue 1048576
   */
  readonly partitionBytes?: number;
  /**
   * A broker answers as soon as it has this many bytes, from 1 to 2147483647 ...
   * @defaultValue 1
   */
  readonly fetchBytesMin?: number;
  /**
   * ... or after so long, in milliseconds, from 1 to 60000.
   * @defaultValue 500
   */
  readonly fetchWaitMs?: number;
  /**
   * When for so long, in milliseconds, from 1 on, something has been in the way of reading a partition (it has no leader,
   * the leader cannot be reached, stays silent, refuses, or leaves the records out), the `logger` of the connection is told
   * which, why, and since when; again every 5 seconds at most, as long as that lasts. Reading goes on, nothing is retried
   * sooner or later for it.
   * @defaultValue 10000
   */
  readonly stallMs?: number;
  /**
   * Ends reading: waiting iterators reject with its reason.
   * @defaultValue none
   */
  readonly signal?: AbortSignal;
}

/** What to read and from where: whole topics (at least one), or some partitions of one (at least one; else all). */
export type ConsumerOptions = ConsumerOptionsBase &
  (
    | { readonly topics: readonly string[]; readonly topic?: never; readonly partitions?: never }
    | { readonly topic: string; readonly partitions?: readonly number[]; readonly topics?: never }
  );

/** What ends a call early. */
export interface CallOptions {
  /**
   * How long the call goes on trying, in milliseconds, from 1 on. Then it rejects with DeadlineExceededError, or with
   * OutcomeUnknownError where something may have been done.
   * @defaultValue `deadlineMs` of the connection
   */
  readonly deadlineMs?: number;
  /**
   * Ends the call early: it rejects with the signal's reason, and what was sent may be done yet.
   * @defaultValue none
   */
  readonly signal?: AbortSignal;
}

const DEFAULT_PORT = 9092;

/** The addresses in a list or a text with commas. Throws InvalidArgumentError. */
export function parseAddresses(given: readonly string[] | string): BrokerAddress[] {
  if (typeof given !== "string" && !Array.isArray(given)) throw noBroker(`bootstrapBrokers is ${shown(given)}`);
  const texts = typeof given === "string" ? given.split(",") : [...(given as readonly unknown[])];
  const addresses: BrokerAddress[] = [];
  for (const text of texts) {
    if (typeof text !== "string") throw new InvalidArgumentError(`an address is ${shown(text)}`, ADDRESS_HINT);
    if (text.trim() !== "") addresses.push(parseAddress(text.trim()));
  }
  if (addresses.length === 0) throw noBroker("bootstrapBrokers names no broker");
  return addresses;
}

const ADDRESS_HINT = 'write it as "host:port", an IPv6 address as "[::1]:9092"';

const noBroker = (what: string): InvalidArgumentError =>
  new InvalidArgumentError(what, 'give at least one, as "localhost:9092"');

function parseAddress(text: string): BrokerAddress {
  const match = /^(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:,/@[\]]+))(?::(\d+))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? DEFAULT_PORT : Number(match[3]);
  if (host === undefined || port < 1 || port > 65535) {
    throw new InvalidArgumentError(`${JSON.stringify(text.slice(0, 80))} is not the address of a broker`, ADDRESS_HINT);
  }
  return { host, port };
}
