import { BrokerIdTaken } from "../../broker/zookeeper/broker-registration.js";
import type { ZooKeeperConnector } from "../../common/env/zookeeper-connection.js";
import { paths } from "../../broker/zookeeper/znodes.js";
import { ControllerCluster, SESSION_TIMEOUT_MS, hostOf } from "./controller-cluster.js";
import type { SimProcess } from "./sim-process.js";

/** Interleavings of fencing: who is taken for dead, and what becomes of one that is not. */
async function clusterWith(seed: number, brokers: number, partitions = 6): Promise<ControllerCluster> {
  const cluster = new ControllerCluster(seed);
  await cluster.startAll(brokers);
  await cluster.createTopic("letters", { partitions });
  return cluster;
}

const czxidOf = (cluster: ControllerCluster, brokerId: number): bigint | undefined =>
  cluster.zookeeper.node(paths.broker(brokerId))?.czxid;

describe("fast fencing", () => {
  it("spares a broker whose connections were reset and that answers a fresh one", async () => {
    const cluster = await clusterWith(11, 3);
    const { brokerId } = cluster.bystander;
    const before = czxidOf(cluster, brokerId);
    cluster.simulation.network.resetAll(hostOf(brokerId));
    await cluster.simulation.run(1000);
    expect(czxidOf(cluster, brokerId)).toBe(before);
    await cluster.settled();
    cluster.assertClean();
  });

  it.each([0.3, 0.6, 0.9, 1.2, 1.5, 2, 2.5, 3])(
    "spares one whose connections were reset when it stalled itself %d ms later (stalled-judge)",
    async (laterMs) => {
      for (const seed of [111, 112, 113]) {
        const cluster = await clusterWith(seed, 3);
        const { brokerId: controllerId } = cluster.controller!;
        const { brokerId } = cluster.bystander;
        const before = czxidOf(cluster, brokerId);
        cluster.simulation.network.resetAll(hostOf(brokerId));
        await cluster.simulation.run(laterMs);
        // The broker is slow to conclude the same of its controller, which would settle the matter the other way.
        cluster.process(brokerId).pause();
        cluster.process(controllerId).stall(400);
        await cluster.simulation.run(399);
        cluster.process(brokerId).resume();
        await cluster.simulation.run(1000);
        expect(czxidOf(cluster, brokerId)).toBe(before);
        await cluster.settled();
        cluster.assertClean();
      }
    },
  );

  it("fences a living broker that only the controller lost: it drops its roles and registers anew (rst-alive-leader)", async () => {
    const cluster = await clusterWith(12, 3);
    const controllerId = cluster.controller!.brokerId;
    const victim = cluster.bystander;
    const before = czxidOf(cluster, victim.brokerId);
    let lost = 0;
    victim.registration.onLost(() => (lost += 1));
    cluster.simulation.network.resetAll(hostOf(victim.brokerId));
    cluster.simulation.network.partition(hostOf(controllerId), hostOf(victim.brokerId));
    await cluster.simulation.runUntil(() => lost > 0, 2000, "the victim noticing");
    await cluster.simulation.runUntil(() => (czxidOf(cluster, victim.brokerId) ?? before) !== before, 2000);
    cluster.simulation.network.heal();
    await cluster.settled();
    await cluster.led("letters");
    cluster.assertClean();
  });

  it("leaves a silent broker alone whose connections stand, until its session expires", async () => {
    const cluster = await clusterWith(13, 3);
    const victim = cluster.bystander;
    cluster.simulation.host(hostOf(victim.brokerId)).powerCut();
    await cluster.simulation.run(SESSION_TIMEOUT_MS / 2);
    expect(czxidOf(cluster, victim.brokerId)).toBeDefined();
    expect(await cluster.led("letters", 2 * SESSION_TIMEOUT_MS)).toBeLessThan(SESSION_TIMEOUT_MS);
    cluster.assertClean();
  });

  it("fences a broker that dies with an order unanswered, by the end of the connection that the order went over", async () => {
    const cluster = await clusterWith(19, 3);
    const victim = cluster.bystander;
    // The broker's own connection to the controller ends as well; here nobody listens to that.
    cluster.controller!.node.onControlConnectionEnded = () => undefined;
    victim.ordersHeld = true;
    const config = [{ name: "segment.ms", value: "5000" }];
    await cluster.simulation.complete(
      cluster.api.alterConfigs({ resource: 0, name: "letters", topicId: "", config, validateOnly: false }),
    );
    cluster.crash(victim.brokerId);
    await cluster.simulation.runUntil(
      () => czxidOf(cluster, victim.brokerId) === undefined,
      400,
      "the victim being fenced",
    );
    expect(await cluster.led("letters")).toBeLessThan(300);
    cluster.assertClean();
  });

  it("fences nobody when the controller loses all of them at once (controller-nic-flap)", async () => {
    const cluster = await clusterWith(14, 5);
    const host = hostOf(cluster.controller!.brokerId);
    const ids = cluster.alive.map(({ brokerId }) => brokerId);
    const before = new Map(ids.map((id) => [id, czxidOf(cluster, id)]));
    cluster.simulation.network.resetAll(host);
    for (const id of ids) if (hostOf(id) !== host) cluster.simulation.network.partition(host, hostOf(id));
    await cluster.simulation.run(1000);
    cluster.simulation.network.heal();
    // The others replaced the controller that they could not reach any more; that is all.
    const fenced = ids.filter((id) => czxidOf(cluster, id) !== before.get(id));
    expect(fenced.filter((id) => hostOf(id) !== host)).toEqual([]);
    await cluster.settled();
    await cluster.led("letters");
    cluster.assertClean();
  });

  it("elects once when brokers die together, and keeps the dead eligible (kill-all-staggered)", async () => {
    const cluster = await clusterWith(15, 5);
    const victims = cluster.alive.filter((broker) => broker !== cluster.controller).slice(0, 2);
    for (const { brokerId } of victims) {
      cluster.crash(brokerId);
      await cluster.simulation.run(8);
    }
    const ids = victims.map(({ brokerId }) => brokerId);
    expect(await cluster.led("letters")).toBeLessThan(350);
    const members = (partition: number): readonly number[] => cluster.stored("letters", partition)?.isr ?? [];
    await cluster.simulation.runUntil(
      () => [0, 1, 2, 3, 4, 5].every((partition) => !members(partition).some((id) => ids.includes(id))),
      300,
      "the dead leaving every ISR",
    );
    for (let partition = 0; partition < 6; partition++) {
      const { isr = [], elr = [], leaderEpoch = 9 } = cluster.stored("letters", partition) ?? {};
      expect(leaderEpoch).toBeLessThanOrEqual(1);
      expect(isr.length + elr.length).toBeGreaterThanOrEqual(2);
    }
    cluster.assertClean();
  });

  it("lets any broker take over from a controller that died, and fences it in the same step", async () => {
    const cluster = await clusterWith(16, 3);
    const { brokerId } = cluster.controller!;
    cluster.crash(brokerId);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 400, "a new controller");
    expect(czxidOf(cluster, brokerId)).toBeUndefined();
    expect(await cluster.led("letters")).toBeLessThan(300);
    cluster.assertClean();
  });

  it("takes a restart within the session for what it is: a new process without roles (bounce-in-session)", async () => {
    const cluster = await clusterWith(17, 3);
    const { brokerId } = cluster.bystander;
    const before = [0, 1, 2, 3, 4, 5].map((partition) => cluster.stored("letters", partition)!);
    await cluster.bounce(brokerId);
    await cluster.settled();
    await cluster.led("letters");
    for (const [partition, { leader, leaderEpoch }] of before.entries()) {
      const now = cluster.stored("letters", partition)!;
      if (leader === brokerId) expect(now.leaderEpoch).toBeGreaterThan(leaderEpoch);
      else expect(now).toMatchObject({ leader, leaderEpoch });
    }
    cluster.assertClean();
  });

  it("notices a restart between two looks at the list of brokers by the czxid (bounce-between-reads)", async () => {
    const cluster = await clusterWith(18, 3);
    const controllerId = cluster.controller!.brokerId;
    const { brokerId } = cluster.bystander;
    const own = (): number =>
      [0, 1, 2, 3, 4, 5].filter((number) => cluster.stored("letters", number)?.leader === brokerId).length;
    expect(own()).toBeGreaterThan(0);
    cluster.process(controllerId).pause();
    await cluster.bounce(brokerId);
    expect(cluster.broker(brokerId).topics.size).toBe(0);
    cluster.process(controllerId).resume();
    await cluster.settled();
    await cluster.led("letters");
    expect(cluster.controller?.brokerId).toBe(controllerId);
    cluster.assertClean();
  });
});

/** Ends the connection to ZooKeeper over which a process sends its first takeover, in place of sending it. */
class CutTakeovers {
  readonly cut = new Set<SimProcess>();

  readonly interpose = (process: SimProcess, connector: ZooKeeperConnector): ZooKeeperConnector => ({
    open: (options, handler) => {
      const connection = connector.open(options, handler);
      return {
        request: (request, onResult) => {
          const isTakeover =
            request.kind === "multi" &&
            request.operations.some(({ kind, path }) => kind === "delete" && path === paths.controller);
          if (!isTakeover || this.cut.has(process)) {
            connection.request(request, onResult);
            return;
          }
          this.cut.add(process);
          connection.destroy();
          onResult({ code: "connection-loss" });
        },
        closeSession: () => connection.closeSession(),
        destroy: () => connection.destroy(),
      };
    },
  });
}

describe("a takeover", () => {
  it("that fails for want of ZooKeeper is tried again, long before the session of the dead ends", async () => {
    const cluster = new ControllerCluster(20);
    const takeovers = new CutTakeovers();
    cluster.interpose = takeovers.interpose;
    await cluster.startAll(3);
    await cluster.createTopic("letters");
    expect(takeovers.cut.size).toBe(0);
    cluster.crash(cluster.controller!.brokerId);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 1000, "a new controller");
    expect(takeovers.cut.size).toBeGreaterThan(0);
    expect(await cluster.led("letters")).toBeLessThan(300);
    cluster.assertClean();
  });
});

describe("a controller that was replaced", () => {
  it("changes nothing when it wakes up", async () => {
    const cluster = await clusterWith(21, 3);
    const former = cluster.controller!;
    cluster.process(former.brokerId).pause();
    await cluster.simulation.runUntil(
      () => cluster.alive.some((broker) => broker !== former && broker.node.active !== undefined),
      3 * SESSION_TIMEOUT_MS,
      "a successor",
    );
    await cluster.simulation.run(2000);
    cluster.process(former.brokerId).resume();
    await cluster.simulation.runUntil(() => former.node.active === undefined, 5000, "the former controller resigning");
    await cluster.settled();
    await cluster.led("letters");
    cluster.assertClean();
  });

  it("leaves office in the turn in which its session expires", async () => {
    const cluster = await clusterWith(22, 3);
    const former = cluster.controller!;
    let activeWhenLost: unknown = "never lost";
    former.registration.onLost(() => (activeWhenLost = former.node.active));
    cluster.zookeeper.expireSession(former.zookeeper.sessionId!);
    await cluster.simulation.runUntil(() => activeWhenLost !== "never lost", 5000, "the expiry");
    expect(activeWhenLost).toBeUndefined();
    await cluster.settled();
    await cluster.led("letters");
    cluster.assertClean();
  });

  it("hands over at once when it stops in good order", async () => {
    const cluster = await clusterWith(23, 3);
    const former = cluster.controller!;
    await cluster.simulation.complete(former.stop());
    cluster.crash(former.brokerId);
    await cluster.simulation.runUntil(() => cluster.controller !== undefined, 500, "a new controller");
    await cluster.settled();
    cluster.assertClean();
  });
});

/** Keeps the answers to reads of a registration back. */
class HeldReads {
  #held: (() => void)[] | undefined;

  constructor(private readonly brokerId: number) {}

  hold(): void {
    this.#held = [];
  }

  get isHolding(): boolean {
    return (this.#held?.length ?? 0) > 0;
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const answer of held) answer();
  }

  readonly interpose = (process: SimProcess, connector: ZooKeeperConnector): ZooKeeperConnector => ({
    open: (options, handler) => {
      const connection = connector.open(options, handler);
      return {
        request: (request, onResult) => {
          const isMeant = request.kind === "get" && request.path === paths.broker(this.brokerId);
          connection.request(request, (result) => {
            if (isMeant && this.#held !== undefined) this.#held.push(process.guard(() => onResult(result)));
            else onResult(result);
          });
        },
        closeSession: () => connection.closeSession(),
        destroy: () => connection.destroy(),
      };
    },
  });
}

describe("a controller that leaves office while it reads who is registered", () => {
  it.each([
    ["for the first time", false],
    ["because somebody came", true],
  ])("%s, has no part in the cluster any more", async (_when, isInOffice) => {
    const cluster = new ControllerCluster(26);
    const reads = new HeldReads(3);
    cluster.interpose = reads.interpose;
    await cluster.startAll(isInOffice ? 2 : 4);
    if (!isInOffice) {
      const former = cluster.controller!.brokerId;
      expect(former).not.toBe(3);
      reads.hold();
      cluster.crash(former);
    } else {
      reads.hold();
      void cluster.start(3);
    }
    await cluster.simulation.runUntil(() => reads.isHolding && cluster.controller !== undefined, 2000, "the read");
    const former = cluster.controller!;
    // Its session lives on, and with it the answer to its read.
    const other = cluster.alive.find(({ brokerId }) => brokerId !== 3 && brokerId !== former.brokerId)!;
    void other.zookeeper.remove(paths.broker(former.brokerId), former.registration.version!);
    await cluster.simulation.runUntil(() => former.node.active === undefined, 2000, "it leaving office");
    reads.release();
    await cluster.settled();
    const count = (): number => cluster.alive.reduce((sum, { controlConnections }) => sum + controlConnections, 0);
    const before = count();
    await cluster.simulation.run(5000);
    expect(count()).toBe(before);
    cluster.assertClean();
  });
});

describe("a broker id", () => {
  it("that another host holds is refused after twice the session timeout, naming the owner", async () => {
    const cluster = await clusterWith(24, 3);
    const startMs = cluster.simulation.scheduler.nowMs;
    const holder = cluster.broker(2);
    const twin = cluster.start(2, { host: hostOf(2), port: 9999 });
    await expect(cluster.simulation.complete(twin)).rejects.toThrow(BrokerIdTaken);
    await expect(twin).rejects.toThrow(/broker id 2 .*on host2/);
    expect(cluster.simulation.scheduler.nowMs - startMs).toBeLessThan(2.5 * SESSION_TIMEOUT_MS);
    expect(holder.epoch).toBeDefined();
  });

  it("whose former session still lives is waited for", async () => {
    // Two brokers: one of them is no minority, so nobody fences it, and its successor does not close the session here.
    const cluster = await clusterWith(25, 2, 1);
    const { brokerId } = cluster.bystander;
    cluster.crash(brokerId);
    await cluster.simulation.complete(cluster.start(brokerId), 1.5 * SESSION_TIMEOUT_MS);
    await cluster.settled();
    cluster.assertClean();
  });
});
