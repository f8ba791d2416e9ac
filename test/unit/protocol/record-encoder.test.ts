import fc from "fast-check";
import { codecs } from "../../../protocol/messages.js";
import { BATCH_HEAD_BYTES_MAX, readBatch } from "../../../protocol/record-batch.js";
import { RecordEncoder, noIdentity, singleRecordBatchBytes } from "../../../protocol/record-encoder.js";
import type { EncodableHeader } from "../../../protocol/record-encoder.js";

interface Entry {
  readonly timestamp: number;
  readonly key: Uint8Array | string | null;
  readonly value: Uint8Array | string | null;
  readonly headers: readonly EncodableHeader[];
}

const bytesOrText = (maxLength: number): fc.Arbitrary<Uint8Array | string | null> =>
  fc.oneof(
    fc.constant(null),
    fc.uint8Array({ maxLength }),
    fc.string({ maxLength }),
    fc.string({ unit: "binary", maxLength }),
    // Around the places where a guessed length has too few bytes.
    fc.integer({ min: 30, max: 140 }).map((length) => "é".repeat(length)),
    fc.constant("\ud800 alone"),
  );

const entry: fc.Arbitrary<Entry> = fc.record({
  timestamp: fc.oneof(fc.integer({ min: 1_700_000_000_000, max: 1_700_000_100_000 }), fc.maxSafeNat()),
  key: bytesOrText(40),
  value: bytesOrText(200),
  headers: fc.array(fc.record({ key: fc.string({ unit: "binary", maxLength: 20 }), value: bytesOrText(30) }), {
    maxLength: 3,
  }),
});

/** What `buffer.write` makes of a text: the same bytes as everybody else, lone surrogates replaced. */
const toBytes = (data: Uint8Array | string | null | undefined): Uint8Array | null =>
  data === null || data === undefined ? null : new Uint8Array(typeof data === "string" ? Buffer.from(data) : data);

const asMessage = (entries: readonly Entry[]): Uint8Array =>
  codecs.Records.encode({
    record: entries.map((one, index) => ({
      // protobufjs without Long loses the last bit of zigzag numbers above 2^53, so deltas are compared apart.
      timestampDelta: 0,
      offsetDelta: index,
      key: toBytes(one.key),
      value: toBytes(one.value),
      header: one.headers.map((header) => ({
        key: Buffer.from(header.key).toString(),
        value: toBytes(header.value),
      })),
    })),
  }).finish();

const encodeAll = (entries: readonly Entry[], bufferBytes = 1 << 16, headroomBytes = 0): RecordEncoder => {
  const encoder = new RecordEncoder(Buffer.alloc(bufferBytes), headroomBytes);
  for (const one of entries) expect(encoder.tryAppend(one.timestamp, one.key, one.value, one.headers)).toBe(true);
  return encoder;
};

describe("RecordEncoder", () => {
  it("writes the bytes that protobufjs writes for the same records", () => {
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 12 }), (entries) => {
        const sameTime = entries.map((one) => ({ ...one, timestamp: 1_700_000_000_000 }));
        const batch = readBatch(encodeAll(sameTime).finish(noIdentity), 0);
        const records = batch.buffer.subarray(batch.recordsStart, batch.end);
        expect(Buffer.compare(records, asMessage(sameTime))).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  it("writes timestamps that protobufjs reads back, as long as the distance stays exact in its numbers", () => {
    const base = 1_700_000_000_000;
    const deltas = [
      0,
      1,
      -1,
      63,
      -64,
      64,
      8191,
      -8192,
      2 ** 30 - 1,
      2 ** 30,
      -(2 ** 30),
      -(2 ** 30) - 1,
      2 ** 40,
      -base,
    ];
    const entries = [0, ...deltas].map((delta) => ({ timestamp: base + delta, key: null, value: null, headers: [] }));
    const batch = readBatch(encodeAll(entries).finish(noIdentity), 0);
    const decoded = codecs.Records.decode(batch.buffer.subarray(batch.recordsStart, batch.end));
    expect(decoded.record.map((record) => record.timestampDelta)).toEqual([0, ...deltas]);
    expect(batch.baseTimestamp).toBe(base);
    expect(batch.maxTimestamp).toBe(base + 2 ** 40);
  });

  it("refuses a record that does not fit, and changes nothing by it", () => {
    const encoder = new RecordEncoder(Buffer.alloc(BATCH_HEAD_BYTES_MAX + 64));
    expect(encoder.tryAppend(1, "key", Buffer.alloc(30), undefined)).toBe(true);
    const before = Buffer.from(encoder.finish(noIdentity));
    expect(encoder.tryAppend(2, "key", Buffer.alloc(30), undefined)).toBe(false);
    expect(encoder.tryAppend(2, null, "é".repeat(20), undefined)).toBe(false);
    expect(encoder.recordCount).toBe(1);
    expect(Buffer.compare(encoder.finish(noIdentity), before)).toBe(0);
  });

  it("fills a buffer of exactly the announced size with a single record, whatever is in it", () => {
    fc.assert(
      fc.property(entry, (one) => {
        const bytes = singleRecordBatchBytes(one.key, one.value, one.headers);
        const guard = Buffer.alloc(bytes + 64, 0xee);
        const encoder = new RecordEncoder(guard.subarray(0, bytes));
        expect(encoder.tryAppend(one.timestamp, one.key, one.value, one.headers)).toBe(true);
        expect(guard.subarray(bytes).every((byte) => byte === 0xee)).toBe(true);
        const tooSmall = new RecordEncoder(Buffer.alloc(bytes - 1));
        expect(tooSmall.tryAppend(one.timestamp, one.key, one.value, one.headers)).toBe(false);
      }),
      { numRuns: 200 },
    );
  });

  it("fills a buffer to its last byte, though the length was guessed too long", () => {
    for (const [key, headers] of [
      [undefined, undefined],
      ["a key", undefined],
      [undefined, [{ key: "h", value: "v" }]],
    ] as const) {
      for (let length = 0; length < 300; length += 1) {
        const value = Buffer.alloc(length, 120);
        const first = Buffer.alloc(10);
        const room = Buffer.allocUnsafe(4096);
        const whole = new RecordEncoder(room);
        whole.tryAppend(1000, undefined, first, undefined);
        whole.tryAppend(1000, key, value, headers);
        const batch = whole.finish(noIdentity);
        const end = batch.byteOffset - room.byteOffset + batch.length;
        const exact = new RecordEncoder(Buffer.allocUnsafe(end));
        exact.tryAppend(1000, undefined, first, undefined);
        expect(exact.tryAppend(1000, key, value, headers)).toBe(true);
        expect(exact.finish(noIdentity)).toEqual(batch);
        const less = new RecordEncoder(Buffer.allocUnsafe(end - 1));
        less.tryAppend(1000, undefined, first, undefined);
        expect(less.tryAppend(1000, key, value, headers)).toBe(false);
      }
    }
  });

  it("writes the same batch into several buffers as into one", () => {
    fc.assert(
      fc.property(
        fc.array(entry, { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 1, max: 700 }),
        (entries, more) => {
          const [first] = entries as [Entry];
          const encoder = new RecordEncoder(
            Buffer.alloc(singleRecordBatchBytes(first.key, first.value, first.headers)),
          );
          for (const { timestamp, key, value, headers } of entries) {
            if (encoder.tryAppend(timestamp, key, value, headers)) continue;
            const bytes = encoder.bytesOf(timestamp, key, value, headers)!;
            encoder.continueIn(Buffer.alloc(Math.max(bytes, more)));
            expect(encoder.tryAppend(timestamp, key, value, headers)).toBe(true);
          }
          const identity = { producerId: 7, producerEpoch: 0, baseSequence: 3 };
          const beginning = encoder.finish(identity);
          const whole = Buffer.concat([beginning, ...encoder.furtherPieces]);
          expect(Buffer.compare(whole, encodeAll(entries).finish(identity))).toBe(0);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("leaves the asked headroom free in front of the batch", () => {
    const buffer = Buffer.alloc(4096, 0xee);
    const encoder = new RecordEncoder(buffer, 100);
    encoder.tryAppend(1, "k", "v", undefined);
    encoder.finish(noIdentity);
    expect(buffer.subarray(0, 100).every((byte) => byte === 0xee)).toBe(true);
  });

  it("can be given another identity without touching the records", () => {
    const encoder = encodeAll([{ timestamp: 5, key: "k", value: "v", headers: [] }]);
    const first = readBatch(encoder.finish({ producerId: 7, producerEpoch: 0, baseSequence: 3 }), 0);
    expect([first.producerId, first.producerEpoch, first.baseSequence, first.crcMatches]).toEqual([7, 0, 3, true]);
    const second = readBatch(encoder.finish({ producerId: 8, producerEpoch: 1, baseSequence: 0 }), 0);
    expect([second.producerId, second.producerEpoch, second.baseSequence, second.crcMatches]).toEqual([8, 1, 0, true]);
  });
});
