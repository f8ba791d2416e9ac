import type { ZooKeeperConnector, ZooKeeperRequest } from "../../common/env/zookeeper-connection.js";
import { paths } from "../../broker/zookeeper/znodes.js";
import { ControllerCluster } from "./controller-cluster.js";
import type { SimProcess } from "./sim-process.js";

/**
 * Goal: wherever a controller dies in the middle of a creation or a deletion, its successor brings it to an end.
 * Method: crash it at its n-th write since a mark, for n = 1, 2, ... until it gets through; once when the write was
 * sent, once when its result came.
 */
type Moment = "sent" | "committed";

class CrashAtWrite {
  writes = 0;
  #armed: { readonly process: SimProcess; readonly at: number; readonly moment: Moment } | undefined;

  arm(process: SimProcess, at: number, moment: Moment): void {
    this.writes = 0;
    this.#armed = { process, at, moment };
  }

  disarm(): void {
    this.#armed = undefined;
  }

  readonly interpose = (process: SimProcess, connector: ZooKeeperConnector): ZooKeeperConnector => ({
    open: (options, handler) => {
      const connection = connector.open(options, handler);
      return {
        request: (request, onResult) => {
          // Writes are sent several at a time. What comes after the fatal one never leaves, so that exactly a prefix is
          // there.
          if (this.#isPast(process, request)) return;
          const crash = this.#count(process, request);
          connection.request(request, (result) => {
            if (crash === "committed") process.crash();
            else onResult(result);
          });
          if (crash === "sent") process.crash();
        },
        closeSession: () => connection.closeSession(),
        destroy: () => connection.destroy(),
      };
    },
  });

  #isPast(process: SimProcess, request: ZooKeeperRequest): boolean {
    return this.#armed?.process === process && isControllerWrite(request) && this.writes >= this.#armed.at;
  }

  #count(process: SimProcess, request: ZooKeeperRequest): Moment | undefined {
    const armed = this.#armed;
    if (armed?.process !== process || !isControllerWrite(request)) return undefined;
    this.writes += 1;
    return this.writes === armed.at ? armed.moment : undefined;
  }
}

/** Barriers are transactions too; a write of the controller begins with the check of its epoch. */
function isControllerWrite(request: ZooKeeperRequest): boolean {
  return request.kind === "multi" && request.operations[0]?.path === paths.controllerEpoch;
}

async function crashing(
  seed: number,
  at: number,
  moment: Moment,
  prepare: (cluster: ControllerCluster) => Promise<unknown>,
  act: (cluster: ControllerCluster) => Promise<unknown>,
): Promise<{ readonly cluster: ControllerCluster; readonly crashed: boolean }> {
  const cluster = new ControllerCluster(seed);
  const crasher = new CrashAtWrite();
  cluster.interpose = crasher.interpose;
  await cluster.startAll(3);
  await prepare(cluster);
  const process = cluster.process(cluster.controller!.brokerId);
  crasher.arm(process, at, moment);
  let done = false;
  act(cluster).then(
    () => (done = true),
    () => (done = true),
  );
  await cluster.simulation.runUntil(() => done || process.dead, 10_000, "the end, one way or another");
  crasher.disarm();
  await cluster.simulation.run(50);
  await cluster.settled();
  return { cluster, crashed: process.dead };
}

/** Three transactions of a creation: 310 partitions, one replica each to keep it quick. */
const PARTITIONS = 310;
const create = (cluster: ControllerCluster): Promise<unknown> =>
  cluster.api.createTopics({
    topics: [{ name: "letters", partitions: PARTITIONS, replicationFactor: 1, config: [], assignment: [] }],
    timeoutMs: 10_000,
    validateOnly: false,
  });
const created = (cluster: ControllerCluster): Promise<unknown> => cluster.simulation.complete(create(cluster));
const partitionsKnown = (cluster: ControllerCluster): number[] =>
  cluster.alive.map((broker) => [...broker.topics.values()].reduce((sum, { partitions }) => sum + partitions.size, 0));
const nodesOf = (cluster: ControllerCluster): string[] =>
  cluster.zookeeper.paths().filter((path) => path.includes("/letters"));

describe.each(["sent", "committed"] as const)("a controller that dies when a write was %s", (moment) => {
  it("leaves a topic whole or not at all", async () => {
    let wholes = 0;
    for (let at = 1; ; at++) {
      const { cluster, crashed } = await crashing(100 + at, at, moment, () => Promise.resolve(), create);
      const exists = cluster.zookeeper.node(paths.topic("letters")) !== undefined;
      if (exists) {
        await cluster.simulation.runUntil(
          () => partitionsKnown(cluster).every((count) => count === PARTITIONS),
          5000,
          "all partitions everywhere",
        );
        wholes += 1;
      } else {
        expect(nodesOf(cluster)).toEqual([]);
        expect(await cluster.createTopic("letters", { partitions: 2, replicationFactor: 1 })).toMatchObject({
          partitions: 2,
        });
      }
      cluster.assertClean();
      if (!crashed) break;
      expect(at).toBeLessThan(20);
    }
    expect(wholes).toBeGreaterThan(0);
  });

  it("has its deletion finished by its successor", async () => {
    for (let at = 1; ; at++) {
      const { cluster, crashed } = await crashing(200 + at, at, moment, created, (running) =>
        running.api.deleteTopics({ names: ["letters"], topicIds: [], timeoutMs: 10_000 }),
      );
      const exists = cluster.zookeeper.node(paths.topic("letters")) !== undefined;
      const isMarked = cluster.zookeeper.node(paths.deletion("letters")) !== undefined;
      if (exists && !isMarked) {
        expect(partitionsKnown(cluster).every((count) => count === PARTITIONS)).toBe(true);
      } else {
        await cluster.simulation.runUntil(() => nodesOf(cluster).length === 0, 5000, "no trace of the topic");
        expect(partitionsKnown(cluster).every((count) => count === 0)).toBe(true);
        expect(await cluster.createTopic("letters", { partitions: 2, replicationFactor: 1 })).toMatchObject({
          partitions: 2,
        });
      }
      cluster.assertClean();
      if (!crashed) break;
      expect(at).toBeLessThan(20);
    }
  });

  it("has its new partitions finished by its successor", async () => {
    for (let at = 1; ; at++) {
      const { cluster, crashed } = await crashing(
        300 + at,
        at,
        moment,
        (running) => running.createTopic("letters", { partitions: 2, replicationFactor: 1 }),
        (running) =>
          running.api.createPartitions({
            topic: "letters",
            topicId: "",
            partitions: PARTITIONS,
            assignment: [],
            timeoutMs: 10_000,
          }),
      );
      await cluster.simulation.runUntil(
        () => partitionsKnown(cluster).every((count) => count === 2 || count === PARTITIONS),
        5000,
        "the old number of partitions or the new one",
      );
      cluster.assertClean();
      if (!crashed) break;
      expect(at).toBeLessThan(20);
    }
  });
});
