import { InvariantViolation } from "../common/assert.js";
import { BytePool } from "../common/byte-pool.js";
import { counted } from "../common/counted.js";
import { sleep } from "../common/env/time.js";
import type { Env } from "../common/env/env.js";
import type { Timer } from "../common/env/time.js";
import type { Logger } from "../common/logger.js";
import { reasonOf } from "../common/logger.js";
import { ApiError } from "../protocol/error-codes.js";
import type { Endpoint } from "../protocol/messages.js";
import { RpcConnection } from "../protocol/rpc-connection.js";
import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerEpoch, BrokerId } from "../protocol/types.js";
import { describeConfigsHandler } from "./api/configs.js";
import { ControllerOrders } from "./api/controller-orders.js";
import { controllerHandlers } from "./api/controller-requests.js";
import { deleteRecordsHandler } from "./api/delete-records.js";
import { describeReplicasHandler } from "./api/describe-replicas.js";
import { FetchApi } from "./api/fetch.js";
import { handshakeHandler } from "./api/handshake.js";
import { listOffsetsHandler } from "./api/list-offsets.js";
import { metadataHandler } from "./api/metadata.js";
import { ProducerIds } from "./api/producer-ids.js";
import { produceHandler } from "./api/produce.js";
import type { BrokerConfig } from "./config.js";
import { TopicConfig } from "./config.js";
import { ControllerNode } from "./controller/controller-node.js";
import { controllerSettings } from "./controller/controller-settings.js";
import { DataDirectory } from "./data-directory.js";
import type { ListenerAddress } from "./listeners.js";
import { advertisedAddress } from "./listeners.js";
import { LogManager } from "./log/index.js";
import { LoopMonitor } from "./loop-monitor.js";
import { MetadataCache } from "./metadata/metadata-cache.js";
import type { Handlers } from "./net/request-context.js";
import { RequestRouter } from "./net/request-router.js";
import { ResponseBudget } from "./net/response-budget.js";
import { Server } from "./net/server.js";
import { DeadlineWheel } from "./partition/deadline-wheel.js";
import { IsrProposals } from "./partition/isr-proposals.js";
import { logSettings } from "./partition/log-settings.js";
import { PartitionTable } from "./partition/partition-table.js";
import { ReplicaActivity } from "./partition/replica-activity.js";
import { ReplicaFetchers } from "./partition/replica-fetchers.js";
import { BrokerRegistration } from "./zookeeper/broker-registration.js";
import { ensureClusterId } from "./zookeeper/cluster-id.js";
import { takeProducerIds } from "./zookeeper/producer-id-blocks.js";
import type { LastStop } from "./zookeeper/znodes.js";
import { brokerEpochOf, decodeBroker, paths } from "./zookeeper/znodes.js";
import { ZooKeeperError } from "./zookeeper/zookeeper-error.js";
import { ZooKeeper } from "./zookeeper/zookeeper.js";

const CLIENT_SOFTWARE = { clientSoftware: "ottla-broker", clientVersion: "0.1.0" };
const CONNECT_TIMEOUT_MS = 1000;
const REQUEST_TIMEOUT_MS = 5000;
const CLOSE_SESSION_TIMEOUT_MS = 2000;
const SHUTDOWN_RETRY_MS = 100;
/** How often a broker that was not told of all topics looks whether it was by now. */
const TOLD_POLL_MS = 1000;
const ISR_CHECK_MS_MAX = 1000;
/** Memory of fetched frames that is kept for the next ones. */
const IDLE_FRAME_BYTES_MAX = 32 * 1024 * 1024;

export interface BrokerIdentityOptions {
  readonly brokerId: BrokerId;
  readonly dataDirectory: string;
  readonly listeners: readonly ListenerAddress[];
  readonly advertised: readonly ListenerAddress[];
}

/** A broker that cannot go on: a broken invariant, a disk that refuses to sync. The process must stop. */
export type OnFatal = (error: Error) => void;

/**
 * One broker: the only file that knows every part. `start` builds them from the disk upwards and ends when the broker
 * serves; `stop` takes them down in reverse, after its leaderships were handed over.
 */
export class Broker {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #config: BrokerConfig;
  readonly #options: BrokerIdentityOptions;
  readonly #onFatal: OnFatal;
  readonly #incarnation: string;
  readonly #wheel: DeadlineWheel;
  readonly #monitor: LoopMonitor;
  readonly #metadata = new MetadataCache();
  readonly #closers: (() => Promise<void> | void)[] = [];
  readonly #periodic = new Set<Timer>();
  #registration: BrokerRegistration | undefined;
  #controllerNode: ControllerNode | undefined;
  #partitions: PartitionTable | undefined;
  #zookeeper: ZooKeeper | undefined;
  #endpoints: readonly Endpoint[] = [];
  #abandonAll: (() => void)[] = [];
  #stopped = false;

  constructor(env: Env, logger: Logger, config: BrokerConfig, options: BrokerIdentityOptions, onFatal: OnFatal) {
    this.#env = env;
    this.#logger = logger;
    this.#config = config;
    this.#options = options;
    this.#onFatal = onFatal;
    this.#incarnation = env.random.uuid();
    this.#wheel = new DeadlineWheel(env.clock, env.timers);
    this.#monitor = new LoopMonitor(env.clock, env.timers, (stalledMs) => {
      logger.warn(`the process did not run for ${Math.round(stalledMs)} ms; nobody is accused of silence in that time`);
    });
  }

  /** Of the registration; undefined while there is none. */
  get epoch(): BrokerEpoch | undefined {
    return this.#registration?.epoch;
  }

  /** What others are told to connect to. */
  get endpoints(): readonly Endpoint[] {
    return this.#endpoints;
  }

  get metadata(): MetadataCache {
    return this.#metadata;
  }

  get partitions(): PartitionTable | undefined {
    return this.#partitions;
  }

  /** Whether this broker is the controller. */
  get isController(): boolean {
    return this.#controllerNode?.active !== undefined;
  }

  /**
   * Resolves once this broker is registered and knows the cluster from its controller. Rejects with DataDirectoryError,
   * ListenFailure, ZooKeeperError, BrokerIdTaken; what was started by then is taken down.
   */
  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  /** Hands leaderships over, then stops everything in reverse order. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.#handOver();
    await this.#close();
  }

  /** Drops everything without a word, as a crash would. */
  abandon(): void {
    this.#stopped = true;
    for (const timer of this.#periodic) timer.cancel();
    this.#monitor.stop();
    this.#wheel.close();
    for (const abandon of this.#abandonAll.splice(0).reverse()) abandon();
  }

  async #start(): Promise<void> {
    const { brokerId, dataDirectory: path } = this.#options;
    const directory = await DataDirectory.open(this.#env, path, brokerId);
    this.#closers.push(() => directory.close());
    const zookeeper = await this.#connectZooKeeper(directory);
    // Not a byte of another cluster's records is touched: whose they are is known before they are opened.
    const clusterId = await ensureClusterId(zookeeper, this.#env);
    await directory.bindTo(clusterId);
    const logs = await LogManager.open(this.#env, this.#logger, {
      directory: `${path}/logs`,
      defaultSettings: logSettings(this.#config, new TopicConfig(this.#config, [])),
      tailBytesMax: this.#config.get("log.tail.bytes"),
      openFilesMax: this.#config.get("log.open.files.max"),
      checkpointIntervalMs: this.#config.get("replica.high.watermark.checkpoint.interval.ms"),
      onFatal: this.#onFatal,
    });
    this.#closers.push(() => logs.close());
    this.#abandonAll.push(() => logs.abandon());

    const { server, registrationNeeds } = this.#buildParts({ zookeeper, logs, clusterId });
    await this.#listen(server);
    const reportedStop = this.#reportedStop(logs);
    const registration = new BrokerRegistration(this.#env, this.#logger, zookeeper, {
      brokerId,
      incarnation: this.#incarnation,
      endpoints: this.#endpoints,
      rack: this.#config.get("broker.rack") || undefined,
      bootId: this.#env.bootId,
      // The controller sends its image once it has judged the registration, in all topics but those that it cannot read.
      lastStop: () => (this.#metadata.isWhole ? "crash" : reportedStop),
    });
    registrationNeeds(registration);
    await registration.start();
    this.#controllerNode?.start();
    this.#startPeriodicWork();
    await this.#untilServing();
    if (this.#metadata.isWhole) await logs.recoveryReported();
    else void this.#reportOnceWhole(logs);
    this.#logger.info(`broker ${brokerId} serves cluster ${clusterId}`, {
      epoch: registration.epoch,
      ...(reportedStop !== "lost" && { lastStop: reportedStop }),
    });
  }

  /**
   * What the registration says of the last stop. A log with damaged records has lost what it may have acknowledged, synced
   * or not: the controller decides about its seats, and the records are fetched again.
   */
  #reportedStop(logs: LogManager): LastStop {
    const damaged = [...logs.all()].filter((log) => log.damage.length > 0);
    if (damaged.length === 0) return logs.untoldStop;
    this.#logger.error(
      `${damaged.length} logs hold damaged records; they are fetched again from other replicas where there are any`,
      {
        partitions: damaged.slice(0, 20).map((log) => `${log.topic}-${log.partition}`),
      },
    );
    return "lost";
  }

  async #connectZooKeeper(directory: DataDirectory): Promise<ZooKeeper> {
    const servers = this.#config.get("zookeeper.connect");
    const sessionTimeoutMs = this.#config.get("zookeeper.session.timeout.ms");
    const former = await directory.formerSession();
    if (former !== undefined) {
      const ended = await ZooKeeper.closeSession(this.#env, {
        servers,
        token: former,
        timeoutMs: CLOSE_SESSION_TIMEOUT_MS,
      }).catch(() => false);
      this.#logger.info(
        ended
          ? "the ZooKeeper session of the process before this one is ended"
          : "the ZooKeeper session of the process before this one could not be ended; it expires by itself",
      );
    }
    const zookeeper = new ZooKeeper(this.#env, this.#logger, { servers, sessionTimeoutMs });
    this.#zookeeper = zookeeper;
    this.#closers.push(async () => {
      await zookeeper.close();
      await directory.forgetSession().catch(() => undefined);
    });
    this.#abandonAll.push(() => zookeeper.abandon());
    const store = (): void => {
      const token = zookeeper.token();
      if (token === undefined) return;
      directory
        .storeSession(token)
        .catch((error: unknown) =>
          this.#logger.warn(
            `the ZooKeeper session could not be stored, so a restart must wait for its end: ${reasonOf(error)}`,
          ),
        );
    };
    zookeeper.onSessionEvent((event) => {
      if (event === "connected" || event === "new-session") store();
    });
    await zookeeper.whenConnected(Math.max(sessionTimeoutMs, 15_000));
    store();
    return zookeeper;
  }

  /** Builds everything that knows each other; the registration comes last, because it needs the bound ports. */
  #buildParts({ zookeeper, logs, clusterId }: { zookeeper: ZooKeeper; logs: LogManager; clusterId: string }): {
    server: Server;
    registrationNeeds: (registration: BrokerRegistration) => void;
  } {
    const { brokerId } = this.#options;
    const config = this.#config;
    const brokerEpoch = (): BrokerEpoch | undefined => this.#registration?.epoch;
    const identity = (): { brokerId: BrokerId; brokerEpoch: BrokerEpoch } | undefined => {
      const epoch = brokerEpoch();
      return epoch === undefined ? undefined : { brokerId, brokerEpoch: epoch };
    };
    const activity = new ReplicaActivity(this.#env.clock);
    const proposals = new IsrProposals(this.#env, this.#logger, identity, (request) => {
      const node = this.#controllerNode;
      if (node === undefined)
        return Promise.reject(new ApiError("NOT_CONTROLLER", "this broker knows no controller yet"));
      return node.requestController("alterPartitions", request, REQUEST_TIMEOUT_MS);
    });
    const frames = new BytePool(IDLE_FRAME_BYTES_MAX);
    const fetchers = new ReplicaFetchers({
      env: this.#env,
      logger: this.#logger,
      identity,
      connect: (leaderId, onClosed) => this.#connectToBroker(leaderId, clusterId, frames, onClosed),
      frames,
      settings: () => ({
        waitMsMax: config.get("replica.fetch.wait.max.ms"),
        partitionBytesMax: config.get("replica.fetch.max.bytes"),
        responseBytesMax: config.get("replica.fetch.response.max.bytes"),
      }),
    });
    const partitions = new PartitionTable(this.#logger, brokerId, config, logs, {
      brokerId,
      clock: this.#env.clock,
      logger: this.#logger,
      wheel: this.#wheel,
      proposals,
      activity,
      brokerEpoch,
      registeredEpochOf: (id) => this.#metadata.broker(id)?.epoch,
      controllerEpoch: () => this.#metadata.controllerEpoch,
      leaseValid: () => zookeeper.leaseValid(),
      sessionTimeoutMs: () => zookeeper.negotiatedTimeoutMs,
      replicaLagTimeMaxMs: () => config.get("replica.lag.time.max.ms"),
      onRoleChanged: (partition) => fetchers.update(partition),
      onReportDue: (partition) => fetchers.report(partition),
    });
    this.#partitions = partitions;
    this.#closers.push(() => {
      fetchers.close();
      proposals.close();
      partitions.dropRoles("the broker stops");
    });
    this.#abandonAll.push(() => {
      fetchers.close();
      proposals.close();
    });

    const orders = new ControllerOrders(this.#logger, brokerEpoch, config, this.#metadata, partitions);
    const responses = new ResponseBudget(config.get("response.bytes.max"));
    const fetch = new FetchApi({
      wheel: this.#wheel,
      partitions,
      metadata: this.#metadata,
      activity,
      responses,
      sessionsMax: () => config.get("fetch.sessions.max"),
      partitionsMax: () => config.get("fetch.partitions.max"),
      brokerEpochOf: (id) => this.#metadata.broker(id)?.epoch,
    });
    const producerIds = new ProducerIds(this.#logger, () => takeProducerIds(zookeeper, brokerId));
    const controllerId = (): BrokerId | undefined => this.#controllerNode?.controllerId;
    const handlers: Handlers = {
      handshake: handshakeHandler({
        clusterId,
        brokerId,
        incarnation: this.#incarnation,
        brokerEpoch,
        knownBroker: (id) => this.#metadata.broker(id),
        readRegistration: (id) => readRegistration(zookeeper, id),
        onControlConnectionEnded: (id, epoch) => this.#controllerNode?.onControlConnectionEnded(id, epoch),
      }),
      metadata: metadataHandler(clusterId, config, this.#metadata, controllerId),
      produce: produceHandler(partitions, this.#metadata),
      fetch: fetch.handle,
      listOffsets: listOffsetsHandler(partitions, this.#metadata),
      initProducerId: producerIds.handle,
      describeConfigs: describeConfigsHandler(brokerId, config, this.#metadata),
      deleteRecords: deleteRecordsHandler(partitions, this.#metadata),
      controllerOrders: orders.handle,
      describeReplicas: describeReplicasHandler(logs),
      ...controllerHandlers(brokerId, () => this.#controllerNode?.active, controllerId),
    };
    const router = new RequestRouter(this.#logger, handlers, this.#onFatal);
    const server = new Server(this.#env, this.#logger, {
      limits: serverLimits(config),
      responses,
      router,
      onFatal: this.#onFatal,
    });
    this.#closers.push(() => server.close());
    this.#abandonAll.push(() => void server.close());

    const registrationNeeds = (registration: BrokerRegistration): void => {
      this.#registration = registration;
      this.#closers.push(() => registration.stop());
      this.#abandonAll.push(() => registration.abandon());
      registration.onLost(() =>
        partitions.dropRoles("this broker's registration is gone: it was fenced, or its ZooKeeper session expired"),
      );
      const node = new ControllerNode(this.#env, this.#logger, {
        zookeeper,
        registration,
        identity: { brokerId, incarnation: this.#incarnation, clusterId },
        settings: controllerSettings(config),
        interBrokerListener: config.get("inter.broker.listener.name"),
      });
      this.#controllerNode = node;
      this.#closers.push(() => node.stop());
      this.#abandonAll.push(() => node.abandon());
    };
    return { server, registrationNeeds };
  }

  async #listen(server: Server): Promise<void> {
    const interBroker = this.#config.get("inter.broker.listener.name");
    const endpoints: Endpoint[] = [];
    for (const listener of this.#options.listeners) {
      const port = await server.listen({ ...listener, isInterBroker: listener.name === interBroker });
      const told = advertisedAddress(listener, port, this.#options.advertised, this.#env.process.hostname);
      endpoints.push({ listener: told.name, host: told.host, port: told.port });
    }
    this.#endpoints = endpoints;
  }

  async #connectToBroker(
    brokerId: BrokerId,
    clusterId: string,
    frames: BytePool,
    onClosed: () => void,
  ): Promise<RpcConnection> {
    const listener = this.#config.get("inter.broker.listener.name");
    const endpoint = this.#metadata.broker(brokerId)?.endpoints.find((one) => one.listener === listener);
    const epoch = this.#registration?.epoch;
    if (endpoint === undefined || epoch === undefined) {
      throw new TransportError(
        "connect",
        true,
        undefined,
        endpoint === undefined
          ? `broker ${brokerId} has no known ${listener} address`
          : "this broker is not registered",
      );
    }
    const identity = {
      brokerId: this.#options.brokerId,
      incarnation: this.#incarnation,
      brokerEpoch: epoch,
      toBrokerId: brokerId,
      control: false,
    };
    return RpcConnection.open(this.#env, {
      host: endpoint.host,
      port: endpoint.port,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      allocate: (bytes) => frames.take(bytes),
      handshake: { clientId: `broker-${this.#options.brokerId}`, ...CLIENT_SOFTWARE, clusterId, broker: identity },
      onClosed,
    });
  }

  #startPeriodicWork(): void {
    this.#monitor.start();
    this.#every(Math.min(ISR_CHECK_MS_MAX, this.#config.get("replica.lag.time.max.ms") / 4), () => {
      for (const partition of this.#partitions?.all() ?? []) partition.reviewIsr(this.#monitor.awakeSinceMs);
    });
    this.#every(this.#config.get("log.retention.check.interval.ms"), () => {
      // By a default nothing is deleted: not before all settings are known, nor of a replica that no order has named.
      if (!this.#config.isTold) return;
      const wallMs = this.#env.clock.wallMs();
      for (const { log } of this.#partitions?.all() ?? []) {
        log.applyRetention(wallMs).catch((error: unknown) => {
          if (error instanceof InvariantViolation) this.#onFatal(error);
          else this.#logger.error(`retention of ${log.topic}-${log.partition} failed: ${reasonOf(error)}`);
        });
      }
    });
  }

  #every(intervalMs: number, work: () => void): void {
    const timer = this.#env.timers.after(intervalMs, () => {
      this.#periodic.delete(timer);
      if (this.#stopped) return;
      work();
      this.#every(intervalMs, work);
    });
    this.#periodic.add(timer);
  }

  /** A broker serves once its controller has told it who leads what. */
  async #untilServing(): Promise<void> {
    while (!this.#stopped && !this.#metadata.isComplete) await sleep(this.#env.timers, 10);
  }

  /** Until the controller has read every topic the next run has to say as well how the last one ended. */
  async #reportOnceWhole(logs: LogManager): Promise<void> {
    while (!this.#stopped && !this.#metadata.isWhole) await sleep(this.#env.timers, TOLD_POLL_MS);
    if (this.#stopped) return;
    await logs.recoveryReported().catch((error: unknown) => {
      this.#logger.warn(`how the last run ended is told once more at the next start: ${reasonOf(error)}`);
    });
  }

  async #handOver(): Promise<void> {
    const epoch = this.#registration?.epoch;
    const node = this.#controllerNode;
    if (epoch === undefined || node === undefined) return;
    const deadlineMs = this.#env.clock.monotonicMs() + this.#config.get("controlled.shutdown.max.ms");
    let said = "";
    const sayOnce = (sentence: string): void => {
      if (sentence !== said) this.#logger.info(sentence);
      said = sentence;
    };
    while (this.#env.clock.monotonicMs() < deadlineMs) {
      try {
        const { remaining } = await node.requestController(
          "controlledShutdown",
          { brokerId: this.#options.brokerId, brokerEpoch: epoch },
          REQUEST_TIMEOUT_MS,
        );
        if (remaining === 0) {
          this.#logger.info("every leadership is handed over");
          return;
        }
        // With nobody left to hand over to, waiting helps nobody.
        if (this.#metadata.brokerCount <= 1) return;
        sayOnce(`${counted(remaining, "partition", "have")} nobody else to lead them yet`);
      } catch (error) {
        sayOnce(`leaderships cannot be handed over yet: ${reasonOf(error)}`);
        if (this.#zookeeper?.state !== "connected") return;
      }
      await sleep(this.#env.timers, SHUTDOWN_RETRY_MS);
    }
    this.#logger.warn(
      "not all leaderships could be handed over in time (controlled.shutdown.max.ms); their partitions are elected anew when this broker is gone",
    );
  }

  async #close(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#periodic) timer.cancel();
    this.#monitor.stop();
    for (const close of this.#closers.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        this.#logger.error(`a part of the broker could not be stopped: ${reasonOf(error)}`);
      }
    }
    this.#wheel.close();
    this.#abandonAll = [];
  }
}

async function readRegistration(
  zookeeper: ZooKeeper,
  id: BrokerId,
): Promise<{ incarnation: string; epoch: BrokerEpoch } | undefined> {
  const node = await zookeeper.getIfExists(paths.broker(id)).catch((error: unknown) => {
    if (!(error instanceof ZooKeeperError)) throw error;
    throw new ApiError("ZOOKEEPER_UNAVAILABLE", `whether broker ${id} is registered is not known: ${error.message}`, {
      cause: error,
    });
  });
  return node === undefined
    ? undefined
    : { incarnation: decodeBroker(paths.broker(id), node.data).incarnation, epoch: brokerEpochOf(node.stat) };
}

function serverLimits(config: BrokerConfig): ConstructorParameters<typeof Server>[2]["limits"] {
  return {
    connectionsMax: config.get("connections.max"),
    connectionsPerAddressMax: config.get("connections.per.ip.max"),
    connectionsPerSecondMax: config.get("connection.creation.rate.max"),
    inFlightBytesMax: config.get("in.flight.bytes.max"),
    handshakeTimeoutMs: config.get("handshake.timeout.ms"),
    frameProgressTimeoutMs: config.get("frame.progress.timeout.ms"),
    idleTimeoutMs: config.get("connections.max.idle.ms"),
    unreadBytesMax: config.get("unread.responses.max.bytes"),
    unreadMsMax: config.get("unread.responses.max.ms"),
  };
}
