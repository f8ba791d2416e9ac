import { connect } from "../../../client/index.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import type { Attempt } from "../workload.js";
import { encodeBatch, IdempotentWriter, LibraryWriter, produceOnce } from "../workload.js";

const EXPIRATION_MS = 1000;
const settings = { "producer.id.expiration.ms": String(EXPIRATION_MS), "replica.lag.time.max.ms": "2000" };

async function libraryWriter(cluster: SimCluster, { history, topic, target }: Letters): Promise<LibraryWriter> {
  const bootstrapBrokers = [...cluster.brokers.values()].map(({ address }) => address);
  const library = connect({ env: cluster.client().env, bootstrapBrokers, requestTimeoutMs: 2000 });
  return new LibraryWriter(await cluster.complete(library), history, "library", topic, target, 20_000);
}

/** The broker forgets who was silent so long, when somebody else writes. */
async function forget(cluster: SimCluster, letters: Letters): Promise<void> {
  await cluster.run(EXPIRATION_MS + 500);
  await letters.write(1);
}

/** One replica is in sync, which is too few; the other two are back at once when they are let. */
async function leaveOneInSync(cluster: SimCluster): Promise<() => void> {
  const followers = cluster.followersOf("letters");
  for (const id of followers) cluster.pause(id);
  await cluster.until(() => cluster.isrOf("letters").length === 1, "one is in sync", 10_000);
  return () => {
    for (const id of followers) cluster.resume(id);
  };
}

describe("a producer that the leader has forgotten", () => {
  it("may not go on where its batch before was refused, and is not told that this one is there", async () => {
    await withCluster({ seed: 101, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const { client, target } = letters;
      const send = async (sequence: number): Promise<Attempt> => {
        await cluster.complete(client.refresh());
        const to = { brokerId: cluster.leaderOf("letters"), leaderEpoch: undefined };
        const identity = { producerId: 999, producerEpoch: 0, baseSequence: sequence };
        return cluster.complete(produceOnce(client, to, target, "all", encodeBatch(letters.values(1), 0, identity)));
      };
      expect(await send(0)).toMatchObject({ kind: "ok" });
      await forget(cluster, letters);
      const comeBack = await leaveOneInSync(cluster);
      expect(await send(1)).toMatchObject({ kind: "refused", error: "NOT_ENOUGH_REPLICAS" });
      comeBack();
      await cluster.until(() => cluster.isrOf("letters").length === 3, "all are in sync");
      expect(await send(2)).toMatchObject({ error: "UNKNOWN_PRODUCER_ID" });
      expect(await send(1)).toMatchObject({ error: "UNKNOWN_PRODUCER_ID" });
    });
  });

  it("keeps every record and their order when the first of several batches is refused and the others are not", async () => {
    for (const seed of [102, 103, 104, 105]) {
      await withCluster({ seed, settings }, async (cluster) => {
        const letters = await Letters.create(cluster);
        const writer = await libraryWriter(cluster, letters);
        for (let round = 0; round < 3; round += 1) await cluster.complete(writer.write(letters.values(1)));
        await forget(cluster, letters);
        const comeBack = await leaveOneInSync(cluster);
        comeBack();
        await cluster.until(() => cluster.isrOf("letters").length === 2, "enough are about to be in sync");
        for (let round = 0; round < 300; round += 1) {
          void writer.write(letters.values(1));
          await cluster.run(0.12);
        }
        await cluster.until(() => writer.isIdle, "everything has an outcome");
        expect(letters.history.counts()).toMatchObject({ ok: 304, fail: 0, info: 0 });
        expect(await letters.verdict()).toEqual([]);
      });
    }
  });

  it("goes on under another id, with all that is under way, when it was idle for long", async () => {
    await withCluster({ seed: 106, settings }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const writer = await libraryWriter(cluster, letters);
      for (let round = 0; round < 3; round += 1) {
        for (let count = 0; count < 20; count += 1) {
          void writer.write(letters.values(1));
          await cluster.run(0.12);
        }
        await cluster.until(() => writer.isIdle, "everything has an outcome");
        await forget(cluster, letters);
      }
      expect(letters.history.counts()).toMatchObject({ ok: 63, fail: 0, info: 0 });
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is told that it is not known whether a record is there whose answer was lost, and it is there once", async () => {
    await withCluster({ seed: 107, settings: { "producers.per.partition.max": "10" } }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const writer = await libraryWriter(cluster, letters);
      const clientHost = `client-${cluster.clientCount}`;
      await cluster.complete(writer.write(letters.values(1)));
      const leader = cluster.leaderOf("letters");
      cluster.simulation.network.partition(`broker-${leader}`, clientHost, { oneWay: true });
      void writer.write(letters.values(1));
      await cluster.until(() => cluster.log(leader, "letters").logEndOffset === 2, "it is appended");
      // As many others write meanwhile as are remembered.
      for (let count = 0; count < 10; count += 1) {
        const other = new IdempotentWriter(cluster.client(), letters.history, `other ${count}`, letters.target);
        await cluster.complete(other.write(letters.values(1)));
        await cluster.until(() => other.isIdle, "it has written");
      }
      // The request has run out of its time.
      await cluster.run(2500);
      cluster.simulation.network.heal();
      void writer.write(letters.values(1));
      await cluster.until(() => writer.isIdle, "everything has an outcome");
      expect(letters.history.counts()).toMatchObject({ ok: 12, fail: 0, info: 1 });
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("goes on under another id at a new leader whose log begins behind its records", async () => {
    await withCluster({ seed: 108 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      const { client, target } = letters;
      const writer = await libraryWriter(cluster, letters);
      const burst = async (): Promise<void> => {
        for (let count = 0; count < 20; count += 1) {
          void writer.write(letters.values(1));
          await cluster.run(0.12);
        }
        await cluster.until(() => writer.isIdle, "everything has an outcome");
      };
      await burst();
      const leader = cluster.leaderOf("letters");
      const [successor = 0] = cluster.followersOf("letters");
      const everything = { partitions: [{ ...target, beforeOffset: -1 }] };
      await cluster.complete(client.refresh());
      await cluster.complete(client.request(leader, "deleteRecords", everything));
      cluster.crash(successor);
      cluster.broker(successor).host.disk.replace();
      cluster.start(successor);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      expect(cluster.log(successor, "letters")).toMatchObject({ logStartOffset: 20, logEndOffset: 20 });
      cluster.crash(leader);
      await cluster.until(() => cluster.leaderOf("letters") === successor, "it leads");
      await burst();
      cluster.start(leader);
      expect(letters.history.counts()).toMatchObject({ ok: 40, fail: 0, info: 0 });
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
