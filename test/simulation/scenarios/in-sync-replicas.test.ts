import { ConfigResource, OffsetSpec } from "../../../protocol/messages.js";
import { ApiError } from "../../../protocol/error-codes.js";
import { TransportError } from "../../../protocol/rpc-error.js";
import type { BrokerId } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import { withCluster } from "../cluster.js";
import { Letters } from "../letters.js";
import { encodeBatch, listOffset, produceOnce } from "../workload.js";
import type { Target } from "../workload.js";

const host = (id: BrokerId | undefined): string => `broker-${id ?? 0}`;

/** Replicas 1 to 3 with a leader that is not the controller. */
async function create(cluster: SimCluster, config: Record<string, string> = {}): Promise<Letters> {
  const { controllerId = 1 } = cluster;
  const others = [1, 2, 3].filter((id) => id !== controllerId);
  return Letters.create(cluster, { assignment: [...others, controllerId], config });
}

/** The controller of four brokers has no replica. */
async function createBesideController(cluster: SimCluster): Promise<Letters> {
  return Letters.create(cluster, { assignment: [1, 2, 3, 4].filter((id) => id !== cluster.controllerId) });
}

describe("a follower that is to cut its log", () => {
  it("does not once it leads, though the cut was waiting for its turn", async () => {
    await withCluster({ seed: 71, brokers: 4, settings: { "replica.lag.time.max.ms": "8000" } }, async (cluster) => {
      const [preferred = 0, follower = 0, third = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const letters = await Letters.create(cluster, { assignment: [preferred, follower, third] });
      await letters.write(10);
      await cluster.complete(cluster.stop(preferred));
      await cluster.until(() => cluster.leaderOf("letters") === follower, "the follower leads");
      cluster.start(preferred);
      await cluster.until(() => cluster.isrOf("letters").length === 3, "all are in sync");
      // It leads with records that nobody else has, and then does not lead any more.
      for (const id of [preferred, third]) cluster.simulation.network.partition(host(follower), host(id));
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const to = { brokerId: follower, leaderEpoch: undefined };
      for (const value of ["only", "here"])
        await cluster.complete(produceOnce(client, to, letters.target, "leader", encodeBatch([value], cluster.nowMs)));
      await cluster.complete(
        cluster.admin.administer("electLeaders", { partitions: [letters.target], unclean: false }),
      );
      expect(cluster.leaderOf("letters")).toBe(preferred);
      expect(cluster.isrOf("letters")).toContain(follower);
      // The cut waits behind a sync.
      const log = cluster.log(follower, "letters");
      cluster.broker(follower).host.disk.syncDelayMeanMs = 3000;
      void log.flush().catch(() => undefined);
      cluster.simulation.network.heal();
      await cluster.until(() => cluster.logged("truncates its log"), "it is to cut its log");
      expect(log.logEndOffset).toBe(12);
      cluster.crash(preferred);
      await cluster.until(() => cluster.leaderOf("letters") === follower, "it leads again");
      await cluster.until(() => cluster.log(third, "letters").logEndOffset === 12, "the third has its records");
      cluster.broker(follower).host.disk.syncDelayMeanMs = 1;
      await cluster.run(8000);
      expect(log.logEndOffset).toBeGreaterThanOrEqual(12);
      cluster.start(preferred);
      await letters.write(3);
      expect(cluster.log(third, "letters").logEndOffset).toBe(15);
    });
  });
});

describe("a follower that was not heard for a while", () => {
  it("is in sync again when it fetches again, also of a partition that nobody writes to", async () => {
    const settings = { "replica.lag.time.max.ms": "800", "replica.fetch.wait.max.ms": "100" };
    await withCluster({ seed: 61, brokers: 4, settings }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(5);
      const [follower = 0] = cluster.followersOf("letters");
      const { network } = cluster.simulation;
      network.partition(host(follower), host(cluster.leaderOf("letters")), { oneWay: true });
      await cluster.until(() => !cluster.isrOf("letters").includes(follower), "it is out of sync");
      // Its connections and its fetch session outlive that: it names nothing anew.
      network.heal();
      await cluster.until(() => cluster.isrOf("letters").includes(follower), "it is in sync again", 3_000);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a leader", () => {
  it("goes on when the answer to its proposal is lost and the controller dies", async () => {
    await withCluster({ seed: 31, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const controller = cluster.controllerId ?? 0;
      const leader = cluster.leaderOf("letters");
      const [lagging = 0] = cluster.followersOf("letters");
      cluster.pause(lagging);
      // The proposal arrives, the answer and the order do not.
      await cluster.until(() => cluster.logged("did not catch up"), "the leader proposes to go on without it");
      cluster.simulation.network.partition(host(controller), host(leader), { oneWay: true });
      await cluster.until(() => !cluster.isrOf("letters").includes(lagging), "it is out of sync");
      cluster.crash(controller);
      cluster.simulation.network.heal();
      await letters.write(10);
      cluster.resume(lagging);
      cluster.start(controller);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("does not get a follower into the in-sync replicas that was bounced since it had caught up", async () => {
    await withCluster({ seed: 32, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [joiner = 0] = cluster.followersOf("letters");
      cluster.crash(joiner);
      await cluster.until(() => !cluster.isrOf("letters").includes(joiner), "it is out of sync");
      await letters.write(10);
      // What the leader says reaches the controller half a second later.
      cluster.simulation.network.setLink(host(leader), host(cluster.controllerId), { delayMeanMs: 500 });
      const proposals = (): number =>
        cluster.lines.filter((line) => line.includes(`because ${joiner} has caught up`)).length;
      const before = proposals();
      cluster.start(joiner);
      await cluster.until(() => proposals() > before, "the leader proposes it");
      cluster.crash(joiner);
      // What it loses it does not get again before the proposal is there.
      cluster.broker(joiner).host.disk.removeTree("/data/logs/letters-0");
      cluster.simulation.network.partition(host(leader), host(joiner));
      cluster.start(joiner);
      cluster.simulation.scheduler.afterEachEvent(() => {
        if (!cluster.isrOf("letters").includes(joiner)) return;
        const log = cluster.broker(joiner).state === "up" ? cluster.partition(joiner, "letters")?.log : undefined;
        if (log === undefined || log.logEndOffset < 20) throw new Error("it is in sync without what is committed");
      });
      await cluster.untilUp();
      await cluster.until(() => cluster.logged(/controller refused the proposed.*any more/), "the proposal is refused");
      cluster.simulation.network.heal();
      cluster.simulation.network.setLink(host(leader), host(cluster.controllerId), { delayMeanMs: 0.2 });
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("whose proposal was sent twice and refused goes on without it", async () => {
    await withCluster({ seed: 44, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const controller = host(cluster.controllerId);
      const [joiner = 0] = cluster.followersOf("letters");
      const { network } = cluster.simulation;
      cluster.crash(joiner);
      await cluster.until(() => !cluster.isrOf("letters").includes(joiner), "it is out of sync");
      // The proposal does not get through, and is sent again.
      cluster.start(joiner);
      await cluster.until(() => cluster.partition(joiner, "letters")?.role.kind === "follower", "it follows again");
      network.partition(host(leader), controller, { oneWay: true });
      await cluster.until(() => cluster.logged(`because ${joiner} has caught up`), "the leader proposes it");
      await cluster.until(() => cluster.logged("were not answered and are sent again"), "the answer is missed", 10_000);
      // Meanwhile the joiner is another process, which the leader does not hear of.
      network.partition(host(leader), host(joiner));
      cluster.restart(joiner);
      await cluster.until(() => cluster.broker(joiner).state === "up", "it serves again");
      network.heal(host(leader), controller);
      await letters.write(10);
      expect(cluster.isrOf("letters")).not.toContain(joiner);
      network.heal();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("takes no follower in that lacks what was committed before its own epoch, though its high watermark lags", async () => {
    await withCluster({ seed: 33, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const leader = cluster.leaderOf("letters");
      const [successor = 0, lagging = 0] = cluster.followersOf("letters");
      cluster.simulation.network.partition(host(leader), host(lagging));
      cluster.simulation.network.partition(host(successor), host(lagging));
      await cluster.until(() => cluster.isrOf("letters").length === 2, "it is out of sync", 10_000);
      // They are committed, and the successor has not heard of it.
      void letters.writer.write(letters.values(10));
      await cluster.until(() => cluster.log(leader, "letters").highWatermark === 20, "they are committed");
      cluster.crash(leader);
      expect(cluster.log(successor, "letters")).toMatchObject({ logEndOffset: 20, highWatermark: 10 });
      let epochStart = Number.POSITIVE_INFINITY;
      cluster.simulation.scheduler.afterEachEvent(() => {
        const role = cluster.partition(successor, "letters")?.role;
        if (role?.kind === "leader") ({ epochStart } = role);
        const log = cluster.partition(lagging, "letters")?.log;
        if (epochStart < Number.POSITIVE_INFINITY && cluster.isrOf("letters").includes(lagging))
          expect(log?.logEndOffset).toBeGreaterThanOrEqual(epochStart);
      });
      // It asks at once, and what it lacks takes its time.
      cluster.simulation.network.setLink(host(successor), host(lagging), { delayMeanMs: 200 });
      cluster.simulation.network.heal();
      await cluster.until(() => cluster.isrOf("letters").includes(lagging), "it is in sync again");
      expect(epochStart).toBe(20);
      cluster.start(leader);
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("that hung for almost a session accuses nobody of its own silence", async () => {
    await withCluster({ seed: 34 }, async (cluster) => {
      const letters = await create(cluster);
      await letters.write(10);
      const before = cluster.stateOf("letters", 0);
      cluster.pause(cluster.leaderOf("letters"));
      await cluster.run(1800);
      cluster.resume(cluster.leaderOf("letters"));
      await cluster.run(2000);
      expect(cluster.stateOf("letters", 0)).toEqual(before);
      expect(cluster.logged("proposes in-sync replicas")).toBe(false);
      await letters.write(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("that was deposed tells producers that it does not know, though the offset is passed later", async () => {
    await withCluster({ seed: 35 }, async (cluster) => {
      const letters = await create(cluster);
      await letters.write(10);
      const { client, target, history } = letters;
      const deposed = cluster.leaderOf("letters");
      const { leaderEpoch } = cluster.stateOf("letters", 0) ?? {};
      const { network } = cluster.simulation;
      for (const id of [1, 2, 3]) if (id !== deposed) network.partition(host(deposed), host(id));
      network.partition(host(deposed), "zk1");
      const values = letters.values(1);
      const operation = history.invoke({
        producer: "waiter",
        partition: `${target.topicId}:0`,
        values,
        acks: "all",
        idempotent: true,
      });
      let attempt: Awaited<ReturnType<typeof produceOnce>> | undefined;
      void produceOnce(client, { brokerId: deposed, leaderEpoch }, target, "all", encodeBatch(values, 0), 30_000).then(
        (ended) => (attempt = ended),
      );
      await cluster.until(() => ![deposed, -1].includes(cluster.leaderOf("letters")), "another broker leads");
      await letters.write(10);
      expect(cluster.log(deposed, "letters").logEndOffset).toBeGreaterThan(10);
      network.heal();
      await cluster.untilSettled("letters");
      await cluster.until(() => attempt !== undefined, "the waiting producer is told", 100);
      expect(attempt).toMatchObject({ kind: "unknown", error: "NOT_LEADER_OR_FOLLOWER" });
      history.info(operation, "deposed");
      const violations = await letters.verdict();
      expect(violations).toEqual([]);
      expect(history.finalReads[0]?.records.map(({ value }) => value)).not.toContain(values[0]);
    });
  });

  it("that is new never tells a latest offset below one that was told before", async () => {
    await withCluster({ seed: 36, brokers: 4 }, async (cluster) => {
      const letters = await createBesideController(cluster);
      const { client, target } = letters;
      await letters.write(30);
      let highest = 0;
      let told = 0;
      let refused = 0;
      let stopped = false;
      const ask = async (): Promise<void> => {
        while (!stopped) {
          const known = await client.leader(target.topicId, 0);
          try {
            const offset = await listOffset(client, known, target, OffsetSpec.LATEST);
            if (offset < highest) throw new Error(`the latest offset went from ${highest} back to ${offset}`);
            highest = offset;
            told += 1;
          } catch (error) {
            if (!(error instanceof ApiError || error instanceof TransportError)) throw error;
            if (error instanceof ApiError && error.errorName === "OFFSET_NOT_AVAILABLE") refused += 1;
            await client.refresh();
          }
        }
      };
      const { network } = cluster.simulation;
      let failure: unknown;
      ask().catch((error: unknown) => (failure = error));
      for (let round = 0; round < 3; round += 1) {
        await letters.write(5);
        const dead = cluster.leaderOf("letters");
        const [one = 0, two = 0] = cluster.followersOf("letters");
        // Followers have the newest records, and do not hear that all of them have.
        const log = cluster.log(dead, "letters");
        void letters.writer.write(letters.values(5));
        await cluster.until(
          () => log.highWatermark === log.logEndOffset && log.highWatermark % 10 === 0,
          "it is there",
        );
        for (const id of [one, two]) network.partition(host(dead), host(id), { oneWay: true });
        network.partition(host(one), host(two));
        await cluster.until(() => highest === log.highWatermark || failure !== undefined, "it is told");
        const before = refused;
        cluster.crash(dead);
        await cluster.until(() => refused > before || failure !== undefined, "the new leader is asked");
        network.heal();
        await cluster.until(() => letters.writer.isIdle, "everything is written");
        cluster.start(dead);
        await cluster.untilUp();
        await cluster.untilSettled("letters");
      }
      stopped = true;
      expect(failure).toBeUndefined();
      expect(told).toBeGreaterThan(10);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

/** The settings of broker 3 are the ones that topics inherit. */
async function underController3(
  options: Parameters<typeof withCluster>[0],
  body: Parameters<typeof withCluster>[1],
): Promise<void> {
  await withCluster(options, async (cluster) => {
    while (cluster.controllerId !== 3) {
      const { controllerId = 0 } = cluster;
      cluster.crash(controllerId);
      await cluster.until(() => ![controllerId, undefined].includes(cluster.controllerId), "another controller");
      cluster.start(controllerId);
      await cluster.untilUp();
    }
    await body(cluster);
  });
}

describe("min.insync.replicas", () => {
  const differing = {
    settings: { "min.insync.replicas": "1" },
    settingsOf: { 3: { "min.insync.replicas": "2" } },
  };

  it("is the controller's for the leader too, so that who is eligible has what was acknowledged", async () => {
    await underController3({ seed: 61, ...differing }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      await letters.write(10);
      const { network } = cluster.simulation;
      network.partition(host(1), host(2));
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the follower is out of sync", 10_000);
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [2] });
      await letters.send(5);
      await cluster.run(1000);
      cluster.crash(1);
      network.heal();
      await cluster.until(() => cluster.leaderOf("letters") === 2, "the eligible replica leads");
      cluster.start(1);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("may be smaller at the next controller, and nobody stays eligible whom the leader then leaves behind", async () => {
    await underController3({ seed: 62, ...differing }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      await letters.write(10);
      cluster.crash(2);
      await letters.send(5);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the follower is out of sync", 10_000);
      await cluster.run(1000);
      expect(cluster.log(1, "letters")).toMatchObject({ highWatermark: 10, logEndOffset: 15 });
      cluster.crash(3);
      await cluster.until(() => cluster.log(1, "letters").highWatermark === 15, "the leader goes on alone");
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [] });
      cluster.crash(1);
      cluster.start(2);
      await cluster.run(5000);
      expect(cluster.leaderOf("letters")).not.toBe(2);
      cluster.start(1);
      cluster.start(3);
      await cluster.untilUp();
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("may be larger at the next controller, which counts on what the leader did before it heard", async () => {
    const settingsOf = { 3: { "min.insync.replicas": "1" } };
    await underController3({ seed: 65, settings: { "min.insync.replicas": "2" }, settingsOf }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      await letters.write(10);
      cluster.crash(2);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the follower is out of sync", 10_000);
      await letters.write(5);
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [] });
      cluster.crash(3);
      await cluster.until(() => cluster.partition(1, "letters")?.minInsyncReplicas === 2, "the leader is told");
      await letters.send(5);
      await cluster.run(1000);
      expect(cluster.log(1, "letters").highWatermark).toBe(15);
      cluster.start(2);
      await cluster.until(() => cluster.isrOf("letters").length === 2, "the follower is in sync again");
      cluster.crash(1);
      cluster.start(3);
      cluster.start(1);
      await cluster.untilUp();
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is heard by leaders when it becomes smaller or larger for a topic or for all brokers", async () => {
    await underController3({ seed: 63, settings: { "min.insync.replicas": "2" } }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      await letters.write(10);
      const { network } = cluster.simulation;
      const set = async (resource: ConfigResource, name: string, value: string | null): Promise<void> => {
        const config = [{ name: "min.insync.replicas", value }];
        await cluster.complete(cluster.admin.administer("alterConfigs", { resource, name, config }));
      };
      const minimum = (): number | undefined => cluster.partition(1, "letters")?.minInsyncReplicas;
      network.partition(host(1), host(2));
      await letters.send(5);
      await cluster.until(() => cluster.isrOf("letters").length === 1, "the follower is out of sync", 10_000);
      await cluster.run(500);
      expect(cluster.log(1, "letters")).toMatchObject({ highWatermark: 10, logEndOffset: 15 });
      await set(ConfigResource.BROKER, "", "1");
      await cluster.until(() => cluster.log(1, "letters").highWatermark === 15, "the leader goes on alone", 1000);
      expect(cluster.stateOf("letters", 0)).toMatchObject({ isr: [1], elr: [] });
      await set(ConfigResource.TOPIC, "letters", "2");
      await cluster.until(() => minimum() === 2, "the topic's own holds", 1000);
      await set(ConfigResource.TOPIC, "letters", null);
      await cluster.until(() => minimum() === 1, "that of all brokers holds", 1000);
      await set(ConfigResource.BROKER, "", null);
      await cluster.until(() => minimum() === 2, "that of the files holds", 1000);
      network.heal();
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("and durability are no settings of a single broker", async () => {
    await withCluster({ seed: 64 }, async (cluster) => {
      const set = async (name: string, value: string | null): Promise<void> => {
        const request = { resource: ConfigResource.BROKER, name: "1", config: [{ name, value }] };
        await cluster.complete(cluster.admin.administer("alterConfigs", request));
      };
      await expect(set("min.insync.replicas", "1")).rejects.toThrow(/topic.*all brokers/);
      await expect(set("log.durability", "fsync")).rejects.toThrow(/topic.*all brokers/);
      await set("min.insync.replicas", null);
    });
  });
});

describe("a topic that syncs before it acknowledges", () => {
  it("replicates a single record at once, though nothing comes behind it", async () => {
    await withCluster({ seed: 41 }, async (cluster) => {
      const letters = await create(cluster, { durability: "fsync" });
      for (let count = 0; count < 5; count += 1) {
        await letters.write(1, 100);
        await cluster.run(1000);
      }
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("acknowledges what every in-sync replica has on its disk, so that each of them may lead after a power cut", async () => {
    await withCluster({ seed: 43 }, async (cluster) => {
      const letters = await create(cluster, { durability: "fsync" });
      const leader = cluster.leaderOf("letters");
      const followers = cluster.followersOf("letters");
      const log = cluster.log(leader, "letters");
      const stop = cluster.simulation.scheduler.afterEachEvent(() => {
        for (const id of cluster.isrOf("letters"))
          expect(cluster.log(id, "letters").flushedOffset).toBeGreaterThanOrEqual(log.highWatermark);
      });
      // Followers that are slow to sync, then a leader that is.
      for (const slow of [followers, [leader]]) {
        for (const id of [1, 2, 3]) cluster.broker(id).host.disk.syncDelayMeanMs = slow.includes(id) ? 200 : 1;
        for (let count = 1; count <= 5; count += 1) {
          const before = log.highWatermark;
          await letters.write(1);
          expect(log.highWatermark).toBe(before + 1);
        }
      }
      stop();
      cluster.powerCut(1, 2, 3);
      await cluster.run(3000);
      for (const id of followers) cluster.start(id);
      await cluster.untilUp(followers);
      await letters.write(5);
      cluster.start(leader);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("loses nothing when every machine loses power at once, whatever the disks kept of the rest", async () => {
    for (const seed of [37, 38, 39]) {
      await withCluster({ seed }, async (cluster) => {
        const letters = await create(cluster, { durability: "fsync" });
        // So slow that what is acknowledged before it is synced is not synced when the power goes.
        for (const id of [1, 2, 3]) cluster.broker(id).host.disk.syncDelayMeanMs = 100;
        await letters.write(20);
        await letters.send(5);
        cluster.powerCut(1, 2, 3);
        await cluster.run(300);
        for (const id of [1, 2, 3]) cluster.broker(id).host.disk.syncDelayMeanMs = 1;
        for (const id of [1, 2, 3]) cluster.start(id);
        await cluster.untilUp();
        await letters.write(10);
        expect(await letters.verdict()).toEqual([]);
      });
    }
  });

  it("does so wherever its replicas are, whatever the files of their brokers say", async () => {
    const settingsOf = { 3: { "log.durability": "fsync" } };
    await underController3({ seed: 66, settingsOf }, async (cluster) => {
      const letters = await Letters.create(cluster, { assignment: [1, 2] });
      const durability = (id: BrokerId): string => cluster.log(id, "letters").settings.durability;
      await letters.write(20);
      for (const id of [1, 2]) expect(durability(id)).toBe("fsync");
      cluster.powerCut(1, 2);
      await cluster.run(300);
      for (const id of [1, 2]) cluster.start(id);
      await cluster.untilUp();
      await letters.write(5);
      const set = async (value: string | null): Promise<void> => {
        const request = { resource: ConfigResource.BROKER, name: "", config: [{ name: "log.durability", value }] };
        await cluster.complete(cluster.admin.administer("alterConfigs", request));
      };
      await set("page-cache");
      for (const id of [1, 2]) expect(durability(id)).toBe("page-cache");
      await set(null);
      for (const id of [1, 2]) expect(durability(id)).toBe("fsync");
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a follower", () => {
  it("that led for a while without a single record gets along with its successor", async () => {
    await withCluster({ seed: 42, brokers: 5 }, async (cluster) => {
      const letters = await create(cluster);
      await letters.write(10);
      const first = cluster.leaderOf("letters");
      cluster.crash(first);
      await cluster.until(() => ![first, -1].includes(cluster.leaderOf("letters")), "a second broker leads");
      const second = cluster.leaderOf("letters");
      cluster.start(first);
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      // It lives on, and keeps what it noted of its own epoch.
      cluster.zookeeper.expireSession(cluster.zookeeper.node(`/brokers/ids/${second}`)?.ephemeralOwner ?? "");
      await cluster.until(() => ![second, -1].includes(cluster.leaderOf("letters")), "a third broker leads");
      await cluster.untilUp();
      await cluster.untilSettled("letters");
      await letters.write(10, 1000);
      expect(cluster.lines.filter((line) => line.includes("truncates its log")).length).toBeLessThan(3);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("applies no answer of a leader that it does not follow any more", async () => {
    await withCluster({ seed: 40, brokers: 4, settings: { "replica.lag.time.max.ms": "30000" } }, async (cluster) => {
      const [preferred = 0, former = 0, follower = 0] = [1, 2, 3, 4].filter((id) => id !== cluster.controllerId);
      const letters = await Letters.create(cluster, { assignment: [preferred, former, follower] });
      // Because of this one it fetches from the former leader later too, over the same connection.
      const topicId = await cluster.createTopic({ name: "beside", assignment: [{ brokerIds: [former, follower] }] });
      await letters.write(10);
      await cluster.complete(cluster.stop(preferred));
      await cluster.until(() => cluster.leaderOf("letters") === former, "the second replica leads");
      cluster.start(preferred);
      await cluster.until(() => cluster.isrOf("letters").length === 3, "all are in sync");
      // A record that the preferred leader lacks is on its way to the follower when the leadership ends.
      const { network } = cluster.simulation;
      network.partition(host(former), host(preferred));
      network.partition(host(former), host(follower), { oneWay: true });
      const client = cluster.client();
      await cluster.complete(client.refresh());
      const write = (target: Target): Promise<unknown> => {
        const batch = encodeBatch(["there"], cluster.nowMs);
        return cluster.complete(
          produceOnce(client, { brokerId: former, leaderEpoch: undefined }, target, "leader", batch),
        );
      };
      await write(letters.target);
      await cluster.complete(
        cluster.admin.administer("electLeaders", { partitions: [letters.target], unclean: false }),
      );
      const role = (): unknown => cluster.partition(follower, "letters")?.role;
      await cluster.until(() => (role() as { leaderId?: BrokerId }).leaderId === preferred, "it follows the other one");
      // Answers come in order: with this record the late one has come.
      await write({ topicId, partition: 0 });
      const ends = (): number[] => ["letters", "beside"].map((topic) => cluster.log(follower, topic).logEndOffset);
      expect(ends()).toEqual([10, 0]);
      network.heal(host(former), host(follower));
      await cluster.until(() => ends()[1] === 1, "it hears what was on its way");
      expect(ends()).toEqual([10, 1]);
      network.heal();
      await letters.write(5);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});

describe("a proposal that the controller refused", () => {
  const refusals = (cluster: SimCluster): number =>
    cluster.lines.filter((line) => line.includes("the controller refused the proposed in-sync replicas")).length;

  it("is not repeated as long as the replica is away that it was to take in", async () => {
    const settings = { "replica.lag.time.max.ms": "9000" };
    await withCluster({ seed: 81, brokers: 4, settings }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const [away = 0] = cluster.followersOf("letters");
      cluster.crash(away);
      await cluster.until(() => !cluster.isrOf("letters").includes(away), "it is out of sync");
      // It had caught up a moment ago, and so its leader goes on proposing it.
      await cluster.run(8000);
      expect(refusals(cluster)).toBeGreaterThan(0);
      expect(refusals(cluster)).toBeLessThan(5);
      // Its registration is a fact that has changed.
      cluster.start(away);
      await cluster.untilUp();
      await cluster.until(() => cluster.isrOf("letters").includes(away), "it is in sync", 1000);
      expect(await letters.verdict()).toEqual([]);
    });
  });

  it("is repeated every few seconds, because the controller does not say when it reaches the replica again", async () => {
    const settings = { "fast.fencing.enable": "false", "zookeeper.session.timeout.ms": "10000" };
    await withCluster({ seed: 82, brokers: 4, settings }, async (cluster) => {
      const letters = await createBesideController(cluster);
      await letters.write(10);
      const [cutOff = 0] = cluster.followersOf("letters");
      const controller = host(cluster.controllerId);
      cluster.pause(cutOff);
      await cluster.until(() => !cluster.isrOf("letters").includes(cutOff), "it is out of sync");
      cluster.simulation.network.partition(host(cutOff), controller);
      cluster.simulation.network.resetAll(controller);
      await cluster.run(3000);
      cluster.resume(cutOff);
      await letters.write(10);
      await cluster.until(() => refusals(cluster) > 0, "it was proposed");
      const before = refusals(cluster);
      await cluster.run(20_000);
      expect(refusals(cluster) - before).toBeGreaterThan(1);
      expect(refusals(cluster) - before).toBeLessThan(6);
      cluster.simulation.network.heal();
      await cluster.until(() => cluster.isrOf("letters").includes(cutOff), "it is in sync", 10_000);
      expect(await letters.verdict()).toEqual([]);
    });
  });
});
