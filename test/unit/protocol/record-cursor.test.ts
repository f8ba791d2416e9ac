import fc from "fast-check";
import { codecs } from "../../../protocol/messages.js";
import { BATCH_HEAD_BYTES_MAX, BatchFault, readBatch, writeBatchHead } from "../../../protocol/record-batch.js";
import type { RecordBatch } from "../../../protocol/record-batch.js";
import { RecordCursor, readHeaders, recordsRefusal } from "../../../protocol/record-cursor.js";

const BASE_TIMESTAMP = 1_700_000_000_000;

/** A batch with the given bytes as its records, the rest of its buffer filled with bytes that must never be read. */
function batchOf(records: Uint8Array, recordCount: number, lastOffsetDelta = recordCount - 1): RecordBatch {
  const buffer = Buffer.alloc(BATCH_HEAD_BYTES_MAX + records.length + 32, 0x0a);
  buffer.set(records, BATCH_HEAD_BYTES_MAX);
  const end = BATCH_HEAD_BYTES_MAX + records.length;
  const start = writeBatchHead(buffer, BATCH_HEAD_BYTES_MAX, end, {
    attributes: 0,
    lastOffsetDelta,
    baseTimestamp: BASE_TIMESTAMP,
    maxTimestamp: BASE_TIMESTAMP,
    producerId: -1,
    producerEpoch: -1,
    baseSequence: -1,
    recordCount,
  });
  return readBatch(buffer, start, end);
}

function readAll(batch: RecordBatch) {
  const cursor = new RecordCursor(batch);
  const records = [];
  while (cursor.next()) {
    const part = (start: number, end: number): number[] | null =>
      start < 0 ? null : [...batch.buffer.subarray(start, end)];
    records.push({
      timestampDelta: cursor.timestamp - BASE_TIMESTAMP,
      offsetDelta: cursor.offset,
      key: part(cursor.keyStart, cursor.keyEnd),
      value: part(cursor.valueStart, cursor.valueEnd),
      header: readHeaders(batch.buffer, cursor.headersStart, cursor.headersEnd).map(({ key, value }) => ({
        key,
        value: value && [...value],
      })),
    });
    for (const at of [cursor.keyEnd, cursor.valueEnd, cursor.headersEnd]) expect(at).toBeLessThanOrEqual(batch.end);
  }
  return records;
}

const optionalBytes = fc.option(fc.uint8Array({ maxLength: 200 }));
const message = fc
  .array(
    fc.record({
      timestampDelta: fc.oneof(fc.integer(), fc.constantFrom(0, -1, 1, 63, -64, 64, 2 ** 40)),
      key: optionalBytes,
      value: optionalBytes,
      header: fc.array(fc.record({ key: fc.string({ maxLength: 10 }), value: optionalBytes }), { maxLength: 2 }),
    }),
    { minLength: 1, maxLength: 10 },
  )
  .map((records) => ({ record: records.map((record, offsetDelta) => ({ ...record, offsetDelta })) }));

describe("RecordCursor", () => {
  it("reads what protobufjs has written", () => {
    fc.assert(
      fc.property(message, ({ record }) => {
        const read = readAll(batchOf(codecs.Records.encode({ record }).finish(), record.length));
        expect(read).toEqual(
          record.map((one) => ({
            timestampDelta: one.timestampDelta,
            offsetDelta: one.offsetDelta,
            key: one.key && [...one.key],
            value: one.value && [...one.value],
            header: one.header.map((header) => ({ key: header.key, value: header.value && [...header.value] })),
          })),
        );
      }),
      { numRuns: 200 },
    );
  });

  it("answers any bytes with records inside the batch or a BatchFault, never with anything else", () => {
    const hostile = fc.oneof(
      fc.uint8Array({ minLength: 2, maxLength: 60 }),
      // Nearly right: one byte of a valid message replaced.
      fc.tuple(message, fc.nat(), fc.integer({ min: 0, max: 255 })).map(([valid, at, byte]) => {
        const bytes = Uint8Array.from(codecs.Records.encode(valid).finish());
        bytes[at % bytes.length] = byte;
        return bytes;
      }),
      // Cut short.
      fc.tuple(message, fc.nat()).map(([valid, at]) => {
        const bytes = codecs.Records.encode(valid).finish();
        return bytes.subarray(0, at % bytes.length);
      }),
    );
    fc.assert(
      fc.property(hostile, fc.integer({ min: 1, max: 10 }), (bytes, count) => {
        if (bytes.length === 0) return;
        try {
          expect(readAll(batchOf(bytes, count))).toHaveLength(count);
        } catch (error) {
          if (!(error instanceof BatchFault)) throw error;
          expect(error.kind).toBe("not-canonical");
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("refuses records that are fewer or more than the head of the batch says", () => {
    const bytes = codecs.Records.encode({ record: [{ offsetDelta: 0 }, { offsetDelta: 1 }] }).finish();
    expect(readAll(batchOf(bytes, 2))).toHaveLength(2);
    expect(() => readAll(batchOf(bytes, 3))).toThrow(/has 2 records where its head says 3/);
    expect(() => readAll(batchOf(bytes, 1, 1))).toThrow(/more records than the 1/);
  });

  it("takes gaps between offsets, as compaction leaves them, and refuses offsets that do not grow", () => {
    const withDeltas = (deltas: number[]): RecordBatch =>
      batchOf(
        codecs.Records.encode({ record: deltas.map((offsetDelta) => ({ offsetDelta })) }).finish(),
        deltas.length,
        9,
      );
    expect(readAll(withDeltas([1, 4, 9])).map((record) => record.offsetDelta)).toEqual([1, 4, 9]);
    expect(() => readAll(withDeltas([1, 1]))).toThrow(/offset delta 1 after 1/);
    expect(() => readAll(withDeltas([1, 10]))).toThrow(/offset delta 10/);
  });

  it("skips fields that a newer version has added", () => {
    const known = codecs.Records.encode({ record: [{ key: Buffer.from("k"), value: Buffer.from("v") }] }).finish();
    // Field 9 as varint, field 10 as bytes, field 11 as fixed32, field 12 as fixed64.
    const unknown = [0x48, 0x96, 0x01, 0x52, 0x02, 1, 2, 0x5d, 1, 2, 3, 4, 0x61, 1, 2, 3, 4, 5, 6, 7, 8];
    const bytes = Uint8Array.from([0x0a, known.length - 2 + unknown.length, ...known.subarray(2), ...unknown]);
    expect(readAll(batchOf(bytes, 1))).toMatchObject([{ key: [107], value: [118] }]);
    // The same beside the record, on both sides.
    const beside = Uint8Array.from([...unknown, ...bytes, ...unknown]);
    expect(readAll(batchOf(beside, 1))).toMatchObject([{ key: [107], value: [118] }]);
    expect(recordsRefusal(batchOf(beside, 1))).toBeUndefined();
  });

  it("refuses a header whose key is not UTF-8, which code that is generated from the schema does not read", () => {
    const withKey = (...key: number[]): RecordBatch =>
      batchOf(Uint8Array.from([0x0a, key.length + 4, 0x2a, key.length + 2, 0x0a, key.length, ...key]), 1);
    expect(readAll(withKey(...Buffer.from("grün")))).toMatchObject([{ header: [{ key: "grün" }] }]);
    for (const key of [
      [0xff, 0xfe],
      [0xc3, 0x28],
      [97, 0xc3],
      [0xed, 0xa0, 0x80],
    ]) {
      expect(() => readAll(withKey(...key))).toThrow(/the key of a header is not UTF-8/);
      expect(recordsRefusal(withKey(...key))).toMatch(/not UTF-8/);
    }
  });

  it("knows a field however many bytes its tag and its number take", () => {
    // Offset delta 0 in ten bytes, timestamp delta -1, key "k", value "v", header "h": "w".
    const longer = [
      ...[0x90, 0x80, 0x00, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
      ...[0x88, 0x00, 0x81, 0x80, 0x00, 0x9a, 0x80, 0x00, 0x81, 0x00, 107, 0xa2, 0x00, 1, 118],
      ...[0xaa, 0x00, 8, 0x8a, 0x00, 1, 104, 0x92, 0x00, 1, 119],
    ];
    const batch = batchOf(Uint8Array.from([0x8a, 0x00, longer.length, ...longer]), 1);
    const record = {
      timestampDelta: -1,
      offsetDelta: 0,
      key: [107],
      value: [118],
      header: [{ key: "h", value: [119] }],
    };
    expect(readAll(batch)).toEqual([record]);
    expect(recordsRefusal(batch)).toBeUndefined();
  });

  it("knows the sign of a time that is farther away than a number can tell", () => {
    const [ones, zeros] = [0xff, 0x80].map((byte) => new Array<number>(8).fill(byte)) as [number[], number[]];
    for (const [bytes, timestampDelta] of [
      [[...ones, 0x1f], -(2 ** 60)],
      [[...zeros, 0x20], 2 ** 60],
      [[...ones.slice(1), 0x0f], -(2 ** 52)],
      [[...zeros.slice(1), 0x10], 2 ** 52],
    ] as const) {
      const [record] = readAll(batchOf(Uint8Array.from([0x0a, bytes.length + 1, 0x08, ...bytes]), 1));
      expect(Math.round((record?.timestampDelta ?? 0) / 2 ** 50)).toBe(timestampDelta / 2 ** 50);
    }
  });

  it("refuses numbers of more than ten bytes, and what is no field", () => {
    const refusalOf = (...fields: number[]): string | undefined =>
      recordsRefusal(batchOf(Uint8Array.from([0x0a, fields.length, ...fields]), 1));
    const eleven = [...new Array<number>(10).fill(0x80), 0];
    for (const field of [0x10, 0x48]) expect(refusalOf(field, ...eleven)).toMatch(/more than 10 bytes/);
    expect(refusalOf(0x22, ...eleven)).toMatch(/more than 10 bytes/);
    expect(refusalOf(0x04)).toMatch(/number 0/);
    expect(refusalOf(0x80, 0x00, 0x01)).toMatch(/number 0/);
    expect(refusalOf(0x0b)).toMatch(/wire type 3/);
    expect(refusalOf(0x8a, 0x80, 0x80, 0x80, 0x10, 0x00)).toMatch(/the tag \d+/);
    for (const cut of [[0x10], [0x10, 0x80], [0x22], [0x22, 1], [0x22, 0xff, 0xff, 0x7f], [0x61, 0], [0x5d, 0], [0x9a]])
      expect(refusalOf(...cut)).toMatch(/ends inside a number|ends after what it is part of/);
  });
});

describe("readHeaders", () => {
  const headed = (...headers: number[][]): RecordBatch => {
    const fields = headers.flat();
    return batchOf(Uint8Array.from([0x0a, fields.length, ...fields]), 1);
  };

  it("skips a field of a header that a newer version has added, whatever its wire type", () => {
    // Key "k", value "v", and field 3: two bytes; then a header "n" without a value.
    const batch = headed([0x2a, 10, 0x0a, 1, 107, 0x1a, 2, 1, 2, 0x12, 1, 118], [0x2a, 3, 0x0a, 1, 110]);
    expect(recordsRefusal(batch)).toBeUndefined();
    expect(readAll(batch)[0]?.header).toEqual([
      { key: "k", value: [118] },
      { key: "n", value: null },
    ]);
  });

  it("skips a field of a record that a newer version has added between its headers", () => {
    const batch = headed([0x2a, 3, 0x0a, 1, 107], [0x32, 2, 1, 2], [0x2a, 3, 0x0a, 1, 110]);
    expect(recordsRefusal(batch)).toBeUndefined();
    expect(readAll(batch)[0]?.header.map(({ key }) => key)).toEqual(["k", "n"]);
  });

  it.each([
    // Read as a number, the last byte goes on behind the record, and at the end of a frame for ever.
    ["with a field that is not known", [[0x2a, 3, 0x1a, 1, 0xff]]],
    // Its tag takes two bytes: nothing has looked into it.
    [
      "behind another one, with a tag that is longer than it need be",
      [
        [0x2a, 3, 0x0a, 1, 107],
        [0xaa, 0x00, 2, 0x08, 0xff],
      ],
    ],
  ])("reads nothing behind the record for a header %s", (_, headers) => {
    const { buffer, start, end } = headed(...headers);
    const watched = new Proxy(buffer, {
      get: (bytes, name): unknown => {
        if (typeof name === "string" && Number(name) >= end)
          throw new Error(`byte ${name} is read, the batch has ${end}`);
        const found: unknown = Reflect.get(bytes, name);
        return typeof found === "function" ? (found.bind(bytes) as unknown) : found;
      },
    });
    const batch = readBatch(watched, start, end);
    if (recordsRefusal(batch) !== undefined) return;
    const cursor = new RecordCursor(batch);
    cursor.next();
    readHeaders(watched, cursor.headersStart, cursor.headersEnd);
  });
});

describe("recordsRefusal", () => {
  const canBeRead = (batch: RecordBatch): boolean => {
    try {
      readAll(batch);
      return true;
    } catch (error) {
      if (error instanceof BatchFault) return false;
      throw error;
    }
  };
  /** Nearly right: as many fields and records as they should be, or one more or less, some numbers changed. */
  const nearlyRight = fc
    .tuple(message, fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 2 }))
    .map(([valid, changes]) => {
      const bytes = Uint8Array.from(codecs.Records.encode(valid).finish());
      for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
      return { bytes, count: valid.record.length };
    });

  it("refuses exactly the batches that a reader cannot read", () => {
    fc.assert(
      fc.property(
        nearlyRight,
        fc.integer({ min: -1, max: 1 }),
        fc.integer({ min: -2, max: 2 }),
        (bytesAndCount, more, gap) => {
          const { bytes, count } = bytesAndCount;
          const recordCount = Math.max(count + more, 1);
          const batch = batchOf(bytes, recordCount, Math.max(recordCount - 1 + gap, 0));
          expect(recordsRefusal(batch) === undefined).toBe(canBeRead(batch));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("takes large records and many of them", () => {
    const record = Array.from({ length: 20_000 }, (_, offsetDelta) => ({ offsetDelta, value: Buffer.alloc(10) }));
    const large = { offsetDelta: record.length, key: Buffer.alloc(20_000), value: Buffer.alloc(3_000_000) };
    expect(
      recordsRefusal(batchOf(codecs.Records.encode({ record: [...record, large] }).finish(), 20_001)),
    ).toBeUndefined();
  });

  it("says what does not fit", () => {
    const bytes = codecs.Records.encode({ record: [{ offsetDelta: 0 }, { offsetDelta: 0 }] }).finish();
    expect(recordsRefusal(batchOf(bytes, 2))).toMatch(/offset delta 0 after 0/);
    expect(recordsRefusal(batchOf(bytes.subarray(0, 2), 3))).toMatch(/has 1 records where its head says 3/);
  });
});
