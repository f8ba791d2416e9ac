import type { Cluster } from "../../client/index.js";
import { connect } from "../../client/index.js";
import { paths } from "../../broker/zookeeper/znodes.js";
import type { BrokerId } from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";
import { SimCluster } from "./cluster.js";
import type { ClusterImage, Violation } from "./history.js";
import { brokenPromises, History, replicaDifferences, unconverged } from "./history.js";
import { Invariants } from "./invariants.js";
import type { SimRandom } from "./sim-random.js";
import { IdempotentWriter, LibraryReader, LibraryWriter, PlainWriter, Reader, readToEnd } from "./workload.js";
import type { Target } from "./workload.js";

/** What may go wrong in a run, and how often: the weight of each kind of fault. 0 switches it off. */
export interface FaultWeights {
  /** kill -9; a new process comes a while later. */
  readonly crash: number;
  /** kill -9 and a new process at once, inside the old one's session. */
  readonly restart: number;
  /** SIGTERM, and a new process a while later. */
  readonly stop: number;
  /** SIGSTOP for less than the session timeout. */
  readonly shortPause: number;
  /** SIGSTOP for more than the session timeout. */
  readonly longPause: number;
  /** The event loop is blocked for a moment. */
  readonly stall: number;
  /** Two brokers do not hear each other, or one does not hear the other. */
  readonly partition: number;
  /** A broker reaches nobody. */
  readonly isolation: number;
  /** A broker does not reach ZooKeeper, and nobody else notices. */
  readonly zookeeperPartition: number;
  /** Every connection of a broker is reset. */
  readonly reset: number;
  /** A broker's session ends while it lives. */
  readonly expiry: number;
  /** A ZooKeeper server dies, hangs, or is cut off and answers from the past. */
  readonly zookeeperServer: number;
  /** No ZooKeeper server answers. */
  readonly quorumLoss: number;
  /** One machine loses its power, and with it some of what it had not synced. */
  readonly powerCut: number;
  /** All machines do. Only topics that sync before they acknowledge survive that. */
  readonly totalPowerCut: number;
  /** Nothing more fits on a disk for a while. */
  readonly diskFull: number;
  /** A bit of a record turns over on one disk, and its broker finds it. */
  readonly rot: number;
}

/** The whole fault model of a run. Everything that a seed decides is drawn within these bounds. */
export interface FaultModel {
  readonly brokers: number;
  readonly zookeeperServers: 1 | 3;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly durability: "page-cache" | "fsync";
  /** How long faults are injected, in virtual milliseconds. */
  readonly safetyMs: number;
  /** From one fault to the next, on the average. They overlap. */
  readonly faultIntervalMs: number;
  /** Within this time after the last fault is healed the cluster must have converged. */
  readonly livenessMs: number;
  readonly weights: FaultWeights;
}

/** One of several moderate models, by seed. */
export function faultModelOf(seed: number): FaultModel {
  const durability = seed % 3 === 0 ? "fsync" : "page-cache";
  return {
    brokers: seed % 4 === 1 ? 5 : 3,
    zookeeperServers: seed % 2 === 0 ? 3 : 1,
    partitions: 2,
    replicationFactor: 3,
    durability,
    safetyMs: 8000,
    faultIntervalMs: 500 + (seed % 5) * 400,
    livenessMs: 30_000,
    weights: {
      crash: 3,
      restart: 3,
      stop: 1,
      shortPause: 2,
      longPause: 2,
      stall: 1,
      partition: 3,
      isolation: 2,
      zookeeperPartition: 2,
      reset: 2,
      expiry: 2,
      zookeeperServer: 2,
      quorumLoss: 1,
      powerCut: 1,
      totalPowerCut: durability === "fsync" ? 1 : 0,
      diskFull: 0,
      rot: 0,
    },
  };
}

/** The same with disks that fail often. */
export function diskFaultModelOf(seed: number): FaultModel {
  const model = faultModelOf(seed);
  return { ...model, weights: { ...model.weights, diskFull: 8, rot: 8 } };
}

/** What a run showed. */
export interface FaultRun {
  readonly violations: readonly Violation[];
  readonly counts: ReturnType<History["counts"]>;
  /** How often each kind of fault was injected. */
  readonly injected: ReadonlyMap<string, number>;
  readonly traceHash: number;
  readonly eventCount: number;
  readonly virtualMs: number;
}

const TOPIC = "events";
const SESSION_MS = 2000;
const WRITE_INTERVAL_MS = 40;
const PENDING_MAX = 8;
const DELIVERY_TIMEOUT_MS = 8000;
/** A deposed leader may take acks=1 for so long: until its lease has lapsed and its followers were silent for a session. */
const ZOMBIE_LIMIT_MS = 3 * SESSION_MS;

/**
 * One run: a cluster, writers and readers, faults for a while, then healing, convergence, and the final read. Throws what
 * the simulation throws (an invariant that broke, a cluster that does not converge); what the history shows is returned.
 */
export async function runWithFaults(
  seed: number,
  model: FaultModel = faultModelOf(seed),
  onCluster: (cluster: SimCluster) => void = () => undefined,
): Promise<FaultRun> {
  const cluster = new SimCluster({ seed, brokers: model.brokers, zookeeperServers: model.zookeeperServers });
  onCluster(cluster);
  for (const id of cluster.brokers.keys()) cluster.start(id);
  await cluster.untilUp();
  const history = new History(() => cluster.nowMs);
  const topicId = await cluster.createTopic({
    name: TOPIC,
    partitions: model.partitions,
    replicationFactor: model.replicationFactor,
    config: { durability: model.durability },
  });
  const invariants = new Invariants(cluster, history);
  invariants.watchTopic(TOPIC);
  invariants.attach();

  const targets = Array.from({ length: model.partitions }, (_, partition) => ({ topicId, partition }));
  const library = await cluster.complete(
    connect({
      env: cluster.client().env,
      bootstrapBrokers: [...cluster.brokers.values()].map(({ address }) => address),
    }),
  );
  const work = new Workload(cluster, library, history, targets);
  work.start();
  const injector = new FaultInjector(cluster, model);
  injector.start();
  await cluster.run(model.safetyMs);
  injector.stopAndHeal();
  cluster.note("healed");
  // A session that the faults have cost may end as late as that.
  await cluster.run(1.5 * SESSION_MS);
  await cluster.untilUp();
  await cluster.untilSettled(TOPIC, model.livenessMs);
  // It works again: something new is written everywhere.
  const before = history.okCount;
  await cluster.until(() => history.okCount >= before + 5 * targets.length, "writers make progress", 10_000);
  work.stop();
  if (work.failure !== undefined) throw new Error(`a consumer gave up: ${String(work.failure)}`);
  await cluster.until(() => work.isIdle, "every write has an outcome", 30_000);
  await cluster.untilSettled(TOPIC);
  await cluster.run(500);
  for (const id of cluster.brokers.keys()) {
    for (const target of targets)
      history.finalRead(await cluster.complete(readToEnd(cluster.client(id), `broker ${id}`, target)));
  }
  return {
    violations: [
      ...brokenPromises(history, ZOMBIE_LIMIT_MS),
      ...replicaDifferences(invariants.replicaImages()),
      ...unconverged(clusterImages(cluster, targets), {
        liveBrokers: new Set(cluster.upIds),
        replicas: new Map(
          targets.map(({ partition }) => [
            partitionKey(topicId, partition),
            cluster.assignmentOf(TOPIC)?.[partition] ?? [],
          ]),
        ),
        minInsyncReplicas: 2,
      }),
    ],
    counts: history.counts(),
    injected: injector.injected,
    traceHash: cluster.simulation.scheduler.traceHash,
    eventCount: cluster.simulation.scheduler.eventCount,
    virtualMs: cluster.nowMs,
  };
}

/** What ZooKeeper says, and then each broker. */
function clusterImages(cluster: SimCluster, targets: readonly Target[]): ClusterImage[] {
  const image = (
    of: string,
    stateOf: (target: Target) => { leader: BrokerId; leaderEpoch: number; isr: readonly BrokerId[] } | undefined,
  ): ClusterImage => ({
    of,
    partitions: new Map(
      targets.flatMap((target) => {
        const state = stateOf(target);
        if (state === undefined) return [];
        const { leader, leaderEpoch, isr } = state;
        return [[partitionKey(target.topicId, target.partition), { leaderId: leader, leaderEpoch, isr }] as const];
      }),
    ),
  });
  return [
    image("ZooKeeper", ({ partition }) => cluster.stateOf(TOPIC, partition)),
    ...[...cluster.brokers.values()].map((slot) =>
      image(`broker ${slot.id}`, ({ topicId, partition }) => {
        const state = slot.broker?.metadata.topic(topicId)?.partitions.get(partition);
        return state && { leader: state.leaderId ?? -1, leaderEpoch: state.leaderEpoch, isr: state.isr };
      }),
    ),
  ];
}

/**
 * For each partition: an idempotent writer of our own and one of the client library, one that is content with the leader's
 * word, and a reader of each kind.
 */
class Workload {
  readonly #writers: (IdempotentWriter | LibraryWriter | PlainWriter)[] = [];
  readonly #readers: (Reader | LibraryReader)[] = [];
  readonly #random: SimRandom;
  #count = 0;
  #stopped = false;

  constructor(
    private readonly cluster: SimCluster,
    library: Cluster,
    history: History,
    targets: readonly Target[],
  ) {
    this.#random = cluster.simulation.scheduler.random.stream("workload");
    const [one, two] = [cluster.client(), cluster.client()];
    for (const target of targets) {
      const name = (kind: string): string => `${kind}-${target.partition}`;
      this.#writers.push(
        new IdempotentWriter(one, history, name("writer"), target, DELIVERY_TIMEOUT_MS),
        new LibraryWriter(library, history, name("library"), TOPIC, target, DELIVERY_TIMEOUT_MS),
        new PlainWriter(two, history, name("plain"), target),
      );
      this.#readers.push(
        new Reader(cluster.client(), history, name("reader"), target),
        new LibraryReader(library, history, name("consumer"), TOPIC, target),
      );
    }
  }

  /** Why a reader of the library gave up, if one did: none of the faults here is a reason. */
  get failure(): unknown {
    return this.#readers.map((reader) => (reader instanceof LibraryReader ? reader.failure : undefined)).find(Boolean);
  }

  get isIdle(): boolean {
    return this.#writers.every(({ isIdle }) => isIdle);
  }

  start(): void {
    for (const reader of this.#readers) reader.start();
    this.#tick();
  }

  stop(): void {
    this.#stopped = true;
    for (const reader of this.#readers) reader.stop();
  }

  #tick(): void {
    if (this.#stopped) return;
    for (const writer of this.#writers) {
      if (writer instanceof PlainWriter ? !writer.isIdle : writer.pendingCount >= PENDING_MAX) continue;
      this.#count += 1;
      const values = Array.from({ length: 1 + this.#random.below(3) }, (_, index) => `v${this.#count}.${index}`);
      void writer.write(values);
    }
    this.cluster.simulation.scheduler.after(this.#random.delayMs(WRITE_INTERVAL_MS), "workload", () => this.#tick());
  }
}

type FaultKind = keyof FaultWeights;

/** Draws faults from the seed, injects each when its time comes, and ends it some time later. */
class FaultInjector {
  readonly injected = new Map<string, number>();
  readonly #random: SimRandom;
  /** The ends of faults that last. */
  readonly #ends = new Set<() => void>();
  #stopped = false;

  constructor(
    private readonly cluster: SimCluster,
    private readonly model: FaultModel,
  ) {
    this.#random = cluster.simulation.scheduler.random.stream("faults");
  }

  start(): void {
    this.cluster.simulation.scheduler.after(this.#random.delayMs(this.model.faultIntervalMs), "next fault", () => {
      if (this.#stopped) return;
      this.#injectOne();
      this.start();
    });
  }

  stopAndHeal(): void {
    this.#stopped = true;
    for (const end of [...this.#ends]) end();
    this.cluster.simulation.network.heal();
    for (const slot of this.cluster.brokers.values()) {
      slot.process?.resume();
      this.cluster.start(slot.id);
    }
  }

  #injectOne(): void {
    const kinds = Object.entries(this.model.weights) as [FaultKind, number][];
    let left = this.#random.float() * kinds.reduce((sum, [, weight]) => sum + weight, 0);
    const [kind] = kinds.find(([, weight]) => (left -= weight) < 0) ?? ["reset"];
    const id = this.#victim();
    if (id === undefined || !this.#inject(kind as FaultKind, id)) return;
    this.injected.set(kind, (this.injected.get(kind) ?? 0) + 1);
  }

  /** Leaders and controllers more often than chance would have it. */
  #victim(): BrokerId | undefined {
    const { cluster } = this;
    const up = [...cluster.brokers.values()].filter(({ process }) => process !== undefined).map(({ id }) => id);
    const roles = [cluster.controllerId, cluster.stateOf(TOPIC, 0)?.leader].filter(
      (id): id is BrokerId => id !== undefined && up.includes(id),
    );
    if (up.length === 0) return undefined;
    return roles.length > 0 && this.#random.chance(0.6) ? this.#random.pick(roles) : this.#random.pick(up);
  }

  /** False: it cannot be done now. */
  #inject(kind: FaultKind, id: BrokerId): boolean {
    const { cluster } = this;
    const { network } = cluster.simulation;
    const slot = cluster.broker(id);
    const host = slot.host.name;
    const for_ = (least: number, most: number): number => least + this.#random.float() * (most - least);
    const say = (what: string): void => cluster.note(`FAULT ${kind}: ${what}`);
    switch (kind) {
      case "crash":
        say(host);
        cluster.crash(id);
        this.#later(for_(300, 5000), () => cluster.start(id));
        return true;
      case "restart":
        say(host);
        cluster.restart(id);
        return true;
      case "stop":
        if (slot.state !== "up") return false;
        say(host);
        void cluster.stop(id).then(() => this.#later(for_(100, 3000), () => cluster.start(id)));
        return true;
      case "shortPause":
      case "longPause": {
        const { process } = slot;
        const durationMs = kind === "shortPause" ? for_(0.2, 0.8) * SESSION_MS : for_(1.2, 2.5) * SESSION_MS;
        say(`${host} for ${durationMs.toFixed(0)} ms`);
        process?.pause();
        this.#later(durationMs, () => process?.resume());
        return true;
      }
      case "stall":
        say(host);
        slot.process?.stall(for_(100, 900));
        return true;
      case "partition": {
        const others = [...cluster.brokers.values()].filter((other) => other !== slot);
        const other = this.#random.pick(others).host.name;
        const oneWay = this.#random.chance(0.4);
        say(`${host} ${oneWay ? "to" : "and"} ${other}`);
        network.partition(host, other, { oneWay });
        this.#later(for_(300, 5000), () => network.heal(host, other));
        return true;
      }
      case "isolation":
        say(host);
        network.isolate(host);
        this.#later(for_(300, 6000), () => network.heal(host));
        return true;
      case "zookeeperPartition":
        say(host);
        for (const server of this.#servers()) network.partition(host, server);
        this.#later(for_(300, 6000), () => {
          for (const server of this.#servers()) network.heal(host, server);
        });
        return true;
      case "reset":
        say(host);
        network.resetAll(host);
        return true;
      case "expiry": {
        const session = cluster.zookeeper.node(paths.broker(id))?.ephemeralOwner;
        if (session === undefined) return false;
        say(host);
        cluster.zookeeper.expireSession(session);
        return true;
      }
      case "zookeeperServer":
        return this.#injectServerFault();
      case "quorumLoss":
        say("nobody answers");
        cluster.zookeeper.loseQuorum();
        this.#later(for_(500, 5000), () => cluster.zookeeper.regainQuorum());
        return true;
      case "powerCut":
        // Without syncs, records survive while a machine that has them keeps its power: all replicas must have them.
        if (this.model.durability === "page-cache" && !this.#isWhole()) return false;
        say(host);
        cluster.powerCut(id);
        this.#later(for_(300, 4000), () => cluster.start(id));
        return true;
      case "totalPowerCut":
        say("everybody");
        cluster.powerCut(...cluster.brokers.keys());
        for (const other of cluster.brokers.keys()) this.#later(for_(200, 3000), () => cluster.start(other));
        return true;
      case "diskFull": {
        const { disk } = slot.host;
        say(host);
        disk.setCapacity(disk.usedBytes);
        this.#later(for_(300, 4000), () => disk.setCapacity(Number.POSITIVE_INFINITY));
        return true;
      }
      case "rot":
        return this.#injectRot(id, say);
    }
  }

  /** Never on two copies of a record: what nobody has any more cannot be brought back. */
  #injectRot(id: BrokerId, say: (what: string) => void): boolean {
    const { cluster } = this;
    const partition = cluster.partition(id, TOPIC);
    if (!this.#isWhole() || partition === undefined) return false;
    const { disk } = cluster.broker(id).host;
    const path = disk.paths().find((name) => name.includes(`/${TOPIC}-0/`) && name.endsWith(".log"));
    const size = path === undefined ? 0 : (disk.contentOf(path)?.length ?? 0);
    if (path === undefined || size === 0) return false;
    const position = this.#random.below(size);
    say(`${path} of ${cluster.broker(id).host.name} at ${position}`);
    disk.flipBit(path, position, this.#random.below(8));
    partition.log.verifyRange(partition.log.logStartOffset).catch((error: unknown) => {
      cluster.note(`the damage is not looked for: ${String(error)}`);
    });
    return true;
  }

  #isWhole(): boolean {
    const { cluster } = this;
    return cluster.isSettled(TOPIC) && cluster.upIds.length === cluster.brokers.size;
  }

  #injectServerFault(): boolean {
    const { zookeeper } = this.cluster;
    const server = this.#random.pick(this.#servers());
    const how = this.#random.pick(["down", "frozen", "isolated"] as const);
    this.cluster.note(`FAULT zookeeperServer: ${server} ${how}`);
    if (how === "down") zookeeper.takeDown(server);
    else if (how === "frozen") zookeeper.freeze(server);
    else zookeeper.isolate(server);
    this.#later(500 + this.#random.float() * 4000, () => {
      if (how === "down") zookeeper.bringUp(server);
      else if (how === "frozen") zookeeper.thaw(server);
      else zookeeper.heal(server);
    });
    return true;
  }

  #servers(): string[] {
    return Array.from({ length: this.model.zookeeperServers }, (_, index) => `zk${index + 1}`);
  }

  #later(delayMs: number, end: () => void): void {
    const once = (): void => {
      if (this.#ends.delete(once)) end();
    };
    this.#ends.add(once);
    this.cluster.simulation.scheduler.after(delayMs, "end of a fault", once);
  }
}
