import { ZooKeeper, ZooKeeperError } from "../../broker/zookeeper/zookeeper.js";
import type { ZooKeeperConnector, ZooKeeperSessionToken } from "../../common/env/zookeeper-connection.js";
import { silentLogger } from "../../common/logger.js";
import { Simulation } from "./sim-env.js";
import type { SimProcess } from "./sim-process.js";
import { SimZooKeeper } from "./sim-zookeeper.js";

const timeoutMs = 6000;
const none = new Uint8Array(0);

/** An ensemble of three, and processes with a session each, on hosts of their own. */
class World {
  readonly simulation: Simulation;
  readonly ensemble: SimZooKeeper;
  readonly processes = new Map<string, SimProcess>();

  constructor(seed = 1) {
    this.simulation = new Simulation({
      seed,
      zookeeper: (process) => this.ensemble.connectorFor(process),
    });
    this.ensemble = SimZooKeeper.inScheduler(this.simulation.scheduler);
  }

  async session(host: string, servers = this.ensemble.connectString): Promise<ZooKeeper> {
    const process = this.simulation.startProcess(host);
    this.processes.set(host, process);
    const session = new ZooKeeper(process.env, silentLogger, { servers, sessionTimeoutMs: timeoutMs });
    await this.simulation.complete(session.whenConnected(10_000));
    return session;
  }

  process(host: string): SimProcess {
    return this.processes.get(host) as SimProcess;
  }

  /** A registration, guarded; `losses` counts what the guard tells. */
  async register(session: ZooKeeper, path: string): Promise<{ losses: number }> {
    const told = { losses: 0 };
    await this.simulation.complete(session.create(path, none, { ephemeral: true }));
    const { stat } = await this.simulation.complete(session.get(path));
    session.guardOwnNode({ path, czxid: stat.czxid, version: stat.version }, () => (told.losses += 1));
    return told;
  }

  get nowMs(): number {
    return this.simulation.scheduler.nowMs;
  }

  complete<T>(work: Promise<T>): Promise<T> {
    return this.simulation.complete(work);
  }

  until(what: string, condition: () => boolean, limitMs = 30_000): Promise<void> {
    return this.simulation.runUntil(condition, limitMs, what);
  }
}

const kindOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => (error instanceof ZooKeeperError ? error.kind : String(error)),
  );

describe("SimZooKeeper, and the wrapper on it", () => {
  it("removes a dead process's ephemeral when its session times out, in whole ticks", async () => {
    const world = new World();
    const watcher = await world.session("b1");
    const session = await world.session("b2");
    await world.register(session, "/own");
    let gone = false;
    watcher.watchData("/own", (node) => (gone = node === undefined));
    await world.simulation.run(3000);
    world.process("b2").crash();
    const diedMs = world.nowMs;
    await world.until("the ephemeral is gone", () => gone);
    expect(world.nowMs - diedMs).toBeGreaterThan(timeoutMs * 0.8);
    expect(world.nowMs - diedMs).toBeLessThan(timeoutMs + 3 * world.ensemble.tickMs);
  });

  it("keeps a session alive that does nothing but its barriers, and its lease at half the timeout or more", async () => {
    const world = new World();
    const session = await world.session("b1");
    let leastMs = timeoutMs;
    world.simulation.scheduler.afterEachEvent(() => (leastMs = Math.min(leastMs, session.leaseRemainingMs)));
    await world.simulation.run(60_000);
    expect(session.generation).toBe(1);
    expect(leastMs).toBeGreaterThan(0.48 * timeoutMs);
  });

  // A follower that dies takes with it what it had not reported to the leader.
  it("never lets a session expire while its lease holds, whenever the follower behind it dies", async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const world = new World(seed);
      const watcher = await world.session("b0", "zk1");
      // Only one server is known to it, so that nothing else touches the session afterwards.
      const session = await world.session("b1", "zk2:2181");
      await world.complete(session.create("/own", none, { ephemeral: true }));
      let gone = false;
      watcher.watchData("/own", (node) => (gone = node === undefined));
      await world.simulation.run(2000 + 37 * seed);
      world.process("b1").pause();
      await world.simulation.run(0.6 * timeoutMs);
      world.process("b1").resume();
      await world.simulation.run(10 * seed);
      world.ensemble.takeDown("zk2");
      let violated = false;
      world.simulation.scheduler.afterEachEvent(() => {
        const lives = world.ensemble.node("/own") !== undefined;
        if (!lives && session.leaseValid()) violated = true;
      });
      await world.until("the session expires", () => gone);
      expect(violated).toBe(false);
    }
  });

  it("serves stale reads from an isolated server, and no barrier and no write", async () => {
    const world = new World();
    const other = await world.session("b1", "zk1");
    const session = await world.session("b2", "zk3");
    const told = await world.register(session, "/own");
    await world.simulation.run(2000);
    world.ensemble.isolate("zk3");
    await world.complete(other.remove("/own", -1));
    // Its own registration, deleted: it still sees it, and cannot know.
    expect(await world.complete(session.exists("/own"))).toBeDefined();
    expect(told.losses).toBe(0);
    const write = kindOf(session.set("/own", none, -1));
    expect(await world.complete(write)).toBe("OutcomeUnknown");
    world.ensemble.heal("zk3");
    await world.until("it learns of the loss", () => told.losses === 1);
    expect(session.leaseValid()).toBe(false);
    expect(session.generation).toBe(1);
  });

  it("answers nothing without a quorum, expires nothing, and gives every session its whole time afterwards", async () => {
    const world = new World();
    const session = await world.session("b1");
    const told = await world.register(session, "/own");
    const events: string[] = [];
    session.onSessionEvent((event) => events.push(event));
    world.ensemble.loseQuorum();
    await world.until("it notices", () => session.state === "suspended");
    await world.simulation.run(3 * timeoutMs);
    expect(session.state).toBe("suspended");
    expect(session.leaseValid()).toBe(false);
    expect(await world.complete(kindOf(session.get("/")))).toBe("NotConnected");
    expect(world.ensemble.node("/own")).toBeDefined();
    world.ensemble.regainQuorum();
    await world.until("it is back", () => session.state === "connected");
    await world.simulation.run(timeoutMs);
    expect(events).toEqual(["suspended", "connected"]);
    expect([session.generation, told.losses]).toEqual([1, 0]);
  });

  it("keeps sessions when the leader dies", async () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const world = new World(seed);
      const sessions = [await world.session("b1"), await world.session("b2"), await world.session("b3")];
      await world.simulation.run(1000);
      world.ensemble.takeDown(world.ensemble.leader as string);
      const diedMs = world.nowMs;
      await world.until("one notices", () => sessions.every((session) => session.state !== "connected"));
      await world.until("all are back", () => sessions.every((session) => session.state === "connected"));
      expect(world.nowMs - diedMs).toBeLessThan(2000);
      expect(sessions.map((session) => session.generation)).toEqual([1, 1, 1]);
    }
  });

  it("gives up a frozen server within half the session timeout, and what it still holds is not carried out any more", async () => {
    for (let seed = 1; seed <= 12; seed += 1) {
      const world = new World(seed);
      const session = await world.session("b1", "zk2,zk3");
      await world.complete(session.create("/n", none));
      const host = world.ensemble.hostOf(session.sessionId as string) as string;
      world.ensemble.freeze(host);
      const frozenMs = world.nowMs;
      expect(await world.complete(kindOf(session.set("/n", none, -1)))).toBe("OutcomeUnknown");
      expect(world.nowMs - frozenMs).toBeLessThan(timeoutMs / 2 + 100);
      await world.until("it is back", () => session.state === "connected");
      expect(world.ensemble.hostOf(session.sessionId as string)).not.toBe(host);
      world.ensemble.thaw(host);
      await world.simulation.run(3000);
      // The session has moved to another server by then.
      expect(world.ensemble.node("/n")?.version).toBe(0);
      expect(session.generation).toBe(1);
    }
  });

  it("does not take a pause of its own for a silent server", async () => {
    const world = new World();
    const session = await world.session("b1");
    const events: string[] = [];
    session.onSessionEvent((event) => events.push(event));
    // A barrier goes out each second; the one that has just gone out is the one whose answer is awaited.
    await world.simulation.run(2000.05);
    const reads = Promise.all(Array.from({ length: 50 }, () => session.get("/")));
    world.process("b1").pause();
    await world.simulation.run(0.7 * timeoutMs);
    world.process("b1").resume();
    await world.complete(reads);
    await world.simulation.run(2000);
    expect(events).toEqual([]);
  });

  it("learns after a pause longer than its session that it has a new one", async () => {
    const world = new World();
    const session = await world.session("b1");
    const told = await world.register(session, "/own");
    world.process("b1").pause();
    await world.simulation.run(2 * timeoutMs);
    world.process("b1").resume();
    expect(session.leaseValid()).toBe(false);
    await world.until("a new session", () => session.generation === 2 && session.state === "connected");
    expect(told.losses).toBe(1);
  });

  it("lets the lease lapse when the wall clock shows that the machine was suspended", async () => {
    const world = new World();
    const session = await world.session("b1");
    await world.simulation.run(3000);
    expect(session.leaseValid()).toBe(true);
    world.simulation.host("b1").jumpWallClock(timeoutMs / 6 - 100);
    expect(session.leaseValid()).toBe(true);
    world.simulation.host("b1").jumpWallClock(200);
    expect(session.leaseValid()).toBe(false);
    await world.until("two barriers later", () => session.leaseValid());
    // Back is no suspension.
    world.simulation.host("b1").jumpWallClock(-10 * timeoutMs);
    expect(session.leaseValid()).toBe(true);
  });

  it("refuses a session at a server that is behind what the session has seen, so that reads never step back", async () => {
    const world = new World();
    const session = await world.session("b1", "zk1");
    world.ensemble.isolate("zk3");
    await world.complete(session.create("/n", none));
    const told: string[] = [];
    const { env } = world.process("b1");
    const token = session.token() as ZooKeeperSessionToken;
    const options = { host: "zk3", port: 2181, sessionTimeoutMs: timeoutMs, session: token };
    env.zookeeper.open(options, {
      onConnected: () => told.push("connected"),
      onSessionExpired: () => told.push("expired"),
      onWatch: () => undefined,
      onClosed: (error) => told.push(String(error?.message)),
    });
    await world.simulation.run(100);
    expect(told).toEqual(["the server is behind what this session has seen"]);
    expect(session.state).toBe("connected");
  });

  it("cannot reach what the network does not let it reach, and sessions of unreachable processes expire", async () => {
    const simulation: Simulation = new Simulation({
      seed: 3,
      zookeeper: (process): ZooKeeperConnector =>
        ensemble.connectorFor(process, {
          canReach: (host) => simulation.network.reaches(process.hostName, host),
        }),
    });
    const ensemble = SimZooKeeper.inScheduler(simulation.scheduler);
    for (const host of ["zk1", "zk2", "zk3"]) simulation.network.addHost(host);
    const { env } = simulation.startProcess("b1");
    const session = new ZooKeeper(env, silentLogger, { servers: ensemble.connectString, sessionTimeoutMs: timeoutMs });
    await simulation.complete(session.whenConnected(1000));
    simulation.network.isolate("b1");
    await simulation.runUntil(() => session.state === "suspended", timeoutMs);
    await simulation.runUntil(() => ensemble.sessionIds().length === 0, 2 * timeoutMs);
    expect(session.state).toBe("suspended");
    expect(session.generation).toBe(1);
    simulation.network.heal();
    await simulation.runUntil(() => session.generation === 2, timeoutMs);
  });

  it("does the same again from the same seed", async () => {
    const run = async (): Promise<number> => {
      const world = new World(11);
      const session = await world.session("b1");
      await world.register(session, "/own");
      world.ensemble.takeDown("zk2");
      world.process("b1").pause();
      await world.simulation.run(2 * timeoutMs);
      world.process("b1").resume();
      await world.simulation.run(2 * timeoutMs);
      return world.simulation.scheduler.traceHash;
    };
    expect(await run()).toBe(await run());
  });
});
