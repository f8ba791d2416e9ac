import type { Admin, Cluster } from "../../../client/index.js";
import { ClientError, connect } from "../../../client/index.js";
import { partitionKey } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import type { History } from "../history.js";
import type { Invariants } from "../invariants.js";
import type { SimProcess } from "../sim-process.js";
import type { SimRandom } from "../sim-random.js";
import type { SwarmClients } from "./clients.js";
import type { Deadlines } from "./deadlines.js";
import type { FaultLog } from "./fault-log.js";
import { SwarmTopic } from "./topics.js";
import type { SwarmTopics } from "./topics.js";
import type { Act, World } from "./world.js";
import { minimums, topicPlan } from "./world.js";

const TOPICS_MAX = 5;
const PARTITIONS_MAX = 4;
const DEADLINE_MS = 6000;
/** After so long everybody who lives has heard of a change, or the run has stopped to wait for it. */
const SPREAD_MS = 15_000;
const AT_ONCE_MAX = 3;

export interface AdministratorParts {
  readonly cluster: SimCluster;
  readonly world: World;
  readonly topics: SwarmTopics;
  readonly clients: SwarmClients;
  readonly history: History;
  readonly invariants: Invariants;
  readonly deadlines: Deadlines;
  readonly log: FaultLog;
  readonly random: SimRandom;
}

/** Changes topics all the while, several at once, and keeps account of what may be expected of them afterwards. */
export class Administrator {
  readonly #parts: AdministratorParts;
  readonly #process: SimProcess;
  #library: Cluster | undefined;
  #underWay = 0;
  #created = 0;
  #stopped = false;
  #paused = false;

  constructor(parts: AdministratorParts) {
    this.#parts = parts;
    this.#process = parts.cluster.simulation.startProcess("administrator");
  }

  /** How many acts have not ended. */
  get underWay(): number {
    return this.#underWay;
  }

  set paused(paused: boolean) {
    this.#paused = paused;
  }

  async connect(): Promise<void> {
    const bootstrapBrokers = [...this.#parts.cluster.brokers.values()].map(({ address }) => address);
    this.#library = await connect({ env: this.#process.env, bootstrapBrokers, deadlineMs: 30_000 });
  }

  /** Makes the topics with which the world begins. */
  async createFirst(): Promise<void> {
    for (const plan of this.#parts.world.topics) await this.#create(plan);
  }

  start(): void {
    this.#later();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Something is changed now, if it may. */
  actNow(): void {
    if (!this.#stopped && !this.#paused && this.#underWay < AT_ONCE_MAX) this.#begin();
  }

  #later(): void {
    const { cluster, random, world } = this.#parts;
    cluster.simulation.scheduler.after(random.delayMs(world.administrationIntervalMs), "administration", () => {
      if (this.#stopped) return;
      this.actNow();
      this.#later();
    });
  }

  #begin(): void {
    const { random, topics, cluster } = this.#parts;
    const brokers = cluster.brokers.size;
    const topic = topics.live.length > 0 ? random.pick(topics.live) : undefined;
    const { acts } = this.#parts.world;
    const whether = (act: Act, possible: boolean): number => (possible ? (acts[act] ?? 0) : 0);
    const kinds: readonly [number, Act, () => Promise<void>][] = [
      [
        whether("create", topics.all.length < TOPICS_MAX),
        "create",
        () => this.#create(topicPlan(random, this.#freeName(), brokers)),
      ],
      [whether("delete", topics.live.length > 1), "delete", () => this.#delete(topic!, false)],
      [whether("recreate", true), "recreate", () => this.#delete(topic!, true)],
      [
        whether("more partitions", topic !== undefined && topic.partitions < PARTITIONS_MAX),
        "more partitions",
        () => this.#grow(topic!),
      ],
      [whether("durability", true), "durability", () => this.#changeDurability(topic!)],
      [whether("min.insync.replicas", true), "min.insync.replicas", () => this.#changeMinimum(topic!)],
      [whether("segments", true), "segments", () => this.#changeSegments(topic!)],
      [whether("elect leaders", true), "elect leaders", () => this.#electLeaders(topic!)],
      [whether("delete records", true), "delete records", () => this.#deleteRecords(topic!)],
    ];
    const usable = kinds.filter(([weight, kind]) => weight > 0 && (topic !== undefined || kind === "create"));
    let left = random.float() * usable.reduce((sum, [weight]) => sum + weight, 0);
    const chosen = usable.find(([weight]) => (left -= weight) < 0);
    if (chosen === undefined) return;
    const [, kind, act] = chosen;
    this.#parts.log.count("administration", kind);
    cluster.note(`ADMINISTRATION ${kind} ${kind === "create" ? "" : (topic?.name ?? "")}`);
    this.#underWay += 1;
    act().then(
      () => (this.#underWay -= 1),
      (error: unknown) => {
        this.#underWay -= 1;
        if (!(error instanceof ClientError)) throw error;
        cluster.note(`administration failed: ${error.message}`);
      },
    );
  }

  /** Runs one call of the client library; it must end by its deadline. */
  #call<T>(what: string, call: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.#library?.admin();
    if (admin === undefined) throw new Error("the administrator is not connected");
    const work = call(admin);
    this.#parts.deadlines.track(what, work, DEADLINE_MS, this.#process);
    return work;
  }

  /** Names are used again only by `#delete`: a client may still know the former topic. */
  #freeName(): string {
    this.#created += 1;
    return `topic-${this.#parts.world.topics.length + this.#created}`;
  }

  async #create(plan: ReturnType<typeof topicPlan>, again = false): Promise<void> {
    const { topics, clients, cluster, invariants } = this.#parts;
    const config = { ...plan.config };
    const made = { name: plan.name, partitions: plan.partitions, replicationFactor: plan.replicationFactor, config };
    try {
      await this.#call(`create ${plan.name}`, (admin) => admin.createTopics([made], { deadlineMs: DEADLINE_MS }));
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
    }
    // Whatever was answered: it is there, or will be, or not. Who made it looks until it knows.
    const topicId = await this.#found(plan.name);
    if (topicId === undefined || topics.named(plan.name) !== undefined) return;
    const topic = new SwarmTopic(plan.name, topicId, plan.partitions, plan.replicationFactor, config, cluster.nowMs);
    topic.mayVanish = again;
    topics.add(topic);
    invariants.watchTopic(topic.name);
    if (again) {
      await this.#untilEverybodyKnows(topic);
      if (!topic.isLeaving) clients.serveAnew(topic);
    } else {
      clients.serve(topic);
    }
  }

  /** While a broker knows the former topic only, clients that go by names may still write to that. */
  async #untilEverybodyKnows(topic: SwarmTopic): Promise<void> {
    const { brokers } = this.#parts.cluster;
    const isKnown = (): boolean =>
      [...brokers.values()].every(({ broker }) => broker?.metadata.topicNamed(topic.name)?.topicId === topic.topicId);
    while (!isKnown() && !topic.isLeaving) await this.#sleep(100);
  }

  /** The id of a topic that was asked for, once it is in ZooKeeper; undefined when it is not after a while. */
  async #found(name: string): Promise<string | undefined> {
    const { cluster } = this.#parts;
    for (let look = 0; look < 20; look += 1) {
      const topicId = cluster.topicId(name);
      if (topicId !== undefined && (cluster.assignmentOf(name)?.length ?? 0) > 0) return topicId;
      await this.#sleep(500);
    }
    return undefined;
  }

  /** Deletes a topic until it is gone, and perhaps makes another of the name at once. */
  async #delete(topic: SwarmTopic, again: boolean): Promise<void> {
    const { topics, clients, cluster, random } = this.#parts;
    topic.isLeaving = true;
    await clients.leave(topic);
    for (;;) {
      try {
        await this.#call(`delete ${topic.name}`, (admin) =>
          admin.deleteTopics([topic.name], { deadlineMs: DEADLINE_MS }),
        );
      } catch (error) {
        if (!(error instanceof ClientError)) throw error;
      }
      if (cluster.topicId(topic.name) !== topic.topicId) break;
      await this.#sleep(300);
    }
    topics.remove(topic);
    if (!again) {
      await this.#sleep(2000);
      clients.forget(topic);
      return;
    }
    const plan = { ...topicPlan(random, topic.name, cluster.brokers.size), name: topic.name };
    await this.#create(plan, true);
    clients.forget(topic);
  }

  async #grow(topic: SwarmTopic): Promise<void> {
    const { clients, cluster } = this.#parts;
    const before = topic.partitions;
    const wanted = before + 1;
    try {
      await this.#call(`grow ${topic.name}`, (admin) =>
        admin.createPartitions(topic.name, wanted, { deadlineMs: DEADLINE_MS }),
      );
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
    }
    for (let look = 0; look < 20; look += 1) {
      if (topic.isLeaving || cluster.topicId(topic.name) !== topic.topicId) return;
      if ((cluster.assignmentOf(topic.name)?.length ?? 0) >= wanted) break;
      await this.#sleep(500);
    }
    if ((cluster.assignmentOf(topic.name)?.length ?? 0) < wanted || topic.partitions !== before) return;
    topic.partitions = wanted;
    if (topic.isServed) clients.serve(topic, before);
  }

  async #changeDurability(topic: SwarmTopic): Promise<void> {
    await this.#alter(topic, { durability: this.#parts.random.pick(["page-cache", "fsync"]) });
  }

  async #changeMinimum(topic: SwarmTopic): Promise<void> {
    const { cluster, random } = this.#parts;
    const value = random.pick(minimums(topic.replicationFactor));
    topic.beginMinimum(value, cluster.nowMs);
    let isMade = false;
    try {
      await this.#alter(topic, { "min.insync.replicas": value });
      isMade = true;
    } finally {
      topic.endMinimum(isMade, cluster.nowMs, SPREAD_MS);
    }
  }

  async #changeSegments(topic: SwarmTopic): Promise<void> {
    const { random } = this.#parts;
    await this.#alter(topic, {
      "segment.bytes": random.pick([1024, 4096, 65_536]),
      "flush.ms": random.pick([20, 500, 60_000]),
    });
  }

  async #alter(topic: SwarmTopic, config: Record<string, string | number>): Promise<void> {
    await this.#call(`alter ${topic.name}`, (admin) =>
      admin.alterConfigs({ topic: topic.name }, config, { deadlineMs: DEADLINE_MS }),
    );
  }

  async #electLeaders(topic: SwarmTopic): Promise<void> {
    const partitions = Array.from({ length: topic.partitions }, (_, partition) => ({ topic: topic.name, partition }));
    await this.#call(`elect leaders of ${topic.name}`, (admin) =>
      admin.electLeaders(partitions, { deadlineMs: DEADLINE_MS }),
    );
  }

  async #deleteRecords(topic: SwarmTopic): Promise<void> {
    const { random, cluster, history } = this.#parts;
    const partition = random.below(topic.partitions);
    const leader = cluster.stateOf(topic.name, partition)?.leader ?? -1;
    const log = leader < 0 ? undefined : cluster.partition(leader, topic.name, partition)?.log;
    if (log === undefined) return;
    const span = log.highWatermark - log.logStartOffset;
    const before = log.logStartOffset + Math.floor(span * random.pick(this.#parts.world.deletedShares));
    if (before === 0) return;
    topic.noteDeletionAsked(partition, before);
    const [answer] = await this.#call(`delete records of ${topic.name}-${partition}`, (admin) =>
      admin.deleteRecords([{ topic: topic.name, partition, before }], { deadlineMs: DEADLINE_MS }),
    );
    if (answer === undefined || cluster.topicId(topic.name) !== topic.topicId) return;
    topic.noteDeletionAnswered(partition, before);
    this.#parts.invariants.checkSeats(topic.topicId, topic.name, partition);
    history.deleted({ partition: partitionKey(topic.topicId, partition), before });
  }

  #sleep(durationMs: number): Promise<void> {
    return new Promise((resolve) =>
      this.#parts.cluster.simulation.scheduler.after(durationMs, "administrator waits", resolve),
    );
  }
}
