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
import { partitionKey } from "../../protocol/types.js";
import type { BrokerRegistration } from "../zookeeper/broker-registration.js";
import type { ControllerElection, Controllership } from "../zookeeper/controller-election.js";
import { NO_LEADER, paths } from "../zookeeper/znodes.js";
import type { Watch, ZooKeeper } from "../zookeeper/zookeeper.js";
import { ZooKeeperError } from "../zookeeper/zookeeper-error.js";
import { Administration } from "./administration.js";
import { AdministrationRequests, refusalOf } from "./administration-requests.js";
import { partitionState } from "./broker-channel.js";
import { ClusterLoader } from "./cluster-loader.js";
import type { Broker, Partition } from "./cluster-state.js";
import { ClusterState } from "./cluster-state.js";
import type { ControllerApi } from "./controller-api.js";
import type { ControllerEvent } from "./controller-event.js";
import { ControllerQueue } from "./controller-event.js";
import type { ControllerSettings } from "./controller-settings.js";
import { ControllerFenced, ControllerStore, StoreDiffers } from "./controller-store.js";
import type { EvidenceOfLife } from "./evidence-of-life.js";
import type { Suspect } from "./fast-fencing.js";
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
import { GRACE_MS, RegisteredBrokers } from "./registered-brokers.js";
import { UncertainReplicas, uncertainAmong } from "./uncertain-replicas.js";

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
  /** Called once, when this controller gave itself up. */
  readonly onResigned: () => void;
}

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
 * The active controller: the only one to write the state of topics and partitions. It works on one event at a time, to
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
  readonly #requests: AdministrationRequests;
  readonly #brokers: RegisteredBrokers;
  readonly #evidence: EvidenceOfLife;
  readonly #loader: ClusterLoader;
  readonly #uncertain: UncertainReplicas;
  readonly #queue = new ControllerQueue();
  readonly #stopped = new AbortController();
  readonly #proposals: PendingProposal[] = [];
  /** Whether memory holds what ZooKeeper holds; no order leaves otherwise. */
  #isLoaded = false;
  #watch: Watch | undefined;
  #rebalance: Timer | undefined;
  #grace: Timer | undefined;
  #repair: Timer | undefined;

  constructor(env: Env, logger: Logger, parts: ControllerParts) {
    const { zookeeper, settings, office } = parts;
    this.#env = env;
    this.#logger = logger;
    this.#parts = parts;
    const state = this.#state;
    const queue = this.#queue;
    this.#store = new ControllerStore(zookeeper, logger, office, env.timers);
    this.#brokers = new RegisteredBrokers(env, logger, {
      ...parts,
      state,
      queue,
      isLoaded: () => this.#isLoaded,
      durability: (topic) => this.#changes.durability(topic),
    });
    const { channels, evidence } = this.#brokers;
    this.#evidence = evidence;
    const isElectable = (brokerId: BrokerId): boolean => this.#brokers.isElectable(brokerId);
    this.#changes = new PartitionChanges(logger, {
      state,
      store: this.#store,
      settings,
      channels,
      isElectable,
      isReached: (brokerId) => evidence.isReached(brokerId),
      isAwaited: (brokerId) => evidence.isAwaited(brokerId),
    });
    this.#loader = new ClusterLoader(logger, state, this.#store, this.#changes);
    this.#administration = new Administration(env, logger, {
      state,
      store: this.#store,
      changes: this.#changes,
      settings,
      channels,
      onDoubt: () => evidence.doubt(),
    });
    this.#requests = new AdministrationRequests(env, {
      zookeeper,
      store: this.#store,
      queue,
      administration: this.#administration,
      heard: () => this.#brokers.drained(),
      notController: () => this.#notController(),
    });
    this.#uncertain = new UncertainReplicas(env, logger, {
      state,
      settings,
      channels,
      isElectable,
      onDescribed: (reports) => queue.add({ kind: "ReplicasDescribed", reports }),
      onLookAgain: () => queue.add({ kind: "LeadersWanted" }),
    });
    const { createTopics, deleteTopics, createPartitions, alterConfigs, electLeaders, controlledShutdown } =
      this.#requests;
    this.createTopics = createTopics;
    this.deleteTopics = deleteTopics;
    this.createPartitions = createPartitions;
    this.alterConfigs = alterConfigs;
    this.electLeaders = electLeaders;
    this.controlledShutdown = controlledShutdown;
  }

  /** Takes up work. */
  start(): void {
    if (this.#parts.fencedPredecessor !== undefined) this.#brokers.fencing.noteFenced(this.#parts.fencedPredecessor);
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
    this.#stopped.abort(new Error("the controller is not active any more"));
    this.#isLoaded = false;
    this.#watch?.close();
    this.#rebalance?.cancel();
    this.#grace?.cancel();
    this.#repair?.cancel();
    this.#uncertain.stop();
    this.#brokers.stop();
    this.#requests.end();
    for (const { reject } of this.#proposals.splice(0)) reject(this.#notController());
    this.#queue.wake();
  }

  /** Somebody else may be controller: finds out, and resigns if so. */
  doubtOffice(): void {
    this.#queue.add({ kind: "OfficeDoubted" });
  }

  /** A broker's own connection to this controller ended: evidence that its process died. */
  onControlConnectionEnded(brokerId: BrokerId, epoch: BrokerEpoch): void {
    this.#brokers.onConnectionEnded(brokerId, epoch);
  }

  // -- requests -------------------------------------------------------------------------------------------------------

  readonly createTopics: ControllerApi["createTopics"];
  readonly deleteTopics: ControllerApi["deleteTopics"];
  readonly createPartitions: ControllerApi["createPartitions"];
  readonly alterConfigs: ControllerApi["alterConfigs"];
  readonly electLeaders: ControllerApi["electLeaders"];
  readonly controlledShutdown: ControllerApi["controlledShutdown"];

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

  #notController(): ApiError {
    return new ApiError("NOT_CONTROLLER", `broker ${this.#parts.identity.brokerId} is not the controller any more`);
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
    this.#brokers.sync(await this.#readBrokers());
    const askedMs = this.#env.clock.monotonicMs();
    const loaded = await this.#loader.read();
    const state = this.#state;
    // Reading everything took its time, and whoever is elected or loses its seat now does so by what they answered before it.
    await this.#evidence.askAgainIfLongSince(askedMs);
    this.#stopped.signal.throwIfAborted();
    await this.#changes.commit(this.#loader.reconciled(loaded.restarted));
    this.#stopped.signal.throwIfAborted();
    // From here on memory is what ZooKeeper holds, and orders may leave; what follows is told as it is committed.
    this.#brokers.releaseOrders();
    this.#isLoaded = true;
    for (const channel of this.#brokers.channels.values()) {
      for (const { topicId } of loaded.deleted) channel.topicDeleted(topicId);
      channel.resendAll();
    }
    this.#queue.add({ kind: "LeadersWanted" });
    this.#logger.info(
      `Controller epoch ${this.#parts.office.epoch}: ${counted(state.brokers.size, "broker")}, ${counted(state.topics.size, "topic")}, ` +
        `${counted(state.partitionCount, "partition")} read in ${Math.round(this.#env.clock.monotonicMs() - startedMs)} ms.`,
    );
    this.#awaitRepair();
    this.#uncertain.look();
    await this.#loader.finish(loaded);
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

  // -- brokers --------------------------------------------------------------------------------------------------------

  /** Rejects when this controller was abandoned meanwhile: connections made from here on would be closed by nobody. */
  async #readBrokers(): Promise<Broker[]> {
    const registered = await this.#store.readBrokers();
    this.#stopped.signal.throwIfAborted();
    return registered;
  }

  async #onBrokersChanged(): Promise<void> {
    const { gone, came } = this.#brokers.sync(await this.#readBrokers());
    if (gone.size === 0 && came.length === 0) return;
    const askedMs = this.#env.clock.monotonicMs();
    this.#brokers.withholdOrders(came);
    await this.#onRegistrations(gone, came);
    this.#evidence.doubtIfLongSince(askedMs);
    this.#brokers.releaseOrders();
    for (const { id } of came) this.#brokers.channels.get(id)?.clusterChanged();
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
    for (const { id } of dead) this.#brokers.drop(id);
    await this.#onRegistrations(new Set(dead.map(({ id }) => id)), []);
    this.#evidence.doubtIfLongSince(askedMs);
    await this.#electMissing("brokers were fenced");
  }

  async #onRegistrations(gone: ReadonlySet<BrokerId>, came: readonly Broker[]): Promise<void> {
    this.#brokers.clusterChanged();
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
        withRegistrations(partition, { gone, ...uncertainAmong(this.#state, cut, partition) }, rules),
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
        const isThere = this.#state.isCurrent(brokerId, brokerEpoch) && this.#brokers.isElectable(brokerId);
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
      for (const { proposal } of judged)
        proposal.reject(refusalOf("alterPartitions", error, () => this.#notController()));
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
        mayJoin: (id) => this.#brokers.isElectable(id),
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

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
