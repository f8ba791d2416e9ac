import type { Clock } from "../common/env/time.js";
import type { Logger } from "../common/logger.js";
import type { ErrorName } from "../protocol/error-codes.js";
import { errorCodes, mayRetry } from "../protocol/error-codes.js";
import type { FetchedPartition } from "../protocol/messages.js";
import type { BatchFault, RecordBatch } from "../protocol/record-batch.js";
import { recordsRefusal } from "../protocol/record-cursor.js";
import type { BrokerId } from "../protocol/types.js";
import { CorruptBatchError, OffsetOutOfRangeError, ProtocolError } from "./errors.js";
import type { FetchBuffer } from "./fetch-buffer.js";
import type { Metadata } from "./metadata.js";
import type { OutOfRangePolicy, UnreadablePolicy } from "./options.js";
import type { PartitionReader } from "./partition-reader.js";

/**
 * What becomes of a partition whose records cannot be had: it is asked for again after a pause, read on from elsewhere,
 * or left alone with an error for the application.
 */
export class FetchErrors {
  constructor(
    private readonly env: { readonly clock: Clock },
    private readonly logger: Logger,
    private readonly metadata: Metadata,
    private readonly policies: { readonly onOutOfRange: OutOfRangePolicy; readonly onUnreadable: UnreadablePolicy },
    private readonly buffer: FetchBuffer,
    /** Has the partition asked for at this time of the monotonic clock, or before. */
    private readonly wakeAt: (timeMs: number) => void,
  ) {}

  /**
   * A damaged batch, from which on the partition is to be fetched now, is fetched once more, because it may have been
   * damaged on the way; then it is an error.
   */
  onDamaged(reader: PartitionReader, offset: number, fault: BatchFault): void {
    const place = { topic: reader.topic, partition: reader.partition };
    this.logger.warn("a batch arrived damaged", { ...place, offset, reason: fault.message });
    const isRepeated = reader.damagedAt === offset;
    if (isRepeated) {
      reader.damagedAt = undefined;
      this.buffer.fail(new CorruptBatchError(offset, { ...place, cause: fault }), reader);
      return;
    }
    reader.damagedAt = offset;
    reader.notBeforeMs = this.env.clock.monotonicMs() + reader.backoff.next();
    this.wakeAt(reader.notBeforeMs);
  }

  /** Whether a batch, whose checksum is right, is to be left out because its records cannot be read. */
  leavesOut(reader: PartitionReader, batch: RecordBatch): boolean {
    if (this.policies.onUnreadable !== "skip") return false;
    const reason = recordsRefusal(batch);
    if (reason === undefined) return false;
    const { topic, partition } = reader;
    const { baseOffset: offset, endOffset: nextOffset } = batch;
    const fields = { topic, partition, offset, nextOffset, reason };
    this.logger.warn("a batch is left out, because its records cannot be read", fields);
    return true;
  }

  /** The answer to a fetch names an error for the partition. */
  onPartitionError(reader: PartitionReader, brokerId: BrokerId, answer: FetchedPartition, name: ErrorName): void {
    const { topic, partition } = reader;
    const { metadata } = this;
    if (name === "OFFSET_OUT_OF_RANGE") {
      this.#onOutOfRange(reader, answer);
      return;
    }
    const { refreshMetadata } = errorCodes[name];
    if (!mayRetry(name)) {
      const error = new ProtocolError(name, answer.error?.message, { topic, partition, brokerId });
      this.buffer.fail(error, reader);
      return;
    }
    reader.failedEpoch = metadata.leaderOf(topic, partition)?.leaderEpoch ?? -1;
    reader.notBeforeMs = this.env.clock.monotonicMs() + reader.backoff.next();
    reader.trouble = new ProtocolError(name, answer.error?.message, { brokerId });
    if (refreshMetadata) {
      metadata.believe(topic, partition, answer.leader);
      metadata.refreshSoon();
    }
    this.wakeAt(reader.notBeforeMs);
  }

  #onOutOfRange(reader: PartitionReader, answer: FetchedPartition): void {
    const place = { topic: reader.topic, partition: reader.partition };
    const { logStartOffset, highWatermark } = answer;
    const offset = reader.fetchPosition;
    const { onOutOfRange } = this.policies;
    if (onOutOfRange === "error") {
      this.buffer.fail(new OffsetOutOfRangeError(offset, logStartOffset, highWatermark, place), reader);
      return;
    }
    const to = onOutOfRange === "earliest" ? logStartOffset : highWatermark;
    this.logger.warn("the position is not in the log any more; going on elsewhere", { ...place, offset, to });
    // What is buffered is still to be delivered; the position follows behind that, and in front of what comes from there.
    reader.fetchPosition = to;
    const { generation } = reader;
    this.buffer.push([
      { reader, generation, batches: [], next: 0, bytes: 0, highWatermark, goesOnAt: to, release: undefined },
    ]);
  }
}
