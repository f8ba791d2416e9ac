import { connect } from "../../../client/index.js";
import type { Cluster, Consumer, ConsumerRecord } from "../../../client/index.js";
import { silentLogger } from "../../../common/logger.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { FetchRequest } from "../../../protocol/messages.js";
import { codecs } from "../../../protocol/messages.js";
import { readBatch } from "../../../protocol/record-batch.js";
import { toOffset } from "../../../protocol/types.js";
import { batchOf, batchOfBytes } from "../../support/batches.js";
import type { FakeAnswer } from "../../support/fake-broker.js";
import { eventually } from "../../support/eventually.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

/** Goal: what a consumer promises, against brokers that a test can bend. */
describe("Consumer", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  const start = async (brokers = 1): Promise<void> => {
    fake = await FakeCluster.start(brokers);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 100 });
  };

  /** One batch for each list of values. */
  const write = async (topic: string, batches: readonly (readonly string[])[], partition = 0): Promise<void> => {
    const producer = cluster.producer();
    for (const values of batches)
      await producer.sendBatch(
        topic,
        values.map((value) => ({ value, partition })),
      );
    await producer.close();
  };

  const text = (record: ConsumerRecord): string => `${record.offset}:${record.value?.toString()}`;

  const take = async (records: AsyncIterable<ConsumerRecord>, count: number): Promise<string[]> => {
    const taken: string[] = [];
    if (count === 0) return taken;
    for await (const record of records) {
      taken.push(text(record));
      if (taken.length === count) break;
    }
    return taken;
  };

  const all = async (records: AsyncIterable<ConsumerRecord>): Promise<string[]> =>
    take(records, Number.POSITIVE_INFINITY);

  afterEach(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  it("reads every record once, in order, with key, headers and timestamp", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    await producer.sendBatch("t", [
      { key: "k0", value: "v0", headers: { a: "1", b: null }, timestamp: 1_700_000_000_000 },
      { value: "v1", timestamp: 1_700_000_000_005 },
      { key: "k2", value: null, timestamp: 1_699_999_999_999 },
    ]);
    const records: unknown[] = [];
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    for await (const record of consumer.records({ untilEnd: true })) {
      const { topic, partition, offset, timestamp, key, value, headers } = record;
      records.push([topic, partition, offset, timestamp, key?.toString(), value?.toString(), headers]);
    }
    expect(records).toEqual([
      [
        "t",
        0,
        0,
        1_700_000_000_000,
        "k0",
        "v0",
        [
          { key: "a", value: Buffer.from("1") },
          { key: "b", value: null },
        ],
      ],
      ["t", 0, 1, 1_700_000_000_005, undefined, "v1", []],
      ["t", 0, 2, 1_699_999_999_999, "k2", undefined, []],
    ]);
  });

  it("waits for records that come later, and sees them without delay", async () => {
    await start();
    fake.createTopic("t");
    const consumer = cluster.consumer({ topics: ["t"], from: "latest" });
    const reading = take(consumer, 2);
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer has asked for records");
    await write("t", [["a"]]);
    await write("t", [["b"]]);
    expect(await reading).toEqual(["0:a", "1:b"]);
  });

  it("begins in the middle of a batch when told so", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a", "b", "c"], ["d"]]);
    const consumer = cluster.consumer({ topic: "t", partitions: [0], from: { offset: 2 } });
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["2:c", "3:d"]);
  });

  it("goes on behind the last delivered record when a loop is left and another begins", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [
      ["a", "b", "c"],
      ["d", "e"],
    ]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    expect(await take(consumer, 2)).toEqual(["0:a", "1:b"]);
    expect(await consumer.position({ topic: "t", partition: 0 })).toBe(2);
    expect(await take(consumer, 2)).toEqual(["2:c", "3:d"]);
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["4:e"]);
  });

  it("tells no later loop of what was refused to one that was left before", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    for (const late of ["the request", "the partition"]) {
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
      let refuse = (): void => undefined;
      let isRefused = false;
      fake.broker(1).answer = ({ kind, body }) => {
        const { sessionId, partitions } = body as FetchRequest;
        // The one that waits while the first record is read.
        if (kind !== "fetch" || sessionId === 0 || isRefused) return undefined;
        isRefused = true;
        const { topicId, partition } = partitions[0]!;
        const answer: FakeAnswer =
          late === "the request"
            ? { refuse: "UNSUPPORTED_VERSION" }
            : { body: { sessionId, partitions: [{ topicId, partition, error: errorReport("CORRUPT_LOG") }] } };
        return new Promise((resolve) => (refuse = () => resolve(answer)));
      };
      const lookups = (): number => fake.broker(1).bodies("listOffsets").length;
      expect(await take(consumer, 1)).toEqual(["0:a"]);
      await until(() => isRefused, "it has asked for more");
      const before = lookups();
      refuse();
      // Answered on another connection, after the refusal has arrived.
      await consumer.endOffsets();
      await until(() => lookups() > before, "the broker has answered others");
      await new Promise((resolve) => setImmediate(resolve));
      expect(await take(consumer, 1)).toEqual(["1:b"]);
      await consumer.close();
    }
  });

  it("asks for nothing while no loop is reading", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", fetchWaitMs: 10 });
    await take(consumer, 1);
    const asked = fake.broker(1).bodies("fetch").length;
    // Two long polls would have ended meanwhile.
    await write("t", [["b"], ["c"], ["d"]]);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(fake.broker(1).bodies("fetch").length).toBeLessThanOrEqual(asked + 1);
  });

  it("reads batch by batch, and each batch record by record", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a", "b"], ["c"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const batches: unknown[] = [];
    for await (const batch of consumer.batches({ untilEnd: true })) {
      batches.push([batch.startOffset, batch.endOffset, batch.recordCount, [...batch].map(text)]);
    }
    expect(batches).toEqual([
      [0, 2, 2, ["0:a", "1:b"]],
      [2, 3, 1, ["2:c"]],
    ]);
  });

  it("uses the memory of earlier batches for later ones when told so, and only then", async () => {
    await start();
    fake.createTopic("t");
    await write(
      "t",
      Array.from({ length: 60 }, (_, index) => [`${index}:`.padEnd(80_000, "x")]),
    );
    const memories = async (reuseMemory: boolean): Promise<{ texts: string[]; kept: string[]; buffers: number }> => {
      const consumer = cluster.consumer({
        topics: ["t"],
        from: "earliest",
        prefetchBytes: 300_000,
        partitionBytes: 100_000,
      });
      const texts: string[] = [];
      const values: Buffer[] = [];
      for await (const batch of consumer.batches({ untilEnd: true, reuseMemory })) {
        for (const { value } of batch) {
          texts.push(String(value));
          values.push(value!);
        }
      }
      await consumer.close();
      return { texts, kept: values.map(String), buffers: new Set(values.map(({ buffer }) => buffer)).size };
    };
    const plain = await memories(false);
    expect(plain.kept).toEqual(plain.texts);
    expect(plain.buffers).toBeGreaterThan(20);
    const reusing = await memories(true);
    expect(reusing.texts).toEqual(plain.texts);
    expect(reusing.buffers).toBeLessThan(10);
  });

  it("reads all partitions of all topics, from whichever broker leads them", async () => {
    await start(3);
    fake.createTopic("t", 3);
    fake.createTopic("u", 2);
    for (const partition of [0, 1, 2]) await write("t", [[`t${partition}`]], partition);
    for (const partition of [0, 1]) await write("u", [[`u${partition}`]], partition);
    const consumer = cluster.consumer({ topics: ["t", "u"], from: "earliest" });
    const read: string[] = [];
    for await (const record of consumer.records({ untilEnd: true })) read.push(String(record.value));
    expect(read.sort()).toEqual(["t0", "t1", "t2", "u0", "u1"]);
  });

  it("sends only what changed of a fetch session, and keeps it through records", async () => {
    await start();
    fake.createTopic("t", 4);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = take(consumer, 2);
    await until(() => fake.broker(1).bodies("fetch").length > 1, "the second fetch");
    await write("t", [["a"]], 2);
    await until(() => fake.broker(1).bodies("fetch").length > 2, "the third fetch");
    await write("t", [["b"]], 2);
    await reading;
    const [first, waiting, ...others] = fake.broker(1).bodies("fetch");
    // The first one only begins the session: what is asked while it waits could not be asked before it has its id.
    expect(first).toMatchObject({ sessionEpoch: 1, maxWaitMs: 0 });
    expect(first?.partitions).toHaveLength(4);
    expect(waiting).toMatchObject({ sessionEpoch: 2, maxWaitMs: 500, partitions: [] });
    for (const other of others) expect(other.partitions).toMatchObject([{ partition: 2 }]);
    expect(others.map(({ sessionEpoch }) => sessionEpoch)).toEqual(others.map((_, index) => index + 3));
  });

  it("makes a new session when the broker has forgotten the old one, and misses nothing", async () => {
    await start();
    fake.createTopic("t");
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", fetchWaitMs: 20 });
    const reading = take(consumer, 1);
    await until(() => fake.broker(1).bodies("fetch").length > 1, "a session");
    fake.broker(1).answer = ({ kind, body }) =>
      kind === "fetch" && (body as { sessionId: number }).sessionId === 1
        ? { refuse: "FETCH_SESSION_ID_NOT_FOUND" }
        : undefined;
    await until(() => fake.broker(1).bodies("fetch").at(-1)?.sessionId === 2, "a second session");
    await write("t", [["a"]]);
    expect(await reading).toEqual(["0:a"]);
  });

  it("waits for records at a broker that has no place for a session", async () => {
    await start();
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind }) => (kind === "fetch" ? { body: { sessionId: 0, partitions: [] } } : undefined);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", fetchWaitMs: 400 });
    const reading = take(consumer, 1);
    await until(() => fake.broker(1).bodies("fetch").length > 2, "it asks again");
    // The first question only looks whether there is a session to be had.
    expect(
      fake
        .broker(1)
        .bodies("fetch")
        .slice(0, 3)
        .map(({ sessionId, maxWaitMs }) => ({ sessionId, maxWaitMs })),
    ).toEqual([0, 400, 400].map((maxWaitMs) => ({ sessionId: 0, maxWaitMs })));
    await consumer.close();
    await reading.catch(() => undefined);
  });

  it("follows a leader that moves, without losing or repeating a record", async () => {
    await start(2);
    fake.createTopic("t");
    await write("t", [["a"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = take(consumer, 3);
    await until(() => fake.broker(1).bodies("fetch").length > 1, "the consumer reads at broker 1");
    fake.moveLeader("t", 0, 2);
    await write("t", [["b"], ["c"]]);
    expect(await reading).toEqual(["0:a", "1:b", "2:c"]);
    expect(fake.broker(2).bodies("fetch").length).toBeGreaterThan(0);
  });

  it("goes on at the new leader when the old one dies", async () => {
    await start(2);
    fake.createTopic("t");
    await write("t", [["a"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = take(consumer, 2);
    await until(() => fake.broker(1).bodies("fetch").length > 1, "the consumer reads at broker 1");
    await fake.broker(1).kill();
    fake.moveLeader("t", 0, 2);
    await write("t", [["b"]]);
    expect(await reading).toEqual(["0:a", "1:b"]);
  });

  it("leaves a leader that stays silent as soon as there is another", async () => {
    await start(2);
    fake.createTopic("t");
    await write("t", [["a"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", fetchWaitMs: 50 });
    const reading = take(consumer, 2);
    await until(() => fake.broker(1).bodies("fetch").length > 1, "the consumer reads at broker 1");
    fake.broker(1).isSilent = true;
    fake.moveLeader("t", 0, 2);
    await write("t", [["b"]]);
    const begun = Date.now();
    expect(await reading).toEqual(["0:a", "1:b"]);
    expect(Date.now() - begun).toBeLessThan(3000);
  });

  it("does not wait for a leader that went silent and was replaced before that was noticed", async () => {
    await start(2);
    fake.createTopic("t");
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers.slice(1), metadataMaxAgeMs: 20 });
    const reading = take(cluster.consumer({ topics: ["t"], fetchWaitMs: 20 }), 1);
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    fake.broker(1).isSilent = true;
    const before = fake.broker(1).connectionCount;
    fake.moveLeader("t", 0, 2);
    await until(() => fake.broker(2).bodies("fetch").length > 0, "the new leader is asked");
    await until(() => fake.broker(1).connectionCount < before, "the connection to the old one has ended");
    await write("t", [["a"]]);
    expect(await reading).toEqual(["0:a"]);
  });

  it("is not held up by one silent broker while others answer", async () => {
    await start(2);
    fake.createTopic("t", 2);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = take(consumer, 2);
    await until(() => fake.brokers.every((broker) => broker.bodies("fetch").length > 0), "both brokers are asked");
    fake.broker(1).isSilent = true;
    await write("t", [["a"], ["b"]], 1);
    expect(await reading).toEqual(["0:a", "1:b"]);
  });

  it("throws OffsetOutOfRangeError where the position was deleted, by default", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    await cluster.admin().deleteRecords([{ topic: "t", partition: 0, before: 2 }]);
    const consumer = cluster.consumer({ topics: ["t"], from: { offset: 0 } });
    await expect(all(consumer)).rejects.toMatchObject({
      code: "OFFSET_OUT_OF_RANGE",
      offset: 0,
      logStartOffset: 2,
      highWatermark: 3,
      topic: "t",
      partition: 0,
    });
    await consumer.seek({ topic: "t", partition: 0 }, "earliest");
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["2:c"]);
  });

  it.each([
    ["earliest", ["1:b", "2:c"]],
    ["latest", []],
  ] as const)("goes on at the %s record where the position was deleted, if told so", async (onOutOfRange, expected) => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    await cluster.admin().deleteRecords([{ topic: "t", partition: 0, before: 1 }]);
    const consumer = cluster.consumer({ topics: ["t"], from: { offset: 0 }, onOutOfRange });
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(expected);
  });

  it.each([
    ["earliest", ["0:a", "1:b"]],
    ["latest", []],
  ] as const)(
    "goes on at the %s record where the position is beyond the end, if told so",
    async (onOutOfRange, expected) => {
      await start();
      fake.createTopic("t");
      await write("t", [["a"], ["b"]]);
      const at = (offset: number) => cluster.consumer({ topics: ["t"], from: { offset }, onOutOfRange });
      expect(await all(at(3).records({ untilEnd: true }))).toEqual(expected);
      expect(await all(at(2).records({ untilEnd: true }))).toEqual([]);
    },
  );

  it("says that a position is beyond the end, also to one who reads no further than the end", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    for (const untilEnd of [true, false]) {
      const consumer = cluster.consumer({ topics: ["t"], from: { offset: 3 } });
      await expect(all(consumer.records({ untilEnd }))).rejects.toMatchObject({
        code: "OFFSET_OUT_OF_RANGE",
        offset: 3,
        logStartOffset: 0,
        highWatermark: 2,
      });
    }
  });

  it("finds the first record written at or after a time", async () => {
    await start();
    fake.createTopic("t");
    const producer = cluster.producer();
    for (const timestamp of [1000, 2000, 3000]) await producer.send("t", { value: `at ${timestamp}`, timestamp });
    const consumer = cluster.consumer({ topics: ["t"], from: { timestamp: new Date(1500) } });
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["1:at 2000", "2:at 3000"]);
  });

  it("begins at the given offset of each partition", async () => {
    await start();
    fake.createTopic("t", 2);
    await write("t", [["a0"], ["a1"]], 0);
    await write("t", [["b0"], ["b1"]], 1);
    const consumer = cluster.consumer({ topics: ["t"], from: [{ topic: "t", partition: 1, offset: 1 }] });
    expect((await all(consumer.records({ untilEnd: true }))).sort()).toEqual(["0:a0", "1:a1", "1:b1"]);
  });

  it("delivers nothing of a paused partition, and all of it after resume", async () => {
    await start();
    fake.createTopic("t", 2);
    await write("t", [["a0"], ["a1"]], 0);
    await write("t", [["b0"]], 1);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    await consumer.pause([{ topic: "t", partition: 0 }]);
    expect(await take(consumer, 1)).toEqual(["0:b0"]);
    await consumer.resume([{ topic: "t", partition: 0 }]);
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["0:a0", "1:a1"]);
  });

  it("stops in the middle of a batch when a partition is paused inside the loop, and tells the broker to forget it", async () => {
    await start();
    fake.createTopic("t", 2);
    await write("t", [["a0", "a1"], ["a2"]], 0);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const paused = { topic: "t", partition: 0 };
    const read: string[] = [];
    for await (const record of consumer) {
      read.push(text(record));
      if (read.length === 1) {
        await consumer.pause([paused]);
        await write("t", [["b0"], ["b1"], ["b2"]], 1);
      }
      if (read.length === 4) await consumer.resume([paused]);
      if (read.length === 6) break;
    }
    expect(read).toEqual(["0:a0", "0:b0", "1:b1", "2:b2", "1:a1", "2:a2"]);
    const forgotten = fake
      .broker(1)
      .bodies("fetch")
      .flatMap((fetch) => fetch.forgotten);
    expect(forgotten).toMatchObject([{ partition: 0 }]);
  });

  it("keeps what it has fetched of a partition that is paused, and delivers it after resume", async () => {
    await start();
    fake.createTopic("t", 2);
    await write("t", [["a0"]], 0);
    await write("t", [["b0"]], 1);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    for await (const { partition, value } of consumer) {
      read.push(String(value));
      if (read.length === 1) {
        await consumer.pause([{ topic: "t", partition: 1 - partition }]);
        await write("t", [["x"], ["y"]], partition);
      }
      if (read.length === 3) await consumer.resume([{ topic: "t", partition: 1 - partition }]);
      if (read.length === 4) break;
    }
    expect(read.slice(1, 3)).toEqual(["x", "y"]);
    expect([read[0], read[3]].sort()).toEqual(["a0", "b0"]);
  });

  it("delivers what it held of a paused partition before what it fetched of it afterwards", async () => {
    await start();
    fake.createTopic("t", 2);
    await write("t", [["a0"], ["a1"], ["a2"]], 0);
    await write("t", [["b0"], ["b1"], ["b2"]], 1);
    const paused = { topic: "t", partition: 0 };
    // One batch of each partition in each answer.
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", partitionBytes: 1 });
    const read: string[] = [];
    for await (const [record] of consumer.batches()) {
      const value = String(record?.value);
      read.push(value);
      if (read.length === 1) {
        const asked = (offset: number): boolean =>
          fake
            .broker(1)
            .bodies("fetch")
            .flatMap(({ partitions }) => partitions)
            .filter(({ fetchOffset }) => fetchOffset === offset).length === 2;
        await until(() => asked(3), "everything is fetched");
        await consumer.pause([paused]);
      }
      if (value === "b1") await consumer.resume([paused]);
      if (value === "b2") break;
    }
    expect(read).toEqual(["a0", "b0", "b1", "a1", "a2", "b2"]);
  });

  it("takes no notice of an answer to a question that a seek has made void", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    const held: ((answer: FakeAnswer) => void)[] = [];
    fake.broker(1).answer = ({ kind, count }) =>
      kind === "fetch" && (count === 2 || count === 3) ? new Promise((resolve) => held.push(resolve)) : undefined;
    const consumer = cluster.consumer({ topics: ["t"], from: "latest", fetchWaitMs: 20 });
    const reading = take(consumer, 4);
    await until(() => held.length === 1, "the second question is held");
    await write("t", [["d"]]);
    await consumer.seek({ topic: "t", partition: 0 }, { offset: 0 });
    await until(() => held.length === 2, "it asks for the new place");
    const late = fake.partition("t").batches[3]!;
    const { id: topicId } = fake.topics.get("t")!;
    held[0]?.({
      body: { sessionId: 1, partitions: [{ topicId, partition: 0, recordBytes: late.length, highWatermark: 4 }] },
      records: [[late]],
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    held[1]?.(undefined);
    expect(await reading).toEqual(["0:a", "1:b", "2:c", "3:d"]);
  });

  it("goes elsewhere at once when it seeks inside the loop", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a", "b", "c"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    for await (const record of consumer) {
      read.push(text(record));
      if (read.length === 2) await consumer.seek({ topic: "t", partition: 0 }, { offset: 0 });
      if (read.length === 4) break;
    }
    expect(read).toEqual(["0:a", "1:b", "0:a", "1:b"]);
  });

  it("delivers again what it seeks back to, though nothing was asked since it came", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", prefetchBytes: 1, partitionBytes: 1 });
    const batches = consumer.batches()[Symbol.asyncIterator]();
    const next = async (): Promise<string[]> => [...(await batches.next()).value!].map(text);
    expect(await next()).toEqual(["0:a"]);
    await consumer.seek({ topic: "t", partition: 0 }, { offset: 0 });
    expect(await next()).toEqual(["0:a"]);
    expect(await next()).toEqual(["1:b"]);
    await batches.return?.();
  });

  it("delivers what came before a batch that cannot be read, and has its broker look at that one", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    let isDamageNoticed = false;
    const noticing = { ...silentLogger, warn: (): void => void (isDamageNoticed = true) };
    fake.broker(1).spoil = ({ kind, count }, records) =>
      kind === "fetch" && count === 2 ? records.map(([batch]) => [Buffer.alloc(batch!.length)]) : records;
    const reading = await connect({ bootstrapBrokers: fake.bootstrapBrokers, logger: noticing });
    const read: string[] = [];
    for await (const [record] of reading.consumer({ topics: ["t"], from: "earliest" }).batches()) {
      read.push(text(record!));
      if (read.length === 1) {
        await write("t", [["c"]]);
        await until(() => isDamageNoticed, "the damage is noticed");
      }
      if (read.at(-1) === "2:c") break;
    }
    expect(read).toEqual(["0:a", "1:b", "2:c"]);
    const asked = fake
      .broker(1)
      .bodies("fetch")
      .flatMap(({ partitions }) => partitions);
    expect(asked.filter(({ verify }) => verify)).toMatchObject([{ fetchOffset: 2 }]);
    await reading.close();
  });

  it("never delivers a damaged batch: fetches it once more, then throws CorruptBatchError", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    const damaged = fake.partition("t").batches[1]!;
    damaged[damaged.length - 1]! ^= 1;
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    const reading = (async () => {
      for await (const record of consumer) read.push(text(record));
    })();
    await expect(reading).rejects.toMatchObject({ code: "CORRUPT_BATCH", offset: 1, topic: "t", partition: 0 });
    expect(read).toEqual(["0:a"]);
    // Repaired: reading goes on where it ended.
    damaged[damaged.length - 1]! ^= 1;
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["1:b"]);
  });

  describe("a batch that is whole, and whose records nobody can read", () => {
    /** Three batches, of which the second has another number of records than it says. */
    async function writeUnreadable(): Promise<string[]> {
      await start();
      await cluster.close();
      const lines: string[] = [];
      const logger = { ...silentLogger, warn: (sentence: string) => void lines.push(sentence) };
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, logger });
      fake.createTopic("t");
      await write("t", [["a"], ["b", "c"], ["d"]]);
      const { batches } = fake.partition("t");
      batches[1] = stamped(batchOf(["b", "long enough for two more"], { recordCount: 3, lastOffsetDelta: 2 }), 1);
      batches[2] = stamped(batchOf(["d"]), 4);
      return lines;
    }
    const stamped = (bytes: Buffer, offset: number): Buffer => {
      readBatch(bytes, 0).stamp(toOffset(offset), 0);
      return bytes;
    };

    it("is an error that says where to go on, and no repair is promised", async () => {
      await writeUnreadable();
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
      const error: unknown = await all(consumer.records({ untilEnd: true })).catch((reason: unknown) => reason);
      expect(error).toMatchObject({ name: "UnreadableBatchError", code: "UNREADABLE_BATCH", retriable: false });
      // Two of its three records are there, and were delivered.
      expect(error).toMatchObject({ topic: "t", partition: 0, offset: 3, nextOffset: 4 });
      expect((error as Error).message).toMatch(/seek to 4, or set onUnreadable to "skip"/);
      await consumer.seek({ topic: "t", partition: 0 }, { offset: 4 });
      expect(await all(consumer.records({ untilEnd: true }))).toEqual(["4:d"]);
    });

    it("is stepped over by a consumer that is told to, and mentioned in the log", async () => {
      const lines = await writeUnreadable();
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onUnreadable: "skip" });
      expect(await all(consumer.records({ untilEnd: true }))).toEqual(["0:a", "4:d"]);
      await consumer.seek({ topic: "t", partition: 0 }, { offset: 0 });
      const sizes: number[] = [];
      for await (const batch of consumer.batches({ untilEnd: true })) sizes.push(batch.recordCount);
      expect(sizes).toEqual([1, 1]);
      expect(lines).toContain("a batch is left out, because its records cannot be read");
    });
  });

  it.each(["error", "skip"] as const)(
    "takes a batch in which the key of a header is not UTF-8 for unreadable, as leaders do (onUnreadable %s)",
    async (onUnreadable) => {
      await start();
      fake.createTopic("t");
      await write("t", [["a"], ["b"], ["c"]]);
      const header = [{ key: "so-und", value: Buffer.from("1") }];
      const record = [{ offsetDelta: 0, value: Buffer.from("b"), header }];
      const records = Buffer.from(codecs.Records.encode({ record }).finish());
      // As somebody writes it who takes it for bytes.
      records[records.indexOf("so-und") + 2] = 0xe9;
      const bytes = batchOfBytes(records);
      readBatch(bytes, 0).stamp(toOffset(1), 0);
      fake.partition("t").batches[1] = bytes;
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onUnreadable });
      const read: string[] = [];
      const readAll = async (): Promise<void> => {
        for await (const { value } of consumer.records({ untilEnd: true })) read.push(String(value));
      };
      if (onUnreadable === "skip") await readAll();
      else await expect(readAll()).rejects.toMatchObject({ code: "UNREADABLE_BATCH" });
      expect(read).toEqual(onUnreadable === "skip" ? ["a", "c"] : ["a"]);
    },
  );

  it("reads nothing behind a batch that it cannot decompress", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    const compressed = batchOf(["b"], { attributes: 1 });
    readBatch(compressed, 0).stamp(toOffset(1), 0);
    fake.partition("t").batches[1] = compressed;
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    // Another loop is in the same place.
    for (let loops = 0; loops < 2; loops += 1) {
      const reading = (async () => {
        for await (const record of consumer.records({ untilEnd: true })) read.push(text(record));
      })();
      await expect(reading).rejects.toThrow(/the batch at offset 1 is compressed/);
    }
    expect(read).toEqual(["0:a"]);
  });

  it("delivers a batch that was damaged on its way only once", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    let isSpoilt = false;
    const batch = fake.partition("t").batches[0]!;
    fake.broker(1).answer = ({ kind, count }) => {
      if (kind !== "fetch") return undefined;
      if (count === 1 || isSpoilt) batch[batch.length - 1]! ^= 1;
      isSpoilt = count === 1;
      return undefined;
    };
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    expect(await take(consumer, 2)).toEqual(["0:a", "1:b"]);
    expect(fake.broker(1).bodies("fetch").length).toBeGreaterThan(1);
  });

  it("fetches ahead of a slow reader only up to its limit", async () => {
    await start();
    fake.createTopic("t");
    const value = "x".repeat(10_000);
    await write(
      "t",
      Array.from({ length: 100 }, () => [value]),
    );
    const consumer = cluster.consumer({
      topics: ["t"],
      from: "earliest",
      prefetchBytes: 50_000,
      partitionBytes: 20_000,
    });
    const iterator = consumer[Symbol.asyncIterator]();
    await iterator.next();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const asked = Math.max(
      ...fake
        .broker(1)
        .bodies("fetch")
        .flatMap(({ partitions }) => partitions.map((one) => one.fetchOffset)),
    );
    expect(asked).toBeLessThanOrEqual(8);
    let count = 1;
    while (count < 100) {
      await iterator.next();
      count += 1;
    }
    await iterator.return?.();
  });

  it("reads partitions that are added while it reads, from their start", async () => {
    await start();
    fake.createTopic("t");
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 20 });
    const consumer = cluster.consumer({ topics: ["t"], from: "latest" });
    const reading = take(consumer, 1);
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    fake.addPartitions("t", 2);
    fake.partition("t", 1);
    const other = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
    await other.producer().send("t", { value: "new", partition: 1 });
    await other.close();
    expect(await reading).toEqual(["0:new"]);
  });

  it("reads partitions that were added between two loops, from their start", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"]]);
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 20 });
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["0:a"]);
    fake.addPartitions("t", 2);
    const asked = fake.broker(1).bodies("metadata").length;
    await until(() => fake.broker(1).bodies("metadata").length > asked + 2, "the partition is known");
    await write("t", [["new"]], 1);
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["0:new"]);
  });

  it("ends with the reason of its signal, and nothing else, while it looks up the start of an added partition", async () => {
    await start();
    fake.createTopic("t");
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 20 });
    fake.broker(1).answer = ({ kind, count }) => (kind === "listOffsets" && count > 1 ? "silence" : undefined);
    const controller = new AbortController();
    const reading = all(cluster.consumer({ topics: ["t"], signal: controller.signal }));
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    fake.addPartitions("t", 2);
    await until(() => fake.broker(1).bodies("listOffsets").length > 1, "the start is asked for");
    controller.abort(new Error("enough"));
    await expect(reading).rejects.toThrow("enough");
  });

  it.each([
    ["gets partitions", (): void => fake.addPartitions("t", 3)],
    [
      "is created again",
      (): void => {
        fake.topics.delete("t");
        fake.createTopic("t");
      },
    ],
  ])("ends where the topic ended when it began, though the topic %s meanwhile", async (_, change) => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"]]);
    await cluster.close();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 20 });
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onOutOfRange: "earliest" });
    const read: string[] = [];
    for await (const record of consumer.records({ untilEnd: true })) {
      read.push(text(record));
      if (read.length > 1) continue;
      change();
      await until(() => fake.broker(1).bodies("listOffsets").length > 1, "the change is noticed");
    }
    expect(read[0]).toBe("0:a");
    // What appeared later is for the next loop.
    const other = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
    await other.producer().send("t", { value: "new", partition: 0 });
    await other.close();
    expect(await all(consumer.records({ untilEnd: true }))).toContainEqual(expect.stringContaining("new"));
  });

  it("leaves what comes after the end to the next loop, though it arrives with what is before", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"]]);
    fake.broker(1).answer = async ({ kind, count }) => {
      // The end has been asked for by now.
      if (kind === "fetch" && count === 1) await write("t", [["b"], ["c"]]);
      return undefined;
    };
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["0:a"]);
    expect(await all(consumer.records({ untilEnd: true }))).toEqual(["1:b", "2:c"]);
  });

  it("ends when all that it still had to read is deleted while it reads", async () => {
    await start();
    fake.createTopic("t");
    const values = Array.from({ length: 10 }, (_, index) => [`${index}`.padEnd(1000, "x")]);
    await write("t", values);
    let isMovedOn = false;
    const noticing = { ...silentLogger, warn: (): void => void (isMovedOn = true) };
    const reading = await connect({ bootstrapBrokers: fake.bootstrapBrokers, logger: noticing });
    const consumer = reading.consumer({
      topics: ["t"],
      from: "earliest",
      onOutOfRange: "earliest",
      prefetchBytes: 5000,
      partitionBytes: 2500,
    });
    const offsets: number[] = [];
    for await (const { offset } of consumer.records({ untilEnd: true })) {
      offsets.push(offset);
      if (offset === 0) {
        await write("t", values);
        await cluster.admin().deleteRecords([{ topic: "t", partition: 0, before: 15 }]);
      }
      // The place behind what is buffered is gone, and some is buffered still.
      if (offset === 2) await until(() => isMovedOn, "the position is moved on");
    }
    expect(offsets.slice(0, 3)).toEqual([0, 1, 2]);
    expect(offsets.length).toBeLessThan(10);
    expect(await consumer.position({ topic: "t", partition: 0 })).toBe(15);
    await reading.close();
  });

  it.each(["quick", "slow"])(
    "passes over nothing behind the place that it goes on from, however %s it is read",
    async (pace) => {
      await start();
      fake.createTopic("t");
      await write("t", [["a"], ["b"], ["c"]]);
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onOutOfRange: "latest" });
      const fetchesAt = (offset: number): number =>
        fake
          .broker(1)
          .bodies("fetch")
          .filter(({ partitions }) => partitions[0]?.fetchOffset === offset).length;
      /** An unclean leader has lost "b" and "c", and gets others. */
      const lose = async (): Promise<void> => {
        await until(() => fetchesAt(3) > 0, "all is fetched");
        fake.partition("t").batches.splice(1);
        fake.moveLeader("t", 0, 1);
        await until(() => fetchesAt(1) > 0, "it goes on from the new end");
        await write("t", [["B"], ["C"], ["D"]]);
        await until(() => fetchesAt(4) > 0 || fetchesAt(2) > 0, "what is new has come");
      };
      const read: string[] = [];
      for await (const record of consumer) {
        read.push(text(record));
        if (record.offset === 3) break;
        if (read.length !== 3) continue;
        const losing = lose();
        // Whoever is quick waits for the next record meanwhile.
        if (pace === "slow") await losing;
      }
      expect(read).toEqual(["0:a", "1:b", "2:c", "1:B", "2:C", "3:D"]);
    },
  );

  it("leaves a partition paused whose topic is created again", async () => {
    fake = await FakeCluster.start(1);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    fake.createTopic("t", 2);
    await write("t", [["a"]], 1);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onOutOfRange: "earliest" });
    const read: string[] = [];
    for await (const { partition, value } of consumer) {
      read.push(`${partition}:${value?.toString()}`);
      if (read.length > 1) break;
      await consumer.pause([{ topic: "t", partition: 0 }]);
      fake.topics.delete("t");
      fake.createTopic("t", 2);
      await write("t", [["paused"]], 0);
      await write("t", [["b"]], 1);
    }
    expect(read).toEqual(["1:a", "1:b"]);
  });

  it("leaves a partition paused that its topic has not had for a while", async () => {
    fake = await FakeCluster.start(1);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    fake.createTopic("t", 2);
    await write("t", [["a"]], 0);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest", onOutOfRange: "earliest" });
    const read: string[] = [];
    for await (const { partition, value } of consumer) {
      read.push(`${partition}:${value?.toString()}`);
      if (read.length > 1) break;
      await consumer.pause([{ topic: "t", partition: 1 }]);
      for (const partitions of [1, 2]) {
        fake.topics.delete("t");
        fake.createTopic("t", partitions);
        const isKnown = async (): Promise<boolean> => (await consumer.partitions()).length === partitions;
        await eventually("the consumer has heard of the new topic", isKnown);
      }
      await write("t", [["paused"]], 1);
      await write("t", [["b"]], 0);
    }
    expect(read).toEqual(["0:a", "0:b"]);
  });

  it("rejects with UNKNOWN_TOPIC_OR_PARTITION and a hint when there is no such topic", async () => {
    await start();
    const consumer = cluster.consumer({ topics: ["nope"] });
    await expect(all(consumer)).rejects.toMatchObject({
      code: "UNKNOWN_TOPIC_OR_PARTITION",
      topic: "nope",
      hint: expect.stringContaining("create the topic"),
    });
  });

  it("ends a waiting loop when it is closed, and rejects one whose signal is aborted with its reason", async () => {
    await start();
    fake.createTopic("t");
    const closed = cluster.consumer({ topics: ["t"] });
    const reading = all(closed);
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    await closed.close();
    expect(await reading).toEqual([]);
    const controller = new AbortController();
    const aborted = all(cluster.consumer({ topics: ["t"], signal: controller.signal }));
    await until(() => fake.broker(1).bodies("fetch").length > 1, "the second consumer reads");
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
  });

  /** Fails when the loop does not end soon. */
  const settled = async <T>(waiting: Promise<T>): Promise<T> => {
    let isSettled = false;
    const onSettled = (): void => void (isSettled = true);
    waiting.then(onSettled, onSettled);
    await until(() => isSettled, "the loop has ended");
    return waiting;
  };

  it("ends a next that waits when the loop is left by return, as a stream made of it does", async () => {
    await start();
    fake.createTopic("t");
    const iterator = cluster.consumer({ topics: ["t"] }).records();
    const waiting = iterator.next();
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    await iterator.return?.();
    expect(await settled(waiting)).toEqual({ value: undefined, done: true });
  });

  it("ends a loop that is left while it begins, and leaves the consumer to the next one", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"]]);
    const held: ((answer: FakeAnswer) => void)[] = [];
    fake.broker(1).answer = ({ kind, count }) =>
      kind === "listOffsets" && count === 1 ? new Promise((resolve) => held.push(resolve)) : undefined;
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const iterator = consumer.records();
    const waiting = iterator.next();
    await until(() => held.length > 0, "the loop begins");
    await iterator.return?.();
    held[0]?.(undefined);
    expect(await settled(waiting)).toEqual({ value: undefined, done: true });
    expect(await settled(take(consumer, 1))).toEqual(["0:a"]);
  });

  it.each([
    ["a topic is looked up", "nope"],
    ["an offset is looked up", "t"],
  ])("ends when it is closed or its signal is aborted while %s", async (_, topic) => {
    fake = await FakeCluster.start();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 30_000 });
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind }) => (kind === "listOffsets" ? "silence" : undefined);
    const isAsked = (times: number): boolean =>
      topic === "t"
        ? fake.broker(1).bodies("listOffsets").length >= times
        : fake
            .broker(1)
            .bodies("metadata")
            .some(({ topics }) => topics.includes("nope"));
    const closed = cluster.consumer({ topics: [topic] });
    const reading = all(closed);
    await until(() => isAsked(1), "it is looked up");
    await closed.close();
    expect(await settled(reading)).toEqual([]);
    const controller = new AbortController();
    const aborted = all(cluster.consumer({ topics: [topic], signal: controller.signal }));
    await until(() => isAsked(2), "it is looked up again");
    controller.abort(new Error("enough"));
    await expect(settled(aborted)).rejects.toThrow("enough");
  });

  it("goes on where it was when a seek fails", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a", "b"], ["c"]]);
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    const reading = (async () => {
      for await (const record of consumer.records()) {
        read.push(text(record));
        if (read.length === 3) break;
        if (read.length > 1) continue;
        fake.broker(1).answer = ({ kind }) =>
          kind === "listOffsets" ? { body: { partitions: [{ error: errorReport("CORRUPT_LOG") }] } } : undefined;
        const failed = consumer.seek({ topic: "t", partition: 0 }, { timestamp: 0 });
        await expect(failed).rejects.toMatchObject({ code: "CORRUPT_LOG" });
      }
    })();
    await settled(reading);
    expect(read).toEqual(["0:a", "1:b", "2:c"]);
  });

  it("is where the last seek has put it, whatever comes of what was looked up before", async () => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    const held: ((answer: FakeAnswer) => void)[] = [];
    fake.broker(1).answer = ({ kind }) =>
      kind === "listOffsets" ? new Promise((resolve) => held.push(resolve)) : undefined;
    const consumer = cluster.consumer({ topics: ["t"], from: "latest" });
    const place = { topic: "t", partition: 0 };
    const reading = take(consumer, 2);
    await until(() => held.length === 1, "the place to begin at is looked up");
    await consumer.seek(place, { offset: 1 });
    held[0]?.(undefined);
    expect(await settled(reading)).toEqual(["1:b", "2:c"]);
    const failed = expect(consumer.seek(place, { timestamp: 0 })).rejects.toMatchObject({ code: "CORRUPT_LOG" });
    await until(() => held.length === 2, "the place that is sought is looked up");
    await consumer.seek(place, { offset: 2 });
    held[1]?.({ body: { partitions: [{ error: errorReport("CORRUPT_LOG") }] } });
    await failed;
    expect(await consumer.position(place)).toBe(2);
  });

  it.each([
    ["in the log", 0],
    ["behind it, which has been noticed", 9],
  ])("is where a seek has put it while the end to read to is looked up, from an offset %s", async (_, from) => {
    await start();
    fake.createTopic("t");
    await write("t", [["a"], ["b"], ["c"]]);
    const held: ((answer: FakeAnswer) => void)[] = [];
    fake.broker(1).answer = ({ kind }) =>
      kind === "listOffsets" ? new Promise((resolve) => held.push(resolve)) : undefined;
    const place = { topic: "t", partition: 0 };
    const consumer = cluster.consumer({ topics: ["t"], from: [{ ...place, offset: from }] });
    const reading = all(consumer.records({ untilEnd: true }));
    await until(() => held.length === 1, "the end is looked up");
    if (from > 3) {
      held[0]?.(undefined);
      await until(() => held.length === 2, "the start is looked up, because the offset is none");
    }
    await consumer.seek(place, { offset: 1 });
    held.at(-1)?.(undefined);
    expect(await settled(reading)).toEqual(["1:b", "2:c"]);
  });

  it.each([
    ["position", (consumer: Consumer) => consumer.position({ topic: "t", partition: 1 })],
    ["seek", (consumer: Consumer) => consumer.seek({ topic: "t", partition: 1 }, { timestamp: 0 })],
  ] as const)("ends a search by %s for the start of a partition that is gone", async (_, search) => {
    await start();
    fake.createTopic("t", 2);
    const consumer = cluster.consumer({ topic: "t", partitions: [1], from: "latest" });
    await consumer.partitions();
    fake.broker(1).answer = ({ kind }) => {
      if (kind !== "listOffsets" || fake.topics.get("t")?.partitions.length === 1) return undefined;
      fake.topics.delete("t");
      fake.createTopic("t", 1);
      return { body: { partitions: [{ error: errorReport("UNKNOWN_TOPIC_ID") }] } };
    };
    await expect(settled<unknown>(search(consumer))).rejects.toMatchObject({
      code: "UNKNOWN_TOPIC_OR_PARTITION",
      topic: "t",
      partition: 1,
    });
  });

  it("does not say that there is no such topic when no broker answers", async () => {
    fake = await FakeCluster.start();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 1000 });
    fake.broker(1).isSilent = true;
    await expect(all(cluster.consumer({ topics: ["t"] }))).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      topic: "t",
      what: expect.stringContaining(`(${fake.bootstrapBrokers[0]} has not answered)`),
    });
  });

  it("refuses a second loop, an unknown option and an impossible position", async () => {
    await start();
    fake.createTopic("t");
    const consumer = cluster.consumer({ topics: ["t"] });
    const reading = all(consumer);
    await until(() => fake.broker(1).bodies("fetch").length > 0, "the consumer reads");
    await expect(all(consumer)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await consumer.close();
    await reading;
    expect(() => cluster.consumer({ topics: ["t"], form: "earliest" } as never)).toThrow(/did you mean "from"/);
    expect(() => cluster.consumer({ topics: ["t"], from: { offset: -1 } })).toThrow(/position/);
    for (const timestamp of [Number.NaN, -1, 0.5, new Date("never"), "now" as never])
      expect(() => cluster.consumer({ topics: ["t"], from: { timestamp } })).toThrow(/timestamp is/);
    expect(() => cluster.consumer({ topics: [] })).toThrow(/no topic to read/);
  });

  describe("of partitions of which one has no leader", () => {
    /** Partition 0 has records and a leader, partition 1 has records and none. */
    const startHalf = async (options: { readonly deadlineMs?: number } = {}): Promise<void> => {
      await start(2);
      fake.createTopic("t", 2);
      await write("t", [["a0"], ["a1"], ["a2"]], 0);
      await write("t", [["b0"], ["b1"], ["b2"]], 1);
      await cluster.close();
      await fake.broker(2).kill();
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, ...options });
    };

    const readInto = async (read: string[], records: AsyncIterable<ConsumerRecord>, count: number): Promise<void> => {
      for await (const { value } of records) {
        read.push(String(value));
        if (read.length === count) break;
      }
    };

    it.each([
      ["earliest", ["a0", "a1", "a2"], ["b0", "b1", "b2"]],
      [{ last: 2 }, ["a1", "a2"], ["b1", "b2"]],
      [{ last: 9 }, ["a0", "a1", "a2"], ["b0", "b1", "b2"]],
      [{ timestamp: 1 }, ["a0", "a1", "a2"], ["b0", "b1", "b2"]],
    ] as const)("reads the others at once from %j, and that one when it has a leader", async (from, first, then) => {
      await startHalf({ deadlineMs: 200 });
      const read: string[] = [];
      const reading = readInto(read, cluster.consumer({ topics: ["t"], from }), first.length + then.length);
      await until(() => read.length === first.length, "what can be read is read");
      expect(read).toEqual(first);
      // Beyond the deadline of a single question.
      const asked = fake.broker(1).bodies("metadata").length;
      await until(() => fake.broker(1).bodies("metadata").length > asked + 3, "it is asked for on and on");
      await fake.broker(2).restart();
      await reading;
      expect(read).toEqual([...first, ...then]);
    });

    it("says in the log that there is nothing to be had of it", async () => {
      await startHalf();
      const lines: unknown[] = [];
      const logger = { ...silentLogger, warn: (_sentence: string, fields?: object): void => void lines.push(fields) };
      await using other = await connect({ bootstrapBrokers: fake.bootstrapBrokers, logger });
      const reading = all(other.consumer({ topics: ["t"], from: "earliest", stallMs: 200 }));
      await until(() => lines.length > 0, "it is said");
      expect(lines).toMatchObject([{ partitions: 1, reasons: [expect.stringMatching(/^t-1: .*no leader/)] }]);
      await other.close();
      await reading;
    });

    it("delivers what it can up to the end, and then says what is missing", async () => {
      await startHalf({ deadlineMs: 500 });
      const read: string[] = [];
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
      const missing = { code: "LEADER_NOT_AVAILABLE", topic: "t", partition: 1 };
      await expect(readInto(read, consumer.records({ untilEnd: true }), 9)).rejects.toMatchObject(missing);
      expect(read).toEqual(["a0", "a1", "a2"]);
      await fake.broker(2).restart();
      await readInto(read, consumer.records({ untilEnd: true }), 9);
      expect(read.slice(3)).toEqual(["b0", "b1", "b2"]);
    });

    it("fails when none of its partitions can be had within the deadline", async () => {
      await startHalf({ deadlineMs: 300 });
      const consumer = cluster.consumer({ topic: "t", partitions: [1], from: "earliest" });
      await expect(all(consumer)).rejects.toMatchObject({ code: "LEADER_NOT_AVAILABLE", topic: "t", partition: 1 });
    });

    it("asks for nothing any more when the loop is left", async () => {
      await startHalf();
      const read: string[] = [];
      await readInto(read, cluster.consumer({ topics: ["t"], from: "earliest" }), 3);
      const calm = (): boolean => {
        const before = fake.broker(1).bodies("metadata").length;
        return before === asked ? true : ((asked = before), false);
      };
      let asked = -1;
      let calmFor = 0;
      await until(() => (calmFor = calm() ? calmFor + 1 : 0) > 200, "no question is asked for 200 looks");
    });
  });

  it("is not kept from the leaders that answer by one that stays silent", async () => {
    await start(2);
    fake.createTopic("t", 2);
    await write("t", [["a"]], 0);
    fake.broker(2).answer = ({ kind }) => (kind === "listOffsets" ? "silence" : undefined);
    let asked = 0;
    // The first answer is a refusal that passes.
    fake.broker(1).answer = ({ kind }) =>
      kind === "listOffsets" && (asked += 1) === 1
        ? { body: { partitions: [{ error: errorReport("OFFSET_NOT_AVAILABLE") }] } }
        : undefined;
    expect(await take(cluster.consumer({ topics: ["t"], from: "earliest" }), 1)).toEqual(["0:a"]);
  });

  describe("of a topic that returns with fewer partitions", () => {
    const shrink = (): void => {
      fake.topics.delete("t");
      fake.createTopic("t", 1);
    };

    it.each(["earliest", "latest", "error"] as const)(
      "says that its partition is gone (onOutOfRange %s), in each loop until it is there again",
      async (onOutOfRange) => {
        await start();
        fake.createTopic("t", 3);
        await write("t", [["old"]], 2);
        await cluster.close();
        cluster = await connect({
          bootstrapBrokers: fake.bootstrapBrokers,
          metadataMaxAgeMs: 20,
          unknownTopicTimeoutMs: 100,
        });
        const consumer = cluster.consumer({ topic: "t", partitions: [2], from: "earliest", onOutOfRange });
        const reading = all(consumer);
        await until(() => fake.broker(1).bodies("fetch").length > 1, "it is read");
        shrink();
        await expect(settled(reading)).rejects.toMatchObject({
          code: onOutOfRange === "error" ? "UNKNOWN_TOPIC_ID" : "UNKNOWN_TOPIC_OR_PARTITION",
          topic: "t",
        });
        await expect(settled(all(consumer))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
        fake.addPartitions("t", 3);
        await write("t", [["new"]], 2);
        expect(await settled(take(consumer, 1))).toEqual(["0:new"]);
      },
    );
  });
});
