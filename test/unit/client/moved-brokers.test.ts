import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import { FakeCluster, until } from "../../support/fake-broker.js";

/** Goal: a client finds its cluster again as long as somebody of it answers at an address that was ever known. */
describe("a client whose brokers have moved", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  afterEach(async () => {
    await cluster.close();
    await fake[Symbol.asyncDispose]();
  });

  /** From now on these brokers answer where the others did, as processes that were started anew. */
  const reassign = (...ids: readonly number[]): void => {
    fake.brokers.forEach((broker, index) => {
      broker.id = ids[index]!;
      broker.hangUp();
    });
  };

  it.each([
    ["brokers have exchanged their addresses", [1, 2, 3], [2, 3, 1]],
    ["the broker was replaced by one of another id at its address", [1], [2]],
  ])("goes on when %s", async (_, before, after) => {
    fake = await FakeCluster.start(before.length);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers });
    fake.createTopic("t", before.length);
    const producer = cluster.producer({ deliveryTimeoutMs: 5000 });
    const read: string[] = [];
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const reading = (async () => {
      for await (const { partition, value } of consumer) read.push(`${partition} ${String(value)}`);
    })();
    const partitions = before.map((_id, partition) => partition);
    for (const partition of partitions) await producer.send("t", { partition, value: "before" });
    await until(() => read.length === before.length, "all is read");
    reassign(...after);
    // Leaderships are not where the addresses are.
    for (const partition of partitions) fake.moveLeader("t", partition, after[partition]!);
    for (const partition of partitions) await producer.send("t", { partition, value: "after" });
    await until(() => read.length === 2 * before.length, "all is read again");
    expect((await cluster.admin().describeCluster()).brokers.map(({ id }) => id)).toEqual(after.toSorted());
    fake.controllerId = after[0]!;
    expect(await cluster.admin().createTopics([{ name: "u" }])).toMatchObject([{ name: "u" }]);
    await consumer.close();
    await reading;
  });

  /** Whoever answers there now belongs to another cluster. */
  const occupy = (ids: readonly number[]): void => {
    for (const id of ids) {
      const broker = fake.broker(id);
      broker.answer = ({ kind }) => (kind === "handshake" ? { refuse: "INCONSISTENT_CLUSTER_ID" } : undefined);
      broker.hangUp();
    }
  };

  it("says everywhere that the addresses belong to another cluster, and goes on when they are its own again", async () => {
    fake = await FakeCluster.start(2);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 10_000 });
    fake.createTopic("t", 2);
    const producer = cluster.producer({ deliveryTimeoutMs: 10_000 });
    await producer.send("t", { partition: 0, value: "before" });
    const consumer = cluster.consumer({ topics: ["t"], from: "earliest" });
    const read: string[] = [];
    const readOn = async (): Promise<void> => {
      for await (const { value } of consumer) if (read.push(String(value)) === 2) break;
    };
    const reading = readOn();
    await until(() => read.length === 1, "the consumer reads");
    occupy([1, 2]);
    const foreign = { code: "INCONSISTENT_CLUSTER_ID", hint: expect.stringContaining("connect again") };
    const admin = cluster.admin();
    await expect(reading).rejects.toMatchObject(foreign);
    // By now nothing is sent any more, so that nothing is in doubt.
    await Promise.all([
      expect(producer.send("t", { partition: 0, value: "lost" })).rejects.toMatchObject(foreign),
      expect(producer.send("u", { value: "lost" })).rejects.toMatchObject(foreign),
      expect(cluster.partitionsOf("t")).rejects.toMatchObject(foreign),
      expect(admin.listTopics()).rejects.toMatchObject(foreign),
      expect(admin.createTopics([{ name: "u" }])).rejects.toMatchObject(foreign),
      expect(consumer.endOffsets()).rejects.toMatchObject(foreign),
      expect(cluster.consumer({ topics: ["u"] }).partitions()).rejects.toMatchObject(foreign),
    ]);
    for (const broker of fake.brokers) broker.answer = () => undefined;
    let isOwnAgain = false;
    let isAsking = false;
    await until(() => {
      if (!isAsking) {
        isAsking = true;
        const answered = (isOwn: boolean) => (): void => {
          isOwnAgain = isOwn;
          isAsking = isOwn;
        };
        cluster.partitionsOf("t").then(answered(true), answered(false));
      }
      return isOwnAgain;
    }, "a question is answered");
    await producer.send("t", { partition: 0, value: "after" });
    await readOn();
    expect(read).toEqual(["before", "after"]);
  });

  it.each(["handshake", "metadata"] as const)(
    "takes an answer (%s) that names another cluster for one of another cluster, whoever has asked",
    async (answered) => {
      fake = await FakeCluster.start(1);
      cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 10_000 });
      fake.createTopic("t");
      fake.broker(1).answer = ({ kind }) =>
        kind === answered ? { body: { clusterId: "another", brokerId: 1, controllerId: 1 } } : undefined;
      fake.broker(1).hangUp();
      const producer = cluster.producer({ deliveryTimeoutMs: 10_000 });
      const foreign = { code: "INCONSISTENT_CLUSTER_ID", message: expect.stringMatching(/another.*connect again/) };
      const admin = cluster.admin();
      await Promise.all([
        expect(admin.listTopics()).rejects.toMatchObject(foreign),
        expect(admin.describeCluster()).rejects.toMatchObject(foreign),
        expect(admin.listOffsets([{ topic: "t", partition: 0, query: "latest" }])).rejects.toMatchObject(foreign),
        expect(cluster.partitionsOf("t")).rejects.toMatchObject(foreign),
        expect(producer.send("t", { value: "lost" })).rejects.toMatchObject(foreign),
        expect(cluster.consumer({ topic: "t" }).partitions()).rejects.toMatchObject(foreign),
      ]);
      expect(cluster.clusterId).toBe("fake-cluster");
      const questions = (): number => fake.broker(1).bodies("metadata").length;
      const before = questions();
      fake.broker(1).answer = () => undefined;
      await until(() => questions() > before, "the first question is answered");
      await producer.send("t", { value: "after" });
      expect(await admin.listTopics()).toHaveLength(1);
    },
  );

  it("asks the others while the address of one belongs to another cluster", async () => {
    fake = await FakeCluster.start(3);
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 10_000 });
    fake.createTopic("t", 3);
    const producer = cluster.producer({ deliveryTimeoutMs: 10_000 });
    for (const partition of [0, 1, 2]) await producer.send("t", { partition, value: "before" });
    occupy([1]);
    fake.controllerId = 2;
    fake.moveLeader("t", 0, 3);
    for (const partition of [0, 1, 2]) await producer.send("t", { partition, value: "after" });
    const admin = cluster.admin();
    for (let time = 0; time < 3; time += 1) expect(await admin.listTopics()).toHaveLength(1);
    const lookups = [0, 1, 2].map((partition) => ({ topic: "t", partition, query: "latest" as const }));
    expect((await admin.listOffsets(lookups)).map(({ offset }) => offset)).toEqual([2, 2, 2]);
  });
});
