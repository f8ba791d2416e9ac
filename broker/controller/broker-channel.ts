import type { Env } from "../../common/env/env.js";
import type { SocketEnd } from "../../common/env/network.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type {
  ControllerOrdersRequest,
  DescribedReplica,
  Init,
  PartitionName,
  PartitionState,
  RegisteredBroker,
  TopicState,
} from "../../protocol/messages.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import type { RpcOutcome } from "../../protocol/rpc-connection.js";
import { TransportError } from "../../protocol/rpc-error.js";
import type { BrokerEpoch, BrokerId, ControllerEpoch, TopicId } from "../../protocol/types.js";
import { configEntries } from "../zookeeper/znodes.js";
import type { Broker, ClusterState, Partition, Topic } from "./cluster-state.js";
import type { ProbeVerdict } from "./fast-fencing.js";
import { openControlConnection } from "./control-connection.js";

/** The controller on whose behalf orders go out. */
export interface OrderingController {
  readonly brokerId: BrokerId;
  readonly incarnation: string;
  readonly clusterId: string;
  readonly epoch: ControllerEpoch;
  readonly interBrokerListener: string;
}

/** What a channel tells and asks the controller. */
export interface BrokerChannelParts {
  readonly controller: OrderingController;
  readonly state: ClusterState;
  /** How often there was a reason to doubt that registered brokers live. */
  readonly doubts: () => number;
  /** The epoch of the controller's own registration; undefined while it has none. */
  readonly ownEpoch: () => BrokerEpoch | undefined;
  /** Whether orders may leave now. */
  readonly leaseValid: () => boolean;
  readonly probeTimeoutMs: () => number;
  /** What holds for all replicas of a topic. */
  readonly durability: (topic: Topic) => string;
  /** It answered a handshake as the registered process, begun when there had been so many doubts. */
  readonly onShakenHands: (doubts: number) => void;
  /** It answered an order that was sent when there had been so many doubts. */
  readonly onAnswered: (doubts: number) => void;
  /** The established connection ended, and not by our doing. A fresh one is being made; `onVerdict` tells how that went. */
  readonly onEnded: () => void;
  readonly onVerdict: (verdict: ProbeVerdict) => void;
  /** It refused an order because it knows a newer controller. */
  readonly onNewerController: () => void;
  /** It refused because it is registered under another epoch. */
  readonly onOtherEpoch: () => void;
}

const CONNECT_TIMEOUT_MS = 2000;
/** An order is applied in memory before it is answered; a broker that needs longer gets a fresh connection. */
const ORDER_TIMEOUT_MS = 5000;
const RETRY_MS_MIN = 20;
const RETRY_MS_MAX = 1000;
const LEASE_POLL_MS = 50;
/** In one request, which a broker takes within one turn of its event loop; larger images travel in parts. */
const PARTITIONS_MAX = 200;
/** Estimated; the frame holds 1 MiB. */
const BYTES_MAX = 600_000;
/** In one request, beside the partitions. */
const DELETED_MAX = 5000;

/** Partitions to be told of, by topic. */
type Keys = Map<TopicId, Set<number>>;

/**
 * Orders to one broker, under one registration of it: in order, one request in flight, latest wins. It keeps only *which*
 * partitions changed and reads their state when it sends, so that a slow broker costs no memory and never gets an
 * intermediate state after a newer one. A new connection begins with the image of everything. It keeps trying until it is
 * closed, which the controller does when the broker's registration is gone.
 *
 * Nothing is sent while the controller's lease is not valid: orders of a controller that may have been replaced wait.
 */
export class BrokerChannel {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #broker: Broker;
  readonly #parts: BrokerChannelParts;
  #connection: RpcConnection | undefined;
  /** Each attempt to connect has a number; results of older ones are dropped. */
  #attempt = 0;
  #retryMs = RETRY_MS_MIN;
  #retry: Timer | undefined;
  #leasePoll: Timer | undefined;
  #pumpScheduled = false;
  #closed = false;
  #sending = false;
  /** Parts of an image that are not sent yet. */
  #image: Keys[] = [];
  #imageChunks = 0;
  /** The image is to be made when the next order may leave. */
  #imageWanted = false;
  #dirty: Keys = new Map();
  /** Not confirmed yet. No image says it: what an image does not name keeps its logs on the broker, set aside. */
  readonly #deleted = new Set<TopicId>();
  /** The list of brokers or their settings changed. */
  #clusterDirty = false;
  readonly #drained: (() => void)[] = [];

  constructor(env: Env, logger: Logger, broker: Broker, parts: BrokerChannelParts) {
    this.#env = env;
    this.#logger = logger;
    this.#broker = broker;
    this.#parts = parts;
  }

  get broker(): Broker {
    return this.#broker;
  }

  /** Begins to connect. */
  start(): void {
    this.#connect("first");
  }

  /** These partitions changed, or their topic's settings. */
  partitionsChanged(topicId: TopicId, partitions: Iterable<number>): void {
    // The image that comes first will say it.
    if (this.#connection === undefined || this.#imageWanted) return;
    let numbers = this.#dirty.get(topicId);
    if (numbers === undefined) this.#dirty.set(topicId, (numbers = new Set()));
    for (const partition of partitions) numbers.add(partition);
    this.#pumpSoon();
  }

  topicDeleted(topicId: TopicId): void {
    this.#dirty.delete(topicId);
    this.#deleted.add(topicId);
    this.#pumpSoon();
  }

  /** The list of brokers changed, or the settings of brokers. */
  clusterChanged(): void {
    this.#clusterDirty = true;
    this.#pumpSoon();
  }

  /** An answer is wanted, whatever to: to the next order, and while none may leave, to a question that asks nothing. */
  ask(): void {
    this.clusterChanged();
    if (this.#parts.leaseValid()) return;
    const doubts = this.#parts.doubts();
    const connection = this.#connection;
    this.describeReplicas([], ORDER_TIMEOUT_MS).then(
      () => {
        if (this.#connection === connection) this.#parts.onAnswered(doubts);
      },
      (error: unknown) => this.#logger.debug(`Broker ${this.#broker.id} did not answer: ${reasonOf(error)}`),
    );
  }

  /** Everything again: the controller has read its state anew. */
  resendAll(): void {
    this.#imageWanted = true;
    this.#pumpSoon();
  }

  /** Everything again, on a fresh connection: somebody saw the broker's own connection end. */
  reconnect(): void {
    if (this.#closed) return;
    this.#dropConnection();
    this.#connect("probe");
  }

  /** Resolves once the broker has confirmed everything up to now, or cannot be reached. */
  drained(): Promise<void> {
    if (this.#isIdle() || this.#connection === undefined) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  /** What the broker's replicas of these partitions hold. Rejects with TransportError or ApiError. */
  async describeReplicas(
    partitions: readonly PartitionName[],
    timeoutMs: number,
  ): Promise<readonly DescribedReplica[]> {
    if (this.#connection === undefined)
      throw new ApiError("SHUTTING_DOWN", `broker ${this.#broker.id} is not connected`);
    const { brokerId: controllerId, epoch: controllerEpoch } = this.#parts.controller;
    const body = { controllerId, controllerEpoch, partitions };
    const response = await this.#connection.request("describeReplicas", body, { timeoutMs });
    return response.body.partitions;
  }

  /** Ends the connection and every attempt. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
    this.#leasePoll?.cancel();
    this.#dropConnection();
  }

  #dropConnection(): void {
    this.#attempt += 1;
    const connection = this.#connection;
    this.#connection = undefined;
    this.#sending = false;
    connection?.close();
    this.#settleDrained();
  }

  #connect(reason: "first" | "probe" | "again"): void {
    this.#retry?.cancel();
    const attempt = ++this.#attempt;
    const isCurrent = (): boolean => !this.#closed && attempt === this.#attempt;
    const ownEpoch = this.#parts.ownEpoch();
    if (ownEpoch === undefined) {
      this.#connectLater();
      return;
    }
    const { controller } = this.#parts;
    const doubts = this.#parts.doubts();
    const timeoutMs = reason === "probe" ? this.#parts.probeTimeoutMs() : CONNECT_TIMEOUT_MS;
    void openControlConnection(this.#env, {
      to: this.#broker,
      from: { brokerId: controller.brokerId, incarnation: controller.incarnation, brokerEpoch: ownEpoch },
      clusterId: controller.clusterId,
      listener: controller.interBrokerListener,
      timeoutMs,
      onClosed: (end) => {
        if (isCurrent()) this.#onEnd(end);
      },
    }).then((result) => {
      if (!isCurrent()) {
        if (result instanceof RpcConnection) result.close();
        return;
      }
      if (result instanceof RpcConnection) {
        this.#onConnected(result, doubts);
        return;
      }
      this.#logger.debug(`Broker ${this.#broker.id} cannot be reached: ${result.reason}`);
      this.#parts.onVerdict(result.verdict);
      if (isCurrent()) this.#connectLater();
    });
  }

  #connectLater(): void {
    const delayMs = this.#retryMs * (0.5 + this.#env.random.float() / 2);
    this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * 2);
    this.#retry = this.#env.timers.after(delayMs, () => this.#connect("again"));
  }

  #onConnected(connection: RpcConnection, doubts: number): void {
    this.#logger.debug(`Connected to broker ${this.#broker.id}.`);
    this.#connection = connection;
    this.#retryMs = RETRY_MS_MIN;
    this.#sending = false;
    this.#imageWanted = true;
    this.#parts.onVerdict("alive");
    this.#parts.onShakenHands(doubts);
    this.#pumpSoon();
  }

  #onEnd(end: SocketEnd): void {
    this.#dropConnection();
    // The kernel sends FIN or RST for a process that died; anything else says nothing about the process.
    if (end === "ended" || end === "reset") this.#parts.onEnded();
    if (!this.#closed) this.#connect("probe");
  }

  /** The whole state, in parts; whatever was waiting is in it, but for deletions. */
  #beginImage(): void {
    this.#imageWanted = false;
    this.#dirty = new Map();
    const parts: Keys[] = [];
    let part: Keys = new Map();
    const size = new ChunkSize();
    for (const topic of this.#parts.state.topicsById.values()) {
      const topicBytes = topicBytesOf(topic.name, topic.config);
      for (const partition of topic.partitions.values()) {
        if (!size.add(part.has(topic.topicId) ? 0 : topicBytes, partitionBytesOf(partition))) {
          parts.push(part);
          part = new Map();
          size.begin(topicBytes, partitionBytesOf(partition));
        }
        const numbers = part.get(topic.topicId);
        if (numbers === undefined) part.set(topic.topicId, new Set([partition.partition]));
        else numbers.add(partition.partition);
      }
    }
    this.#image = [...parts, part];
    this.#imageChunks = this.#image.length;
  }

  #isIdle(): boolean {
    return (
      !this.#sending &&
      !this.#imageWanted &&
      this.#image.length === 0 &&
      this.#dirty.size === 0 &&
      this.#deleted.size === 0 &&
      !this.#clusterDirty
    );
  }

  /** What one turn changes goes out together. */
  #pumpSoon(): void {
    if (this.#pumpScheduled || this.#connection === undefined) return;
    this.#pumpScheduled = true;
    this.#env.timers.afterThisTurn(() => {
      this.#pumpScheduled = false;
      this.#pump();
    });
  }

  #pump(): void {
    const connection = this.#connection;
    if (connection === undefined || this.#sending || this.#closed) return;
    if (this.#isIdle()) {
      this.#settleDrained();
      return;
    }
    if (!this.#parts.leaseValid()) {
      this.#leasePoll?.cancel();
      this.#leasePoll = this.#env.timers.after(LEASE_POLL_MS, () => this.#pump());
      return;
    }
    if (this.#imageWanted) this.#beginImage();
    const order = this.#nextOrder();
    this.#sending = true;
    connection.send("controllerOrders", order.body, { timeoutMs: ORDER_TIMEOUT_MS }, (outcome) => {
      if (this.#connection === connection) this.#onOutcome(order, outcome);
    });
  }

  #nextOrder(): Order {
    const { controller, state } = this.#parts;
    // Deletions go first: once the image is complete, the logs of what it does not name are set aside.
    const deleted = [...this.#deleted].slice(0, DELETED_MAX);
    const isImage = this.#image.length > 0 && deleted.length === this.#deleted.size;
    const keys = isImage ? (this.#image[0] as Keys) : this.#takeDirty();
    this.#clusterDirty = false;
    const body: Init<ControllerOrdersRequest> = {
      controllerId: controller.brokerId,
      controllerEpoch: controller.epoch,
      brokerEpoch: this.#broker.epoch,
      chunk: isImage ? this.#imageChunks - this.#image.length + 1 : 0,
      chunks: isImage ? this.#imageChunks : 0,
      topics: topicStates(state, keys, this.#parts.durability),
      deletedTopicIds: deleted,
      brokers: [...state.brokers.values()].map(registeredBroker),
      brokerConfig: state.brokerConfigOf(this.#broker.id),
      incomplete: state.unreadableTopics.size > 0,
      brokerConfigUnreadable: !state.isBrokerConfigReadable(this.#broker.id),
    };
    return { body, isImage, doubts: this.#parts.doubts() };
  }

  /** As many of the changed partitions as fit, oldest change first. */
  #takeDirty(): Keys {
    const taken: Keys = new Map();
    const size = new ChunkSize();
    for (const [topicId, numbers] of this.#dirty) {
      const topic = this.#parts.state.topicsById.get(topicId);
      for (const number of numbers) {
        const partition = topic?.partitions.get(number);
        if (topic !== undefined && partition !== undefined) {
          const topicBytes = taken.has(topicId) ? 0 : topicBytesOf(topic.name, topic.config);
          if (!size.add(topicBytes, partitionBytesOf(partition))) return taken;
          const others = taken.get(topicId);
          if (others === undefined) taken.set(topicId, new Set([number]));
          else others.add(number);
        }
        numbers.delete(number);
      }
      this.#dirty.delete(topicId);
    }
    return taken;
  }

  #onOutcome(order: Order, outcome: RpcOutcome<"controllerOrders">): void {
    this.#sending = false;
    if (!(outcome instanceof Error)) {
      // A newer image may have been asked for meanwhile; it begins with its own first part.
      if (order.isImage) this.#image.shift();
      for (const topicId of order.body.deletedTopicIds ?? []) this.#deleted.delete(topicId);
      this.#parts.onAnswered(order.doubts);
      this.#pump();
      return;
    }
    // The requests of a connection fail before its own end is told: that follows in this turn, and says more.
    if (outcome instanceof TransportError && outcome.kind === "closed") return;
    this.#logger.debug(`Broker ${this.#broker.id} did not take an order: ${reasonOf(outcome)}`);
    if (outcome instanceof ApiError && outcome.errorName === "NOT_CONTROLLER") {
      this.#parts.onNewerController();
    } else if (outcome instanceof ApiError && outcome.errorName === "STALE_BROKER_EPOCH") {
      this.#parts.onOtherEpoch();
    } else {
      this.#logger.warn(
        `Broker ${this.#broker.id} did not take an order (${reasonOf(outcome)}): sending everything again.`,
      );
    }
    // The image that a new connection begins with holds what this order said.
    this.#dropConnection();
    this.#connectLater();
  }

  #settleDrained(): void {
    for (const resolve of this.#drained.splice(0)) resolve();
  }
}

interface Order {
  readonly body: Init<ControllerOrdersRequest>;
  readonly isImage: boolean;
  /** How many there had been when it was sent. */
  readonly doubts: number;
}

/** Keeps one request below the limits. */
class ChunkSize {
  #partitions = 0;
  #bytes = 0;

  /** False, and unchanged, when it does not fit any more; the first always fits. */
  add(topicBytes: number, partitionBytes: number): boolean {
    const bytes = this.#bytes + topicBytes + partitionBytes;
    if (this.#partitions > 0 && (this.#partitions >= PARTITIONS_MAX || bytes > BYTES_MAX)) return false;
    this.#partitions += 1;
    this.#bytes = bytes;
    return true;
  }

  begin(topicBytes: number, partitionBytes: number): void {
    this.#partitions = 1;
    this.#bytes = topicBytes + partitionBytes;
  }
}

/** An upper estimate: a tag and length for each field. */
function topicBytesOf(name: string, config: ReadonlyMap<string, string>): number {
  let bytes = 72 + name.length;
  for (const [key, value] of config) bytes += 12 + 3 * (key.length + value.length);
  return bytes;
}

function partitionBytesOf(partition: Partition): number {
  return 48 + 5 * (partition.replicas.length + partition.isr.length + partition.elr.length);
}

function topicStates(state: ClusterState, keys: Keys, durability: (topic: Topic) => string): TopicState[] {
  const topics: TopicState[] = [];
  for (const [topicId, numbers] of keys) {
    const topic = state.topicsById.get(topicId);
    if (topic === undefined) continue;
    const partitions: PartitionState[] = [];
    for (const number of numbers) {
      const partition = topic.partitions.get(number);
      if (partition !== undefined) partitions.push(partitionState(partition));
    }
    topics.push({
      topicId,
      name: topic.name,
      config: configEntries(topic.config),
      durability: durability(topic),
      partitionCount: topic.partitionCount,
      growsFrom: topic.growsFrom,
      partitions,
    });
  }
  return topics;
}

/** A partition as the protocol carries it. */
export function partitionState(partition: Partition): PartitionState {
  const { leader, leaderEpoch, partitionEpoch, replicas, isr, elr, minInsyncReplicas, durability } = partition;
  return {
    partition: partition.partition,
    leaderId: leader,
    leaderEpoch,
    partitionEpoch,
    replicas,
    isr,
    elr,
    minInsyncReplicas,
    syncing: durability === "syncing",
  };
}

function registeredBroker(broker: Broker): RegisteredBroker {
  const { id, epoch, incarnation, rack, endpoints } = broker;
  return { id, epoch, incarnation, rack: rack ?? null, endpoints };
}
