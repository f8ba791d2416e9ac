import type { Env } from "../../common/env/env.js";
import type { ZooKeeperConnector } from "../../common/env/zookeeper-connection.js";
import { Scheduler } from "./scheduler.js";
import { SimDisk } from "./sim-file-system.js";
import { SimNetwork } from "./sim-network.js";
import { SimProcess } from "./sim-process.js";

/**
 * A simulated world: hosts with a disk and a network, and on them processes, each with an `Env` of its own. Everything
 * that happens comes from one seed. Drive it from the test with `run`, `runUntil` and `complete`; inject faults through
 * `network`, `host(name)` and the processes themselves.
 */
export class Simulation {
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly #hosts = new Map<string, SimHost>();
  readonly #zookeeper: ZooKeeperFactory;

  constructor(options: SimulationOptions) {
    this.scheduler = new Scheduler(options);
    this.network = new SimNetwork(this.scheduler);
    this.#zookeeper = options.zookeeper ?? noZooKeeper;
  }

  /** The host of this name, made when it is asked for first. Peers reach it by this name. */
  host(name: string): SimHost {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      this.network.addHost(name);
      host = new SimHost(name, this.scheduler, this.network, this.#hosts.size);
      this.#hosts.set(name, host);
    }
    return host;
  }

  /** A new incarnation on the host. Give its `env` to the code that is to run as this process. */
  startProcess(hostName: string): SimProcess {
    const host = this.host(hostName);
    if (host.down) throw new Error(`${hostName} has no power: call its powerOn first.`);
    const process = host.newProcess();
    process.env = this.#envOf(process, host);
    return process;
  }

  run(durationMs: number): Promise<void> {
    return this.scheduler.run(durationMs);
  }

  runUntil(condition: () => boolean, limitMs: number, what?: string): Promise<void> {
    return this.scheduler.runUntil(condition, limitMs, what);
  }

  complete<T>(work: Promise<T>, limitMs?: number): Promise<T> {
    return this.scheduler.complete(work, limitMs);
  }

  #envOf(process: SimProcess, host: SimHost): Env {
    const random = this.scheduler.random.stream(`process/${process.name}`);
    const computeRandom = random.stream("compute");
    const parts: EnvWithoutZooKeeper = {
      clock: {
        monotonicMs: () => process.nowMs + host.monotonicOriginMs - host.suspendedMs,
        wallMs: () => Math.floor(process.nowMs + host.wallOriginMs),
      },
      timers: process.timers,
      random,
      network: this.network.networkOf(process),
      files: host.disk.fileSystemOf(process),
      compute: { run: (job) => process.result(computeRandom.delayMs(computeMeanMs), "computes", job) },
      bootId: host.bootId,
      process: { pid: process.pid, hostname: host.name, isAlive: (pid) => host.isAlive(pid) },
    };
    return { ...parts, zookeeper: this.#zookeeper(process, parts, this.network) };
  }
}

export interface SimulationOptions {
  readonly seed: number;
  /** Keeps a readable line for each event in `scheduler.trace`. */
  readonly keepTrace?: boolean;
  /** Makes each process's way to ZooKeeper. Without it every connection is refused. */
  readonly zookeeper?: ZooKeeperFactory;
}

export type EnvWithoutZooKeeper = Omit<Env, "zookeeper">;

/**
 * `process.guard` binds callbacks to the incarnation, `process.onDeath` tells when its connections drop, and the network
 * knows whether and how fast a message gets from `process.hostName` to a ZooKeeper server's host.
 */
export type ZooKeeperFactory = (
  process: SimProcess,
  parts: EnvWithoutZooKeeper,
  network: SimNetwork,
) => ZooKeeperConnector;

const noZooKeeper: ZooKeeperFactory = (process) => ({
  open: (_options, handler) => {
    process.schedule(1, "has no ZooKeeper", () => handler.onClosed(new Error("no ZooKeeper in this simulation")));
    return {
      request: (_request, onResult) =>
        void process.schedule(0, "has no ZooKeeper", () => onResult({ code: "connection-loss" })),
      closeSession: () => undefined,
      destroy: () => undefined,
    };
  },
});

const computeMeanMs = 0.5;

/** A machine: what outlives its processes. */
export class SimHost {
  readonly disk: SimDisk;
  /** Differs from host to host, so that nobody compares two hosts' monotonic clocks. */
  readonly monotonicOriginMs: number;
  #wallOriginMs: number;
  #suspendedAtMs: number | undefined;
  #suspendedMs = 0;
  #bootCount = 1;
  #lastPid = 100;
  #down = false;
  #processes: SimProcess[] = [];

  constructor(
    readonly name: string,
    private readonly scheduler: Scheduler,
    private readonly network: SimNetwork,
    index: number,
  ) {
    this.disk = new SimDisk(scheduler, name);
    this.monotonicOriginMs = 1_000_000 * (index + 1);
    this.#wallOriginMs = Date.UTC(2026, 0, 1) + index;
  }

  /** Changes with every power cut, with nothing else. */
  get bootId(): string {
    return `${this.name}-boot-${this.#bootCount}`;
  }

  get down(): boolean {
    return this.#down;
  }

  /** The wall clock at the simulation's beginning. */
  get wallOriginMs(): number {
    return this.#wallOriginMs;
  }

  /** For how long it was suspended in all; monotonic clocks do not count that (CLOCK_MONOTONIC). */
  get suspendedMs(): number {
    return this.#suspendedMs;
  }

  /** The whole machine stands still, as a virtual machine does, until `resume`: no process runs, monotonic clocks stop. */
  suspend(): void {
    if (this.#down || this.#suspendedAtMs !== undefined) return;
    this.scheduler.note(`${this.name} is suspended`);
    this.#suspendedAtMs = this.scheduler.nowMs;
    for (const process of this.#processes) process.pause();
  }

  resume(): void {
    if (this.#suspendedAtMs === undefined) return;
    this.scheduler.note(`${this.name} goes on`);
    this.#suspendedMs += this.scheduler.nowMs - this.#suspendedAtMs;
    this.#suspendedAtMs = undefined;
    for (const process of this.#processes) process.resume();
  }

  /** Sets the wall clock forward, or back; the monotonic clock does not notice. */
  jumpWallClock(byMs: number): void {
    this.scheduler.note(`${this.name} wall clock jumps ${byMs}`);
    this.#wallOriginMs += byMs;
  }

  /** Ends all processes, silently for their peers, and tears what the disk was not told to keep. */
  powerCut(): void {
    if (this.#down) return;
    this.#down = true;
    this.#suspendedAtMs = undefined;
    this.network.setDown(this.name, true);
    for (const process of this.#processes) process.die("power-cut");
    this.#processes = [];
    this.disk.powerCut();
    this.#bootCount += 1;
  }

  /** The kernel is up again: it refuses what it does not know. Processes are started by the test. */
  powerOn(): void {
    if (!this.#down) return;
    this.scheduler.note(`${this.name} has power`);
    this.#down = false;
    this.network.setDown(this.name, false);
  }

  newProcess(): SimProcess {
    this.#processes = this.#processes.filter((process) => !process.dead);
    this.#lastPid += 1;
    const process = new SimProcess(this.scheduler, this.name, this.#lastPid, () => this.#suspendedMs);
    this.#processes.push(process);
    return process;
  }

  isAlive(pid: number): boolean {
    return this.#processes.some((process) => process.pid === pid && !process.dead);
  }
}
