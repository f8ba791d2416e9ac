import { counted } from "../../common/counted.js";
import { ApiError, errorReport, topicIdRefusal } from "../../protocol/error-codes.js";
import type { ErrorReport } from "../../protocol/error-codes.js";
import type { Init, ProducedPartition, ProducePartition, ProduceRequest } from "../../protocol/messages.js";
import { acksCodes } from "../../protocol/types.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Answer, Handler, RequestContext } from "../net/request-context.js";
import type { LogAppend } from "../log/index.js";
import type { Partition } from "../partition/partition.js";
import type { PartitionTable } from "../partition/partition-table.js";

const PARTITIONS_MAX = 2000;
const TIMEOUT_MS_MAX = 120_000;

/**
 * Appends batches and waits for as many replicas as the producer asked for. Every batch has its place in its log before
 * this returns, so batches of one connection never change their order.
 */
export function produceHandler(partitions: PartitionTable, metadata: MetadataCache): Handler<"produce"> {
  return (request, context, records) => {
    assertWellFormed(request, records.length);
    const { acks } = request;
    const timeoutMs = Math.min(request.timeoutMs, TIMEOUT_MS_MAX);
    const outcomes = request.partitions.map((target, index) =>
      appendTo(partitions, metadata, context, target, records[index] as Buffer, acks),
    );
    if (acks === acksCodes.none) return unanswered(outcomes);
    // Most requests hold one partition, and most appends are written by now: no promise is made where none is needed.
    if (
      acks === acksCodes.leader &&
      outcomes.every((outcome) => "error" in outcome || outcome.append.written === undefined)
    ) {
      return answer(outcomes.map((outcome) => ("error" in outcome ? outcome : produced(outcome))));
    }
    const pending = outcomes.map((outcome) =>
      "error" in outcome ? outcome : settled(outcome, acks, timeoutMs, metadata, context),
    );
    return Promise.all(pending).then(answer);
  };
}

/** Nobody waits for an answer, but what is not written yet still lies in the request. */
function unanswered(outcomes: readonly (Appended | Refused)[]): Promise<undefined> | undefined {
  const writes = outcomes.flatMap((outcome) =>
    "error" in outcome || outcome.append.written === undefined ? [] : [outcome.append.written],
  );
  return writes.length === 0 ? undefined : Promise.allSettled(writes).then(() => undefined);
}

interface Appended {
  readonly partition: Partition;
  readonly append: LogAppend;
}
interface Refused extends Init<ProducedPartition> {
  readonly error: ErrorReport;
}

const answer = (partitions: readonly Init<ProducedPartition>[]): Answer<"produce"> => ({ body: { partitions } });

function assertWellFormed(request: ProduceRequest, recordsCount: number): void {
  if (request.partitions.length > PARTITIONS_MAX)
    throw new ApiError("TOO_MANY_ELEMENTS", `a produce request may name ${PARTITIONS_MAX} partitions`);
  if (request.partitions.length !== recordsCount) {
    throw new ApiError(
      "INVALID_REQUEST",
      `${counted(request.partitions.length, "partition", "are")} named, and records come for ${recordsCount}`,
    );
  }
  const { acks } = request;
  if (acks !== acksCodes.all && acks !== acksCodes.leader && acks !== acksCodes.none) {
    throw new ApiError("INVALID_REQUIRED_ACKS", `acks ${acks} is none of 0, 1 and -1 (all)`);
  }
}

function appendTo(
  partitions: PartitionTable,
  metadata: MetadataCache,
  context: RequestContext,
  target: ProducePartition,
  records: Buffer,
  acks: number,
): Appended | Refused {
  const partition = partitions.get(target.topicId, target.partition);
  const refuse = (error: ErrorReport): Refused => ({
    error,
    leader: metadata.leaderHint(target.topicId, target.partition, context.listenerName),
  });
  if (partition === undefined) return refuse(notHere(metadata, target.topicId, target.partition));
  try {
    const leaderEpoch = target.leaderEpochPlusOne === 0 ? undefined : target.leaderEpochPlusOne - 1;
    return { partition, append: partition.append(records, acks, leaderEpoch) };
  } catch (error) {
    if (error instanceof ApiError) return refuse(error.report);
    throw error;
  }
}

/** Why a partition is not on this broker. */
export function notHere(metadata: MetadataCache, topicId: string, partition: number): ErrorReport {
  const refusal = topicIdRefusal(topicId);
  if (refusal !== undefined) return refusal;
  const topic = metadata.topic(topicId);
  if (topic === undefined)
    return metadata.refusal(
      errorReport("UNKNOWN_TOPIC_ID", `topic id ${topicId} is not known here; the topic may be deleted, or too new`),
    );
  if (!topic.partitions.has(partition)) {
    return errorReport(
      "UNKNOWN_TOPIC_OR_PARTITION",
      `${topic.name} has ${counted(topic.partitions.size, "partition")}, and ${partition} is none`,
    );
  }
  return errorReport("NOT_LEADER_OR_FOLLOWER", `${topic.name}-${partition} has no replica on this broker`);
}

const produced = ({ partition, append }: Appended): Init<ProducedPartition> => ({
  baseOffset: append.baseOffset,
  logStartOffset: partition.log.logStartOffset,
});

async function settled(
  appended: Appended,
  acks: number,
  timeoutMs: number,
  metadata: MetadataCache,
  context: RequestContext,
): Promise<Init<ProducedPartition>> {
  const { partition, append } = appended;
  const refuse = (error: ErrorReport): Refused => ({
    error,
    leader: metadata.leaderHint(partition.topicId, partition.partition, context.listenerName),
  });
  try {
    if (acks === acksCodes.all) {
      // Told of the high watermark before the write is awaited: with followers that are quick it may pass first.
      const replicated = new Promise<ErrorReport | undefined>((resolve) =>
        partition.whenReplicated(append.endOffset, timeoutMs, resolve),
      );
      const [refusal] = await Promise.all([replicated, append.written]);
      return refusal === undefined ? produced(appended) : refuse(refusal);
    }
    await append.written;
    return produced(appended);
  } catch (error) {
    if (error instanceof ApiError) return refuse(error.report);
    throw error;
  }
}
