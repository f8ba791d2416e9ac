import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import type { FileLock } from "../../common/env/files.js";
import { isLocked, tryLock } from "../../common/env/node-file-lock.js";
import type { Cluster } from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { connectTo } from "../cli/cluster-connection.js";
import { plural } from "../cli/quantities.js";
import type { ZooKeeperInstallation } from "../local-zookeeper.js";
import type { BrokerEntry, ClusterState, ZooKeeperEntry } from "./cluster-state.js";
import { readClusterState, removeClusterState, writeClusterState } from "./cluster-state.js";
import { prepareDataPlace } from "./data-place.js";
import { checkConnectString, checkPorts, checkSettings } from "./start-checks.js";
import { PortClaims, portsOf } from "./port-claims.js";
import { describePortHolder, isAnyListening, isPortPermitted, orphansOf } from "./ports.js";
import type { ProcessIdentity } from "./process-identity.js";
import { conditionOf, identityOf, signalProcess } from "./process-identity.js";

const DEFAULT_BROKERS = 3;
const DEFAULT_ZOOKEEPERS = 1;
const DEFAULT_PORT = 9092;
const ZOOKEEPER_PORT = 2181;
/** Members of an ensemble talk to each other here and on the ports after it. */
const QUORUM_PORT = 2888;
/** A sixth of the brokers' session timeout of 6 s: docs/operations.md says why not more. */
const TICK_MS = 1000;
const POLL_MS = 20;
/** A broker first hands its leaderships over, for at most controlled.shutdown.max.ms (15 s), and then closes its logs. */
const STOP_BROKER_MS_MAX = 32_000;
const STOP_ZOOKEEPER_MS_MAX = 10_000;
/** `stop` waits so long for another command to finish: a start takes as long at most. */
const BUSY_MS_MAX = 30_000;
/** After SIGKILL only the kernel can keep a process. */
const KILL_MS_MAX = 10_000;
const LOG_BYTES_MAX = 16 * 1024 * 1024;
const LOOPBACK = "127.0.0.1";

/** What `up` was asked for; what is left open is as it was the last time, or the default. */
export interface StartOptions {
  readonly brokers?: number | undefined;
  readonly zookeepers?: number | undefined;
  /** `host:port,...` of an already running ensemble, with a path behind it to live below that: none is started here. */
  readonly zookeeper?: string | undefined;
  /** Of the first broker; the others follow. 0: free ones. */
  readonly port?: number | undefined;
  /** Of the first ZooKeeper server; the others follow. If it is taken, that is an error: without it they step aside. */
  readonly zookeeperPort?: number | undefined;
  /** Settings of all brokers, by their dotted names. */
  readonly settings?: Readonly<Record<string, string>> | undefined;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Told in a sentence about whatever takes time. */
  readonly say: (sentence: string) => void;
}

/** A cluster that serves. */
export interface ServingCluster {
  readonly cluster: string;
  readonly bootstrap: string;
  readonly zookeeper: string;
  /** The names of brokers and ZooKeeper servers of an earlier `up` that were still running. */
  readonly foundRunning: readonly string[];
  /** Whether every process was: nothing here was started by this call, and none of it is this caller's to stop. */
  readonly ranBefore: boolean;
}

/**
 * ZooKeeper and brokers on this machine, as processes of their own that outlive whoever started them. All that is known
 * of them stands in the state file, read anew at each call, so that several commands may work on one cluster one after
 * the other; those that start or stop something take a lock first.
 */
export class LocalCluster {
  /** How long each log was when this process started to write to it: what stands before is of an earlier run. */
  readonly #logStarts = new Map<string, number>();

  constructor(readonly data: string) {}

  /** Throws CliError NO_CLUSTER when there has never been one here. */
  state(): ClusterState {
    const state = readClusterState(this.data);
    if (state === undefined)
      throw new CliError("NO_CLUSTER", `there is no cluster in ${this.data}`, {
        hint: "start one with ottla up, or name its directory with --data",
      });
    return state;
  }

  /**
   * Starts whatever does not run, all at once, and resolves when every broker serves and the cluster has a controller.
   * When that fails, what this call started is stopped again, and what it was asked for is forgotten.
   */
  async start(options: StartOptions): Promise<ServingCluster> {
    // Before anything is made: what was typed wrongly leaves nothing behind.
    this.#wish(readClusterState(this.data), options);
    await checkSettings(options.settings ?? {});
    prepareDataPlace(this.data);
    return this.#locked((claims) => this.#start(options, claims));
  }

  async #start(options: StartOptions, claims: PortClaims): Promise<ServingCluster> {
    const before = readClusterState(this.data);
    const wanted = await this.#plan(before, options, claims);
    const running = [
      ...wanted.brokers.filter(isRunning).map(({ id }) => nameOf({ kind: "broker", id })),
      ...wanted.zookeepers.filter(isRunning).map(({ id }) => nameOf({ kind: "zookeeper", id })),
    ];
    if (before !== undefined) sayWhatChanges(before, wanted, options.say);
    if (options.port === 0 && before?.brokers.length === wanted.brokers.length)
      options.say(`the cluster in ${this.data} keeps its ports: --port 0 is for brokers that are new`);
    const installation = wanted.zookeepers.every(isRunning) ? undefined : await this.#findZooKeeper(options);
    const deadline = Date.now() + options.timeoutMs;
    const startedBefore = new Set([...wanted.brokers, ...wanted.zookeepers].filter(isRunning).map(pidOf));
    try {
      const started = await this.#startAll(wanted, installation, claims);
      await Promise.all([
        ...started.zookeepers
          .filter((entry) => !startedBefore.has(pidOf(entry)))
          .map((entry) => this.#awaitZooKeeper(entry, deadline, options.signal)),
        ...started.brokers
          .filter((entry) => !startedBefore.has(pidOf(entry)))
          .map((entry) => this.#awaitBroker(entry, deadline, options.signal)),
      ]);
      const cluster = await this.#awaitController(started, deadline, options.signal);
      this.#update((now) => ({ ...now, cluster }));
      return {
        cluster,
        bootstrap: bootstrapOf(started),
        zookeeper: zookeeperListOf(started),
        foundRunning: running,
        ranBefore: [...wanted.brokers, ...wanted.zookeepers].every((entry) => startedBefore.has(pidOf(entry))),
      };
    } catch (error) {
      const state = readClusterState(this.data);
      if (state !== undefined) await this.#stopEntries(state, (entry) => !startedBefore.has(pidOf(entry)));
      // What was asked for did not serve, so it is not what the next start comes back to: it may have been a typo.
      try {
        if (before === undefined) removeClusterState(this.data);
        else writeClusterState(this.data, before);
      } catch (failure) {
        if (!isUnwritable(failure)) throw failure;
      }
      throw error;
    }
  }

  /** Stops the brokers, then ZooKeeper, when nothing else is being done here; returns how many processes were stopped. */
  async stop(say: (sentence: string) => void): Promise<number> {
    this.state();
    const lock = await this.#lockToStop(say);
    try {
      const state = this.state();
      const { brokers, zookeepers } = state;
      const count = [...brokers, ...zookeepers].filter(isRunning).length;
      if (count > 0) say(`stopping ${plural(count, "process")}`);
      await this.#stopEntries(state, () => true);
      return count;
    } finally {
      await lock?.release();
    }
  }

  /**
   * Stops a process if it runs, starts it again and resolves when it serves. Returns it. Others may start and stop theirs while
   * it comes up: a broker serves only once ZooKeeper does, which somebody may be about to start. If one of them restarts
   * this one once more, that process is the one that is waited for.
   */
  async restart(
    target: LocalProcess,
    options: Pick<StartOptions, "timeoutMs" | "signal" | "say">,
  ): Promise<LocalProcess> {
    const deadline = Date.now() + options.timeoutMs;
    const claims = new PortClaims(this.data);
    try {
      const lock = await this.#lockBy(deadline, "try again", options);
      let restarted: LocalProcess;
      try {
        restarted = await this.#startAgain(target, claims, options);
      } finally {
        await lock.release();
      }
      return await this.#awaitRestarted(restarted, deadline, options.signal);
    } finally {
      await claims.release();
    }
  }

  /** Resolves with it when it serves, or with the one that another command has started in its place. */
  async #awaitRestarted(target: LocalProcess, deadline: number, signal: AbortSignal): Promise<LocalProcess> {
    try {
      if (target.kind === "broker") await this.#awaitBroker(target, deadline, signal);
      else await this.#awaitZooKeeper(target, deadline, signal);
      return this.find(target);
    } catch (error) {
      if (!(error instanceof CliError) || error.errorName !== "DID_NOT_START") throw error;
      // Whoever has ended it holds the lock until there is another one, if there is to be one.
      while ((await isLocked(this.#lockFile)) && Date.now() < deadline) await sleep(POLL_MS, undefined, { signal });
      const now = this.find(target);
      if (pidOf(now) === pidOf(target) || !isRunning(now)) throw error;
      return this.#awaitRestarted(now, deadline, signal);
    }
  }

  async #startAgain(
    target: LocalProcess,
    claims: PortClaims,
    options: Pick<StartOptions, "say" | "signal">,
  ): Promise<LocalProcess> {
    const former = this.find(target);
    const stop = async (): Promise<void> => {
      await stopProcess(former);
      await claimPortsOf([{ port: former.port }], claims, "stop it, and try again");
    };
    if (former.kind === "broker") {
      await stop();
      return { kind: "broker", ...this.#startBroker(former, this.state()) };
    }
    // Before it is stopped: where none is found, the server that runs goes on.
    const installation = await this.#findZooKeeper(options);
    await stop();
    return { kind: "zookeeper", ...(await this.#startZooKeeper(former, this.state(), installation)) };
  }

  /** All processes, as they stand in the state file. */
  processes(): LocalProcess[] {
    const { brokers, zookeepers } = this.state();
    return [
      ...brokers.map((entry) => ({ kind: "broker" as const, ...entry })),
      ...zookeepers.map((entry) => ({ kind: "zookeeper" as const, ...entry })),
    ];
  }

  /** One of them; throws CliError when there is no such one. */
  find({ kind, id }: Pick<LocalProcess, "kind" | "id">): LocalProcess {
    const processes = this.processes().filter((entry) => entry.kind === kind);
    const found = processes.find((entry) => entry.id === id);
    if (found === undefined) {
      const name = kind === "broker" ? "broker" : "ZooKeeper server";
      throw new CliError("UNKNOWN_TARGET", `the cluster in ${this.data} has no ${name} ${id}`, {
        hint: `it has ${processes.map((entry) => entry.id).join(", ")}`,
      });
    }
    return found;
  }

  /**
   * A connection to it, by way of its brokers that run: where one has stopped, another cluster may listen by now. Throws
   * CliError NOT_RUNNING when none runs, OTHER_CLUSTER when what answers is another one all the same.
   */
  async connect(
    options: Pick<StartOptions, "timeoutMs" | "signal">,
    note?: (sentence: string) => void,
  ): Promise<Cluster> {
    const state = this.state();
    const running = state.brokers.filter(isRunning);
    if (running.length === 0)
      throw new CliError("NOT_RUNNING", `no broker of the cluster in ${this.data} runs`, {
        hint: "start it with ottla up",
      });
    const cluster = await connectTo({ ...options, bootstrap: bootstrapOf({ ...state, brokers: running }) }, note);
    const { clusterId } = cluster;
    if (state.cluster === undefined || clusterId === state.cluster) return cluster;
    await cluster.close();
    throw new CliError(
      "OTHER_CLUSTER",
      `at the addresses of the cluster in ${this.data} cluster ${clusterId} answers, and not ${state.cluster}`,
      { hint: "stop that one, or start this one on other ports with ottla up --port" },
    );
  }

  logFileOf({ kind, id }: Pick<LocalProcess, "kind" | "id">): string {
    return kind === "broker"
      ? path.join(this.data, "logs", `broker-${id}.log`)
      : path.join(this.#zookeeperDirectory(id), "zookeeper.log");
  }

  /** Runs `work` while no other command starts or stops anything here, with claims that end with it. */
  async #locked<T>(work: (claims: PortClaims) => Promise<T>): Promise<T> {
    const lock = await this.#tryLock();
    if (lock === undefined) throw new CliError("BUSY", this.#busy, { hint: "wait for it to finish", retriable: true });
    const claims = new PortClaims(this.data);
    try {
      return await work(claims);
    } finally {
      await claims.release();
      await lock.release();
    }
  }

  /**
   * Who stops a cluster waits for the other command: the signal that told it to does not come again. Undefined where no
   * lock can be written: a disk that is full must not keep anybody from stopping what fills it.
   */
  async #lockToStop(say: (sentence: string) => void): Promise<FileLock | undefined> {
    try {
      return await this.#lockBy(Date.now() + BUSY_MS_MAX, "end it, and then stop the cluster with ottla down", { say });
    } catch (error) {
      if (isUnwritable(error)) return undefined;
      throw error;
    }
  }

  /** Waits until no other command starts or stops anything here. Throws CliError BUSY when one still does at the deadline. */
  async #lockBy(
    deadline: number,
    whatToDo: string,
    { say, signal }: Pick<StartOptions, "say"> & { readonly signal?: AbortSignal },
  ): Promise<FileLock> {
    for (let attempt = 1; ; attempt += 1) {
      const lock = await this.#tryLock();
      if (lock !== undefined) return lock;
      if (Date.now() > deadline) throw new CliError("BUSY", this.#busy, { hint: whatToDo, retriable: true });
      if (attempt === 1) say(`${this.#busy}: waiting for it`);
      await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
    }
  }

  /** Undefined while another command holds it. */
  #tryLock(): Promise<FileLock | undefined> {
    return tryLock(this.#lockFile);
  }

  get #lockFile(): string {
    return path.join(this.data, "up.lock");
  }

  get #busy(): string {
    return `another ottla command is starting or stopping the cluster in ${this.data}`;
  }

  /** How much was asked for, and where. Throws CliError when that cannot be, or not here. */
  #wish(before: ClusterState | undefined, options: StartOptions): Wish {
    const zookeeper = this.#zookeeperOf(before, options);
    const zookeepers = before?.zookeepers ?? (zookeeper === undefined ? planZooKeepers(options) : []);
    if (options.zookeepers !== undefined && options.zookeepers !== zookeepers.length)
      throw new CliError(
        "ZOOKEEPER_COUNT",
        `the cluster in ${this.data} was made with ${plural(zookeepers.length, "ZooKeeper server")}, not ${options.zookeepers}`,
        { hint: `leave out --zookeepers, or make another cluster with --data` },
      );
    const known = before?.brokers ?? [];
    const count = options.brokers ?? (known.length === 0 ? DEFAULT_BROKERS : known.length);
    if (count < known.length)
      throw new CliError(
        "BROKER_COUNT",
        `the cluster in ${this.data} has ${plural(known.length, "broker")}, not ${count}`,
        { hint: "leave out --brokers: replicas lie on all of them; or make another cluster with --data" },
      );
    const ports = Array.from({ length: count }, (_, index) => portAskedFor(index + 1, known, options.port));
    checkPorts(options, ports, zookeepers.length);
    return { ports, zookeepers, zookeeper };
  }

  /** The cluster to be: what was there before, grown as asked for. */
  async #plan(before: ClusterState | undefined, options: StartOptions, claims: PortClaims): Promise<ClusterState> {
    const { ports, zookeepers, zookeeper } = this.#wish(before, options);
    const known = before?.brokers ?? [];
    const brokers: BrokerEntry[] = [];
    for (const [index, asked] of ports.entries()) {
      const id = index + 1;
      const former = known.find((entry) => entry.id === id);
      const port = asked ?? (await claims.claimAny()) ?? noPortIsFree();
      if (former !== undefined && former.port !== port && isRunning(former))
        throw new CliError(
          "ALREADY_RUNNING",
          `broker ${id} of the cluster in ${this.data} runs on port ${former.port}`,
          {
            hint: "leave out --port, or stop it first with ottla down",
          },
        );
      brokers.push({ id, port, ...(former?.process === undefined ? {} : { process: former.process }) });
    }
    // Before ZooKeeper's, which may be any: brokers are connected to by hand.
    await claimPortsOf(
      brokers.filter((entry) => !isRunning(entry)),
      claims,
      "stop it, or choose other ports with --port, for example --port 19092",
    );
    return {
      version: 1,
      ...(before?.cluster === undefined ? {} : { cluster: before.cluster }),
      brokers,
      zookeepers: await this.#placed(zookeepers, options.zookeeperPort, claims),
      ...(zookeeper === undefined ? {} : { zookeeper }),
      settings: options.settings ?? before?.settings ?? {},
    };
  }

  /** With the ports that were asked for, or with their own, or others if those are taken. */
  async #placed(
    entries: readonly ZooKeeperEntry[],
    asked: number | undefined,
    claims: PortClaims,
  ): Promise<ZooKeeperEntry[]> {
    if (asked === undefined) return movedIfTaken(entries, claims);
    const placed = entries.map((entry) => ({ ...entry, port: asked + entry.id - 1 }));
    if (entries.some(isRunning)) {
      if (placed.every(({ port }, index) => port === entries[index]?.port)) return [...entries];
      throw new CliError(
        "ALREADY_RUNNING",
        `ZooKeeper of the cluster in ${this.data} runs on port ${entries[0]?.port}`,
        {
          hint: "leave out --zookeeper-port, or stop it first with ottla down",
        },
      );
    }
    await claimPortsOf(placed, claims, "stop it, or choose another port with --zookeeper-port");
    return movedIfTaken(placed, claims, true);
  }

  /** The ensemble that somebody else runs; undefined: its own servers. For a new cluster it may stand in OTTLA_ZOOKEEPER. */
  #zookeeperOf(before: ClusterState | undefined, { zookeeper, zookeepers }: StartOptions): string | undefined {
    if (before === undefined) {
      const given = zookeeper ?? (process.env["OTTLA_ZOOKEEPER"] || undefined);
      if (given !== undefined) checkConnectString(given, zookeeper === undefined ? "OTTLA_ZOOKEEPER" : "--zookeeper");
      if (given !== undefined && zookeepers !== undefined)
        throw usageError("--zookeepers starts servers, and --zookeeper names those that run", "leave out one of them");
      return given;
    }
    if (zookeeper !== undefined && zookeeper !== before.zookeeper)
      throw new CliError(
        "ZOOKEEPER_CHANGED",
        `the cluster in ${this.data} lives in the ZooKeeper at ${zookeeperListOf(before)}, not at ${zookeeper}`,
        { hint: "leave out --zookeeper, or make another cluster with --data" },
      );
    return before.zookeeper;
  }

  async #findZooKeeper({ say, signal }: Pick<StartOptions, "say" | "signal">): Promise<ZooKeeperInstallation> {
    const { findZooKeeper, ZooKeeperNotFound } = await import("../local-zookeeper.js");
    try {
      return await findZooKeeper(say, signal);
    } catch (error) {
      if (error instanceof ZooKeeperNotFound)
        throw new CliError("ZOOKEEPER_NOT_FOUND", error.message, { cause: error });
      throw error;
    }
  }

  async #startAll(
    wanted: ClusterState,
    installation: ZooKeeperInstallation | undefined,
    claims: PortClaims,
  ): Promise<ClusterState> {
    writeClusterState(this.data, wanted);
    claims.keep([...wanted.brokers, ...wanted.zookeepers].flatMap(portsOf));
    for (const entry of wanted.brokers) if (!isRunning(entry)) this.#startBroker(entry, wanted);
    for (const entry of wanted.zookeepers) {
      if (!isRunning(entry) && installation !== undefined) await this.#startZooKeeper(entry, wanted, installation);
    }
    return this.state();
  }

  #startBroker({ id, port }: BrokerEntry, state: ClusterState): BrokerEntry {
    const logs = path.join(this.data, "logs");
    fs.mkdirSync(logs, { recursive: true });
    const logFile = this.logFileOf({ kind: "broker", id });
    putAside(logFile);
    this.#logStarts.set(logFile, sizeOf(logFile));
    const log = fs.openSync(logFile, "a");
    const events = fs.openSync(this.#eventsFileOf(id), "w");
    const settings = Object.entries(state.settings).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
    const args = [
      program,
      "broker",
      ...["--id", String(id), "--zookeeper", zookeeperListOf(state), "--listen", `${LOOPBACK}:${port}`],
      ...["--data", path.join(this.data, `broker-${id}`), ...settings],
    ];
    const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", events, log] });
    // Without a listener the failure to start a process would be thrown where nobody stands.
    child.on("error", () => undefined);
    child.unref();
    fs.closeSync(log);
    fs.closeSync(events);
    const entry: BrokerEntry = { id, port, process: started(child.pid, `broker ${id}`) };
    this.#update((now) => ({ ...now, brokers: now.brokers.map((other) => (other.id === id ? entry : other)) }));
    return entry;
  }

  async #startZooKeeper(
    entry: ZooKeeperEntry,
    state: ClusterState,
    installation: ZooKeeperInstallation,
  ): Promise<ZooKeeperEntry> {
    const { containerOn, startZooKeeper } = await import("../local-zookeeper.js");
    putAside(this.logFileOf({ kind: "zookeeper", id: entry.id }));
    const { pid } = await startZooKeeper(installation, {
      dataDir: this.#zookeeperDirectory(entry.id),
      clientPort: entry.port,
      tickTimeMs: TICK_MS,
      ...(state.zookeepers.length === 1 ? {} : { id: entry.id, servers: state.zookeepers }),
    });
    const { id, port, quorumPort, electionPort } = entry;
    const now: ZooKeeperEntry = {
      ...{ id, port, quorumPort, electionPort },
      ...(installation.kind === "docker" ? { container: containerOn(port) } : {}),
      process: started(pid, `ZooKeeper server ${id}`),
    };
    this.#update((all) => ({ ...all, zookeepers: all.zookeepers.map((other) => (other.id === id ? now : other)) }));
    return now;
  }

  #update(change: (state: ClusterState) => ClusterState): void {
    writeClusterState(this.data, change(this.state()));
  }

  #zookeeperDirectory(id: number): string {
    return path.join(this.data, `zookeeper-${id}`);
  }

  #eventsFileOf(id: number): string {
    return path.join(this.data, "logs", `broker-${id}.events`);
  }

  async #awaitBroker(entry: BrokerEntry, deadline: number, signal: AbortSignal): Promise<void> {
    const isServing = (): boolean =>
      fs.readFileSync(this.#eventsFileOf(entry.id), "utf8").includes('"event":"serving"');
    await this.#await({ kind: "broker", ...entry }, deadline, signal, () => Promise.resolve(isServing()));
  }

  async #awaitZooKeeper(entry: ZooKeeperEntry, deadline: number, signal: AbortSignal): Promise<void> {
    const { answeringOn } = await import("../local-zookeeper.js");
    const dataDir = this.#zookeeperDirectory(entry.id);
    const isServing = async (): Promise<boolean> => {
      const answering = await answeringOn(entry.port, dataDir);
      if (answering === "another")
        throw new CliError("PORT_TAKEN", `port ${entry.port} was taken by another ZooKeeper at the last moment`, {
          hint: "start again",
          retriable: true,
        });
      return answering === "this one";
    };
    await this.#await({ kind: "zookeeper", ...entry }, deadline, signal, isServing);
  }

  async #await(
    target: LocalProcess,
    deadline: number,
    signal: AbortSignal,
    isServing: () => Promise<boolean>,
  ): Promise<void> {
    const name = nameOf(target);
    const log = this.logFileOf(target);
    const lastError = (): string => lastErrorIn(log, this.#logStarts.get(log) ?? 0);
    while (!(await isServing())) {
      signal.throwIfAborted();
      if (!isRunning(target))
        throw new CliError("DID_NOT_START", `${name} ended instead of serving${lastError()}`, {
          hint: `see ${log}`,
        });
      if (Date.now() > deadline) {
        const zookeeper = target.kind === "broker" ? this.state().zookeeper : undefined;
        const silent = zookeeper === undefined || (await isAnyListening(zookeeper)) ? undefined : zookeeper;
        const why = silent === undefined ? lastError() : `: it waits for ZooKeeper, and nobody answers at ${silent}`;
        throw new CliError("START_TIMED_OUT", `${name} does not serve yet${why}`, {
          hint:
            silent === undefined
              ? `see ${log}, or give it longer with --timeout`
              : "start that ZooKeeper, or correct --zookeeper",
          retriable: true,
        });
      }
      await sleep(POLL_MS);
    }
  }

  /** Resolves with the cluster's id once its brokers know of each other and of a controller. */
  async #awaitController(state: ClusterState, deadline: number, signal: AbortSignal): Promise<string> {
    const timeoutMs = Math.max(1000, deadline - Date.now());
    await using cluster = await connectTo({ bootstrap: bootstrapOf(state), timeoutMs, signal });
    const admin = cluster.admin();
    while (true) {
      const { clusterId, controllerId, brokers } = await admin.describeCluster({ deadlineMs: timeoutMs, signal });
      if (brokers.length >= state.brokers.length && controllerId >= 0) return clusterId;
      if (Date.now() > deadline)
        throw new CliError(
          "START_TIMED_OUT",
          `${brokers.length} of ${state.brokers.length} brokers have joined the cluster`,
          {
            hint: `see the logs in ${path.join(this.data, "logs")}`,
            retriable: true,
          },
        );
      await sleep(POLL_MS, undefined, { signal });
    }
  }

  async #stopEntries(state: ClusterState, which: (entry: Entry) => boolean): Promise<void> {
    const stop = (entries: readonly Entry[], kind: LocalProcess["kind"]): Promise<unknown> =>
      Promise.all(entries.filter(which).map((entry) => stopProcess({ kind, ...entry } as LocalProcess)));
    // Brokers first: they say goodbye in ZooKeeper.
    await stop(state.brokers, "broker");
    await stop(state.zookeepers, "zookeeper");
    try {
      this.#update((now) => ({
        ...now,
        brokers: now.brokers.map((entry) => (which(entry) ? withoutProcess(entry) : entry)),
        zookeepers: now.zookeepers.map((entry) => (which(entry) ? withoutProcess(entry) : entry)),
      }));
    } catch (error) {
      // Processes that stand in the file and are gone count as gone: their start and boot stand there too.
      if (!isUnwritable(error)) throw error;
    }
  }
}

/** What was asked for, with what was there before. */
interface Wish {
  /** Of the brokers, by their ids from 1 on; undefined: any that is free. */
  readonly ports: readonly (number | undefined)[];
  readonly zookeepers: readonly ZooKeeperEntry[];
  readonly zookeeper: string | undefined;
}

/** A broker or a ZooKeeper server. */
export type LocalProcess =
  ({ readonly kind: "broker" } & BrokerEntry) | ({ readonly kind: "zookeeper" } & ZooKeeperEntry);
type Entry = BrokerEntry | ZooKeeperEntry;

const program = fileURLToPath(new URL("../ottla.js", import.meta.url));

/** How a process of the cluster is called in sentences. */
export function nameOf({ kind, id }: Pick<LocalProcess, "kind" | "id">): string {
  return kind === "broker" ? `broker ${id}` : `ZooKeeper server ${id}`;
}

/** Whether its process is there, paused or not. */
export function isRunning(entry: Entry): boolean {
  return entry.process !== undefined && conditionOf(entry.process) !== "gone";
}

/** Asks a process to end, waits, and ends it by force when it does not. A paused one is woken first. */
async function stopProcess(target: LocalProcess): Promise<void> {
  const { process: identity } = target;
  if (identity === undefined || !signalProcess(identity, "SIGTERM")) return;
  signalProcess(identity, "SIGCONT");
  const deadline = Date.now() + stopMsMax(target.kind);
  while (conditionOf(identity) !== "gone") {
    if (Date.now() > deadline) signalProcess(identity, "SIGKILL");
    // No signal ends a process that waits for its disk.
    if (Date.now() > deadline + KILL_MS_MAX)
      throw new CliError("DID_NOT_END", `${nameOf(target)} (pid ${identity.pid}) does not end, not even by SIGKILL`, {
        hint: `see whether the disk answers that it writes to, and stop again`,
      });
    await sleep(POLL_MS);
  }
}

const stopMsMax = (kind: LocalProcess["kind"]): number =>
  kind === "broker" ? STOP_BROKER_MS_MAX : STOP_ZOOKEEPER_MS_MAX;
const pidOf = (entry: Entry): number | undefined => entry.process?.pid;
const bootstrapOf = ({ brokers }: ClusterState): string => brokers.map(({ port }) => `${LOOPBACK}:${port}`).join(",");
const zookeeperListOf = ({ zookeeper, zookeepers }: ClusterState): string =>
  zookeeper ?? zookeepers.map(({ port }) => `${LOOPBACK}:${port}`).join(",");

function withoutProcess<T extends Entry>(entry: T): T {
  return { ...entry, process: undefined };
}

function started(pid: number | undefined, name: string): ProcessIdentity {
  const identity = pid === undefined ? undefined : identityOf(pid);
  if (identity === undefined)
    throw new CliError("DID_NOT_START", `${name} could not be started as a process`, {
      hint: "check that this user may start more processes, and that there is memory",
    });
  return identity;
}

function planZooKeepers({ zookeepers: count = DEFAULT_ZOOKEEPERS }: StartOptions): ZooKeeperEntry[] {
  if (count !== 1 && count !== 3) throw usageError(`--zookeepers ${count} is not possible`, "give 1 or 3");
  return Array.from({ length: count }, (_, index) => ({ id: index + 1, port: 0, quorumPort: 0, electionPort: 0 }));
}

/** Of a cluster that was there: what is added to it, and what goes on as it was. */
function sayWhatChanges(before: ClusterState, wanted: ClusterState, say: (sentence: string) => void): void {
  const named = (ids: readonly number[]): string => `broker${ids.length === 1 ? "" : "s"} ${ids.join(", ")}`;
  const added = wanted.brokers.slice(before.brokers.length).map(({ id }) => id);
  if (added.length > 0) say(`adding ${named(added)}; replicas stay where they are, new topics use all brokers`);
  const [first, ...more] = wanted.brokers.filter(isRunning).map(({ id }) => id);
  if (first !== undefined && !isDeepStrictEqual(before.settings, wanted.settings))
    say(
      `${named([first, ...more])} ${more.length === 0 ? "goes" : "go"} on with the settings of before: ` +
        `those of --set come with a restart (ottla restart ${first})`,
    );
}

/** Where a broker is to listen; undefined: on any port that is free. */
function portAskedFor(id: number, known: readonly BrokerEntry[], asked: number | undefined): number | undefined {
  if (asked !== undefined && asked !== 0) return asked + id - 1;
  const former = known.find((entry) => entry.id === id);
  return former?.port ?? (asked === 0 ? undefined : (known[0]?.port ?? DEFAULT_PORT) + id - 1);
}

/**
 * Nobody connects to ZooKeeper by hand, so it steps aside when a port is taken; all of its ports, while none runs. Those that
 * clients connect to stay when they are claimed already.
 */
async function movedIfTaken(
  entries: readonly ZooKeeperEntry[],
  claims: PortClaims,
  areClaimed = false,
): Promise<ZooKeeperEntry[]> {
  if (entries.some(isRunning)) return [...entries];
  const port = async (former: number, from: number): Promise<number> =>
    (await claims.claimFrom(former === 0 ? from : former)) ?? noPortIsFree();
  const moved: ZooKeeperEntry[] = [];
  for (const entry of entries) {
    moved.push({
      id: entry.id,
      port: areClaimed ? entry.port : await port(entry.port, ZOOKEEPER_PORT),
      quorumPort: await port(entry.quorumPort, QUORUM_PORT),
      electionPort: await port(entry.electionPort, QUORUM_PORT),
    });
  }
  return moved;
}

function noPortIsFree(): never {
  throw new CliError("PORT_TAKEN", "no port is free", { hint: "stop something" });
}

/** Whether a file could not be written because of the disk or the directory it is for. */
function isUnwritable(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EROFS", "EACCES"].includes((error as NodeJS.ErrnoException).code ?? "");
}

/** All taken ports in one error, each with who holds it. */
async function claimPortsOf(
  entries: readonly Pick<Entry, "port">[],
  claims: PortClaims,
  whatToDo: string,
): Promise<void> {
  const holders: string[] = [];
  const orphans = new Set<number>();
  for (const { port } of entries) {
    const claim = await claims.claim(port);
    // Another command may wait for the process that this one has just stopped.
    if (claim === "ours" || claim === "shared") continue;
    if (!(await isPortPermitted(port)))
      throw new CliError("PORT_NOT_PERMITTED", `this user may not listen on port ${port}`, {
        hint: "choose one above 1023",
      });
    const holder =
      claim === "kept"
        ? `the cluster in ${claims.ownerOf(port) ?? "another directory"}, whose process there is stopped`
        : claim === "claimed"
          ? "another cluster that starts just now"
          : await describePortHolder(port);
    holders.push(`port ${port} is taken by ${holder}`);
    if (claim === "taken") for (const pid of await orphansOf(port)) orphans.add(pid);
  }
  if (holders.length === 0) return;
  // No command finds them any more: what was known of them lay in the directory.
  const hint =
    orphans.size === 0
      ? whatToDo
      : `a cluster whose directory was deleted still runs there: end it with kill ${[...orphans].join(" ")}, and try again`;
  throw new CliError("PORT_TAKEN", holders.join(", "), { hint });
}

function putAside(logFile: string): void {
  if (sizeOf(logFile) > LOG_BYTES_MAX) fs.renameSync(logFile, `${logFile}.1`);
}

function sizeOf(file: string): number {
  return fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}

/** The error that a broker printed last behind this position, as the end of a sentence. */
function lastErrorIn(logFile: string, from: number): string {
  if (!fs.existsSync(logFile)) return "";
  const lines = fs.readFileSync(logFile).subarray(from).toString("utf8").trimEnd().split("\n").slice(-20);
  const error = lines.reverse().find((line) => line.startsWith("error: "));
  // What to do is for whoever starts a broker by hand.
  return error === undefined ? "" : `: ${error.slice("error: ".length).replace(/ - (?!.* - ).*$/, "")}`;
}
