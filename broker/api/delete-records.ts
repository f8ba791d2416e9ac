import { ApiError } from "../../protocol/error-codes.js";
import type { DeletedRecords, DeleteRecordsRequest, Init } from "../../protocol/messages.js";
import { parseOffset } from "../../protocol/types.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler } from "../net/request-context.js";
import type { PartitionTable } from "../partition/partition-table.js";
import { notHere } from "./produce.js";

type Target = DeleteRecordsRequest["partitions"][number];

const TIMEOUT_MS_DEFAULT = 30_000;
const TIMEOUT_MS_MAX = 120_000;

/**
 * Moves log start offsets forward, up to the high watermark, and answers once every replica that may be elected has
 * followed. Each may be asked again without harm.
 */
export function deleteRecordsHandler(partitions: PartitionTable, metadata: MetadataCache): Handler<"deleteRecords"> {
  return async (request) => {
    const timeoutMs = Math.min(request.timeoutMs === 0 ? TIMEOUT_MS_DEFAULT : request.timeoutMs, TIMEOUT_MS_MAX);
    const deletions = request.partitions.map((target) => deleteBefore(partitions, metadata, target, timeoutMs));
    return { body: { partitions: await Promise.all(deletions) } };
  };
}

function deleteBefore(
  partitions: PartitionTable,
  metadata: MetadataCache,
  target: Target,
  timeoutMs: number,
): Promise<Init<DeletedRecords>> | Init<DeletedRecords> {
  const { topicId, partition: index, beforeOffset } = target;
  const partition = partitions.get(topicId, index);
  if (partition === undefined) return { error: notHere(metadata, topicId, index) };
  const before = beforeOffset === -1 ? undefined : parseOffset(beforeOffset);
  if (before === undefined && beforeOffset !== -1)
    return {
      error: new ApiError("OFFSET_OUT_OF_RANGE", `${partition.name}: there is no offset ${beforeOffset}`).report,
    };
  return new Promise<Init<DeletedRecords>>((resolve) => partition.deleteBefore(before, timeoutMs, resolve)).catch(
    (error: unknown) => {
      if (error instanceof ApiError) return { error: error.report };
      throw error;
    },
  );
}
