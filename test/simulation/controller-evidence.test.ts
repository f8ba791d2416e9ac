import type { ZooKeeperConnector, ZooKeeperRequest } from "../../common/env/zookeeper-connection.js";
import { paths } from "../../broker/zookeeper/znodes.js";
import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import type { BrokerId } from "../../protocol/types.js";
import { ControllerCluster, SESSION_TIMEOUT_MS, hostOf } from "./controller-cluster.js";
import type { FakeBroker, FakeBrokerOptions } from "./fake-broker.js";
import type { SimProcess } from "./sim-process.js";

/** What the controller knows of a bounce, who is alive, and what a replica holds: where that comes from, and what it outlives. */

/** Holds back what ZooKeeper tells of its own accord, and lets something happen to a process as its write is answered. */
class Tampering {
  readonly #held: (() => void)[] = [];
  #deaf: SimProcess | undefined;
  #onWrite: { readonly process: SimProcess; readonly act: (hangUp: () => void) => void } | undefined;

  /** The process hears of no change until `release`. */
  hold(process: SimProcess): void {
    this.#deaf = process;
  }

  release(): void {
    this.#deaf = undefined;
    for (const tell of this.#held.splice(0)) tell();
  }

  /** The answer to the next write of the process as controller is lost; `act` is done instead. */
  atNextWrite(process: SimProcess, act: (hangUp: () => void) => void): void {
    this.#onWrite = { process, act };
  }

  readonly interpose = (process: SimProcess, connector: ZooKeeperConnector): ZooKeeperConnector => ({
    open: (options, handler) => {
      const connection = connector.open(options, {
        onConnected: (token, timeoutMs) => handler.onConnected(token, timeoutMs),
        onSessionExpired: () => handler.onSessionExpired(),
        onClosed: (error) => handler.onClosed(error),
        onWatch: (event) => {
          if (this.#deaf === process) this.#held.push(() => handler.onWatch(event));
          else handler.onWatch(event);
        },
      });
      return {
        request: (request, onResult) => {
          const armed = this.#onWrite;
          if (armed?.process !== process || !isControllerWrite(request)) {
            connection.request(request, onResult);
            return;
          }
          this.#onWrite = undefined;
          connection.request(request, () => armed.act(() => connection.destroy()));
        },
        closeSession: () => connection.closeSession(),
        destroy: () => connection.destroy(),
      };
    },
  });
}

/** A write of the controller begins with the check of its epoch. */
function isControllerWrite(request: ZooKeeperRequest): boolean {
  return request.kind === "multi" && request.operations[0]?.path === paths.controllerEpoch;
}

/** A cluster with the topic `letters`, one partition wide, on the brokers beside the controller. */
async function clusterBesideController(seed: number, tampering?: Tampering) {
  const cluster = new ControllerCluster(seed);
  if (tampering !== undefined) cluster.interpose = tampering.interpose;
  await cluster.startAll(4);
  const controller = cluster.controller!.brokerId;
  const replicas = [1, 2, 3, 4].filter((id) => id !== controller) as [BrokerId, BrokerId, BrokerId];
  await cluster.createTopic("letters", { assignment: [{ brokerIds: replicas }] });
  await cluster.settled();
  return { cluster, controller, replicas };
}

/** What the leader of letters-0 would send, with the epochs at which it saw the members. */
async function propose(
  cluster: ControllerCluster,
  leader: FakeBroker,
  members: readonly (readonly [BrokerId, string])[],
): Promise<unknown> {
  const known = leader.stateOf("letters", 0)!;
  const [topicId = ""] = [...leader.topics.keys()];
  const body = {
    brokerId: leader.brokerId,
    brokerEpoch: leader.epoch!,
    partitions: [
      {
        topicId,
        partition: 0,
        leaderEpoch: known.leaderEpoch,
        partitionEpoch: known.partitionEpoch,
        isr: members.map(([brokerId, brokerEpoch]) => ({ brokerId, brokerEpoch })),
      },
    ],
  };
  return cluster.simulation.complete(
    leader.node.requestController("alterPartitions", body, 2000).catch((error: unknown) => error),
  );
}

function powerCut(
  cluster: ControllerCluster,
  ...ids: readonly BrokerId[]
): Map<BrokerId, ReturnType<ZooKeeper["token"]>> {
  const tokens = new Map(ids.map((id) => [id, cluster.broker(id).zookeeper.token()]));
  for (const id of ids) cluster.simulation.host(hostOf(id)).powerCut();
  return tokens;
}

/** As the real one, a broker whose machine is back closes the session that it left behind, if it can still read which. */
async function back(
  cluster: ControllerCluster,
  brokerId: BrokerId,
  tokens: ReadonlyMap<BrokerId, ReturnType<ZooKeeper["token"]>>,
  options: Partial<FakeBrokerOptions> = {},
): Promise<void> {
  cluster.simulation.host(hostOf(brokerId)).powerOn();
  const token = tokens.get(brokerId);
  if (token !== undefined) {
    const closer = cluster.simulation.startProcess(hostOf(brokerId));
    const servers = cluster.zookeeper.connectString;
    await cluster.simulation.complete(ZooKeeper.closeSession(closer.env, { servers, token, timeoutMs: 2000 }));
    closer.crash();
  }
  await cluster.simulation.complete(cluster.start(brokerId, { lastStop: "power-cut", ...options }));
}

const holds = (logEndOffset: number): Partial<FakeBrokerOptions> => ({
  describe: () => ({ lastEpochPlusOne: 1, logEndOffset }),
});

/** What the broker asks while it stops: to be relieved of its leaderships. Each call asks once. */
function stopping(cluster: ControllerCluster, brokerId: BrokerId): () => Promise<unknown> {
  const { epoch, node } = cluster.broker(brokerId);
  const request = { brokerId, brokerEpoch: epoch! };
  return () => cluster.simulation.complete(node.requestController("controlledShutdown", request, 5000));
}

/** Five times, as often as a broker asks that stops. */
async function insist(cluster: ControllerCluster, ask: () => Promise<unknown>): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt++) {
    await ask();
    await cluster.simulation.run(100);
  }
}

/** The leader of letters-0 is alone, asks to be relieved, and takes another one in 100 ms later. */
async function stopAndTakeIn(seed: number) {
  const { cluster, replicas } = await clusterBesideController(seed);
  const [stoppingId, joiningId] = replicas;
  const epochOf = (id: BrokerId) => [id, cluster.broker(id).epoch!] as const;
  await propose(cluster, cluster.broker(stoppingId), [epochOf(stoppingId)]);
  await cluster.settled();
  const ask = stopping(cluster, stoppingId);
  await ask();
  await cluster.simulation.run(100);
  await propose(cluster, cluster.broker(stoppingId), [epochOf(stoppingId), epochOf(joiningId)]);
  return { cluster, stoppingId, joiningId, ask };
}

const registered = (cluster: ControllerCluster, id: BrokerId): boolean =>
  cluster.zookeeper.node(paths.broker(id)) !== undefined;

describe("a member that lost its power a moment before the ISR was written", () => {
  it.each(["loses the answer", "dies"])(
    "is judged by the process that its seat was given to, when the controller %s (bounce-reload)",
    async (what) => {
      const tampering = new Tampering();
      const { cluster, controller, replicas } = await clusterBesideController(61, tampering);
      const [leaderId, bounced, leaving] = replicas;
      const leader = cluster.broker(leaderId);
      const seats = [leaderId, bounced].map((id) => [id, cluster.broker(id).epoch!] as const);
      tampering.hold(cluster.process(controller));
      await back(cluster, bounced, powerCut(cluster, bounced));
      tampering.atNextWrite(cluster.process(controller), (hangUp) => {
        if (what === "dies") cluster.crash(controller);
        else hangUp();
      });
      await propose(cluster, leader, seats);
      expect(cluster.stored("letters")!.isr).not.toContain(leaving);
      tampering.release();
      await cluster.settled();
      await cluster.simulation.runUntil(
        () => !cluster.stored("letters")!.isr.includes(bounced),
        5000,
        "it is out of the ISR",
      );
      cluster.crash(leaderId);
      await cluster.simulation.run(3 * SESSION_TIMEOUT_MS);
      expect(cluster.stored("letters")).toMatchObject({ leader: -1, isr: [leaderId] });
      cluster.assertClean();
    },
  );
});

describe("a state that does not name processes", () => {
  it("is judged by its age: whoever registered after it was written came back since", async () => {
    const tampering = new Tampering();
    const { cluster, controller, replicas } = await clusterBesideController(67, tampering);
    const [leaderId, bounced] = replicas;
    const path = paths.partitionState("letters", 0);
    const { broker_epochs: epochs, ...former } = JSON.parse(
      Buffer.from(cluster.zookeeper.node(path)!.data).toString(),
    ) as Record<string, unknown>;
    expect(epochs).toEqual(Object.fromEntries(replicas.map((id) => [id, cluster.broker(id).epoch])));
    const { zookeeper } = cluster.broker(leaderId);
    await cluster.simulation.complete(zookeeper.set(path, Buffer.from(JSON.stringify(former)), -1));
    tampering.hold(cluster.process(controller));
    await back(cluster, bounced, powerCut(cluster, bounced));
    cluster.crash(controller);
    await cluster.settled();
    await cluster.simulation.runUntil(
      () => !cluster.stored("letters")!.isr.includes(bounced),
      5000,
      "it is out of the ISR",
    );
    const { isr, brokerEpochs } = cluster.stored("letters")!;
    expect(brokerEpochs).toEqual(new Map(isr.map((id) => [id, cluster.broker(id).epoch])));
    cluster.assertClean();
  });
});

describe("a registration that has outlived its process", () => {
  it("of the leader costs nobody a seat that is back after the same power cut (most-elected)", async () => {
    const cluster = new ControllerCluster(62);
    await cluster.startAll(3);
    const first = cluster.controller!.brokerId;
    const [second, leader] = [1, 2, 3].filter((id) => id !== first) as [BrokerId, BrokerId];
    await cluster.createTopic("letters", { assignment: [{ brokerIds: [leader, first, second] }] });
    await cluster.settled();
    const tokens = powerCut(cluster, 1, 2, 3);
    await cluster.simulation.run(500);
    await back(cluster, first, tokens, holds(10));
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 1000, "a controller");
    await back(cluster, second, tokens, holds(30));
    await cluster.simulation.run(1500);
    expect(registered(cluster, leader)).toBe(true);
    await cluster.simulation.runUntil(() => !registered(cluster, leader), 20_000, "it has expired");
    await cluster.simulation.run(500);
    expect([...cluster.stored("letters")!.isr].sort()).toEqual([1, 2, 3]);
    await back(cluster, leader, tokens, holds(20));
    await cluster.led("letters");
    expect(cluster.stored("letters")).toMatchObject({ leader: second });
    cluster.assertClean();
  });

  it.each([
    ["is back", true],
    ["has expired", false],
  ])(
    "does not count though the controller knew its process, once another member of the ISR %s",
    async (_, isFirstBack) => {
      const { cluster, replicas } = await clusterBesideController(63);
      const [leaderId, other, outside] = replicas;
      const leader = cluster.broker(leaderId);
      await propose(
        cluster,
        leader,
        [leaderId, other].map((id) => [id, cluster.broker(id).epoch!] as const),
      );
      expect(cluster.stored("letters")!.isr).not.toContain(outside);
      // The one that leads no more is the one whose session lasts longer.
      const tokens = powerCut(cluster, other);
      await cluster.simulation.run(isFirstBack ? 10 : 4000);
      for (const [id, token] of powerCut(cluster, leaderId)) tokens.set(id, token);
      if (isFirstBack) {
        await back(cluster, other, tokens, holds(30));
        await cluster.simulation.run(1000);
        expect(registered(cluster, leaderId)).toBe(true);
      } else {
        await cluster.simulation.runUntil(() => !registered(cluster, other), 20_000, "the first has expired");
        expect(registered(cluster, leaderId)).toBe(true);
      }
      await cluster.simulation.runUntil(() => !registered(cluster, leaderId), 20_000, "the leader's has expired");
      await cluster.simulation.run(500);
      expect(cluster.stored("letters")).toMatchObject({ leader: -1 });
      if (!isFirstBack) await back(cluster, other, tokens, holds(30));
      await back(cluster, leaderId, tokens, holds(20));
      await cluster.led("letters");
      expect(cluster.stored("letters")).toMatchObject({ leader: other });
      cluster.assertClean();
    },
  );

  it("is not elected by a controller that has just been elected itself, at the price of another one's seat", async () => {
    const { cluster, controller, replicas } = await clusterBesideController(64);
    const [leaderId, other, outside] = replicas;
    await propose(
      cluster,
      cluster.broker(leaderId),
      [leaderId, other].map((id) => [id, cluster.broker(id).epoch!] as const),
    );
    const tokens = powerCut(cluster, leaderId);
    await cluster.simulation.run(4000);
    for (const [id, token] of powerCut(cluster, controller, other, outside)) tokens.set(id, token);
    // Somebody without a seat is back first, and takes office at about the time at which the leader's session ends.
    await cluster.simulation.runUntil(() => !registered(cluster, leaderId), 20_000, "the leader's has expired");
    await back(cluster, controller, tokens);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 1000, "a controller");
    await cluster.simulation.run(200);
    expect(registered(cluster, other)).toBe(true);
    await cluster.simulation.runUntil(() => !registered(cluster, other), 20_000, "the other's has expired");
    await back(cluster, other, tokens, holds(20));
    await cluster.simulation.run(1000);
    expect(cluster.stored("letters")).toMatchObject({ leader: -1, isr: [leaderId, other] });
    await back(cluster, leaderId, tokens, holds(30));
    await cluster.led("letters");
    expect(cluster.stored("letters")).toMatchObject({ leader: leaderId });
    cluster.assertClean();
  });
});

describe("a broker that stops", () => {
  it.each([
    ["keeps its seat", "stops"],
    ["goes on leading", "leads"],
  ])("%s while the other one in sync is registered only", async (_, role) => {
    const { cluster, replicas } = await clusterBesideController(66);
    const [leaderId, other] = replicas;
    await propose(
      cluster,
      cluster.broker(leaderId),
      [leaderId, other].map((id) => [id, cluster.broker(id).epoch!] as const),
    );
    await cluster.settled();
    const [stoppingId, deadId] = role === "stops" ? [other, leaderId] : [leaderId, other];
    powerCut(cluster, deadId);
    await insist(cluster, stopping(cluster, stoppingId));
    expect(registered(cluster, deadId)).toBe(true);
    expect(cluster.stored("letters")).toMatchObject({ leader: leaderId, isr: [leaderId, other] });
    cluster.assertClean();
  });

  it("goes on leading when the one that has just caught up is registered only", async () => {
    // It answered when it was asked the last time, and dies as it is taken in.
    const { cluster, stoppingId, joiningId, ask } = await stopAndTakeIn(68);
    powerCut(cluster, joiningId);
    await insist(cluster, ask);
    expect(registered(cluster, joiningId)).toBe(true);
    expect(cluster.stored("letters")).toMatchObject({ leader: stoppingId, isr: [stoppingId, joiningId] });
    cluster.assertClean();
  });

  it("hands over to the one that has just caught up as soon as that one answers", async () => {
    const { cluster, joiningId } = await stopAndTakeIn(69);
    await cluster.simulation.runUntil(() => cluster.stored("letters")!.leader === joiningId, 50, "the handing over");
    expect(cluster.stored("letters")).toMatchObject({ isr: [joiningId] });
    cluster.assertClean();
  });

  it("loses its seat when the leader has answered since", async () => {
    const { cluster, replicas } = await clusterBesideController(67);
    const [leaderId, stoppingId] = replicas;
    await stopping(cluster, stoppingId)();
    await cluster.simulation.runUntil(() => !cluster.stored("letters")!.isr.includes(stoppingId), 200, "the seat");
    expect(cluster.stored("letters")).toMatchObject({ leader: leaderId });
    cluster.assertClean();
  });
});

describe("of replicas that all lost their power", () => {
  it("one that was eligible is asked too", async () => {
    const { cluster, replicas } = await clusterBesideController(65);
    const [leaderId, eligible, outside] = replicas;
    const leader = cluster.broker(leaderId);
    const epochOf = (id: BrokerId) => [id, cluster.broker(id).epoch!] as const;
    await propose(cluster, leader, [leaderId, eligible].map(epochOf));
    await cluster.settled();
    await propose(cluster, leader, [leaderId].map(epochOf));
    expect(cluster.stored("letters")).toMatchObject({ isr: [leaderId], elr: [eligible] });
    const tokens = powerCut(cluster, leaderId, eligible, outside);
    await cluster.simulation.run(500);
    await back(cluster, eligible, tokens, holds(30));
    await cluster.simulation.run(1000);
    await back(cluster, leaderId, tokens, holds(20));
    await cluster.led("letters", 20_000);
    expect(cluster.stored("letters")).toMatchObject({ leader: eligible, isr: [eligible], elr: [] });
    cluster.assertClean();
  });

  it("the one that holds most is waited for when it dies after it has said so", async () => {
    const { cluster, replicas } = await clusterBesideController(66);
    const [one, most, late] = replicas;
    const tokens = powerCut(cluster, ...replicas);
    await cluster.simulation.runUntil(
      () => !replicas.some((id) => registered(cluster, id)),
      20_000,
      "all have expired",
    );
    let asked = false;
    await back(cluster, one, tokens, holds(10));
    await back(cluster, late, tokens, holds(20));
    await cluster.simulation.run(1000);
    // Its answer comes only when the best one is dead.
    cluster.process(late).pause();
    await back(cluster, most, tokens, {
      describe: () => {
        asked = true;
        return { lastEpochPlusOne: 1, logEndOffset: 30 };
      },
    });
    await cluster.simulation.runUntil(() => asked, 5000, "the best was asked");
    await cluster.simulation.run(10);
    cluster.crash(most);
    await cluster.simulation.run(100);
    cluster.process(late).resume();
    await cluster.simulation.run(3000);
    expect(cluster.stored("letters")).toMatchObject({ leader: -1 });
    await cluster.simulation.complete(cluster.start(most, { lastStop: "crash", ...holds(30) }));
    await cluster.led("letters");
    expect(cluster.stored("letters")).toMatchObject({ leader: most });
    cluster.assertClean();
  });
});
