import { ApiError } from "../../protocol/error-codes.js";
import type { DeletedRecords, DeleteRecordsRequest, Init } from "../../protocol/messages.js";
import { parseOffset } from "../../protocol/types.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler } from "../net/request-context.js";
import type { PartitionTable } from "../partition/partition-table.js";
import { notHere } from "./produce.js";

type Target = DeleteRecordsRequest["partitions"][number];

/** Moves log start offsets forward, up to the high watermark; followers follow with their next fetch. */
export function deleteRecordsHandler(partitions: PartitionTable, metadata: MetadataCache): Handler<"deleteRecords"> {
  return async (request) => ({
    body: {
      partitions: await Promise.all(request.partitions.map((target) => deleteBefore(partitions, metadata, target))),
    },
  });
}

async function deleteBefore(
  partitions: PartitionTable,
  metadata: MetadataCache,
  target: Target,
): Promise<Init<DeletedRecords>> {
  const partition = partitions.get(target.topicId, target.partition);
  if (partition === undefined) return { error: notHere(metadata, target.topicId, target.partition) };
  try {
    partition.assertLeader(undefined);
    const before = target.beforeOffset === -1 ? partition.highWatermark : parseOffset(target.beforeOffset);
    if (before === undefined || before > partition.highWatermark) {
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${partition.name}: ${target.beforeOffset} is above the high watermark ${partition.highWatermark}; only replicated records can be deleted`,
      );
    }
    if (before > partition.log.logStartOffset) await partition.log.advanceLogStart(before);
    return { logStartOffset: partition.log.logStartOffset };
  } catch (error) {
    if (error instanceof ApiError) return { error: error.report };
    throw error;
  }
}
