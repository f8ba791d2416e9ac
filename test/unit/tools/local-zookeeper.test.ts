import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import {
  answeringOn,
  findZooKeeper,
  startZooKeeper,
  waitUntilServing,
  ZooKeeperDidNotStart,
  ZooKeeperNotFound,
  zookeeperStatus,
} from "../../../tools/local-zookeeper.js";
import type { LocalSystem, RunResult } from "../../../tools/local-zookeeper.js";
import { eventually } from "../../support/eventually.js";

/** A machine of which only this is known: what it has, and what each command does. Everything else fails. */
class FakeSystem implements LocalSystem {
  readonly environment: Record<string, string> = { PATH: "/usr/bin:/opt/zk/bin" };
  isRoot = false;
  readonly files = new Set<string>();
  readonly ran: string[] = [];
  readonly #commands: { readonly begins: string; readonly act: () => boolean }[] = [];

  /** A command line that begins like this succeeds, or does as `act` says. */
  on(begins: string, act: () => boolean = () => true): this {
    this.#commands.push({ begins, act });
    return this;
  }

  exists(file: string): boolean {
    return this.files.has(file);
  }

  realPath(file: string): string {
    return file === "/opt/zk/bin/zkServer.sh" ? "/opt/zk-3.9/bin/zkServer.sh" : file;
  }

  list(directory: string): string[] {
    return [...this.files].filter((file) => path.dirname(file) === directory).map((file) => path.basename(file));
  }

  run(command: string, args: readonly string[]): Promise<RunResult> {
    const line = [command, ...args].join(" ");
    this.ran.push(line);
    const known = this.#commands.find(({ begins }) => line.startsWith(begins));
    return Promise.resolve({ ok: known?.act() ?? false, output: "the last line\n" });
  }
}

describe("findZooKeeper", () => {
  let system: FakeSystem;
  let interruption: AbortController;
  const said: string[] = [];
  const find = (): ReturnType<typeof findZooKeeper> =>
    findZooKeeper((sentence) => said.push(sentence), interruption.signal, system);

  beforeEach(() => {
    system = new FakeSystem();
    interruption = new AbortController();
    said.length = 0;
  });

  it("takes Debian's jar with a logger when there is a Java, and says nothing", async () => {
    system.on("java -version");
    system.files.add("/usr/share/java/zookeeper.jar").add("/usr/share/java/slf4j-nop.jar");
    const classPath = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar";
    expect(await find()).toEqual({ kind: "java", java: "java", classPath });
    expect(said).toEqual([]);
    system.files.add("/usr/share/java/slf4j-simple.jar");
    expect(await find()).toMatchObject({ classPath: expect.stringContaining("slf4j-simple") });
  });

  it("prefers ZOOKEEPER_HOME, then what zkServer.sh on the PATH belongs to, and JAVA_HOME", async () => {
    system.on("/jdk/bin/java -version");
    system.environment["JAVA_HOME"] = "/jdk";
    system.files
      .add("/usr/share/java/zookeeper.jar")
      .add("/opt/zk/bin/zkServer.sh")
      .add("/opt/zk-3.9/lib/zookeeper-3.9.2.jar");
    expect(await find()).toEqual({
      kind: "java",
      java: "/jdk/bin/java",
      classPath: "/opt/zk-3.9/conf:/opt/zk-3.9/lib/*",
    });
    system.environment["ZOOKEEPER_HOME"] = "/mine";
    system.files.add("/mine/lib/zookeeper-3.8.4.jar");
    expect(await find()).toMatchObject({ classPath: "/mine/conf:/mine/lib/*" });
    system.environment["ZOOKEEPER_HOME"] = "/empty";
    expect(await find()).toMatchObject({ classPath: "/opt/zk-3.9/conf:/opt/zk-3.9/lib/*" });
  });

  it("takes the Java that Homebrew keeps off the PATH", async () => {
    system.on("/opt/homebrew/opt/openjdk/bin/java -version");
    system.files.add("/opt/homebrew/opt/zookeeper/libexec/lib/zookeeper-3.9.2.jar");
    expect(await find()).toMatchObject({ kind: "java", java: "/opt/homebrew/opt/openjdk/bin/java" });
  });

  it("installs what is missing from Debian as root, refreshing the package lists only when it must", async () => {
    system.isRoot = true;
    let updated = false;
    let installed = false;
    system
      .on("apt-get --version")
      .on("java -version", () => installed)
      .on("env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update", () => (updated = true))
      .on("env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install", () => {
        if (updated) system.files.add("/usr/share/java/zookeeper.jar");
        return (installed = updated);
      });
    expect(await find()).toMatchObject({ kind: "java", java: "java" });
    expect(
      system.ran.filter((line) => line.includes("install -y --no-install-recommends zookeeper default-jre-headless")),
    ).toHaveLength(2);
    expect(said.join(" ")).toContain("Installing zookeeper and default-jre-headless");
    expect(said.at(-1)).toBe("Installed zookeeper and default-jre-headless.");
  });

  it("begins no other step when it is interrupted in one", async () => {
    system.isRoot = true;
    system.on("apt-get --version").on("env DEBIAN_FRONTEND=noninteractive apt-get", () => {
      interruption.abort(new Error("interrupted"));
      return false;
    });
    await expect(find()).rejects.toThrow("interrupted");
    expect(system.ran.filter((line) => line.startsWith("env "))).toHaveLength(1);
    expect(system.ran.some((line) => line.startsWith("docker"))).toBe(false);
  });

  it("installs only the Java when the jar is there, through sudo when that asks for no password", async () => {
    system.files.add("/usr/share/java/zookeeper.jar");
    let installed = false;
    system
      .on("apt-get --version")
      .on("sudo -n true")
      .on("java -version", () => installed)
      .on("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get", () => (installed = true));
    expect(await find()).toMatchObject({ kind: "java" });
    expect(system.ran.some((line) => line.endsWith("--no-install-recommends default-jre-headless"))).toBe(true);
  });

  it("takes Docker when nothing can be installed, fetching the image when it is missing", async () => {
    system.on("docker version").on("docker pull zookeeper:3.9");
    expect(await find()).toEqual({ kind: "docker", docker: "docker", image: "zookeeper:3.9" });
    expect(said).toEqual(["Fetching the Docker image zookeeper:3.9."]);
    said.length = 0;
    system.on("docker image inspect zookeeper:3.9");
    await find();
    expect(said).toEqual([]);
  });

  it("says in one sentence what to do when there is no way, and what stood in each", async () => {
    system.on("apt-get --version").on("docker version");
    const error: unknown = await find().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ZooKeeperNotFound);
    const { message } = error as Error;
    expect(message).toContain("apt-get install zookeeper");
    expect(message).toContain("brew install zookeeper");
    expect(message).toContain("root or a sudo without a password");
    expect(message).toContain("could not fetch zookeeper:3.9: the last line");
    expect(message).not.toContain("\n");

    system.isRoot = true;
    await expect(find()).rejects.toThrow(/apt-get could not install zookeeper and default-jre-headless: see .*\.log/);
  });
});

describe("startZooKeeper", () => {
  let directory: string;

  beforeEach(() => {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-local-zookeeper-"));
  });
  afterEach(() => fs.rmSync(directory, { recursive: true, force: true }));

  /** A program in the place of Java or Docker. */
  const program = (body: string): string => {
    const file = path.join(directory, "program");
    fs.writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    return file;
  };
  const options = { clientPort: 1, tickTimeMs: 200 };
  const read = (...names: string[]): string => fs.readFileSync(path.join(directory, ...names), "utf8");

  it("writes a configuration whose shortest session is six ticks, for one server or for a member of an ensemble", async () => {
    const installation = { kind: "java", java: program("exit 0"), classPath: "x.jar" } as const;
    await startZooKeeper(installation, { ...options, dataDir: path.join(directory, "one") });
    expect(read("one", "zoo.cfg")).toContain("tickTime=200\n");
    expect(read("one", "zoo.cfg")).toContain("minSessionTimeout=1200\n");
    expect(read("one", "zoo.cfg")).toContain("clientPortAddress=127.0.0.1\n");
    expect(read("one", "zoo.cfg")).not.toContain("server.");

    const servers = [1, 2, 3].map((id) => ({ id, quorumPort: 100 + id, electionPort: 200 + id }));
    await startZooKeeper(installation, { ...options, dataDir: path.join(directory, "two"), id: 2, servers });
    expect(read("two", "zoo.cfg")).toContain("standaloneEnabled=false\n");
    expect(read("two", "zoo.cfg")).toContain("server.3=127.0.0.1:103:203\n");
    expect(read("two", "myid")).toBe("2\n");
  });

  it("runs in a session of its own until it is stopped", async () => {
    const installation = { kind: "java", java: program('echo "$@"; exec sleep 60'), classPath: "x.jar" } as const;
    const server = await startZooKeeper(installation, { ...options, dataDir: directory });
    await eventually("it runs", () => read("zookeeper.log").includes("zoo.cfg"));
    expect(read("zookeeper.log")).toContain("-cp x.jar org.apache.zookeeper.server.quorum.QuorumPeerMain");
    expect(server.exitReason).toBeUndefined();
    // The leader of a process group: no signal of this terminal reaches it.
    process.kill(-server.pid, 0);
    await server.stop();
    await server.kill();
    expect(server.exitReason).toBe("it was ended by SIGTERM");
  });

  it("tells how it ended, and quotes the log, when it does not serve", async () => {
    const installation = {
      kind: "java",
      java: program("echo the port is taken >&2; exit 3"),
      classPath: "x.jar",
    } as const;
    const server = await startZooKeeper(installation, { ...options, dataDir: directory });
    const failure = waitUntilServing(server, 5000);
    await expect(failure).rejects.toThrow(ZooKeeperDidNotStart);
    await expect(failure).rejects.toThrow(/port 1: it ended with code 3.*the port is taken/s);
  });

  it("rejects when somebody else has the port, and starts nothing", async () => {
    const squatter = net.createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => squatter.listen(0, "127.0.0.1", resolve));
    const clientPort = (squatter.address() as net.AddressInfo).port;
    const installation = { kind: "java", java: program("exit 0"), classPath: "x.jar" } as const;
    const start = startZooKeeper(installation, { ...options, clientPort, dataDir: directory });
    await expect(start).rejects.toThrow(`port ${clientPort} is taken`);
    expect(fs.readdirSync(directory)).toEqual(["program"]);
    await new Promise((resolve) => squatter.close(resolve));
  });

  it("rejects when the program is not there", async () => {
    const installation = { kind: "java", java: path.join(directory, "none"), classPath: "x.jar" } as const;
    await expect(startZooKeeper(installation, { ...options, dataDir: directory })).rejects.toThrow(
      ZooKeeperDidNotStart,
    );
  });

  it("publishes a single server's port from Docker on the loopback address, and gives an ensemble the host's network", async () => {
    const installation = { kind: "docker", docker: program('echo "$@"'), image: "zookeeper:3.9" } as const;
    await startZooKeeper(installation, { ...options, dataDir: directory });
    await eventually("it ran", () => read("zookeeper.log").includes("zookeeper:3.9"));
    expect(read("zookeeper.log")).toContain("run --rm --name ottla-zookeeper-1 -p 127.0.0.1:1:1 ");
    expect(read("zookeeper.log")).toContain(` -v ${directory}:${directory} `);
    expect(read("zoo.cfg")).toContain(`dataDir=${directory}\n`);
    expect(read("zoo.cfg")).toContain("clientPortAddress=0.0.0.0\n");
    const dataDir = path.join(directory, "ensemble");
    const servers = [{ id: 1, quorumPort: 2, electionPort: 3 }];
    await startZooKeeper(installation, { ...options, dataDir, id: 1, servers });
    await eventually("it ran", () => read("ensemble", "zookeeper.log").includes("zookeeper:3.9"));
    expect(read("ensemble", "zookeeper.log")).toContain("--network host");
  });
});

describe("the server on a port", () => {
  /** Asks while a server gives these answers, and again when nobody listens any more. */
  const ask = async <T>(answers: Readonly<Record<string, string>>, question: (port: number) => Promise<T>) => {
    const server = net.createServer((socket) =>
      socket.on("data", (word) => socket.end(answers[word.toString()] ?? "")),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const answer = await question(port);
    await new Promise((resolve) => server.close(resolve));
    expect(await question(port)).toBeUndefined();
    return answer;
  };
  const srvr = "Zookeeper version: 3.8.0\nMode: follower\nNode count: 5\n";
  const notServing = "This ZooKeeper instance is not currently serving requests\n";

  it("tells the part that it plays, and anything else is taken for not serving", async () => {
    expect(await ask({ srvr }, zookeeperStatus)).toBe("follower");
    expect(await ask({ srvr: notServing }, zookeeperStatus)).toBeUndefined();
    expect(await ask({ srvr: "" }, zookeeperStatus)).toBeUndefined();
  });

  it("is known by its data directory", async () => {
    const whose = (port: number): Promise<string | undefined> => answeringOn(port, "/data/one");
    const conf = (dataDir: string): string => `clientPort=2181\ndataDir=${dataDir}/version-2\ndataLogDir=/data/one\n`;
    expect(await ask({ srvr, conf: conf("/data/one") }, whose)).toBe("this one");
    expect(await ask({ srvr, conf: conf("/data/two") }, whose)).toBe("another");
    const refused = "conf is not executed because it is not in the whitelist.\n";
    expect(await ask({ srvr, conf: refused }, whose)).toBeUndefined();
    expect(await ask({ srvr, conf: "" }, whose)).toBeUndefined();
    expect(await ask({ srvr: notServing, conf: conf("/data/two") }, whose)).toBeUndefined();
  });
});
