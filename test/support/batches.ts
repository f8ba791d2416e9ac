import { BATCH_HEAD_BYTES_MAX, writeBatchHead } from "../../protocol/record-batch.js";
import type { BatchHeader } from "../../protocol/record-batch.js";
import { codecs } from "../../protocol/messages.js";

/** A batch with these values, made with the schema's own codec; `header` overrides what it says of itself. */
export function batchOf(values: readonly string[], header: Partial<BatchHeader> = {}, timestamp = Date.now()): Buffer {
  return batchOfRecords(
    values.map((value, offsetDelta) => ({ offsetDelta, value: Buffer.from(value) })),
    header,
    timestamp,
  );
}

/** The same of any records, whether they can be read or not. */
export function batchOfRecords(
  record: readonly { readonly offsetDelta: number; readonly value: Buffer }[],
  header: Partial<BatchHeader> = {},
  timestamp = Date.now(),
): Buffer {
  const records = Buffer.from(codecs.Records.encode({ record: [...record] }).finish());
  return batchOfBytes(
    records,
    { lastOffsetDelta: record.length - 1, recordCount: record.length, ...header },
    timestamp,
  );
}

/** The same of the bytes of records, whatever they are; of one record, if the head does not say otherwise. */
export function batchOfBytes(records: Buffer, header: Partial<BatchHeader> = {}, timestamp = Date.now()): Buffer {
  const buffer = Buffer.concat([Buffer.alloc(BATCH_HEAD_BYTES_MAX), records]);
  const start = writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, buffer.length, {
    attributes: 0,
    lastOffsetDelta: 0,
    baseTimestamp: timestamp,
    maxTimestamp: timestamp,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    recordCount: 1,
    ...header,
  });
  return buffer.subarray(start);
}
