import type { Env } from "../../common/env/env.js";
import { sleep } from "../../common/env/time.js";
import type { RequestKind } from "../../protocol/api-keys.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { RequestBody, ResponseBody } from "../../protocol/message-codec.js";
import type { Init, MetadataResponse } from "../../protocol/messages.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import type { BrokerId, PartitionKey, TopicId } from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";
import type { SimProcess } from "./sim-process.js";

/** Where a partition's leader is, as the client last heard. */
export interface KnownLeader {
  readonly brokerId: BrokerId;
  readonly leaderEpoch: number;
}

/** The requests that only a controller answers. */
type AdminKind = Extract<
  RequestKind,
  "createTopics" | "deleteTopics" | "createPartitions" | "alterConfigs" | "electLeaders"
>;

const CONNECT_TIMEOUT_MS = 500;
const REQUEST_TIMEOUT_MS = 2000;
const RETRY_MS = 50;
/** Attempts that fail one after the other grow rarer, up to this. */
const RETRY_MS_MAX = 300;

/**
 * A client that does the least a client must do, and nothing clever: one connection to each broker, metadata from whoever
 * answers, requests exactly as the caller made them. So tests decide what is sent where and when, also what no good client
 * would send.
 */
export class SimClient {
  readonly env: Env;
  readonly #bootstrap: readonly string[];
  readonly #connections = new Map<string, Promise<RpcConnection>>();
  readonly #brokers = new Map<BrokerId, string>();
  /** The newest that anybody said, by partition. */
  readonly #leaders = new Map<PartitionKey, KnownLeader>();
  /** Topics that are deleted. */
  readonly #gone = new Set<TopicId>();
  #refreshing: Promise<MetadataResponse> | undefined;
  #turn = 0;

  /** `bootstrap`: addresses like `broker-1:9092`; others are used only when the first does not answer. */
  constructor(process: SimProcess, bootstrap: readonly string[]) {
    this.env = process.env;
    this.#bootstrap = bootstrap;
  }

  /** Cluster, brokers and topics as some broker says; asked anew. Tries on until one answers. */
  refresh(): Promise<MetadataResponse> {
    this.#refreshing ??= this.#askForMetadata().finally(() => (this.#refreshing = undefined));
    return this.#refreshing;
  }

  /** The leader as last heard, without asking. */
  knownLeader(topicId: TopicId, partition: number): KnownLeader | undefined {
    const known = this.#leaders.get(partitionKey(topicId, partition));
    return known === undefined || known.brokerId < 0 ? undefined : known;
  }

  /** The leader; asks until there is one, and never answers when there will be none. */
  async leader(topicId: TopicId, partition: number): Promise<KnownLeader> {
    for (let retryMs = RETRY_MS; ; retryMs = Math.min(RETRY_MS_MAX, retryMs * 1.5)) {
      const known = this.knownLeader(topicId, partition);
      if (known !== undefined) return known;
      if (this.#gone.has(topicId)) await new Promise<never>(() => undefined);
      await this.refresh();
      if (this.knownLeader(topicId, partition) === undefined) await sleep(this.env.timers, retryMs);
    }
  }

  /** The topic is deleted: who waits for a leader of it need not ask any more. */
  forget(topicId: TopicId): void {
    this.#gone.add(topicId);
  }

  /** The connection to a broker, made when there is none. Rejects with TransportError or ApiError. */
  async connection(brokerId: BrokerId): Promise<RpcConnection> {
    const address = this.#brokers.get(brokerId);
    if (address === undefined) throw new ApiError("LEADER_NOT_AVAILABLE", `broker ${brokerId} is in no metadata`);
    return this.#connect(address);
  }

  /** One request to one broker, once. */
  async request<Kind extends RequestKind>(
    brokerId: BrokerId,
    kind: Kind,
    body: Init<RequestBody<Kind>>,
    options: { readonly timeoutMs?: number; readonly records?: readonly (readonly Uint8Array[])[] } = {},
  ): Promise<{ readonly body: ResponseBody<Kind>; readonly records: readonly Buffer[] }> {
    const connection = await this.connection(brokerId);
    return connection.request(kind, body, options);
  }

  /** One administrative request to the controller, wherever it is; repeated while there is none or it does not answer. */
  async administer<Kind extends AdminKind>(kind: Kind, body: Init<RequestBody<Kind>>): Promise<ResponseBody<Kind>> {
    for (;;) {
      const { controllerId } = await this.refresh();
      try {
        if (controllerId >= 0) return (await this.request(controllerId, kind, body, { timeoutMs: 15_000 })).body;
      } catch (error) {
        if (error instanceof ApiError && !error.retriable && error.errorName !== "NOT_CONTROLLER") throw error;
      }
      await sleep(this.env.timers, RETRY_MS);
    }
  }

  close(): void {
    for (const connection of this.#connections.values())
      connection.then(
        (open) => open.close(),
        () => undefined,
      );
    this.#connections.clear();
  }

  async #askForMetadata(): Promise<MetadataResponse> {
    for (let retryMs = RETRY_MS; ; retryMs = Math.min(RETRY_MS_MAX, retryMs * 1.5)) {
      const addresses = [...new Set([...this.#bootstrap, ...this.#brokers.values()])];
      // Everybody in turn: one that is cut off answers too, with what was true once.
      const address = addresses[this.#turn % addresses.length] as string;
      this.#turn += 1;
      try {
        const connection = await this.#connect(address);
        const { body } = await connection.request("metadata", {}, { timeoutMs: CONNECT_TIMEOUT_MS });
        this.#learn(body);
        return body;
      } catch {
        await sleep(this.env.timers, retryMs);
      }
    }
  }

  #learn(metadata: MetadataResponse): void {
    for (const broker of metadata.brokers) this.#brokers.set(broker.id, `${broker.host}:${broker.port}`);
    for (const { topicId, partitions } of metadata.topics) {
      for (const { partition, leaderId, leaderEpoch } of partitions) {
        const key = partitionKey(topicId, partition);
        if ((this.#leaders.get(key)?.leaderEpoch ?? -1) <= leaderEpoch)
          this.#leaders.set(key, { brokerId: leaderId, leaderEpoch });
      }
    }
  }

  #connect(address: string): Promise<RpcConnection> {
    const open = this.#connections.get(address);
    if (open !== undefined) return open;
    const [host = "", port = "0"] = address.split(":");
    const connection = RpcConnection.open(this.env, {
      host,
      port: Number(port),
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      handshake: { clientId: this.env.process.hostname, clientSoftware: "ottla-simulation", clientVersion: "0" },
      onClosed: () => this.#forget(address, connection),
    });
    this.#connections.set(address, connection);
    connection.catch(() => this.#forget(address, connection));
    return connection;
  }

  #forget(address: string, connection: Promise<RpcConnection>): void {
    if (this.#connections.get(address) === connection) this.#connections.delete(address);
  }
}
