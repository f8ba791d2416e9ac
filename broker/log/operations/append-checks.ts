import { ApiError } from "../../../protocol/error-codes.js";
import { BatchFault, produceRefusal, readBatches } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { recordsRefusal } from "../../../protocol/record-cursor.js";
import { parseOffset } from "../../../protocol/types.js";
import type { LeaderEpoch, Offset } from "../../../protocol/types.js";
import { RELATIVE_OFFSET_MAX } from "../segment/roll.js";

/*
 * What is checked of batches before they get a place in a log, as far as it takes nothing but the batches and a few
 * numbers. All of these throw ApiError, and change nothing.
 */

/** A batch may be so much ahead of our clock (KIP-937); else a wrong clock would keep its segment for ever. */
const TIMESTAMP_AHEAD_MS_MAX = 3_600_000;

/** The batches of an append, at least one. Throws INVALID_RECORD. */
export function parseBatches(records: Buffer): RecordBatch[] {
  try {
    const batches = readBatches(records);
    if (batches.length === 0) throw new ApiError("INVALID_RECORD", "there is no batch to append");
    return batches;
  } catch (error) {
    if (error instanceof BatchFault) throw new ApiError("INVALID_RECORD", error.message, { cause: error });
    throw error;
  }
}

/** A batch as a producer made it. Throws MESSAGE_TOO_LARGE, INVALID_RECORD, CORRUPT_MESSAGE, INVALID_TIMESTAMP. */
export function checkProduced(batch: RecordBatch, wallMs: number, maxMessageBytes: number): void {
  if (batch.sizeBytes > maxMessageBytes)
    throw new ApiError(
      "MESSAGE_TOO_LARGE",
      `a batch of ${batch.sizeBytes} bytes is over max.message.bytes (${maxMessageBytes})`,
    );
  const refusal = produceRefusal(batch);
  if (refusal !== undefined) throw new ApiError("INVALID_RECORD", refusal);
  const which = `the batch at byte ${batch.start} of the records`;
  if (!batch.crcMatches) throw new ApiError("CORRUPT_MESSAGE", `${which} does not match its checksum`);
  // Acknowledged, they would be replicated and kept, and no reader could get past them.
  const unreadable = recordsRefusal(batch);
  if (unreadable !== undefined) throw new ApiError("INVALID_RECORD", unreadable);
  const newest = Math.max(batch.maxTimestamp, batch.baseTimestamp);
  if (newest > wallMs + TIMESTAMP_AHEAD_MS_MAX)
    throw new ApiError(
      "INVALID_TIMESTAMP",
      `${which} has timestamp ${newest}, more than an hour ahead of the broker's clock, which says ${wallMs}`,
    );
}

/**
 * Batches as the leader of `followedEpoch` stamped them, for a log in which `nextOffset` is next and `latestEpoch` is the
 * newest. Throws CORRUPT_MESSAGE, INVALID_RECORD.
 */
export function checkReplicated(
  batches: readonly RecordBatch[],
  nextOffset: Offset,
  latestEpoch: LeaderEpoch | undefined,
  followedEpoch: LeaderEpoch,
): void {
  let offset = nextOffset;
  let epoch = latestEpoch ?? 0;
  for (const batch of batches) {
    if (!batch.stampMatches || !batch.crcMatches)
      throw new ApiError("CORRUPT_MESSAGE", `the batch at offset ${batch.baseOffset} does not match its checksum`);
    if (batch.baseOffset < offset)
      throw new ApiError("INVALID_RECORD", `the batch at offset ${batch.baseOffset} comes where ${offset} is next`);
    if (batch.leaderEpoch < epoch)
      throw new ApiError(
        "INVALID_RECORD",
        `the batch at offset ${batch.baseOffset} has leader epoch ${batch.leaderEpoch}, behind ${epoch}`,
      );
    // It was read after its leader had become another's follower. Taken, it would hide where the two logs part: that is
    // found by the last epoch alone.
    if (batch.leaderEpoch > followedEpoch)
      throw new ApiError(
        "INVALID_RECORD",
        `the batch at offset ${batch.baseOffset} has leader epoch ${batch.leaderEpoch}, above the followed epoch ${followedEpoch}`,
      );
    if (parseOffset(batch.endOffset) === undefined || batch.endOffset - offset > RELATIVE_OFFSET_MAX)
      throw new ApiError("INVALID_RECORD", `the batch at offset ${batch.baseOffset} is too far from ${offset}`);
    offset = batch.endOffset;
    epoch = batch.leaderEpoch;
  }
}
