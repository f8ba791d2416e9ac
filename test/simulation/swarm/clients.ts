import type { Cluster, Consumer, Producer } from "../../../client/index.js";
import { ClientError, connect, OutcomeUnknownError } from "../../../client/index.js";
import type { PartitionKey } from "../../../protocol/types.js";
import { partitionKey } from "../../../protocol/types.js";
import type { SimCluster } from "../cluster.js";
import type { History } from "../history.js";
import { SimClient } from "../sim-client.js";
import type { SimProcess } from "../sim-process.js";
import type { SimRandom } from "../sim-random.js";
import { IdempotentWriter, PlainWriter, Reader } from "../workload.js";
import type { Deadlines } from "./deadlines.js";
import { SessionReader } from "./session-reader.js";
import type { SwarmTopic, SwarmTopics } from "./topics.js";
import type { World } from "./world.js";

const PENDING_MAX = 8;
/** After an error that it may try again. */
const RESTART_MS = 300;
/** A client that could not connect tries again after so long. */
const CONNECT_RETRY_MS = 500;

type Writer = IdempotentWriter | PlainWriter | SwarmWriter;

/** What reads a partition for ever: how far it has come says whether news reached it. */
interface Tail {
  readonly name: string;
  position(key: PartitionKey): number;
}

/** One client process and everything that runs in it. It may crash; another takes its place then. */
class ClientProcess {
  readonly writers: { readonly key: PartitionKey; readonly topic: SwarmTopic; readonly writer: Writer }[] = [];
  readonly tails: { readonly topic: SwarmTopic; readonly tail: Tail }[] = [];
  readonly consumers: { readonly topic: SwarmTopic; readonly reader: SwarmReader }[] = [];
  /** They go by the topic's id. */
  readonly readers: { readonly topic: SwarmTopic; readonly reader: Reader | SessionReader }[] = [];
  library: Cluster | undefined;
  producer: Producer | undefined;
  /** How often the library was connected: each time other producers. */
  connections = 0;
  /** Topics that the library writes, and perhaps reads. */
  readonly served = new Set<SwarmTopic>();
  /** Nothing is written from here before. */
  idleUntilMs = 0;

  constructor(
    readonly name: string,
    readonly process: SimProcess,
    readonly client: SimClient,
  ) {}
}

export interface SwarmClientsParts {
  readonly cluster: SimCluster;
  readonly history: History;
  readonly topics: SwarmTopics;
  readonly deadlines: Deadlines;
  readonly random: SimRandom;
  readonly world: World;
  /** A client of the library gave up for a reason that is none. */
  readonly onFailure: (sentence: string) => void;
}

/**
 * The clients of a run: processes with writers and readers for every topic. Some write by the client library, some by the
 * least that a client must do; some with `acks=all`, some with `acks=1`; in bursts, so that batches are in flight together.
 */
export class SwarmClients {
  readonly #parts: SwarmClientsParts;
  readonly #processes: ClientProcess[] = [];
  #values = 0;
  #started = 0;
  #stopped = false;
  #quiet = false;

  constructor(parts: SwarmClientsParts) {
    this.#parts = parts;
  }

  start(count: number): void {
    for (let index = 0; index < count; index += 1) this.#startProcess();
    this.#tick();
  }

  /** Ends everything, for good. */
  stop(): void {
    this.#stopped = true;
    for (const each of this.#processes) for (const { reader } of each.consumers) reader.stop();
  }

  /** While quiet nothing new is written. */
  set quiet(quiet: boolean) {
    this.#quiet = quiet;
  }

  get isIdle(): boolean {
    return this.#processes.every(({ writers }) => writers.every(({ writer }) => writer.isIdle));
  }

  /** Writers whose batches have no outcome yet, for messages. */
  get busy(): string[] {
    return this.#processes.flatMap(({ name, writers }) =>
      writers
        .filter(({ writer }) => !writer.isIdle)
        .map(({ key, writer }) => `${name} ${writer.constructor.name} ${key}`),
    );
  }

  get names(): readonly string[] {
    return this.#processes.map(({ name }) => name);
  }

  /** Readers that have not been given everything below `end` of the partition. */
  behind(topic: SwarmTopic, key: PartitionKey, end: number): string[] {
    return this.#processes.flatMap(({ name, tails }) =>
      tails
        .filter((one) => one.topic === topic && one.tail.position(key) < end)
        .map(({ tail }) => `${tail.name} of ${name} is at ${tail.position(key)}`),
    );
  }

  /** A topic, or more partitions of it, are there: clients write and read them. */
  serve(topic: SwarmTopic, fromPartition = 0): void {
    topic.isServed = true;
    for (const each of this.#processes) this.#serveIn(each, topic, fromPartition);
  }

  /** As `serve`, for a topic of whose name there was another one: what clients of the library know of it is forgotten. */
  serveAnew(topic: SwarmTopic): void {
    topic.isServed = true;
    for (const each of this.#processes) {
      each.library = undefined;
      each.producer = undefined;
      this.#serveIn(each, topic, 0);
      this.#connect(each);
    }
  }

  /** Clients that go by the topic's name leave it; resolves when they have. Those that go by its id stay and see it end. */
  async leave(topic: SwarmTopic): Promise<void> {
    for (const each of this.#processes) {
      for (const { topic: read, reader } of each.consumers) if (read === topic) reader.stop();
      each.tails.splice(0, each.tails.length, ...each.tails.filter((one) => one.topic !== topic));
    }
    const named = (): boolean =>
      this.#processes.some(({ writers }) =>
        writers.some((one) => one.topic === topic && one.writer instanceof SwarmWriter && !one.writer.isIdle),
      );
    await this.#until(() => !named());
  }

  /** Nobody writes or reads it any more: who goes by its id has seen that there is none. */
  forget(topic: SwarmTopic): void {
    for (const each of this.#processes) {
      for (const { topic: read, reader } of each.readers) if (read === topic) reader.stop();
      each.client.forget(topic.topicId);
      const left = each.writers.filter((one) => one.topic !== topic);
      each.writers.splice(0, each.writers.length, ...left);
    }
  }

  // Faults.

  crash(random: SimRandom): string | undefined {
    const victim = this.#processes.length === 0 ? undefined : random.pick(this.#processes);
    if (victim === undefined) return undefined;
    this.#processes.splice(this.#processes.indexOf(victim), 1);
    victim.process.crash();
    this.#startProcess();
    return victim.name;
  }

  pause(random: SimRandom): { readonly name: string; readonly resume: () => void } | undefined {
    const victim = this.#processes.length === 0 ? undefined : random.pick(this.#processes);
    if (victim === undefined) return undefined;
    victim.process.pause();
    return { name: victim.name, resume: () => victim.process.resume() };
  }

  /** The process writes nothing for so long, and then goes on with the producers that it has. */
  idle(random: SimRandom, durationMs: number): string | undefined {
    const victim = this.#processes.length === 0 ? undefined : random.pick(this.#processes);
    if (victim === undefined) return undefined;
    victim.idleUntilMs = this.#parts.cluster.nowMs + durationMs;
    return victim.name;
  }

  resumeAll(): void {
    for (const { process } of this.#processes) process.resume();
  }

  // -------------------------------------------------------------------------------------------------------------------

  #startProcess(): void {
    const { cluster } = this.#parts;
    this.#started += 1;
    const name = `swarm-${this.#started}`;
    const process = cluster.simulation.startProcess(name);
    const bootstrap = [...cluster.brokers.values()].map(({ address }) => address);
    const started = new ClientProcess(name, process, new SimClient(process, bootstrap));
    this.#processes.push(started);
    this.#connect(started);
    for (const topic of this.#parts.topics.served) this.#serveIn(started, topic, 0);
  }

  /** Connects the client library, and lets it serve the topics that it does not serve yet. */
  #connect(into: ClientProcess): void {
    const bootstrapBrokers = [...this.#parts.cluster.brokers.values()].map(({ address }) => address);
    connect({ env: into.process.env, bootstrapBrokers, deadlineMs: 20_000 }).then(
      (library) => {
        into.library = library;
        into.connections += 1;
        into.producer = library.producer(this.#parts.world.producers);
        const unserved = this.#parts.topics.served.filter((topic) => !into.served.has(topic));
        for (const topic of unserved) this.#serveByLibrary(into, topic, 0);
      },
      () => {
        if (!into.process.dead) into.process.schedule(CONNECT_RETRY_MS, "connects again", () => this.#connect(into));
      },
    );
  }

  #serveIn(into: ClientProcess, topic: SwarmTopic, fromPartition: number): void {
    const { history, random, world } = this.#parts;
    for (let partition = fromPartition; partition < topic.partitions; partition += 1) {
      const target = { topicId: topic.topicId, partition };
      const key = partitionKey(target.topicId, partition);
      const name = (kind: string): string => `${into.name} ${kind} ${topic.name}-${partition}`;
      into.writers.push({
        key,
        topic,
        writer: new IdempotentWriter(into.client, history, name("writer"), target, world.producers.deliveryTimeoutMs),
      });
      if (random.chance(0.3))
        into.writers.push({ key, topic, writer: new PlainWriter(into.client, history, name("plain"), target) });
      if (random.chance(0.2)) {
        const reader = new Reader(into.client, history, name("reader"), target, world.fetchWaitMs);
        reader.start();
        into.readers.push({ topic, reader });
        into.tails.push({
          topic,
          tail: { name: "reader", position: (asked) => (asked === key ? reader.position : Infinity) },
        });
      }
    }
    if (fromPartition === 0 && random.chance(world.sessionReaders)) this.#readInSessions(into, topic);
    this.#serveByLibrary(into, topic, fromPartition);
  }

  #readInSessions(into: ClientProcess, topic: SwarmTopic): void {
    const { cluster, history, world, onFailure } = this.#parts;
    const partitionsFirst = topic.partitions;
    const reader = new SessionReader(
      new SimClient(
        into.process,
        [...cluster.brokers.values()].map(({ address }) => address),
      ),
      history,
      `${into.name} sessions ${topic.name}`,
      topic,
      [...cluster.brokers.keys()],
      world.fetchWaitMs,
      onFailure,
    );
    reader.start();
    into.readers.push({ topic, reader });
    // One that came later is found when it asks for metadata again.
    const isLater = (key: PartitionKey): boolean => Number(key.slice(key.lastIndexOf(":") + 1)) >= partitionsFirst;
    const position = (key: PartitionKey): number => (isLater(key) ? Infinity : reader.position(key));
    into.tails.push({ topic, tail: { name: reader.name, position } });
  }

  #serveByLibrary(into: ClientProcess, topic: SwarmTopic, fromPartition: number): void {
    const { library, producer } = into;
    if (library === undefined || producer === undefined || topic.isLeaving) return;
    // Another connection was made meanwhile, and has done it.
    if (fromPartition === 0 && into.served.has(topic)) return;
    const { history, topics, deadlines, onFailure, world } = this.#parts;
    const track = (what: string, sent: Promise<unknown>): void =>
      deadlines.track(what, sent, world.producers.deliveryTimeoutMs, into.process);
    into.served.add(topic);
    for (let partition = fromPartition; partition < topic.partitions; partition += 1) {
      const writer = new SwarmWriter(producer, history, track, into, topic, partition, onFailure);
      into.writers.push({ key: partitionKey(topic.topicId, partition), topic, writer });
    }
    // A consumer finds new partitions by itself.
    if (fromPartition > 0 || !this.#parts.random.chance(0.6)) return;
    const reader = new SwarmReader(
      library,
      into.process,
      history,
      `${into.name} consumer ${topic.name}`,
      topic,
      topics,
      world.fetchWaitMs,
      (sentence) => {
        if (!topic.isLeaving && !into.process.dead) onFailure(sentence);
      },
    );
    into.consumers.push({ topic, reader });
    into.tails.push({ topic, tail: reader });
    reader.start();
  }

  #tick(): void {
    if (this.#stopped) return;
    if (!this.#quiet) this.#burst();
    const { cluster, random, world } = this.#parts;
    cluster.simulation.scheduler.after(random.delayMs(world.writeIntervalMs), "workload", () => this.#tick());
  }

  /** One writer hands over one batch, or a few at once. */
  #burst(): void {
    const { random, cluster } = this.#parts;
    const awake = this.#processes.filter(
      ({ idleUntilMs, writers }) => idleUntilMs <= cluster.nowMs && writers.length > 0,
    );
    if (awake.length === 0) return;
    const chosen = random.pick(random.pick(awake).writers);
    if (chosen.topic.isLeaving && chosen.writer instanceof SwarmWriter) return;
    const count = random.pick(this.#parts.world.bursts);
    for (let index = 0; index < count; index += 1) {
      const { writer } = chosen;
      if (writer instanceof PlainWriter ? !writer.isIdle : writer.pendingCount >= PENDING_MAX) return;
      void writer.write(this.#newValues(1 + random.below(3)));
    }
  }

  #newValues(count: number): string[] {
    this.#values += 1;
    const padding = "x".repeat(this.#parts.random.pick(this.#parts.world.paddings));
    return Array.from({ length: count }, (_, index) => `v${this.#values}.${index}${padding}`);
  }

  #until(condition: () => boolean): Promise<void> {
    const { scheduler } = this.#parts.cluster.simulation;
    return new Promise((resolve) => {
      const look = (): void => {
        if (condition()) resolve();
        else scheduler.after(50, "looks", look);
      };
      look();
    });
  }
}

/** Writes to one partition by the client library, a record an operation. One producer serves all partitions of a process. */
class SwarmWriter {
  readonly name: string;
  #pending = 0;

  constructor(
    private readonly producer: Producer,
    private readonly history: History,
    private readonly track: (what: string, sent: Promise<unknown>) => void,
    private readonly from: ClientProcess,
    private readonly topic: SwarmTopic,
    private readonly partition: number,
    private readonly onFailure: (sentence: string) => void,
  ) {
    this.name = `${from.name}.${from.connections} library ${topic.name}-${partition}`;
  }

  get isIdle(): boolean {
    return this.#pending === 0;
  }

  get pendingCount(): number {
    return this.#pending;
  }

  async write(values: readonly string[]): Promise<void> {
    const { topic, partition, from } = this;
    await Promise.all(
      values.map(async (value) => {
        const operation = this.history.invoke({
          producer: this.name,
          partition: partitionKey(topic.topicId, partition),
          values: [value],
          acks: "all",
          idempotent: true,
          orderedIfOk: true,
        });
        this.#pending += 1;
        const sent = this.producer.send(topic.name, { value, partition });
        this.track(`send to ${topic.name}-${partition} of ${from.name}`, sent);
        try {
          const { offset } = await sent;
          this.history.ok(operation, { baseOffset: offset, brokerId: -1 });
        } catch (error) {
          if (!(error instanceof ClientError)) throw error;
          // It never has more under way than a leader remembers, so what it sends again is known by its offset.
          if (error.cause instanceof ClientError && error.cause.code === "DUPLICATE_SEQUENCE_NUMBER")
            this.onFailure(`${this.name} was not told where ${value} is, which it sent again: ${error.cause.message}`);
          if (error instanceof OutcomeUnknownError) this.history.info(operation, error.message);
          else this.history.fail(operation, error.message);
        } finally {
          this.#pending -= 1;
        }
      }),
    );
  }
}

/** Reads a topic from its beginning by the client library: one consumer, one fetch session a broker, all partitions. */
class SwarmReader implements Tail {
  readonly #consumer: Consumer;
  readonly #positions = new Map<PartitionKey, number>();
  readonly #partitionsFirst: number;
  #stopped = false;

  constructor(
    library: Cluster,
    private readonly process: SimProcess,
    private readonly history: History,
    readonly name: string,
    private readonly topic: SwarmTopic,
    private readonly topics: SwarmTopics,
    fetchWaitMs: number,
    private readonly onFailure: (sentence: string) => void,
  ) {
    this.#partitionsFirst = topic.partitions;
    this.#consumer = library.consumer({
      topic: topic.name,
      from: "earliest",
      fetchWaitMs,
      onOutOfRange: "earliest",
    });
  }

  /** A partition that came later is found when the library looks at its metadata again: nothing is expected before. */
  position(key: PartitionKey): number {
    const isLater = Number(key.slice(key.lastIndexOf(":") + 1)) >= this.#partitionsFirst;
    return this.#positions.get(key) ?? (isLater ? Infinity : 0);
  }

  start(): void {
    this.#read().catch((error: unknown) => {
      if (this.#stopped) return;
      // A partition was without a leader for longer than a call may take: an application goes on with another loop.
      if (error instanceof ClientError && error.retriable)
        this.process.schedule(RESTART_MS, "reads again", () => this.start());
      else this.onFailure(`${this.name} gave up: ${String(error)}`);
    });
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    void this.#consumer.close();
  }

  /** A consumer goes by names: until it hears of it, it may read the topic that had this name before. */
  #keyOf(value: string, partition: number): PartitionKey {
    const home = this.history.homeOf(value);
    const former = home === undefined ? undefined : this.topics.byPartition(home);
    return former?.name === this.topic.name && home === partitionKey(former.topicId, partition)
      ? home
      : partitionKey(this.topic.topicId, partition);
  }

  async #read(): Promise<void> {
    for await (const { partition, offset, value } of this.#consumer) {
      if (this.#stopped) return;
      const text = value?.toString() ?? "";
      const key = this.#keyOf(text, partition);
      this.#positions.set(key, offset + 1);
      this.history.deliver({ consumer: this.name, partition: key, offset, value: text });
    }
  }
}
