import type { Env } from "../../common/env/env.js";
import type { Listener, Socket } from "../../common/env/network.js";
import { silentLogger } from "../../common/logger.js";
import type { LogFields, Logger } from "../../common/logger.js";
import { BrokerConfig } from "../../broker/config.js";
import { ControllerNode } from "../../broker/controller/controller-node.js";
import { controllerSettings } from "../../broker/controller/controller-settings.js";
import { BrokerRegistration } from "../../broker/zookeeper/broker-registration.js";
import type { LastStop } from "../../broker/zookeeper/znodes.js";
import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import { ApiError } from "../../protocol/error-codes.js";
import { FrameReader } from "../../protocol/frame-reader.js";
import { decodeRequest, encodeErrorResponse, encodeResponse } from "../../protocol/message-codec.js";
import type {
  ControllerOrdersRequest,
  DescribedReplica,
  HandshakeRequest,
  PartitionState,
} from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId, TopicId } from "../../protocol/types.js";

export interface FakeBrokerOptions {
  readonly brokerId: BrokerId;
  readonly host: string;
  readonly port: number;
  readonly servers: string;
  readonly sessionTimeoutMs: number;
  readonly lastStop?: LastStop;
  readonly rack?: string;
  readonly settings?: Readonly<Record<string, string>>;
  /** Keeps what is logged here. */
  readonly log?: string[];
  /** What `describeReplicas` is answered with. */
  readonly describe?: (topicId: TopicId, partition: number) => Partial<DescribedReplica>;
}

/** What a broker knows of a topic from its orders. */
interface KnownTopic {
  readonly name: string;
  readonly config: ReadonlyMap<string, string | null>;
  readonly partitions: Map<number, PartitionState>;
}

const CLUSTER_ID = "test-cluster";

/**
 * A broker without a data path: registers, takes part in elections, answers handshakes and orders as the real one does, and
 * remembers what it was told. It checks what an order may never do.
 */
export class FakeBroker {
  readonly registration: BrokerRegistration;
  readonly node: ControllerNode;
  readonly zookeeper: ZooKeeper;
  readonly topics = new Map<TopicId, KnownTopic>();
  readonly violations: string[] = [];
  brokerConfig: Readonly<Record<string, string | null>> = {};
  /** Brokers as the last order listed them. */
  brokers: readonly BrokerId[] = [];
  controllerEpoch = 0;
  imagesReceived = 0;
  /** How many partitions each order was about. */
  readonly partitionsOrdered: number[] = [];
  /** Control connections that were made to it. */
  controlConnections = 0;
  /** Orders wait here while it is set. */
  ordersHeld = false;
  readonly #env: Env;
  readonly #options: FakeBrokerOptions;
  readonly #incarnation: string;
  readonly #sockets = new Set<Socket>();
  readonly #controlSockets = new Map<BrokerId, Socket>();
  #listener: Listener | undefined;
  #image: { epoch: number; next: number; topicIds: Set<TopicId> } | undefined;
  /** When the first state with a living leader was ordered, by partition; for tests of how long it takes. */
  onState: (topic: string, state: PartitionState) => void = () => undefined;

  constructor(env: Env, options: FakeBrokerOptions) {
    this.#env = env;
    this.#options = options;
    this.#incarnation = env.random.uuid();
    const logger = options.log === undefined ? silentLogger : arrayLogger(options.log, `[${options.brokerId}] `);
    const { brokerId, servers, sessionTimeoutMs, rack } = options;
    this.zookeeper = new ZooKeeper(env, logger, { servers, sessionTimeoutMs });
    this.registration = new BrokerRegistration(env, logger, this.zookeeper, {
      brokerId,
      incarnation: this.#incarnation,
      endpoints: [{ listener: "INTERNAL", host: options.host, port: options.port }],
      rack,
      bootId: env.bootId,
      lastStop: () => options.lastStop ?? "clean",
    });
    this.node = new ControllerNode(env, logger, {
      zookeeper: this.zookeeper,
      registration: this.registration,
      identity: { brokerId, incarnation: this.#incarnation, clusterId: CLUSTER_ID },
      settings: controllerSettings(new BrokerConfig(options.settings ?? {})),
      interBrokerListener: "INTERNAL",
    });
    this.registration.onLost(() => this.topics.clear());
  }

  get brokerId(): BrokerId {
    return this.#options.brokerId;
  }

  get epoch(): BrokerEpoch | undefined {
    return this.registration.epoch;
  }

  async start(): Promise<void> {
    const { host, port } = this.#options;
    this.#listener = await this.#env.network.listen({ host, port }, (socket) => this.#onConnection(socket));
    await this.registration.start();
    this.node.start();
  }

  /** As SIGKILL in the real world, where the process that runs the test lives on. */
  async kill(): Promise<void> {
    this.node.abandon();
    this.registration.abandon();
    this.zookeeper.abandon();
    const closed = this.#listener?.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async stop(): Promise<void> {
    await this.node.stop();
    await this.registration.stop();
    await this.zookeeper.close();
    const closed = this.#listener?.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Resets every connection, as a broken network card would. */
  resetConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stateOf(topic: string, partition: number): PartitionState | undefined {
    for (const known of this.topics.values()) {
      if (known.name === topic) return known.partitions.get(partition);
    }
    return undefined;
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    let peer: { readonly brokerId: BrokerId; readonly epoch: BrokerEpoch; readonly control: boolean } | undefined;
    const reader = new FrameReader({
      frameBytesMax: () => 1024 * 1024,
      allocate: (bytes) => Buffer.alloc(bytes),
      onFrame: (frame) => {
        const request = decodeRequest(frame);
        if (request.kind === "handshake") {
          const { broker } = request.body as HandshakeRequest;
          if (broker !== null) {
            peer = { brokerId: broker.brokerId, epoch: broker.brokerEpoch, control: broker.control };
            if (broker.control) this.#onControlConnection(broker.brokerId, socket);
          }
        }
        this.#answer(socket, request).catch((error: unknown) => this.violations.push(String(error)));
      },
    });
    socket.start({
      receiveBuffer: () => reader.receiveBuffer(),
      onReceived: (count) => reader.onReceived(count),
      onDrained: () => undefined,
      onClosed: (end) => {
        this.#sockets.delete(socket);
        if (peer?.control && (end === "ended" || end === "reset")) {
          this.node.onControlConnectionEnded(peer.brokerId, peer.epoch);
        }
      },
    });
  }

  /** Orders that were under way on an older connection must not come after those of the new one. */
  #onControlConnection(brokerId: BrokerId, socket: Socket): void {
    this.controlConnections += 1;
    const former = this.#controlSockets.get(brokerId);
    this.#controlSockets.set(brokerId, socket);
    if (former !== socket) former?.destroy();
  }

  async #answer(socket: Socket, request: ReturnType<typeof decodeRequest>): Promise<void> {
    const { correlationId, kind, body } = request;
    const reply = (pieces: Uint8Array[]): void => socket.send(pieces);
    try {
      switch (kind) {
        case "handshake":
          this.#checkHandshake(body as HandshakeRequest);
          reply(
            encodeResponse(correlationId, kind, {
              clusterId: CLUSTER_ID,
              brokerId: this.brokerId,
              incarnation: this.#incarnation,
              brokerEpoch: this.epoch ?? "",
            }),
          );
          break;
        case "controllerOrders":
          if (this.ordersHeld) return;
          this.#onOrders(body as ControllerOrdersRequest);
          reply(encodeResponse(correlationId, kind, {}));
          break;
        case "describeReplicas": {
          const { partitions } = body as { partitions: { topicId: string; partition: number }[] };
          reply(
            encodeResponse(correlationId, kind, {
              partitions: partitions.map(({ topicId, partition }) => ({
                topicId,
                partition,
                ...this.#options.describe?.(topicId, partition),
              })),
            }),
          );
          break;
        }
        case "alterPartitions":
        case "controlledShutdown": {
          const { active } = this.node;
          if (active === undefined) throw new ApiError("NOT_CONTROLLER");
          const answer = await (active[kind] as (body: unknown) => Promise<never>)(body);
          reply(encodeResponse(correlationId, kind, answer));
          break;
        }
        default:
          throw new ApiError("UNSUPPORTED_VERSION", kind);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      reply(encodeErrorResponse(correlationId, error.report));
    }
  }

  #checkHandshake({ broker }: HandshakeRequest): void {
    if (broker !== null && broker.toBrokerId !== this.brokerId) throw new ApiError("WRONG_BROKER");
    if (this.epoch === undefined) throw new ApiError("SHUTTING_DOWN", "not registered yet");
  }

  #onOrders(orders: ControllerOrdersRequest): void {
    if (orders.brokerEpoch !== this.epoch) throw new ApiError("STALE_BROKER_EPOCH");
    this.partitionsOrdered.push(orders.topics.reduce((sum, { partitions }) => sum + partitions.length, 0));
    if (orders.controllerEpoch < this.controllerEpoch) throw new ApiError("NOT_CONTROLLER");
    this.controllerEpoch = orders.controllerEpoch;
    this.brokers = orders.brokers.map(({ id }) => id).sort((left, right) => left - right);
    this.brokerConfig = Object.fromEntries(orders.brokerConfig.map(({ name, value }) => [name, value]));
    for (const topicId of orders.deletedTopicIds) this.topics.delete(topicId);
    for (const { topicId, name, config, partitions } of orders.topics) {
      const known = this.topics.get(topicId)?.partitions ?? new Map<number, PartitionState>();
      this.topics.set(topicId, {
        name,
        config: new Map(config.map((entry) => [entry.name, entry.value])),
        partitions: known,
      });
      for (const state of partitions) this.#onState(name, known, state);
    }
    if (orders.chunks > 0) this.#onImage(orders);
  }

  #onState(name: string, known: Map<number, PartitionState>, state: PartitionState): void {
    const before = known.get(state.partition);
    if (before !== undefined) {
      const older =
        state.leaderEpoch < before.leaderEpoch ||
        (state.leaderEpoch === before.leaderEpoch && state.partitionEpoch < before.partitionEpoch);
      if (older) this.violations.push(`${name}-${state.partition} stepped back: ${JSON.stringify([before, state])}`);
      if (state.leaderEpoch === before.leaderEpoch && state.leaderId !== before.leaderId) {
        this.violations.push(`${name}-${state.partition} has two leaders in epoch ${state.leaderEpoch}`);
      }
    }
    known.set(state.partition, state);
    this.onState(name, state);
  }

  #onImage(orders: ControllerOrdersRequest): void {
    if (orders.chunk === 1) this.#image = { epoch: orders.controllerEpoch, next: 1, topicIds: new Set() };
    const image = this.#image;
    if (image === undefined || image.epoch !== orders.controllerEpoch || image.next !== orders.chunk) {
      this.violations.push(`part ${orders.chunk} of ${orders.chunks} of an image came out of turn`);
      return;
    }
    image.next += 1;
    for (const { topicId } of orders.topics) image.topicIds.add(topicId);
    if (orders.chunk < orders.chunks) return;
    this.imagesReceived += 1;
    if (orders.incomplete) return;
    for (const topicId of [...this.topics.keys()]) if (!image.topicIds.has(topicId)) this.topics.delete(topicId);
  }
}

/** Puts lines into an array, for tests that look at them when they fail. */
export function arrayLogger(lines: string[], prefix: string): Logger {
  const write =
    (level: string) =>
    (sentence: string, fields?: LogFields): void =>
      void lines.push(`${prefix}${level} ${sentence}${fields === undefined ? "" : ` ${JSON.stringify(fields)}`}`);
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: () => arrayLogger(lines, prefix),
  };
}
