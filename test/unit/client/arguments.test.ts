import type { Cluster, Producer, ProducerRecord } from "../../../client/index.js";
import { ClientError, connect, InvalidArgumentError, murmur2, partitionOfKey } from "../../../client/index.js";
import { RecordCursor } from "../../../protocol/record-cursor.js";
import { readBatches } from "../../../protocol/record-batch.js";
import { endOffsetOf, FakeCluster } from "../../support/fake-broker.js";

const text = "give text, a Uint8Array or null";

/** What a call was refused with, whether it threw or rejected. */
async function refusalOf(call: () => unknown): Promise<InvalidArgumentError> {
  const outcome: unknown = await Promise.resolve()
    .then(call)
    .then(
      () => "no refusal",
      (error: unknown) => error,
    );
  expect(outcome).toBeInstanceOf(InvalidArgumentError);
  return outcome as InvalidArgumentError;
}

/** Goal: what is wrong is refused at the call, in words that name it, and nothing of it is sent. */
describe("the arguments of the client", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  beforeEach(async () => {
    fake = await FakeCluster.start(1);
    fake.createTopic("t", 3);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 50, deadlineMs: 3000 });
  });

  afterEach(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  describe("a record", () => {
    const value = "v";
    it.each<[name: string, record: unknown, says: string]>([
      ["text", "hello", 'a record is the text "hello"; give an object, as { key: "42", value: "paid" }'],
      ["bytes", Buffer.from("hello"), "a record is a Uint8Array"],
      ["undefined", undefined, "a record is undefined"],
      ["null", null, "a record is null"],
      ["a number", 5, "a record is 5"],
      ["a function", () => value, "a record is a function"],
      ["a list", [value], "a record is a list"],
      ["a Map", new Map([["value", value]]), "a record is a Map"],
      ["a promise", Promise.resolve({ value }), "a record is a Promise"],
      ["nothing at all", {}, "a record has no value; give its value, or value: null for a tombstone"],
      ["no value", { key: "k" }, "a record has no value"],
      ["a value that is undefined", { key: "k", value: undefined }, "a record has no value"],
      ["a misspelt value", { key: "k", vlaue: value }, 'a record has no field "vlaue"; did you mean "value"?'],
      ["a misspelt key", { kye: "k", value }, 'a record has no field "kye"; did you mean "key"?'],
      ["the records of another client", { messages: [{ value }] }, 'a record has no field "messages"'],
      ["a number as value", { value: 5 }, `the value of a record is a number; ${text}`],
      ["an object as value", { value: { a: 1 } }, "the value of a record is an object"],
      ["an ArrayBuffer as value", { value: new ArrayBuffer(3) }, "the value of a record is an ArrayBuffer"],
      ["16-bit numbers as value", { value: new Uint16Array(3) }, "the value of a record is a Uint16Array"],
      ["a key that is a BigInt", { key: 5n, value }, `the key of a record is a bigint; ${text}`],
      ["headers in a Map", { value, headers: new Map([["trace", "1"]]) }, "Object.fromEntries"],
      ["headers of fetch", { value, headers: new Headers({ trace: "1" }) }, "Object.fromEntries"],
      ["headers as text", { value, headers: "trace=1" }, "the headers of a record are the text"],
      ["headers as pairs", { value, headers: [["trace", "1"]] }, "a header is a list; write it as { key, value }"],
      ["a header that is null", { value, headers: [null] }, "a header is null"],
      ["a header without a name", { value, headers: [{ value: "1" }] }, "the name of a header is undefined"],
      ["a misspelt header", { value, headers: [{ key: "a", vlaue: "1" }] }, 'did you mean "value"'],
      ["a header without a value", { value, headers: [{ key: "a" }] }, 'header "a" of a record has no value'],
      ["a header that is undefined", { value, headers: { a: undefined } }, 'header "a" of a record has no value'],
      ["a number as header", { value, headers: { a: 3 } }, 'header "a" of a record is a number'],
      ["several values of a header", { value, headers: { a: ["1", "2"] } }, 'header "a" of a record is a list'],
      ["a Date as timestamp", { value, timestamp: new Date(5) }, "timestamp is a Date"],
      ["text as timestamp", { value, timestamp: "5" }, 'timestamp is the text "5"'],
      ["a BigInt as timestamp", { value, timestamp: 5n }, "timestamp is 5n"],
      ["a symbol as timestamp", { value, timestamp: Symbol("now") }, "timestamp is a symbol"],
      ["null as timestamp", { value, timestamp: null }, "timestamp is null"],
      ["a fraction as timestamp", { value, timestamp: 1.5 }, "timestamp is 1.5"],
      ["null as partition", { value, partition: null }, "partition is null"],
      ["a partition below 0", { value, partition: -1 }, "partition is -1"],
      ["text as partition", { value, partition: "0" }, 'partition is the text "0"'],
    ])("is not %s", async (_name, record, says) => {
      const producer = cluster.producer();
      const ways = [
        () => producer.send("t", record as never),
        () => producer.produce("t", record as never),
        () => producer.sendBatch("t", [record] as never),
      ];
      for (const way of ways) expect((await refusalOf(way)).message).toContain(says);
      await producer.close();
      expect(fake.broker(1).bodies("produce")).toEqual([]);
    });

    it("may be a tombstone, if it says so, and what a consumer has read", async () => {
      const producer = cluster.producer();
      await producer.send("t", { partition: 0, key: "k", value: null });
      await producer.send("t", {
        partition: 0,
        key: "k",
        value: "v",
        headers: [{ key: "h", value: null }],
        timestamp: 7,
      });
      for await (const record of cluster.consumer({ topic: "t", from: "earliest" }).records({ untilEnd: true }))
        await producer.send("t", record);
      const copied = fake
        .partition("t")
        .batches.slice(2)
        .map((bytes) => {
          const [batch] = readBatches(bytes);
          const cursor = new RecordCursor(batch!);
          cursor.next();
          return [cursor.timestamp === 7, cursor.valueStart < 0];
        });
      expect(copied).toEqual([
        [false, true],
        [true, false],
      ]);
    });

    it("goes to a topic that has a name, and tells a function", async () => {
      const producer = cluster.producer();
      const record = { value };
      for (const topic of [undefined, null, "", 5, ["t"], Symbol("t")])
        expect((await refusalOf(() => producer.send(topic as never, record))).message).toMatch(/topic|name/);
      expect((await refusalOf(() => producer.send("t".repeat(250), record))).message).toContain("250 characters");
      expect((await refusalOf(() => producer.produce("t", record, "done" as never))).message).toContain(
        'the callback is the text "done"',
      );
      expect((await refusalOf(() => producer.sendBatch("t", record as never))).message).toContain("a list of records");
      expect((await refusalOf(() => producer.sendBatch("t", undefined as never))).message).toContain(
        "a list of records",
      );
      expect((await refusalOf(() => producer.sendBatch(undefined as never, []))).message).toContain("no name");
    });

    it("goes where its partitioner says, if that is one of the partitions", async () => {
      for (const chosen of [Number.NaN, -1, 3, 0.5, "0", undefined, null, 1n]) {
        const producer = cluster.producer({ partitioner: () => chosen as never });
        expect((await refusalOf(() => producer.send("t", { key: "k", value }))).message).toMatch(
          /the partitioner chose .* of 3 partitions/,
        );
      }
      const producer = cluster.producer({ partitioner: () => 2 });
      expect((await producer.send("t", { key: "k", value })).partition).toBe(2);
    });

    it("is refused when its partitioner throws, also when its topic was not known yet; without a key it goes on", async () => {
      const fault = new TypeError("no such customer");
      const partitioner = (): number => {
        throw fault;
      };
      // The first record of a producer waits for its topic.
      const other = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
      const producer = other.producer({ partitioner });
      for (let time = 0; time < 2; time += 1) {
        const refusal = await refusalOf(() => producer.send("t", { key: "k", value }));
        expect(refusal).toMatchObject({ code: "INVALID_ARGUMENT", cause: fault });
        expect(refusal.message).toBe("the partitioner has thrown (no such customer); correct the partitioner");
        expect(await producer.send("t", { value })).toMatchObject({ topic: "t" });
      }
      await other.close();
    });
  });

  describe("a producer", () => {
    it.each<[options: unknown, says: string]>([
      [null, "the options of a producer are null"],
      [5, "the options of a producer are 5"],
      ["acks", 'the options of a producer are the text "acks"'],
      [new Map([["acks", "none"]]), "the options of a producer are a Map"],
      [Promise.resolve({}), "the options of a producer are a Promise"],
      [{ ack: "all" }, 'did you mean "acks"'],
      [{ acks: 1 }, 'acks is 1; give "all" or "leader" or "none"'],
      [{ acks: 1n }, "acks is 1n"],
      [{ acks: null }, "acks is null"],
      [{ idempotent: "no" }, 'idempotent is the text "no"; give true or false'],
      [{ lingerMs: "5" }, 'lingerMs is the text "5"'],
      [{ lingerMs: 5n }, "lingerMs is 5n"],
      [{ lingerMs: null }, "lingerMs is null"],
      [{ batchBytes: 1.5 }, "batchBytes is 1.5"],
      [{ bufferBytes: Number.POSITIVE_INFINITY }, "bufferBytes is Infinity"],
      [{ partitioner: "murmur2" }, 'partitioner is the text "murmur2"; give a function'],
      [{ lingerMs: 3000, deliveryTimeoutMs: 1000 }, "deliveryTimeoutMs is 1000 with lingerMs 3000"],
      [{ lingerMs: 1000, deliveryTimeoutMs: 1000 }, "deliveryTimeoutMs is 1000 with lingerMs 1000"],
    ])("is not made with %p", async (options, says) => {
      const { code, message } = await refusalOf(() => cluster.producer(options as never));
      expect({ code, message }).toEqual({ code: "INVALID_ARGUMENT", message: expect.stringContaining(says) });
    });

    it("has more time for a record than the record waits for others", async () => {
      const producer = cluster.producer({ lingerMs: 20, deliveryTimeoutMs: 3000 });
      expect((await producer.send("t", { value: "x" })).offset).toBe(0);
    });
  });

  describe("a consumer", () => {
    const topic = "t";
    it.each<[options: unknown, says: string]>([
      [undefined, "the options of a consumer are undefined"],
      [null, "the options of a consumer are null"],
      ["t", 'the options of a consumer are the text "t"'],
      [{}, 'a consumer has no topic to read; give topics: ["orders"] or topic: "orders"'],
      [{ topics: "t" }, 'topics is the text "t"; give a list of names'],
      [{ topics: [undefined] }, "a topic has no name"],
      [{ topics: new Array(2) }, "a topic has no name"],
      [{ topics: [topic, ""] }, "a topic has no name"],
      [{ topic: 5 }, "the name of a topic is 5"],
      [{ topic: ["t"] }, "the name of a topic is a list"],
      [{ topic, topics: ["u"] }, "topic and topics are both given"],
      [{ topics: ["t"], partitions: [0] }, "partitions are given with topics"],
      [{ topic, partitions: [] }, "partitions is empty"],
      [{ topic, partitions: 0 }, "partitions is 0; give a list of numbers"],
      [{ topic, partitions: ["0"] }, 'partitions has the text "0"'],
      [{ topic, partitions: [2 ** 32 + 1] }, "partitions has 4294967297"],
      [{ topic, form: "latest" }, 'did you mean "from"'],
      [{ topic, from: "begin" }, 'the position is the text "begin"'],
      [{ topic, from: "earlist" }, 'did you mean "earliest"'],
      [{ topic, from: null }, "the position is null"],
      [{ topic, from: 5 }, "the position is 5"],
      [{ topic, from: 5n }, "the position is 5n"],
      [{ topic, from: { offset: 5n } }, "the offset of the position is 5n"],
      [{ topic, from: { offset: -1 } }, "the offset of the position is -1"],
      [{ topic, from: { ofset: 1 } }, 'did you mean "offset"'],
      [{ topic, from: {} }, "the position has none of offset, last and timestamp"],
      [{ topic, from: { offset: 1, timestamp: 1 } }, "the position has both offset and timestamp"],
      [{ topic, from: { timestamp: "now" } }, 'timestamp is the text "now"'],
      [{ topic, from: { timestamp: null } }, "timestamp is null"],
      [{ topic, from: { timestamp: new Date("never") } }, "timestamp is an invalid Date"],
      [{ topic, from: { timestamp: new Date(-1) } }, "timestamp is 1969-12-31T23:59:59.999Z"],
      [{ topic, from: [null] }, "a position of from is null"],
      [{ topic, from: [{ topic, partition: 0 }] }, "the offset of t-0 is undefined"],
      [{ topic, from: [{ topic, partition: "0", offset: 1 }] }, 'partition is the text "0"'],
      [{ topic, from: [{ partition: 0, offset: 1 }] }, "a topic has no name"],
      [{ topic, onOutOfRange: "fail" }, 'onOutOfRange is the text "fail"'],
      [{ topic, signal: {} }, "signal is an object; give the signal of an AbortController"],
      [{ topic, signal: new AbortController() }, "signal is an AbortController"],
      [{ topic, fetchBytesMin: 2 ** 32 + 1 }, "fetchBytesMin is 4294967297"],
      [{ topic, stallMs: Number.NaN }, "stallMs is NaN"],
    ])("is not made with %p", async (options, says) => {
      expect((await refusalOf(() => cluster.consumer(options as never))).message).toContain(says);
    });

    it("is told what it can do with partitions and places that there are", async () => {
      await using consumer = cluster.consumer({ topic, from: "earliest" });
      const here = { topic, partition: 0 };
      const cases: [call: () => unknown, says: string][] = [
        [() => consumer.seek(here, null as never), "the position is null"],
        [() => consumer.seek(here, undefined as never), "the position is undefined"],
        [() => consumer.seek(here, { offset: 1n } as never), "the offset of the position is 1n"],
        [
          () => consumer.seek(undefined as never, "earliest"),
          "a partition is undefined; write it as { topic, partition }",
        ],
        [() => consumer.seek("t" as never, "earliest"), 'a partition is the text "t"'],
        [() => consumer.seek({ topic } as never, "earliest"), "partition is undefined"],
        [() => consumer.pause({} as never), "the partitions are an object; give a list of { topic, partition }"],
        [() => consumer.pause(here as never), "the partitions are an object"],
        [() => consumer.pause(undefined as never), "the partitions are undefined"],
        [() => consumer.pause([here, undefined] as never), "a partition is undefined"],
        [() => consumer.resume("t" as never), 'the partitions are the text "t"'],
        [() => consumer.resume([{ topic: 5, partition: 0 }] as never), "the name of a topic is 5"],
        [() => consumer.position(null as never), "a partition is null"],
        [() => consumer.position({ topic, partition: 1.5 }), "partition is 1.5"],
        [() => consumer.records(null as never), "the options of records are null"],
        [() => consumer.records({ untilEnd: "no" } as never), 'untilEnd is the text "no"'],
        [() => consumer.records({ reuseMemory: true } as never), 'records has no option "reuseMemory"'],
        [() => consumer.batches({ untilend: true } as never), 'did you mean "untilEnd"'],
        [() => consumer.batches({ reuseMemory: 1 } as never), "reuseMemory is 1"],
      ];
      for (const [call, says] of cases) expect((await refusalOf(call)).message).toContain(says);
    });

    it("pauses all partitions of a list or none", async () => {
      await cluster.producer().send(topic, { partition: 0, value: "x" });
      await using consumer = cluster.consumer({ topic, from: "earliest" });
      const unknown = { topic, partition: 7 };
      await refusalOf(() => consumer.pause([{ topic, partition: 0 }, unknown]));
      for await (const record of consumer) {
        expect(record.offset).toBe(0);
        break;
      }
    });
  });

  describe("the cluster", () => {
    const bootstrapBrokers = "127.0.0.1:1";
    it.each<[options: unknown, says: string]>([
      [undefined, "the options of connect are undefined"],
      ["localhost:9092", 'the options of connect are the text "localhost:9092"'],
      [{}, "bootstrapBrokers is undefined"],
      [{ bootstrapBrokers: undefined }, 'bootstrapBrokers is undefined; give at least one, as "localhost:9092"'],
      [{ bootstrapBrokers: null }, "bootstrapBrokers is null"],
      [{ bootstrapBrokers: 9092 }, "bootstrapBrokers is 9092"],
      [{ bootstrapBrokers: [undefined] }, "an address is undefined"],
      [{ bootstrapBrokers: [5n] }, "an address is 5n"],
      [{ bootstrapBrokers: new Set(["localhost"]) }, "bootstrapBrokers is a Set"],
      [{ bootstrapBrokers: [] }, "bootstrapBrokers names no broker"],
      [{ bootstrapBrokers: "" }, "bootstrapBrokers names no broker"],
      [{ bootstrapBrokers: "localhost:99999" }, '"localhost:99999" is not the address of a broker'],
      [{ bootstrapBrokers: "http://localhost:9092" }, "is not the address of a broker"],
      [{ bootstrapBrokers: "localhost/x:9092" }, "is not the address of a broker"],
      [{ bootstrapBrokers: ["a,b:9092"] }, "is not the address of a broker"],
      [{ bootstrapBrokers: ["a b:9092"] }, "is not the address of a broker"],
      [{ bootstrapBrokers: "::1:9092" }, 'an IPv6 address as "[::1]:9092"'],
      [{ bootstrapServers: "localhost:9092" }, 'did you mean "bootstrapBrokers"'],
      [{ bootstrapBrokers, clientId: null }, "clientId is null; give text"],
      [{ bootstrapBrokers, clientId: {} }, "clientId is an object"],
      [{ bootstrapBrokers, clientId: "x".repeat(257) }, "clientId has 257 characters; give at most 256"],
      [{ bootstrapBrokers, logger: {} }, 'logger has no function "debug"'],
      [{ bootstrapBrokers, logger: "debug" }, 'logger is the text "debug"'],
      [{ bootstrapBrokers, env: {} }, 'env has no "clock"'],
      [{ bootstrapBrokers, env: null }, "env is null"],
      [{ bootstrapBrokers, signal: true }, "signal is true"],
      [{ bootstrapBrokers, deadlineMs: "30s" }, 'deadlineMs is the text "30s"'],
      [{ bootstrapBrokers, deadlineMs: 5n }, "deadlineMs is 5n"],
      [{ bootstrapBrokers, connectTimeoutMs: Symbol("x") }, "connectTimeoutMs is a symbol"],
    ])("is not found with %p", async (options, says) => {
      expect((await refusalOf(() => connect(options as never))).message).toContain(says);
    });

    it("is found at the usual port when an address names none", async () => {
      const error: unknown = await connect({ bootstrapBrokers: "127.0.0.1", deadlineMs: 1 }).catch((e: unknown) => e);
      if (error instanceof ClientError) expect(error.message).toContain("127.0.0.1:9092");
      else await (error as Cluster).close();
    });

    it.each([undefined, null, "", 5, {}, ["t"], 5n, "t".repeat(250), "\ud800"])("has no topic %p", async (topic) => {
      expect((await refusalOf(() => cluster.partitionsOf(topic as never))).message).toMatch(/topic/);
      // A name that cannot be asked for would stay in every question for metadata.
      expect(await cluster.partitionsOf("t")).toEqual([0, 1, 2]);
    });
  });

  describe("the admin", () => {
    const name = "new";
    it.each<[topic: unknown, says: string]>([
      [undefined, "a topic is undefined; write it as { name }"],
      ["new", 'a topic is the text "new"'],
      [{}, "a topic has no name"],
      [{ name: 5 }, "the name of a topic is 5"],
      [{ name, numPartitions: 3 }, 'a topic has no field "numPartitions"; did you mean "partitions"?'],
      [{ name, partition: 3 }, 'did you mean "partitions"'],
      [{ name, partitions: 1.5 }, "partitions is 1.5"],
      [{ name, partitions: -1 }, "partitions is -1"],
      [{ name, partitions: 0 }, "partitions is 0"],
      [{ name, partitions: 2 ** 32 + 1 }, "partitions is 4294967297"],
      [{ name, partitions: "3" }, 'partitions is the text "3"'],
      [{ name, replicationFactor: 2 ** 32 + 1 }, "replicationFactor is 4294967297"],
      [{ name, replicationFactor: 0.5 }, "replicationFactor is 0.5"],
      [{ name, config: new Map([["retention.ms", 5]]) }, "config is a Map"],
      [{ name, config: ["retention.ms"] }, "config is a list"],
      [{ name, config: { "retention.ms": undefined } }, "retention.ms is undefined"],
      [{ name, config: { "retention.ms": null } }, "retention.ms is null"],
      [{ name, config: { "retention.ms": {} } }, "retention.ms is an object"],
      [{ name, config: { "retention.ms": Number.NaN } }, "retention.ms is NaN"],
      [{ name, assignment: [] }, "assignment is empty"],
      [{ name, assignment: [[]] }, "partition 0 has no replica"],
      [{ name, assignment: [1, 2] }, "the replicas of partition 0 are 1"],
      [{ name, assignment: [[1], [-1]] }, "a replica of partition 1 is -1"],
      [{ name, assignment: [[2 ** 32 + 1]] }, "a replica of partition 0 is 4294967297"],
      [{ name, assignment: [[1]], partitions: 1 }, "assignment is given with partitions"],
      [{ name, assignment: [[1]], replicationFactor: 1 }, "assignment is given with replicationFactor"],
    ])("does not make %p", async (topic, says) => {
      expect((await refusalOf(() => cluster.admin().createTopics([topic] as never))).message).toContain(says);
      expect([...fake.topics.keys()]).toEqual(["t"]);
    });

    it("refuses what no call can mean", async () => {
      const admin = cluster.admin();
      const here = { topic: "t", partition: 0 };
      const cases: [call: () => unknown, says: string][] = [
        [() => admin.createTopics(undefined as never), "the topics are undefined; give a list of { name }"],
        [() => admin.createTopics({ name } as never), "the topics are an object"],
        [() => admin.createTopics([{ name }], { validateOnly: "yes" } as never), 'validateOnly is the text "yes"'],
        [() => admin.createTopics([{ name }], { validateonly: true } as never), 'did you mean "validateOnly"'],
        [() => admin.createTopics([{ name }], null as never), "the options of createTopics are null"],
        [() => admin.deleteTopics("t" as never), 'the topics are the text "t"; give a list of names'],
        [() => admin.deleteTopics([undefined] as never), "a topic has no name"],
        [() => admin.deleteTopics(["t"], { timeoutMs: 5 } as never), 'deleteTopics has no option "timeoutMs"'],
        [() => admin.createPartitions(undefined as never, 2), "a topic has no name"],
        [() => admin.createPartitions("t", 1.5), "partitions is 1.5"],
        [() => admin.createPartitions("t", 2 ** 32 + 4), "partitions is 4294967300"],
        [() => admin.createPartitions("t", undefined as never), "partitions is undefined"],
        [() => admin.listTopics({ signal: 5 } as never), "signal is 5"],
        [() => admin.describeTopics("t" as never), 'the topics are the text "t"'],
        [() => admin.describeTopics([undefined] as never), "a topic has no name"],
        [() => admin.describeConfigs(undefined as never), "the target is undefined"],
        [() => admin.describeConfigs({} as never), "the target names neither topic nor broker nor client"],
        [() => admin.describeConfigs({ topic: undefined } as never), "a topic has no name"],
        [() => admin.describeConfigs({ topics: "t" } as never), 'did you mean "topic"'],
        [() => admin.describeConfigs({ broker: "1" } as never), 'broker is the text "1"'],
        [() => admin.describeConfigs({ broker: -1 }), "broker is -1"],
        [() => admin.describeConfigs({ topic: "t", broker: 1 } as never), "the target names both topic and broker"],
        [() => admin.alterConfigs({ topic: undefined } as never, {}), "a topic has no name"],
        [() => admin.alterConfigs({ topic: "t" }, undefined as never), "changes is undefined"],
        [() => admin.alterConfigs({ topic: "t" }, new Map([["retention.ms", 1]]) as never), "changes is a Map"],
        [() => admin.alterConfigs({ topic: "t" }, { "retention.ms": [1] } as never), "retention.ms is a list"],
        [() => admin.alterConfigs({ client: 5 } as never, {}), "client is 5"],
        [() => admin.alterConfigs({ topic: "t" }, { "\ud800": 1 }), "the name of a setting is the text"],
        [() => admin.alterConfigs({ topic: "t" }, { "cleanup.policy": "\udfff" }), "which has no UTF-8"],
        [() => admin.electLeaders({} as never), "the partitions are an object"],
        [() => admin.electLeaders([{ topic: undefined, partition: 0 }] as never), "a topic has no name"],
        [() => admin.electLeaders([{ topic: "t", partition: 2 ** 32 }]), "partition is 4294967296"],
        [() => admin.electLeaders([here], { unclean: 1 } as never), "unclean is 1"],
        [() => admin.deleteRecords(undefined as never), "the partitions are undefined"],
        [() => admin.deleteRecords([here] as never), "before is undefined"],
        [() => admin.deleteRecords([{ ...here, before: 1n }] as never), "before is 1n"],
        [() => admin.deleteRecords([{ topic: undefined, partition: 0, before: 1 }] as never), "a topic has no name"],
        [() => admin.describeCluster({ deadlineMs: 5n } as never), "deadlineMs is 5n"],
        [() => admin.listOffsets(undefined as never), "the partitions are undefined"],
        [() => admin.listOffsets([here] as never), "query is undefined"],
        [() => admin.listOffsets([{ ...here, query: "lastest" }] as never), 'did you mean "latest"'],
        [() => admin.listOffsets([{ ...here, query: { timestamp: "x" } }] as never), 'timestamp is the text "x"'],
        [
          () => admin.listOffsets([{ topic: undefined, partition: 0, query: "latest" }] as never),
          "a topic has no name",
        ],
      ];
      const before = fake.broker(1).requests.length;
      for (const [call, says] of cases) expect((await refusalOf(call)).message).toContain(says);
      expect(fake.broker(1).requests.length).toBe(before);
    });
  });

  it("hashes keys, and nothing else, among partitions that there can be", async () => {
    const cases: [call: () => unknown, says: string][] = [
      [() => partitionOfKey(undefined as never, 3), "a key is undefined"],
      [() => partitionOfKey(5 as never, 3), "a key is 5"],
      [() => partitionOfKey("k", 0), "partitionCount is 0"],
      [() => partitionOfKey("k", undefined as never), "partitionCount is undefined"],
      [() => murmur2("k" as never), 'data is the text "k"'],
      [() => murmur2(Buffer.from("k"), 2), "length is 2"],
      [() => murmur2(Buffer.from("k"), 0.5), "length is 0.5"],
    ];
    for (const [call, says] of cases) expect((await refusalOf(call)).message).toContain(says);
  });

  /** Longer than what one timer of Node can hold: that would end after 1 ms. */
  it("waits as long as it is told, though that is above 2^31 ms", async () => {
    const long = 2 ** 32 + 1;
    const patient = await connect({
      bootstrapBrokers: fake.bootstrapBrokers,
      deadlineMs: long,
      requestTimeoutMs: long,
      connectTimeoutMs: long,
      metadataMaxAgeMs: long,
      unknownTopicTimeoutMs: long,
    });
    try {
      await patient.admin().createTopics([{ name: "long" }], { deadlineMs: long });
      const producer: Producer = patient.producer({ deliveryTimeoutMs: long });
      const record: ProducerRecord = { value: "x" };
      await producer.send("long", record);
      const consumer = patient.consumer({ topic: "long", from: "earliest", stallMs: long });
      for await (const { offset } of consumer.records({ untilEnd: true })) expect(offset).toBe(0);
      await patient.admin().deleteRecords([{ topic: "long", partition: 0, before: 1 }]);
      await patient.admin().createPartitions("long", 2);
      await patient.admin().deleteTopics(["long"]);
    } finally {
      await patient.close();
    }
    const told = fake.broker(1).requests.map(({ body }) => (body as { timeoutMs?: number }).timeoutMs);
    expect(told.filter((ms) => ms !== undefined && ms < 2 ** 30)).toEqual([]);
    expect(endOffsetOf(fake.partition("t"))).toBe(0);
  });
});
