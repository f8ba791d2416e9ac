import { connect } from "../../../client/index.js";
import { errorCodes } from "../../../protocol/error-codes.js";
import { readBatches } from "../../../protocol/record-batch.js";
import type { BrokerId } from "../../../protocol/types.js";
import { toOffset } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { encodeBatch, LibraryReader, produceOnce } from "../workload.js";

function fill(cluster: SimCluster, ...ids: readonly BrokerId[]): void {
  for (const id of ids) cluster.broker(id).host.disk.setCapacity(0);
}

function makeRoom(cluster: SimCluster, ...ids: readonly BrokerId[]): void {
  for (const id of ids) cluster.broker(id).host.disk.setCapacity(1024 ** 3);
}

/** Each letter is a batch. */
function flipBitOfBatch(cluster: SimCluster, id: BrokerId, offset: number): void {
  const { disk } = cluster.broker(id).host;
  const path = disk.paths().find((name) => /letters.*\.log$/.test(name));
  if (path === undefined) throw new Error(`broker ${id} has no segment`);
  const batch = readBatches(Buffer.from(disk.contentOf(path) ?? []))[offset];
  if (batch === undefined) throw new Error(`there is no batch ${offset}`);
  disk.flipBit(path, batch.end - 1);
}

/** Damages a record, and has the broker find it. */
async function rot(cluster: SimCluster, id: BrokerId, offset = 0): Promise<void> {
  flipBitOfBatch(cluster, id, offset);
  const log = cluster.log(id, "letters");
  expect(await cluster.complete(log.verifyRange(log.logStartOffset))).toMatchObject([{ from: offset }]);
}

/** Fails the test in the moment in which a replica that counts lacks what is committed. */
function watchSeats(cluster: SimCluster): void {
  let committed = 0;
  cluster.simulation.scheduler.afterEachEvent(() => {
    const leader = cluster.partition(cluster.leaderOf("letters"), "letters");
    if (leader?.role.kind === "leader") committed = Math.max(committed, leader.highWatermark);
    const state = cluster.stateOf("letters", 0);
    for (const id of [...(state?.isr ?? []), ...(state?.elr ?? [])]) {
      const log = cluster.broker(id).state === "up" ? cluster.partition(id, "letters")?.log : undefined;
      if (log !== undefined && log.logEndOffset < committed)
        throw new Error(`broker ${id} counts, and its log ends at ${log.logEndOffset}, before ${committed}`);
    }
  });
}

describe("a leader whose disk is full", () => {
  it("hands its leadership over, and is in sync again when there is space", async () => {
    await withCluster({ seed: 51 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      fill(cluster, leader);
      await letters.write(10, 2000);
      expect(cluster.leaderOf("letters")).not.toBe(leader);
      expect(cluster.isrOf("letters")).not.toContain(leader);
      makeRoom(cluster, leader);
      expect(await letters.verdict()).toEqual([]);
      expect(cluster.isrOf("letters")).toContain(leader);
    });
  });

  it("stays when the other one lost its power without a word", async () => {
    await withCluster({ seed: 62, brokers: 4 }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      await letters.write(20);
      cluster.powerCut(follower);
      fill(cluster, leader);
      const waiting = letters.writer.write(letters.values(1));
      await cluster.until(() => cluster.lines.some((line) => /its disk is full/.test(line)), "it wants to resign");
      await cluster.run(500);
      expect(cluster.leaderOf("letters")).toBe(leader);
      makeRoom(cluster, leader);
      cluster.start(follower);
      await cluster.complete(waiting);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("stays when nobody else is in sync, is read from, refuses writes and takes them again", async () => {
    await withCluster({ seed: 52 }, async (cluster) => {
      const letters = await Letters.create(cluster, { config: { "min.insync.replicas": "1" } });
      await letters.write(10);
      fill(cluster, 1, 2, 3);
      await letters.send(1);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "leadership was handed from one to the next");
      await cluster.run(3000);
      expect(cluster.isrOf("letters")).toHaveLength(1);
      const leader = cluster.leaderOf("letters");
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const batch = encodeBatch(["a letter"], cluster.nowMs);
      const to = { brokerId: leader, leaderEpoch: undefined };
      const attempt = produceOnce(client, to, letters.target, "all", batch);
      expect(await cluster.complete(attempt)).toMatchObject({ error: "STORAGE_ERROR" });
      makeRoom(cluster, 1, 2, 3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
      expect(cluster.isrOf("letters")).toHaveLength(3);
    });
  });
});

describe("a follower whose disk is full", () => {
  it("is not waited for, and is in sync again when there is space", async () => {
    await withCluster({ seed: 58, settings: { "replica.lag.time.max.ms": "20000" } }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const [follower = 0] = cluster.followersOf("letters");
      fill(cluster, follower);
      await letters.write(10, 2000);
      expect(cluster.isrOf("letters")).not.toContain(follower);
      // It tells its leader now and then, and does not ask without end.
      const { eventCount } = cluster.simulation.scheduler;
      for (let step = 0; step < 30; step += 1) {
        await letters.write(1);
        await cluster.run(100);
      }
      expect(cluster.simulation.scheduler.eventCount - eventCount).toBeLessThan(3000);
      makeRoom(cluster, follower);
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again", 5000);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a replica with damaged records", () => {
  it("hands its leadership over and fetches them again", async () => {
    await withCluster({ seed: 53 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      watchSeats(cluster);
      await rot(cluster, leader);
      await letters.write(10, 2000);
      expect(cluster.leaderOf("letters")).not.toBe(leader);
      await cluster.until(() => cluster.isrOf("letters").includes(leader), "it is in sync again");
      expect(cluster.log(leader, "letters").damage).toEqual([]);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is found by a follower that fetches everything, and hands its leadership over", async () => {
    await withCluster({ seed: 43, settings: { "log.tail.bytes": "0" } }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      flipBitOfBatch(cluster, leader, 3);
      cluster.crash(follower);
      cluster.broker(follower).host.disk.replace();
      await cluster.run(500);
      cluster.start(follower);
      await cluster.until(() => cluster.logged("a reader got a damaged batch"), "the leader hears of it", 5000);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("holds up no other partition while its disk is read again for a follower", async () => {
    await withCluster({ seed: 44 }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      const place = { assignment: [{ brokerIds: [leader, follower] }], config: { "min.insync.replicas": "2" } };
      const target = { topicId: await cluster.createTopic({ name: "parcels", ...place }), partition: 0 };
      cluster.crash(follower);
      await letters.write(30);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the follower is out");
      // From now on only its disk has them.
      cluster.restart(leader);
      await cluster.until(() => cluster.upIds.includes(leader) && cluster.leaderOf("letters") === leader, "it leads");
      flipBitOfBatch(cluster, leader, 25);
      cluster.start(follower);
      const client = cluster.client();
      const send = async (): Promise<number> => {
        await cluster.complete(client.refresh());
        const sentMs = cluster.nowMs;
        const to = { brokerId: leader, leaderEpoch: undefined };
        const batch = encodeBatch(["a parcel"], sentMs);
        const { kind } = await cluster.complete(produceOnce(client, to, target, "all", batch));
        return kind === "ok" ? cluster.nowMs - sentMs : Number.POSITIVE_INFINITY;
      };
      await cluster.until(() => cluster.logged("were taken as far as they are good"), "the damage is met", 5000);
      cluster.broker(leader).host.disk.readDelayMeanMs = 5000;
      await cluster.until(() => cluster.isrOf("parcels").length === 2, "the follower is in sync elsewhere");
      const delaysMs: number[] = [];
      for (let count = 0; count < 200; count += 1) {
        delaysMs.push(await send());
        await cluster.run(40);
      }
      expect(Math.max(...delaysMs)).toBeLessThan(1000);
    });
  });

  it("leaves the in-sync replicas as a follower before it cuts its log, and returns", async () => {
    await withCluster({ seed: 54 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      watchSeats(cluster);
      await rot(cluster, follower);
      await cluster.until(() => !cluster.isrOf("letters").includes(follower), "it left", 2000);
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again");
      expect(cluster.leaderOf("letters")).toBe(leader);
      expect(cluster.log(follower, "letters").damage).toEqual([]);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is found by a consumer, which reads on from another replica", async () => {
    await withCluster({ seed: 59 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      // Nothing is in memory after a start, and after a clean stop nothing is read.
      for (const id of [1, 2, 3]) await cluster.complete(cluster.stop(id));
      for (const id of [1, 2, 3]) cluster.start(id);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      const leader = cluster.leaderOf("letters");
      flipBitOfBatch(cluster, leader, 0);
      const library = await cluster.complete(
        connect({ env: cluster.client().env, bootstrapBrokers: [cluster.broker(leader).address] }),
      );
      const consumer = new LibraryReader(library, letters.history, "consumer", "letters", letters.target);
      consumer.start();
      await cluster.until(() => letters.history.counts().delivered >= 10, "it has read everything", 5000);
      consumer.stop();
      expect(consumer.failure).toBeUndefined();
      expect(cluster.leaderOf("letters")).not.toBe(leader);
      expect(await letters.verdict()).toEqual([]);
      expect(cluster.log(leader, "letters").damage).toEqual([]);
    });
  });

  it("is not told to cut its log while the leader lacks records as well", async () => {
    await withCluster({ seed: 60 }, async (cluster) => {
      const letters = await Letters.create(cluster, {
        assignment: [1, 2],
        config: { "min.insync.replicas": "1" },
      });
      await letters.write(10);
      const first = cluster.leaderOf("letters");
      const [second = 0] = cluster.followersOf("letters");
      cluster.simulation.network.partition(`broker-${first}`, `broker-${second}`);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "one of them leads alone");
      const leader = cluster.leaderOf("letters");
      const follower = leader === first ? second : first;
      await rot(cluster, follower);
      await rot(cluster, leader, 5);
      cluster.simulation.network.heal();
      await cluster.run(5000);
      expect(cluster.isrOf("letters")).toEqual([leader]);
      expect(cluster.log(follower, "letters").logEndOffset).toBe(10);
      expect(cluster.log(follower, "letters").damage).toMatchObject([{ from: 0, to: 1 }]);
    });
  });

  it("leads on without those that nobody reaches, though it would rather not", async () => {
    const settings = { "replica.lag.time.max.ms": "5000" };
    await withCluster({ seed: 61, brokers: 4, settings }, async (cluster) => {
      const { controllerId = 1 } = cluster;
      const assignment = [1, 2, 3, 4].filter((id) => id !== controllerId).slice(0, 2);
      const letters = await Letters.create(cluster, { assignment, config: { "min.insync.replicas": "1" } });
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      for (const id of [1, 2, 3, 4])
        if (id !== follower) cluster.simulation.network.partition(`broker-${id}`, `broker-${follower}`);
      // A new controller does not reach the follower, whose session lives; and nobody has judged its silence yet.
      cluster.crash(controllerId);
      await cluster.until(() => (cluster.controllerId ?? controllerId) !== controllerId, "there is another controller");
      await cluster.run(2000);
      expect(cluster.isrOf("letters")).toHaveLength(2);
      await rot(cluster, leader);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "it leads alone", 4000);
      expect(cluster.isrOf("letters")).toEqual([leader]);
      await letters.write(5, 5000);
    });
  });

  it("whose damage lies before the log start has nothing to repair", async () => {
    await withCluster({ seed: 62 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const [follower = 0] = cluster.followersOf("letters");
      await rot(cluster, follower, 3);
      await cluster.complete(cluster.log(cluster.leaderOf("letters"), "letters").advanceLogStart(toOffset(6)));
      await letters.write(5);
      await cluster.until(() => cluster.isrOf("letters").length === 3, "all are in sync");
      for (const id of [1, 2, 3]) {
        const log = cluster.log(id, "letters");
        await cluster.until(() => log.logStartOffset === 6, "it follows the log start");
        // The follower may have been told to cut its log where the damage begins before it knew of the log start.
        if (id !== follower) flipBitOfBatch(cluster, id, 1);
        expect(await cluster.complete(log.verifyRange(toOffset(6)))).toEqual([]);
        expect(log.damage).toEqual([]);
      }
      const { leaderEpoch } = cluster.stateOf("letters", 0)!;
      await cluster.run(3000);
      expect(cluster.stateOf("letters", 0)?.leaderEpoch).toBe(leaderEpoch);
      expect(cluster.log(follower, "letters").logEndOffset).toBe(15);
    });
  });

  it("is not eligible when the in-sync replicas become too few by its leaving", async () => {
    await withCluster({ seed: 55 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [other = 0, follower = 0] = cluster.followersOf("letters");
      cluster.crash(other);
      await cluster.until(() => cluster.isrOf("letters").length === 2, "one is gone");
      watchSeats(cluster);
      await rot(cluster, follower);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "it left", 2000);
      expect(cluster.isrOf("letters")).toEqual([leader]);
      expect(cluster.stateOf("letters", 0)?.elr).not.toContain(follower);
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again");
      cluster.start(other);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("leads on when it is the only one, and serves all but the damage", async () => {
    await withCluster({ seed: 56 }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1] });
      await letters.write(10);
      await rot(cluster, 1);
      await letters.write(10);
      const { log } = cluster.partition(1, "letters")!;
      expect(log.damage).toMatchObject([{ from: 0, to: 1 }]);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const fetch = async (fetchOffset: number) => {
        const partitions = [{ ...letters.target, fetchOffset, maxBytes: 1000 }];
        const { body } = await cluster.complete(client.request(1, "fetch", { maxBytes: 1000, partitions }));
        return body.partitions[0];
      };
      expect((await fetch(0))?.error?.code).toBe(errorCodes.CORRUPT_LOG.code);
      expect(await fetch(1)).toMatchObject({ error: null, highWatermark: 20 });
    });
  });

  it("remembers them over a stop that came before it could fetch them again", async () => {
    await withCluster({ seed: 58 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      // More than what is read of a log after any stop.
      await letters.write(100);
      const [follower = 0] = cluster.followersOf("letters");
      cluster.simulation.network.partition(`broker-${cluster.leaderOf("letters")}`, `broker-${follower}`);
      await rot(cluster, follower);
      await cluster.complete(cluster.stop(follower));
      cluster.simulation.network.heal();
      watchSeats(cluster);
      cluster.start(follower);
      await cluster.untilUp();
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again");
      expect(await cluster.complete(cluster.log(follower, "letters").verifyRange(toOffset(0)))).toEqual([]);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is not elected when all come back after a crash and it is the first, also where records are synced", async () => {
    for (const durability of ["page-cache", "fsync"]) {
      await withCluster({ seed: 57 }, async (cluster) => {
        const letters = await Letters.create(cluster, { config: { durability } });
        await letters.write(10);
        // The recovery points are on the disks.
        await cluster.run(6000);
        for (const id of [1, 2, 3]) cluster.crash(id);
        flipBitOfBatch(cluster, 1, 0);
        cluster.start(1);
        await cluster.untilUp([1]);
        expect(cluster.log(1, "letters").damage).toMatchObject([{ from: 0, to: 1 }]);
        await cluster.run(3000);
        expect(cluster.leaderOf("letters")).toBe(-1);
        for (const id of [2, 3]) cluster.start(id);
        await letters.write(5);
        await cluster.until(() => cluster.isrOf("letters").includes(1), "it is in sync again");
        expect(await letters.verdict()).toEqual([]);
      });
    }
  });
});
