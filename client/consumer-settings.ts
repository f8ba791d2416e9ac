import { nearestName } from "../common/nearest-name.js";
import {
  checkFields,
  checkList,
  checkNumber,
  checkOptions,
  checkPartition,
  checkSignal,
  checkTopicName,
  INT32_MAX,
  numberOption,
  shown,
  wordOption,
} from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";
import type { FetchSettings } from "./fetch-loop.js";
import { timestampOf } from "./offset-lookup.js";
import type {
  ConsumerOptions,
  OutOfRangePolicy,
  Position,
  StartPosition,
  TopicPartitionOffset,
  UnreadablePolicy,
} from "./options.js";

/** The options of a consumer, checked and complete. */
export interface ConsumerSettings {
  readonly topics: readonly string[];
  /** undefined: all. */
  readonly partitions: readonly number[] | undefined;
  readonly from: StartPosition;
  readonly onOutOfRange: OutOfRangePolicy;
  readonly onUnreadable: UnreadablePolicy;
  readonly stallMs: number;
  readonly signal: AbortSignal | undefined;
  readonly fetch: FetchSettings;
}

const PREFETCH_BYTES = 4 * 1024 * 1024;
const PARTITION_BYTES = 1024 * 1024;
const FETCH_WAIT_MS = 500;
const STALL_MS = 10_000;

const optionNames = [
  "topics",
  "topic",
  "partitions",
  "from",
  "onOutOfRange",
  "onUnreadable",
  "prefetchBytes",
  "partitionBytes",
  "fetchBytesMin",
  "fetchWaitMs",
  "stallMs",
  "signal",
];

/** Throws InvalidArgumentError for what cannot work. */
export function consumerSettings(options: ConsumerOptions, requestTimeoutMs: number): ConsumerSettings {
  checkOptions("a consumer", options, optionNames);
  const { signal } = options;
  checkSignal(signal);
  return {
    topics: topicsOf(options),
    partitions: partitionsOf(options),
    from: fromOf(options.from),
    onOutOfRange: wordOption("onOutOfRange", options.onOutOfRange, ["earliest", "latest", "error"], "error"),
    onUnreadable: wordOption("onUnreadable", options.onUnreadable, ["skip", "error"], "error"),
    stallMs: numberOption("stallMs", options.stallMs, { min: 1, defaultValue: STALL_MS }),
    signal,
    fetch: {
      prefetchBytes: numberOption("prefetchBytes", options.prefetchBytes, {
        min: 1,
        max: INT32_MAX,
        defaultValue: PREFETCH_BYTES,
      }),
      partitionBytes: numberOption("partitionBytes", options.partitionBytes, {
        min: 1,
        max: 32 * 1024 * 1024,
        defaultValue: PARTITION_BYTES,
      }),
      fetchBytesMin: numberOption("fetchBytesMin", options.fetchBytesMin, {
        min: 1,
        max: INT32_MAX,
        defaultValue: 1,
      }),
      fetchWaitMs: numberOption("fetchWaitMs", options.fetchWaitMs, {
        min: 1,
        max: 60_000,
        defaultValue: FETCH_WAIT_MS,
      }),
      requestTimeoutMs,
    },
  };
}

function topicsOf({ topic, topics }: ConsumerOptions): readonly string[] {
  if (topics !== undefined && topic !== undefined) {
    throw new InvalidArgumentError("topic and topics are both given", "leave out one of them");
  }
  if (topic === undefined && topics === undefined) throw noTopic();
  if (topics === undefined) {
    checkTopicName(topic);
    return [topic];
  }
  checkList("topics is", topics, "names");
  if (topics.length === 0) throw noTopic();
  for (const name of topics) checkTopicName(name);
  return [...topics];
}

const noTopic = (): InvalidArgumentError =>
  new InvalidArgumentError("a consumer has no topic to read", 'give topics: ["orders"] or topic: "orders"');

function partitionsOf({ partitions, topics }: ConsumerOptions): readonly number[] | undefined {
  if (partitions === undefined) return undefined;
  if (topics !== undefined) {
    throw new InvalidArgumentError("partitions are given with topics", "give them with one topic");
  }
  checkList("partitions is", partitions, "numbers");
  if (partitions.length === 0) {
    throw new InvalidArgumentError("partitions is empty", "name at least one, or leave partitions out to read all");
  }
  for (const partition of partitions) {
    if (Number.isSafeInteger(partition) && partition >= 0 && partition <= INT32_MAX) continue;
    throw new InvalidArgumentError(`partitions has ${shown(partition)}`, "give whole numbers from 0 on");
  }
  return [...partitions];
}

function fromOf(from: StartPosition | undefined): StartPosition {
  if (from === undefined) return "latest";
  if (!isList(from)) {
    checkPosition(from);
    return from;
  }
  return [...from].map((one) => {
    checkPartition(one, "a position of from", "{ topic, partition, offset }");
    const { topic, partition, offset } = one;
    checkNumber(`the offset of ${topic}-${partition}`, offset, { min: 0 });
    return { topic, partition, offset };
  });
}

const positionWords = ["earliest", "latest"];
const positionFields = ["offset", "last", "timestamp"];
const POSITION_HINT = 'give "earliest", "latest", { offset } from 0 on, { last } or { timestamp }';

/** Throws InvalidArgumentError for what is no place in a log. */
export function checkPosition(position: Position): void {
  if (position === "earliest" || position === "latest") return;
  if (typeof position !== "object" || position === null) {
    const nearest = typeof position === "string" ? nearestName(position, positionWords) : undefined;
    throw new InvalidArgumentError(
      `the position is ${shown(position)}`,
      nearest === undefined ? POSITION_HINT : `did you mean "${nearest}"?`,
    );
  }
  checkFields("the position", position, "{ offset }, { last } or { timestamp }", positionFields);
  const { offset, last, timestamp } = position as Readonly<
    Record<"offset" | "last", number | undefined> & { timestamp: number | Date | undefined }
  >;
  const given = Object.entries({ offset, last, timestamp }).flatMap(([name, value]) =>
    value === undefined ? [] : name,
  );
  if (given.length !== 1) {
    const what = given.length === 0 ? "none of offset, last and timestamp" : `both ${given.join(" and ")}`;
    throw new InvalidArgumentError(`the position has ${what}`, POSITION_HINT);
  }
  if (timestamp !== undefined) timestampOf({ timestamp });
  else if (last !== undefined) checkNumber("the number of last records", last, { min: 0 });
  else checkNumber("the offset of the position", offset, { min: 0 });
}

/** Where reading of a partition begins. */
export function startOf(from: StartPosition, topic: string, partition: number): Position {
  if (!isList(from)) return from;
  const chosen = from.find((one) => one.topic === topic && one.partition === partition);
  return chosen === undefined ? "earliest" : { offset: chosen.offset };
}

const isList = (from: StartPosition): from is readonly TopicPartitionOffset[] => Array.isArray(from);
