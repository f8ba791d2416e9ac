import { jest } from "@jest/globals";
import { ZooKeeper, ZooKeeperError } from "../../broker/zookeeper/zookeeper.js";
import type { ZooKeeperSessionToken } from "../../common/env/zookeeper-connection.js";
import { eventually } from "../support/eventually.js";
import { startRealZooKeeper } from "../support/real-zookeeper.js";
import type { RealZooKeeper } from "../support/real-zookeeper.js";
import { TcpProxy } from "../support/tcp-proxy.js";
import { bytes, realZooKeeperEnv, Sessions } from "../support/zookeeper-worlds.js";

// Real servers and real time, on machines that may be busy.
jest.setTimeout(60_000);

/** What became of a piece of work: "done", or the kind of its error. */
function outcomeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "done",
    (error: unknown) => {
      if (error instanceof ZooKeeperError) return error.kind;
      throw error;
    },
  );
}

describe("a real ZooKeeper behind a bad network", () => {
  let real: RealZooKeeper;
  let proxy: TcpProxy;
  let sessions: Sessions;
  /** Past the proxy. */
  let observer: ZooKeeper;
  let testCount = 0;
  let root: string;

  beforeAll(async () => {
    real = await startRealZooKeeper();
  });
  afterAll(() => real.stop());
  beforeEach(async () => {
    proxy = await new TcpProxy(real.servers[0]!.port).listen();
    sessions = new Sessions(realZooKeeperEnv, proxy.address);
    observer = await sessions.open({ servers: real.connectString });
    testCount += 1;
    root = `/f${testCount}`;
    await observer.create(root, bytes(""));
  });
  afterEach(async () => {
    proxy.forward();
    await sessions.closeAll();
    await proxy.refuse();
  });

  it("survives 30 cuts in the middle of answers under load: one session, every answer right, ephemeral kept", async () => {
    const zookeeper = await sessions.open();
    await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
    const before = await observer.get(`${root}/e`);
    const paths = Array.from({ length: 40 }, (_, index) => `${root}/n${index}`);
    for (const [index, path] of paths.entries())
      await observer.create(path, bytes(`data of ${index}`.padEnd(700, "x")));
    const counts = new Map<string, number>();
    let stopped = false;
    const read = async (lane: number): Promise<void> => {
      for (let round = lane; !stopped; round += 1) {
        const index = round % paths.length;
        const outcome = await outcomeOf(
          zookeeper.get(paths[index]!).then(({ data }) => {
            expect(new TextDecoder().decode(data)).toBe(`data of ${index}`.padEnd(700, "x"));
          }),
        );
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
        if (outcome !== "done") await zookeeper.whenConnected(5000);
      }
    };
    const load = Promise.all(Array.from({ length: 20 }, (_, lane) => read(lane)));
    for (let cut = 1; cut <= 30; cut += 1) {
      const done = counts.get("done") ?? 0;
      await eventually("reads go on", () => (counts.get("done") ?? 0) > done + 50);
      const accepted = proxy.accepted;
      proxy.cutAfter(1 + ((cut * 397) % 1500));
      await eventually("it comes back", () => proxy.accepted > accepted && zookeeper.state === "connected");
    }
    stopped = true;
    await load;

    expect(zookeeper.generation).toBe(1);
    expect((await observer.get(`${root}/e`)).stat.czxid).toBe(before.stat.czxid);
    expect(
      [...counts.keys()].filter((outcome) => !["done", "OutcomeUnknown", "NotConnected"].includes(outcome)),
    ).toEqual([]);
    expect(counts.get("OutcomeUnknown")).toBeGreaterThan(10);
  });

  it("gives up a server that went silent within half the session timeout, failing what was in flight", async () => {
    const zookeeper = await sessions.open({ sessionTimeoutMs: 1800 });
    await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
    proxy.swallow();
    const startMs = performance.now();
    const sent = outcomeOf(zookeeper.set(root, bytes("done"), 0));
    await eventually("it notices", () => zookeeper.state === "suspended");
    const noticedMs = performance.now() - startMs;
    expect(noticedMs).toBeGreaterThan(0.3 * 1800);
    expect(noticedMs).toBeLessThan(0.5 * 1800 + 1000);
    expect(await sent).toBe("OutcomeUnknown");
    expect(await outcomeOf(zookeeper.get(root))).toBe("NotConnected");
    // It had an effect: that is what unknown means.
    expect((await observer.get(root)).stat.version).toBe(1);

    proxy.forward();
    proxy.cut();
    await zookeeper.whenConnected(5000);
    expect(zookeeper.generation).toBe(1);
    expect((await zookeeper.get(`${root}/e`)).stat.ephemeralOwner).toBe(zookeeper.sessionId);
  });

  it("lets the lease lapse while stalled, before the server lets the session expire, and hears of it only from the server", async () => {
    const zookeeper = await sessions.open({ sessionTimeoutMs: 1800 });
    await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
    const { stat } = await zookeeper.get(`${root}/e`);
    const events: string[] = [];
    let losses = 0;
    zookeeper.onSessionEvent((event) => events.push(event));
    zookeeper.guardOwnNode({ path: `${root}/e`, czxid: stat.czxid, version: stat.version }, () => (losses += 1));
    await eventually("the lease rests on barriers", () => zookeeper.leaseRemainingMs > 1200);
    let goneAtMs = Number.POSITIVE_INFINITY;
    observer.watchData(`${root}/e`, (node) => {
      if (node === undefined) goneAtMs = performance.now();
    });
    proxy.stall();
    await eventually("the lease lapses", () => !zookeeper.leaseValid());
    const lapsedAtMs = performance.now();
    await eventually("the session expires at the server", () => goneAtMs < Number.POSITIVE_INFINITY);
    expect(lapsedAtMs).toBeLessThan(goneAtMs);
    expect(zookeeper.state).toBe("suspended");
    expect([events, losses]).toEqual([["suspended"], 0]);

    proxy.forward();
    proxy.cut();
    await eventually("a new session", () => zookeeper.generation === 2);
    expect(events).toEqual(["suspended", "expired", "connected", "new-session"]);
    expect(losses).toBe(1);
    expect(zookeeper.leaseValid()).toBe(true);
  });

  it("tries the servers in turn when one accepts connections and stays silent, or refuses them", async () => {
    const silent = await new TcpProxy(real.servers[0]!.port).listen();
    silent.stall();
    const refusing = await new TcpProxy(real.servers[0]!.port).listen();
    await refusing.refuse();
    try {
      const zookeeper = sessions.start({
        servers: `${silent.address},${refusing.address},${proxy.address}`,
        sessionTimeoutMs: 1800,
      });
      const startMs = performance.now();
      await zookeeper.whenConnected(5000);
      expect(performance.now() - startMs).toBeLessThan(1800);
    } finally {
      await silent.refuse();
    }
  });

  it("names each server and what it saw of it when none takes it up", async () => {
    const refusing = await new TcpProxy(real.servers[0]!.port).listen();
    await refusing.refuse();
    proxy.stall();
    const zookeeper = sessions.start({ servers: `${refusing.address},${proxy.address}`, sessionTimeoutMs: 1200 });
    const error: unknown = await zookeeper.whenConnected(700).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: "ZooKeeperError", kind: "NotConnected" });
    expect((error as Error).message).toContain(`${refusing.address}: connect ECONNREFUSED`);
    expect((error as Error).message).toContain(`${proxy.address}: it did not answer within`);
  });

  it("delivers after a reconnect what changed meanwhile, for thousands of watches", async () => {
    const zookeeper = await sessions.open();
    const paths = Array.from({ length: 2000 }, (_, index) => `${root}/a-rather-long-name-of-a-node-${index}`);
    await Promise.all(paths.map((path) => observer.create(path, bytes(""))));
    const versions = new Map<string, number>();
    for (const path of paths) zookeeper.watchData(path, (node) => versions.set(path, node?.stat.version ?? -1));
    await eventually("all snapshots", () => versions.size === paths.length);
    await proxy.refuse();
    await eventually("it is suspended", () => zookeeper.state === "suspended");
    await Promise.all(
      paths.map((path, index) => (index % 2 === 0 ? observer.set(path, bytes("x"), 0) : observer.remove(path, 0))),
    );
    await proxy.listen();
    await eventually("all changes", () =>
      paths.every((path, index) => versions.get(path) === (index % 2 === 0 ? 1 : -1)),
    );
    await observer.set(paths[0]!, bytes("y"), 1);
    await eventually("and the next one", () => versions.get(paths[0]!) === 2);
    expect(zookeeper.generation).toBe(1);
  });

  it("closes in bounded time when the server is silent, and at once when there is no connection", async () => {
    const silent = await sessions.open({ sessionTimeoutMs: 1800 });
    const lost = sessions.start();
    await lost.whenConnected(5000);
    proxy.swallow();
    const startMs = performance.now();
    await silent.close();
    expect(performance.now() - startMs).toBeLessThan(2500);
    await proxy.refuse();
    await eventually("it is suspended", () => lost.state === "suspended");
    const lostMs = performance.now();
    await lost.close();
    expect(performance.now() - lostMs).toBeLessThan(200);
    expect([silent.state, lost.state]).toEqual(["closed", "closed"]);
  });

  it("says so when a former session could not be ended for want of a server", async () => {
    const token = observer.token() as ZooKeeperSessionToken;
    proxy.stall();
    expect(await ZooKeeper.closeSession(realZooKeeperEnv, { servers: proxy.address, token, timeoutMs: 300 })).toBe(
      false,
    );
    expect(await observer.exists(root)).toBeDefined();
  });
});

describe("a real ensemble of three", () => {
  let real: RealZooKeeper;
  let sessions: Sessions;

  beforeAll(async () => {
    real = await startRealZooKeeper(3);
  });
  afterAll(() => real.stop());
  beforeEach(() => {
    sessions = new Sessions(realZooKeeperEnv, real.connectString);
  });
  afterEach(() => sessions.closeAll());

  it("keeps the session and its ephemeral when the leader is killed, and again when the killed one is back", async () => {
    const zookeeper = await sessions.open({ sessionTimeoutMs: 3000 });
    await zookeeper.create("/e", bytes(""), { ephemeral: true });
    const { stat } = await zookeeper.get("/e");
    let losses = 0;
    zookeeper.guardOwnNode({ path: "/e", czxid: stat.czxid, version: stat.version }, () => (losses += 1));
    const leader = await real.leader();
    await leader.kill();
    await eventually("writes go on", async () => (await outcomeOf(zookeeper.set("/e2", bytes(""), -1))) === "NoNode");
    expect(zookeeper.generation).toBe(1);
    expect((await zookeeper.get("/e")).stat.czxid).toBe(stat.czxid);
    expect(losses).toBe(0);
    await leader.start();
    await leader.waitUntilServing();
  });

  it("moves on from a frozen server within half the session timeout", async () => {
    const zookeeper = await sessions.open({ sessionTimeoutMs: 1800 });
    await zookeeper.create("/frozen", bytes(""), { ephemeral: true });
    const startMs = performance.now();
    const leader = await real.leader();
    // Freezing two of three leaves no quorum, and the one that is left silent as well.
    const followers = real.servers.filter((server) => server !== leader);
    for (const server of [leader, followers[0]!]) server.freeze();
    try {
      await eventually("it notices", () => zookeeper.state === "suspended");
      expect(performance.now() - startMs).toBeLessThan(0.5 * 1800 + 1000);
      await eventually("the lease lapses", () => !zookeeper.leaseValid());
      expect(zookeeper.generation).toBe(1);
    } finally {
      for (const server of [leader, followers[0]!]) server.thaw();
    }
    await zookeeper.whenConnected(10_000);
  });
});
