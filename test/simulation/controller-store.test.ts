import { ControllerFenced, ControllerStore, StoreDiffers } from "../../broker/controller/controller-store.js";
import type { Partition, Topic } from "../../broker/controller/cluster-state.js";
import { ControllerElection } from "../../broker/zookeeper/controller-election.js";
import { basePaths, paths } from "../../broker/zookeeper/znodes.js";
import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import { silentLogger } from "../../common/logger.js";
import { Simulation } from "./sim-env.js";
import { SimZooKeeper } from "./sim-zookeeper.js";

/**
 * Two brokers' ways to one ZooKeeper, with registrations made by hand: elections and writes without anything around
 * them.
 */
async function twoCandidates(seed: number) {
  const simulation: Simulation = new Simulation({ seed, zookeeper: (process) => ensemble.connectorFor(process) });
  const ensemble = SimZooKeeper.inScheduler(simulation.scheduler);
  const candidates = await Promise.all(
    [1, 2].map((brokerId) => {
      const { env } = simulation.startProcess(`host${brokerId}`);
      const zookeeper = new ZooKeeper(env, silentLogger, { servers: ensemble.connectString, sessionTimeoutMs: 6000 });
      const { timers } = env;
      return { zookeeper, timers, election: new ControllerElection(zookeeper, env.clock, brokerId), brokerId };
    }),
  );
  const [first, second] = candidates as [(typeof candidates)[0], (typeof candidates)[0]];
  for (const { zookeeper, brokerId } of candidates) {
    await simulation.complete(zookeeper.whenConnected(5000));
    for (const path of basePaths) await simulation.complete(zookeeper.ensurePath(path));
    await simulation.complete(zookeeper.create(paths.broker(brokerId), new Uint8Array(0), { ephemeral: true }));
  }
  return { simulation, ensemble, first, second };
}

const partition: Partition = {
  partition: 0,
  replicas: [1, 2],
  leader: 1,
  leaderEpoch: 0,
  partitionEpoch: 0,
  isr: [1, 2],
  elr: [],
  unverified: [],
  minInsyncReplicas: 2,
  lost: [],
  brokerEpochs: new Map(),
  durability: "page-cache",
};
const topicNamed = (name: string): Topic => ({
  name,
  topicId: `id-${name}`,
  version: 0,
  config: new Map(),
  partitionCount: 0,
  growsFrom: 0,
  partitions: new Map(),
});

describe("an election", () => {
  it("has one winner, and raises the epoch", async () => {
    const { simulation, first, second } = await twoCandidates(51);
    const both = await simulation.complete(Promise.all([first, second].map(({ election }) => election.tryElect(0))));
    expect(both.filter((office) => office !== undefined)).toEqual([{ epoch: 1, epochVersion: 1 }]);
  });

  it("cannot be won by a broker that is not registered", async () => {
    const { simulation, ensemble, first } = await twoCandidates(52);
    await simulation.complete(first.zookeeper.remove(paths.broker(1), 0));
    expect(await simulation.complete(first.election.tryElect(0))).toBeUndefined();
    expect(ensemble.node(paths.controller)).toBeUndefined();
  });

  it("is held anew when our own session holds the office without our knowing", async () => {
    const { simulation, first } = await twoCandidates(53);
    await simulation.complete(first.election.tryElect(0));
    expect(await simulation.complete(first.election.tryElect(0))).toEqual({ epoch: 2, epochVersion: 2 });
  });

  it("that replaces a dead controller replaces that one only, and its registration with it", async () => {
    const { simulation, ensemble, first, second } = await twoCandidates(54);
    await simulation.complete(first.election.tryElect(0));
    const { czxid } = ensemble.node(paths.controller)!;
    const dead = { brokerId: 1, czxid, registrationVersion: 0 };
    expect(await simulation.complete(second.election.tryTakeOver({ ...dead, czxid: czxid - 1n }, 0))).toBeUndefined();
    expect(await simulation.complete(second.election.tryTakeOver(dead, 0))).toEqual({ epoch: 2, epochVersion: 2 });
    expect(ensemble.node(paths.broker(1))).toBeUndefined();
    expect(await simulation.complete(second.election.tryTakeOver(dead, 0))).toBeUndefined();
  });
});

describe("a controller's write", () => {
  it("is refused as fenced once a successor was elected, and changes nothing", async () => {
    const { simulation, ensemble, first, second } = await twoCandidates(55);
    const office = (await simulation.complete(first.election.tryElect(0)))!;
    const former = new ControllerStore(first.zookeeper, silentLogger, office, first.timers);
    const topic = topicNamed("letters");
    await simulation.complete(former.createTopic(topic, [[1, 2]], [partition], () => undefined));
    const { czxid } = ensemble.node(paths.controller)!;
    await simulation.complete(second.election.tryTakeOver({ brokerId: 1, czxid, registrationVersion: undefined }, 0));

    const write = { topic, to: { ...partition, leader: 2, leaderEpoch: 1, partitionEpoch: 1 } };
    const committed: unknown[] = [];
    const late = former.writeStates([write], (chunk) => committed.push(chunk));
    await expect(simulation.complete(late)).rejects.toThrow(ControllerFenced);
    await expect(simulation.complete(former.markDeleted(topic))).rejects.toThrow(ControllerFenced);
    const other = former.createTopic(topicNamed("diaries"), [[1, 2]], [partition], (chunk) => committed.push(chunk));
    await expect(simulation.complete(other)).rejects.toThrow(ControllerFenced);
    expect(committed).toEqual([]);
    expect(ensemble.node(paths.partitionState("letters", 0))?.version).toBe(0);
    expect(ensemble.node(paths.topic("diaries"))).toBeUndefined();
    expect(await simulation.complete(first.election.holds(office))).toBe(false);
  });

  it("that finds another state than expected says so, and writes none of its transaction", async () => {
    const { simulation, ensemble, first } = await twoCandidates(56);
    const office = (await simulation.complete(first.election.tryElect(0)))!;
    const store = new ControllerStore(first.zookeeper, silentLogger, office, first.timers);
    const topic = topicNamed("letters");
    const two = [partition, { ...partition, partition: 1 }];
    await simulation.complete(
      store.createTopic(
        topic,
        [
          [1, 2],
          [1, 2],
        ],
        two,
        () => undefined,
      ),
    );
    const writes = [
      { topic, to: { ...partition, partitionEpoch: 1 } },
      { topic, to: { ...partition, partition: 1, partitionEpoch: 2 } },
    ];
    await expect(simulation.complete(store.writeStates(writes, () => undefined))).rejects.toThrow(StoreDiffers);
    expect(ensemble.node(paths.partitionState("letters", 0))?.version).toBe(0);
  });

  it("to many partitions is made transaction by transaction, so that whoever else waits is served between them", async () => {
    const { simulation, first } = await twoCandidates(57);
    const office = (await simulation.complete(first.election.tryElect(0)))!;
    const { zookeeper } = first;
    const turns: number[] = [];
    const multi = zookeeper.multi.bind(zookeeper);
    zookeeper.multi = (...args) => {
      turns.push(simulation.scheduler.eventCount);
      return multi(...args);
    };
    const store = new ControllerStore(zookeeper, silentLogger, office, first.timers);
    const topic = topicNamed("letters");
    const partitions = Array.from({ length: 1000 }, (_, index) => ({ ...partition, partition: index }));
    const assignment = partitions.map(({ replicas }) => replicas);
    const committed: number[] = [];
    const noted = (chunk: readonly { readonly to: Partition }[]) =>
      void committed.push(...chunk.map(({ to }) => to.partition));
    const inTurns = async (work: Promise<void>, order: boolean): Promise<void> => {
      await simulation.complete(work);
      expect(turns.length).toBeGreaterThan(3);
      expect(new Set(turns).size).toBe(turns.length);
      turns.length = 0;
      if (order) expect(committed.splice(0)).toEqual(partitions.map(({ partition: number }) => number));
    };
    await inTurns(store.createTopic(topic, assignment, partitions, noted), true);
    const writes = partitions.map((one) => ({ topic, to: { ...one, partitionEpoch: 1 } }));
    await inTurns(store.writeStates(writes, noted), true);
    await inTurns(store.removeTopic("letters"), false);
  });
});
