import { connect } from "../../../client/index.js";
import type { RecordMetadata } from "../../../client/index.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { encodeBatch, IdempotentWriter, LibraryWriter, produceOnce } from "../workload.js";

const leaderOf = (cluster: SimCluster): { brokerId: number; leaderEpoch: number } => ({
  brokerId: cluster.leaderOf("letters"),
  leaderEpoch: cluster.stateOf("letters", 0)?.leaderEpoch ?? 0,
});
const libraryOf = (cluster: SimCluster, requestTimeoutMs = 2000): ReturnType<typeof connect> =>
  cluster.complete(
    connect({
      env: cluster.client().env,
      bootstrapBrokers: [...cluster.brokers.values()].map(({ address }) => address),
      requestTimeoutMs,
    }),
  );

describe("a batch that comes a second time", () => {
  it("is not acknowledged before the first copy is replicated, and then with its offset", async () => {
    await withCluster({ seed: 61 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(5);
      const { client, target } = letters;
      await cluster.complete(client.refresh());
      const values = letters.values(1);
      const batch = (): Buffer => encodeBatch(values, 0, { producerId: 999, producerEpoch: 0, baseSequence: 0 });
      const to = leaderOf(cluster);
      for (const id of cluster.followersOf("letters")) cluster.pause(id);
      const first = produceOnce(client, to, target, "all", batch(), 700);
      expect(await cluster.complete(first)).toMatchObject({ kind: "unknown" });
      const second = produceOnce(client, to, target, "all", batch(), 700);
      expect(await cluster.complete(second)).toMatchObject({ kind: "unknown" });
      for (const id of cluster.followersOf("letters")) cluster.resume(id);
      const third = produceOnce(client, to, target, "all", batch(), 3000);
      expect(await cluster.complete(third)).toEqual({ kind: "ok", baseOffset: 5, brokerId: to.brokerId });
      expect(cluster.log(to.brokerId, "letters").logEndOffset).toBe(6);
    });
  });
});

describe("batches under way together", () => {
  it("stand in the order of sending, and one that comes too early is refused", async () => {
    await withCluster({ seed: 62 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const { client, target } = letters;
      await cluster.complete(client.refresh());
      const to = leaderOf(cluster);
      const batch = (sequence: number): Buffer =>
        encodeBatch(letters.values(1), 0, { producerId: 999, producerEpoch: 0, baseSequence: sequence });
      const attempts = [0, 1, 2, 4, 3].map((sequence) => produceOnce(client, to, target, "all", batch(sequence)));
      const ended = await cluster.complete(Promise.all(attempts));
      expect(ended).toMatchObject([
        { kind: "ok", baseOffset: 0 },
        { kind: "ok", baseOffset: 1 },
        { kind: "ok", baseOffset: 2 },
        { kind: "refused", error: "OUT_OF_ORDER_SEQUENCE_NUMBER" },
        { kind: "ok", baseOffset: 3 },
      ]);
    });
  });

  it("of the library keep their order when the first of all is refused and the others would not be", async () => {
    for (const seed of [63, 67, 68, 69]) {
      await withCluster({ seed, settings: { "replica.lag.time.max.ms": "2000" } }, async (cluster) => {
        const letters = await Letters.create(cluster);
        await cluster.createTopic({ name: "others", assignment: [{ brokerIds: [cluster.leaderOf("letters")] }] });
        const producer = (await libraryOf(cluster)).producer();
        // It has its id, and has sent nothing to this partition yet.
        await cluster.complete(producer.send("others", { value: "hello" }));
        // Too few replicas are in sync at first; they come back while the first batches are on their way.
        const followers = cluster.followersOf("letters");
        for (const id of followers) cluster.pause(id);
        await cluster.until(() => cluster.isrOf("letters").length === 1, "one is in sync", 10_000);
        for (const id of followers) cluster.resume(id);
        await cluster.until(() => cluster.isrOf("letters").length === 2, "enough are about to be in sync");
        const sent: Promise<RecordMetadata>[] = [];
        for (const value of letters.values(100)) {
          sent.push(producer.send("letters", { value, partition: 0 }));
          await cluster.run(0.12);
        }
        const places = await cluster.complete(Promise.all(sent));
        expect(places.map(({ offset }) => offset)).toEqual(places.map((_, index) => index));
      });
    }
  });
});

describe("what a follower had and the new leader had not", () => {
  it("is forgotten with the producer's sequences, so that the repetition is taken, once", async () => {
    await withCluster({ seed: 64, brokers: 4 }, async (cluster) => {
      const assignment = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(10);
      const deposed = cluster.leaderOf("letters");
      const { network } = cluster.simulation;
      const others = [1, 2, 3, 4].filter((id) => id !== deposed).map((id) => `broker-${id}`);
      const writerHost = letters.client.env.process.hostname;
      // The writer reaches nobody but the old leader, which reaches nobody else: it appends, and is replaced.
      for (const other of [...others, "zk1"]) network.partition(`broker-${deposed}`, other);
      for (const other of others) network.partition(writerHost, other);
      await letters.send(1);
      await cluster.until(() => cluster.log(deposed, "letters").logEndOffset === 11, "it is appended");
      await cluster.until(() => ![deposed, -1].includes(cluster.leaderOf("letters")), "another broker leads");
      // What the new leader has in its place is somebody else's.
      const second = new IdempotentWriter(cluster.client(), letters.history, "second", letters.target);
      await cluster.complete(second.write(letters.values(1)));
      await cluster.until(() => second.isIdle, "it is written");
      for (const other of [...others, "zk1"]) network.heal(`broker-${deposed}`, other);
      await cluster.until(() => cluster.isrOf("letters").includes(deposed), "the old leader is in sync again");
      expect(cluster.logged("truncates its log from 11 to 10")).toBe(true);
      // It leads again, and the writer, which still waits, sends its record again.
      for (const id of assignment) if (id !== deposed) cluster.pause(id);
      await cluster.until(() => cluster.leaderOf("letters") === deposed, "it leads again");
      for (const id of assignment) if (id !== deposed) cluster.resume(id);
      await cluster.until(() => letters.writer.isIdle, "the record has an outcome");
      network.heal();
      expect(letters.history.counts()).toMatchObject({ ok: 12, info: 0 });
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a record whose fate is unknown", () => {
  it("because its leader was deposed while it waited to be replicated is not called refused", async () => {
    await withCluster({ seed: 66 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const library = await libraryOf(cluster, 30_000);
      const clientHost = `client-${cluster.clientCount}`;
      const writer = new LibraryWriter(library, letters.history, "library", "letters", letters.target, 5000);
      await cluster.complete(writer.write(letters.values(1)));
      const deposed = cluster.leaderOf("letters");
      const others = [1, 2, 3].filter((id) => id !== deposed).map((id) => `broker-${id}`);
      const { network } = cluster.simulation;
      // The client reaches nobody but the old leader, which reaches nobody else.
      for (const other of [...others, "zk1"]) network.partition(`broker-${deposed}`, other);
      for (const other of others) network.partition(clientHost, other);
      void writer.write(letters.values(1));
      await cluster.until(() => ![deposed, -1].includes(cluster.leaderOf("letters")), "another broker leads");
      for (const other of [...others, "zk1"]) network.heal(`broker-${deposed}`, other);
      await cluster.until(() => writer.isIdle, "the record has an outcome");
      expect(letters.history.counts()).toMatchObject({ ok: 1, fail: 0, info: 1 });
      network.heal();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is told so, and is never sent again under another producer id", async () => {
    await withCluster({ seed: 65 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const library = await libraryOf(cluster);
      const writer = new LibraryWriter(library, letters.history, "library", "letters", letters.target, 1500);
      await cluster.complete(writer.write(letters.values(3)));
      // Requests arrive, answers do not.
      const { network } = cluster.simulation;
      const clientHost = `client-${cluster.clientCount}`;
      for (const id of [1, 2, 3]) network.partition(`broker-${id}`, clientHost, { oneWay: true });
      for (let round = 0; round < 20; round += 1) {
        void writer.write(letters.values(1));
        await cluster.run(100);
      }
      network.heal();
      for (let round = 0; round < 20; round += 1) {
        void writer.write(letters.values(1));
        await cluster.run(50);
      }
      await cluster.until(() => writer.isIdle, "everything has an outcome");
      const { ok, info } = letters.history.counts();
      expect(info).toBeGreaterThan(0);
      expect(ok).toBeGreaterThan(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
