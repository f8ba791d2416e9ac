import { partitionKey } from "../../../protocol/types.js";
import { StorageFailure } from "../../../common/env/files.js";
import { SimCluster } from "../cluster.js";
import type { Violation } from "../history.js";
import { brokenPromises, History, replicaDifferences, unconverged } from "../history.js";
import { clusterImages } from "../images.js";
import { Invariants } from "../invariants.js";
import { readToEnd } from "../workload.js";
import type { Target } from "../workload.js";
import { Administrator } from "./administrator.js";
import { SwarmClients } from "./clients.js";
import { Deadlines } from "./deadlines.js";
import { FaultLog } from "./fault-log.js";
import type { FaultTable } from "./fault-log.js";
import { Nemesis } from "./nemesis.js";
import { Proposals } from "./proposals.js";
import { Survivors } from "./survivors.js";
import { SwarmTopics } from "./topics.js";
import type { SwarmTopic } from "./topics.js";
import type { World } from "./world.js";
import { forgetsProducers, SESSION_MS, worldOf } from "./world.js";

const CLIENTS = 2;
/** A long log on a slow disk. */
const READ_ALL_MS = 600_000;
const CONVERGE_MS = 40_000;
/** Where a sync takes longer than this, everything does: each of many small segments is synced when it is rolled. */
const USUAL_SYNC_MS = 10;
/** Forty reads and syncs of a disk that is no match for deletions that come each second. */
const SLOW_DISK_MS = 4000;
/** A reader that was far behind may take so long to catch up in calm. */
const CATCH_UP_MS = 30_000;
/** In calm news reaches everybody within this time. */
const NEWS_MS = 1000;
const PROBES = 3;
/** How often is looked whether what is waited for has come true. */
const LOOK_MS = 20;
/** What idempotence promises holds while the broker remembers the producer. */
const promisesOfRemembered: ReadonlySet<string> = new Set(["L5", "L6"]);
/** A deposed leader may take acks=1 for so long: until its lease has lapsed and its followers were silent for a session. */
const ZOMBIE_LIMIT_MS = 3 * SESSION_MS;

/** What a run showed. */
export interface SwarmRun {
  readonly violations: readonly Violation[];
  readonly counts: ReturnType<History["counts"]>;
  readonly faults: FaultTable;
  readonly traceHash: number;
  readonly eventCount: number;
  readonly virtualMs: number;
}

/**
 * One run of the swarm: a world drawn from the seed, rounds of faults and calm in it, administration all the while, and the
 * final read. Throws what the simulation throws (an invariant that broke, news that did not arrive, a cluster that does not
 * converge); what the history shows is returned.
 */
export async function runSwarm(
  seed: number,
  world: World = worldOf(seed),
  onCluster: (cluster: SimCluster) => void = () => undefined,
): Promise<SwarmRun> {
  const run = new Swarm(world);
  onCluster(run.cluster);
  return run.run();
}

class Swarm {
  readonly cluster: SimCluster;
  readonly #world: World;
  readonly #topics = new SwarmTopics();
  readonly #log = new FaultLog();
  readonly #history: History;
  readonly #invariants: Invariants;
  readonly #survivors: Survivors;
  readonly #deadlines: Deadlines;
  readonly #clients: SwarmClients;
  readonly #administrator: Administrator;
  readonly #nemesis: Nemesis;
  readonly #proposals: Proposals;
  readonly #failures: string[] = [];

  constructor(world: World) {
    this.#world = world;
    const { seed, settings, machines, zookeeperServers } = world;
    const racks = [...machines].map(([id, { rack }]) => [id, { "broker.rack": rack }] as const);
    const cluster = new SimCluster({
      seed,
      brokers: machines.size,
      zookeeperServers,
      settings,
      settingsOf: Object.fromEntries(racks),
    });
    this.cluster = cluster;
    const { scheduler } = cluster.simulation;
    const random = scheduler.random.stream("swarm");
    const topics = this.#topics;
    const log = this.#log;
    const history: History = new History(
      () => cluster.nowMs,
      (key) => invariants.highWatermarkOf(key),
    );
    const invariants: Invariants = new Invariants(cluster, history, {
      noHands: true,
      leastMinimum: ({ topicId }) => topics.byId(topicId)?.leastMinimum(cluster.nowMs),
      deletedBefore: ({ topicId, partition }) => topics.byId(topicId)?.answeredDeletions.get(partition) ?? 0,
      retentionMs: ({ topicId }) => {
        const topic = topics.byId(topicId);
        const config = topic && cluster.configOf(topic.name);
        const isByAge = config?.has("retention.bytes") === false && topic?.askedDeletions.size === 0;
        return isByAge && world.weights.clockJump === 0 ? Number(config.get("retention.ms") ?? Infinity) : undefined;
      },
      onRoleChanged: (slot, partition) => {
        if (slot.host.disk.isReading(`/data/logs/${partition.topic}-${partition.partition}`))
          log.count("a read was cut by a role change");
      },
    });
    this.#history = history;
    this.#invariants = invariants;
    const survivors = new Survivors(cluster, topics, invariants, history);
    this.#survivors = survivors;
    const deadlines = new Deadlines(scheduler);
    this.#deadlines = deadlines;
    const clients = new SwarmClients({
      cluster,
      history,
      topics,
      deadlines,
      random: random.stream("clients"),
      world,
      onFailure: (sentence) => this.#failures.push(`${sentence} at ${this.cluster.nowMs.toFixed(0)} ms`),
    });
    this.#clients = clients;
    const administrator = new Administrator({
      cluster,
      world,
      topics,
      clients,
      history,
      invariants,
      deadlines,
      log,
      random: random.stream("administrator"),
    });
    this.#administrator = administrator;
    const parts = { cluster, world, topics, clients, administrator, survivors, log };
    this.#nemesis = new Nemesis({ ...parts, random: random.stream("nemesis") });
    this.#proposals = new Proposals(cluster);
    cluster.fatalExpected = true;
    cluster.onFatal = (id, error) => {
      // A disk that fails stops its broker; nothing else may.
      if (!/ (sync|write) of .*\.log/.test(error.message) && !(error instanceof StorageFailure))
        this.#failures.push(`broker ${id} ended itself: ${error.stack ?? error.message}`);
      else this.#nemesis.onFatal(id);
    };
  }

  get #convergeMs(): number {
    const slowestMs = Math.max(...[...this.#world.machines.values()].map(({ syncDelayMs }) => syncDelayMs));
    return CONVERGE_MS * Math.max(1, slowestMs / USUAL_SYNC_MS);
  }

  async run(): Promise<SwarmRun> {
    const { cluster } = this;
    this.#furnish();
    for (const id of cluster.brokers.keys()) cluster.start(id);
    await cluster.untilUp();
    this.#invariants.attach();
    cluster.simulation.scheduler.afterEachEvent(() => this.#survivors.settle());
    await cluster.complete(this.#administrator.connect());
    await cluster.complete(this.#administrator.createFirst());
    this.#clients.start(CLIENTS);
    this.#administrator.start();
    for (let round = 0; round < this.#world.rounds; round += 1) {
      this.#nemesis.begin();
      await cluster.run(this.#world.roundMs);
      await this.#calm();
    }
    return this.#end();
  }

  /** Machines and links as the world has them. */
  #furnish(): void {
    for (const [id, plan] of this.#world.machines) {
      const { disk } = this.cluster.broker(id).host;
      disk.delayMeanMs = plan.diskDelayMs;
      disk.readDelayMeanMs = plan.readDelayMs;
      disk.syncDelayMeanMs = plan.syncDelayMs;
      disk.syncWriteStallMs = plan.writeStallMs;
      this.cluster.broker(id).host.jumpWallClock(plan.clockAheadMs);
    }
    const { network } = this.cluster.simulation;
    for (const { from, to, delayMs } of this.#world.slowLinks)
      if (from !== to) network.setLink(from, to, { delayMeanMs: delayMs });
  }

  /** Everything heals, converges, and news travels: a few bursts of writes, each of which must reach everybody. */
  async #calm(): Promise<void> {
    const { cluster } = this;
    this.#nemesis.heal();
    this.#administrator.paused = true;
    cluster.note("healed");
    // A session that the faults have cost may end as late as that.
    await cluster.run(1.5 * SESSION_MS);
    await cluster.untilUp();
    this.#nemesis.findRot();
    await cluster.until(() => this.#administrator.underWay === 0, "administration ends", this.#convergeMs, LOOK_MS);
    this.#clients.quiet = this.#mayStayBehind;
    await this.#settled();
    this.#clients.quiet = true;
    await this.#quiet(CATCH_UP_MS);
    this.#invariants.checkDerived();
    this.#proposals.beginCalm();
    for (let probe = 0; probe < PROBES; probe += 1) {
      this.#clients.quiet = false;
      await cluster.run(250);
      this.#clients.quiet = true;
      await this.#quiet(NEWS_MS);
    }
    this.#clients.quiet = false;
    this.#administrator.paused = false;
    this.#log.count("calm");
  }

  /**
   * Whether somebody who fell behind could not catch up while writes go on: with what a slow link or disk carries in small
   * fetches, or because old records are deleted sooner than a slow disk takes them over.
   */
  get #mayStayBehind(): boolean {
    const isDeletedSoon = this.#topics.all.some(({ hasRetention }) => hasRetention);
    return (
      Number(this.#world.settings["replica.fetch.max.bytes"] ?? Infinity) <= 4096 ||
      (isDeletedSoon && this.#slownessMs >= SLOW_DISK_MS)
    );
  }

  /** Nothing is written any more: every write has its outcome, and within the limit everybody has everything. */
  async #quiet(newsMs: number): Promise<void> {
    const { cluster } = this;
    try {
      await cluster.until(() => this.#clients.isIdle, "every write has an outcome", 30_000, LOOK_MS);
    } catch (error) {
      throw new Error(`${String(error)}: ${this.#clients.busy.join("; ")}`, { cause: error });
    }
    try {
      await cluster.until(
        () => this.#ignorant().length === 0,
        "news reaches everybody",
        newsMs + this.#slownessMs,
        LOOK_MS,
      );
    } catch (error) {
      this.#assertNoFailure();
      throw new Error(`${String(error)}: ${this.#ignorant().slice(0, 5).join("; ")}`, { cause: error });
    }
    this.#assertNoFailure();
    if (this.#deadlines.late.length > 0) throw new Error(this.#deadlines.late.join("; "));
  }

  async #settled(): Promise<void> {
    const { cluster } = this;
    for (const topic of this.#topics.all) {
      const { name } = topic;
      await cluster.until(
        () => this.#hasVanished(topic) || (cluster.isSettled(name) && this.#isDurabilitySettled(name)),
        `${name} is settled`,
        this.#convergeMs,
        LOOK_MS,
      );
    }
  }

  /** Takes leave of a topic that was deleted once more than it was meant to be. */
  #hasVanished(topic: SwarmTopic): boolean {
    if (!topic.mayVanish || this.cluster.topicId(topic.name) === topic.topicId) return false;
    if (topic.isLeaving) return true;
    topic.isLeaving = true;
    this.#topics.remove(topic);
    void this.#clients.leave(topic).then(() => this.#clients.forget(topic));
    return true;
  }

  /** Whether what was acknowledged can be trusted to survive as much as the topic's setting says. */
  #isDurabilitySettled(topic: string): boolean {
    const wanted = this.cluster.configOf(topic)?.get("durability") ?? "page-cache";
    const partitions = this.cluster.assignmentOf(topic)?.length ?? 0;
    return Array.from({ length: partitions }, (_, partition) => this.cluster.stateOf(topic, partition)).every(
      (state) => state?.durability === wanted,
    );
  }

  /** No client of the library and no broker gave up for a reason that is none. */
  #assertNoFailure(): void {
    if (this.#failures.length > 0) throw new Error(this.#failures.join("; "));
  }

  /** A slow disk may be read a few times until news has gone the whole way. */
  get #slownessMs(): number {
    return Math.max(
      ...[...this.#world.machines.values()].map(({ readDelayMs, syncDelayMs }) => 40 * (readDelayMs + syncDelayMs)),
    );
  }

  /** Who does not have everything that is in the log of its leader. */
  #ignorant(): string[] {
    const { cluster } = this;
    const found: string[] = [];
    for (const topic of this.#topics.live) {
      for (let partition = 0; partition < topic.partitions; partition += 1) {
        const name = `${topic.name}-${partition}`;
        const state = cluster.stateOf(topic.name, partition);
        const log = state && cluster.partition(state.leader, topic.name, partition)?.log;
        if (state === undefined || log === undefined) {
          found.push(`${name} has no leader`);
          continue;
        }
        const { highWatermark, logEndOffset, logStartOffset } = log;
        if (highWatermark < logEndOffset)
          found.push(`${name}: high watermark ${highWatermark}, log end ${logEndOffset}`);
        for (const id of state.isr) {
          const copy = cluster.partition(id, topic.name, partition)?.log;
          if ((copy?.damage.length ?? 0) > 0) found.push(`${name}: broker ${id} has damaged records`);
          if (copy?.logEndOffset !== logEndOffset || copy.highWatermark !== highWatermark)
            found.push(
              `${name}: broker ${id} is at ${copy?.highWatermark}/${copy?.logEndOffset} of ${highWatermark}/${logEndOffset}`,
            );
        }
        // Who had not begun to read what was deleted has nothing to be given.
        if (logStartOffset >= highWatermark) continue;
        const behind = this.#clients.behind(topic, partitionKey(topic.topicId, partition), highWatermark);
        for (const who of behind) found.push(`${name} ends at ${highWatermark}, ${who}`);
      }
    }
    return found;
  }

  async #end(): Promise<SwarmRun> {
    const { cluster } = this;
    const history = this.#history;
    this.#administrator.stop();
    await cluster.until(() => this.#administrator.underWay === 0, "administration ends", this.#convergeMs, LOOK_MS);
    this.#clients.quiet = true;
    await this.#quiet(CATCH_UP_MS);
    this.#clients.stop();
    await this.#settled();
    // Who was told to lead by then has heard of it, and all others too.
    await cluster.run(500);
    await this.#settled();
    const targets = this.#topics.all.flatMap((topic) => this.#targetsOf(topic));
    const brokers = [...cluster.brokers.keys()];
    for (const id of [brokers[0], brokers[brokers.length - 1]]) {
      const client = cluster.client(id);
      for (const { target } of targets)
        history.finalRead(await cluster.complete(readToEnd(client, `broker ${id}`, target), READ_ALL_MS));
    }
    const unconvergedPartitions = await this.#unconverged(targets);
    return {
      violations: [
        ...brokenPromises(history, ZOMBIE_LIMIT_MS).filter(
          ({ id }) => !(forgetsProducers(this.#world) && promisesOfRemembered.has(id)),
        ),
        ...replicaDifferences(this.#invariants.replicaImages()),
        ...this.#unwantedDeletions(),
        ...this.#forgottenProducers(),
        ...this.#unexpected(),
        ...this.#proposals.violations,
        ...unconvergedPartitions,
      ],
      counts: history.counts(),
      faults: this.#faults(),
      traceHash: cluster.simulation.scheduler.traceHash,
      eventCount: cluster.simulation.scheduler.eventCount,
      virtualMs: cluster.nowMs,
    };
  }

  /** Leaders go back to the preferred ones at any time, also in this moment: everybody has time to hear of it. */
  async #unconverged(targets: readonly { readonly name: string; readonly target: Target }[]): Promise<Violation[]> {
    const { cluster } = this;
    const partitions = targets.map(({ name, target }) => ({ topic: name, ...target }));
    const replicas = new Map(
      partitions.map(({ topic, topicId, partition }) => [
        partitionKey(topicId, partition),
        cluster.assignmentOf(topic)?.[partition] ?? [],
      ]),
    );
    const find = (): Violation[] => {
      const liveBrokers = new Set(cluster.upIds);
      return unconverged(clusterImages(cluster, partitions), { liveBrokers, replicas, minInsyncReplicas: 1 });
    };
    let found = find();
    for (let waitedMs = 0; found.length > 0 && waitedMs < NEWS_MS; waitedMs += LOOK_MS) {
      await cluster.run(LOOK_MS);
      found = find();
    }
    return found;
  }

  #targetsOf(topic: SwarmTopic): { readonly name: string; readonly target: Target }[] {
    return Array.from({ length: topic.partitions }, (_, partition) => ({
      name: topic.name,
      target: { topicId: topic.topicId, partition },
    }));
  }

  /** Records go only where somebody asked for it, or where the settings say so. */
  #unwantedDeletions(): Violation[] {
    return this.#history.finalReads.flatMap(({ partition, logStartOffset, via }) => {
      const topic = this.#topics.all.find(({ topicId }) => partition.includes(topicId));
      if (topic === undefined || topic.hasRetention) return [];
      const number =
        this.#targetsOf(topic).find(({ target }) => partitionKey(target.topicId, target.partition) === partition)
          ?.target.partition ?? 0;
      const asked = topic.askedDeletions.get(number) ?? 0;
      if (logStartOffset <= asked) return [];
      const sentence = `${topic.name}-${number} begins at ${logStartOffset} by way of ${via}; asked was to delete what is below ${asked}`;
      return [{ id: "L1", sentence }];
    });
  }

  /**
   * A producer is remembered where nobody was told to forget it: by settings, with the records that go by retention or on
   * demand, with damaged ones, or with those that were lost with permission.
   */
  #forgottenProducers(): Violation[] {
    if (forgetsProducers(this.#world)) return [];
    return this.#history.ignorances.flatMap(({ producer, partition, brokerId, sequence, error, atMs }) => {
      const topic = this.#topics.byPartition(partition);
      const number = Number(partition.slice(partition.lastIndexOf(":") + 1));
      const mayForget =
        topic === undefined ||
        topic.hasRetention ||
        topic.askedDeletions.has(number) ||
        this.#nemesis.rotted.has(topic) ||
        this.#survivors.hadLoss(partition);
      if (mayForget) return [];
      const sentence = `broker ${brokerId} told ${producer} ${error} for sequence ${sequence} of ${topic.name}-${number} at ${atMs.toFixed(0)} ms`;
      return [{ id: "L5", sentence }];
    });
  }

  /** Whatever the faults, no broker meets what it did not expect. */
  #unexpected(): Violation[] {
    return this.cluster.lines
      .filter((line) => line.includes("in an unexpected way"))
      .map((sentence) => ({ id: "unexpected", sentence }));
  }

  #faults(): FaultTable {
    if (this.#survivors.permitted > 0) this.#log.count("records were lost with permission");
    return this.#log.table;
  }
}
