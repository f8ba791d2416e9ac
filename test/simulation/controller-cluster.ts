import type { ZooKeeperConnector } from "../../common/env/zookeeper-connection.js";
import type { ControllerApi } from "../../broker/controller/controller-api.js";
import type { PartitionStateZnode } from "../../broker/zookeeper/znodes.js";
import { decodePartitionState, decodeTopic, paths } from "../../broker/zookeeper/znodes.js";
import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import type { Init, NewTopic, TopicResult } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { FakeBrokerOptions } from "./fake-broker.js";
import { FakeBroker } from "./fake-broker.js";
import { Simulation } from "./sim-env.js";
import type { SimProcess } from "./sim-process.js";
import { SimZooKeeper } from "./sim-zookeeper.js";

/** What stands in for a process's way to ZooKeeper, so that a test can crash it after a write. */
type Interposer = (process: SimProcess, connector: ZooKeeperConnector) => ZooKeeperConnector;

export const SESSION_TIMEOUT_MS = 6000;

/**
 * Brokers without a data path in a simulated world with a simulated ZooKeeper: the controller as a whole, under test. After
 * each event it checks what must never be: a leader epoch with two leaders, an epoch that steps back, a leader outside its
 * ISR, an order that undoes a newer one.
 */
export class ControllerCluster {
  readonly simulation: Simulation;
  readonly zookeeper: SimZooKeeper;
  readonly log: string[] = [];
  /** Hosts that cannot reach ZooKeeper. */
  readonly withoutZooKeeper = new Set<string>();
  interpose: Interposer = (_process, connector) => connector;
  readonly #members = new Map<BrokerId, { readonly process: SimProcess; readonly broker: FakeBroker }>();
  readonly #violations: string[] = [];
  readonly #states = new Map<
    string,
    { readonly topicId: string; readonly state: PartitionStateZnode; readonly mzxid: bigint }
  >();
  #epochs = 0;
  #writes = 0;
  #checkedAtWrites = 0;
  #settledAskedMs = 0;

  constructor(seed: number) {
    this.simulation = new Simulation({
      seed,
      zookeeper: (process) => {
        const connector = this.zookeeper.connectorFor(process, {
          canReach: () => !this.withoutZooKeeper.has(process.hostName),
        });
        return this.interpose(process, this.#counting(connector));
      },
    });
    this.zookeeper = SimZooKeeper.inScheduler(this.simulation.scheduler);
    this.simulation.scheduler.afterEachEvent(() => this.#check());
  }

  /** A broker's process begins; resolves when it is registered. */
  start(brokerId: BrokerId, options: Partial<FakeBrokerOptions> = {}): Promise<void> {
    const host = hostOf(brokerId);
    const process = this.simulation.startProcess(host);
    const broker = new FakeBroker(process.env, {
      brokerId,
      host,
      port: 9093,
      servers: this.zookeeper.connectString,
      sessionTimeoutMs: SESSION_TIMEOUT_MS,
      log: this.log,
      ...options,
    });
    this.#members.set(brokerId, { process, broker });
    return broker.start();
  }

  /** Starts brokers 1 to `count` and waits until one is the controller and has told all. */
  async startAll(count: number, options: Partial<FakeBrokerOptions> = {}): Promise<void> {
    const ids = Array.from({ length: count }, (_, index) => index + 1);
    await this.simulation.complete(Promise.all(ids.map((id) => this.start(id, options))));
    await this.settled();
  }

  broker(brokerId: BrokerId): FakeBroker {
    const member = this.#members.get(brokerId);
    if (member === undefined) throw new Error(`broker ${brokerId} was not started`);
    return member.broker;
  }

  process(brokerId: BrokerId): SimProcess {
    const member = this.#members.get(brokerId);
    if (member === undefined) throw new Error(`broker ${brokerId} was not started`);
    return member.process;
  }

  /** Brokers whose process runs. */
  get alive(): FakeBroker[] {
    return [...this.#members.values()].filter(({ process }) => !process.dead).map(({ broker }) => broker);
  }

  get controller(): FakeBroker | undefined {
    return this.alive.find(({ node }) => node.active !== undefined);
  }

  get api(): ControllerApi {
    const api = this.controller?.node.active;
    if (api === undefined) throw new Error("no controller at the moment");
    return api;
  }

  /** A broker that is not the controller. */
  get bystander(): FakeBroker {
    const found = this.alive.find((broker) => broker !== this.controller);
    if (found === undefined) throw new Error("no broker beside the controller");
    return found;
  }

  crash(brokerId: BrokerId): void {
    this.process(brokerId).crash();
  }

  /** kill -9 and a new process, which first closes the session that its predecessor left behind, as the real one does. */
  async bounce(brokerId: BrokerId, options: Partial<FakeBrokerOptions> = {}): Promise<void> {
    const token = this.broker(brokerId).zookeeper.token();
    this.crash(brokerId);
    const closer = this.simulation.startProcess(hostOf(brokerId));
    if (token !== undefined) {
      const servers = this.zookeeper.connectString;
      await this.simulation.complete(ZooKeeper.closeSession(closer.env, { servers, token, timeoutMs: 2000 }));
    }
    closer.crash();
    await this.simulation.complete(this.start(brokerId, { lastStop: "crash", ...options }));
  }

  async createTopic(name: string, topic: Partial<Init<NewTopic>> = {}): Promise<Init<TopicResult>> {
    const assignment = topic.assignment ?? [];
    const partitions = Math.max(1, assignment.length);
    const newTopic = { name, partitions, replicationFactor: 3, config: [], assignment, ...topic } as NewTopic;
    const request = { topics: [newTopic], timeoutMs: 10_000, validateOnly: false };
    const { topics } = await this.simulation.complete(this.api.createTopics(request));
    return topics?.[0] ?? {};
  }

  /** What stands in ZooKeeper. */
  stored(topic: string, partition = 0): PartitionStateZnode | undefined {
    const path = paths.partitionState(topic, partition);
    const node = this.zookeeper.node(path);
    return node && decodePartitionState(path, node.data);
  }

  /** All living brokers know one controller and have the same, newest state of everything from it. */
  async settled(limitMs = 30_000): Promise<void> {
    this.#settledAskedMs = 0;
    await this.simulation.runUntil(() => this.#isSettled(), limitMs, "a settled cluster");
  }

  /**
   * Runs until each partition of the topic is led by a living broker, and all living ones know. Returns how long it
   * took.
   */
  async led(topic: string, limitMs = 30_000): Promise<number> {
    const startMs = this.simulation.scheduler.nowMs;
    const aliveIds = (): BrokerId[] => this.alive.map(({ brokerId }) => brokerId);
    await this.simulation.runUntil(
      () => {
        const path = paths.topic(topic);
        const node = this.zookeeper.node(path);
        if (node === undefined) return false;
        const ids = aliveIds();
        return decodeTopic(path, node.data).assignment.every((_, partition) => {
          const state = this.stored(topic, partition);
          return (
            state !== undefined &&
            ids.includes(state.leader) &&
            this.alive.every((broker) => broker.stateOf(topic, partition)?.leaderEpoch === state.leaderEpoch)
          );
        });
      },
      limitMs,
      `leaders of ${topic}`,
    );
    return this.simulation.scheduler.nowMs - startMs;
  }

  /** Throws with what was seen, and the log, when anything happened that must not. */
  assertClean(): void {
    const violations = [...this.#violations, ...[...this.#members.values()].flatMap(({ broker }) => broker.violations)];
    if (violations.length > 0) throw this.simulation.scheduler.failure(`${violations.join("\n")}\n${this.tail()}`);
  }

  /** The last lines of all brokers' logs. */
  tail(lines = 60): string {
    return this.log.slice(-lines).join("\n");
  }

  /** Looking at everything after each event would cost more than the events: it is done only after writes. */
  #counting(connector: ZooKeeperConnector): ZooKeeperConnector {
    return {
      open: (options, handler) => {
        const connection = connector.open(options, handler);
        return {
          request: (request, onResult) => {
            if (request.kind !== "multi") {
              connection.request(request, onResult);
              return;
            }
            connection.request(request, (result) => {
              this.#writes += 1;
              onResult(result);
            });
          },
          closeSession: () => connection.closeSession(),
          destroy: () => connection.destroy(),
        };
      },
    };
  }

  #isSettled(): boolean {
    const { nowMs } = this.simulation.scheduler;
    if (nowMs - this.#settledAskedMs < 5) return false;
    this.#settledAskedMs = nowMs;
    const { alive, controller } = this;
    if (controller === undefined || alive.length === 0) return false;
    const ids = alive.map(({ brokerId }) => brokerId).sort((left, right) => left - right);
    const stored = this.#storedTopics();
    return alive.every(
      (broker) =>
        broker.node.controllerId === controller.brokerId &&
        broker.controllerEpoch === this.#epochs &&
        broker.brokers.join() === ids.join() &&
        [...broker.topics.values()].reduce((sum, { partitions }) => sum + partitions.size, 0) === stored.length &&
        stored.every(({ topic, partition }) => {
          const state = this.stored(topic, partition);
          const known = broker.stateOf(topic, partition);
          return known?.leaderEpoch === state?.leaderEpoch && known?.isr.join() === state?.isr.join();
        }),
    );
  }

  #storedTopics(): { readonly topic: string; readonly partition: number }[] {
    return this.zookeeper.paths().flatMap((path) => {
      const match = /^\/brokers\/topics\/([^/]+)\/partitions\/(\d+)\/state$/.exec(path);
      return match === null ? [] : [{ topic: match[1] as string, partition: Number(match[2]) }];
    });
  }

  #check(): void {
    if (this.#checkedAtWrites === this.#writes) return;
    this.#checkedAtWrites = this.#writes;
    const epochNode = this.zookeeper.node(paths.controllerEpoch);
    const epoch = epochNode === undefined ? 0 : Number(Buffer.from(epochNode.data).toString());
    if (epoch < this.#epochs) this.#violations.push(`controller epoch stepped back: ${this.#epochs} -> ${epoch}`);
    this.#epochs = epoch;
    const stored = this.#storedStates();
    for (const { path, topicId, state, mzxid } of stored) {
      const before = this.#states.get(path);
      this.#states.set(path, { topicId, state, mzxid });
      if (state.isr.length === 0) this.#violations.push(`${path}: empty ISR`);
      if (state.leader !== -1 && !state.isr.includes(state.leader)) {
        this.#violations.push(`${path}: leader ${state.leader} outside ISR ${state.isr.join()}`);
      }
      if (before === undefined || before.topicId !== topicId || before.mzxid === mzxid) continue;
      if (state.controllerEpoch < before.state.controllerEpoch)
        this.#violations.push(`${path}: written by a former controller`);
      if (state.leaderEpoch < before.state.leaderEpoch) this.#violations.push(`${path}: leader epoch stepped back`);
      if (state.leaderEpoch === before.state.leaderEpoch && state.leader !== before.state.leader) {
        this.#violations.push(`${path}: two leaders in epoch ${state.leaderEpoch}`);
      }
    }
  }

  #storedStates(): { path: string; topicId: string; state: PartitionStateZnode; mzxid: bigint }[] {
    const topicIds = new Map<string, string | undefined>();
    const topicIdOf = (topic: string): string | undefined => {
      const node = this.zookeeper.node(paths.topic(topic));
      if (!topicIds.has(topic)) topicIds.set(topic, node && decodeTopic(paths.topic(topic), node.data).topicId);
      return topicIds.get(topic);
    };
    return this.#storedTopics().flatMap(({ topic, partition }) => {
      const path = paths.partitionState(topic, partition);
      const node = this.zookeeper.node(path);
      const topicId = topicIdOf(topic);
      if (node === undefined || topicId === undefined) return [];
      return [{ path, topicId, state: decodePartitionState(path, node.data), mzxid: node.mzxid }];
    });
  }
}

export const hostOf = (brokerId: BrokerId): string => `host${brokerId}`;
