import { jest } from "@jest/globals";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { readClusterState, writeClusterState } from "../../../../tools/local-cluster/cluster-state.js";
import type { ClusterState } from "../../../../tools/local-cluster/cluster-state.js";
import { dataPlace, prepareDataPlace } from "../../../../tools/local-cluster/data-place.js";
import { LocalCluster } from "../../../../tools/local-cluster/local-cluster.js";
import { PortClaims } from "../../../../tools/local-cluster/port-claims.js";
import {
  describePortHolder,
  isAnyListening,
  isPortFree,
  isPortPermitted,
  orphansOf,
} from "../../../../tools/local-cluster/ports.js";
import { conditionOf, identityOf, signalProcess } from "../../../../tools/local-cluster/process-identity.js";
import type { ProcessIdentity } from "../../../../tools/local-cluster/process-identity.js";
import { eventually } from "../../../support/eventually.js";

let directory: string;
beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
});
afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

describe("process identity", () => {
  it("follows a process through pause and end, also while nobody has collected it", async () => {
    // The shell's child ends and stays a zombie, because the shell never waits.
    const shell = spawn("sh", ["-c", "sleep 30 & echo $!; exec sleep 30"], { stdio: ["ignore", "pipe", "ignore"] });
    try {
      const pid = Number(await new Promise((resolve) => shell.stdout.once("data", resolve)));
      const identity = identityOf(pid)!;
      expect(conditionOf(identity)).toBe("running");
      signalProcess(identity, "SIGSTOP");
      await eventually("it is paused", () => conditionOf(identity) === "paused");
      signalProcess(identity, "SIGCONT");
      await eventually("it is running", () => conditionOf(identity) === "running");
      expect(signalProcess(identity, "SIGKILL")).toBe(true);
      await eventually("it is gone", () => conditionOf(identity) === "gone");
      expect(signalProcess(identity, "SIGKILL")).toBe(false);
    } finally {
      shell.kill("SIGKILL");
    }
  });

  it("does not take a later process with the same number, or one of an earlier boot, for the one it knew", () => {
    const own = identityOf(process.pid)!;
    expect(conditionOf(own)).toBe("running");
    expect(conditionOf({ ...own, startTime: `${own.startTime}0` })).toBe("gone");
    expect(conditionOf({ ...own, bootId: "another" })).toBe("gone");
    expect(signalProcess({ ...own, startTime: "1" }, "SIGKILL")).toBe(false);
  });
});

describe("ports", () => {
  it("knows the processes of a cluster whose directory was deleted", async () => {
    const data = path.join(directory, "data");
    const listen =
      'require("net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port) })';
    const children: ChildProcess[] = [];
    const start = async (log: string): Promise<{ readonly port: number; readonly pid: number }> => {
      fs.mkdirSync(path.dirname(path.join(data, log)), { recursive: true });
      const errors = fs.openSync(path.join(data, log), "a");
      const child = spawn(process.execPath, ["-e", listen], { stdio: ["ignore", "pipe", errors] });
      fs.closeSync(errors);
      children.push(child);
      const port = Number(await new Promise((resolve) => child.stdout?.once("data", resolve)));
      return { port, pid: child.pid as number };
    };
    try {
      const broker = await start("logs/broker-1.log");
      const zookeeper = await start("zookeeper-1/zookeeper.log");
      expect(await orphansOf(broker.port)).toEqual([]);
      fs.rmSync(data, { recursive: true });
      // Where the system does not tell which files a process has open, it is any other process.
      const pids = process.platform === "linux" ? [broker.pid, zookeeper.pid].sort((a, b) => a - b) : [];
      expect((await orphansOf(broker.port)).sort((a, b) => a - b)).toEqual(pids);
      const options = { timeoutMs: 1000, signal: new AbortController().signal, say: () => undefined };
      await expect(new LocalCluster(data).start({ ...options, brokers: 1, port: broker.port })).rejects.toMatchObject({
        errorName: "PORT_TAKEN",
        hint: expect.stringContaining(pids.length === 0 ? "stop it" : "whose directory was deleted still runs there: "),
      });
    } finally {
      for (const child of children) child.kill("SIGKILL");
    }
  });

  it("knows whether anybody listens at the addresses of a ZooKeeper", async () => {
    const server = net.createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    expect(await isAnyListening(`127.0.0.1:1,127.0.0.1:${port}/a/path`)).toBe(true);
    await new Promise((resolve) => server.close(resolve));
    expect(await isAnyListening(`127.0.0.1:1,127.0.0.1:${port}/a/path`)).toBe(false);
  });

  it("knows who holds a port, and the next one that is free", async () => {
    const server = net.createServer((socket) => socket.resume());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    try {
      expect(await isPortFree(port)).toBe(false);
      expect(await describePortHolder(port)).toContain(`(pid ${process.pid})`);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
    expect(await isPortFree(port)).toBe(true);
    expect(await isPortPermitted(port)).toBe(true);
  });

  it("tells one that nobody has and this user may not have", async () => {
    // Who runs the tests may be allowed everything.
    const listen = jest.spyOn(net.Server.prototype, "listen").mockImplementation(function (this: net.Server) {
      setImmediate(() => this.emit("error", Object.assign(new Error("permission denied"), { code: "EACCES" })));
      return this;
    });
    try {
      expect([await isPortFree(80), await isPortPermitted(80)]).toEqual([false, false]);
    } finally {
      listen.mockRestore();
    }
  });
});

describe("port claims", () => {
  it("keep a port from every other cluster that starts, until they are given up", async () => {
    const [one, other] = [new PortClaims("one", directory), new PortClaims("other", directory)];
    const port = (await one.claimAny()) as number;
    expect(await one.claim(port)).toBe("ours");
    expect(await other.claim(port)).toBe("claimed");
    expect(await other.claimFrom(port)).toBeGreaterThan(port);
    const sameAgain = new PortClaims("one", directory);
    expect(await sameAgain.claim(port)).toBe("shared");
    expect(await sameAgain.claimFrom(port)).toBeGreaterThan(port);
    await sameAgain.release();
    await one.release();
    expect(await other.claim(port)).toBe("ours");
    await other.release();
    expect(fs.readdirSync(directory)).toEqual([]);
  });

  it("are not to be had for a port on which somebody listens", async () => {
    const claims = new PortClaims("one", directory);
    const port = (await claims.claimAny()) as number;
    await claims.release();
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    try {
      expect(await claims.claim(port)).toBe("taken");
      expect(await claims.claimFrom(port)).toBeGreaterThan(port);
    } finally {
      await claims.release();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("leave a stopped process of another cluster its port, as long as that cluster runs", async () => {
    const other = path.join(directory, "other");
    fs.mkdirSync(other);
    const claims = new PortClaims("one", directory);
    const port = (await claims.claimAny()) as number;
    await claims.release();
    new PortClaims(other, directory).keep([port]);
    const running = { id: 1, port: 1, process: identityOf(process.pid)! };
    const servers = [{ id: 1, port: 2, quorumPort: port, electionPort: 3 }];
    const state = { version: 1 as const, brokers: [running], zookeepers: servers, settings: {} };
    writeClusterState(other, state);
    expect([await claims.claim(port), claims.ownerOf(port)]).toEqual(["kept", other]);
    expect(await claims.claimFrom(port)).toBeGreaterThan(port);
    expect(await new PortClaims(other, directory).claim(port)).toBe("ours");
    await claims.release();
    // Nothing of it runs, it has moved, or nobody can read what it is: the port is anybody's.
    writeClusterState(other, { ...state, brokers: [{ id: 1, port: 1 }] });
    expect(claims.ownerOf(port)).toBeUndefined();
    writeClusterState(other, { ...state, zookeepers: [] });
    expect(claims.ownerOf(port)).toBeUndefined();
    fs.writeFileSync(path.join(other, "cluster.json"), "{");
    expect(claims.ownerOf(port)).toBeUndefined();
  });

  it("give different ports to one who asks again, below those of outgoing connections", async () => {
    const claims = new PortClaims("one", directory);
    const first = (await claims.claimFrom(20_000)) as number;
    expect(await claims.claimFrom(first)).toBeGreaterThan(first);
    expect(await claims.claimAny()).toBeLessThan(32_768);
    await claims.release();
  });
});

describe("the state file", () => {
  const state: ClusterState = {
    version: 1,
    brokers: [
      { id: 1, port: 9092, process: { pid: 5, startTime: "7", bootId: "b" } },
      { id: 2, port: 9093 },
    ],
    zookeepers: [{ id: 1, port: 2181, quorumPort: 2888, electionPort: 2889 }],
    settings: { "num.partitions": "3" },
  };

  it("gives back what was written, and nothing where there is none", () => {
    expect(readClusterState(directory)).toBeUndefined();
    expect(readClusterState(path.join(directory, "missing"))).toBeUndefined();
    writeClusterState(directory, state);
    expect(readClusterState(directory)).toEqual(state);
    expect(fs.readdirSync(directory)).toEqual(["cluster.json"]);
  });

  it.each(["", "{", "[]", '{"version":2}', '{"version":1,"brokers":[{"id":"1"}],"zookeepers":[],"settings":{}}'])(
    "refuses a file that holds %p instead of guessing what runs",
    (text) => {
      fs.writeFileSync(path.join(directory, "cluster.json"), text);
      expect(() => readClusterState(directory)).toThrow("is not a state file of this version");
    },
  );
});

describe("a local cluster", () => {
  afterEach(() => jest.restoreAllMocks());

  it("is stopped also when its disk takes no byte more, and nothing is left behind by that", async () => {
    const broker = spawn("sleep", ["60"], { stdio: "ignore" });
    const identity = identityOf(broker.pid as number) as ProcessIdentity;
    const state = {
      version: 1,
      brokers: [{ id: 1, port: 9092, process: identity }],
      zookeepers: [],
      settings: {},
    } as const;
    writeClusterState(directory, state);
    const full = (file: string): Error => {
      // The name of a file is still to be had.
      fs.closeSync(fs.openSync(file, "w"));
      return Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC", path: file });
    };
    jest.spyOn(fs.promises, "writeFile").mockImplementation((file) => Promise.reject(full(file as string)));
    jest.spyOn(fs, "writeFileSync").mockImplementation((file) => {
      throw full(file as string);
    });
    try {
      expect(await new LocalCluster(directory).stop(() => undefined)).toBe(1);
      expect(conditionOf(identity)).toBe("gone");
      expect(fs.readdirSync(directory)).toEqual(["cluster.json"]);
    } finally {
      broker.kill("SIGKILL");
    }
  });
});

describe("a broker that is being restarted", () => {
  it("is restarted by a second command too, and not stopped for the sake of its own port", async () => {
    const broker = spawn("sleep", ["60"], { stdio: "ignore" });
    const process = identityOf(broker.pid as number) as ProcessIdentity;
    // The first command has started it, has let go of its lock, and waits for it to serve.
    const first = new PortClaims(directory);
    const port = (await first.claimAny()) as number;
    writeClusterState(directory, { version: 1, brokers: [{ id: 1, port, process }], zookeepers: [], settings: {} });
    try {
      const options = { timeoutMs: 500, signal: new AbortController().signal, say: () => undefined };
      const [target] = new LocalCluster(directory).processes();
      const error: unknown = await new LocalCluster(directory)
        .restart(target!, options)
        .catch((cause: unknown) => cause);
      // There is no program to start here.
      expect(error).toMatchObject({ errorName: expect.not.stringMatching("PORT_TAKEN") });
    } finally {
      await first.release();
      broker.kill("SIGKILL");
    }
  });
});

describe("the data directory", () => {
  it("is what the user says, else OTTLA_HOME, else .ottla here", () => {
    expect(dataPlace("/a", { OTTLA_HOME: "/b" })).toBe("/a");
    expect(dataPlace(undefined, { OTTLA_HOME: "/b" })).toBe("/b");
    expect(dataPlace(undefined, {})).toBe(path.resolve(".ottla"));
  });

  it("is made with its parents, and left as it was found", () => {
    const data = path.join(directory, "a", "b");
    prepareDataPlace(data);
    prepareDataPlace(data);
    expect(fs.readdirSync(data)).toEqual([]);
  });
});

describe("a start that cannot be", () => {
  const options = { timeoutMs: 1000, signal: new AbortController().signal, say: (): void => undefined };
  const state = (port: number): ClusterState => ({
    version: 1,
    brokers: [1, 2, 3].map((id) => ({ id, port: port + id - 1 })),
    zookeepers: [{ id: 1, port: 2181, quorumPort: 2888, electionPort: 2889 }],
    settings: {},
  });

  it.each([
    [65_530, { brokers: 9 }, "USAGE", "--brokers 9 would give broker 7 port 65536"],
    [65_530, { zookeeperPort: 65_531 }, "USAGE", "ZooKeeper server 1 the port of broker 2, 65531"],
    [9092, { brokers: 1 }, "BROKER_COUNT", "has 3 brokers, not 1"],
    [9092, { zookeepers: 3 }, "ZOOKEEPER_COUNT", "was made with 1 ZooKeeper server, not 3"],
    [9092, { zookeeper: "127.0.0.1:1" }, "ZOOKEEPER_CHANGED", "not at 127.0.0.1:1"],
    [9092, { settings: { nosuch: "1" } }, "INVALID_CONFIG", "--set: nosuch"],
  ])("of a cluster on port %d, with %j, is %s, and nothing is touched", async (port, asked, errorName, sentence) => {
    writeClusterState(directory, state(port));
    const file = path.join(directory, "cluster.json");
    const before = [fs.readFileSync(file, "utf8"), fs.statSync(directory).mtimeMs];
    const starting = new LocalCluster(directory).start({ ...options, ...asked });
    await expect(starting).rejects.toMatchObject({ errorName, message: expect.stringContaining(sentence) });
    expect([fs.readFileSync(file, "utf8"), fs.statSync(directory).mtimeMs]).toEqual(before);
    expect(fs.readdirSync(directory)).toEqual(["cluster.json"]);
  });

  it("tells of a wrong OTTLA_ZOOKEEPER by its name", async () => {
    const former = process.env["OTTLA_ZOOKEEPER"];
    process.env["OTTLA_ZOOKEEPER"] = "nonsense:x";
    try {
      const data = path.join(directory, "new");
      const starting = new LocalCluster(data).start(options);
      await expect(starting).rejects.toThrow('OTTLA_ZOOKEEPER: "nonsense:x" does not name ZooKeeper servers');
      expect(fs.readdirSync(directory)).toEqual([]);
    } finally {
      if (former === undefined) delete process.env["OTTLA_ZOOKEEPER"];
      else process.env["OTTLA_ZOOKEEPER"] = former;
    }
  });
});
