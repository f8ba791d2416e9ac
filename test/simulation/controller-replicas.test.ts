import type { AlterPartitionsRequest, IsrAnswer } from "../../protocol/messages.js";
import type { ApiError } from "../../protocol/error-codes.js";
import { errorCodes, errorNameOf } from "../../protocol/error-codes.js";
import { ControllerCluster, SESSION_TIMEOUT_MS, hostOf } from "./controller-cluster.js";

/** Interleavings of what replicas lose: seats in the ISR, power cuts, topics that are made again. */
async function clusterWith(
  seed: number,
  topic: Parameters<ControllerCluster["createTopic"]>[1] = {},
): Promise<ControllerCluster> {
  const cluster = new ControllerCluster(seed);
  await cluster.startAll(3);
  await cluster.createTopic("letters", topic);
  return cluster;
}

/** What the leader of letters-0 would send: these members, at the epochs at which they are registered now. */
async function propose(
  cluster: ControllerCluster,
  ids: readonly number[],
  change: { epochs?: ReadonlyMap<number, string> } = {},
) {
  const leader = cluster.broker(cluster.stored("letters")!.leader);
  const known = leader.stateOf("letters", 0)!;
  const [topicId] = [...leader.topics.keys()];
  const response = await cluster.simulation.complete(
    leader.node.requestController(
      "alterPartitions",
      {
        brokerId: leader.brokerId,
        brokerEpoch: leader.epoch!,
        partitions: [
          {
            topicId: topicId!,
            partition: 0,
            leaderEpoch: known.leaderEpoch,
            partitionEpoch: known.partitionEpoch,
            isr: ids.map((brokerId) => ({
              brokerId,
              brokerEpoch: change.epochs?.get(brokerId) ?? cluster.broker(brokerId).epoch ?? "0",
            })),
          },
        ],
      },
      5000,
    ),
  );
  return response.partitions[0]!;
}

const errorOf = ({ error }: IsrAnswer): string => (error === null ? "none" : errorNameOf(error.code));

describe("a proposed ISR", () => {
  it("that builds on a state with another min.insync.replicas is refused, and the leader told", async () => {
    const config = [{ name: "min.insync.replicas", value: "1" }];
    const cluster = await clusterWith(38, { assignment: [{ brokerIds: [1, 2, 3] }], config });
    const leader = cluster.broker(1);
    expect(leader.stateOf("letters", 0)).toMatchObject({ partitionEpoch: 0, minInsyncReplicas: 1 });
    // What changes it does not reach the leader.
    leader.ordersHeld = true;
    const altering = cluster.api.alterConfigs({
      resource: 0,
      name: "letters",
      topicId: "",
      config: [{ name: "min.insync.replicas", value: "2" }],
      validateOnly: false,
    });
    await cluster.simulation.complete(altering);
    const refused = await propose(cluster, [1]);
    expect(errorOf(refused)).toBe("INVALID_UPDATE_VERSION");
    expect(refused.state).toMatchObject({ partitionEpoch: 1, minInsyncReplicas: 2, isr: [1, 2, 3], elr: [] });
    cluster.assertClean();
  });

  it("succeeds again when the answer was lost, under this controller and the next (alter-partition-lost-reply)", async () => {
    const cluster = await clusterWith(31, { assignment: [{ brokerIds: [1, 2, 3] }] });
    const first = await propose(cluster, [1, 2]);
    expect(first).toMatchObject({ error: null, state: { isr: [1, 2], partitionEpoch: 1 } });
    expect(await propose(cluster, [2, 1])).toMatchObject({ error: null, state: { partitionEpoch: 1 } });
    // In the middle of the answer, for all that the leader knows.
    const controllerId = cluster.controller!.brokerId;
    await cluster.bounce(controllerId);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 1000, "a successor");
    await cluster.settled();
    expect(await propose(cluster, [1, 2])).toMatchObject({ error: null, state: { isr: [1, 2] } });
    cluster.assertClean();
  });

  it("that names a replica as it was before its restart is refused (stale-joiner)", async () => {
    const cluster = await clusterWith(32, { assignment: [{ brokerIds: [1, 2, 3] }] });
    const epochs = new Map([[3, cluster.broker(3).epoch!]]);
    await cluster.bounce(3, { lastStop: "power-cut" });
    await cluster.settled();
    await cluster.led("letters");
    expect(cluster.stored("letters")!.isr).not.toContain(3);
    expect(errorOf(await propose(cluster, [1, 2, 3], { epochs }))).toBe("INELIGIBLE_REPLICA");
    expect(errorOf(await propose(cluster, [1, 2, 3]))).toBe("none");
    cluster.assertClean();
  });
});

describe("proposals that wait for ZooKeeper", () => {
  it("are given up for newer ones of the same broker, which asks again for what was not answered", async () => {
    const cluster = await clusterWith(39, { assignment: [{ brokerIds: [1, 2, 3] }] });
    cluster.zookeeper.loseQuorum();
    await cluster.simulation.run(10_000);
    // After its first write that fails the controller waits for ZooKeeper.
    await expect(cluster.createTopic("more")).rejects.toMatchObject({ errorName: "ZOOKEEPER_UNAVAILABLE" });
    const { api } = cluster;
    const request = (brokerId: number): AlterPartitionsRequest => ({
      brokerId,
      brokerEpoch: cluster.broker(brokerId).epoch!,
      partitions: [],
    });
    const outcomes: string[] = [];
    const propose = (brokerId: number, name: string): void => {
      api.alterPartitions(request(brokerId)).then(
        () => outcomes.push(`${name} answered`),
        (error: ApiError) => outcomes.push(`${name} ${error.errorName}`),
      );
    };
    propose(1, "first of 1");
    propose(2, "first of 2");
    propose(1, "second of 1");
    await cluster.simulation.run(1000);
    expect(outcomes).toEqual(["first of 1 REQUEST_TIMED_OUT"]);
    cluster.zookeeper.regainQuorum();
    await cluster.simulation.runUntil(() => outcomes.length === 3, 10_000, "the answers");
    expect(outcomes.slice(1)).toEqual(["first of 2 answered", "second of 1 answered"]);
    cluster.assertClean();
  });
});

describe("a partition whose last members died", () => {
  it("waits for the last in-sync replica, whoever else comes back (last-standing)", async () => {
    const cluster = await clusterWith(33, { replicationFactor: 2, assignment: [{ brokerIds: [1, 2] }] });
    await propose(cluster, [1]);
    await cluster.bounce(2);
    await cluster.settled();
    cluster.crash(1);
    await cluster.simulation.runUntil(
      () => cluster.stored("letters")?.leader === -1,
      2 * SESSION_TIMEOUT_MS,
      "no leader",
    );
    await cluster.simulation.run(1000);
    expect(cluster.stored("letters")).toMatchObject({ leader: -1, isr: [1] });
    await cluster.simulation.complete(cluster.start(1, { lastStop: "crash" }));
    await cluster.led("letters");
    expect(cluster.stored("letters")).toMatchObject({ leader: 1, isr: [1] });
    cluster.assertClean();
  });

  it("is led by an eligible replica meanwhile, where min.insync.replicas kept it eligible", async () => {
    const cluster = await clusterWith(34, { assignment: [{ brokerIds: [1, 2, 3] }] });
    await propose(cluster, [1, 2]);
    await propose(cluster, [1]);
    expect(cluster.stored("letters")).toMatchObject({ isr: [1], elr: [2] });
    cluster.crash(1);
    await cluster.led("letters", 2 * SESSION_TIMEOUT_MS);
    expect(cluster.stored("letters")).toMatchObject({ leader: 2, isr: [2], elr: [1] });
    cluster.assertClean();
  });

  it("asks all of them after a power cut, and elects the one that holds most (all-power-cut)", async () => {
    const cluster = await clusterWith(35, { assignment: [{ brokerIds: [1, 2, 3] }] });
    for (const id of [1, 2, 3]) cluster.simulation.host(hostOf(id)).powerCut();
    await cluster.simulation.run(1000);
    for (const id of [1, 2, 3]) cluster.simulation.host(hostOf(id)).powerOn();
    const back = (brokerId: number, logEndOffset: number): Promise<void> =>
      cluster.start(brokerId, { lastStop: "power-cut", describe: () => ({ lastEpochPlusOne: 1, logEndOffset }) });
    await cluster.simulation.complete(back(1, 10));
    await cluster.simulation.complete(back(2, 30));
    await cluster.simulation.run(5000);
    // The third may hold more: nobody leads before it was asked.
    expect(cluster.stored("letters")).toMatchObject({ leader: -1, isr: [1, 2, 3] });
    await cluster.simulation.complete(back(3, 20));
    await cluster.led("letters");
    expect(cluster.stored("letters")).toMatchObject({ leader: 2, isr: [2], elr: [] });
    expect(cluster.log.some((line) => line.includes("letters-0") && line.includes("may be lost"))).toBe(true);
    cluster.assertClean();
  });

  it("does not wait longer than unclean.recovery.wait.ms for members that stay away", async () => {
    const cluster = await clusterWith(36, { assignment: [{ brokerIds: [1, 2, 3] }] });
    for (const id of [1, 2, 3]) cluster.simulation.host(hostOf(id)).powerCut();
    await cluster.simulation.run(1000);
    cluster.simulation.host(hostOf(1)).powerOn();
    await cluster.simulation.complete(cluster.start(1, { lastStop: "power-cut" }));
    await cluster.simulation.run(25_000);
    expect(cluster.stored("letters")).toMatchObject({ leader: -1 });
    expect(await cluster.led("letters")).toBeLessThan(15_000);
    cluster.assertClean();
  });

  it("leaves a power cut without consequence where records are synced before they are acknowledged", async () => {
    const cluster = await clusterWith(37, {
      assignment: [{ brokerIds: [1] }],
      config: [{ name: "durability", value: "fsync" }],
    });
    await cluster.bounce(1, { lastStop: "power-cut" });
    await cluster.led("letters");
    expect(cluster.log.some((line) => line.includes("may be lost"))).toBe(false);
    cluster.assertClean();
  });
});

describe("a stopping broker", () => {
  it("is told how many of its leaderships are left, and leads nothing that another one in sync could", async () => {
    const cluster = await clusterWith(41, { partitions: 6 });
    const { brokerId, epoch, node } = cluster.bystander;
    const request = { brokerId, brokerEpoch: epoch! };
    const ask = async (): Promise<number> => {
      const answer = node.requestController("controlledShutdown", request, 5000);
      return (await cluster.simulation.complete(answer)).remaining;
    };
    // Who takes over has answered since it was asked.
    expect(await ask()).toBe(6 / 3);
    await cluster.simulation.run(200);
    expect(await ask()).toBe(0);
    for (let partition = 0; partition < 6; partition++) {
      const { leader, isr } = cluster.stored("letters", partition)!;
      expect(leader).not.toBe(brokerId);
      expect(isr).not.toContain(brokerId);
    }
    const stale = node.requestController("controlledShutdown", { ...request, brokerEpoch: "1" }, 5000);
    await expect(cluster.simulation.complete(stale)).rejects.toMatchObject({ errorName: "STALE_BROKER_EPOCH" });
    cluster.assertClean();
  });
});

describe("a topic", () => {
  it("deleted and made again while a replica was down is another one for it (recreate-while-down)", async () => {
    const cluster = await clusterWith(42, { assignment: [{ brokerIds: [1, 2, 3] }] });
    const { brokerId } = cluster.bystander;
    cluster.crash(brokerId);
    await cluster.simulation.run(1000);
    const deletion = { names: ["letters"], topicIds: [], timeoutMs: 5000 };
    const { topics } = await cluster.simulation.complete(cluster.api.deleteTopics(deletion));
    expect(topics).toMatchObject([{ name: "letters", error: null }]);
    const again = await cluster.createTopic("letters", { replicationFactor: 2 });
    await cluster.simulation.complete(cluster.start(brokerId, { lastStop: "crash" }));
    await cluster.settled();
    expect([...cluster.broker(brokerId).topics.keys()]).toEqual([again.topicId]);
    cluster.assertClean();
  });

  it("carries its settings with every order, and runs with changed ones as soon as they are altered", async () => {
    const cluster = await clusterWith(43, { config: [{ name: "retention.ms", value: "1000" }] });
    const { api, simulation } = cluster;
    const configs = (): unknown[] =>
      cluster.alive.map((broker) => Object.fromEntries([...broker.topics.values()][0]!.config));
    expect(configs()).toEqual(Array(3).fill({ "retention.ms": "1000" }));
    const alter = (setting: string, value: string | null, validateOnly = false) => {
      const config = [{ name: setting, value }];
      return simulation.complete(api.alterConfigs({ resource: 0, name: "letters", topicId: "", config, validateOnly }));
    };
    await alter("retention.ms", null, true);
    expect(configs()).toEqual(Array(3).fill({ "retention.ms": "1000" }));
    await alter("segment.ms", "5000");
    await alter("retention.ms", null);
    expect(configs()).toEqual(Array(3).fill({ "segment.ms": "5000" }));
    await expect(alter("retention.mss", "1")).rejects.toThrow(/did you mean retention.ms/);
    cluster.assertClean();
  });

  it("is not changed for whoever means an earlier one of its name", async () => {
    const cluster = await clusterWith(48);
    const { api, simulation } = cluster;
    const former = [...cluster.broker(1).topics.keys()][0]!;
    await simulation.complete(api.deleteTopics({ names: ["letters"], topicIds: [], timeoutMs: 5000 }));
    const config = [{ name: "retention.ms", value: "1" }];
    const alter = (topicId: string, validateOnly = false) =>
      simulation.complete(api.alterConfigs({ resource: 0, name: "letters", topicId, config, validateOnly }));
    const grow = async (topicId: string) => {
      const request = { topic: "letters", topicId, partitions: 5, assignment: [], timeoutMs: 5000 };
      return (await simulation.complete(api.createPartitions(request))).topic!;
    };
    const refused = async (what: RegExp): Promise<void> => {
      for (const validateOnly of [true, false])
        await expect(alter(former, validateOnly)).rejects.toMatchObject({
          errorName: "UNKNOWN_TOPIC_ID",
          message: expect.stringMatching(what),
        });
      const { error } = await grow(former);
      expect(error).toMatchObject({ code: errorCodes.UNKNOWN_TOPIC_ID.code, message: expect.stringMatching(what) });
    };
    await refused(/letters.*deleted.*make it again/);
    const topicId = (await cluster.createTopic("letters")).topicId!;
    await cluster.settled();
    await refused(/letters.*made again.*repeat/);
    await cluster.settled();
    const configs = () => cluster.alive.map((broker) => [...broker.topics.get(topicId)!.config.keys()]);
    expect(configs()).toEqual(Array(3).fill([]));
    await alter(topicId);
    expect(configs()).toEqual(Array(3).fill(["retention.ms"]));
    expect(await grow(topicId)).toMatchObject({ topicId, partitions: 5 });
    cluster.assertClean();
  });

  it("has its leaders given back to the preferred replicas when asked", async () => {
    const cluster = await clusterWith(44, { assignment: [{ brokerIds: [1, 2, 3] }, { brokerIds: [2, 3, 1] }] });
    await cluster.bounce(1);
    await cluster.settled();
    const leader = cluster.broker(cluster.stored("letters")!.leader);
    expect(leader.brokerId).not.toBe(1);
    expect(errorOf(await propose(cluster, [1, 2, 3]))).toBe("none");
    const elect = async (partitions: readonly { topicId: string; partition: number }[], allPartitions: boolean) =>
      (await cluster.simulation.complete(cluster.api.electLeaders({ partitions, unclean: false, allPartitions })))
        .partitions;
    // A list that turned out empty is no wish for all that there is.
    expect(await elect([], false)).toEqual([]);
    expect(cluster.stored("letters")!.leader).toBe(leader.brokerId);
    await expect(elect([{ topicId: "1", partition: 0 }], true)).rejects.toThrow(/both/);
    expect(await elect([], true)).toMatchObject([{ partition: 0, leaderId: 1 }]);
    cluster.assertClean();
  });
});

describe("settings of brokers", () => {
  it("changed at run time reach the brokers that they are for", async () => {
    const cluster = await clusterWith(45);
    const alter = (name: string, value: string) =>
      cluster.simulation.complete(
        cluster.api.alterConfigs({
          resource: 1,
          name,
          topicId: "",
          config: [{ name: "log.retention.ms", value }],
          validateOnly: false,
        }),
      );
    await alter("", "5");
    await alter("2", "7");
    expect(cluster.broker(1).brokerConfig).toEqual({ "log.retention.ms": "5" });
    expect(cluster.broker(2).brokerConfig).toEqual({ "log.retention.ms": "7" });
    cluster.assertClean();
  });
});

describe("without ZooKeeper", () => {
  it("administration fails typed within five seconds, leaders stay, and all is well once it is back", async () => {
    const cluster = await clusterWith(46, { partitions: 3 });
    const before = [0, 1, 2].map((partition) => cluster.stored("letters", partition));
    const controllerEpoch = cluster.controller!.controllerEpoch;
    cluster.zookeeper.loseQuorum();
    await cluster.simulation.run(10_000);
    const startMs = cluster.simulation.scheduler.nowMs;
    await expect(cluster.createTopic("more")).rejects.toMatchObject({ errorName: "ZOOKEEPER_UNAVAILABLE" });
    expect(cluster.simulation.scheduler.nowMs - startMs).toBeLessThan(5000);
    cluster.zookeeper.regainQuorum();
    await cluster.simulation.run(5000);
    await cluster.settled();
    expect([0, 1, 2].map((partition) => cluster.stored("letters", partition))).toEqual(before);
    expect(cluster.controller!.controllerEpoch).toBe(controllerEpoch);
    expect((await cluster.createTopic("more")).error ?? null).toBeNull();
    cluster.assertClean();
  });
});
