import { paths } from "../../../broker/zookeeper/znodes.js";
import type { BrokerId } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";

const leader = (cluster: SimCluster): BrokerId => cluster.leaderOf("letters");
const host = (id: BrokerId | undefined): string => `broker-${id ?? 0}`;
/** Changes when the broker registers anew. */
const registration = (cluster: SimCluster, id: BrokerId): bigint | undefined =>
  cluster.zookeeper.node(paths.broker(id))?.czxid;

/** Replicas 1 to 3 in such an order that the controller is the preferred leader, or not. */
async function lettersLedBy(cluster: SimCluster, who: "the controller" | "another broker"): Promise<Letters> {
  const { controllerId = 1 } = cluster;
  const others = [1, 2, 3].filter((id) => id !== controllerId);
  return Letters.create(cluster, {
    assignment: who === "the controller" ? [controllerId, ...others] : [...others, controllerId],
  });
}

describe("a leader that dies", () => {
  it.each(["the controller", "another broker"] as const)(
    "by kill -9 is replaced within 300 ms when it is %s",
    async (who) => {
      await withCluster({ seed: 21 }, async (cluster) => {
        const letters = await lettersLedBy(cluster, who);
        await letters.write(10);
        const dead = leader(cluster);
        const diedMs = cluster.nowMs;
        cluster.crash(dead);
        await cluster.until(() => ![dead, -1].includes(leader(cluster)), "another broker leads");
        expect(cluster.nowMs - diedMs).toBeLessThan(300);
        await letters.write(10, 2000);
        cluster.start(dead);
        expect(await letters.verdict()).toEqual([]);
      });
    },
  );

  it("silently, with its machine, is replaced when its session is over and not before", async () => {
    await withCluster({ seed: 22 }, async (cluster) => {
      const letters = await lettersLedBy(cluster, "another broker");
      await letters.write(10);
      const dead = leader(cluster);
      const diedMs = cluster.nowMs;
      cluster.powerCut(dead);
      await cluster.until(() => ![dead, -1].includes(leader(cluster)), "another broker leads");
      // A session lasts two seconds here, counted from the last sign of life, in ticks of 200 ms.
      expect(cluster.nowMs - diedMs).toBeGreaterThan(1000);
      expect(cluster.nowMs - diedMs).toBeLessThan(2800);
      cluster.start(dead);
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a broker that is dead", () => {
  it("is registered no longer than its session lasts, though a start has tried to end that and heard nothing", async () => {
    await withCluster({ seed: 23, settings: { "fast.fencing.enable": "false" } }, async (cluster) => {
      const dead = [1, 2, 3].find((id) => id !== cluster.controllerId) ?? 1;
      cluster.crash(dead);
      cluster.simulation.network.partition("zk1", host(dead), { oneWay: true });
      cluster.start(dead);
      await cluster.run(500);
      cluster.crash(dead);
      expect(registration(cluster, dead)).toBeDefined();
      const diedMs = cluster.nowMs;
      await cluster.until(() => registration(cluster, dead) === undefined, "it is registered no longer");
      expect(cluster.nowMs - diedMs).toBeLessThan(2800);
    });
  });
});

describe("a leader that lives", () => {
  it("keeps its place when all its connections are reset", async () => {
    await withCluster({ seed: 23 }, async (cluster) => {
      const letters = await lettersLedBy(cluster, "another broker");
      await letters.write(10);
      const before = cluster.stateOf("letters", 0);
      cluster.simulation.network.resetAll(host(leader(cluster)));
      await cluster.run(1000);
      expect(cluster.stateOf("letters", 0)).toMatchObject({ leader: before?.leader, leaderEpoch: before?.leaderEpoch });
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("and was taken for dead drops its roles at once, registers anew, and leads nobody astray", async () => {
    await withCluster({ seed: 24 }, async (cluster) => {
      const letters = await lettersLedBy(cluster, "another broker");
      await letters.write(10);
      const fenced = leader(cluster);
      const before = registration(cluster, fenced);
      const { network } = cluster.simulation;
      network.resetAll(host(fenced));
      network.partition(host(cluster.controllerId), host(fenced));
      await cluster.until(() => ![fenced, -1].includes(leader(cluster)), "another broker leads", 1500);
      const fencedMs = cluster.nowMs;
      await cluster.until(() => cluster.partition(fenced, "letters")?.role.kind !== "leader", "its role is gone", 100);
      expect(cluster.nowMs - fencedMs).toBeLessThan(50);
      network.heal();
      await letters.write(10);
      await cluster.untilUp();
      expect(registration(cluster, fenced)).not.toBe(before);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a controller", () => {
  it("whose own network fails for a moment fences a minority at most", async () => {
    await withCluster({ seed: 25, brokers: 5 }, async (cluster) => {
      const letters = await Letters.create(cluster);
      await letters.write(10);
      const before = new Map(cluster.upIds.map((id) => [id, registration(cluster, id)]));
      const { network } = cluster.simulation;
      const flapping = cluster.controllerId ?? 0;
      network.resetAll(host(flapping));
      // ZooKeeper is reached another way.
      for (const id of cluster.upIds) if (id !== flapping) network.partition(host(flapping), host(id));
      await cluster.run(500);
      network.heal();
      const gone = [...before].filter(([id, czxid]) => registration(cluster, id) !== czxid);
      expect(gone.length).toBeLessThanOrEqual(2);
      await cluster.untilUp();
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("that hangs while a broker is bounced notices that it is another process now", async () => {
    await withCluster({ seed: 26 }, async (cluster) => {
      const letters = await lettersLedBy(cluster, "another broker");
      await letters.write(10);
      const bounced = leader(cluster);
      const before = cluster.stateOf("letters", 0)?.leaderEpoch ?? 0;
      const controller = cluster.controllerId ?? 0;
      cluster.pause(controller);
      cluster.restart(bounced);
      await cluster.run(800);
      cluster.resume(controller);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      expect(cluster.stateOf("letters", 0)?.leaderEpoch).toBeGreaterThan(before);
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("brokers killed one right after the other", () => {
  it("leave a partition that two of them can bring back without the third", async () => {
    await withCluster({ seed: 27, brokers: 5 }, async (cluster) => {
      // The controller lives on, and sees each of them go.
      const assignment = [1, 2, 3, 4, 5].filter((id) => id !== cluster.controllerId).slice(0, 3);
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(20);
      for (const id of assignment) {
        cluster.crash(id);
        await cluster.run(5);
      }
      await cluster.run(4000);
      const { isr = [], elr = [] } = cluster.stateOf("letters", 0) ?? {};
      expect([...isr, ...elr].length).toBeGreaterThanOrEqual(2);
      // The disk of one is lost: whichever it is, the others are enough.
      const lost = isr[0] ?? 0;
      for (const id of assignment) if (id !== lost) cluster.start(id);
      await cluster.until(() => ![lost, -1].includes(leader(cluster)), "a survivor leads");
      await letters.write(5);
      cluster.start(lost);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a broker that comes back within its old session", () => {
  it("after a power cut has no seat among the in-sync replicas until it has caught up", async () => {
    await withCluster({ seed: 28 }, async (cluster) => {
      const letters = await lettersLedBy(cluster, "another broker");
      await letters.write(20);
      const controller = cluster.controllerId ?? 0;
      const follower = cluster.followersOf("letters").find((id) => id !== controller) ?? 0;
      const endBefore = cluster.log(follower, "letters").logEndOffset;
      const before = registration(cluster, follower);
      // The controller sees one registration, and then the other: never that there is none.
      cluster.pause(controller);
      cluster.powerCut(follower);
      cluster.start(follower);
      await cluster.until(
        () => ![before, undefined].includes(registration(cluster, follower)),
        "it is registered anew",
        1500,
      );
      expect(cluster.isrOf("letters")).toContain(follower);
      // What it lost it does not get again so soon.
      cluster.simulation.network.partition(host(leader(cluster)), host(follower));
      cluster.resume(controller);
      cluster.simulation.scheduler.afterEachEvent(() => {
        const partition = cluster.partition(follower, "letters");
        if (partition === undefined || cluster.stateOf("letters", 0)?.isr.includes(follower) !== true) return;
        if (cluster.broker(follower).state !== "up" || partition.log.logEndOffset >= endBefore) return;
        throw new Error(`it is in sync with log end ${partition.log.logEndOffset} instead of ${endBefore}`);
      });
      await cluster.untilUp();
      expect(cluster.log(follower, "letters").logEndOffset).toBeLessThan(endBefore);
      cluster.simulation.network.heal();
      await letters.write(20);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
