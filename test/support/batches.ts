import { BATCH_HEAD_BYTES_MAX, writeBatchHead } from "../../protocol/record-batch.js";
import type { BatchHeader } from "../../protocol/record-batch.js";
import { codecs } from "../../protocol/messages.js";

/** A batch with these values, made with the schema's own codec; `header` overrides what it says of itself. */
export function batchOf(values: readonly string[], header: Partial<BatchHeader> = {}, timestamp = Date.now()): Buffer {
  const records = Buffer.from(
    codecs.Records.encode({
      record: values.map((value, offsetDelta) => ({ offsetDelta, value: Buffer.from(value) })),
    }).finish(),
  );
  const buffer = Buffer.concat([Buffer.alloc(BATCH_HEAD_BYTES_MAX), records]);
  const start = writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, buffer.length, {
    attributes: 0,
    lastOffsetDelta: values.length - 1,
    baseTimestamp: timestamp,
    maxTimestamp: timestamp,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    recordCount: values.length,
    ...header,
  });
  return buffer.subarray(start);
}
