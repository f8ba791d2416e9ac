import { ControllerCluster, SESSION_TIMEOUT_MS, hostOf } from "./controller-cluster.js";
import { SimRandom } from "./sim-random.js";

/**
 * Goal: whatever befalls brokers, network and ZooKeeper, and in whatever order, the cluster comes back by itself, and what
 * must never be never was (ControllerCluster checks after each event). Method: half a minute of random faults, all of them
 * ended, then one controller, one truth, a leader for every partition.
 */
const BROKERS = [1, 2, 3, 4];
const TOPICS = ["letters", "diaries", "aphorisms"];
const ROUNDS = 25;

async function torment(seed: number): Promise<ControllerCluster> {
  const cluster = new ControllerCluster(seed);
  const chance = new SimRandom(seed).stream("nemesis");
  const { simulation, zookeeper } = cluster;
  const any = <T>(items: readonly T[]): T => items[chance.below(items.length)] as T;
  await cluster.startAll(BROKERS.length);
  for (const [index, topic] of TOPICS.entries()) {
    await cluster.createTopic(topic, { partitions: 3, replicationFactor: index + 1 });
  }
  const paused = new Set<number>();
  const frozen = new Set<string>();
  const isDead = (id: number): boolean => cluster.process(id).dead;
  const startAgain = (id: number): void => {
    paused.delete(id);
    cluster.start(id, { lastStop: "crash" }).catch(() => undefined);
  };
  const administer = (work: Promise<unknown>): void => void work.catch(() => undefined);
  const faults: readonly (() => void)[] = [
    () => cluster.crash(any(BROKERS)),
    () => cluster.controller && cluster.crash(cluster.controller.brokerId),
    () => BROKERS.filter(isDead).slice(0, 1).forEach(startAgain),
    () => BROKERS.filter(isDead).forEach(startAgain),
    () => {
      const id = any(BROKERS);
      cluster.process(id).pause();
      paused.add(id);
    },
    () => paused.forEach((id) => cluster.process(id).resume()),
    () => simulation.network.resetAll(hostOf(any(BROKERS))),
    () => simulation.network.partition(hostOf(any(BROKERS)), hostOf(any(BROKERS))),
    () => simulation.network.heal(),
    () => {
      const sessionId = any(cluster.alive)?.zookeeper.sessionId;
      if (sessionId !== undefined) zookeeper.expireSession(sessionId);
    },
    () => void cluster.withoutZooKeeper.add(hostOf(any(BROKERS))),
    () => cluster.withoutZooKeeper.clear(),
    () => {
      const leader = zookeeper.leader;
      if (leader === undefined || frozen.size > 0) return;
      zookeeper.freeze(leader);
      frozen.add(leader);
    },
    () => {
      for (const host of frozen) zookeeper.thaw(host);
      frozen.clear();
    },
    () => {
      const api = cluster.controller?.node.active;
      const topic = any(TOPICS);
      if (api === undefined) return;
      if (chance.below(2) === 0) {
        administer(api.deleteTopics({ names: [topic], topicIds: [], timeoutMs: 5000 }));
      } else {
        const topics = [{ name: topic, partitions: 3, replicationFactor: 2, config: [], assignment: [] }];
        administer(api.createTopics({ topics, timeoutMs: 5000, validateOnly: false }));
      }
    },
  ];
  for (let round = 0; round < ROUNDS; round++) {
    any(faults)();
    await simulation.run(chance.below(5) === 0 ? chance.below(SESSION_TIMEOUT_MS) : chance.below(400));
  }

  simulation.network.heal();
  cluster.withoutZooKeeper.clear();
  for (const host of frozen) zookeeper.thaw(host);
  for (const id of BROKERS) if (!isDead(id)) cluster.process(id).resume();
  await simulation.run(100);
  BROKERS.filter(isDead).forEach(startAgain);
  try {
    await simulation.run(3 * SESSION_TIMEOUT_MS);
    await cluster.settled();
    for (const topic of TOPICS) {
      if (zookeeper.node(`/brokers/topics/${topic}`) !== undefined) await cluster.led(topic);
    }
  } catch (error) {
    throw new Error(cluster.tail(40), { cause: error });
  }
  cluster.assertClean();
  return cluster;
}

describe("a controller under random faults", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])(
    "comes back by itself, and breaks no promise on the way (seed %i)",
    async (seed) => {
      await torment(seed);
    },
  );

  it("does the same again under the same seed", async () => {
    const first = await torment(3);
    const second = await torment(3);
    expect(second.simulation.scheduler.traceHash).toBe(first.simulation.scheduler.traceHash);
  });
});
