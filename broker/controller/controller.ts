import { InvariantViolation } from "../../common/assert.js";
import { counted } from "../../common/counted.js";
import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import { sleep } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type {
  AlterPartitionsRequest,
  AlterPartitionsResponse,
  Init,
  IsrAnswer,
  IsrProposal,
} from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId, PartitionKey } from "../../protocol/types.js";
import { brokerEpochNumber, partitionKey } from "../../protocol/types.js";
import type { BrokerRegistration } from "../zookeeper/broker-registration.js";
import type { ControllerElection, Controllership } from "../zookeeper/controller-election.js";
import type { LastStop } from "../zookeeper/znodes.js";
import { NO_LEADER, paths } from "../zookeeper/znodes.js";
import type { Watch, ZooKeeper } from "../zookeeper/zookeeper.js";
import { ZooKeeperError } from "../zookeeper/zookeeper-error.js";
import { Administration } from "./administration.js";
import { BrokerChannel, partitionState } from "./broker-channel.js";
import type { Broker, Partition, Topic } from "./cluster-state.js";
import { ClusterState } from "./cluster-state.js";
import type { ControllerApi } from "./controller-api.js";
import type { ControllerEvent } from "./controller-event.js";
import { ControllerQueue } from "./controller-event.js";
import type { ControllerSettings } from "./controller-settings.js";
import type { StoredTopic, UnreadableNodes } from "./controller-store.js";
import {
  ControllerFenced,
  ControllerStore,
  StoreDiffers,
  hindranceSentence,
  isInDoubt,
  isRefusal,
} from "./controller-store.js";
import { EvidenceOfLife } from "./evidence-of-life.js";
import type { ProbeVerdict, Suspect } from "./fast-fencing.js";
import { FastFencing } from "./fast-fencing.js";
import { judgeProposal } from "./isr-proposals.js";
import type { ReplicaReport } from "./leader-election.js";
import { electUnverified, unverifiedCandidates } from "./leader-election.js";
import type { PartitionChange } from "./partition-changes.js";
import { PartitionChanges } from "./partition-changes.js";
import {
  inTurn,
  withLeader,
  withoutUncertain,
  withRegistrations,
  withSettings,
  withStopping,
  withUnverifiedLeader,
} from "./partition-state-machine.js";
import { UncertainReplicas } from "./uncertain-replicas.js";

export interface ControllerParts {
  readonly zookeeper: ZooKeeper;
  readonly registration: BrokerRegistration;
  readonly election: ControllerElection;
  readonly office: Controllership;
  readonly identity: { readonly brokerId: BrokerId; readonly incarnation: string; readonly clusterId: string };
  readonly settings: ControllerSettings;
  readonly interBrokerListener: string;
  /** The broker whose registration was deleted when this controller took over from it. */
  readonly fencedPredecessor: BrokerId | undefined;
  /** Called once, when this controller gave up its office by itself. */
  readonly onResigned: () => void;
}

/**
 * Registered brokers count as reached for so long after an election where a replica joins or is made: a new controller does
 * not wait for handshakes. Nobody is elected without one.
 */
const GRACE_MS = 1000;
/** A request of an operator fails after this time when ZooKeeper is away. */
const ZOOKEEPER_PATIENCE_MS = 4000;
/** Of operators' requests that name none. */
const ADMINISTRATION_TIMEOUT_MS = 30_000;
/** How long an answer waits for the brokers to have heard what was done. */
const SPREAD_MS_MAX = 3000;
const ADMINISTRATIONS_MAX = 1000;
const RELOAD_RETRY_MS = 100;
/** How often nodes that could not be read are looked at again. */
const REPAIR_CHECK_MS = 5000;
const BUG_RETRY_MS = 1000;

interface PendingProposal {
  readonly request: AlterPartitionsRequest;
  readonly resolve: (response: Init<AlterPartitionsResponse>) => void;
  readonly reject: (error: ApiError) => void;
  /** A leader gives itself up in it, and for its sake all were asked whether they live. */
  isAsked: boolean;
}

/**
 * The controller in office: the only one to write the state of topics and partitions. It works on one event at a time, to
 * its end: it decides on the committed state, writes in transactions that fail once a successor is elected, applies what was
 * committed, and sends orders. What it holds in memory is what ZooKeeper holds; after a write whose outcome is unknown it
 * reads everything again before the next event.
 *
 * It is made when an election was won and never used again once it resigned or was abandoned.
 */
export class Controller implements ControllerApi {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #parts: ControllerParts;
  readonly #state = new ClusterState();
  readonly #store: ControllerStore;
  readonly #changes: PartitionChanges;
  readonly #administration: Administration;
  readonly #fencing: FastFencing;
  readonly #evidence: EvidenceOfLife;
  readonly #uncertain: UncertainReplicas;
  readonly #channels = new Map<BrokerId, BrokerChannel>();
  readonly #queue = new ControllerQueue();
  readonly #stopped = new AbortController();
  readonly #proposals: PendingProposal[] = [];
  /** Rejections of requests that wait, called when this controller ends. */
  readonly #waiting = new Set<(error: ApiError) => void>();
  readonly #electedAtMs: number;
  /** Whether memory holds what ZooKeeper holds; no order leaves otherwise. */
  #isLoaded = false;
  /** Registrations whose consequences for leaders and in-sync replicas are not committed yet. */
  readonly #unjudged = new Set<BrokerEpoch>();
  #watch: Watch | undefined;
  #rebalance: Timer | undefined;
  #grace: Timer | undefined;
  #repair: Timer | undefined;

  constructor(env: Env, logger: Logger, parts: ControllerParts) {
    const { zookeeper, settings, office } = parts;
    this.#env = env;
    this.#logger = logger;
    this.#parts = parts;
    this.#electedAtMs = env.clock.monotonicMs();
    const state = this.#state;
    const channels = this.#channels;
    const isElectable = (brokerId: BrokerId): boolean => this.#isElectable(brokerId);
    const evidence = new EvidenceOfLife(env, {
      brokers: state.brokers,
      isGoing: (broker) => this.#isGoing(broker),
      ask: () => {
        for (const channel of channels.values()) channel.ask();
      },
      onPatienceOver: () => this.#queue.add({ kind: "LeadersWanted" }),
    });
    this.#evidence = evidence;
    this.#store = new ControllerStore(zookeeper, logger, office, env.timers);
    this.#changes = new PartitionChanges(logger, {
      state,
      store: this.#store,
      settings,
      channels,
      isElectable,
      isReached: (brokerId) => evidence.isReached(brokerId),
      isAwaited: (brokerId) => evidence.isAwaited(brokerId),
    });
    this.#administration = new Administration(env, logger, {
      state,
      store: this.#store,
      changes: this.#changes,
      settings,
      channels,
      onDoubt: () => evidence.doubt(),
    });
    this.#fencing = new FastFencing(env, logger, settings, {
      registered: () => new Set(state.brokers.keys()),
      sessionTimeoutMs: () => zookeeper.negotiatedTimeoutMs,
      onDecided: (fenced, dead) => {
        if (fenced.length > 0) this.#queue.add({ kind: "BrokersDead", suspects: fenced });
        if (dead.length > fenced.length) this.#queue.add({ kind: "LeadersWanted" });
      },
    });
    this.#uncertain = new UncertainReplicas(env, logger, {
      state,
      settings,
      channels,
      isElectable,
      onDescribed: (reports) => this.#queue.add({ kind: "ReplicasDescribed", reports }),
      onLookAgain: () => this.#queue.add({ kind: "LeadersWanted" }),
    });
  }

  /** Takes up work. */
  start(): void {
    if (this.#parts.fencedPredecessor !== undefined) this.#fencing.noteFenced(this.#parts.fencedPredecessor);
    // Whoever is not reached by then does not count any more, which can only be noticed by looking.
    this.#grace = this.#env.timers.after(GRACE_MS, () => this.#queue.add({ kind: "LeadersWanted" }));
    this.#scheduleRebalance();
    this.#run().catch((error: unknown) => {
      // Only our own bug comes here; it must stop the process, as it would anywhere else.
      this.#env.timers.soon(() => {
        throw error;
      });
    });
  }

  /** Ends everything at once, without a word to anybody; whoever waits is told NOT_CONTROLLER. Idempotent. */
  abandon(): void {
    if (this.#stopped.signal.aborted) return;
    this.#stopped.abort(new Error("the controller is not in office any more"));
    this.#isLoaded = false;
    this.#watch?.close();
    this.#rebalance?.cancel();
    this.#grace?.cancel();
    this.#evidence.stop();
    this.#repair?.cancel();
    this.#fencing.stop();
    this.#uncertain.stop();
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
    for (const reject of [...this.#waiting]) reject(this.#notController());
    for (const { reject } of this.#proposals.splice(0)) reject(this.#notController());
    this.#queue.wake();
  }

  /** Somebody else may be in office: finds out, and resigns if so. */
  doubtOffice(): void {
    this.#queue.add({ kind: "OfficeDoubted" });
  }

  /** A broker's own connection to this controller ended: evidence that its process died. */
  onControlConnectionEnded(brokerId: BrokerId, epoch: BrokerEpoch): void {
    const channel = this.#channels.get(brokerId);
    if (channel === undefined || channel.broker.epoch !== epoch || brokerId === this.#parts.identity.brokerId) return;
    this.#fencing.suspect({ brokerId, epoch });
    channel.reconnect();
  }

  // -- requests -------------------------------------------------------------------------------------------------------

  readonly createTopics: ControllerApi["createTopics"] = async (request) => {
    const topics = await this.#administer("createTopics", request.timeoutMs, () =>
      this.#administration.createTopics(request),
    );
    if (!request.validateOnly) await this.#spread(request.timeoutMs);
    return { topics };
  };

  readonly deleteTopics: ControllerApi["deleteTopics"] = async (request) => {
    const topics = await this.#administer("deleteTopics", request.timeoutMs, () =>
      this.#administration.deleteTopics(request),
    );
    await this.#spread(request.timeoutMs);
    return { topics };
  };

  readonly createPartitions: ControllerApi["createPartitions"] = async (request) => {
    const topic = await this.#administer("createPartitions", request.timeoutMs, () =>
      this.#administration.createPartitions(request),
    );
    await this.#spread(request.timeoutMs);
    return { topic };
  };

  readonly alterConfigs: ControllerApi["alterConfigs"] = async (request) => {
    await this.#administer("alterConfigs", 0, () => this.#administration.alterConfigs(request));
    if (!request.validateOnly) await this.#spread(0);
    return {};
  };

  readonly electLeaders: ControllerApi["electLeaders"] = async (request) => {
    const partitions = await this.#administer("electLeaders", 0, () => this.#administration.electLeaders(request));
    await this.#spread(0);
    return { partitions };
  };

  readonly controlledShutdown: ControllerApi["controlledShutdown"] = async (request) => ({
    remaining: await this.#administer("controlledShutdown", 0, () => this.#administration.controlledShutdown(request)),
  });

  readonly alterPartitions: ControllerApi["alterPartitions"] = (request) =>
    new Promise((resolve, reject) => {
      if (this.#stopped.signal.aborted) {
        reject(this.#notController());
        return;
      }
      // A broker sends the next only when the one before was not answered in time, and repeats all that was in it.
      const former = this.#proposals.findIndex((waiting) => waiting.request.brokerId === request.brokerId);
      if (former >= 0) {
        const superseded = new ApiError("REQUEST_TIMED_OUT", `broker ${request.brokerId} has sent newer proposals`);
        this.#proposals.splice(former, 1)[0]?.reject(superseded);
      }
      // Proposals that wait together are written together.
      this.#proposals.push({ request, resolve, reject, isAsked: false });
      this.#queue.add({ kind: "IsrProposed" });
    });

  /**
   * Runs `work` as an event. Fails typed and in time: when ZooKeeper is away, when the time is up, when the office is
   * lost.
   */
  async #administer<T>(what: string, requestTimeoutMs: number, work: () => Promise<T>): Promise<T> {
    const timeoutMs = requestTimeoutMs > 0 ? requestTimeoutMs : ADMINISTRATION_TIMEOUT_MS;
    const { zookeeper } = this.#parts;
    if (this.#stopped.signal.aborted) throw this.#notController();
    if (this.#waiting.size >= ADMINISTRATIONS_MAX) {
      throw new ApiError(
        "BROKER_OVERLOADED",
        `${this.#waiting.size} administration requests wait at the controller; ask later`,
      );
    }
    return new Promise<T>((resolve, reject) => {
      let hasBegun = false;
      const event: ControllerEvent = {
        kind: "Administration",
        run: async () => {
          hasBegun = true;
          const { writeCount } = this.#store;
          try {
            const result = await work();
            end();
            resolve(result);
          } catch (error) {
            hasBegun = isInDoubt(error) || this.#store.writeCount > writeCount;
            fail(this.#refusal(what, error));
            throw error;
          }
        },
      };
      const end = (): void => {
        patience.cancel();
        limit.cancel();
        this.#waiting.delete(fail);
        // Its sender was told that it failed: it must not happen after all.
        this.#queue.remove(event);
      };
      const fail = (error: ApiError): void => {
        end();
        // What has begun may be done, or may be done yet: to say that it failed would be a guess.
        const mayPass = error.retriable && error.errorName !== "REQUEST_TIMED_OUT";
        reject(
          hasBegun && mayPass ? new ApiError("REQUEST_TIMED_OUT", `${what} may be done: ${error.message}`) : error,
        );
      };
      const patience = this.#env.timers.after(ZOOKEEPER_PATIENCE_MS, () => {
        if (zookeeper.state !== "connected") fail(zookeeperUnavailable(what, "it has not answered for some seconds"));
      });
      const limit = this.#env.timers.after(timeoutMs, () => {
        fail(
          new ApiError("REQUEST_TIMED_OUT", `${what} was not done within ${timeoutMs} ms; look before you repeat it`),
        );
      });
      this.#waiting.add(fail);
      this.#queue.add(event);
    });
  }

  #refusal(what: string, error: unknown): ApiError {
    if (error instanceof ApiError) return error;
    if (error instanceof ControllerFenced) return this.#notController();
    if (error instanceof StoreDiffers || error instanceof ZooKeeperError)
      return zookeeperUnavailable(what, error.message);
    return new ApiError("UNKNOWN_SERVER_ERROR", undefined, { cause: error });
  }

  #notController(): ApiError {
    return new ApiError("NOT_CONTROLLER", `broker ${this.#parts.identity.brokerId} is not the controller any more`);
  }

  /** Waits until the brokers that can be reached have heard, so that whoever asked finds it done wherever it looks. */
  async #spread(timeoutMs: number): Promise<void> {
    const limitMs = Math.min(SPREAD_MS_MAX, timeoutMs > 0 ? timeoutMs : SPREAD_MS_MAX);
    const heard = Promise.all([...this.#channels.values()].map((channel) => channel.drained()));
    const limit = new AbortController();
    await Promise.race([heard, sleep(this.#env.timers, limitMs, limit.signal).catch(() => undefined)]);
    limit.abort(new Error("heard"));
  }

  // -- the loop -------------------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      const event = this.#isLoaded ? await this.#queue.next() : undefined;
      if (this.#isLoaded && (event === undefined || this.#stopped.signal.aborted)) continue;
      const startedMs = this.#env.clock.monotonicMs();
      await this.#attempt(() => (event === undefined ? this.#load() : this.#handle(event)));
      // What comes next would decide by answers that are as old as this took.
      if (this.#isLoaded) await this.#evidence.askAgainIfLongSince(startedMs);
    }
  }

  /** One step. A failure leaves memory in doubt, so everything is read again; being fenced ends it all. */
  async #attempt(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (this.#stopped.signal.aborted || error instanceof ApiError) return;
      if (error instanceof InvariantViolation) throw error;
      if (error instanceof ControllerFenced || (error instanceof ZooKeeperError && error.kind === "SessionExpired")) {
        this.#resign(reasonOf(error));
        return;
      }
      this.#isLoaded = false;
      const isExpected = error instanceof StoreDiffers || error instanceof ZooKeeperError;
      if (isExpected) this.#logger.warn(`The controller reads everything again: ${error.message}.`);
      else this.#logger.error(`The controller failed and starts over: ${stackOf(error)}`);
      await this.#pause(isExpected ? RELOAD_RETRY_MS : BUG_RETRY_MS);
    }
  }

  async #pause(delayMs: number): Promise<void> {
    await sleep(this.#env.timers, delayMs, this.#stopped.signal).catch(() => undefined);
  }

  async #handle(event: ControllerEvent): Promise<void> {
    switch (event.kind) {
      case "BrokersChanged":
        return this.#onBrokersChanged();
      case "BrokersDead":
        return this.#onBrokersDead(event.suspects);
      case "LeadersWanted":
        if (this.#proposals.length > 0) this.#queue.add({ kind: "IsrProposed" });
        return this.#electMissing("somebody may lead again");
      case "ReplicasDescribed":
        return this.#onReplicasDescribed(event.reports);
      case "OfficeDoubted":
        return this.#checkOffice();
      case "IsrProposed":
        return this.#onIsrProposed();
      case "RebalanceDue":
        this.#scheduleRebalance();
        return this.#parts.settings.autoLeaderRebalance ? this.#administration.rebalanceLeaders() : undefined;
      case "RepairDue":
        return this.#lookForRepair();
      case "Administration":
        return event.run();
    }
  }

  #resign(why: string): void {
    this.#logger.warn(`Controller epoch ${this.#parts.office.epoch} ends here: ${why}.`);
    this.abandon();
    this.#parts.onResigned();
  }

  async #checkOffice(): Promise<void> {
    if (!(await this.#parts.election.holds(this.#parts.office))) throw new ControllerFenced(this.#parts.office.epoch);
  }

  #scheduleRebalance(): void {
    this.#rebalance = this.#env.timers.after(this.#parts.settings.leaderImbalanceCheckIntervalMs, () =>
      this.#queue.add({ kind: "RebalanceDue" }),
    );
  }

  // -- reading everything ---------------------------------------------------------------------------------------------

  async #load(): Promise<void> {
    const { zookeeper } = this.#parts;
    const startedMs = this.#env.clock.monotonicMs();
    await zookeeper.whenConnected(zookeeper.negotiatedTimeoutMs);
    const isFirst = this.#watch === undefined;
    // Something took its time, or failed: whoever has answered before it may have lost its power meanwhile.
    if (!isFirst) this.#evidence.doubt();
    await Promise.all([this.#checkOffice(), isFirst ? this.#store.ensureBasePaths() : undefined]);
    this.#stopped.signal.throwIfAborted();
    this.#watch ??= zookeeper.watchChildren(paths.brokerIds, () => this.#queue.add({ kind: "BrokersChanged" }));
    // First of all, so that connections are made while the rest is read.
    this.#syncBrokers(await this.#readBrokers());
    const askedMs = this.#env.clock.monotonicMs();
    const unreadable: UnreadableNodes = new Map();
    const [{ topics, unreadable: namesOnly }, brokerConfigs, deletions] = await Promise.all([
      this.#store.readTopics(unreadable),
      this.#store.readBrokerConfigs(unreadable),
      this.#store.readDeletions(),
    ]);
    const state = this.#state;
    for (const topic of [...state.topicsById.values()]) state.removeTopic(topic);
    // Settings that cannot be read are still those that were read before.
    for (const name of state.brokerConfigs.keys())
      if (!unreadable.has(paths.brokerConfig(name))) state.brokerConfigs.delete(name);
    for (const [name, config] of brokerConfigs) state.brokerConfigs.set(name, config);
    const repaired = new Set(state.unreadable.keys());
    state.unreadable.clear();
    for (const [path, mzxid] of unreadable) state.unreadable.set(path, mzxid);
    state.unreadableTopics.clear();
    for (const name of namesOnly) state.unreadableTopics.add(name);
    const restarted: RestartedSeats = new Map();
    const unfinished: StoredTopic[] = [];
    const deleted: StoredTopic[] = [];
    for (const stored of topics) {
      if (deletions.get(stored.name) === stored.topicId) {
        deleted.push(stored);
        continue;
      }
      if (!stored.isReadable) {
        state.unreadableTopics.add(stored.name);
        continue;
      }
      if (stored.states.size < stored.assignment.length) unfinished.push(stored);
      state.addTopic(this.#restored(stored, { repaired, restarted }));
    }
    // Reading everything took its time, and whoever is elected or loses its seat now does so by what they answered before it.
    await this.#evidence.askAgainIfLongSince(askedMs);
    this.#stopped.signal.throwIfAborted();
    await this.#changes.commit(this.#reconciled(restarted));
    this.#stopped.signal.throwIfAborted();
    // From here on memory is what ZooKeeper holds, and orders may leave; what follows is told as it is committed.
    this.#unjudged.clear();
    this.#isLoaded = true;
    for (const channel of this.#channels.values()) {
      for (const { topicId } of deleted) channel.topicDeleted(topicId);
      channel.resendAll();
    }
    this.#queue.add({ kind: "LeadersWanted" });
    this.#logger.info(
      `Controller epoch ${this.#parts.office.epoch}: ${counted(state.brokers.size, "broker")}, ${counted(state.topics.size, "topic")}, ` +
        `${counted(state.partitionCount, "partition")} read in ${Math.round(this.#env.clock.monotonicMs() - startedMs)} ms.`,
    );
    this.#awaitRepair();
    this.#uncertain.look();
    for (const stored of unfinished) await this.#finish(stored.name, "creation", () => this.#finishCreation(stored));
    for (const { name } of deleted) {
      this.#logger.info(`Topic ${name}: going on with its deletion.`);
      await this.#finish(name, "deletion", () => this.#store.removeTopic(name));
    }
  }

  /** What a predecessor left undone. If something is in its way that no other try removes, the rest goes on. */
  async #finish(topic: string, what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!isRefusal(error)) throw error;
      this.#logger.error(hindranceSentence(topic, what, error));
    }
  }

  /** Nodes that could not be read are looked at again until somebody has repaired them. */
  #awaitRepair(): void {
    this.#repair?.cancel();
    if (this.#state.unreadable.size === 0) return;
    this.#repair = this.#env.timers.after(REPAIR_CHECK_MS, () => this.#queue.add({ kind: "RepairDue" }));
  }

  async #lookForRepair(): Promise<void> {
    if (await this.#store.hasChanged(this.#state.unreadable))
      throw new StoreDiffers("a node that could not be read has changed");
    this.#stopped.signal.throwIfAborted();
    this.#awaitRepair();
  }

  #restored(
    stored: StoredTopic,
    { repaired, restarted }: { readonly repaired: ReadonlySet<string>; readonly restarted: RestartedSeats },
  ): Topic {
    const { name, topicId, version, config } = stored;
    const partitions = new Map<number, Partition>();
    const topic: Topic = { name, topicId, version, config, partitionCount: stored.assignment.length, partitions };
    const rulesOf = this.#changes.rules(topic);
    for (const [number, found] of stored.states) {
      const { leader, leaderEpoch, partitionEpoch, isr, elr, unverified, lost, brokerEpochs, durability } = found;
      // One that was put back by hand is older than the transaction that did it: anybody may have restarted since.
      const writtenZxid = repaired.has(paths.partitionState(name, number)) ? 0n : found.writtenZxid;
      const replicas = stored.assignment[number] ?? [];
      partitions.set(number, {
        partition: number,
        replicas,
        leader,
        leaderEpoch,
        partitionEpoch,
        isr,
        elr,
        unverified,
        // As long as somebody is eligible the leader must not move the high watermark, whatever was set meanwhile.
        minInsyncReplicas: Math.max(rulesOf({ replicas }).minInsyncReplicas, elr.length > 0 ? isr.length + 1 : 0),
        lost,
        brokerEpochs: brokerEpochs ?? new Map(),
        durability,
      });
      // Whoever is registered as another process than the one its seat was given to has come back since. A state that does
      // not name processes was written by hand, or by a former version: its age has to do.
      const since = [...isr, ...elr, ...unverified].filter((id) => {
        const epoch = this.#state.brokers.get(id)?.epoch;
        if (epoch === undefined) return false;
        return brokerEpochs === undefined ? brokerEpochNumber(epoch) > writtenZxid : brokerEpochs.get(id) !== epoch;
      });
      if (since.length > 0) restarted.set(partitionKey(topicId, number), new Set(since));
    }
    return topic;
  }

  /**
   * What has to change in the state of a predecessor: brokers went, or came back as another process, while nobody looked.
   * And its min.insync.replicas may have been another. Where it was larger, nobody may stay eligible whom the leader leaves
   * behind once it hears of the smaller one. Where it was smaller nothing has to be written: the leader waits for every
   * member until it is told of another ISR, and hears of the larger one with that. The durability may be another too; who
   * may have lost records is judged by the one until now, which is the one that they were acknowledged by.
   */
  #reconciled(restarted: RestartedSeats): PartitionChange[] {
    return this.#changes.collect("a controller was elected", (partition, rules, topic) => {
      const since = restarted.get(partitionKey(topic.topicId, partition.partition)) ?? new Set<BrokerId>();
      const gone = new Set(
        [partition.leader, ...partition.isr].filter(
          (id) => id !== NO_LEADER && (!rules.isAlive(id) || (id === partition.leader && since.has(id))),
        ),
      );
      return inTurn(
        partition,
        (from) => withRegistrations(from, { gone, ...this.#uncertainOf(since, partition) }, rules),
        (from) => withLeader(from, rules),
        (from) => withSettings(from, rules),
      );
    });
  }

  /**
   * Of these brokers, those that may have lost acknowledged records of the partition, with their power or with their disk. By
   * the state and not by the setting, which says nothing of the records that were there before it.
   */
  #uncertainOf(
    brokerIds: Iterable<BrokerId>,
    partition: Partition,
  ): { readonly cut: ReadonlySet<BrokerId>; readonly lost: ReadonlySet<BrokerId> } {
    const after = (lastStop: LastStop): BrokerId[] =>
      [...brokerIds].filter((id) => this.#state.brokers.get(id)?.lastStop === lastStop);
    const lost = after("lost");
    return {
      cut: new Set(partition.durability === "fsync" ? lost : [...lost, ...after("power-cut")]),
      lost: new Set(lost),
    };
  }

  async #finishCreation(stored: StoredTopic): Promise<void> {
    const topic = this.#state.topicsById.get(stored.topicId);
    if (topic === undefined) return;
    const missing = stored.assignment.flatMap((replicas, number) =>
      stored.states.has(number) ? [] : [this.#changes.born(topic, number, replicas)],
    );
    this.#logger.info(
      `Topic ${topic.name}: making ${counted(missing.length, "partition")} that a predecessor did not get to.`,
    );
    try {
      await this.#store.finishCreation(topic, missing, (chunk) => this.#changes.apply(chunk));
    } catch (error) {
      // What is there must do, and brokers must not wait for the rest before they tell of it.
      if (isRefusal(error)) {
        topic.partitionCount = 0;
        this.#changes.tell(topic);
      }
      throw error;
    }
  }

  // -- brokers --------------------------------------------------------------------------------------------------------

  #isElectable(brokerId: BrokerId): boolean {
    const broker = this.#state.brokers.get(brokerId);
    if (broker === undefined || this.#isGoing(broker)) return false;
    return this.#evidence.hasShakenHands(broker) || this.#env.clock.monotonicMs() - this.#electedAtMs < GRACE_MS;
  }

  /** It is about to stop, or something says that it is not there any more. */
  #isGoing(broker: Broker): boolean {
    if (this.#state.isStopping(broker) || this.#state.isUnreachable(broker)) return true;
    return this.#fencing.isSuspected(broker.id, broker.epoch);
  }

  /** Rejects when this controller was abandoned meanwhile: connections made from here on would be closed by nobody. */
  async #readBrokers(): Promise<Broker[]> {
    const registered = await this.#store.readBrokers();
    this.#stopped.signal.throwIfAborted();
    return registered;
  }

  /** Takes over the registrations that were read. One with another czxid is another process, however short it was away. */
  #syncBrokers(registered: readonly Broker[]): { readonly gone: Set<BrokerId>; readonly came: Broker[] } {
    const byId = new Map(registered.map((broker) => [broker.id, broker]));
    this.#evidence.doubtIfChanged(byId);
    const gone = new Set<BrokerId>();
    for (const { id, epoch } of [...this.#state.brokers.values()]) {
      if (byId.get(id)?.epoch === epoch) continue;
      gone.add(id);
      this.#dropBroker(id);
    }
    const came: Broker[] = [];
    for (const broker of registered) {
      if (this.#state.brokers.has(broker.id)) continue;
      came.push(broker);
      this.#addBroker(broker);
    }
    if (gone.size > 0) this.#logger.info(`Brokers gone: ${[...gone].join()}.`);
    for (const { id, epoch, lastStop } of came) {
      // Of a broker without seats `lost` says only that it is new; of others the changes of their seats say it.
      const after = lastStop === "clean" || lastStop === "lost" ? "" : ` after a ${lastStop}`;
      this.#logger.info(`Broker ${id} is registered with epoch ${epoch}${after}.`);
    }
    return { gone, came };
  }

  #dropBroker(brokerId: BrokerId): void {
    this.#channels.get(brokerId)?.close();
    this.#channels.delete(brokerId);
    this.#fencing.forget(brokerId);
    this.#state.removeBroker(brokerId);
    this.#evidence.noteGone(brokerId);
  }

  #addBroker(broker: Broker): void {
    const { zookeeper, registration, identity, office, settings, interBrokerListener } = this.#parts;
    const { id, epoch } = broker;
    const isSelf = id === identity.brokerId;
    const channel = new BrokerChannel(this.#env, this.#logger, broker, {
      controller: { ...identity, epoch: office.epoch, interBrokerListener },
      state: this.#state,
      doubts: () => this.#evidence.doubts,
      ownEpoch: () => registration.epoch,
      leaseValid: () => this.#isLoaded && !this.#unjudged.has(epoch) && zookeeper.leaseValid(),
      probeTimeoutMs: () => settings.fencingProbeTimeoutMs,
      durability: (topic) => this.#changes.durability(topic),
      onShakenHands: (doubts) => {
        this.#evidence.noteAnswer(broker, doubts);
        this.#queue.add({ kind: "LeadersWanted" });
      },
      onAnswered: (doubts) => {
        if (this.#evidence.noteAnswer(broker, doubts)) this.#queue.add({ kind: "LeadersWanted" });
      },
      onEnded: () => {
        // Of our own process we know better.
        if (!isSelf) this.#fencing.suspect({ brokerId: id, epoch });
      },
      onVerdict: (verdict: ProbeVerdict) => {
        if (verdict === "alive") this.#state.unreachable.delete(id);
        else if (!isSelf) this.#state.unreachable.set(id, epoch);
        this.#fencing.onVerdict({ brokerId: id, epoch }, verdict);
      },
      onNewerController: () => this.doubtOffice(),
      onOtherEpoch: () => this.#queue.add({ kind: "BrokersChanged" }),
    });
    this.#state.brokers.set(id, broker);
    this.#channels.set(id, channel);
    channel.start();
    this.#evidence.noteRegistered(broker);
  }

  async #onBrokersChanged(): Promise<void> {
    const { gone, came } = this.#syncBrokers(await this.#readBrokers());
    if (gone.size === 0 && came.length === 0) return;
    const askedMs = this.#env.clock.monotonicMs();
    // Until the leaderships of its predecessor have ended a process gets no orders: it would lead again in the same epoch,
    // and after a power cut with other records than the followers have of that epoch.
    for (const { epoch } of came) this.#unjudged.add(epoch);
    await this.#onRegistrations(gone, came);
    this.#evidence.doubtIfLongSince(askedMs);
    this.#unjudged.clear();
    for (const { id } of came) this.#channels.get(id)?.clusterChanged();
    await this.#electMissing("brokers changed");
  }

  /** They were found dead: their registrations go first, so that for everybody, themselves included, they are as expired. */
  async #onBrokersDead(suspects: readonly Suspect[]): Promise<void> {
    const dead = suspects.flatMap(({ brokerId, epoch }) => {
      const broker = this.#state.brokers.get(brokerId);
      return broker?.epoch === epoch ? [broker] : [];
    });
    if (dead.length === 0) return;
    // Before their registrations go, so that the answers are here when it is done.
    this.#evidence.doubt();
    const askedMs = this.#env.clock.monotonicMs();
    await this.#store.fence(dead);
    this.#evidence.doubtIfLongSince(askedMs);
    for (const { id } of dead) this.#dropBroker(id);
    await this.#onRegistrations(new Set(dead.map(({ id }) => id)), []);
    this.#evidence.doubtIfLongSince(askedMs);
    await this.#electMissing("brokers were fenced");
  }

  async #onRegistrations(gone: ReadonlySet<BrokerId>, came: readonly Broker[]): Promise<void> {
    for (const channel of this.#channels.values()) channel.clusterChanged();
    const powerless = came.filter(({ lastStop }) => lastStop === "power-cut").map(({ id }) => id);
    const lost = came.filter(({ lastStop }) => lastStop === "lost").map(({ id }) => id);
    const cut = [...powerless, ...lost];
    const why = [
      ...(gone.size > 0 ? [`broker ${[...gone].join()} is gone`] : []),
      ...(powerless.length > 0 ? [`broker ${powerless.join()} lost its power`] : []),
      ...(lost.length > 0 ? [`broker ${lost.join()} has not all that was on its disk`] : []),
    ];
    if (why.length === 0) return;
    await this.#changes.commit(
      this.#changes.collect(why.join(", "), (partition, rules) =>
        withRegistrations(partition, { gone, ...this.#uncertainOf(cut, partition) }, rules),
      ),
    );
  }

  async #electMissing(why: string): Promise<void> {
    await this.#changes.commit(
      this.#changes.collect(why, (partition, rules) =>
        inTurn(
          partition,
          (from) => withLeader(from, rules),
          (from) => withoutUncertain(from, rules),
          // Members that stop, and could not give up their seats when they asked to.
          ...this.#stoppingMembers(partition).map((id) => (from: Partition) => withStopping(from, id, rules)),
          // A smaller min.insync.replicas may have waited for the leader's answer.
          (from) => withSettings(from, rules),
        ),
      ),
    );
    this.#uncertain.look();
  }

  #stoppingMembers({ isr }: Pick<Partition, "isr">): BrokerId[] {
    return isr.filter((id) => {
      const broker = this.#state.brokers.get(id);
      return broker !== undefined && this.#state.isStopping(broker);
    });
  }

  async #onReplicasDescribed(described: ReadonlyMap<PartitionKey, readonly ReplicaReport[]>): Promise<void> {
    await this.#changes.commit(
      this.#changes.collect("all in-sync replicas may have lost records", (partition, rules, topic) => {
        if (partition.leader !== NO_LEADER || partition.unverified.length === 0) return undefined;
        if (this.#uncertain.isCertainThere(partition)) return undefined;
        const candidates = unverifiedCandidates(partition);
        const reports = described.get(partitionKey(topic.topicId, partition.partition)) ?? [];
        const best = electUnverified(reports.filter(({ brokerId }) => candidates.includes(brokerId)));
        if (best === undefined) return undefined;
        const { brokerId, brokerEpoch } = best;
        // The one that holds most may have died since it said so: it is waited for as any other, and all are asked again.
        const isThere = this.#state.isCurrent(brokerId, brokerEpoch) && this.#isElectable(brokerId);
        return isThere ? withUnverifiedLeader(partition, brokerId, rules) : undefined;
      }),
    );
    this.#uncertain.look();
  }

  // -- in-sync replicas -----------------------------------------------------------------------------------------------

  async #onIsrProposed(): Promise<void> {
    const proposals = this.#proposals.splice(0);
    this.#askForSuccessors(proposals);
    const undecided = proposals.filter((proposal) => this.#waitsForSuccessor(proposal));
    this.#proposals.push(...undecided);
    const decided = proposals.filter((proposal) => !undecided.includes(proposal));
    const changes = new Map<Partition, PartitionChange>();
    /** What was accepted in this event, by the state it replaces. */
    const accepted = new Map<Partition, Partition>();
    const judged = decided.map((proposal) => ({ proposal, answers: this.#judge(proposal, accepted, changes) }));
    try {
      await this.#changes.commit([...changes.values()]);
    } catch (error) {
      for (const { proposal } of judged) proposal.reject(this.#refusal("alterPartitions", error));
      throw error;
    }
    for (const { proposal, answers } of judged) {
      if (answers instanceof ApiError) proposal.reject(answers);
      else proposal.resolve({ partitions: answers.map((answer) => this.#withState(answer)) });
    }
    // A member that stops can give its seat up to those that are in sync now, if they are there: what they answered when it
    // asked to stop may be long ago.
    if ([...changes.values()].some(({ to }) => this.#stoppingMembers(to).length > 0)) this.#evidence.doubt();
  }

  /**
   * Where a leader gives itself up its seat goes to the others, and it speaks for itself only: they are asked, once for each time
   * that it proposes so. What they answered to an earlier one proves nothing, even if it came too late for that.
   */
  #askForSuccessors(proposals: readonly PendingProposal[]): void {
    const fresh = proposals.filter((proposal) => !proposal.isAsked && resignations(proposal).length > 0);
    for (const proposal of fresh) proposal.isAsked = true;
    if (fresh.length > 0) this.#evidence.doubt();
  }

  /** Whether somebody who is to lead may still answer. The answer, or the end of the wait, brings the proposal up again. */
  #waitsForSuccessor(proposal: PendingProposal): boolean {
    return resignations(proposal).some(({ isr }) => this.#evidence.areAwaited(isr.map(({ brokerId }) => brokerId)));
  }

  #judge(
    { request }: PendingProposal,
    accepted: Map<Partition, Partition>,
    changes: Map<Partition, PartitionChange>,
  ): Init<IsrAnswer>[] | ApiError {
    const { brokerId, brokerEpoch } = request;
    if (!this.#state.isCurrent(brokerId, brokerEpoch)) {
      return new ApiError("STALE_BROKER_EPOCH", `broker ${brokerId} is not registered with epoch ${brokerEpoch}`);
    }
    return request.partitions.map((proposal): Init<IsrAnswer> => {
      const { topicId, partition: number } = proposal;
      const topic = this.#state.topicsById.get(topicId);
      const committed = topic?.partitions.get(number);
      if (topic === undefined || committed === undefined) {
        return {
          topicId,
          partition: number,
          error: new ApiError("UNKNOWN_TOPIC_ID", `no topic ${topicId.slice(0, 64)}`).report,
        };
      }
      const partition = accepted.get(committed) ?? committed;
      const verdict = judgeProposal(proposal, {
        state: this.#state,
        brokerId,
        topic,
        partition,
        rules: this.#changes.rules(topic)(partition),
        mayJoin: (id) => this.#isElectable(id),
      });
      if (verdict.kind === "refused") return { topicId, partition: number, error: verdict.error };
      if (verdict.kind === "accepted") {
        accepted.set(committed, { ...verdict.to, partitionEpoch: committed.partitionEpoch + 1 });
        changes.set(committed, { topic, from: committed, to: verdict.to, why: `proposed by leader ${brokerId}` });
      }
      // Whatever else changes the state in this event begins a new partition epoch too.
      if (verdict.kind === "renewed" && !changes.has(committed)) {
        changes.set(committed, {
          topic,
          from: committed,
          to: committed,
          renewed: true,
          why: `leader ${brokerId} asked for a new partition epoch`,
        });
      }
      return { topicId, partition: number };
    });
  }

  /** Answers carry the state as it is committed when they leave. */
  #withState(answer: Init<IsrAnswer>): Init<IsrAnswer> {
    const partition = this.#state.topicsById.get(answer.topicId ?? "")?.partitions.get(answer.partition ?? -1);
    return partition === undefined ? answer : { ...answer, state: partitionState(partition) };
  }
}

/** The parts of it in which its leader leaves the ISR. */
function resignations({ request }: PendingProposal): readonly IsrProposal[] {
  return request.partitions.filter(({ isr }) => !isr.some(({ brokerId }) => brokerId === request.brokerId));
}

/** Brokers that are not the process any more to which a partition's state gave a seat. */
type RestartedSeats = Map<PartitionKey, ReadonlySet<BrokerId>>;

function zookeeperUnavailable(what: string, why: string): ApiError {
  return new ApiError("ZOOKEEPER_UNAVAILABLE", `${what}: ZooKeeper does not answer as it should (${why})`);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
