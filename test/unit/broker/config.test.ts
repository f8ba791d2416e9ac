import {
  BrokerConfig,
  brokerConfigRefusal,
  brokerSettings,
  minInsyncReplicas,
  singleBrokerConfigRefusal,
  TopicConfig,
  topicConfigRefusal,
  topicSettings,
} from "../../../broker/config.js";

describe("settings of a broker", () => {
  it("are their defaults when nobody gave any", () => {
    const config = new BrokerConfig({});
    expect(config.get("num.partitions")).toBe(1);
    expect(config.get("log.durability")).toBe("page-cache");
    expect(config.sourceOf("num.partitions")).toBe("default");
  });

  it("refuse every wrong one at once, with the nearest name and what is possible", () => {
    const wrong = (): BrokerConfig =>
      new BrokerConfig({
        "num.partition": "1",
        "message.max.bytes": "many",
        "log.durability": "none",
        "connections.max": "1",
      });
    expect(wrong).toThrow(/num\.partition is not a setting of brokers; did you mean num\.partitions\?/);
    expect(wrong).toThrow(/message\.max\.bytes=many: give a whole number \(bytes\)/);
    expect(wrong).toThrow(/log\.durability=none: give one of page-cache, fsync/);
    expect(wrong).toThrow(/connections\.max=1: give 10 or more/);
  });

  it("take a number in one way to write it", () => {
    expect(new BrokerConfig({ "log.retention.ms": "-1" }).get("log.retention.ms")).toBe(-1);
    for (const text of ["0x10", "1e3", " 5 ", "+5", "5.0", "007", "-0", "0b11", "1_000", "", " ", "٥", "Infinity"]) {
      const value = `num.partitions=${text}: give a whole number (count)`;
      expect(() => new BrokerConfig({ "num.partitions": text })).toThrow(value);
      expect(topicConfigRefusal([{ name: "retention.ms", value: text }])).toMatch(/give a whole number \(ms\)$/);
    }
  });

  it("say of a number that is too large how large it may be", () => {
    const value = String(2n ** 60n);
    const refusal = `retention.ms=${value}: give 9007199254740991 or less`;
    expect(topicConfigRefusal([{ name: "retention.ms", value }])).toBe(refusal);
    expect(topicConfigRefusal([{ name: "retention.ms", value: `-${value}` }])).toMatch(/give -1 or more/);
    const most = String(Number.MAX_SAFE_INTEGER);
    expect(topicConfigRefusal([{ name: "retention.ms", value: most }])).toBeUndefined();
  });

  it("have a bound where they are told to another broker in 32 bits: beyond it they would become another number", () => {
    for (const name of ["replica.fetch.wait.max.ms", "replica.fetch.max.bytes", "replica.fetch.response.max.bytes"])
      expect(() => new BrokerConfig({ [name]: String(2 ** 32 + 2048) })).toThrow(
        `${name}=4294969344: give 2147483647 or less`,
      );
  });

  it("do not take a name of Object's prototype for a setting", () => {
    expect(() => new BrokerConfig({ constructor: "1" })).toThrow(/constructor is not a setting/);
    expect(topicConfigRefusal([{ name: "__proto__", value: "1" }])).toMatch(/is not a setting/);
  });

  it("refuse relations that make no sense, naming both", () => {
    expect(() => new BrokerConfig({ "log.segment.bytes": "1048576", "message.max.bytes": "2000000" })).toThrow(
      /log\.segment\.bytes .* message\.max\.bytes/,
    );
  });

  it("can be changed at run time only where that takes effect", () => {
    expect(brokerConfigRefusal([{ name: "log.retention.ms", value: "1000" }])).toBeUndefined();
    expect(brokerConfigRefusal([{ name: "listeners", value: "a:1" }])).toMatch(
      /cannot be changed while the broker runs/,
    );
    const config = new BrokerConfig({ "num.partitions": "3" });
    config.applyChanges([
      { name: "num.partitions", value: "7" },
      { name: "of.a.newer.version", value: "1" },
    ]);
    expect([config.get("num.partitions"), config.sourceOf("num.partitions")]).toEqual([7, "cluster"]);
    config.applyChanges([]);
    expect([config.get("num.partitions"), config.sourceOf("num.partitions")]).toEqual([3, "broker"]);
  });

  it("can be changed for a single broker only where other brokers need not know it", () => {
    const refusal = (name: string, value: string | null): string | undefined =>
      singleBrokerConfigRefusal([{ name, value }]);
    expect(refusal("min.insync.replicas", "1")).toMatch(/of a topic or of all brokers/);
    expect(refusal("log.durability", "fsync")).toMatch(/of a topic or of all brokers/);
    expect(refusal("log.durability", null)).toBeUndefined();
    expect(refusal("log.retention.ms", "1000")).toBeUndefined();
    const config = new BrokerConfig({ "num.partitions": "3" });
    config.applyChanges([{ name: "num.partitions", value: "7" }]);
    expect(config.startedWith("num.partitions")).toBe(3);
  });

  it("have defaults that their own checks accept", () => {
    for (const [name, entry] of Object.entries(brokerSettings)) {
      if (entry.type !== "text" && name !== "auto.create.topics.enable")
        expect(() => new BrokerConfig({ [name]: String(entry.default) })).not.toThrow();
    }
  });
});

describe("settings of a topic", () => {
  it("come from the topic, else from what was changed at run time, else from the broker", () => {
    const broker = new BrokerConfig({ "log.retention.ms": "5000" });
    const topic = new TopicConfig(broker, [{ name: "segment.bytes", value: "2000000" }]);
    expect([topic.get("segment.bytes"), topic.sourceOf("segment.bytes")]).toEqual([2_000_000, "topic"]);
    expect([topic.get("retention.ms"), topic.sourceOf("retention.ms")]).toEqual([5000, "broker"]);
    broker.applyChanges([{ name: "log.retention.ms", value: "6000" }]);
    expect([topic.get("retention.ms"), topic.sourceOf("retention.ms")]).toEqual([6000, "cluster"]);
  });

  it("name broker settings that exist", () => {
    for (const entry of Object.values(topicSettings)) {
      if ("brokerDefault" in entry) expect(Object.keys(brokerSettings)).toContain(entry.brokerDefault);
    }
  });

  it("ask two of three replicas to be in sync when nobody said otherwise", () => {
    expect([1, 2, 3, 5].map((replicas) => minInsyncReplicas(0, replicas))).toEqual([1, 1, 2, 2]);
    expect(minInsyncReplicas(3, 2)).toBe(3);
  });
});
