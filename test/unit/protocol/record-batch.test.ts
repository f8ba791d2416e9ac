import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  BATCH_BYTES_MIN,
  BATCH_HEAD_BYTES_MAX,
  BatchFault,
  batchSizeAt,
  nextSequence,
  produceRefusal,
  readBatch,
  readBatches,
  SEQUENCE_END,
  writeBatchHead,
} from "../../../protocol/record-batch.js";
import type { BatchHeader } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";

/** Each byte of each field has another value, so that no two can be taken for each other. */
const everyField: BatchHeader = {
  attributes: 0x0f,
  lastOffsetDelta: 0x11121314,
  baseTimestamp: 0x1222324252627,
  maxTimestamp: 0x1323334353637,
  producerId: 0x1424344454647,
  producerEpoch: 0x51525354,
  baseSequence: 0x61626364,
  recordCount: 0x71727374,
};
const goldenOffset = toOffset(0x10203040506070);
const goldenEpoch = 0x31323334;

function write(header: BatchHeader, records: Uint8Array): Buffer {
  const buffer = Buffer.alloc(BATCH_HEAD_BYTES_MAX + records.length);
  buffer.set(records, BATCH_HEAD_BYTES_MAX);
  return buffer.subarray(writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, buffer.length, header));
}

function faultOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof BatchFault) return error.kind;
    throw error;
  }
  return "none";
}

/** A stamped batch whose fields a producer could have sent. */
function sample(records = 3): Buffer {
  const bytes = write(
    { ...everyField, attributes: 0, lastOffsetDelta: records - 1, recordCount: records },
    Buffer.from("0a0408001000".repeat(records), "hex"),
  );
  readBatch(bytes, 0).stamp(toOffset(1234), 5);
  return bytes;
}

describe("the bytes of a batch", () => {
  it("are the ones in the golden file", () => {
    const path = join(import.meta.dirname, "../../golden/record-batch.hex");
    const bytes = write(everyField, Buffer.from("golden records"));
    readBatch(bytes, 0).stamp(goldenOffset, goldenEpoch);
    if (process.env["UPDATE_GOLDEN"] === "1")
      writeFileSync(path, `${bytes.toString("hex").replace(/.{64}/g, "$&\n")}\n`);
    const golden = Buffer.from(readFileSync(path, "utf8").replace(/\s/g, ""), "hex");
    expect(bytes.toString("hex")).toBe(golden.toString("hex"));
    const batch = readBatch(golden, 0);
    batch.verify();
    const { baseOffset, leaderEpoch, attributes, lastOffsetDelta, baseTimestamp, maxTimestamp } = batch;
    const { producerId, producerEpoch, baseSequence, recordCount } = batch;
    expect({ baseOffset, leaderEpoch }).toEqual({ baseOffset: goldenOffset, leaderEpoch: goldenEpoch });
    expect({
      attributes,
      lastOffsetDelta,
      baseTimestamp,
      maxTimestamp,
      producerId,
      producerEpoch,
      baseSequence,
      recordCount,
    }).toEqual(everyField);
    expect(golden.subarray(batch.recordsStart, batch.end).toString()).toBe("golden records");
  });

  it("come back as the fields that went in", () => {
    const word = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const long = fc.maxSafeNat();
    fc.assert(
      fc.property(
        fc.record({
          attributes: word,
          lastOffsetDelta: word,
          baseTimestamp: long,
          maxTimestamp: long,
          producerId: fc.oneof(long, fc.constant(-1)),
          producerEpoch: fc.integer({ min: -1, max: 2 ** 31 - 1 }),
          baseSequence: fc.integer({ min: -1, max: 2 ** 31 - 1 }),
          recordCount: word,
        }),
        long,
        word,
        fc.uint8Array({ maxLength: 300 }),
        (header, offset, epoch, records) => {
          const bytes = write(header, records);
          const batch = readBatch(bytes, 0);
          expect(batch.crcMatches).toBe(true);
          batch.stamp(toOffset(offset), epoch);
          batch.verify();
          expect(batch).toMatchObject({ ...header, baseOffset: offset, leaderEpoch: epoch, sizeBytes: bytes.length });
          expect(bytes.subarray(batch.recordsStart, batch.end).equals(Buffer.from(records))).toBe(true);
        },
      ),
    );
  });

  it("take lengths at the edges of their varints", () => {
    for (const length of [0, 1, 40, 44, 50, 127, 128, 16_305, 16_383, 16_384, 2_097_151, 2_097_152]) {
      const bytes = write(everyField, Buffer.alloc(length, 7));
      expect(batchSizeAt(bytes, 0, bytes.length)).toBe(bytes.length);
      const batch = readBatch(bytes, 0);
      expect(batch.end - batch.recordsStart).toBe(length);
    }
    expect(write(everyField, Buffer.alloc(0))).toHaveLength(BATCH_BYTES_MIN);
  });
});

describe("damage", () => {
  it("of any one bit is detected", () => {
    const original = sample();
    for (let bit = 0; bit < original.length * 8; bit += 1) {
      const bytes = Buffer.from(original);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(faultOf(() => readBatches(bytes).forEach((batch) => batch.verify()))).not.toBe("none");
    }
  });

  it("of the length is detected although bytes follow", () => {
    const original = sample();
    const two = Buffer.concat([original, original]);
    for (let bit = 0; bit < 16; bit += 1) {
      const bytes = Buffer.from(two);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(faultOf(() => readBatches(bytes).forEach((batch) => batch.verify()))).not.toBe("none");
    }
  });

  it("says which part is not what was written", () => {
    const kindAfter = (at: number) => {
      const bytes = sample();
      bytes[at]! ^= 1;
      return faultOf(() => readBatch(bytes, 0).verify());
    };
    const { length } = sample();
    // The lowest byte of the offset, of the epoch, of the stamp, of the checksum, of the attributes; the last of the
    // records.
    expect([3, 12, 17, 22, 27, length - 1].map(kindAfter)).toEqual([
      "stamp-crc",
      "stamp-crc",
      "stamp-crc",
      "stamp-crc",
      "crc",
      "crc",
    ]);
  });
});

describe("a cut batch", () => {
  it("is refused at every length", () => {
    const bytes = sample();
    for (let length = 0; length < bytes.length; length += 1) {
      expect(faultOf(() => readBatch(bytes, 0, length))).toBe("truncated");
      const size = batchSizeAt(bytes, 0, length);
      expect(size === undefined || size === bytes.length).toBe(true);
    }
  });
});

describe("another form", () => {
  const body = (): Buffer => sample().subarray(2);
  const framed = (content: Buffer): Buffer => {
    expect(content.length).toBeLessThan(16_384);
    const length = content.length < 128 ? [content.length] : [(content.length & 0x7f) | 0x80, content.length >> 7];
    return Buffer.concat([Buffer.from([0x0a, ...length]), content]);
  };

  it.each<[string, () => Buffer]>([
    ["a longer varint than needed", () => Buffer.concat([Buffer.from([0x0a, body().length | 0x80, 0]), body()])],
    ["an unknown field behind", () => framed(Buffer.concat([body(), Buffer.from([0x70, 1])]))],
    ["a repeated field behind", () => framed(Buffer.concat([body(), Buffer.from([0x6a, 0])]))],
    ["a missing field", () => framed(Buffer.concat([body().subarray(0, 24), body().subarray(29)]))],
    [
      "fields in another order",
      () => framed(Buffer.concat([body().subarray(9, 14), body().subarray(0, 9), body().subarray(14)])),
    ],
    ["nothing", () => Buffer.from([0x0a, 0])],
  ])("is refused: %s", (_, bytes) => {
    expect(faultOf(() => readBatch(bytes(), 0))).toBe("not-canonical");
  });

  it.each([
    ["base_offset", 1],
    ["base_timestamp", 35],
    ["max_timestamp", 44],
    ["producer_id", 53],
  ])("is refused: %s above 2^53 - 1", (_, at) => {
    const bytes = sample();
    bytes.writeUInt32LE(0x1fffff, 2 + at + 4);
    bytes.writeUInt32LE(0xffffffff, 2 + at);
    expect(faultOf(() => readBatch(bytes, 0))).toBe("none");
    bytes.writeUInt32LE(0x200000, 2 + at + 4);
    expect(faultOf(() => readBatch(bytes, 0))).toBe("not-canonical");
  });

  it("never is taken for a batch without a fault, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        expect(faultOf(() => readBatch(Buffer.from([0x0a, ...noise]), 0))).not.toBe("none");
      }),
    );
  });
});

describe("produceRefusal", () => {
  const good: BatchHeader = {
    attributes: 0,
    lastOffsetDelta: 1,
    baseTimestamp: 10,
    maxTimestamp: 20,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    recordCount: 2,
  };
  const refusal = (change: Partial<BatchHeader>, recordBytes = 8) =>
    produceRefusal(readBatch(write({ ...good, ...change }, Buffer.alloc(recordBytes)), 0));

  it("lets a plain and an idempotent batch pass", () => {
    expect(refusal({})).toBeUndefined();
    expect(refusal({ producerId: 0, producerEpoch: 0, baseSequence: 0 })).toBeUndefined();
    expect(refusal({ attributes: 8 })).toBeUndefined();
  });

  it.each<[string, Partial<BatchHeader>, number]>([
    ["reserved bits", { attributes: 0x40 }, 8],
    ["a control batch", { attributes: 0x20 }, 8],
    ["a transaction", { attributes: 0x10 }, 8],
    ["compression", { attributes: 1 }, 8],
    ["no records", { recordCount: 0, lastOffsetDelta: 0 }, 8],
    ["a count that does not fit the offsets", { lastOffsetDelta: 2 }, 8],
    ["more records than bytes", {}, 3],
    ["more records than a batch may have", { recordCount: 2 ** 20 + 1, lastOffsetDelta: 2 ** 20 }, 2 ** 22],
    ["half an idempotent producer", { producerId: 5 }, 8],
    ["a sequence without a producer", { baseSequence: 0 }, 8],
  ])("refuses %s", (_, change, recordBytes) => {
    expect(refusal(change, recordBytes)).toEqual(expect.any(String));
  });
});

it("counts sequences around the end", () => {
  expect(nextSequence(SEQUENCE_END - 1, 1)).toBe(0);
  expect(nextSequence(SEQUENCE_END - 2, 5)).toBe(3);
  expect(nextSequence(0, 2 ** 20)).toBe(2 ** 20);
});
