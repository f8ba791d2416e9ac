import fc from "fast-check";
import { apiKeys } from "../../../protocol/api-keys.js";
import { ApiError } from "../../../protocol/error-codes.js";
import {
  decodeRequest,
  decodeResponse,
  encodeErrorResponse,
  encodeRequest,
  encodeResponse,
} from "../../../protocol/message-codec.js";
import { codecs } from "../../../protocol/messages.js";

const frameOf = (pieces: readonly Uint8Array[]): Buffer => Buffer.concat(pieces).subarray(4);

describe("message codec", () => {
  it("writes what the schema's own codec reads, records included", () => {
    const pieces = encodeRequest(
      77,
      "produce",
      {
        acks: -1,
        timeoutMs: 1000,
        partitions: [
          { topicId: "a", partition: 1 },
          { topicId: "b", partition: 2 },
        ],
      },
      [[Buffer.from("one"), Buffer.from("two")], [Buffer.from("three")]],
    );
    const bytes = Buffer.concat(pieces);
    expect(bytes.readUInt32BE(0)).toBe(bytes.length - 4);
    const message = codecs.Request.decode(bytes.subarray(4));
    expect(message.correlationId).toBe(77);
    expect(message.produce?.acks).toBe(-1);
    expect(message.produce?.partitions.map((partition) => partition.topicId)).toEqual(["a", "b"]);
    expect(message.records.map((records) => Buffer.from(records).toString())).toEqual(["onetwo", "three"]);
  });

  it("reads what the schema's own codec writes", () => {
    const bytes = Buffer.from(
      codecs.Request.encode({
        correlationId: 5,
        fetch: { maxWaitMs: 10, partitions: [{ topicId: "t", partition: 3, fetchOffset: 2 ** 40 }] },
      }).finish(),
    );
    const request = decodeRequest(bytes);
    expect(request).toMatchObject({ correlationId: 5, kind: "fetch", records: [] });
    expect((request.body as { partitions: { fetchOffset: number }[] }).partitions[0]?.fetchOffset).toBe(2 ** 40);
  });

  it("never copies records", () => {
    const frame = frameOf(encodeRequest(1, "produce", { acks: 1 }, [[Buffer.alloc(100, 7)]]));
    const [records] = decodeRequest(frame).records;
    expect(records?.buffer).toBe(frame.buffer);
  });

  it("hands records over from where they lie", () => {
    const records = Buffer.alloc(100, 7);
    expect(encodeRequest(1, "produce", { acks: 1 }, [[records]])).toContain(records);
  });

  it("carries every kind of request and its answer", () => {
    for (const kind of Object.keys(apiKeys) as (keyof typeof apiKeys)[]) {
      expect(decodeRequest(frameOf(encodeRequest(3, kind, {} as never)))).toMatchObject({ correlationId: 3, kind });
      expect(decodeResponse(frameOf(encodeResponse(4, kind, {} as never)))).toMatchObject({ correlationId: 4, kind });
    }
  });

  it("carries a refusal of the whole request", () => {
    const { error } = decodeResponse(frameOf(encodeErrorResponse(8, { code: -1, message: "why" })));
    expect(error).toMatchObject({ code: -1, message: "why" });
  });

  it("refuses a request it does not know as a whole, with its correlation id readable", () => {
    const unknown = Buffer.from([0x08, 0x09, 0xba, 0x3e, 0x00]);
    expect(() => decodeRequest(unknown)).toThrow(
      expect.objectContaining({ errorName: "UNSUPPORTED_VERSION" }) as Error,
    );
  });

  it("refuses two bodies in one frame", () => {
    const two = Buffer.concat([frameOf(encodeRequest(1, "metadata", {})), Buffer.from([0x1a, 0x00])]);
    expect(() => decodeRequest(two)).toThrow(expect.objectContaining({ errorName: "INVALID_REQUEST" }) as Error);
  });

  it("refuses more elements than a request may have, quickly and before decoding them", () => {
    const empties = Buffer.alloc(900_000);
    for (let at = 0; at < empties.length; at += 2) empties[at] = 0x0a;
    const frame = Buffer.concat([Buffer.from([0x08, 0x01, 0x82, 0x01]), varint(empties.length), empties]);
    expect(() => decodeRequest(frame)).toThrow(expect.objectContaining({ errorName: "TOO_MANY_ELEMENTS" }) as Error);
  });

  it("takes as many partitions as the handlers do, with all of their fields", () => {
    const topicId = "f1d2c3b4-a596-4788-9900-aabbccddeeff";
    const names = (count: number) => Array.from({ length: count }, (_, partition) => ({ topicId, partition }));
    const asked = names(10_000).map((name) => ({
      ...name,
      fetchOffset: 2 ** 40,
      leaderEpochPlusOne: 3,
      maxBytes: 1,
      lastFetchedEpochPlusOne: 2,
      logStartOffset: 1,
      flushedOffset: 2,
    }));
    const fetch = {
      maxWaitMs: 1,
      partitions: asked,
      forgotten: names(10_000),
      replica: { brokerId: 1, brokerEpoch: "12" },
    };
    const assignment = Array.from({ length: 10_000 }, () => ({ brokerIds: [1, 2, 3] }));
    const accepted = [
      frameOf(encodeRequest(1, "fetch", fetch)),
      frameOf(
        encodeRequest(1, "produce", { partitions: names(2000).map((name) => ({ ...name, leaderEpochPlusOne: 1 })) }),
      ),
      frameOf(encodeRequest(1, "listOffsets", { partitions: names(2000) })),
      frameOf(encodeRequest(1, "createTopics", { topics: [{ name: "orders", assignment }] })),
    ];
    for (const frame of accepted) expect(() => decodeRequest(frame)).not.toThrow();
  });

  it("skips fields of the frame that a newer version has added, behind the body and behind the records", () => {
    const added = [
      Buffer.from([0x98, 0x03, 0x96, 0x01]), // field 51, a number
      Buffer.from([0xaa, 0x06, 0x02, 0xff, 0xff]), // field 101, two bytes
      Buffer.from([0xb5, 0x06, 1, 2, 3, 4]), // field 102, 32 bits
      Buffer.from([0xb9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]), // field 103, 64 bits
    ];
    const [first, ...others] = added as [Buffer, ...Buffer[]];
    const request = frameOf(encodeRequest(7, "produce", { acks: 1 }));
    const records = frameOf(encodeRequest(7, "produce", { acks: 1 }, [[Buffer.from("abc")]])).subarray(request.length);
    const decoded = decodeRequest(Buffer.concat([request, first, records, ...others]));
    expect(decoded).toMatchObject({ correlationId: 7, kind: "produce", records: [Buffer.from("abc")] });
    const response = Buffer.concat([frameOf(encodeResponse(8, "metadata", { clusterId: "c" })), ...added]);
    expect(decodeResponse(response)).toMatchObject({ correlationId: 8, kind: "metadata" });
    for (const bytes of [
      [0x98, 0x03],
      [0xaa, 0x06, 0x05, 1],
      [0xb5, 0x06, 1],
      [0x9b, 0x03],
      [0x08, 0x01],
      [0x9a, 0x06, 0],
    ])
      expect(() => decodeRequest(Buffer.concat([request, Buffer.from(bytes)]))).toThrow(
        expect.objectContaining({ errorName: "INVALID_REQUEST" }) as Error,
      );
  });

  it("answers any bytes with a typed refusal, never with another error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 300 }), fc.integer({ min: 0, max: 60 }), (bytes, key) => {
        const frame = Buffer.concat([Buffer.from([0x08, 0x01, ...varint(key * 8 + 2)]), varint(bytes.length), bytes]);
        for (const input of [Buffer.from(bytes), frame]) {
          try {
            decodeRequest(input);
          } catch (error) {
            expect(error).toBeInstanceOf(ApiError);
          }
        }
      }),
      { numRuns: 3000 },
    );
  });

  it("does not let a name from the wire reach a prototype", () => {
    const frame = frameOf(encodeRequest(1, "metadata", { topics: ["__proto__", "constructor"] }));
    decodeRequest(frame);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });
});

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  return Buffer.from([...bytes, rest]);
}
