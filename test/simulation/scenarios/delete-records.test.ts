import { sleep } from "../../../common/env/time.js";
import { errorNameOf } from "../../../protocol/error-codes.js";
import { OffsetSpec } from "../../../protocol/messages.js";
import type { BrokerId } from "../../../protocol/types.js";
import { toOffset } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import type { SimClient } from "../sim-client.js";
import { listOffset, readToEnd } from "../workload.js";

const host = (id: BrokerId | undefined): string => `broker-${id ?? 0}`;

interface Deletion {
  /** Undefined: the records are deleted. */
  readonly error: string | undefined;
  readonly logStartOffset: number;
  readonly tookMs: number;
}

/** Deletions of letters, and a look after every event: nobody who may be elected begins before what was acknowledged. */
class Deletions {
  acknowledged = 0;
  private constructor(
    private readonly cluster: SimCluster,
    private readonly letters: Letters,
    private readonly client: SimClient,
  ) {
    cluster.simulation.scheduler.afterEachEvent(() => this.#check());
  }

  static async begin(cluster: SimCluster, letters: Letters): Promise<Deletions> {
    const client = cluster.client();
    await cluster.complete(client.refresh());
    return new Deletions(cluster, letters, client);
  }

  /** Asks one broker, once. */
  async deleteBefore(
    beforeOffset: number,
    { brokerId = this.cluster.leaderOf("letters"), timeoutMs = 8000 } = {},
  ): Promise<Deletion> {
    const startedMs = this.cluster.nowMs;
    const { body } = await this.client.request(
      brokerId,
      "deleteRecords",
      { partitions: [{ ...this.letters.target, beforeOffset }], timeoutMs },
      { timeoutMs: timeoutMs + 1000 },
    );
    const [deleted] = body.partitions;
    if (deleted === undefined) throw new Error("the answer leaves out the partition");
    if (deleted.error === null) this.acknowledged = Math.max(this.acknowledged, deleted.logStartOffset);
    return {
      error: deleted.error === null ? undefined : errorNameOf(deleted.error.code),
      logStartOffset: deleted.logStartOffset,
      tookMs: this.cluster.nowMs - startedMs,
    };
  }

  /** Where the log begins, as its present leader says. */
  async logStart(): Promise<number> {
    await this.cluster.complete(this.client.refresh());
    const brokerId = this.cluster.leaderOf("letters");
    return this.cluster.complete(
      listOffset(this.client, { brokerId, leaderEpoch: undefined }, this.letters.target, OffsetSpec.EARLIEST),
    );
  }

  /** What a client without a past finds by way of each broker that is up. */
  async expectGone(before: number): Promise<void> {
    await this.cluster.untilSettled("letters");
    for (const id of this.cluster.upIds) {
      const read = await this.cluster.complete(readToEnd(this.cluster.client(id), `broker ${id}`, this.letters.target));
      expect(read.logStartOffset).toBeGreaterThanOrEqual(before);
    }
  }

  #check(): void {
    const state = this.cluster.stateOf("letters", 0);
    for (const id of [...(state?.isr ?? []), ...(state?.elr ?? [])]) {
      if (this.cluster.broker(id).state !== "up") continue;
      const start = this.cluster.partition(id, "letters")?.log.durableLogStart;
      if (start !== undefined && start < this.acknowledged)
        throw new Error(`broker ${id} may be elected and begins at ${start}; ${this.acknowledged} was acknowledged`);
    }
  }
}

async function another(cluster: SimCluster, than: BrokerId): Promise<BrokerId> {
  const isThere = (id: BrokerId): boolean => cluster.partition(id, "letters")?.role.kind === "leader";
  await cluster.until(() => {
    const id = cluster.leaderOf("letters");
    return id !== than && id !== -1 && isThere(id);
  }, "another broker leads");
  return cluster.leaderOf("letters");
}

/** The controller of four brokers has no replica. */
async function createBesideController(cluster: SimCluster, config: Record<string, string> = {}): Promise<Letters> {
  return Letters.create(cluster, { assignment: [1, 2, 3, 4].filter((id) => id !== cluster.controllerId), config });
}

describe("records that were deleted", () => {
  it("stay deleted when the leader of a quiet partition is killed right after its answer", async () => {
    await withCluster({ seed: 301 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      await cluster.run(500);
      const deletions = await Deletions.begin(cluster, letters);
      for (const before of [10, 15, 20]) {
        const leader = cluster.leaderOf("letters");
        const deletion = await cluster.complete(deletions.deleteBefore(before));
        cluster.crash(leader);
        expect(deletion).toMatchObject({ error: undefined, logStartOffset: before });
        expect(deletion.tookMs).toBeLessThan(100);
        await another(cluster, leader);
        expect(await deletions.logStart()).toBe(before);
        cluster.start(leader);
        await cluster.untilUp();
        await cluster.untilSettled("letters");
        await cluster.run(500);
      }
      await letters.write(5);
      await deletions.expectGone(20);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("leave nothing of a former leader behind that nobody else has", async () => {
    await withCluster({ seed: 304, brokers: 4 }, async (cluster) => {
      const assignment = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId).slice(0, 2);
      const [preferred = 0, former = 0] = assignment;
      const letters = await Letters.create(cluster, { assignment, config: { "min.insync.replicas": "1" } });
      await letters.write(20);
      const elect = async (id: BrokerId): Promise<void> => {
        await cluster.until(() => cluster.partition(id, "letters")?.role.kind === "leader", `broker ${id} leads`);
      };
      cluster.crash(preferred);
      await elect(former);
      cluster.start(preferred);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      await cluster.until(() => cluster.log(preferred, "letters").highWatermark === 20, "it knows that", 1000);
      const hosts = [preferred, former].map((id) => `broker-${id}`) as [string, string];
      cluster.simulation.network.partition(...hosts);
      const waiting = letters.writer.write(letters.values(2));
      await cluster.until(() => cluster.log(former, "letters").logEndOffset > 20, "it has what nobody else has", 1000);
      await cluster.complete(
        cluster.admin.administer("electLeaders", { partitions: [letters.target], unclean: false }),
      );
      await elect(preferred);
      const deletions = await Deletions.begin(cluster, letters);
      const deletion = deletions.deleteBefore(20);
      await cluster.until(() => cluster.log(preferred, "letters").logStartOffset === 20, "it has deleted all", 1000);
      cluster.simulation.network.heal();
      await cluster.complete(deletion);
      await cluster.complete(waiting);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it.each(["whole", "damaged"] as const)(
    "are followed by a %s replica that names its position anew before it has heard of it, and is in sync",
    async (disk) => {
      await withCluster({ seed: 303, brokers: 4 }, async (cluster) => {
        const letters = await createBesideController(cluster, { "min.insync.replicas": "1" });
        await letters.write(20);
        const former = cluster.leaderOf("letters");
        // The next leader begins an epoch without a record, so nothing of the epochs before it is left.
        cluster.crash(former);
        const leader = await another(cluster, former);
        cluster.start(former);
        await cluster.untilUp();
        await cluster.untilSettled("letters");
        const deletions = await Deletions.begin(cluster, letters);
        const deletion = deletions.deleteBefore(20);
        await cluster.until(() => cluster.log(leader, "letters").logStartOffset === 20, "the leader has deleted", 1000);
        expect(cluster.log(former, "letters").logStartOffset).toBe(0);
        if (disk === "damaged") {
          const { disk } = cluster.broker(former).host;
          const [path = ""] = disk.paths().filter((one) => /letters-0\/0+\.log$/.test(one));
          disk.flipBit(path, 100, 1);
          await cluster.complete(cluster.log(former, "letters").verifyRange(toOffset(0)));
          expect(cluster.log(former, "letters").damage).not.toEqual([]);
        }
        cluster.simulation.network.resetAll(cluster.broker(former).host.name);
        await cluster.complete(deletion);
        await cluster.untilSettled("letters");
        expect(cluster.lines.filter((line) => /truncates its log from 20 to (?!20,)/.test(line))).toEqual([]);
        if (disk === "whole") expect(cluster.lines.filter((line) => /starts anew/.test(line))).toEqual([]);
        for (const id of cluster.isrOf("letters")) if (id !== former) cluster.crash(id);
        await cluster.until(() => cluster.leaderOf("letters") === former, "it leads");
        await letters.write(5);
      });
    },
  );

  it("stay deleted when the leader of a busy partition is killed right after its answer", async () => {
    await withCluster({ seed: 302 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      const deletions = await Deletions.begin(cluster, letters);
      let isWriting = true;
      const write = async (): Promise<void> => {
        while (isWriting) {
          await letters.writer.write(letters.values(1));
          await sleep(letters.client.env.timers, 5);
        }
      };
      const writing = write();
      for (const before of [10, 20]) {
        await cluster.run(300);
        const leader = cluster.leaderOf("letters");
        const deletion = await cluster.complete(deletions.deleteBefore(before));
        cluster.crash(leader);
        expect(deletion).toMatchObject({ error: undefined, logStartOffset: before });
        await another(cluster, leader);
        expect(await deletions.logStart()).toBe(before);
        cluster.start(leader);
        await cluster.untilUp();
        await cluster.untilSettled("letters");
      }
      isWriting = false;
      await cluster.complete(writing);
      await deletions.expectGone(20);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("stay deleted when all brokers lose their power right after the answer", async () => {
    await withCluster({ seed: 303, brokers: 4 }, async (cluster) => {
      const letters = await Letters.create(cluster, { config: { durability: "fsync" } });
      await letters.write(20);
      await cluster.run(500);
      const deletions = await Deletions.begin(cluster, letters);
      expect(await cluster.complete(deletions.deleteBefore(10))).toMatchObject({ error: undefined });
      cluster.powerCut(1, 2, 3);
      await cluster.run(300);
      for (const id of [1, 2, 3]) cluster.start(id);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      for (const id of [1, 2, 3]) expect(cluster.log(id, "letters").logStartOffset).toBe(10);
      await deletions.expectGone(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("are not served by a follower that was down meanwhile and leads afterwards", async () => {
    await withCluster({ seed: 304, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const leader = cluster.leaderOf("letters");
      const [absent = 0, other = 0] = cluster.followersOf("letters");
      cluster.crash(absent);
      await cluster.until(() => !cluster.isrOf("letters").includes(absent), "it is out of sync");
      const deletions = await Deletions.begin(cluster, letters);
      expect(await cluster.complete(deletions.deleteBefore(10))).toMatchObject({ error: undefined });
      // Its disk is slow to keep what it is told, and until it has kept it nobody may count on it.
      cluster.broker(absent).host.disk.syncDelayMeanMs = 300;
      cluster.start(absent);
      await cluster.until(() => cluster.isrOf("letters").includes(absent), "it is in sync again");
      for (const id of [leader, other]) cluster.crash(id);
      await cluster.until(() => cluster.leaderOf("letters") === absent, "it leads");
      expect(await deletions.logStart()).toBe(10);
      cluster.restart(absent);
      await cluster.until(() => cluster.broker(absent).state === "up", "it serves again");
      for (const id of [leader, other]) cluster.start(id);
      await cluster.untilUp();
      await letters.write(5);
      await deletions.expectGone(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("stay deleted when a follower is killed between hearing of it and telling", async () => {
    await withCluster({ seed: 305, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const [slow = 0] = cluster.followersOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      cluster.broker(slow).host.disk.syncDelayMeanMs = 200;
      const deletion = deletions.deleteBefore(10);
      await cluster.until(() => cluster.log(slow, "letters").logStartOffset === 10, "it has heard of it");
      expect(deletions.acknowledged).toBe(0);
      cluster.crash(slow);
      cluster.broker(slow).host.disk.syncDelayMeanMs = 1;
      cluster.start(slow);
      expect(await cluster.complete(deletion)).toMatchObject({ error: undefined, logStartOffset: 10 });
      await cluster.untilUp();
      await deletions.expectGone(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a leader that is asked to delete records", () => {
  it("does not answer that it has when it was replaced", async () => {
    await withCluster({ seed: 306, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const replaced = cluster.leaderOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      const { network } = cluster.simulation;
      for (const id of [1, 2, 3, 4]) if (id !== replaced) network.partition(host(id), host(replaced));
      network.partition("zk1", host(replaced));
      await another(cluster, replaced);
      const timedOut = await cluster.complete(deletions.deleteBefore(10, { brokerId: replaced, timeoutMs: 2000 }));
      expect(timedOut).toMatchObject({ error: "REQUEST_TIMED_OUT", logStartOffset: 0 });
      expect(timedOut.tookMs).toBeLessThan(2500);
      const deletion = deletions.deleteBefore(10, { brokerId: replaced });
      await cluster.run(1000);
      network.heal();
      const failed = await cluster.complete(deletion);
      expect(failed).toMatchObject({ error: "NOT_LEADER_OR_FOLLOWER" });
      await cluster.untilSettled("letters");
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("waits for a member that is silent, and no longer than it is one", async () => {
    await withCluster({ seed: 307, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const deletions = await Deletions.begin(cluster, letters);
      const [silent = 0] = cluster.followersOf("letters");
      cluster.pause(silent);
      const deletion = deletions.deleteBefore(10);
      await cluster.until(() => cluster.log(cluster.leaderOf("letters"), "letters").logStartOffset === 10, "it began");
      expect(cluster.isrOf("letters")).toContain(silent);
      const done = await cluster.complete(deletion);
      expect(done).toMatchObject({ error: undefined });
      expect(cluster.isrOf("letters")).not.toContain(silent);
      cluster.resume(silent);
      await cluster.untilUp();
      await deletions.expectGone(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("does not answer while fewer replicas are in sync than min.insync.replicas, and does when they are back", async () => {
    await withCluster({ seed: 308, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const leader = cluster.leaderOf("letters");
      const followers = cluster.followersOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      for (const id of followers) cluster.crash(id);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "it is alone");
      expect(cluster.stateOf("letters", 0)?.elr).not.toEqual([]);
      const alone = await cluster.complete(deletions.deleteBefore(10, { timeoutMs: 1000 }));
      expect(alone).toMatchObject({ error: "REQUEST_TIMED_OUT" });
      const deletion = deletions.deleteBefore(10);
      for (const id of followers) cluster.start(id);
      expect(await cluster.complete(deletion)).toMatchObject({ error: undefined, logStartOffset: 10 });
      cluster.crash(leader);
      await another(cluster, leader);
      expect(await deletions.logStart()).toBe(10);
      cluster.start(leader);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("waits for the others though its own log begins there already", async () => {
    await withCluster({ seed: 309, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const first = cluster.leaderOf("letters");
      const followers = cluster.followersOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      // The disk of one is so slow that the first leader dies before it has confirmed; the other one has it.
      cluster.simulation.network.partition(host(first), host(followers[1]));
      void deletions.deleteBefore(10).catch(() => undefined);
      await cluster.until(() => cluster.log(followers[0] ?? 0, "letters").logStartOffset === 10, "one has heard of it");
      await cluster.run(100);
      expect(deletions.acknowledged).toBe(0);
      cluster.crash(first);
      cluster.simulation.network.heal();
      const next = await another(cluster, first);
      const deletion = await cluster.complete(deletions.deleteBefore(10, { brokerId: next }));
      expect(deletion).toMatchObject({ error: undefined, logStartOffset: 10 });
      for (const id of followers) expect(cluster.log(id, "letters").logStartOffset).toBe(10);
      cluster.start(first);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("and does not know yet how far records are replicated asks to try again", async () => {
    await withCluster({ seed: 310, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const first = cluster.leaderOf("letters");
      const [next = 0, other = 0] = cluster.followersOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      // It has the last record and has not heard that all have it; and the other one cannot tell it.
      const { network } = cluster.simulation;
      network.partition(host(next), host(other));
      await cluster.run(200);
      await letters.write(1);
      cluster.crash(first);
      const leader = await another(cluster, first);
      await cluster.until(() => cluster.partition(leader, "letters")?.role.kind === "leader", "it knows");
      const outcomes: (string | undefined)[] = [];
      for (const before of [21, -1, 22])
        outcomes.push((await cluster.complete(deletions.deleteBefore(before, { brokerId: leader }))).error);
      expect(outcomes).toEqual(["OFFSET_NOT_AVAILABLE", "OFFSET_NOT_AVAILABLE", "OFFSET_OUT_OF_RANGE"]);
      expect(cluster.log(leader, "letters").logStartOffset).toBe(0);
      network.heal();
      cluster.start(first);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("answers alone where it is the only replica", async () => {
    await withCluster({ seed: 311 }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [2] });
      await letters.write(20);
      const deletions = await Deletions.begin(cluster, letters);
      expect(await cluster.complete(deletions.deleteBefore(10))).toMatchObject({ error: undefined });
      cluster.powerCut(2);
      cluster.start(2);
      await cluster.untilUp();
      await deletions.expectGone(10);
      const { logStartOffset, logEndOffset } = cluster.log(2, "letters");
      expect([logStartOffset, logEndOffset]).toEqual([10, 20]);
      // And again, before anything is written.
      cluster.restart(2);
      await cluster.untilUp();
      await cluster.until(() => cluster.partition(2, "letters") !== undefined, "it knows of it");
      expect(cluster.log(2, "letters").logStartOffset).toBe(10);
    });
  });
});

describe("a follower", () => {
  it("begins where its leader does as soon as it knows that the records below are replicated", async () => {
    await withCluster({ seed: 312, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const [follower = 0] = cluster.followersOf("letters");
      const log = cluster.log(follower, "letters");
      const deletions = await Deletions.begin(cluster, letters);
      cluster.crash(follower);
      await cluster.until(() => !cluster.isrOf("letters").includes(follower), "it is out of sync");
      await letters.write(10);
      expect(await cluster.complete(deletions.deleteBefore(25))).toMatchObject({ error: undefined });
      cluster.start(follower);
      await cluster.untilUp();
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again");
      expect(log.logStartOffset).toBe(0);
      expect(cluster.log(follower, "letters").logStartOffset).toBe(toOffset(25));
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower that missed the deletion of all that it has", () => {
  it("goes on where its leader's log begins, and never ends before that", async () => {
    await withCluster({ seed: 330, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(20);
      const leader = cluster.leaderOf("letters");
      const [follower = 0] = cluster.followersOf("letters");
      const deletions = await Deletions.begin(cluster, letters);
      cluster.crash(follower);
      await cluster.until(() => !cluster.isrOf("letters").includes(follower), "it is out of sync");
      expect(await cluster.complete(deletions.deleteBefore(20))).toMatchObject({ error: undefined });
      // The next leader's epoch begins behind everything, so that the two logs have no epoch in common.
      cluster.crash(leader);
      await cluster.until(() => ![leader, -1].includes(cluster.leaderOf("letters")), "another leads");
      let shortest = Infinity;
      cluster.simulation.scheduler.afterEachEvent(() => {
        const log = cluster.broker(follower).state === "up" ? cluster.partition(follower, "letters")?.log : undefined;
        if (log !== undefined) shortest = Math.min(shortest, log.logEndOffset);
      });
      cluster.start(follower);
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again");
      expect([shortest, cluster.log(follower, "letters").logStartOffset]).toEqual([20, 20]);
      cluster.start(leader);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower whose log begins behind what its leader has kept through a power cut", () => {
  it("begins again where the two part, so that nothing of what comes then is missing in it", async () => {
    await withCluster({ seed: 331, brokers: 4 }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const letters = await Letters.create(cluster, {
        assignment: [leader, follower],
        config: { "flush.ms": "600000", "min.insync.replicas": "1" },
      });
      letters.invariants.lossAllowed = true;
      await letters.write(20);
      await cluster.until(() => cluster.log(follower, "letters").highWatermark === 20, "the follower knows of all");
      // All of it is old by its clock.
      const wallMs = cluster.nowMs + Date.UTC(2030, 0, 1);
      expect(await cluster.complete(cluster.log(follower, "letters").applyRetention(wallMs))).toBe(0);
      expect(await cluster.complete(cluster.log(follower, "letters").applyRetention(wallMs))).toBe(1);
      expect(cluster.log(follower, "letters").logStartOffset).toBe(20);
      cluster.crash(follower);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the leader is alone");
      cluster.powerCut(leader);
      await cluster.run(100);
      cluster.start(leader);
      await cluster.until(
        () => cluster.leaderOf("letters") === leader && cluster.upIds.includes(leader),
        "it leads again",
      );
      await cluster.until(() => cluster.partition(leader, "letters")?.role.kind === "leader", "it knows");
      const kept = cluster.log(leader, "letters").logEndOffset;
      expect(kept).toBeLessThan(20);
      await letters.send(5);
      await cluster.until(() => letters.writer.isIdle, "they are written");
      cluster.start(follower);
      await cluster.until(() => cluster.isrOf("letters").length === 2, "the follower is in sync");
      const { logStartOffset, logEndOffset } = cluster.log(follower, "letters");
      expect([logStartOffset, logEndOffset]).toEqual([kept, cluster.log(leader, "letters").logEndOffset]);
      // And so it is after a restart, and what is durably deleted is said truly.
      expect(cluster.log(follower, "letters").durableLogStart).toBeLessThanOrEqual(kept);
      cluster.restart(follower);
      await cluster.until(() => cluster.partition(follower, "letters") !== undefined, "it is back");
      expect(cluster.log(follower, "letters").logStartOffset).toBe(kept);
    });
  });
});
