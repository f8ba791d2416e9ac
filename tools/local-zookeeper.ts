import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * A ZooKeeper on this machine, for `npm start`, `npm test` and `ottla up`: found, or installed where that needs no question,
 * started as a process of its own that outlives its starter, and asked whether it serves. Not for production, where an
 * ensemble is run by whoever runs the machines.
 */

/** How ZooKeeper can be run here. */
export type ZooKeeperInstallation = JavaInstallation | DockerInstallation;

export interface JavaInstallation {
  readonly kind: "java";
  readonly java: string;
  readonly classPath: string;
}

export interface DockerInstallation {
  readonly kind: "docker";
  readonly docker: string;
  readonly image: string;
}

/** There is none and none could be installed; the message says what to do. */
export class ZooKeeperNotFound extends Error {
  override readonly name = "ZooKeeperNotFound";
}

/** It was started and does not serve; the message holds the end of its log. */
export class ZooKeeperDidNotStart extends Error {
  override readonly name = "ZooKeeperDidNotStart";
}

/** The part of the machine that the search looks at and acts on; a test gives another one. */
export interface LocalSystem {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly isRoot: boolean;
  exists(file: string): boolean;
  /** The file behind symbolic links. */
  realPath(file: string): string;
  list(directory: string): string[];
  /** Runs to the end. `output` is what it printed, both streams; also appended to `logFile`. */
  run(command: string, args: readonly string[], options: RunOptions): Promise<RunResult>;
}

export interface RunOptions {
  readonly deadlineMs: number;
  readonly logFile?: string;
}

export interface RunResult {
  readonly ok: boolean;
  readonly output: string;
}

const probeDeadlineMs = 10_000;
const installDeadlineMs = 600_000;
/** Work that takes longer than this says that it is still going on. */
const progressEveryMs = 5_000;
const debianJar = "/usr/share/java/zookeeper.jar";
const debianLoggers = ["/usr/share/java/slf4j-simple.jar", "/usr/share/java/slf4j-nop.jar"];
const dockerImage = "zookeeper:3.9";
/** Where Homebrew puts the Java that comes with its ZooKeeper: not on the PATH. */
const kegJavas = ["/opt/homebrew/opt/openjdk/bin/java", "/usr/local/opt/openjdk/bin/java"];
/** Where ZooKeeper's own archive or a package manager puts it; each holds `lib` with the jars. */
const usualHomes = ["/opt/zookeeper", "/opt/homebrew/opt/zookeeper/libexec", "/usr/local/opt/zookeeper/libexec"];

/**
 * Looks for Java and ZooKeeper's jars, then installs Debian's package where this process may do that without a
 * password, then looks for Docker. `say` is told in a sentence about everything that takes time or changes the machine.
 * Rejects with ZooKeeperNotFound, or between two steps with the signal's reason.
 */
export async function findZooKeeper(
  say: (sentence: string) => void,
  signal?: AbortSignal,
  system: LocalSystem = realSystem,
): Promise<ZooKeeperInstallation> {
  const local = await findJavaInstallation(system);
  if (local !== undefined) return local;
  const obstacles: string[] = [];
  const installed = await installDebianPackage(say, system, obstacles, signal);
  if (installed !== undefined) return installed;
  signal?.throwIfAborted();
  const docker = await findDocker(say, system, obstacles);
  if (docker !== undefined) return docker;
  throw new ZooKeeperNotFound(
    "ZooKeeper is needed and not here: install it (Debian and Ubuntu: apt-get install zookeeper default-jre-headless; macOS: " +
      "brew install zookeeper), or set ZOOKEEPER_HOME to an unpacked release beside a Java on the PATH, or start Docker, or name one that runs " +
      "with --zookeeper HOST:PORT" +
      (obstacles.length === 0 ? "" : ` (${obstacles.join("; ")})`),
  );
}

async function findJavaInstallation(system: LocalSystem): Promise<JavaInstallation | undefined> {
  const classPath = findClassPath(system);
  if (classPath === undefined) return undefined;
  const java = await findJava(system);
  return java === undefined ? undefined : { kind: "java", java, classPath };
}

async function findJava(system: LocalSystem): Promise<string | undefined> {
  const home = system.environment["JAVA_HOME"];
  const candidates = [
    home === undefined || home === "" ? undefined : path.join(home, "bin", "java"),
    "java",
    ...kegJavas,
  ];
  for (const java of candidates) {
    // Run, not only looked for: macOS has a `java` that does nothing but tell where to get one.
    if (java !== undefined && (await system.run(java, ["-version"], { deadlineMs: probeDeadlineMs })).ok) return java;
  }
  return undefined;
}

function findClassPath(system: LocalSystem): string | undefined {
  for (const home of homes(system)) {
    const lib = path.join(home, "lib");
    if (!system.list(lib).some((name) => /^zookeeper-\d.*\.jar$/.test(name))) continue;
    // `conf` comes first: without its logging configuration ZooKeeper logs every packet.
    return [path.join(home, "conf"), path.join(lib, "*")].join(path.delimiter);
  }
  if (!system.exists(debianJar)) return undefined;
  const logger = debianLoggers.find((file) => system.exists(file));
  return logger === undefined ? debianJar : [debianJar, logger].join(path.delimiter);
}

/** What the user named, what the PATH leads to, where it usually is. */
function homes(system: LocalSystem): string[] {
  const named = system.environment["ZOOKEEPER_HOME"];
  const onPath = (system.environment["PATH"] ?? "")
    .split(path.delimiter)
    .filter((directory) => directory !== "")
    .map((directory) => path.join(directory, "zkServer.sh"))
    .find((file) => system.exists(file));
  return [
    ...(named === undefined || named === "" ? [] : [named]),
    ...(onPath === undefined ? [] : [path.dirname(path.dirname(system.realPath(onPath)))]),
    ...usualHomes,
  ];
}

async function installDebianPackage(
  say: (sentence: string) => void,
  system: LocalSystem,
  obstacles: string[],
  signal: AbortSignal | undefined,
): Promise<JavaInstallation | undefined> {
  const probe = { deadlineMs: probeDeadlineMs };
  if (!(await system.run("apt-get", ["--version"], probe)).ok) return undefined;
  if (!system.isRoot && !(await system.run("sudo", ["-n", "true"], probe)).ok) {
    obstacles.push("installing Debian's package would need root or a sudo without a password");
    return undefined;
  }
  const packages = [
    ...(findClassPath(system) === undefined ? ["zookeeper"] : []),
    ...((await findJava(system)) === undefined ? ["default-jre-headless"] : []),
  ];
  const logFile = path.join(os.tmpdir(), `ottla-apt-${process.pid}.log`);
  const apt = (...args: string[]): Promise<RunResult> => {
    // `sudo` does not pass the environment on, `env` sets it behind it.
    const command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120", ...args];
    const whole = system.isRoot ? command : ["sudo", "-n", ...command];
    return system.run(whole[0] as string, whole.slice(1), { deadlineMs: installDeadlineMs, logFile });
  };
  const install = (): Promise<RunResult> => apt("install", "-y", "--no-install-recommends", ...packages);
  const ok = await withProgress(say, `Installing ${packages.join(" and ")} with apt-get`, async () => {
    if ((await install()).ok) return true;
    // Ctrl-C ends apt-get too: that is no reason to begin another one.
    signal?.throwIfAborted();
    // Most often the package lists are missing or too old.
    if (!(await apt("update")).ok) return false;
    signal?.throwIfAborted();
    return (await install()).ok;
  });
  const found = ok ? await findJavaInstallation(system) : undefined;
  if (found === undefined) obstacles.push(`apt-get could not install ${packages.join(" and ")}: see ${logFile}`);
  else say(`Installed ${packages.join(" and ")}.`);
  return found;
}

async function findDocker(
  say: (sentence: string) => void,
  system: LocalSystem,
  obstacles: string[],
): Promise<DockerInstallation | undefined> {
  const docker = "docker";
  const version = await system.run(docker, ["version", "--format", "{{.Server.Version}}"], {
    deadlineMs: probeDeadlineMs,
  });
  if (!version.ok) {
    obstacles.push("no Docker engine answers");
    return undefined;
  }
  const present = await system.run(docker, ["image", "inspect", dockerImage], { deadlineMs: probeDeadlineMs });
  if (!present.ok) {
    const pulled = await withProgress(say, `Fetching the Docker image ${dockerImage}`, () =>
      system.run(docker, ["pull", dockerImage], { deadlineMs: installDeadlineMs }),
    );
    if (!pulled.ok) {
      obstacles.push(`Docker could not fetch ${dockerImage}: ${pulled.output.trim().split("\n").at(-1) ?? ""}`);
      return undefined;
    }
  }
  return { kind: "docker", docker, image: dockerImage };
}

async function withProgress<T>(say: (sentence: string) => void, what: string, work: () => Promise<T>): Promise<T> {
  say(`${what}.`);
  const startedMs = Date.now();
  const timer = setInterval(
    () => say(`${what}: ${Math.round((Date.now() - startedMs) / 1000)} s so far.`),
    progressEveryMs,
  );
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/** A member of an ensemble, as all of them must be told about it. All run on this machine. */
export interface EnsembleMember {
  readonly id: number;
  readonly quorumPort: number;
  readonly electionPort: number;
}

export interface StartOptions {
  /** Made when missing. Holds configuration, data and log. */
  readonly dataDir: string;
  readonly clientPort: number;
  /** At most a sixth of the session timeout that brokers will ask for. */
  readonly tickTimeMs: number;
  /** Which of `servers` this is. */
  readonly id?: number;
  /** All members of the ensemble. @defaultValue none: a single server */
  readonly servers?: readonly EnsembleMember[];
}

/** A ZooKeeper process that this one started. */
export interface LocalZooKeeper {
  /** SIGTERM to this process ends it in order, whoever sends it. */
  readonly pid: number;
  readonly port: number;
  readonly dataDir: string;
  readonly logFile: string;
  /** How it ended; undefined while it runs. */
  readonly exitReason: string | undefined;
  /** Ends it in order, by force after five seconds; resolves when it has ended. */
  stop(): Promise<void>;
  /** Ends it at once; resolves when it has ended. */
  kill(): Promise<void>;
}

const stopDeadlineMs = 5000;

const logFileIn = (dataDir: string): string => path.join(dataDir, "zookeeper.log");

/**
 * Writes the configuration and starts the process, detached: it goes on when this process ends, and does not keep it from
 * ending. Resolves when the process runs, which is before it serves: see `waitUntilServing`. Rejects with
 * ZooKeeperDidNotStart when the port is taken or the program cannot be run at all.
 */
export async function startZooKeeper(
  installation: ZooKeeperInstallation,
  options: StartOptions,
): Promise<LocalZooKeeper> {
  const dataDir = path.resolve(options.dataDir);
  // Known at once here, and only after a second from the log of a server that could not listen.
  if (await accepts(options.clientPort)) {
    throw new ZooKeeperDidNotStart(
      `port ${options.clientPort} is taken: stop what listens there, or choose another port`,
    );
  }
  await fs.promises.mkdir(dataDir, { recursive: true });
  const configurationFile = path.join(dataDir, "zoo.cfg");
  await fs.promises.writeFile(configurationFile, configurationOf(installation, { ...options, dataDir }));
  if (options.id !== undefined) await fs.promises.writeFile(path.join(dataDir, "myid"), `${options.id}\n`);
  const log = await fs.promises.open(logFileIn(dataDir), "a");
  try {
    const { command, args } = commandOf(installation, { ...options, dataDir }, configurationFile);
    const child = spawn(command, args, {
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      cwd: dataDir,
      env: utf8Environment(process.env),
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error) =>
        reject(new ZooKeeperDidNotStart(`ZooKeeper cannot be started with ${command}`, { cause: error })),
      );
    });
    return new ChildZooKeeper(child, options.clientPort, dataDir);
  } finally {
    await log.close();
  }
}

class ChildZooKeeper implements LocalZooKeeper {
  readonly pid: number;
  readonly logFile: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #exitReason: string | undefined;

  constructor(
    child: ChildProcess,
    readonly port: number,
    readonly dataDir: string,
  ) {
    this.#child = child;
    this.pid = child.pid as number;
    this.logFile = logFileIn(dataDir);
    this.#ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        this.#exitReason = signal === null ? `it ended with code ${code ?? "unknown"}` : `it was ended by ${signal}`;
        resolve();
      });
    });
    child.unref();
  }

  get exitReason(): string | undefined {
    return this.#exitReason;
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async #end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    if (this.#exitReason !== undefined) return;
    // Whoever waits for the end wants to live until then.
    this.#child.ref();
    this.#child.kill(signal);
    const force = setTimeout(() => this.#child.kill("SIGKILL"), stopDeadlineMs);
    await this.#ended;
    clearTimeout(force);
  }
}

function configurationOf(installation: ZooKeeperInstallation, options: StartOptions): string {
  const servers = options.servers ?? [];
  const lines = [
    `tickTime=${options.tickTimeMs}`,
    "initLimit=20",
    "syncLimit=10",
    `dataDir=${propertyValue(options.dataDir)}`,
    `clientPort=${options.clientPort}`,
    // A container is reached through its published port, which is bound to the loopback address outside.
    `clientPortAddress=${publishesPort(installation, options) ? "0.0.0.0" : "127.0.0.1"}`,
    "admin.enableServer=false",
    "4lw.commands.whitelist=ruok,srvr,mntr,cons,conf",
    "maxClientCnxns=0",
    // A shorter session could expire before the lease of its owner has lapsed.
    `minSessionTimeout=${6 * options.tickTimeMs}`,
    "maxSessionTimeout=60000",
    "autopurge.snapRetainCount=3",
    "autopurge.purgeInterval=24",
  ];
  if (servers.length > 0) {
    lines.push(
      "standaloneEnabled=false",
      "reconfigEnabled=false",
      ...servers.map((member) => `server.${member.id}=127.0.0.1:${member.quorumPort}:${member.electionPort}`),
    );
  }
  return `${lines.join("\n")}\n`;
}

/** Where no locale with UTF-8 is set, Java takes the names of files for ASCII, and cannot open one that is not. */
function utf8Environment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const locale = environment["LC_ALL"] || environment["LC_CTYPE"] || environment["LANG"] || "";
  return /utf-?8/i.test(locale) ? environment : { ...environment, LC_ALL: "C.UTF-8" };
}

/** As Java reads it from a file of properties, which holds Latin-1 and takes a backslash for the start of an escape. */
function propertyValue(text: string): string {
  return text
    .replaceAll("\\", "\\\\")
    .replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function commandOf(
  installation: ZooKeeperInstallation,
  options: StartOptions,
  configurationFile: string,
): { readonly command: string; readonly args: readonly string[] } {
  switch (installation.kind) {
    case "java":
      return {
        command: installation.java,
        args: [
          "-Xms64m",
          "-Xmx512m",
          "-XX:+UseSerialGC",
          // It starts in half the time, and is quick enough for one machine.
          "-XX:TieredStopAtLevel=1",
          "-Xshare:auto",
          "-Dzookeeper.preAllocSize=4096",
          "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
          "-cp",
          installation.classPath,
          "org.apache.zookeeper.server.quorum.QuorumPeerMain",
          configurationFile,
        ],
      };
    case "docker": {
      const { clientPort: port, dataDir } = options;
      return {
        command: installation.docker,
        args: [
          "run",
          "--rm",
          "--name",
          containerOn(port),
          ...(publishesPort(installation, options) ? ["-p", `127.0.0.1:${port}:${port}`] : ["--network", "host"]),
          ...(process.getuid === undefined ? [] : ["--user", `${process.getuid()}:${process.getgid?.() ?? 0}`]),
          // At the same place as outside, so that the server can be told from others by it.
          "-v",
          `${dataDir}:${dataDir}`,
          "-v",
          `${configurationFile}:/conf/zoo.cfg:ro`,
          installation.image,
        ],
      };
    }
  }
}

/** The name of the container whose server has this port. */
export function containerOn(port: number): string {
  return `ottla-zookeeper-${port}`;
}

/** The members of an ensemble reach each other only in the host's own network. */
function publishesPort(installation: ZooKeeperInstallation, options: StartOptions): boolean {
  return installation.kind === "docker" && (options.servers ?? []).length === 0;
}

/** Resolves once the server takes sessions. Rejects with ZooKeeperDidNotStart after `deadlineMs`, or when it has ended. */
export async function waitUntilServing(server: LocalZooKeeper, deadlineMs: number): Promise<void> {
  const endMs = Date.now() + deadlineMs;
  while (true) {
    const answering = await answeringOn(server.port, server.dataDir);
    if (answering === "this one") return;
    const reason =
      answering === "another"
        ? "another ZooKeeper listens there"
        : (server.exitReason ?? (Date.now() > endMs ? `it did not within ${deadlineMs} ms` : undefined));
    if (reason !== undefined) {
      throw new ZooKeeperDidNotStart(
        `ZooKeeper does not serve on port ${server.port}: ${reason}; the end of ${server.logFile}:\n` +
          (await endOf(server.logFile)),
      );
    }
    await sleep(25);
  }
}

async function endOf(file: string): Promise<string> {
  const text = await fs.promises.readFile(file, "utf8").catch(() => "");
  return text.trim().split("\n").slice(-12).join("\n");
}

const statusDeadlineMs = 1000;

/** What part the server on this port plays ("standalone", "leader", "follower"); undefined when it does not serve. */
export async function zookeeperStatus(port: number): Promise<string | undefined> {
  return /^Mode: (\w+)$/m.exec(await askZooKeeper(port, "srvr"))?.[1];
}

/**
 * Which server takes sessions on this port: the one with this data directory, or another, which took the port while this one
 * was starting, and would be filled with what is not its own; undefined: none yet.
 */
export async function answeringOn(port: number, dataDir: string): Promise<"this one" | "another" | undefined> {
  if ((await zookeeperStatus(port)) === undefined) return undefined;
  const told = /^dataDir=(.*)$/m.exec(await askZooKeeper(port, "conf"))?.[1];
  // It has stopped serving between the two questions, or is not one of those that are started here.
  if (told === undefined) return undefined;
  return path.dirname(told) === path.resolve(dataDir) ? "this one" : "another";
}

/** The answer to one of ZooKeeper's words of four letters; empty when there is none. */
function askZooKeeper(port: number, word: string): Promise<string> {
  return new Promise((resolve) => {
    const answer: Buffer[] = [];
    const socket = net.connect({ host: "127.0.0.1", port });
    socket.setTimeout(statusDeadlineMs, () => socket.destroy());
    socket.on("connect", () => socket.end(word));
    socket.on("data", (chunk) => answer.push(chunk));
    socket.on("error", () => socket.destroy());
    // Decoded whole: a letter may lie in two chunks.
    socket.on("close", () => resolve(Buffer.concat(answer).toString("utf8")));
  });
}

/** Whether somebody listens on this port of the loopback address. */
function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    const settle = (accepted: boolean) => (): void => {
      socket.destroy();
      resolve(accepted);
    };
    socket.setTimeout(statusDeadlineMs, settle(true));
    socket.once("connect", settle(true));
    socket.once("error", settle(false));
  });
}

const realSystem: LocalSystem = {
  environment: process.env,
  isRoot: process.getuid?.() === 0,
  exists: (file) => fs.existsSync(file),
  realPath: (file) => fs.realpathSync(file),
  list: (directory) => {
    try {
      return fs.readdirSync(directory);
    } catch {
      return [];
    }
  },
  run: (command, args, options) =>
    new Promise((resolve) => {
      const settings = { timeout: options.deadlineMs, maxBuffer: 64 * 1024 * 1024 };
      execFile(command, args, settings, (error, stdout, stderr) => {
        const output = `${stdout}${stderr}`;
        if (options.logFile !== undefined) {
          fs.appendFileSync(options.logFile, `$ ${[command, ...args].join(" ")}\n${output}${error?.message ?? ""}\n`);
        }
        resolve({ ok: error === null, output });
      });
    }),
};
