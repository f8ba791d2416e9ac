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
import { numberOption, refuseUnknownOptions, wordOption } from "./options.js";

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
  refuseUnknownOptions("a consumer", options, optionNames);
  const topics = options.topics ?? [options.topic];
  if (topics.length === 0 || topics.some((topic) => typeof topic !== "string" || topic === "")) {
    throw new InvalidArgumentError("a consumer has no topic to read", 'give topics: ["orders"] or topic: "orders"');
  }
  for (const partition of options.partitions ?? []) numberOption("partitions", partition, { min: 0, defaultValue: 0 });
  const from = options.from ?? "latest";
  if (isList(from)) for (const { offset } of from) checkPosition({ offset });
  else checkPosition(from);
  return {
    topics,
    partitions: options.partitions,
    from,
    onOutOfRange: wordOption("onOutOfRange", options.onOutOfRange, ["earliest", "latest", "error"], "error"),
    onUnreadable: wordOption("onUnreadable", options.onUnreadable, ["skip", "error"], "error"),
    stallMs: numberOption("stallMs", options.stallMs, { min: 1, defaultValue: STALL_MS }),
    signal: options.signal,
    fetch: {
      prefetchBytes: numberOption("prefetchBytes", options.prefetchBytes, { min: 1, defaultValue: PREFETCH_BYTES }),
      partitionBytes: numberOption("partitionBytes", options.partitionBytes, {
        min: 1,
        max: 32 * 1024 * 1024,
        defaultValue: PARTITION_BYTES,
      }),
      fetchBytesMin: numberOption("fetchBytesMin", options.fetchBytesMin, { min: 1, defaultValue: 1 }),
      fetchWaitMs: numberOption("fetchWaitMs", options.fetchWaitMs, {
        min: 1,
        max: 60_000,
        defaultValue: FETCH_WAIT_MS,
      }),
      requestTimeoutMs,
    },
  };
}

/** Throws InvalidArgumentError for what is no place in a log. */
export function checkPosition(position: Position): void {
  if (position === "earliest" || position === "latest") return;
  if (typeof position === "object" && "timestamp" in position) {
    timestampOf(position);
    return;
  }
  if (typeof position === "object" && Number.isSafeInteger(position.offset) && position.offset >= 0) return;
  throw new InvalidArgumentError(
    `the position ${JSON.stringify(position)} is none`,
    'give "earliest", "latest", { offset } from 0 on, or { timestamp }',
  );
}

/** Where reading of a partition begins. */
export function startOf(from: StartPosition, topic: string, partition: number): Position {
  if (!isList(from)) return from;
  const chosen = from.find((one) => one.topic === topic && one.partition === partition);
  return chosen === undefined ? "earliest" : { offset: chosen.offset };
}

const isList = (from: StartPosition): from is readonly TopicPartitionOffset[] => Array.isArray(from);
