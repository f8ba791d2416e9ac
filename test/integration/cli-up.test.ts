import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { tryLock } from "../../common/env/node-file-lock.js";
import { jsonLines, runOttla, startOttla, startProgram, TestCluster } from "../support/cluster.js";
import { startRealZooKeeper } from "../support/real-zookeeper.js";
import { eventually } from "../support/eventually.js";
import { writeClusterState } from "../../tools/local-cluster/cluster-state.js";
import { conditionOf, identityOf } from "../../tools/local-cluster/process-identity.js";
import type { ProcessIdentity } from "../../tools/local-cluster/process-identity.js";

interface ProcessStatus {
  readonly kind: "broker" | "zookeeper";
  readonly id: number;
  readonly pid: number | null;
  readonly port: number;
  readonly alive: boolean;
  readonly controller?: boolean;
  readonly leads?: number;
  readonly mode?: string | null;
}

function listen(port: number): Promise<net.Server> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy());
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

const portOf = (server: net.Server): number => (server.address() as net.AddressInfo).port;

describe("ottla up", () => {
  let directory: string;
  let data: string;
  beforeEach(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    data = directory;
  });
  afterEach(async () => {
    await runOttla(["down", "--data", data]);
    fs.rmSync(directory, { recursive: true, force: true });
  }, 30_000);

  const up = (...args: string[]) => runOttla(["up", "--detach", "--data", data, "--brokers", "1", ...args]);
  const status = async (): Promise<ProcessStatus[]> =>
    jsonLines<ProcessStatus>((await runOttla(["status", "--data", data, "--json"])).stdout);

  it("lies in any directory, whatever letters its name has", async () => {
    data = path.join(directory, "Übung 1\\n日本 😀");
    // Where no locale is set Java takes names of files for ASCII.
    const environment = { LC_ALL: "C" };
    const { code, stderr } = await runOttla(["up", "--detach", "--data", data, "--brokers", "1", "--port", "0"], {
      environment,
    });
    expect([code, stderr]).toEqual([0, ""]);
    expect(fs.existsSync(path.join(data, "zookeeper-1", "version-2"))).toBe(true);
  }, 60_000);

  it("finds its data again at the same place after a stop, and a cluster that still runs", async () => {
    const first = await up("--json", "--port", "0");
    expect(first.stderr).toBe("");
    const [line] = jsonLines<Record<string, string>>(first.stdout);
    expect(line).toEqual({
      cluster: expect.any(String),
      bootstrap: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      zookeeper: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      data,
    });
    const environment = { OTTLA_BOOTSTRAP: line?.["bootstrap"] };
    expect((await runOttla(["topic", "create", "kept"], { environment })).code).toBe(0);
    expect((await runOttla(["produce", "kept"], { environment, input: "still here\n" })).code).toBe(0);
    const pids = (await status()).map(({ pid }) => pid);

    const again = await up("--json");
    expect(jsonLines(again.stdout)).toEqual([line]);
    const elsewhere = await up("--port", "0");
    expect([elsewhere.code, elsewhere.stderr]).toEqual([
      0,
      `the cluster in ${data} keeps its ports: --port 0 is for brokers that are new\n` +
        "of an earlier run, still running: broker 1, ZooKeeper server 1\n",
    ]);
    expect(elsewhere.stdout).toContain(`\n  commands   OTTLA_BOOTSTRAP=${line?.["bootstrap"]} ottla topic list\n`);
    expect((await status()).map(({ pid }) => pid)).toEqual(pids);

    expect(jsonLines((await runOttla(["down", "--data", data, "--json"])).stdout)).toEqual([{ stopped: 2 }]);
    expect(
      pids.filter(
        (pid) => pid !== null && conditionOf(identityOf(pid) ?? { pid, startTime: "", bootId: "" }) !== "gone",
      ),
    ).toEqual([]);
    expect(await status()).toMatchObject([
      { kind: "broker", pid: null, alive: false, health: "stopped" },
      { kind: "zookeeper", pid: null, alive: false, health: "stopped", mode: null },
    ]);
    expect(jsonLines((await runOttla(["down", "--data", data, "--json"])).stdout)).toEqual([{ stopped: 0 }]);

    const [restarted] = jsonLines((await up("--json")).stdout);
    expect(restarted).toMatchObject({ cluster: line?.["cluster"], bootstrap: line?.["bootstrap"] });
    const { stdout } = await runOttla(["consume", "kept", "--from", "earliest", "--until-end"], { environment });
    expect(stdout).toBe("still here\n");
  }, 60_000);

  it("keeps clusters apart that start at the same time", async () => {
    const starts = await Promise.allSettled(Array.from({ length: 3 }, () => TestCluster.start()));
    const clusters = starts.flatMap((start) => (start.status === "fulfilled" ? [start.value] : []));
    try {
      expect(starts.filter(({ status }) => status === "rejected")).toEqual([]);
      expect(new Set(clusters.map(({ clusterId }) => clusterId)).size).toBe(3);
      expect(new Set(clusters.map(({ zookeeper }) => zookeeper)).size).toBe(3);
      const ports = clusters.flatMap(({ bootstrap }) => bootstrap.split(","));
      expect(new Set(ports).size).toBe(9);
    } finally {
      await Promise.all(clusters.map((cluster) => cluster.close()));
    }
  }, 120_000);

  it("lives in an already running ZooKeeper, if told of one, and stays there", async () => {
    const zookeeper = await startRealZooKeeper();
    const address = `${zookeeper.connectString}/ottla-test`;
    try {
      const { code, stdout, stderr } = await up("--json", "--port", "0", "--zookeeper", address);
      expect([code, stderr]).toEqual([0, ""]);
      expect(jsonLines(stdout)).toEqual([expect.objectContaining({ zookeeper: address })]);
      expect((await status()).map(({ kind, alive }) => [kind, alive])).toEqual([["broker", true]]);
      expect(jsonLines((await runOttla(["down", "--data", data, "--json"])).stdout)).toEqual([{ stopped: 1 }]);
      expect(jsonLines((await up("--json")).stdout)).toEqual(jsonLines(stdout));
      const moved = await up("--zookeeper", "127.0.0.1:1");
      expect(moved.stderr).toMatch(/^error: ZOOKEEPER_CHANGED: /);
      await runOttla(["down", "--data", data]);
    } finally {
      await zookeeper.stop();
    }
    const both = await runOttla(["up", "--data", `${data}-2`, "--zookeepers", "1", "--zookeeper", address]);
    expect([both.code, both.stderr]).toEqual([2, expect.stringMatching(/^error: USAGE: /)]);
    fs.rmSync(`${data}-2`, { recursive: true, force: true });
  }, 60_000);

  it("stays in the foreground until Ctrl-C and leaves nothing behind", async () => {
    const foreground = startOttla(["up", "--data", data, "--brokers", "1", "--port", "0"]);
    await eventually("it serves", () => foreground.stdout().includes("\n"));
    const running = await status();
    expect(running.every(({ alive }) => alive)).toBe(true);
    // npm and npx hand on what the terminal has sent already: one Ctrl-C, two signals.
    foreground.kill("SIGINT");
    foreground.kill("SIGTERM");
    expect((await foreground.result).code).toBe(0);
    expect((await status()).some(({ alive }) => alive)).toBe(false);
  }, 60_000);

  it("goes on when a second one that only watches it ends", async () => {
    const first = startOttla(["up", "--data", data, "--brokers", "1", "--port", "0"]);
    await eventually("it serves", () => first.stderr().includes("Ctrl-C stops it"));
    const second = startOttla(["up", "--data", data]);
    await eventually("it is found", () => second.stderr().includes("it ran before, and goes on after Ctrl-C"));
    second.kill("SIGINT");
    expect((await second.result).code).toBe(0);
    expect((await status()).every(({ alive }) => alive)).toBe(true);
    first.kill("SIGINT");
    expect((await first.result).code).toBe(0);
    expect((await status()).some(({ alive }) => alive)).toBe(false);
  }, 60_000);

  it("puts ZooKeeper where it was asked to, or says who is there", async () => {
    const taken = await listen(0);
    const port = portOf(taken);
    const refused = await up("--port", "0", "--zookeeper-port", String(port));
    expect(refused.stderr).toMatch(
      new RegExp(`^error: PORT_TAKEN: port ${port} is taken by node .* - stop it, or .*--zookeeper-port`),
    );
    await new Promise((resolve) => taken.close(resolve));
    const [line] = jsonLines((await up("--json", "--port", "0", "--zookeeper-port", String(port))).stdout);
    expect(line).toMatchObject({ zookeeper: `127.0.0.1:${port}` });
    expect((await up("--zookeeper-port", "1")).stderr).toMatch(/^error: ALREADY_RUNNING: /);
  }, 60_000);

  it("does not take another cluster for its own that answers where its brokers were", async () => {
    const [line] = jsonLines<Record<string, string>>((await up("--json", "--port", "0")).stdout);
    await runOttla(["down", "--data", data]);
    const other = `${data}-other`;
    const port = String(line?.["bootstrap"]?.split(":")[1]);
    const started = await runOttla(["up", "--detach", "--data", other, "--brokers", "1", "--port", port]);
    try {
      expect(started.code).toBe(0);
      for (const target of ["controller", "leader:t"]) {
        const { code, stderr } = await runOttla(["kill", target, "--data", data]);
        expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: NOT_RUNNING: no broker of the cluster in /)]);
      }
      expect(await status()).toMatchObject([{ kind: "broker", alive: false, controller: false }, { alive: false }]);
      // Its state file is that of the other one, as when a directory was copied: processes run, and are not its own.
      const file = path.join(data, "cluster.json");
      const state = JSON.parse(fs.readFileSync(path.join(other, "cluster.json"), "utf8")) as object;
      fs.writeFileSync(file, JSON.stringify({ ...state, cluster: line?.["cluster"] }));
      const { code, stderr } = await runOttla(["kill", "controller", "--data", data]);
      expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: OTHER_CLUSTER: .* answers, and not /)]);
      fs.rmSync(file);
    } finally {
      await runOttla(["down", "--data", other]);
      fs.rmSync(other, { recursive: true, force: true });
    }
  }, 90_000);

  it("waits for another command that works on the cluster, and then stops it all the same", async () => {
    const foreground = startOttla(["up", "--data", data, "--brokers", "1", "--port", "0"]);
    await eventually("it serves", () => foreground.stdout().includes("\n"));
    const other = await tryLock(path.join(data, "up.lock"));
    foreground.kill("SIGINT");
    await eventually("it waits", () => foreground.stderr().includes("another ottla command"));
    await other?.release();
    expect((await foreground.result).code).toBe(0);
    expect((await status()).some(({ alive }) => alive)).toBe(false);
  }, 60_000);

  it("names every taken port and who holds it, and starts nothing", async () => {
    const taken = await listen(0);
    try {
      const { code, stderr } = await up("--port", String(portOf(taken)));
      expect(code).toBe(1);
      expect(stderr).toMatch(
        new RegExp(
          `^error: PORT_TAKEN: port ${portOf(taken)} is taken by [^\\n]*\\(pid ${process.pid}\\) - [^\\n]*--port[^\\n]*\\n$`,
        ),
      );
      expect(fs.existsSync(path.join(data, "cluster.json"))).toBe(false);
    } finally {
      taken.close();
    }
  });

  it("gives brokers the ports that they were promised, and ZooKeeper another where it had one of them", async () => {
    const [first] = jsonLines<Record<string, string>>((await up("--json", "--port", "0")).stdout);
    await runOttla(["down", "--data", data]);
    const port = first?.["zookeeper"]?.split(":")[1] as string;
    const { code, stdout, stderr } = await up("--json", "--port", port);
    expect([code, stderr]).toEqual([0, ""]);
    const [moved] = jsonLines<Record<string, string>>(stdout);
    expect(moved?.["bootstrap"]).toBe(`127.0.0.1:${port}`);
    expect(moved?.["zookeeper"]).not.toBe(first?.["zookeeper"]);
  }, 60_000);

  it("says that it is a Kafka broker that holds the port", async () => {
    // Answers ApiVersions as Kafka does: with the correlation id of the request.
    const kafka = net.createServer((socket) => {
      socket.on("data", (request) => {
        const answer = Buffer.alloc(10);
        answer.writeInt32BE(6, 0);
        request.copy(answer, 4, 8, 12);
        socket.end(answer);
      });
    });
    await new Promise<void>((resolve) => kafka.listen(0, "127.0.0.1", resolve));
    try {
      const { stderr } = await up("--port", String(portOf(kafka)));
      expect(stderr).toContain("is taken by a Kafka broker (pid ");
    } finally {
      kafka.close();
    }
  });

  it("tells a data directory that is none, and one that cannot be made", async () => {
    const file = path.join(data, "file");
    fs.writeFileSync(file, "");
    for (const [place, error] of [
      [file, "DATA_NOT_A_DIRECTORY"],
      [path.join(file, "below"), "DATA_NOT_A_DIRECTORY"],
      ["/proc/ottla", "DATA_NOT_WRITABLE"],
    ] as const) {
      const { code, stderr } = await runOttla(["up", "--detach", "--data", place]);
      expect(stderr).toMatch(new RegExp(`^error: ${error}: [^\\n]+ - [^\\n]+\\n$`));
      expect(code).toBe(1);
    }
  });

  it("says what a broker died of when it does not start, stops the rest, and does not remember it", async () => {
    const place = path.join(data, "broker-1");
    fs.writeFileSync(place, "");
    const { code, stderr } = await up("--port", "0");
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^error: DID_NOT_START: broker 1 ended instead of serving: DATA_DIRECTORY: [^\n]*broker-1[^\n]*\n$/m,
    );
    fs.rmSync(place);
    expect((await runOttla(["status", "--data", data])).stderr).toMatch(/^error: NO_CLUSTER: /);

    // What that start died of still stands in the log.
    const hurried = await up("--port", "0", "--timeout", "1ms");
    expect(hurried.stderr).toMatch(/ - see \S+, or give it longer with --timeout$/m);
    expect(hurried.stderr).toMatch(/^error: START_TIMED_OUT: [^\n]* does not serve yet - /m);

    const served = await up("--json", "--port", "0");
    expect([served.code, served.stderr]).toEqual([0, ""]);
    await runOttla(["down", "--data", data]);
    fs.renameSync(place, `${place}-kept`);
    fs.writeFileSync(place, "");
    expect((await up("--brokers", "2", "--set", "num.partitions=7")).code).toBe(1);
    fs.rmSync(place);
    fs.renameSync(`${place}-kept`, place);
    expect(jsonLines((await up("--json")).stdout)).toEqual(jsonLines(served.stdout));
  }, 60_000);

  it("says what it adds to a cluster that is there, and what goes on as it was", async () => {
    const taken = await up("--port", "0");
    expect(taken.stderr).toBe("");
    const grown = await up("--brokers", "2", "--port", "0", "--set", "num.partitions=4");
    expect([grown.code, grown.stderr]).toEqual([
      0,
      "adding broker 2; replicas stay where they are, new topics use all brokers\n" +
        "broker 1 goes on with the settings of before: those of --set come with a restart (ottla restart 1)\n" +
        "of an earlier run, still running: broker 1, ZooKeeper server 1\n",
    ]);
    expect((await status()).map(({ kind, alive }) => [kind, alive])).toEqual([
      ["broker", true],
      ["broker", true],
      ["zookeeper", true],
    ]);
    const fewer = await up();
    expect([fewer.code, fewer.stderr]).toEqual([
      1,
      expect.stringMatching(/^error: BROKER_COUNT: .* has 2 brokers, not 1 - leave out --brokers: .*\n$/),
    ]);
    await runOttla(["kill", "1", "--data", data]);
    expect((await runOttla(["kill", "2", "--data", data])).code).toBe(0);
    const { stderr, stdout } = await runOttla(["down", "--data", data]);
    expect([stderr, stdout]).toEqual(["stopping 1 process\n", "stopped 1 process\n"]);
  }, 60_000);

  it("says that its brokers wait for a ZooKeeper that somebody else was to start", async () => {
    const { code, stderr } = await up("--port", "0", "--zookeeper", "127.0.0.1:1", "--timeout", "500ms");
    expect([code, stderr]).toEqual([
      1,
      "error: START_TIMED_OUT: broker 1 does not serve yet: it waits for ZooKeeper, and nobody answers at 127.0.0.1:1 - " +
        "start that ZooKeeper, or correct --zookeeper\n",
    ]);
  }, 60_000);

  it("does not know what brokers do that say nothing", async () => {
    await up("--port", "0");
    await runOttla(["pause", "1", "--data", data]);
    const { stdout } = await runOttla(["status", "--data", data]);
    expect(stdout).toMatch(/^broker +1 .* paused +\? +\?$/m);
    expect(await status()).toMatchObject([
      { kind: "broker", alive: true, health: "paused", controller: null, leads: null, replicas: null },
      { kind: "zookeeper", alive: true, health: "serving" },
    ]);
  }, 60_000);

  it("leaves a ZooKeeper in Docker to Docker, instead of ending only its client", async () => {
    const client = spawn("sleep", ["60"], { stdio: "ignore" });
    const identity = identityOf(client.pid as number) as ProcessIdentity;
    try {
      writeClusterState(data, {
        version: 1,
        brokers: [],
        zookeepers: [
          { id: 1, port: 1, quorumPort: 2, electionPort: 3, container: "ottla-zookeeper-1", process: identity },
        ],
        settings: {},
      });
      const { code, stderr } = await runOttla(["kill", "zookeeper:1", "--data", data]);
      expect([code, stderr]).toEqual([
        1,
        expect.stringMatching(/^error: IN_DOCKER: .* - type docker kill ottla-zookeeper-1\n$/),
      ]);
      expect(conditionOf(identity)).toBe("running");
    } finally {
      client.kill("SIGKILL");
    }
  });

  it("has no status before it has a cluster", async () => {
    const { code, stderr } = await runOttla(["status", "--data", data]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: NO_CLUSTER: /);
  });
});

describe("npm start", () => {
  it("stops what it started when nobody reads what it says any more", async () => {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    try {
      const script = fileURLToPath(new URL("../../scripts/start.mjs", import.meta.url));
      const started = startProgram(script, ["--data", data, "--brokers", "1", "--port", "0"]);
      await eventually("it serves", () => started.stdout().includes("Ctrl-C stops it"), 60_000);
      started.closeOutput();
      started.closeErrors();
      started.kill("SIGINT");
      expect((await started.result).code).toBe(0);
      const processes = jsonLines<ProcessStatus>((await runOttla(["status", "--data", data, "--json"])).stdout);
      expect(processes.map(({ kind, alive }) => [kind, alive])).toEqual([
        ["broker", false],
        ["zookeeper", false],
      ]);
    } finally {
      await runOttla(["down", "--data", data]);
      fs.rmSync(data, { recursive: true, force: true });
    }
  }, 120_000);
});

describe("ottla kill, pause, resume and restart", () => {
  it("do to a process what they say, and the cluster goes on", async () => {
    await using cluster = await TestCluster.start();
    const find = async (id: number): Promise<ProcessStatus | undefined> =>
      (await cluster.json<ProcessStatus>(["status"])).find((entry) => entry.kind === "broker" && entry.id === id);
    await cluster.json(["topic", "create", "t"]);
    await cluster.json(["produce", "t"], "before\n");
    const [killed] = await cluster.json(["kill", "leader:t"]);
    expect(killed).toEqual({ action: "kill", kind: "broker", id: expect.any(Number), pid: expect.any(Number) });
    const id = killed?.["id"] as number;
    expect(await find(id)).toMatchObject({ alive: false, pid: null });
    await cluster.json(["produce", "t"], "during\n");

    const controller = async (): Promise<number | undefined> =>
      (await cluster.json<ProcessStatus>(["status"])).find((entry) => entry.controller === true)?.id;
    await eventually("there is a controller", async () => (await controller()) !== undefined);
    const paused = await controller();
    expect(await cluster.json(["pause", "controller"])).toMatchObject([{ action: "pause", id: paused }]);
    expect(await cluster.json(["resume", String(paused)])).toMatchObject([{ action: "resume", id: paused }]);

    const resumed = await cluster.ottla(["resume", String(paused)]);
    expect([resumed.code, resumed.stdout]).toEqual([
      0,
      expect.stringMatching(new RegExp(`^broker ${paused} \\(pid \\d+\\) was not paused\\n$`)),
    ]);

    expect(await cluster.json(["restart", String(id)])).toMatchObject([{ action: "restart", id }]);
    await eventually("all replicas are in sync", async () => {
      const [topic] = await cluster.json<{ partitions: { isr: number[] }[] }>(["topic", "describe", "t"]);
      return topic?.partitions[0]?.isr.length === 3;
    });
    const { stdout } = await cluster.ottla(["consume", "t", "--from", "earliest", "--until-end"]);
    expect(stdout).toBe("before\nduring\n");
    const unknown = await cluster.ottla(["kill", "7"]);
    expect(unknown.stderr).toMatch(/^error: UNKNOWN_TARGET: .* - it has 1, 2, 3\n$/);

    for (const target of ["1", "zookeeper:1"]) {
      const [ended] = await cluster.json<ProcessStatus>(["kill", target]);
      const { port } = (await cluster.json<ProcessStatus>(["status"])).find(
        (entry) => entry.kind === ended?.kind && entry.id === ended.id,
      ) as ProcessStatus;
      const squatter = await listen(port);
      expect((await cluster.ottla(["restart", target])).stderr).toContain(
        `error: PORT_TAKEN: port ${port} is taken by node`,
      );
      await new Promise((resolve) => squatter.close(resolve));
      expect(await cluster.json(["restart", target])).toMatchObject([{ action: "restart", kind: ended?.kind }]);
    }
  }, 60_000);

  it("restart several at once, also brokers that wait for ZooKeeper while that is restarted", async () => {
    await using cluster = await TestCluster.start();
    for (const target of ["1", "2", "zookeeper:1"]) await cluster.json(["kill", target]);
    const brokers = ["1", "2"].map((id) => cluster.json(["restart", id]));
    const restarted = await cluster.json(["restart", "zookeeper:1"]);
    expect(restarted).toMatchObject([{ action: "restart", kind: "zookeeper", id: 1 }]);
    expect((await Promise.all(brokers)).flat()).toMatchObject([{ id: 1 }, { id: 2 }]);
  }, 90_000);

  it("restart a broker that somebody restarts, and both wait for the one that is left", async () => {
    await using cluster = await TestCluster.start();
    const pid = async (): Promise<number | null | undefined> =>
      (await cluster.json<ProcessStatus>(["status"])).find((entry) => entry.kind === "broker" && entry.id === 1)?.pid;
    await cluster.json(["kill", "zookeeper:1"]);
    await cluster.json(["kill", "1"]);
    const first = cluster.json(["restart", "1"]);
    await eventually("it waits for ZooKeeper", async () => typeof (await pid()) === "number");
    const former = await pid();
    const second = cluster.json(["restart", "1"]);
    await eventually("it is another one", async () => typeof (await pid()) === "number" && (await pid()) !== former);
    await cluster.json(["restart", "zookeeper:1"]);
    const restarted = { action: "restart", kind: "broker", id: 1, pid: await pid() };
    expect([...(await first), ...(await second)]).toEqual([restarted, restarted]);
  }, 90_000);
});
