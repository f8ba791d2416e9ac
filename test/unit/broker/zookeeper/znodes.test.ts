import fc from "fast-check";
import {
  ZnodeFormatError,
  decodeBroker,
  decodeClusterId,
  decodeConfig,
  decodeController,
  decodeControllerEpoch,
  decodeDeletion,
  decodePartitionState,
  decodeProducerIdBlock,
  decodeTopic,
  encodeBroker,
  encodeClusterId,
  encodeConfig,
  encodeController,
  encodeControllerEpoch,
  encodeDeletion,
  encodePartitionState,
  encodeProducerIdBlock,
  encodeTopic,
  parseBrokerId,
} from "../../../../broker/zookeeper/znodes.js";

const text = (data: Uint8Array): string => Buffer.from(data).toString();
const bytes = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

describe("znodes", () => {
  it("read as Kafka's", () => {
    const state = {
      controllerEpoch: 1,
      leader: 1,
      leaderEpoch: 0,
      isr: [1, 2, 3],
      elr: [],
      unverified: [],
      lost: [],
      durability: "page-cache",
    } as const;
    expect(text(encodePartitionState(state))).toBe(
      '{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2,3],"elr":[]}',
    );
    expect(
      text(
        encodeTopic({
          topicId: "t",
          assignment: [
            [1, 2],
            [2, 1],
          ],
        }),
      ),
    ).toBe(
      '{"removing_replicas":{},"partitions":{"0":[1,2],"1":[2,1]},"topic_id":"t","adding_replicas":{},"version":3}',
    );
    expect(text(encodeController({ brokerId: 4 }, 1700000000000))).toBe(
      '{"version":2,"brokerid":4,"timestamp":"1700000000000","kraftControllerEpoch":-1}',
    );
    expect(text(encodeControllerEpoch(12))).toBe("12");
    expect(text(encodeConfig(new Map([["retention.ms", "1000"]])))).toBe(
      '{"version":1,"config":{"retention.ms":"1000"}}',
    );
    expect(text(encodeProducerIdBlock({ brokerId: 1, firstId: 0n, lastId: 999n }))).toBe(
      '{"version":1,"broker":1,"block_start":"0","block_end":"999"}',
    );
    expect(text(encodeClusterId("c"))).toBe('{"version":"1","id":"c"}');
  });

  it("give back what was put in", () => {
    const ids = fc.uniqueArray(fc.nat({ max: 100 }), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(
        ids,
        ids,
        fc.nat(),
        fc.string(),
        fc.array(ids, { maxLength: 20 }),
        (isr, elr, epoch, name, assignment) => {
          const state = {
            controllerEpoch: epoch,
            leader: -1,
            leaderEpoch: epoch,
            isr,
            elr,
            unverified: elr,
            durability: elr.length > 0 ? ("syncing" as const) : ("fsync" as const),
            lost: isr,
            brokerEpochs: new Map(isr.map((id) => [id, String(2n ** 62n + BigInt(id))])),
          };
          expect(decodePartitionState("/p", encodePartitionState(state))).toEqual(state);
          expect(decodeTopic("/t", encodeTopic({ topicId: name, assignment }))).toEqual({ topicId: name, assignment });
          const config = new Map([[name, name]]);
          expect(decodeConfig("/c", encodeConfig(config))).toEqual(config);
          expect(decodeDeletion("/d", encodeDeletion(name))).toBe(name);
          expect(decodeClusterId(encodeClusterId(name))).toBe(name);
          expect(decodeControllerEpoch(encodeControllerEpoch(epoch))).toBe(epoch);
          expect(decodeController(encodeController({ brokerId: epoch }, 0))).toEqual({ brokerId: epoch });
        },
      ),
      { numRuns: 200 },
    );
    const block = { brokerId: 3, firstId: 2n ** 62n, lastId: 2n ** 62n + 999n };
    expect(decodeProducerIdBlock(encodeProducerIdBlock(block))).toEqual(block);
  });

  it("carry a broker's listeners, an IPv6 address among them", () => {
    const broker = {
      endpoints: [
        { listener: "CLIENT", host: "127.0.0.1", port: 9092 },
        { listener: "INTERNAL", host: "::1", port: 9093 },
      ],
      rack: "attic",
      incarnation: "i",
      bootId: "b",
      lastStop: "power-cut" as const,
      hostname: "h",
    };
    expect(text(encodeBroker(broker, 5))).toContain('"endpoints":["CLIENT://127.0.0.1:9092","INTERNAL://[::1]:9093"]');
    expect(decodeBroker("/b", encodeBroker(broker, 5))).toEqual(broker);
    expect(decodeBroker("/b", encodeBroker({ ...broker, rack: undefined }, 5)).rack).toBeUndefined();
    // What is there for people only may be missing.
    expect(decodeBroker("/b", bytes({ endpoints: [], incarnation: "i", lastStop: "clean" }))).toMatchObject({
      bootId: "",
      hostname: "",
    });
  });

  it("that nobody of ours wrote are refused with their path and field", () => {
    const refused = (decode: () => unknown, part: string): void => {
      expect(decode).toThrow(ZnodeFormatError);
      expect(decode).toThrow(part);
    };
    refused(() => decodePartitionState("/p", Buffer.from("{")), "/p in ZooKeeper");
    refused(() => decodePartitionState("/p", bytes([])), "no JSON object");
    refused(
      () => decodePartitionState("/p", bytes({ controller_epoch: 1, leader: 1, leader_epoch: 1, isr: ["1"] })),
      "isr",
    );
    refused(
      () => decodePartitionState("/p", bytes({ controller_epoch: 1, leader: -2, leader_epoch: 1, isr: [1] })),
      "leader",
    );
    refused(() => decodeTopic("/t", bytes({ topic_id: "t", partitions: { "1": [1] } })), "partition 0");
    refused(() => decodeTopic("/t", bytes({ topic_id: "t", partitions: { "0": [1, 2, 1] } })), "partition 0");
    refused(() => decodeTopic("/t", bytes({ partitions: {} })), "topic_id");
    refused(() => decodeConfig("/c", bytes({ config: { a: 1 } })), "value of a");
    refused(() => decodeBroker("/b", bytes({ lastStop: "clean", endpoints: ["nonsense"] })), "endpoint");
    refused(() => decodeControllerEpoch(Buffer.from("x")), "/controller_epoch");
  });

  it("of brokers are named by digits, and nothing else is a broker", () => {
    expect(parseBrokerId("12")).toBe(12);
    for (const name of ["", "-1", "1a", "seqid", "1234567890"]) expect(parseBrokerId(name)).toBeUndefined();
  });

  it("of a state without ELR and uncertain members, as Kafka writes it, have none", () => {
    expect(
      decodePartitionState("/p", bytes({ controller_epoch: 1, leader: 1, leader_epoch: 1, isr: [1] })),
    ).toMatchObject({ elr: [], unverified: [], lost: [], brokerEpochs: undefined, durability: "page-cache" });
  });

  it("of a state name the process that holds a seat, digit for digit, or are not ours", () => {
    const former = { controllerEpoch: 1, leader: 1, leaderEpoch: 0, isr: [1], elr: [], unverified: [], lost: [] };
    const durability = "page-cache" as const;
    const state = { ...former, durability, brokerEpochs: new Map([[1, "9007199254740993"]]) };
    expect(text(encodePartitionState(state))).toContain(',"broker_epochs":{"1":"9007199254740993"}}');
    for (const epochs of [[], 1, { "1": 5 }, { "1": "-5" }, { a: "5" }]) {
      const data = bytes({ controller_epoch: 1, leader: 1, leader_epoch: 1, isr: [1], broker_epochs: epochs });
      expect(() => decodePartitionState("/p", data)).toThrow(/broker_epochs/);
    }
  });
});
