import { ApiError } from "../../protocol/error-codes.js";
import type { Init, ListedOffset, ListOffsetsPartition } from "../../protocol/messages.js";
import { OffsetSpec } from "../../protocol/messages.js";
import { parseOffset } from "../../protocol/types.js";
import { Limiter } from "../../common/limiter.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler, RequestContext } from "../net/request-context.js";
import type { PartitionTable } from "../partition/partition-table.js";
import { notHere } from "./produce.js";

const PARTITIONS_MAX = 2000;
/** Searches for a time read a part of a segment, with a buffer each: not all at once, whoever asks. */
const SEARCHES_AT_ONCE = 4;

/** Answers where a log begins and ends, and which record is the first at or after a time. */
export function listOffsetsHandler(partitions: PartitionTable, metadata: MetadataCache): Handler<"listOffsets"> {
  const searches = new Limiter(SEARCHES_AT_ONCE);
  return async (request, context) => {
    if (request.partitions.length > PARTITIONS_MAX)
      throw new ApiError("TOO_MANY_ELEMENTS", `a request may ask for ${PARTITIONS_MAX} partitions`);
    return {
      body: {
        partitions: await Promise.all(
          request.partitions.map((asked) => list(partitions, metadata, searches, context, asked)),
        ),
      },
    };
  };
}

async function list(
  partitions: PartitionTable,
  metadata: MetadataCache,
  searches: Limiter,
  context: RequestContext,
  asked: ListOffsetsPartition,
): Promise<Init<ListedOffset>> {
  try {
    return await found(partitions, metadata, searches, asked);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { error: error.report, leader: metadata.leaderHint(asked.topicId, asked.partition, context.listenerName) };
  }
}

async function found(
  partitions: PartitionTable,
  metadata: MetadataCache,
  searches: Limiter,
  asked: ListOffsetsPartition,
): Promise<Init<ListedOffset>> {
  const partition = partitions.get(asked.topicId, asked.partition);
  if (partition === undefined) return { error: notHere(metadata, asked.topicId, asked.partition) };
  const askedEpoch = asked.leaderEpochPlusOne === 0 ? undefined : asked.leaderEpochPlusOne - 1;
  const leadership = partition.assertLeader(askedEpoch);
  const { epoch: leaderEpoch } = leadership;
  switch (asked.spec) {
    case OffsetSpec.EARLIEST:
      return { offset: partition.log.logStartOffset, leaderEpoch };
    case OffsetSpec.LATEST:
      return { offset: partition.latestOffset(askedEpoch), leaderEpoch };
    case OffsetSpec.LOG_END:
      return { offset: partition.log.logEndOffset, leaderEpoch };
    case OffsetSpec.TIMESTAMP: {
      if (parseOffset(asked.timestamp) === undefined)
        throw new ApiError("INVALID_REQUEST", "a timestamp is above 2^53 - 1");
      const latest = partition.latestOffset(askedEpoch);
      const record = await leadership.during(
        searches.run(() => partition.log.offsetForTimestamp(asked.timestamp, latest)),
      );
      return record === undefined
        ? { offset: latest, leaderEpoch }
        : { offset: record.offset, timestamp: record.timestamp, leaderEpoch };
    }
    default:
      throw new ApiError("INVALID_REQUEST", `this broker knows no position ${String(asked.spec)} to list`);
  }
}
