import { connect } from "../../../client/index.js";
import type { Cluster, ConsumerRecord } from "../../../client/index.js";
import { batchesOf, FakeCluster, until } from "../../support/fake-broker.js";

/**
 * Goal: what others do to a topic is no reason for a wrong refusal, and none to wait for long. Nothing here waits for the
 * slow timer that looks for changes.
 */
describe("a client whose topics are changed by somebody else", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  beforeEach(async () => {
    fake = await FakeCluster.start();
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 200, deadlineMs: 8000 });
  });

  afterEach(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  const questions = (): number => fake.broker(1).bodies("metadata").length;

  const take = async (records: AsyncIterable<ConsumerRecord>, count: number): Promise<string[]> => {
    const taken: string[] = [];
    for await (const { value } of records) if (taken.push(String(value)) === count) break;
    return taken;
  };

  describe("when it gets partitions", () => {
    it("writes to a new one and reads it, in the order of the calls", async () => {
      fake.createTopic("t", 2);
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      await producer.send("t", { value: "known", partition: 0 });
      fake.addPartitions("t", 4);
      const outcomes: string[] = [];
      const values = ["a", "b", "c"];
      for (const value of values)
        void producer.produce("t", { value, partition: 3 }, (error) => {
          outcomes.push(error?.code ?? value);
        });
      await producer.flush();
      await producer.send("t", { value: "d", partition: 3 });
      expect(outcomes).toEqual(values);
      expect(batchesOf(fake.partition("t", 3)).reduce((sum, { recordCount }) => sum + recordCount, 0)).toBe(4);
      const consumer = cluster.consumer({ topic: "t", partitions: [3], from: "earliest" });
      expect(await take(consumer, 4)).toEqual(["a", "b", "c", "d"]);
    });

    it("sends a consumer's record on to a new one as it is", async () => {
      fake.createTopic("source", 4);
      fake.createTopic("t", 2);
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      await producer.send("source", { key: "k", value: "v", partition: 3, headers: { h: "x" } });
      await producer.send("t", { value: "known", partition: 0 });
      fake.addPartitions("t", 4);
      for await (const record of cluster.consumer({ topic: "source", partitions: [3], from: "earliest" })) {
        expect(await producer.send("t", record)).toMatchObject({ partition: 3 });
        break;
      }
      for await (const record of cluster.consumer({ topic: "t", partitions: [3], from: "earliest" })) {
        expect([String(record.key), String(record.value), record.headers.length]).toEqual(["k", "v", 1]);
        break;
      }
    });

    it("lets no record that its key sends to a new one pass those that name it", async () => {
      fake.createTopic("t", 1);
      const producer = cluster.producer({ partitioner: (_, count) => count - 1 });
      await producer.send("t", { value: "known", partition: 0 });
      fake.addPartitions("t", 8);
      // The same answer tells this caller and the producer of the new partitions.
      const second = cluster.partitionsOf("t").then(() => producer.send("t", { key: "k", value: "second" }));
      const first = producer.send("t", { value: "first", partition: 7 });
      expect((await Promise.all([first, second])).map(({ offset }) => offset)).toEqual([0, 1]);
    });

    it("is asked again for one that a record names before anything is known of its topic", async () => {
      fake.createTopic("t", 1);
      fake.broker(1).answer = ({ kind, body }) => {
        if (kind === "metadata" && (body as { topics: string[] }).topics.includes("t")) {
          // The first answer is of the time before.
          if (asked === 1) fake.addPartitions("t", 4);
          asked += 1;
        }
        return undefined;
      };
      let asked = 0;
      const producer = cluster.producer();
      expect(await producer.send("t", { value: "x", partition: 3 })).toMatchObject({ partition: 3, offset: 0 });
      await expect(producer.send("t", { value: "x", partition: 4 })).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
        message: expect.stringContaining("no partition 4"),
      });
    });

    it("counts the time that a record waits for a new one among that for its delivery", async () => {
      fake.createTopic("t", 1);
      const producer = cluster.producer({ deliveryTimeoutMs: 1500 });
      await producer.send("t", { value: "x" });
      let knowsMore = false;
      fake.broker(1).answer = ({ kind }) =>
        kind === "produce" || (kind === "metadata" && !knowsMore) ? "silence" : undefined;
      const failed: string[] = [];
      const sent = (name: string, partition: number): Promise<unknown> =>
        producer.send("t", { value: name, partition }).catch(() => failed.push(name));
      const first = sent("first", 3);
      const before = questions();
      const second = until(() => questions() > before + 1, "it has waited for a while").then(() => {
        fake.addPartitions("t", 4);
        knowsMore = true;
        return sent("second", 0);
      });
      await Promise.all([first, second]);
      expect(failed).toEqual(["first", "second"]);
    });

    it("tells of them when it is asked", async () => {
      fake.createTopic("t", 2);
      expect(await cluster.partitionsOf("t")).toEqual([0, 1]);
      fake.addPartitions("t", 4);
      expect(await cluster.partitionsOf("t")).toEqual([0, 1, 2, 3]);
    });

    it("reads named ones, and seeks in new ones of a whole topic", async () => {
      fake.createTopic("t", 1);
      const whole = cluster.consumer({ topics: ["t"], from: "earliest" });
      expect(await whole.partitions()).toHaveLength(1);
      fake.addPartitions("t", 3);
      expect(await cluster.consumer({ topic: "t", partitions: [2] }).partitions()).toEqual([
        { topic: "t", partition: 2 },
      ]);
      await whole.pause([{ topic: "t", partition: 1 }]);
      expect(await whole.position({ topic: "t", partition: 2 })).toBe(0);
    });

    it("refuses one that there is not, when it has asked again and again for a while", async () => {
      fake.createTopic("t", 1);
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      await producer.send("t", { value: "x" });
      const before = questions();
      const refusal = { code: "INVALID_ARGUMENT", message: expect.stringContaining("no partition 7") };
      await expect(producer.send("t", { value: "x", partition: 7 })).rejects.toMatchObject(refusal);
      expect(questions() - before).toBeGreaterThan(2);
      const consumer = cluster.consumer({ topic: "t", partitions: [7] });
      await expect(consumer.partitions()).rejects.toMatchObject(refusal);
      await producer.produce("t", { value: "x", partition: 7 });
      await expect(producer.flush()).rejects.toMatchObject(refusal);
    });

    it("gives up at the deadline of the record when nobody answers", async () => {
      fake.createTopic("t", 1);
      const producer = cluster.producer({ deliveryTimeoutMs: 500 });
      await producer.send("t", { value: "x" });
      fake.broker(1).answer = ({ kind }) => (kind === "metadata" ? "silence" : undefined);
      await expect(producer.send("t", { value: "x", partition: 7 })).rejects.toMatchObject({
        code: "DEADLINE_EXCEEDED",
        topic: "t",
        partition: 7,
      });
    });
  });

  describe("when it is deleted", () => {
    const gone = { code: "UNKNOWN_TOPIC_OR_PARTITION", topic: "t" };

    it("says so soon, and the same whoever asks", async () => {
      fake.createTopic("t");
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      await producer.send("t", { value: "x" });
      const old = cluster.consumer({ topics: ["t"], from: "earliest" });
      expect(await take(old, 1)).toEqual(["x"]);
      fake.topics.delete("t");
      await expect(take(cluster.consumer({ topics: ["t"], from: "earliest" }), 1)).rejects.toMatchObject(gone);
      for (let time = 0; time < 3; time += 1) {
        await expect(producer.send("t", { value: "x" })).rejects.toMatchObject(gone);
        await expect(producer.send("t", { value: "x", partition: 0 })).rejects.toMatchObject(gone);
        await expect(take(old, 1)).rejects.toMatchObject(gone);
        await expect(cluster.partitionsOf("t")).rejects.toMatchObject(gone);
        await expect(cluster.consumer({ topics: ["t"] }).endOffsets()).rejects.toMatchObject(gone);
      }
    });

    it("is asked about no more once everybody was told, however many of them there have been", async () => {
      fake.createTopic("t");
      const names = Array.from({ length: 10 }, (_, index) => `day-${index}`);
      const producer = cluster.producer();
      for (const name of names) {
        fake.createTopic(name);
        await producer.send(name, { value: "x" });
        fake.topics.delete(name);
        await expect(producer.send(name, { value: "x" })).rejects.toMatchObject({ topic: name });
      }
      await expect(cluster.partitionsOf("never")).rejects.toMatchObject({ topic: "never" });
      await cluster.partitionsOf("t");
      expect(fake.broker(1).bodies("metadata").at(-1)?.topics).toEqual(["t"]);
    });

    it("uses it again as soon as it is there again, though it was said to be gone", async () => {
      fake.createTopic("t");
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      await producer.send("t", { value: "old" });
      fake.topics.delete("t");
      await expect(producer.send("t", { value: "lost" })).rejects.toMatchObject(gone);
      await expect(cluster.partitionsOf("t")).rejects.toMatchObject(gone);
      fake.createTopic("t", 2);
      expect(await cluster.partitionsOf("t")).toEqual([0, 1]);
      await producer.send("t", { value: "new", partition: 1 });
      expect(await take(cluster.consumer({ topics: ["t"], from: "earliest" }), 1)).toEqual(["new"]);
    });

    it("does not believe one broker that has not heard of it", async () => {
      await cluster.close();
      await fake[Symbol.asyncDispose]();
      fake = await FakeCluster.start(2);
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, unknownTopicTimeoutMs: 500 });
      fake.createTopic("t");
      const behind = fake.broker(2);
      const unknown = { name: "t", error: { code: 3, message: "there is no topic t" } };
      behind.answer = ({ kind, body }) =>
        kind === "metadata" && (body as { topics: string[] }).topics.includes("t")
          ? { body: { clusterId: "fake-cluster", controllerId: 1, controllerEpoch: 1, topics: [unknown] } }
          : undefined;
      const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
      for (let time = 0; time < 5; time += 1) {
        await producer.send("t", { value: "x" });
        expect(await cluster.partitionsOf("t")).toEqual([0]);
      }
      await until(() => behind.bodies("metadata").length > 0, "it was asked");
    });
  });

  describe("when it is deleted and created again", () => {
    const recreate = async (partitions: number): Promise<void> => {
      fake.topics.delete("t");
      fake.createTopic("t", partitions);
      // Of a client of its own: the one that is tested has not heard of anything.
      const other = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
      for (let partition = 0; partition < partitions; partition += 1)
        await other.producer().send("t", { value: `new ${partition}`, partition });
      await other.close();
    };
    const readAll = async (from: "earliest" | { offset: number }, more: object = {}): Promise<string[]> => {
      const consumer = cluster.consumer({ topic: "t", from, ...more });
      const taken: string[] = [];
      for await (const { value } of consumer.records({ untilEnd: true })) taken.push(String(value));
      await consumer.close();
      return taken.sort();
    };
    const ways: [string, () => Promise<unknown>][] = [
      ["asked for its partitions", () => cluster.partitionsOf("t")],
      ["written to it", () => cluster.producer().send("t", { value: "old", partition: 0 })],
      ["read it with another consumer", () => readAll("earliest")],
    ];

    it.each(ways)("is read anew by a consumer that is made then, though the client has %s", async (_, use) => {
      fake.createTopic("t", 2);
      await use();
      await recreate(3);
      expect(await readAll("earliest")).toEqual(["new 0", "new 1", "new 2"]);
      await recreate(1);
      expect(await readAll({ offset: 0 })).toEqual(["new 0"]);
    });

    it("is read from where the application has sought to before anything was read, and what is paused stays so", async () => {
      fake.createTopic("t", 2);
      const consumer = cluster.consumer({ topics: ["t"], from: "latest" });
      await consumer.seek({ topic: "t", partition: 0 }, { offset: 0 });
      await consumer.seek({ topic: "t", partition: 1 }, { offset: 0 });
      await consumer.pause([{ topic: "t", partition: 1 }]);
      await recreate(2);
      expect(await take(consumer, 1)).toEqual(["new 0"]);
      await consumer.resume([{ topic: "t", partition: 1 }]);
      expect(await take(consumer, 1)).toEqual(["new 1"]);
    });

    it("stays paused where it was paused while the consumer waited for another partition", async () => {
      fake.createTopic("t", 1);
      const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
      await consumer.partitions();
      // The second partition is not known yet; it comes with the topic's successor.
      const paused = consumer.pause([
        { topic: "t", partition: 0 },
        { topic: "t", partition: 1 },
      ]);
      await recreate(3);
      await paused;
      expect(await take(consumer, 1)).toEqual(["new 2"]);
      const fetches = fake.brokers.flatMap((broker) => broker.bodies("fetch"));
      const asked = fetches.flatMap(({ partitions }) => partitions.map(({ partition }) => partition));
      expect([...new Set(asked)]).toEqual([2]);
      await consumer.close();
    });

    it("is said once, with what to do, to a consumer that has read the former one", async () => {
      fake.createTopic("t");
      await cluster.producer().send("t", { value: "old" });
      const consumer = cluster.consumer({ topic: "t", from: "earliest" });
      expect(await take(consumer, 1)).toEqual(["old"]);
      await recreate(1);
      await expect(take(consumer, 1)).rejects.toMatchObject({
        code: "UNKNOWN_TOPIC_ID",
        message: "t: the topic was deleted and created again; make a new consumer, which reads the present one",
      });
      expect(await readAll("earliest")).toEqual(["new 0"]);
    });

    it("has no such partition for a record that names one which only the former one had", async () => {
      fake.createTopic("t", 2);
      const producer = cluster.producer();
      await producer.send("t", { value: "old", partition: 1 });
      await recreate(1);
      for (let time = 0; time < 2; time += 1) {
        await expect(producer.send("t", { value: "x", partition: 1 })).rejects.toMatchObject({
          code: "INVALID_ARGUMENT",
          what: "t: there is no partition 1",
        });
      }
      const named = cluster.consumer({ topic: "t", partitions: [1], from: "earliest" });
      await expect(take(named, 1)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    });
  });
});
