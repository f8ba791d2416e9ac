import { OffsetSpec } from "../protocol/messages.js";
import type { ListedOffset } from "../protocol/messages.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ClientError } from "./errors.js";
import { shown } from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";
import type { CallOptions, TopicPartition } from "./options.js";
import type { Deadline } from "./retry.js";

/** Which offset of a partition is asked for. */
export type OffsetQuery =
  /** The log start offset. */
  | "earliest"
  /** The high watermark: the offset that the next record for consumers will have. */
  | "latest"
  /** The log end offset, replicated or not; for operators. */
  | "logEnd"
  /** The first record written at or after this time; the high watermark if there is none. */
  | { readonly timestamp: number | Date };

/** What is asked to find where reading begins: one offset, or so many records before the end. */
export type StartQuery = OffsetQuery | { readonly last: number };

/** A partition and what is asked of it. */
export interface OffsetLookup extends TopicPartition {
  readonly query: OffsetQuery;
}

/** Asks the leaders. An answer or an error for each lookup, in their order. The topics must be known to the metadata. */
export async function lookUpOffsets(
  caller: BrokerCaller,
  lookups: readonly OffsetLookup[],
  deadline: Deadline,
  signal: CallOptions["signal"],
  /** Called for each lookup that has come to something, as soon as it has. */
  onResult?: (index: number, result: ListedOffset | ClientError) => void,
): Promise<(ListedOffset | ClientError)[]> {
  return caller.callLeaders<"listOffsets", OffsetLookup, ListedOffset>({
    kind: "listOffsets",
    items: lookups,
    body: (items) => ({
      partitions: items.map(({ topicId, partition, leader, query }) => ({
        topicId,
        partition,
        leaderEpochPlusOne: leader.leaderEpoch + 1,
        ...specOf(query),
      })),
    }),
    answers: (body) => body.partitions,
    deadline,
    signal,
    onResult,
  });
}

/** The questions that a start is found by, and the offset that the answers to them come to. */
export function startQueries(start: StartQuery): {
  readonly queries: readonly OffsetQuery[];
  readonly offsetOf: (offsets: readonly number[]) => number;
} {
  if (typeof start === "string" || !("last" in start)) return { queries: [start], offsetOf: ([offset = 0]) => offset };
  return {
    queries: ["earliest", "latest"],
    offsetOf: ([logStart = 0, highWatermark = 0]) => Math.max(logStart, highWatermark - start.last),
  };
}

function specOf(query: OffsetQuery): { spec: OffsetSpec; timestamp: number } {
  switch (query) {
    case "earliest":
      return { spec: OffsetSpec.EARLIEST, timestamp: 0 };
    case "latest":
      return { spec: OffsetSpec.LATEST, timestamp: 0 };
    case "logEnd":
      return { spec: OffsetSpec.LOG_END, timestamp: 0 };
    default:
      return { spec: OffsetSpec.TIMESTAMP, timestamp: timestampOf(query) };
  }
}

/** Milliseconds since 1970. Throws InvalidArgumentError. */
export function timestampOf(query: { readonly timestamp: number | Date }): number {
  const given: unknown = query.timestamp;
  const timestamp = given instanceof Date ? given.getTime() : given;
  if (Number.isSafeInteger(timestamp) && (timestamp as number) >= 0) return timestamp as number;
  const isDate = given instanceof Date;
  const what = isDate ? (Number.isNaN(timestamp) ? "an invalid Date" : given.toISOString()) : shown(given);
  throw new InvalidArgumentError(`timestamp is ${what}`, "give milliseconds since 1970, or a Date");
}
