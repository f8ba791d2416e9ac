import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Broker } from "../../broker/broker.js";
import { BrokerConfig } from "../../broker/config.js";
import { completeListeners } from "../../broker/listeners.js";
import { nodeEnv } from "../../common/env/node-env.js";
import { nodeZooKeeperConnector } from "../../common/env/node-zookeeper.js";
import type { Env } from "../../common/env/env.js";
import type { Logger } from "../../common/logger.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import type { Init, NewTopic } from "../../protocol/messages.js";
import { eventually } from "./eventually.js";
import { startRealZooKeeper } from "./real-zookeeper.js";
import type { RealZooKeeper } from "./real-zookeeper.js";

/**
 * A real cluster in the process of the test: real ZooKeeper, real sockets, real files; only the processes are one. For tests
 * of what goes over a socket; whoever wants to kill a broker starts processes.
 */
export class InProcessCluster {
  readonly env: Env = nodeEnv({ zookeeper: nodeZooKeeperConnector });
  readonly brokers = new Map<number, Broker>();
  readonly lines: string[] = [];
  readonly fatal: Error[] = [];

  private constructor(
    readonly zookeeper: RealZooKeeper,
    readonly directory: string,
    private readonly settings: Readonly<Record<string, string>>,
  ) {}

  static async start(options: {
    brokers: number;
    settings?: Readonly<Record<string, string>>;
  }): Promise<InProcessCluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    const cluster = new InProcessCluster(await startRealZooKeeper(), directory, options.settings ?? {});
    await Promise.all(Array.from({ length: options.brokers }, (_, index) => cluster.startBroker(index + 1)));
    await eventually("every broker knows every other", () =>
      [...cluster.brokers.values()].every((broker) => broker.metadata.brokerCount === options.brokers),
    );
    return cluster;
  }

  async startBroker(
    brokerId: number,
    dataDirectory = path.join(this.directory, `broker-${brokerId}`),
  ): Promise<Broker> {
    const broker = this.newBroker(brokerId, dataDirectory);
    await broker.start();
    this.brokers.set(brokerId, broker);
    return broker;
  }

  newBroker(brokerId: number, dataDirectory: string, zookeeper = this.zookeeper.connectString): Broker {
    const config = new BrokerConfig({ "zookeeper.connect": zookeeper, ...this.settings });
    const listeners = completeListeners(["127.0.0.1:0"], "INTERNAL");
    return new Broker(
      this.env,
      this.#logger(brokerId),
      config,
      { brokerId, dataDirectory, listeners, advertised: [] },
      (error) => this.fatal.push(error),
    );
  }

  port(brokerId: number, listener = "CLIENT"): number {
    const endpoint = this.brokers.get(brokerId)?.endpoints.find((one) => one.listener === listener);
    if (endpoint === undefined) throw new Error(`broker ${brokerId} has no listener ${listener}`);
    return endpoint.port;
  }

  connect(brokerId: number, listener = "CLIENT"): Promise<RpcConnection> {
    return RpcConnection.open(this.env, {
      host: "127.0.0.1",
      port: this.port(brokerId, listener),
      handshake: { clientId: "test" },
      // On a busy machine, behind thousands of others.
      connectTimeoutMs: 10_000,
      requestTimeoutMs: 10_000,
    });
  }

  get controllerId(): number | undefined {
    return [...this.brokers].find(([, broker]) => broker.isController)?.[0];
  }

  /** Creates a topic and waits until its leaders lead. Returns its id. */
  async createTopic(topic: Init<NewTopic> & { name: string }): Promise<string> {
    const controller = await this.connect(this.controllerId ?? 1);
    const { body } = await controller.request("createTopics", { topics: [topic], timeoutMs: 10_000 });
    controller.close();
    const [created] = body.topics;
    if (created === undefined || created.error !== null)
      throw new Error(`topic ${topic.name}: ${created?.error?.message}`);
    await eventually(`the leaders of ${topic.name} lead`, () =>
      Array.from({ length: created.partitions }, (_, partition) => partition).every(
        (partition) => this.leaderOf(created.topicId, partition) !== undefined,
      ),
    );
    return created.topicId;
  }

  leaderOf(topicId: string, partition: number): number | undefined {
    return [...this.brokers].find(
      ([, broker]) => broker.partitions?.get(topicId, partition)?.role.kind === "leader",
    )?.[0];
  }

  async stop(): Promise<void> {
    await Promise.all([...this.brokers.values()].map((broker) => broker.stop()));
    await this.zookeeper.stop();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }

  #logger(brokerId: number): Logger {
    const line =
      (level: string) =>
      (sentence: string): void =>
        void this.lines.push(`${brokerId} ${level} ${sentence}`);
    const logger: Logger = {
      debug: line("debug"),
      info: line("info"),
      warn: line("warn"),
      error: line("error"),
      child: () => logger,
    };
    return logger;
  }
}
