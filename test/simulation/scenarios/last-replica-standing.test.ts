import { decodeBroker, paths } from "../../../broker/zookeeper/znodes.js";
import { ConfigResource } from "../../../protocol/messages.js";
import type { BrokerId } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { encodeBatch, produceOnce } from "../workload.js";

/**
 * Two replicas leave, and records are written before each does: `behind` is then outside of the in-sync replicas, and
 * `eligible`, which makes them fewer than two, stays eligible.
 */
async function leaveOneInSync(
  cluster: SimCluster,
  letters: Letters,
  { behind, eligible }: { behind: BrokerId; eligible: BrokerId },
): Promise<void> {
  await letters.write(20);
  cluster.crash(behind);
  await cluster.until(() => cluster.isrOf("letters").length === 2, "two are in sync");
  await letters.write(20);
  cluster.crash(eligible);
  await cluster.until(() => cluster.isrOf("letters").length === 1, "one is in sync");
}

/** A broker that is down comes back, and the partition has no leader `forMs` later. */
async function expectNoLeaderOnReturn(cluster: SimCluster, id: BrokerId, forMs = 3000): Promise<void> {
  await cluster.run(500);
  cluster.start(id);
  await cluster.run(forMs);
  expect(cluster.leaderOf("letters")).toBe(-1);
}

/** A replica that has everything comes back and leads, then the others come back, and nothing is lost. */
async function expectNothingLost(
  cluster: SimCluster,
  letters: Letters,
  { leader, others }: { leader: BrokerId; others: readonly BrokerId[] },
): Promise<void> {
  cluster.start(leader);
  await cluster.until(() => cluster.leaderOf("letters") === leader, `broker ${leader} leads`);
  for (const id of others) cluster.start(id);
  await letters.write(5);
  expect(await letters.verdict()).toEqual([]);
}

describe("the last in-sync replica", () => {
  it("loses its power, and an eligible one that only crashed leads when it is back, so that nothing is lost", async () => {
    await withCluster({ seed: 11 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await leaveOneInSync(cluster, letters, { behind: 3, eligible: 2 });
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [2] });
      cluster.powerCut(1);
      await expectNoLeaderOnReturn(cluster, 1);
      await expectNothingLost(cluster, letters, { leader: 2, others: [3] });
    });
  });

  it.each(["before", "after"] as const)(
    "loses its power, and the eligible one leads though fewer in sync are enough since %s that was noticed",
    async (when) => {
      await withCluster({ seed: 19, brokers: 4 }, async (cluster) => {
        const [one = 0, two = 0, three = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
        const letters = await Letters.create(cluster, { assignment: [one, two, three] });
        await leaveOneInSync(cluster, letters, { behind: three, eligible: two });
        expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [one], elr: [two] });
        cluster.powerCut(one);
        if (when === "after") await cluster.until(() => cluster.leaderOf("letters") === -1, "nobody leads");
        const config = [{ name: "min.insync.replicas", value: "1" }];
        const request = { resource: ConfigResource.TOPIC, name: "letters", config };
        await cluster.complete(cluster.admin.administer("alterConfigs", request));
        await expectNoLeaderOnReturn(cluster, one);
        await expectNothingLost(cluster, letters, { leader: two, others: [three] });
      });
    },
  );

  it("loses its power, and is not elected as long as the eligible one is registered, though nobody reaches it", async () => {
    await withCluster({ seed: 20, brokers: 4 }, async (cluster) => {
      const controller = cluster.controllerId ?? 0;
      const [one = 0, two = 0, three = 0] = [1, 2, 3, 4].filter((id) => id !== controller);
      const letters = await Letters.create(cluster, { assignment: [one, two, three] });
      await leaveOneInSync(cluster, letters, { behind: three, eligible: two });
      cluster.powerCut(one);
      await expectNoLeaderOnReturn(cluster, one);
      cluster.simulation.network.partition(`broker-${controller}`, `broker-${two}`);
      // Longer than the controller waits for replicas that lost their power.
      await expectNoLeaderOnReturn(cluster, two, 10_000);
      cluster.simulation.network.heal();
      await cluster.until(() => cluster.leaderOf("letters") === two, "it leads");
      cluster.start(three);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is gone with the eligible one, and whoever is elected instead acknowledges with the smaller minimum that was set meanwhile", async () => {
    await withCluster({ seed: 23, brokers: 4 }, async (cluster) => {
      const [one = 0, two = 0, three = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const letters = await Letters.create(cluster, { assignment: [one, two, three] });
      await leaveOneInSync(cluster, letters, { behind: three, eligible: two });
      cluster.powerCut(one);
      await cluster.until(() => cluster.leaderOf("letters") === -1, "nobody leads");
      const config = [{ name: "min.insync.replicas", value: "1" }];
      const request = { resource: ConfigResource.TOPIC, name: "letters", config };
      await cluster.complete(cluster.admin.administer("alterConfigs", request));
      cluster.start(three);
      await cluster.run(3000);
      letters.invariants.lossAllowed = true;
      const election = { partitions: [letters.target], unclean: true };
      await cluster.complete(cluster.admin.administer("electLeaders", election));
      await cluster.until(() => cluster.leaderOf("letters") === three, "the third one leads");
      await cluster.run(100);
      const leader = { brokerId: three, leaderEpoch: undefined };
      const batch = encodeBatch(["a letter"], cluster.nowMs);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const attempt = produceOnce(client, leader, letters.target, "all", batch);
      expect(await cluster.complete(attempt)).toEqual({ kind: "ok", baseOffset: 20, brokerId: three });
    });
  });

  it("crashes and comes back alone, and leads with all it had, because its page cache survived", async () => {
    await withCluster({ seed: 12 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      for (const id of [3, 2, 1]) {
        cluster.crash(id);
        await cluster.run(3000);
      }
      cluster.start(1);
      // Nobody is waited for, and it is not asked what it holds.
      await cluster.until(() => cluster.partition(1, "letters")?.role.kind === "leader", "it leads", 1000);
      for (const id of [2, 3]) cluster.start(id);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is waited for from the moment on in which the first one is there to be asked", async () => {
    await withCluster({ seed: 18, brokers: 4 }, async (cluster) => {
      const assignment = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const [first = 0, second = 0] = assignment;
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(20);
      cluster.powerCut(...assignment);
      await cluster.run(500);
      cluster.start(first);
      // Nearly as long as the controller waits for all of them, and then its power fails again.
      await cluster.run(4500);
      cluster.powerCut(first);
      await cluster.run(3000);
      cluster.start(second);
      await cluster.run(3000);
      expect(cluster.leaderOf("letters")).toBe(-1);
    });
  });

  it("is elected by what it holds when all lost their power, once all have said what that is", async () => {
    await withCluster({ seed: 13 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      letters.invariants.lossAllowed = true;
      await letters.write(20);
      // Everything is on every disk, so that a correct election loses nothing.
      await cluster.run(3000);
      cluster.powerCut(1, 2, 3);
      await cluster.run(500);
      cluster.start(1);
      cluster.start(2);
      await cluster.run(2500);
      expect(cluster.leaderOf("letters")).toBe(-1);
      cluster.start(3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("lost its power, and does not lead after the controller that knew it is gone", async () => {
    await withCluster({ seed: 14 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await leaveOneInSync(cluster, letters, { behind: 3, eligible: 2 });
      cluster.powerCut(1);
      await expectNoLeaderOnReturn(cluster, 1);
      // The controller runs on it, and its successor is told of a mere crash.
      cluster.restart(1);
      await cluster.run(3000);
      expect(cluster.leaderOf("letters")).toBe(-1);
      await expectNothingLost(cluster, letters, { leader: 2, others: [3] });
    });
  });

  it("lost its power, and does not lead after its topic could not be read when it came back", async () => {
    await withCluster({ seed: 16 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await leaveOneInSync(cluster, letters, { behind: 3, eligible: 2 });
      const path = paths.partitionState("letters", 0);
      const before = cluster.zookeeper.node(path)?.data ?? new Uint8Array(0);
      cluster.powerCut(1);
      await cluster.writeNode(path, "{");
      await cluster.run(500);
      cluster.start(1);
      await cluster.until(() => cluster.broker(1).state === "up", "it serves what can be read");
      // By now it could be taken for a replica that merely crashed.
      cluster.restart(1);
      await cluster.until(() => cluster.broker(1).state === "up", "it serves again");
      await cluster.writeNode(path, before);
      await cluster.until(() => cluster.stateOf("letters", 0)?.unverified.includes(1) ?? false, "it is uncertain");
      await cluster.run(3000);
      expect(cluster.leaderOf("letters")).toBe(-1);
      await expectNothingLost(cluster, letters, { leader: 2, others: [3] });
      // Once it was judged in all topics it says nothing of it any more.
      await cluster.run(2000);
      cluster.restart(1);
      await cluster.untilUp();
      const node = cluster.zookeeper.node(paths.broker(1));
      expect(node && decodeBroker(paths.broker(1), node.data).lastStop).toBe("crash");
    });
  });

  it("lives on when its session expires, and does not lose its power once more by that", async () => {
    await withCluster({ seed: 15 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      const lastStop = (): string | undefined => {
        const node = cluster.zookeeper.node(paths.broker(1));
        return node && decodeBroker(paths.broker(1), node.data).lastStop;
      };
      cluster.powerCut(1);
      await cluster.run(500);
      cluster.start(1);
      await cluster.untilUp();
      expect(lastStop()).toBe("power-cut");
      await cluster.untilSettled("letters");
      cluster.pause(1);
      await cluster.until(() => lastStop() === undefined, "its session has expired");
      cluster.resume(1);
      await cluster.until(() => lastStop() !== undefined, "it is registered again");
      expect(lastStop()).toBe("crash");
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

/** Two replicas on brokers that do not control, and which of them loses its power and which its process. */
async function createOnTwo(
  cluster: SimCluster,
  powerless: "leader" | "follower",
): Promise<{ letters: Letters; powerless: BrokerId; crashed: BrokerId }> {
  const [leader = 0, follower = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
  const letters = await Letters.create(cluster, {
    assignment: [leader, follower],
    config: { "min.insync.replicas": "1" },
  });
  await letters.write(20);
  return powerless === "leader"
    ? { letters, powerless: leader, crashed: follower }
    : { letters, powerless: follower, crashed: leader };
}

describe.each(["leader", "follower"] as const)("a %s that lost its power without a word", (role) => {
  it("does not get the seat of the other replica, whose process dies before that is noticed", async () => {
    await withCluster({ seed: 31 }, async (cluster) => {
      const { letters, powerless, crashed } = await createOnTwo(cluster, role);
      cluster.powerCut(powerless);
      await cluster.run(100);
      cluster.crash(crashed);
      await cluster.until(() => cluster.zookeeper.node(paths.broker(crashed)) === undefined, "its death is proved");
      await cluster.run(300);
      expect(cluster.isrOf("letters")).toEqual([powerless, crashed].sort());
      await expectNoLeaderOnReturn(cluster, powerless);
      await expectNothingLost(cluster, letters, { leader: crashed, others: [] });
    });
  });

  it("does not get the seat of the other replica, which is another process when the controller looks", async () => {
    await withCluster({ seed: 32 }, async (cluster) => {
      const { letters, powerless, crashed } = await createOnTwo(cluster, role);
      const controller = cluster.controllerId ?? 0;
      const registered = (): bigint | undefined => cluster.zookeeper.node(paths.broker(crashed))?.czxid;
      const before = registered();
      cluster.powerCut(powerless);
      cluster.pause(controller);
      cluster.restart(crashed);
      await cluster.until(() => ![undefined, before].includes(registered()), "it is registered again", 1000);
      cluster.resume(controller);
      await cluster.run(100);
      expect(cluster.isrOf("letters")).toEqual([powerless, crashed].sort());
      // What it holds is all there is when the other one comes back first.
      cluster.crash(crashed);
      await expectNoLeaderOnReturn(cluster, powerless);
      cluster.start(crashed);
      await cluster.until(() => cluster.leaderOf("letters") === crashed, "it leads");
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe.each(["page-cache", "fsync"])("a lost disk, with durability=%s,", (durability) => {
  const create = (cluster: SimCluster): Promise<Letters> => Letters.create(cluster, { config: { durability } });

  it("does not lead with an empty log when its broker is the first to come back", async () => {
    await withCluster({ seed: 21 }, async (cluster) => {
      const letters = await create(cluster);
      await letters.write(20);
      expect(cluster.isrOf("letters")).toEqual([1, 2, 3]);
      for (const id of [1, 2, 3]) cluster.crash(id);
      cluster.broker(1).host.disk.replace();
      await expectNoLeaderOnReturn(cluster, 1);
      // A further start, after which its registration says nothing of the disk.
      cluster.restart(1);
      // Longer than the controller waits for replicas that lost their power.
      await cluster.run(10_000);
      expect(cluster.leaderOf("letters")).toBe(-1);
      await expectNothingLost(cluster, letters, { leader: 2, others: [3] });
    });
  });

  it("does not lead before the eligible replica is back", async () => {
    await withCluster({ seed: 22 }, async (cluster) => {
      const letters = await create(cluster);
      await leaveOneInSync(cluster, letters, { behind: 1, eligible: 2 });
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [3], elr: [2] });
      cluster.crash(3);
      cluster.broker(3).host.disk.replace();
      await expectNoLeaderOnReturn(cluster, 3, 10_000);
      await expectNothingLost(cluster, letters, { leader: 2, others: [1] });
    });
  });

  it("keeps its seats nowhere when only the directory of one partition is gone", async () => {
    await withCluster({ seed: 23 }, async (cluster) => {
      const letters = await create(cluster);
      await letters.write(20);
      // The recovery points are on the disks.
      await cluster.run(6000);
      for (const id of [1, 2, 3]) cluster.crash(id);
      const { disk } = cluster.broker(1).host;
      disk.removeTree("/data/logs/letters-0");
      disk.generation += 1;
      await expectNoLeaderOnReturn(cluster, 1);
      cluster.start(2);
      cluster.start(3);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("the lost disk of the only in-sync replica", () => {
  it("does not cost the records that a replica outside the ISR still has", async () => {
    await withCluster({ seed: 26 }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      letters.invariants.lossAllowed = true;
      await letters.write(20);
      cluster.crash(2);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "one is in sync");
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [] });
      await letters.write(5);
      cluster.crash(1);
      cluster.broker(1).host.disk.replace();
      await cluster.run(500);
      cluster.start(1);
      await cluster.run(3000);
      cluster.start(2);
      await cluster.until(() => cluster.leaderOf("letters") === 2, "the replica with records leads");
      await cluster.untilSettled("letters");
      expect(cluster.log(1, "letters").logEndOffset).toBeGreaterThanOrEqual(20);
    });
  });
});

describe("a broker with a new disk", () => {
  it("keeps what it syncs, also when its first start there was killed at any moment", async () => {
    await withCluster({ seed: 27 }, async (cluster) => {
      const slot = cluster.broker(3);
      for (let moment = 0; moment < 12; moment += 1) {
        cluster.crash(3);
        slot.host.disk.replace();
        cluster.start(3);
        await cluster.run(moment / 4);
        cluster.crash(3);
        cluster.start(3);
        await cluster.untilUp();
        expect([moment, slot.host.disk.durableContentOf("/data/meta.properties")]).not.toEqual([moment, undefined]);
      }
    });
  });
});

describe("a broker that lost nothing", () => {
  it("is new: it starts a cluster, or joins one, and nobody is alarmed", async () => {
    await withCluster({ seed: 24, startBrokers: false }, async (cluster) => {
      for (const id of [1, 2]) cluster.start(id);
      await cluster.untilUp([1, 2]);
      await Letters.create(cluster, { assignment: [1, 2] });
      cluster.start(3);
      await cluster.untilUp();
      expect(cluster.lines.filter((line) => / (warn|error): |\blost\b/.test(line))).toEqual([]);
    });
  });

  it("says so after a topic was deleted a moment before it crashed", async () => {
    await withCluster({ seed: 25 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(20);
      await cluster.run(6000);
      const { disk } = cluster.broker(1).host;
      const deletion = cluster.admin.administer("deleteTopics", { names: ["letters"] });
      // The checkpoints still name the log.
      const isRenamed = (): boolean => disk.paths().some((path) => /letters-0~deleted/.test(path));
      await cluster.until(isRenamed, "its directory is renamed", 1000);
      cluster.restart(1);
      await cluster.complete(deletion);
      await cluster.untilUp();
      const node = cluster.zookeeper.node(paths.broker(1));
      expect(node && decodeBroker(paths.broker(1), node.data).lastStop).toBe("crash");
    });
  });
});
