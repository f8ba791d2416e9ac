import type { Env } from "../../common/env/env.js";
import type { Logger } from "../../common/logger.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { BrokerRegistration } from "../zookeeper/broker-registration.js";
import type { Controllership } from "../zookeeper/controller-election.js";
import type { ZooKeeper } from "../zookeeper/zookeeper.js";
import { BrokerChannel } from "./broker-channel.js";
import type { BrokerChannelParts } from "./broker-channel.js";
import type { Broker, ClusterState } from "./cluster-state.js";
import type { ControllerQueue } from "./controller-event.js";
import type { ControllerSettings } from "./controller-settings.js";
import { EvidenceOfLife } from "./evidence-of-life.js";
import { FastFencing } from "./fast-fencing.js";

/**
 * Registered brokers count as reached for so long after an election where a replica joins or is made: a new controller does
 * not wait for handshakes. Nobody is elected without one.
 */
export const GRACE_MS = 1000;

interface RegisteredBrokersParts {
  readonly zookeeper: ZooKeeper;
  readonly registration: BrokerRegistration;
  readonly office: Controllership;
  readonly identity: { readonly brokerId: BrokerId; readonly incarnation: string; readonly clusterId: string };
  readonly settings: ControllerSettings;
  readonly interBrokerListener: string;
  readonly state: ClusterState;
  readonly queue: ControllerQueue;
  /** Memory holds what ZooKeeper holds: orders may leave. */
  readonly isLoaded: () => boolean;
  readonly durability: BrokerChannelParts["durability"];
}

/**
 * The brokers that are registered, as the controller knows them: the channel to each, what speaks for and against its life,
 * and who came, went or came back as another process. It decides nothing; what follows for partitions is the controller's.
 */
export class RegisteredBrokers {
  readonly channels = new Map<BrokerId, BrokerChannel>();
  readonly evidence: EvidenceOfLife;
  readonly fencing: FastFencing;
  /** Registrations whose consequences for leaders and in-sync replicas are not committed yet. */
  readonly #unjudged = new Set<BrokerEpoch>();
  readonly #sinceMs: number;

  constructor(
    private readonly env: Env,
    private readonly logger: Logger,
    private readonly parts: RegisteredBrokersParts,
  ) {
    const { state, queue, settings, zookeeper } = parts;
    this.#sinceMs = env.clock.monotonicMs();
    this.evidence = new EvidenceOfLife(env, {
      brokers: state.brokers,
      isGoing: (broker) => this.#isGoing(broker),
      ask: () => {
        for (const channel of this.channels.values()) channel.ask();
      },
      onPatienceOver: () => queue.add({ kind: "LeadersWanted" }),
    });
    this.fencing = new FastFencing(env, logger, settings, {
      registered: () => new Set(state.brokers.keys()),
      sessionTimeoutMs: () => zookeeper.negotiatedTimeoutMs,
      onDecided: (fenced, dead) => {
        if (fenced.length > 0) queue.add({ kind: "BrokersDead", suspects: fenced });
        if (dead.length > fenced.length) queue.add({ kind: "LeadersWanted" });
      },
    });
  }

  isElectable(brokerId: BrokerId): boolean {
    const broker = this.parts.state.brokers.get(brokerId);
    if (broker === undefined || this.#isGoing(broker)) return false;
    return this.evidence.hasShakenHands(broker) || this.env.clock.monotonicMs() - this.#sinceMs < GRACE_MS;
  }

  /** It is about to stop, or something says that it is not there any more. */
  #isGoing(broker: Broker): boolean {
    const { state } = this.parts;
    if (state.isStopping(broker) || state.isUnreachable(broker)) return true;
    return this.fencing.isSuspected(broker.id, broker.epoch);
  }

  /** Takes over the registrations that were read. One with another czxid is another process, however short it was away. */
  sync(registered: readonly Broker[]): { readonly gone: Set<BrokerId>; readonly came: Broker[] } {
    const { state } = this.parts;
    const byId = new Map(registered.map((broker) => [broker.id, broker]));
    this.evidence.doubtIfChanged(byId);
    const gone = new Set<BrokerId>();
    for (const { id, epoch } of [...state.brokers.values()]) {
      if (byId.get(id)?.epoch === epoch) continue;
      gone.add(id);
      this.drop(id);
    }
    const came: Broker[] = [];
    for (const broker of registered) {
      if (state.brokers.has(broker.id)) continue;
      came.push(broker);
      this.#add(broker);
    }
    if (gone.size > 0) this.logger.info(`Brokers gone: ${[...gone].join()}.`);
    for (const { id, epoch, lastStop } of came) {
      // Of a broker without replicas `lost` says only that it is new; of others the changes of their partitions say it.
      const after = lastStop === "clean" || lastStop === "lost" ? "" : ` after a ${lastStop}`;
      this.logger.info(`Broker ${id} is registered with epoch ${epoch}${after}.`);
    }
    return { gone, came };
  }

  /** Its registration is gone. */
  drop(brokerId: BrokerId): void {
    this.channels.get(brokerId)?.close();
    this.channels.delete(brokerId);
    this.fencing.forget(brokerId);
    this.parts.state.removeBroker(brokerId);
    this.evidence.noteGone(brokerId);
  }

  #add(broker: Broker): void {
    const { zookeeper, registration, identity, office, settings, interBrokerListener, state, queue } = this.parts;
    const { id, epoch } = broker;
    const isSelf = id === identity.brokerId;
    const channel = new BrokerChannel(this.env, this.logger, broker, {
      controller: { ...identity, epoch: office.epoch, interBrokerListener },
      state,
      doubts: () => this.evidence.doubts,
      ownEpoch: () => registration.epoch,
      leaseValid: () => this.parts.isLoaded() && !this.#unjudged.has(epoch) && zookeeper.leaseValid(),
      probeTimeoutMs: () => settings.fencingProbeTimeoutMs,
      durability: this.parts.durability,
      onShakenHands: (doubts) => {
        this.evidence.noteAnswer(broker, doubts);
        queue.add({ kind: "LeadersWanted" });
      },
      onAnswered: (doubts) => {
        if (this.evidence.noteAnswer(broker, doubts)) queue.add({ kind: "LeadersWanted" });
      },
      onEnded: () => {
        // Of our own process we know better.
        if (!isSelf) this.fencing.suspect({ brokerId: id, epoch });
      },
      onVerdict: (verdict) => {
        if (verdict === "alive") state.unreachable.delete(id);
        else if (!isSelf) state.unreachable.set(id, epoch);
        this.fencing.onVerdict({ brokerId: id, epoch }, verdict);
      },
      onNewerController: () => queue.add({ kind: "OfficeDoubted" }),
      onOtherEpoch: () => queue.add({ kind: "BrokersChanged" }),
    });
    state.brokers.set(id, broker);
    this.channels.set(id, channel);
    channel.start();
    this.evidence.noteRegistered(broker);
  }

  /**
   * Until the leaderships of its predecessor have ended a process gets no orders: it would lead again in the same epoch, and
   * after a power cut with other records than the followers have of that epoch.
   */
  withholdOrders(came: readonly Broker[]): void {
    for (const { epoch } of came) this.#unjudged.add(epoch);
  }

  /** What follows from all registrations is committed. */
  releaseOrders(): void {
    this.#unjudged.clear();
  }

  /** A broker's own connection to this controller ended: evidence that its process died. */
  onConnectionEnded(brokerId: BrokerId, epoch: BrokerEpoch): void {
    const channel = this.channels.get(brokerId);
    if (channel === undefined || channel.broker.epoch !== epoch || brokerId === this.parts.identity.brokerId) return;
    this.fencing.suspect({ brokerId, epoch });
    channel.reconnect();
  }

  /** All are told which brokers there are. */
  clusterChanged(): void {
    for (const channel of this.channels.values()) channel.clusterChanged();
  }

  /** Resolves when all that can be reached have heard what was ordered. */
  drained(): Promise<unknown> {
    return Promise.all([...this.channels.values()].map((channel) => channel.drained()));
  }

  stop(): void {
    this.evidence.stop();
    this.fencing.stop();
    for (const channel of this.channels.values()) channel.close();
    this.channels.clear();
  }
}
