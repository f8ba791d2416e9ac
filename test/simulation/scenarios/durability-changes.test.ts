import { ConfigResource } from "../../../protocol/messages.js";
import type { BrokerId } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";

/** Nothing is synced in the background while a scenario lasts. */
const UNSYNCED = { "min.insync.replicas": "2", "flush.ms": "600000" };
/** A disk whose syncs take longer than a scenario lasts. */
const STUCK_MS = 1_000_000;

/** A topic with two replicas, neither of which is on the controller's broker; 20 records are acknowledged. */
async function twoReplicas(
  cluster: SimCluster,
  config: Record<string, string> = {},
): Promise<{ letters: Letters; leader: BrokerId; follower: BrokerId }> {
  const assignment = [1, 2, 3].filter((id) => id !== cluster.controllerId);
  const letters = await Letters.create(cluster, { assignment, config: { ...UNSYNCED, ...config } });
  await letters.write(20);
  const leader = cluster.leaderOf("letters");
  return { letters, leader, follower: assignment.find((id) => id !== leader) ?? -1 };
}

/** Without waiting for the brokers to have heard. */
function alter(cluster: SimCluster, durability: string): Promise<unknown> {
  const config = [{ name: "durability", value: durability }];
  return cluster.complete(
    cluster.admin.administer("alterConfigs", { resource: ConfigResource.TOPIC, name: "letters", config }),
  );
}

const promised = (cluster: SimCluster): string | undefined => cluster.stateOf("letters", 0)?.durability;

function untilSynced(cluster: SimCluster): Promise<void> {
  return cluster.until(() => promised(cluster) === "fsync", "every in-sync replica has synced its records", 5000);
}

function stickSyncs(cluster: SimCluster, id: BrokerId): () => void {
  const { disk } = cluster.broker(id).host;
  const before = disk.syncDelayMeanMs;
  disk.syncDelayMeanMs = STUCK_MS;
  return () => (disk.syncDelayMeanMs = before);
}

/** The follower loses its power and the leader its process: only the leader's page cache is known to hold everything. */
async function expectPowerlessWaits(
  cluster: SimCluster,
  letters: Letters,
  { leader, follower }: { leader: BrokerId; follower: BrokerId },
): Promise<void> {
  cluster.powerCut(follower);
  cluster.crash(leader);
  cluster.start(follower);
  await cluster.run(4000);
  expect(cluster.leaderOf("letters")).toBe(-1);
  cluster.start(leader);
  await cluster.untilUp();
  await cluster.untilSettled("letters");
  await letters.write(5);
  expect(await letters.verdict()).toEqual([]);
}

describe("records acknowledged before durability became fsync", () => {
  it.each(["as soon as it was altered", "while the disk of a follower does not sync"])(
    "are not lost with the power of a follower, %s",
    async (when) => {
      await withCluster({ seed: 950, brokers: 3 }, async (cluster) => {
        const { letters, ...replicas } = await twoReplicas(cluster);
        const unstick = when.startsWith("while") ? stickSyncs(cluster, replicas.follower) : () => undefined;
        await alter(cluster, "fsync");
        if (when.startsWith("while")) await cluster.run(2000);
        if (promised(cluster) === "fsync") throw new Error("the replicas were synced too soon for this scenario");
        unstick();
        await expectPowerlessWaits(cluster, letters, replicas);
      });
    },
  );

  it("are trusted to be on the disk of who lost its power, once every in-sync replica has synced them", async () => {
    await withCluster({ seed: 951, brokers: 3 }, async (cluster) => {
      const { letters, leader, follower } = await twoReplicas(cluster);
      await alter(cluster, "fsync");
      await untilSynced(cluster);
      expect(cluster.log(follower, "letters").flushedOffset).toBe(20);
      cluster.powerCut(leader, follower);
      cluster.start(follower);
      await cluster.until(() => cluster.leaderOf("letters") === follower, "it leads at once");
      cluster.start(leader);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("are synced under the next leader when the first did not come to it", async () => {
    await withCluster({ seed: 952, brokers: 3 }, async (cluster) => {
      const { letters, leader, follower } = await twoReplicas(cluster);
      const unstick = stickSyncs(cluster, leader);
      await alter(cluster, "fsync");
      await cluster.run(500);
      cluster.crash(leader);
      await cluster.until(() => cluster.leaderOf("letters") === follower, "the follower leads");
      expect(promised(cluster)).toBe("syncing");
      unstick();
      cluster.start(leader);
      await untilSynced(cluster);
      cluster.powerCut(leader, follower);
      cluster.start(follower);
      cluster.start(leader);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("are not trusted by the next controller either before they are synced", async () => {
    await withCluster({ seed: 953, brokers: 3 }, async (cluster) => {
      const { letters, ...replicas } = await twoReplicas(cluster);
      const unstick = stickSyncs(cluster, replicas.follower);
      await alter(cluster, "fsync");
      const controller = cluster.controllerId!;
      cluster.crash(controller);
      await cluster.until(() => ![undefined, controller].includes(cluster.controllerId), "another controller");
      await cluster.run(1000);
      expect(promised(cluster)).toBe("syncing");
      cluster.start(controller);
      await cluster.untilUp();
      unstick();
      await expectPowerlessWaits(cluster, letters, replicas);
    });
  });

  it("become synced for all topics when the setting is that of all brokers", async () => {
    await withCluster({ seed: 954, brokers: 3 }, async (cluster) => {
      const { letters, follower, leader } = await twoReplicas(cluster);
      const unstick = stickSyncs(cluster, follower);
      const set = (value: string): Promise<unknown> =>
        cluster.complete(
          cluster.admin.administer("alterConfigs", {
            resource: ConfigResource.BROKER,
            name: "",
            config: [{ name: "log.durability", value }],
          }),
        );
      await set("fsync");
      await cluster.run(1000);
      expect(promised(cluster)).toBe("syncing");
      unstick();
      // The sync that was begun is still under way.
      cluster.restart(follower);
      await untilSynced(cluster);
      await set("page-cache");
      expect(promised(cluster)).toBe("page-cache");
      await letters.write(5);
      await expectPowerlessWaits(cluster, letters, { leader, follower });
    });
  });
});

describe("a topic with durability=fsync", () => {
  it("has it from its first record on", async () => {
    await withCluster({ seed: 955, brokers: 3 }, async (cluster) => {
      const { letters, leader, follower } = await twoReplicas(cluster, { durability: "fsync" });
      expect(cluster.stateOf("letters", 0)).toMatchObject({ durability: "fsync", leaderEpoch: 0 });
      cluster.powerCut(leader, follower);
      cluster.start(follower);
      await cluster.until(() => cluster.leaderOf("letters") === follower, "it leads at once");
      cluster.start(leader);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("promises no more than page-cache before the first record is acknowledged so", async () => {
    await withCluster({ seed: 956, brokers: 3 }, async (cluster) => {
      const { letters, ...replicas } = await twoReplicas(cluster, { durability: "fsync" });
      await alter(cluster, "page-cache");
      expect(promised(cluster)).toBe("page-cache");
      await letters.write(20);
      await expectPowerlessWaits(cluster, letters, replicas);
    });
  });

  it("may be altered again and again, and trusts only what was synced after the last time", async () => {
    await withCluster({ seed: 957, brokers: 3 }, async (cluster) => {
      const { letters, ...replicas } = await twoReplicas(cluster);
      for (let time = 0; time < 2; time += 1) {
        await alter(cluster, "fsync");
        await untilSynced(cluster);
        await alter(cluster, "page-cache");
        await letters.write(5);
      }
      const unstick = stickSyncs(cluster, replicas.follower);
      await alter(cluster, "fsync");
      await cluster.run(1000);
      expect(promised(cluster)).toBe("syncing");
      unstick();
      await expectPowerlessWaits(cluster, letters, replicas);
    });
  });
});
