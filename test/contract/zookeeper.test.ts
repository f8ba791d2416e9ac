import { jest } from "@jest/globals";
import { ZooKeeper, ZooKeeperError } from "../../broker/zookeeper/zookeeper.js";
import type {
  ZooKeeperConnection,
  ZooKeeperRequest,
  ZooKeeperResult,
  ZooKeeperSessionToken,
} from "../../common/env/zookeeper-connection.js";
import { eventually } from "../support/eventually.js";
import { bytes, inMemoryWorld, realWorld, Sessions, textOf } from "../support/zookeeper-worlds.js";
import type { ZooKeeperWorld } from "../support/zookeeper-worlds.js";

// Real servers and real time, on machines that may be busy.
jest.setTimeout(60_000);

// The same promises, kept by the real server and by the simulator's: what the simulation shows is worth as much as this.
describe.each([
  ["in memory", inMemoryWorld],
  ["real", realWorld],
])("ZooKeeper %s", (_name, startWorld) => {
  let world: ZooKeeperWorld;
  let sessions: Sessions;
  let testCount = 0;
  /** A node of its own for each test. */
  let root: string;

  beforeAll(async () => {
    world = await startWorld();
  });
  afterAll(() => world.stop());
  beforeEach(async () => {
    sessions = new Sessions(world.env, world.connectString);
    testCount += 1;
    root = `/t${testCount}`;
    const session = await sessions.open();
    await session.create(root, bytes(""));
  });
  afterEach(() => sessions.closeAll());

  const failure = async (work: Promise<unknown>): Promise<ZooKeeperError> => {
    const error: unknown = await work.then(
      () => "no error",
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ZooKeeperError);
    return error as ZooKeeperError;
  };

  describe("nodes", () => {
    it("gives a node its data, and metadata that tell who made it, when, and how often it changed", async () => {
      const zookeeper = await sessions.open();
      await zookeeper.create(`${root}/a`, bytes("one"));
      await zookeeper.create(`${root}/b`, bytes("two"), { ephemeral: true });
      const made = await zookeeper.get(`${root}/a`);
      const stat = await zookeeper.set(`${root}/a`, bytes("three"), 0);
      const changed = await zookeeper.get(`${root}/a`);
      const ephemeral = await zookeeper.get(`${root}/b`);

      expect(textOf(made)).toBe("one");
      expect(made.stat).toEqual({
        czxid: made.stat.czxid,
        mzxid: made.stat.czxid,
        version: 0,
        cversion: 0,
        ephemeralOwner: undefined,
        childCount: 0,
      });
      expect(textOf(changed)).toBe("three");
      expect(changed.stat).toEqual({ ...made.stat, mzxid: stat.mzxid, version: 1 });
      expect(stat).toEqual(changed.stat);
      expect(ephemeral.stat.ephemeralOwner).toBe(zookeeper.sessionId);
      expect(ephemeral.stat.czxid > made.stat.czxid).toBe(true);
      expect(stat.mzxid > ephemeral.stat.czxid).toBe(true);
    });

    it("keeps empty data and every byte value", async () => {
      const zookeeper = await sessions.open();
      const all = Uint8Array.from({ length: 256 }, (_, index) => index);
      await zookeeper.create(`${root}/empty`, bytes(""));
      await zookeeper.create(`${root}/all`, all);
      expect([...(await zookeeper.get(`${root}/empty`)).data]).toEqual([]);
      expect([...(await zookeeper.get(`${root}/all`)).data]).toEqual([...all]);
    });

    it("counts children and their coming and going, and lists their names sorted", async () => {
      const zookeeper = await sessions.open();
      for (const name of ["c", "a", "b"]) await zookeeper.create(`${root}/${name}`, bytes(""));
      await zookeeper.remove(`${root}/b`, 0);
      expect(await zookeeper.children(root)).toEqual(["a", "c"]);
      expect(await zookeeper.exists(root)).toMatchObject({ childCount: 2, cversion: 4, version: 0 });
      expect(await zookeeper.children("/")).toContain("zookeeper");
    });

    it("says of each failed operation what was wrong", async () => {
      const zookeeper = await sessions.open();
      await zookeeper.create(`${root}/a`, bytes(""));
      await zookeeper.create(`${root}/a/b`, bytes(""));
      await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
      const kindOf = async (work: Promise<unknown>): Promise<string> => (await failure(work)).kind;

      expect(await kindOf(zookeeper.get(`${root}/x`))).toBe("NoNode");
      expect(await kindOf(zookeeper.children(`${root}/x`))).toBe("NoNode");
      expect(await kindOf(zookeeper.set(`${root}/x`, bytes(""), -1))).toBe("NoNode");
      expect(await kindOf(zookeeper.remove(`${root}/x`, -1))).toBe("NoNode");
      expect(await kindOf(zookeeper.create(`${root}/x/y`, bytes("")))).toBe("NoNode");
      expect(await kindOf(zookeeper.create(`${root}/a`, bytes("")))).toBe("NodeExists");
      expect(await kindOf(zookeeper.create(`${root}/e/f`, bytes("")))).toBe("BadArguments");
      expect(await kindOf(zookeeper.set(`${root}/a`, bytes(""), 1))).toBe("BadVersion");
      expect(await kindOf(zookeeper.remove(`${root}/a/b`, 7))).toBe("BadVersion");
      expect(await kindOf(zookeeper.remove(`${root}/a`, 3))).toBe("BadVersion");
      expect(await kindOf(zookeeper.remove(`${root}/a`, 0))).toBe("NotEmpty");
      expect(await zookeeper.exists(`${root}/x`)).toBeUndefined();
      expect(await zookeeper.getIfExists(`${root}/x`)).toBeUndefined();
    });

    it("refuses what it could not send, and goes on", async () => {
      const zookeeper = await sessions.open();
      const big = new Uint8Array(1_000_000);
      expect((await failure(zookeeper.create(`${root}/big`, big))).kind).toBe("TooLarge");
      const halves = [big.subarray(0, 500_000), big.subarray(0, 500_000)];
      const both = halves.map(
        (data, index) => ({ kind: "create", path: `${root}/${index}`, data, ephemeral: false }) as const,
      );
      expect((await failure(zookeeper.multi(both))).kind).toBe("TooLarge");
      for (const path of ["", "a", "/a/", "/a//b", "/a/./b", "/a/../b", "/a\u0000b"]) {
        expect((await failure(zookeeper.get(path))).kind).toBe("BadArguments");
      }
      for (const version of [-2, 0.5, 2 ** 31, Number.NaN]) {
        expect((await failure(zookeeper.set(root, bytes(""), version))).kind).toBe("BadArguments");
      }
      await zookeeper.create(`${root}/almost`, big.subarray(0, 990_000));
      expect((await zookeeper.get(`${root}/almost`)).data.length).toBe(990_000);
      expect(zookeeper.state).toBe("connected");
    });

    it("makes missing ancestors, empty, and is content with existing ones", async () => {
      const zookeeper = await sessions.open();
      await zookeeper.ensurePath(`${root}/x/y/z`);
      await zookeeper.ensurePath(`${root}/x/y/z`);
      await zookeeper.ensurePath(`${root}/x/q`);
      expect(await zookeeper.children(`${root}/x`)).toEqual(["q", "y"]);
      expect([...(await zookeeper.get(`${root}/x/y`)).data]).toEqual([]);
    });

    it("keeps everything below the chroot of the connect string", async () => {
      const inside = await sessions.open({ servers: `${world.connectString}${root}/deep` });
      const outside = await sessions.open();
      await inside.ensurePath("/a");
      const seen: (string | undefined)[] = [];
      inside.watchData("/a", (node) => seen.push(textOf(node)));
      await inside.multi([{ kind: "set", path: "/a", data: bytes("x"), version: 0 }]);
      await eventually("the watch sees the change", () => seen.at(-1) === "x");
      expect(textOf(await outside.get(`${root}/deep/a`))).toBe("x");
      expect(await inside.children("/")).toEqual(["a"]);
      await eventually("the lease holds", () => inside.leaseValid());
    });

    it("carries thousands of operations begun at once, in the order in which they were begun", async () => {
      const zookeeper = await sessions.open();
      const names = Array.from({ length: 2000 }, (_, index) => `${root}/n${index}`);
      await Promise.all(names.map((path, index) => zookeeper.create(path, bytes(String(index)))));
      const nodes = await zookeeper.getMany([...names, `${root}/none`]);
      expect(nodes.map(textOf)).toEqual([...names.map((_, index) => String(index)), undefined]);
      expect(
        nodes.slice(0, -1).every((node, index) => index === 0 || node!.stat.czxid > nodes[index - 1]!.stat.czxid),
      ).toBe(true);
      expect(await zookeeper.childrenMany([root, `${root}/none`, `${root}/n1`])).toEqual([
        await zookeeper.children(root),
        undefined,
        [],
      ]);
      await Promise.all(Array.from({ length: 300 }, (_, version) => zookeeper.set(root, bytes(""), version)));
    });
  });

  describe("transactions", () => {
    it("makes all changes, each seeing those before it", async () => {
      const zookeeper = await sessions.open();
      const results = await zookeeper.multi([
        { kind: "check", path: root, version: 0 },
        { kind: "create", path: `${root}/a`, data: bytes("1"), ephemeral: false },
        { kind: "create", path: `${root}/a/b`, data: bytes(""), ephemeral: false },
        { kind: "set", path: `${root}/a`, data: bytes("2"), version: 0 },
        { kind: "delete", path: `${root}/a/b`, version: 0 },
        { kind: "create", path: `${root}/e`, data: bytes(""), ephemeral: true },
      ]);
      const a = await zookeeper.get(`${root}/a`);
      const e = await zookeeper.get(`${root}/e`);
      expect(textOf(a)).toBe("2");
      expect(e.stat.czxid).toBe(a.stat.czxid);
      expect(e.stat.ephemeralOwner).toBe(zookeeper.sessionId);
      expect(results).toHaveLength(6);
      expect(results[3]?.stat).toEqual({ ...a.stat, cversion: 1, childCount: 1 });
    });

    it("makes no change when one fails, and says which", async () => {
      const zookeeper = await sessions.open();
      const error = await failure(
        zookeeper.multi([
          { kind: "set", path: root, data: bytes("changed"), version: -1 },
          { kind: "create", path: `${root}/a`, data: bytes(""), ephemeral: false },
          { kind: "check", path: `${root}/a`, version: 5 },
          { kind: "create", path: `${root}/b`, data: bytes(""), ephemeral: false },
        ]),
      );
      expect(error).toMatchObject({ kind: "BadVersion", failedIndex: 2, path: `${root}/a` });
      expect(await zookeeper.children(root)).toEqual([]);
      expect((await zookeeper.get(root)).stat).toMatchObject({ version: 0, cversion: 0 });
    });

    it("really checks version 0", async () => {
      const zookeeper = await sessions.open();
      await zookeeper.set(root, bytes("x"), 0);
      const fail = async (kind: "check" | "set" | "delete"): Promise<string> => {
        const operation =
          kind === "set" ? { kind, path: root, data: bytes(""), version: 0 } : { kind, path: root, version: 0 };
        return (await failure(zookeeper.multi([operation]))).kind;
      };
      expect(await fail("check")).toBe("BadVersion");
      expect(await fail("set")).toBe("BadVersion");
      expect(await fail("delete")).toBe("BadVersion");
      expect(textOf(await zookeeper.get(root))).toBe("x");
    });

    it("takes the empty one for done", async () => {
      expect(await (await sessions.open()).multi([])).toEqual([]);
    });

    it("lets one of two win that start from the same version", async () => {
      const both = [await sessions.open(), await sessions.open()];
      const outcomes = await Promise.allSettled(
        both.map((zookeeper) =>
          zookeeper.multi([
            { kind: "create", path: `${root}/office`, data: bytes(""), ephemeral: true },
            { kind: "set", path: root, data: bytes(""), version: 0 },
          ]),
        ),
      );
      expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
    });
  });

  describe("watches", () => {
    it("shows a node's data at once, at each change, at its end and at its return", async () => {
      const zookeeper = await sessions.open();
      const other = await sessions.open();
      const seen: (string | undefined)[] = [];
      const path = `${root}/a`;
      const sees = (what: string | undefined, count: number): Promise<void> =>
        eventually(`snapshot ${count} is ${what}`, () => seen.length === count && seen.at(-1) === what);
      const watch = zookeeper.watchData(path, (node) => seen.push(textOf(node)));
      await sees(undefined, 1);
      await other.create(path, bytes("1"));
      await sees("1", 2);
      await other.set(path, bytes("2"), -1);
      await sees("2", 3);
      await other.remove(path, -1);
      await sees(undefined, 4);
      await other.create(path, bytes("3"));
      await sees("3", 5);
      watch.close();
      watch.close();
      await other.set(path, bytes("4"), -1);
      await zookeeper.get(path);
      expect(seen).toHaveLength(5);
    });

    it("shows the names of children, sorted, at each change of them", async () => {
      const zookeeper = await sessions.open();
      const other = await sessions.open();
      const seen: (readonly string[] | undefined)[] = [];
      const path = `${root}/a`;
      zookeeper.watchChildren(path, (names) => seen.push(names));
      await eventually("its absence", () => seen.length === 1);
      await other.create(path, bytes(""));
      await eventually("its creation", () => seen.at(-1)?.length === 0);
      await other.create(`${path}/y`, bytes(""));
      await eventually("the first child", () => seen.at(-1)?.length === 1);
      await other.create(`${path}/x`, bytes(""));
      await eventually("the second child", () => seen.at(-1)?.length === 2);
      await other.remove(`${path}/y`, -1);
      await other.remove(`${path}/x`, -1);
      await other.remove(path, -1);
      await eventually("its end", () => seen.at(-1) === undefined);
      expect(seen.slice(0, 4)).toEqual([undefined, [], ["y"], ["x", "y"]]);
    });

    it("ends with the newest state however quick the changes", async () => {
      const zookeeper = await sessions.open();
      const other = await sessions.open();
      const versions: number[] = [];
      zookeeper.watchData(root, (node) => versions.push(node!.stat.version));
      await Promise.all(Array.from({ length: 200 }, () => other.set(root, bytes(""), -1)));
      await eventually("the last version", () => versions.at(-1) === 200);
      expect(versions).toEqual([...versions].sort((left, right) => left - right));
    });

    it("serves several watchers of one node", async () => {
      const zookeeper = await sessions.open();
      const seen = [0, 0];
      zookeeper.watchData(root, (node) => (seen[0] = node!.stat.version));
      const second = zookeeper.watchData(root, (node) => (seen[1] = node!.stat.version));
      await zookeeper.set(root, bytes(""), -1);
      await eventually("both", () => seen[0] === 1 && seen[1] === 1);
      second.close();
      await zookeeper.set(root, bytes(""), -1);
      await eventually("the one that is left", () => seen[0] === 2);
      expect(seen[1]).toBe(1);
    });
  });

  describe("sessions", () => {
    it("removes a session's ephemeral nodes at once when it is closed", async () => {
      const other = await sessions.open();
      const zookeeper = await sessions.open();
      await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
      const seen: (readonly string[] | undefined)[] = [];
      other.watchChildren(root, (names) => seen.push(names));
      await eventually("it is there", () => seen.at(-1)?.length === 1);
      await zookeeper.close();
      expect(await other.exists(`${root}/e`)).toBeUndefined();
      await eventually("the watch fires", () => seen.at(-1)?.length === 0);
      expect(zookeeper.state).toBe("closed");
      expect((await failure(zookeeper.get(root))).kind).toBe("NotConnected");
      expect((await failure(zookeeper.whenConnected(10))).kind).toBe("NotConnected");
    });

    it("keeps the ephemeral nodes of a lost process until its session times out", async () => {
      const other = await sessions.open();
      const zookeeper = await sessions.open({ sessionTimeoutMs: 1200 });
      await zookeeper.create(`${root}/e`, bytes(""), { ephemeral: true });
      const lostAtMs = performance.now();
      zookeeper.abandon();
      await eventually("it expires", async () => (await other.exists(`${root}/e`)) === undefined, 5000);
      expect(performance.now() - lostAtMs).toBeGreaterThan(0.7 * 1200);
      expect(performance.now() - lostAtMs).toBeLessThan(1200 + 1000);
    });

    it("ends the session of a former process on its successor's word", async () => {
      const other = await sessions.open();
      const former = await sessions.open();
      await former.create(`${root}/e`, bytes(""), { ephemeral: true });
      const token = former.token() as ZooKeeperSessionToken;
      former.abandon();
      const end = { servers: world.connectString, token, timeoutMs: 5000 };
      expect(await ZooKeeper.closeSession(world.env, end)).toBe(true);
      expect(await other.exists(`${root}/e`)).toBeUndefined();
      // It is over already.
      expect(await ZooKeeper.closeSession(world.env, end)).toBe(true);
    });

    it("does not let a wrong password take a session up", async () => {
      const zookeeper = await sessions.open();
      const token = { ...(zookeeper.token() as ZooKeeperSessionToken), password: new Uint8Array(16) };
      const { connection, events } = openRaw(world, token);
      await eventually("it is told", () => events.includes("closed"));
      connection.destroy();
      expect(events).toEqual(["expired", "closed"]);
      // The server may have ended the rightful connection, but not the session.
      await zookeeper.whenConnected(5000);
      expect(zookeeper.generation).toBe(1);
      await zookeeper.create(`${root}/alive`, bytes(""));
    });

    it("takes expiry from the server's word, and goes on in a new session with every watch", async () => {
      const zookeeper = await sessions.open();
      const first = zookeeper.sessionId;
      const events: string[] = [];
      const seen: (string | undefined)[] = [];
      zookeeper.onSessionEvent((event) => events.push(`${event} in generation ${zookeeper.generation}`));
      await zookeeper.create(`${root}/e`, bytes("mine"), { ephemeral: true });
      zookeeper.watchData(`${root}/e`, (node) => seen.push(textOf(node)));
      await eventually("the snapshot", () => seen.at(-1) === "mine");
      const token = zookeeper.token() as ZooKeeperSessionToken;
      await ZooKeeper.closeSession(world.env, { servers: world.connectString, token, timeoutMs: 5000 });
      await eventually("a new session", () => zookeeper.generation === 2 && zookeeper.state === "connected");
      await eventually("the snapshot without", () => seen.at(-1) === undefined);
      expect(events).toEqual([
        "suspended in generation 1",
        "expired in generation 1",
        "connected in generation 2",
        "new-session in generation 2",
      ]);
      expect(zookeeper.sessionId).not.toBe(first);
      await zookeeper.create(`${root}/e`, bytes("mine again"), { ephemeral: true });
      await eventually("the watch lives", () => seen.at(-1) === "mine again");
    });
  });

  describe("lease and own node", () => {
    it("holds the lease for five sixths of the session timeout from the barrier before the last", async () => {
      const zookeeper = await sessions.open({ sessionTimeoutMs: 1800 });
      expect(zookeeper.leaseRemainingMs).toBeGreaterThan(1000);
      const least: number[] = [];
      const endMs = performance.now() + 1300;
      await eventually("time passes", () => {
        least.push(zookeeper.leaseRemainingMs);
        return performance.now() > endMs;
      });
      // Between 5/6 - 1/6 right after a barrier and 1/6 less right before the next, if nothing is late.
      expect(Math.max(...least.slice(-60))).toBeLessThan(1500 - 300 + 1);
      expect(Math.min(...least.slice(-60))).toBeGreaterThan(300);
    });

    it.each([
      ["is deleted", (other: ZooKeeper, path: string) => other.remove(path, -1)],
      [
        "is replaced by another's in one step",
        (other: ZooKeeper, path: string) =>
          other.multi([
            { kind: "delete", path, version: -1 },
            { kind: "create", path, data: bytes(""), ephemeral: true },
          ]),
      ],
      ["is changed by somebody", (other: ZooKeeper, path: string) => other.set(path, bytes("x"), -1)],
    ])("tells at once when the own node %s, and the lease lapses", async (_what, harm) => {
      const other = await sessions.open();
      const zookeeper = await sessions.open();
      const path = `${root}/own`;
      await zookeeper.create(path, bytes(""), { ephemeral: true });
      const { stat } = await zookeeper.get(path);
      const losses: boolean[] = [];
      zookeeper.guardOwnNode({ path, czxid: stat.czxid, version: stat.version }, () =>
        losses.push(zookeeper.leaseValid()),
      );
      await zookeeper.get(path);
      expect(losses).toEqual([]);
      const startMs = performance.now();
      await harm(other, path);
      await eventually("the loss", () => losses.length > 0);
      // Not at the next barrier, a second later: the watch tells.
      expect(performance.now() - startMs).toBeLessThan(900);
      expect(losses).toEqual([false]);
      expect(zookeeper.state).toBe("connected");
    });

    it("finds at the next barrier what no watch told: a node of this name that is not the registered one", async () => {
      const zookeeper = await sessions.open();
      const path = `${root}/own`;
      await zookeeper.create(path, bytes(""), { ephemeral: true });
      const { stat } = await zookeeper.get(path);
      let losses = 0;
      zookeeper.guardOwnNode({ path, czxid: stat.czxid - 1n, version: stat.version }, () => (losses += 1));
      await eventually("the loss", () => losses === 1);
    });
  });

  describe("one connection", () => {
    it("tells a read's result before the watch event of the next change", async () => {
      const other = await sessions.open();
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      const log = (what: string) => (result: ZooKeeperResult) => events.push(`${what} ${result.code}`);
      connection.request({ kind: "get", path: root, watch: true }, log("get"));
      connection.request({ kind: "children", path: root, watch: true }, log("children"));
      connection.request({ kind: "exists", path: `${root}/a`, watch: true }, log("exists"));
      connection.request({ kind: "get", path: `${root}/a`, watch: true }, log("get absent"));
      await eventually("answers", () => events.length === 5);
      await other.set(root, bytes(""), -1);
      await other.create(`${root}/a`, bytes(""));
      await other.set(root, bytes(""), -1);
      await eventually("events", () => events.length === 8);
      connection.destroy();
      await eventually("closed", () => events.length === 9);
      expect(events).toEqual([
        "connected",
        "get ok",
        "children ok",
        "exists no-node",
        "get absent no-node",
        `data-changed ${root}`,
        `created ${root}/a`,
        `children-changed ${root}`,
        "closed",
      ]);
    });

    it("tells of one deletion once, whichever of its watches it fires", async () => {
      const other = await sessions.open();
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      const silent = (): undefined => undefined;
      connection.request({ kind: "get", path: root, watch: true }, silent);
      connection.request({ kind: "exists", path: root, watch: true }, silent);
      connection.request({ kind: "children", path: root, watch: true }, () => events.push("armed"));
      await eventually("armed", () => events.length === 2);
      await other.remove(root, -1);
      await new Promise((resolve) => connection.request({ kind: "exists", path: root, watch: false }, resolve));
      await other.create(root, bytes(""));
      await new Promise((resolve) => connection.request({ kind: "exists", path: root, watch: false }, resolve));
      connection.destroy();
      expect(events.slice(0, 3)).toEqual(["connected", "armed", `deleted ${root}`]);
      expect(events.filter((event) => event.startsWith("deleted"))).toHaveLength(1);
    });

    it("tells a writer of its own change before the answer", async () => {
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      const log = (what: string) => (result: ZooKeeperResult) => events.push(`${what} ${result.code}`);
      connection.request({ kind: "get", path: root, watch: true }, log("get"));
      connection.request({ kind: "set", path: root, data: bytes(""), version: -1 }, log("set"));
      connection.request({ kind: "get", path: root, watch: false }, log("get"));
      await eventually("answers", () => events.length === 5);
      connection.destroy();
      expect(events.slice(1)).toEqual(["get ok", `data-changed ${root}`, "set ok", "get ok"]);
    });

    it("answers in the order of the requests, whatever their kind, with codes for each operation of a failed multi", async () => {
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      const results: ZooKeeperResult[] = [];
      const requests: ZooKeeperRequest[] = [
        { kind: "create", path: `${root}/a`, data: bytes("a"), ephemeral: false },
        { kind: "get", path: `${root}/a`, watch: false },
        { kind: "check", path: `${root}/a`, version: 0 },
        { kind: "check", path: `${root}/a`, version: 1 },
        {
          kind: "multi",
          operations: [
            { kind: "check", path: "/", version: -1 },
            { kind: "check", path: `${root}/none`, version: -1 },
            { kind: "set", path: root, data: bytes(""), version: -1 },
          ],
        },
        { kind: "delete", path: `${root}/a`, version: 0 },
        { kind: "children", path: root, watch: false },
      ];
      for (const request of requests) connection.request(request, (result) => results.push(result));
      await eventually("answers", () => results.length === requests.length);
      connection.destroy();
      expect(results.map((result) => result.code)).toEqual(["ok", "ok", "ok", "bad-version", "no-node", "ok", "ok"]);
      expect(results[4]?.results?.map((one) => one.code)).toEqual(["ok", "no-node", "runtime-inconsistency"]);
      expect(results.every((result, index) => index === 0 || result.zxid! >= results[index - 1]!.zxid!)).toBe(true);
    });

    it("answers what is in flight with connection-loss when it is destroyed, and then closes", async () => {
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      for (const name of ["a", "b"]) {
        connection.request({ kind: "get", path: "/", watch: false }, (result) => events.push(`${name} ${result.code}`));
      }
      connection.destroy();
      connection.destroy();
      connection.request({ kind: "get", path: "/", watch: false }, (result) => events.push(`late ${result.code}`));
      await eventually("closed", () => events.includes("closed"));
      expect(events).toEqual(["connected", "a connection-loss", "b connection-loss", "late connection-loss", "closed"]);
      connection.request({ kind: "get", path: "/", watch: false }, (result) => events.push(`after ${result.code}`));
      expect(events.at(-1)).toBe("after connection-loss");
    });

    it("confirms the end of a session that was asked for", async () => {
      const { connection, events } = openRaw(world);
      await eventually("connected", () => events.length === 1);
      connection.request({ kind: "get", path: "/", watch: false }, (result) => events.push(`get ${result.code}`));
      connection.closeSession();
      await eventually("closed", () => events.length === 3);
      expect(events).toEqual(["connected", "get ok", "closed as asked"]);
    });
  });
});

/** A connection below the wrapper, and what it tells, in words. */
function openRaw(
  world: ZooKeeperWorld,
  session?: ZooKeeperSessionToken,
): { readonly connection: ZooKeeperConnection; readonly events: string[] } {
  const [host, port] = world.connectString.split(":") as [string, string];
  const events: string[] = [];
  const connection = world.env.zookeeper.open(
    { host, port: Number(port), sessionTimeoutMs: 6000, ...(session !== undefined && { session }) },
    {
      onConnected: () => events.push("connected"),
      onSessionExpired: () => events.push("expired"),
      onWatch: (event) => events.push(`${event.kind} ${event.path}`),
      onClosed: (error) => events.push(error === undefined ? "closed as asked" : "closed"),
    },
  );
  return { connection, events };
}
