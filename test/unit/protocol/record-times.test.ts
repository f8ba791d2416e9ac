import { firstRecordAt } from "../../../protocol/record-times.js";
import { codecs } from "../../../protocol/messages.js";
import { BATCH_HEAD_BYTES_MAX, readBatch, writeBatchHead } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";

const BASE_MS = 1_700_000_000_000;

/** Three records, a second apart, from offset 10 on; `more` stands at the end of each. */
function batchWith(more: readonly number[], compression = 0): RecordBatch {
  const records = [0, 1, 2].flatMap((offsetDelta) => {
    const [, , ...fields] = codecs.Records.encode({
      record: [{ offsetDelta, timestampDelta: offsetDelta * 1000, value: Buffer.from("v") }],
    }).finish();
    return [0x0a, fields.length + more.length, ...fields, ...more];
  });
  const buffer = Buffer.concat([Buffer.alloc(BATCH_HEAD_BYTES_MAX), Uint8Array.from(records)]);
  const start = writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, buffer.length, {
    attributes: compression,
    lastOffsetDelta: 2,
    baseTimestamp: BASE_MS,
    maxTimestamp: BASE_MS + 2000,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    recordCount: 3,
  });
  const batch = readBatch(buffer, start);
  batch.stamp(toOffset(10), 0);
  return batch;
}

describe("firstRecordAt", () => {
  it.each([
    ["as this version writes them", []],
    // Field 9 as varint, field 10 as bytes, field 11 as fixed32, field 12 as fixed64.
    [
      "with fields of a newer version",
      [0x48, 0x96, 0x01, 0x52, 0x02, 1, 2, 0x5d, 1, 2, 3, 4, 0x61, 1, 2, 3, 4, 5, 6, 7, 8],
    ],
  ])("finds the first record of a time among records %s", (_, more) => {
    const batch = batchWith(more);
    const found = [0, 1, 1000, 1001, 2000].map((ms) => firstRecordAt(batch, BASE_MS + ms, toOffset(0))?.offset);
    expect(found).toEqual([10, 11, 11, 12, 12]);
    expect(firstRecordAt(batch, BASE_MS + 1000, toOffset(12))).toEqual({ offset: 12, timestamp: BASE_MS + 2000 });
    expect(firstRecordAt(batch, BASE_MS + 2001, toOffset(0))).toBeUndefined();
  });

  it("answers with the whole batch when its records cannot be read", () => {
    const whole = { offset: 10, timestamp: BASE_MS + 2000 };
    for (const batch of [batchWith([], 1), batchWith([0x22, 0x7f])]) {
      expect(firstRecordAt(batch, BASE_MS + 1000, toOffset(0))).toEqual(whole);
      expect(firstRecordAt(batch, BASE_MS + 1000, toOffset(11))).toEqual({ ...whole, offset: 11 });
    }
  });
});
