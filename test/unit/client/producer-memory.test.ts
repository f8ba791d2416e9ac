import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import type { FakeBroker } from "../../support/fake-broker.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

/** Goal: memory is for records; what one leader does not take, or what lingers, keeps none from the others. */
describe("the memory of a producer", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  const start = async (brokers: number): Promise<void> => {
    fake = await FakeCluster.start(brokers);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 100 });
  };

  afterEach(async () => {
    await fake?.[Symbol.asyncDispose]();
    await cluster?.close().catch(() => undefined);
  });

  /** From now on records are taken in and never answered; everything else is. */
  const stopAnswering = (broker: FakeBroker): void => {
    broker.answer = ({ kind }) => (kind === "produce" ? "silence" : undefined);
  };

  it("is not taken by a few bytes for each of many partitions", async () => {
    await start(1);
    fake.createTopic("wide", 600);
    const producer = cluster.producer({ lingerMs: 60_000 });
    await cluster.partitionsOf("wide");
    const rooms = Array.from({ length: 600 }, (_, partition) => producer.produce("wide", { value: "x", partition }));
    expect(rooms.filter((room) => room !== undefined)).toHaveLength(0);
    await producer.flush();
    expect(fake.topics.get("wide")!.partitions.every(({ batches }) => batches.length === 1)).toBe(true);
  });

  it("is freed by what lingers as soon as a record, a flush or a close waits", async () => {
    await start(1);
    fake.createTopic("t", 8);
    const producer = cluster.producer({
      lingerMs: 60_000,
      deliveryTimeoutMs: 100_000,
      bufferBytes: 4096,
      batchBytes: 1024,
    });
    await cluster.partitionsOf("t");
    const toEach = (): (void | Promise<void>)[] =>
      Array.from({ length: 8 }, (_, partition) => producer.produce("t", { value: "x".repeat(600), partition }));
    for (let partition = 0; partition < 8; partition += 1) {
      const room = producer.produce("t", { value: "x".repeat(600), partition });
      if (room !== undefined) await room;
    }
    await producer.flush();
    expect(toEach().some((room) => room !== undefined)).toBe(true);
    await producer.flush();
    void toEach();
    await producer.close();
    expect(fake.topics.get("t")!.partitions.map(({ batches }) => batches.length)).toEqual(Array(8).fill(3));
  });

  it("has no lingering records when a flush waits for a topic that is not known yet", async () => {
    await start(1);
    fake.createTopic("known");
    const producer = cluster.producer({ lingerMs: 60_000, deliveryTimeoutMs: 100_000 });
    await cluster.partitionsOf("known");
    const sent = producer.send("known", { value: "x" });
    void producer.produce("later", { value: "y" });
    const flushed = producer.flush();
    await sent;
    fake.createTopic("later");
    await flushed;
    expect(fake.partition("later").batches).toHaveLength(1);
  });

  it("has room for the records of other leaders, whatever waits for one that takes none", async () => {
    await start(2);
    fake.createTopic("mixed", 600);
    fake.createTopic("other", 2);
    const producer = cluster.producer({ bufferBytes: 64 * 1024, batchBytes: 1024, deliveryTimeoutMs: 1500 });
    // Both leaders are connected, and partition 1 of `other` is broker 2's.
    await producer.send("mixed", { value: "x", partition: 0 });
    await producer.send("other", { value: "x", partition: 1 });
    stopAnswering(fake.broker(1));
    const stuck = Array.from({ length: 300 }, (_, index) =>
      producer.produce("mixed", { value: "x".repeat(300), partition: index * 2 }),
    );
    expect(stuck.some((room) => room !== undefined)).toBe(true);
    for (let round = 0; round < 20; round += 1) {
      const room = producer.produce("other", { value: "y".repeat(300), partition: 1 });
      expect(room).toBeUndefined();
      await producer.send("other", { value: "y".repeat(300), partition: 1 });
    }
    // The same topic, another leader.
    await producer.send("mixed", { value: "y", partition: 1 });
    expect(fake.partition("other", 1).batches.length).toBeGreaterThan(20);
  });

  it("is taken by records without a key where there is some, and not where a leader takes none", async () => {
    await start(2);
    fake.createTopic("t", 4);
    const producer = cluster.producer({ bufferBytes: 16 * 1024, batchBytes: 1024, deliveryTimeoutMs: 1500 });
    await Promise.all([0, 1, 2, 3].map((partition) => producer.send("t", { value: "x", partition })));
    stopAnswering(fake.broker(1));
    for (let index = 0; index < 40; index += 1) {
      for (const partition of [0, 2]) void producer.produce("t", { value: "x".repeat(300), partition });
    }
    for (let index = 0; index < 20; index += 1) {
      const { partition } = await producer.send("t", { value: "free" });
      expect([1, 3]).toContain(partition);
    }
  });

  it("keeps the order of a partition whose leader moves while its records wait", async () => {
    await start(2);
    fake.createTopic("t", 1);
    const producer = cluster.producer({ bufferBytes: 2048, batchBytes: 1024 });
    await producer.send("t", { value: "x" });
    stopAnswering(fake.broker(1));
    const values = Array.from({ length: 20 }, (_, index) => `${index}:`.padEnd(300, "."));
    const sent = values.slice(0, 15).map((value) => producer.send("t", { value }));
    await until(() => fake.broker(1).bodies("produce").length > 1, "it is sent");
    fake.moveLeader("t", 0, 2);
    fake.broker(1).hangUp();
    sent.push(...values.slice(15).map((value) => producer.send("t", { value })));
    const offsets = (await Promise.all(sent)).map(({ offset }) => offset);
    expect(offsets).toEqual(values.map((_, index) => index + 1));
  });

  it("lets no small record pass one that waited for it before the leader moved", async () => {
    fake = await FakeCluster.start(2);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, metadataMaxAgeMs: 10 });
    fake.createTopic("t", 1);
    const producer = cluster.producer({ bufferBytes: 2048, batchBytes: 1024, deliveryTimeoutMs: 3000 });
    await producer.send("t", { value: "x" });
    for (const broker of fake.brokers) stopAnswering(broker);
    const offsets: number[] = [];
    const produce = (bytes: number): void | Promise<void> =>
      producer.produce("t", { value: "x".repeat(bytes) }, (_, metadata) => void offsets.push(metadata?.offset ?? -1));
    let waiting: void | Promise<void> = undefined;
    while (waiting === undefined) waiting = produce(900);
    const questions = (): number => fake.brokers.reduce((sum, broker) => sum + broker.bodies("metadata").length, 0);
    const asked = questions();
    fake.moveLeader("t", 0, 2);
    await until(() => questions() > asked + 2, "the client has heard of the new leader");
    expect(produce(1)).toBeInstanceOf(Promise);
    fake.broker(2).answer = () => undefined;
    fake.broker(1).hangUp();
    await producer.flush();
    expect(offsets).toEqual(offsets.map((_, index) => index + 1));
  });

  it("names the leader whose records hold it when a record finds no room in time", async () => {
    await start(1);
    fake.createTopic("t");
    const producer = cluster.producer({ bufferBytes: 2048, batchBytes: 1024, deliveryTimeoutMs: 400 });
    await producer.send("t", { value: "x" });
    stopAnswering(fake.broker(1));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 12 }, () => producer.send("t", { value: "x".repeat(700) })),
    );
    const last = outcomes.at(-1);
    expect(last).toMatchObject({
      reason: { code: "DEADLINE_EXCEEDED", what: expect.stringMatching(/no room in memory.*broker 1/) },
    });
  });
});
