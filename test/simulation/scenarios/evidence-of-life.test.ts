import type { BrokerId } from "../../../protocol/types.js";
import { ConfigResource } from "../../../protocol/messages.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { encodeBatch, produceOnce } from "../workload.js";

const host = (id: BrokerId | undefined): string => `broker-${id ?? 0}`;

describe("a leader whose process dies", () => {
  it("is replaced within 300 ms though the next in turn is silent and other brokers go as well", async () => {
    await withCluster({ seed: 5, brokers: 7 }, async (cluster) => {
      const [leader = 0, silent = 0, follower = 0, one = 0, other = 0, stopping = 0] = [1, 2, 3, 4, 5, 6, 7].filter(
        (id) => id !== cluster.controllerId,
      );
      const letters = await Letters.create(cluster, { assignment: [leader, silent, follower] });
      await letters.write(5);
      cluster.powerCut(silent);
      await cluster.run(10);
      cluster.crash(leader);
      const crashedMs = cluster.nowMs;
      for (const id of [one, other]) {
        await cluster.run(90);
        cluster.crash(id);
      }
      await cluster.run(90);
      const stopped = cluster.stop(stopping);
      await cluster.until(() => cluster.leaderOf("letters") === follower, "the follower leads", 2000);
      expect(cluster.nowMs - crashedMs).toBeLessThan(300);
      await cluster.complete(stopped);
    });
  });
});

describe("an unclean election that an operator asks for", () => {
  it("does not prefer one that lost its power to one that lost nothing and is about to answer", async () => {
    await withCluster({ seed: 11, brokers: 4 }, async (cluster) => {
      const controller = cluster.controllerId;
      const assignment = [1, 2, 3, 4].filter((id) => id !== controller);
      const [last = 0, eligible = 0, behind = 0] = assignment;
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(20);
      for (const id of [behind, eligible]) {
        cluster.crash(id);
        await cluster.until(() => !cluster.isrOf("letters").includes(id), `${id} is out`);
      }
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [last], elr: [eligible] });
      cluster.powerCut(last);
      await cluster.run(500);
      cluster.start(last);
      await cluster.until(() => cluster.stateOf("letters", 0)?.unverified.includes(last) ?? false, "it is uncertain");
      cluster.simulation.network.setLink(host(controller), host(eligible), { delayMeanMs: 30 });
      const operator = cluster.client(controller);
      await cluster.complete(operator.refresh());
      const lines = cluster.lines.length;
      cluster.start(eligible);
      const isRegistered = (line: string): boolean => line.includes(`Broker ${eligible} is registered`);
      await cluster.until(() => cluster.lines.slice(lines).some(isRegistered), "the controller knows that it is there");
      await cluster.complete(
        operator.request(controller ?? 0, "electLeaders", { partitions: [letters.target], unclean: true }),
      );
      await cluster.until(() => cluster.leaderOf("letters") >= 0, "somebody leads");
      expect(cluster.leaderOf("letters")).toBe(eligible);
    });
  });
});

/** ZooKeeper stands still for so long, and in that time the broker, which has answered the controller, loses its power. */
async function losePowerBesideSlowZooKeeper(cluster: SimCluster, id: BrokerId, slowMs: number): Promise<void> {
  cluster.zookeeper.freeze("zk1");
  await cluster.run(20);
  cluster.powerCut(id);
  await cluster.run(slowMs);
  cluster.zookeeper.thaw("zk1");
  await cluster.run(500);
  cluster.start(id);
  await cluster.run(3000);
}

describe("a follower that loses its power while the controller waits for ZooKeeper", () => {
  it("does not get the seat of the leader, whose death it has outlived by then, for an answer of long ago", async () => {
    await withCluster({ seed: 31 }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      await letters.write(20);
      cluster.crash(leader);
      await cluster.until(() => cluster.logged(`Broker ${leader} is dead`), "the leader is found dead");
      await losePowerBesideSlowZooKeeper(cluster, follower, 500);
      cluster.start(leader);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("does not get the seat of the leader, whose session has expired, for an answer of long ago", async () => {
    await withCluster({ seed: 32 }, async (cluster) => {
      const [leader = 0, follower = 0] = [1, 2, 3].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1", "flush.ms": "60000" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      await letters.write(20);
      cluster.simulation.network.isolate(host(leader));
      await cluster.until(() => cluster.logged(`Brokers gone: ${leader}`), "the session of the leader has expired");
      await losePowerBesideSlowZooKeeper(cluster, follower, 250);
      cluster.simulation.network.heal();
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower that loses its power while a new controller waits for ZooKeeper to read everything", () => {
  it("does not get the seat of the leader, whose death it has outlived by then, for an answer of long ago", async () => {
    await withCluster({ seed: 33 }, async (cluster) => {
      const leader = cluster.controllerId ?? 0;
      const follower = [1, 2, 3].find((id) => id !== leader) ?? 0;
      const config = { "min.insync.replicas": "1", "flush.ms": "60000" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      await letters.write(20);
      cluster.crash(leader);
      const lines = cluster.lines.length;
      const isListed = (line: string): boolean => line.includes(`Broker ${follower} is registered`);
      await cluster.until(() => cluster.lines.slice(lines).some(isListed), "a new controller begins to read");
      await losePowerBesideSlowZooKeeper(cluster, follower, 500);
      cluster.start(leader);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a leader whose disk is full", () => {
  it("hands over to a follower that is some 100 ms away from the controller", async () => {
    await withCluster({ seed: 51, brokers: 4 }, async (cluster) => {
      const controller = cluster.controllerId;
      const assignment = [1, 2, 3, 4].filter((id) => id !== controller);
      const [leader = 0, ...followers] = assignment;
      const letters = await Letters.create(cluster, { assignment });
      await letters.write(10);
      for (const id of followers) {
        cluster.simulation.network.setLink(host(controller), host(id), { delayMeanMs: 400 });
        cluster.simulation.network.setLink(host(id), host(controller), { delayMeanMs: 400 });
      }
      cluster.broker(leader).host.disk.setCapacity(0);
      await letters.write(1, 20_000);
      expect(cluster.leaderOf("letters")).not.toBe(leader);
    });
  });
});

describe("two leaders whose disks fill up one after the other", () => {
  it("both hand over to the follower that is there, also while the controller waits for ZooKeeper", async () => {
    await withCluster({ seed: 51, brokers: 4 }, async (cluster) => {
      const [first = 0, second = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1" };
      const targets = new Map<BrokerId, { topicId: string; partition: number }>();
      for (const id of [first, second]) {
        const assignment = [{ brokerIds: [id, follower] }];
        targets.set(id, { topicId: await cluster.createTopic({ name: `of-${id}`, assignment, config }), partition: 0 });
      }
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const fill = async (id: BrokerId): Promise<void> => {
        cluster.broker(id).host.disk.setCapacity(0);
        const batch = encodeBatch(["a letter"], cluster.nowMs);
        void produceOnce(client, { brokerId: id, leaderEpoch: undefined }, targets.get(id)!, "leader", batch);
        await cluster.until(() => cluster.logged(`of-${id}-0: proposes in-sync replicas`), `${id} wants to resign`);
      };
      const controller = host(cluster.controllerId);
      cluster.simulation.network.setLink(controller, host(follower), { delayMeanMs: 20 });
      await fill(first);
      await cluster.run(1);
      // What the controller writes takes a while.
      cluster.zookeeper.freeze("zk1");
      void cluster.admin.administer("alterConfigs", {
        resource: ConfigResource.TOPIC,
        name: `of-${first}`,
        config: [{ name: "retention.ms", value: "86400000" }],
      });
      await cluster.run(50);
      await fill(second);
      await cluster.run(5);
      cluster.zookeeper.thaw("zk1");
      await cluster.run(3000);
      expect(cluster.leaderOf(`of-${second}`)).toBe(follower);
      expect(cluster.leaderOf(`of-${first}`)).toBe(follower);
    });
  });
});

describe("a leader that wanted to hand over and could not, and can write again", () => {
  it("does not hand over later to a follower that has lost its power meanwhile, for an answer of long ago", async () => {
    await withCluster({ seed: 71, brokers: 4 }, async (cluster) => {
      const controller = host(cluster.controllerId);
      const [leader = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const config = { "min.insync.replicas": "1" };
      const letters = await Letters.create(cluster, { assignment: [leader, follower], config });
      await letters.write(5);
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const fillDisk = (): void => {
        cluster.broker(leader).host.disk.setCapacity(0);
        const batch = encodeBatch(["a letter"], cluster.nowMs);
        void produceOnce(client, { brokerId: leader, leaderEpoch: undefined }, letters.target, "leader", batch);
      };
      const setDistance = (delayMeanMs: number): void => {
        cluster.simulation.network.setLink(controller, host(follower), { delayMeanMs });
        cluster.simulation.network.setLink(host(follower), controller, { delayMeanMs });
      };
      // Farther away than the controller waits for an answer.
      setDistance(5000);
      fillDisk();
      await cluster.until(() => cluster.logged("the controller refused the proposed in-sync replicas"), "it goes on");
      cluster.broker(leader).host.disk.setCapacity(1024 ** 3);
      await cluster.run(12_000);
      setDistance(1);
      await cluster.run(12_000);
      expect(cluster.stateOf("letters", 0)).toMatchObject({ leader, isr: [leader, follower] });
      await letters.write(20);
      cluster.powerCut(follower);
      fillDisk();
      await cluster.run(1000);
      cluster.broker(leader).host.disk.setCapacity(1024 ** 3);
      await cluster.run(3000);
      cluster.start(follower);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
