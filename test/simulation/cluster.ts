import { Broker } from "../../broker/broker.js";
import { BrokerConfig } from "../../broker/config.js";
import type { Log } from "../../broker/log/log.js";
import type { Partition } from "../../broker/partition/partition.js";
import {
  ZnodeFormatError,
  decodeConfig,
  decodeController,
  decodePartitionState,
  decodeTopic,
  paths,
} from "../../broker/zookeeper/znodes.js";
import type { ConfigZnode, PartitionStateZnode } from "../../broker/zookeeper/znodes.js";
import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import { sleep } from "../../common/env/time.js";
import type { LogFields, Logger } from "../../common/logger.js";
import { silentLogger } from "../../common/logger.js";
import { errorNameOf } from "../../protocol/error-codes.js";
import type { Init, NewTopic } from "../../protocol/messages.js";
import type { BrokerId, TopicId } from "../../protocol/types.js";
import { statePath } from "./known-paths.js";
import { Simulation } from "./sim-env.js";
import type { SimHost } from "./sim-env.js";
import { SimClient } from "./sim-client.js";
import type { SimProcess } from "./sim-process.js";
import { SimZooKeeper } from "./sim-zookeeper.js";

export interface SimClusterOptions {
  readonly seed: number;
  /** @defaultValue 3 */
  readonly brokers?: number;
  /** @defaultValue 1 */
  readonly zookeeperServers?: 1 | 3;
  /** Settings of every broker, over those of `simulatedSettings`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Settings of single brokers, over those of all. */
  readonly settingsOf?: Readonly<Record<BrokerId, Readonly<Record<string, string>>>>;
  /** Keeps a line for each event; to look into one run. */
  readonly keepTrace?: boolean;
}

/** Time is cheap here, and still: with these a cluster notices everything within a few seconds. */
const simulatedSettings = {
  "zookeeper.session.timeout.ms": "2000",
  "replica.lag.time.max.ms": "1500",
  "replica.fetch.wait.max.ms": "200",
  "controlled.shutdown.max.ms": "3000",
  "unclean.recovery.wait.ms": "5000",
} as const;

const LISTENER_PORT = 9092;
const INTER_BROKER_PORT = 9093;
/** A broker that could not start is started again after so long, as any supervisor does. */
const SUPERVISOR_RESTART_MS = 500;
const UP_LIMIT_MS = 60_000;
const LOG_LINES_MAX = 20_000;

/** `down`: not running. `starting`: up to the end of `Broker.start`. */
type BrokerState = "down" | "starting" | "up" | "stopping";

/** One broker's place in the cluster: host and disk stay, processes come and go. */
export class SimBroker {
  readonly host: SimHost;
  process: SimProcess | undefined;
  broker: Broker | undefined;
  state: BrokerState = "down";
  /** Its last process ended with the power. */
  lostPower = false;

  constructor(
    readonly id: BrokerId,
    host: SimHost,
  ) {
    this.host = host;
  }

  get address(): string {
    return `${this.host.name}:${LISTENER_PORT}`;
  }
}

/**
 * A whole cluster in one simulation: brokers of the real code on hosts of their own, an ensemble in memory, and clients.
 * Everything that happens comes from the seed. Faults are injected by broker id; `leaderOf` and `controllerId` find roles.
 */
export class SimCluster {
  readonly simulation: Simulation;
  readonly zookeeper: SimZooKeeper;
  readonly brokers = new Map<BrokerId, SimBroker>();
  readonly seed: number;
  /** What everybody logged, oldest first. */
  readonly lines: string[] = [];
  /** Brokers may end themselves: a test of a refusing disk expects it. */
  fatalExpected = false;
  readonly fatals: string[] = [];
  /** Called when a broker has ended itself. */
  onFatal: ((id: BrokerId, error: Error) => void) | undefined;
  readonly #config: Readonly<Record<string, string>>;
  readonly #configOf: Readonly<Record<BrokerId, Readonly<Record<string, string>>>>;
  readonly #decoded = new Map<string, { readonly mzxid: bigint; readonly value: unknown }>();
  readonly #lineListeners: ((host: string, level: string, sentence: string, fields: LogFields) => void)[] = [];
  #clients = 0;
  #admin: SimClient | undefined;

  constructor(options: SimClusterOptions) {
    const { seed, brokers = 3, zookeeperServers = 1, settings = {}, settingsOf = {}, keepTrace = false } = options;
    this.seed = seed;
    const zookeeperHosts = Array.from({ length: zookeeperServers }, (_, index) => `zk${index + 1}`);
    this.simulation = new Simulation({
      seed,
      keepTrace,
      zookeeper: (process, _parts, network) =>
        this.zookeeper.connectorFor(process, {
          canReach: (host) => network.reaches(process.hostName, host),
          canHear: (host) => network.reaches(host, process.hostName),
        }),
    });
    this.zookeeper = SimZooKeeper.inScheduler(this.simulation.scheduler, { hosts: zookeeperHosts });
    this.#config = { ...simulatedSettings, "zookeeper.connect": this.zookeeper.connectString, ...settings };
    this.#configOf = settingsOf;
    for (const host of zookeeperHosts) this.simulation.host(host);
    for (let id = 1; id <= brokers; id += 1)
      this.brokers.set(id, new SimBroker(id, this.simulation.host(`broker-${id}`)));
    this.simulation.scheduler.afterEachEvent(() => {
      if (this.fatals.length > 0 && !this.fatalExpected) throw new Error(`a broker ended itself: ${this.fatals[0]}`);
    });
  }

  get nowMs(): number {
    return this.simulation.scheduler.nowMs;
  }

  broker(id: BrokerId): SimBroker {
    const broker = this.brokers.get(id);
    if (broker === undefined) throw new Error(`there is no broker ${id}`);
    return broker;
  }

  /** Ids of the brokers that serve. */
  get upIds(): BrokerId[] {
    return [...this.brokers.values()].filter(({ state }) => state === "up").map(({ id }) => id);
  }

  // Life and death.

  /** Starts the broker's process, and again when it fails to come up. */
  start(id: BrokerId): void {
    const slot = this.broker(id);
    if (slot.state !== "down") return;
    slot.host.powerOn();
    const process = this.simulation.startProcess(slot.host.name);
    const endpoint = (name: string, port: number): { name: string; host: string; port: number } => ({
      name,
      host: slot.host.name,
      port,
    });
    const listeners = [endpoint("CLIENT", LISTENER_PORT), endpoint("INTERNAL", INTER_BROKER_PORT)];
    const broker = new Broker(
      process.env,
      this.#logger(slot.host.name, process),
      new BrokerConfig({ ...this.#config, ...this.#configOf[id] }),
      { brokerId: id, dataDirectory: "/data", listeners, advertised: [] },
      (error) => this.#onFatal(slot, process, error),
    );
    Object.assign(slot, { process, broker, state: "starting" satisfies BrokerState });
    broker.start().then(
      () => {
        if (slot.process !== process || slot.state !== "starting") return;
        Object.assign(slot, { state: "up" satisfies BrokerState, lostPower: false });
      },
      (error: unknown) => {
        if (slot.process !== process || process.dead) return;
        this.#line(slot.host.name, "error", `did not start: ${String(error)}`);
        this.#gone(slot, () => process.crash());
        this.simulation.scheduler.after(SUPERVISOR_RESTART_MS, `supervisor of ${slot.host.name}`, () => this.start(id));
      },
    );
  }

  /** kill -9. */
  crash(id: BrokerId): void {
    const slot = this.broker(id);
    this.#gone(slot, () => slot.process?.crash());
  }

  /** kill -9 and a new process at once. */
  restart(id: BrokerId): void {
    this.crash(id);
    this.start(id);
  }

  /** SIGSTOP. */
  pause(id: BrokerId): void {
    this.broker(id).process?.pause();
  }

  /** SIGCONT. */
  resume(id: BrokerId): void {
    this.broker(id).process?.resume();
  }

  /** The host goes dark; `start` brings it back. */
  powerCut(...ids: readonly BrokerId[]): void {
    for (const id of ids) {
      const slot = this.broker(id);
      slot.lostPower = true;
      this.#gone(slot, () => slot.host.powerCut());
    }
  }

  /** SIGTERM: hands leaderships over and ends. Resolves when the process is gone. */
  async stop(id: BrokerId): Promise<void> {
    const slot = this.broker(id);
    const { broker, process } = slot;
    if (broker === undefined || process === undefined) return;
    slot.state = "stopping";
    await broker.stop();
    if (slot.process === process) this.#gone(slot, () => process.crash());
  }

  #gone(slot: SimBroker, end: () => void): void {
    end();
    Object.assign(slot, { process: undefined, broker: undefined, state: "down" satisfies BrokerState });
  }

  #onFatal(slot: SimBroker, process: SimProcess, error: Error): void {
    if (process.dead) return;
    this.#line(slot.host.name, "error", `FATAL ${error.stack ?? error.message}`);
    this.fatals.push(`broker ${slot.id}: ${error.message}`);
    // The turn that found it runs on to its end, as it does before a real process is gone.
    this.#gone(slot, () => process.crash());
    this.onFatal?.(slot.id, error);
  }

  // Waiting and writing to ZooKeeper.

  run(durationMs: number): Promise<void> {
    return this.simulation.run(durationMs);
  }

  until(condition: () => boolean, what: string, limitMs = 30_000, everyMs = 0): Promise<void> {
    return this.simulation.scheduler.runUntil(condition, limitMs, what, everyMs);
  }

  complete<T>(work: Promise<T>, limitMs?: number): Promise<T> {
    return this.simulation.complete(work, limitMs);
  }

  /** Overwrites a node of ZooKeeper, as an operator's hand or an old backup does, or makes one. */
  async writeNode(path: string, data: string | Uint8Array, options: { readonly create?: boolean } = {}): Promise<void> {
    const { env } = this.admin;
    const servers = this.zookeeper.connectString;
    const zookeeper = new ZooKeeper(env, silentLogger, { servers, sessionTimeoutMs: 6000 });
    this.note(`${path} is written by hand`);
    const write = async (): Promise<void> => {
      await zookeeper.whenConnected(5000);
      if (options.create) await zookeeper.create(path, Buffer.from(data));
      else await zookeeper.set(path, Buffer.from(data), -1);
      await zookeeper.close();
    };
    await this.complete(write());
  }

  /** Until every broker serves, and knows all others. */
  untilUp(ids: readonly BrokerId[] = [...this.brokers.keys()]): Promise<void> {
    return this.until(
      () =>
        ids.every((id) => {
          const { state, broker } = this.broker(id);
          return state === "up" && ids.every((other) => broker?.metadata.broker(other) !== undefined);
        }),
      `brokers ${ids.join(",")} serve`,
      UP_LIMIT_MS,
    );
  }

  /** Until every live replica of the topic is in sync and everybody agrees on its leaders. */
  untilSettled(topic: string, limitMs = 30_000): Promise<void> {
    return this.until(() => this.isSettled(topic), `${topic} is settled`, limitMs);
  }

  /** Whether every live replica of the topic is in sync and everybody agrees on its leaders. */
  isSettled(topic: string): boolean {
    const assignment = this.assignmentOf(topic);
    if (assignment === undefined) return false;
    const up = this.upIds;
    return assignment.every((replicas, partition) => {
      const state = this.stateOf(topic, partition);
      if (state === undefined || !up.includes(state.leader)) return false;
      const live = replicas.filter((id) => up.includes(id));
      if (state.isr.length !== live.length || !live.every((id) => state.isr.includes(id))) return false;
      const role = this.partition(state.leader, topic, partition)?.role;
      return (
        role?.kind === "leader" &&
        role.epoch === state.leaderEpoch &&
        role.isr.state.kind === "committed" &&
        up.every((id) => {
          const known = this.broker(id).broker?.metadata.topicNamed(topic)?.partitions.get(partition);
          return known?.leaderId === state.leader && known.leaderEpoch === state.leaderEpoch;
        })
      );
    });
  }

  // What is the case, as ZooKeeper and the brokers' memory have it.

  /** The holder of /controller. */
  get controllerId(): BrokerId | undefined {
    const node = this.zookeeper.node(paths.controller);
    return node && decodeController(node.data).brokerId;
  }

  topicId(topic: string): TopicId | undefined {
    return this.#read(paths.topic(topic), decodeTopic)?.topicId;
  }

  assignmentOf(topic: string): readonly (readonly BrokerId[])[] | undefined {
    return this.#read(paths.topic(topic), decodeTopic)?.assignment;
  }

  /** What was set for the topic. */
  configOf(topic: string): ConfigZnode | undefined {
    return this.#read(paths.topicConfig(topic), decodeConfig);
  }

  stateOf(topic: string, partition: number): PartitionStateZnode | undefined {
    return this.#read(statePath(topic, partition), decodePartitionState);
  }

  /** What a node holds; undefined when there is none, or a test has made it unreadable. */
  #read<T>(path: string, decode: (path: string, data: Uint8Array) => T): T | undefined {
    const node = this.zookeeper.node(path);
    if (node === undefined) return undefined;
    // Conditions are asked after every event, and nodes seldom change.
    const known = this.#decoded.get(path);
    if (known !== undefined && known.mzxid === node.mzxid) return known.value as T | undefined;
    const value = decodedOr(undefined, () => decode(path, node.data));
    this.#decoded.set(path, { mzxid: node.mzxid, value });
    return value;
  }

  leaderOf(topic: string, partition = 0): BrokerId {
    const leader = this.stateOf(topic, partition)?.leader;
    if (leader === undefined) throw new Error(`${topic}-${partition} is not in ZooKeeper`);
    return leader;
  }

  /** The in-sync replicas; none when the topic is not in ZooKeeper. */
  isrOf(topic: string, partition = 0): readonly BrokerId[] {
    return this.stateOf(topic, partition)?.isr ?? [];
  }

  /** Replicas that do not lead, by id. */
  followersOf(topic: string, partition = 0): BrokerId[] {
    const leader = this.leaderOf(topic, partition);
    return (this.assignmentOf(topic)?.[partition] ?? []).filter((id) => id !== leader).sort((a, b) => a - b);
  }

  /** The partition's newest incarnation as the broker has it in memory. */
  partition(id: BrokerId, topic: string, partition = 0): Partition | undefined {
    const topicId = this.topicId(topic);
    return topicId === undefined ? undefined : this.broker(id).broker?.partitions?.get(topicId, partition);
  }

  log(id: BrokerId, topic: string, partition = 0): Log {
    const log = this.partition(id, topic, partition)?.log;
    if (log === undefined) throw new Error(`broker ${id} has no replica of ${topic}-${partition}`);
    return log;
  }

  // Clients.

  /** A client on a host of its own. `via`: the only broker that it knows at first. */
  client(via?: BrokerId): SimClient {
    this.#clients += 1;
    const process = this.simulation.startProcess(`client-${this.#clients}`);
    const bootstrap = via === undefined ? [...this.brokers.values()] : [this.broker(via)];
    return new SimClient(
      process,
      bootstrap.map(({ address }) => address),
    );
  }

  /** The newest client runs on host `client-` and this number. */
  get clientCount(): number {
    return this.#clients;
  }

  /** For administrative requests of the test itself. */
  get admin(): SimClient {
    this.#admin ??= this.client();
    return this.#admin;
  }

  /** Creates a topic and waits until it is settled. Config is given as `{ name: value }`. */
  async createTopic(
    topic: Omit<Init<NewTopic>, "config"> & { readonly name: string; readonly config?: Record<string, string> },
  ): Promise<TopicId> {
    const config = Object.entries(topic.config ?? {}).map(([name, value]) => ({ name, value }));
    await this.complete(this.#createTopic({ ...topic, config }));
    await this.untilSettled(topic.name);
    const topicId = this.topicId(topic.name);
    if (topicId === undefined) throw new Error(`${topic.name} is created and not in ZooKeeper`);
    return topicId;
  }

  async #createTopic(topic: Init<NewTopic>): Promise<void> {
    for (;;) {
      const { topics } = await this.admin.administer("createTopics", { topics: [topic], timeoutMs: 10_000 });
      const error = topics[0]?.error ?? null;
      if (error === null) return;
      const name = errorNameOf(error.code);
      // An earlier attempt whose answer was lost.
      if (name === "TOPIC_ALREADY_EXISTS") return;
      if (name !== "INVALID_REPLICATION_FACTOR" && name !== "ZOOKEEPER_UNAVAILABLE")
        throw new Error(`${topic.name ?? ""} was not created: ${name}: ${error.message}`);
      await sleep(this.admin.env.timers, 100);
    }
  }

  async deleteTopic(name: string): Promise<void> {
    const { topics } = await this.complete(this.admin.administer("deleteTopics", { names: [name], timeoutMs: 10_000 }));
    const error = topics[0]?.error ?? null;
    if (error !== null) throw new Error(`${name} was not deleted: ${errorNameOf(error.code)}: ${error.message}`);
  }

  // Logs.

  /** Calls `listener` for every line that anybody logs. */
  onLine(listener: (host: string, level: string, sentence: string, fields: LogFields) => void): void {
    this.#lineListeners.push(listener);
  }

  note(sentence: string): void {
    this.#line("test", "note", sentence);
    this.simulation.scheduler.note(sentence);
  }

  /** Whether anybody has logged a line with this in it. */
  logged(part: string | RegExp): boolean {
    return this.lines.some((line) => (typeof part === "string" ? line.includes(part) : part.test(line)));
  }

  #logger(host: string, process: SimProcess, inherited: LogFields = {}): Logger {
    const log =
      (level: string) =>
      (sentence: string, fields: LogFields = {}): void => {
        if (!process.dead) this.#line(host, level, sentence, { ...inherited, ...fields });
      };
    return {
      debug: log("debug"),
      info: log("info"),
      warn: log("warn"),
      error: log("error"),
      child: (fields) => this.#logger(host, process, { ...inherited, ...fields }),
    };
  }

  #line(host: string, level: string, sentence: string, fields: LogFields = {}): void {
    for (const listener of this.#lineListeners) listener(host, level, sentence, fields);
    const details = Object.keys(fields).length > 0 ? ` ${JSON.stringify(fields)}` : "";
    this.lines.push(`${this.nowMs.toFixed(1).padStart(9)} ${host} ${level}: ${sentence}${details}`);
    if (this.lines.length > 2 * LOG_LINES_MAX) this.lines.splice(0, LOG_LINES_MAX);
  }
}

function decodedOr<T>(otherwise: T | undefined, decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (error instanceof ZnodeFormatError) return otherwise;
    throw error;
  }
}

/** The most lines of logs that a failed test prints. */
const PRINTED_LINES_MAX = Number(process.env["SIM_LINES"] ?? 60);

/**
 * Runs `body` on a cluster that is up (or, without `startBrokers`, on one where nothing runs yet). When it fails, the
 * error says the seed and carries the last lines of the logs. `SIM_LINES=500` prints more of them.
 */
export async function withCluster(
  options: SimClusterOptions & { /** @defaultValue true */ readonly startBrokers?: boolean },
  body: (cluster: SimCluster) => Promise<void>,
): Promise<void> {
  const cluster = new SimCluster(options);
  try {
    if (options.startBrokers ?? true) {
      for (const id of cluster.brokers.keys()) cluster.start(id);
      await cluster.untilUp();
    }
    await body(cluster);
  } catch (error) {
    const lines = cluster.lines.slice(-PRINTED_LINES_MAX).join("\n");
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Error(`[seed ${cluster.seed}, at ${cluster.nowMs.toFixed(0)} ms] ${text}\n--- logs:\n${lines}`, {
      cause: error,
    });
  }
}
