import { formatAddress } from "../../common/host-port.js";
import type { ConfigEntry, Endpoint } from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, TopicId } from "../../protocol/types.js";

/**
 * Every path in ZooKeeper, with what stands there. The JSON is Kafka 3.9's, so that what is read here with `zkCli.sh` looks
 * the same there; fields of ours are added, none is left out. Decoding refuses what is not ours to understand with
 * ZnodeFormatError; unknown fields are ignored.
 */
export const paths = {
  clusterId: "/cluster/id",
  controller: "/controller",
  controllerEpoch: "/controller_epoch",
  brokerIds: "/brokers/ids",
  broker: (brokerId: BrokerId): string => `/brokers/ids/${brokerId}`,
  topics: "/brokers/topics",
  topic: (topic: string): string => `/brokers/topics/${topic}`,
  partitions: (topic: string): string => `/brokers/topics/${topic}/partitions`,
  partition: (topic: string, partition: number): string => `/brokers/topics/${topic}/partitions/${partition}`,
  partitionState: (topic: string, partition: number): string =>
    `/brokers/topics/${topic}/partitions/${partition}/state`,
  topicConfigs: "/config/topics",
  topicConfig: (topic: string): string => `/config/topics/${topic}`,
  brokerConfigs: "/config/brokers",
  /** `name` is a broker id or `defaultBrokerConfig`. */
  brokerConfig: (name: string): string => `/config/brokers/${name}`,
  deletions: "/admin/delete_topics",
  deletion: (topic: string): string => `/admin/delete_topics/${topic}`,
  producerIdBlock: "/latest_producer_id_block",
} as const;

/** The name under which settings for all brokers stand, as in Kafka. */
export const defaultBrokerConfig = "<default>";

/** Nodes without content that the rest hangs on. */
export const basePaths: readonly string[] = [
  "/cluster",
  paths.brokerIds,
  paths.topics,
  paths.topicConfigs,
  paths.brokerConfigs,
  "/config/clients",
  paths.deletions,
  "/consumers",
];

/** A znode that does not hold what its path promises: somebody wrote it by hand, or with another program. */
export class ZnodeFormatError extends Error {
  override readonly name = "ZnodeFormatError";
  constructor(
    readonly path: string,
    why: string,
  ) {
    super(`${path} in ZooKeeper is not what ottla writes there: ${why}`);
  }
}

/** The content of nodes whose existence says everything. */
export const emptyZnode = new Uint8Array(0);

/**
 * How the process before this one of the same broker ended. A power cut may have taken unsynced records with it. `lost`:
 * synced ones may be gone too; the data directory is new, or logs are missing or damaged.
 */
export type LastStop = "clean" | "crash" | "power-cut" | "lost";

/** What a broker says of itself in its registration. */
export interface BrokerZnode {
  readonly endpoints: readonly Endpoint[];
  readonly rack: string | undefined;
  /** Random, made anew by each process. */
  readonly incarnation: string;
  /** Of the kernel, for people: what it says about the process before is in `lastStop`. */
  readonly bootId: string;
  readonly lastStop: LastStop;
  /** Where the process runs, for people; another one than ours under our id is a mistake in a configuration. */
  readonly hostname: string;
}

export function encodeBroker(broker: BrokerZnode, wallMs: number): Uint8Array {
  const [first] = broker.endpoints;
  return encodeJson({
    features: {},
    listener_security_protocol_map: Object.fromEntries(broker.endpoints.map(({ listener }) => [listener, "PLAINTEXT"])),
    endpoints: broker.endpoints.map(endpointText),
    jmx_port: -1,
    port: first?.port ?? -1,
    host: first?.host ?? null,
    version: 5,
    timestamp: String(wallMs),
    ...(broker.rack !== undefined && { rack: broker.rack }),
    incarnation: broker.incarnation,
    bootId: broker.bootId,
    lastStop: broker.lastStop,
    hostname: broker.hostname,
  });
}

export function decodeBroker(path: string, data: Uint8Array): BrokerZnode {
  const json = new JsonObject(path, data);
  const lastStop = json.text("lastStop");
  return {
    endpoints: json.list("endpoints").map((text) => parseEndpoint(path, text)),
    rack: json.optionalText("rack"),
    incarnation: json.text("incarnation"),
    bootId: json.optionalText("bootId") ?? "",
    lastStop: lastStop === "clean" || lastStop === "power-cut" || lastStop === "lost" ? lastStop : "crash",
    hostname: json.optionalText("hostname") ?? "",
  };
}

/** `LISTENER://host:port`; an IPv6 address stands in brackets. */
function endpointText({ listener, host, port }: Endpoint): string {
  return `${listener}://${formatAddress({ host, port })}`;
}

function parseEndpoint(path: string, text: unknown): Endpoint {
  const match = typeof text === "string" ? /^([^:/]+):\/\/(?:\[([^\]]+)\]|([^:]*)):(\d+)$/.exec(text) : null;
  if (match === null) throw new ZnodeFormatError(path, `endpoint ${JSON.stringify(text)}`);
  return { listener: match[1] ?? "", host: match[2] ?? match[3] ?? "", port: Number(match[4]) };
}

/** Who the controller is. */
export interface ControllerZnode {
  readonly brokerId: BrokerId;
}

export function encodeController(controller: ControllerZnode, wallMs: number): Uint8Array {
  return encodeJson({
    version: 2,
    brokerid: controller.brokerId,
    timestamp: String(wallMs),
    kraftControllerEpoch: -1,
  });
}

export function decodeController(data: Uint8Array): ControllerZnode {
  return { brokerId: new JsonObject(paths.controller, data).count("brokerid") };
}

/** As Kafka: the digits, not JSON. */
export function encodeControllerEpoch(epoch: ControllerEpoch): Uint8Array {
  return Buffer.from(String(epoch));
}

export function decodeControllerEpoch(data: Uint8Array): ControllerEpoch {
  const text = Buffer.from(data).toString();
  if (!/^\d{1,15}$/.test(text)) throw new ZnodeFormatError(paths.controllerEpoch, JSON.stringify(text));
  return Number(text);
}

/** A topic's identity and where its replicas are; index = partition, the preferred leader first. */
export interface TopicZnode {
  readonly topicId: TopicId;
  readonly assignment: readonly (readonly BrokerId[])[];
}

export function encodeTopic(topic: TopicZnode): Uint8Array {
  return encodeJson({
    removing_replicas: {},
    partitions: Object.fromEntries(topic.assignment.map((replicas, partition) => [String(partition), replicas])),
    topic_id: topic.topicId,
    adding_replicas: {},
    version: 3,
  });
}

export function decodeTopic(path: string, data: Uint8Array): TopicZnode {
  const json = new JsonObject(path, data);
  const partitions = json.object("partitions");
  const count = Object.keys(partitions).length;
  const assignment: BrokerId[][] = [];
  for (let partition = 0; partition < count; partition++) {
    const replicas = brokerIdsOf(partitions[String(partition)]);
    if (replicas === undefined || replicas.length === 0 || new Set(replicas).size < replicas.length)
      throw new ZnodeFormatError(path, `partition ${partition}`);
    assignment.push(replicas);
  }
  return { topicId: json.text("topic_id"), assignment };
}

/** What the controller decided for a partition. The znode's version is the partition epoch. */
export interface PartitionStateZnode {
  readonly controllerEpoch: ControllerEpoch;
  /** `NO_LEADER`: none. */
  readonly leader: BrokerId;
  readonly leaderEpoch: LeaderEpoch;
  readonly isr: readonly BrokerId[];
  /** Replicas outside the ISR that still hold every committed record (KIP-966). */
  readonly elr: readonly BrokerId[];
  /** Members of the ISR, and once eligible replicas, that may have lost records, and lead only when everybody was asked. */
  readonly unverified: readonly BrokerId[];
  /** Of these, the ones that lost their disk. */
  readonly lost: readonly BrokerId[];
  /**
   * The processes that the seats were given to, as far as the controller that wrote this knew them: one that is registered
   * under another epoch came back since. Undefined: whoever wrote the state did not say.
   */
  readonly brokerEpochs?: ReadonlyMap<BrokerId, BrokerEpoch> | undefined;
  readonly durability: PartitionDurability;
}

/**
 * What an acknowledgement in this partition has promised. `syncing`: the setting is fsync, and there are records that may
 * have been acknowledged before it was; they are to be synced on every in-sync replica first. Until then a power cut may
 * take records, as with page-cache.
 */
export type PartitionDurability = "page-cache" | "syncing" | "fsync";

/** Stands for the leader of a partition that has none. */
export const NO_LEADER: BrokerId = -1;

export function encodePartitionState(state: PartitionStateZnode): Uint8Array {
  return encodeJson({
    controller_epoch: state.controllerEpoch,
    leader: state.leader,
    version: 1,
    leader_epoch: state.leaderEpoch,
    isr: state.isr,
    elr: state.elr,
    ...(state.unverified.length > 0 && { unverified: state.unverified }),
    ...(state.lost.length > 0 && { lost: state.lost }),
    ...(state.brokerEpochs !== undefined && { broker_epochs: Object.fromEntries(state.brokerEpochs) }),
    ...(state.durability !== "page-cache" && { durability: state.durability }),
  });
}

export function decodePartitionState(path: string, data: Uint8Array): PartitionStateZnode {
  const json = new JsonObject(path, data);
  const leader = json.number("leader");
  const isr = brokerIdsOf(json.value("isr"));
  const elr = brokerIdsOf(json.value("elr") ?? []);
  const unverified = brokerIdsOf(json.value("unverified") ?? []);
  const lost = brokerIdsOf(json.value("lost") ?? []);
  const durability = json.optionalText("durability") ?? "page-cache";
  if (leader < NO_LEADER) throw new ZnodeFormatError(path, `leader ${leader}`);
  if (isr === undefined || elr === undefined || unverified === undefined || lost === undefined)
    throw new ZnodeFormatError(path, "isr, elr, unverified and lost are lists of broker ids");
  if (durability !== "page-cache" && durability !== "syncing" && durability !== "fsync")
    throw new ZnodeFormatError(path, `durability ${durability}`);
  return {
    controllerEpoch: json.count("controller_epoch"),
    leader,
    leaderEpoch: json.count("leader_epoch"),
    isr,
    elr,
    unverified,
    lost,
    brokerEpochs: json.value("broker_epochs") === undefined ? undefined : brokerEpochsIn(path, json),
    durability,
  };
}

/** Texts, because a number of JSON does not hold 64 bits. */
function brokerEpochsIn(path: string, json: JsonObject): ReadonlyMap<BrokerId, BrokerEpoch> {
  const epochs = new Map<BrokerId, BrokerEpoch>();
  for (const [name, epoch] of Object.entries(json.object("broker_epochs"))) {
    const brokerId = parseBrokerId(name);
    if (brokerId === undefined || typeof epoch !== "string" || !/^\d{1,19}$/.test(epoch))
      throw new ZnodeFormatError(path, "broker_epochs names the epoch of each broker id, as a text");
    epochs.set(brokerId, epoch);
  }
  return epochs;
}

/** Settings of a topic, of a broker or of all brokers: only those that somebody set. */
export type ConfigZnode = ReadonlyMap<string, string>;

export function encodeConfig(config: ConfigZnode): Uint8Array {
  return encodeJson({ version: 1, config: Object.fromEntries(config) });
}

export function decodeConfig(path: string, data: Uint8Array): ConfigZnode {
  const config = new JsonObject(path, data).object("config");
  const entries = Object.entries(config);
  for (const [name, value] of entries) {
    if (typeof value !== "string") throw new ZnodeFormatError(path, `the value of ${name} is no text`);
  }
  return new Map(entries as [string, string][]);
}

/** As the protocol carries settings. */
export function configEntries(config: ConfigZnode): ConfigEntry[] {
  return [...config].map(([name, value]) => ({ name, value }));
}

/** Which topic of a name is being deleted. Kafka's mark is empty; ours names the topic, so that none made by hand counts. */
export function encodeDeletion(topicId: TopicId): Uint8Array {
  return encodeJson({ version: 1, topic_id: topicId });
}

export function decodeDeletion(path: string, data: Uint8Array): TopicId {
  return new JsonObject(path, data).text("topic_id");
}

/** The last block of producer ids that was handed to a broker, both ends inclusive. */
export interface ProducerIdBlockZnode {
  readonly brokerId: BrokerId;
  readonly firstId: bigint;
  readonly lastId: bigint;
}

export function encodeProducerIdBlock(block: ProducerIdBlockZnode): Uint8Array {
  return encodeJson({
    version: 1,
    broker: block.brokerId,
    block_start: String(block.firstId),
    block_end: String(block.lastId),
  });
}

export function decodeProducerIdBlock(data: Uint8Array): ProducerIdBlockZnode {
  const json = new JsonObject(paths.producerIdBlock, data);
  return {
    brokerId: json.count("broker"),
    firstId: json.integer("block_start"),
    lastId: json.integer("block_end"),
  };
}

export function encodeClusterId(clusterId: string): Uint8Array {
  return encodeJson({ version: "1", id: clusterId });
}

export function decodeClusterId(data: Uint8Array): string {
  return new JsonObject(paths.clusterId, data).text("id");
}

/** A broker's epoch: the transaction that made its registration. */
export function brokerEpochOf(stat: { readonly czxid: bigint }): BrokerEpoch {
  return stat.czxid.toString();
}

/** The broker id that a child of /brokers/ids stands for; undefined for a node that no broker made. */
export function parseBrokerId(name: string): BrokerId | undefined {
  return /^\d{1,9}$/.test(name) ? Number(name) : undefined;
}

function encodeJson(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}

function brokerIdsOf(value: unknown): BrokerId[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const ids: unknown[] = value;
  return ids.every((id) => Number.isSafeInteger(id) && (id as number) >= 0) ? (ids as BrokerId[]) : undefined;
}

/** The JSON object in a znode, field by field, with errors that name the path and the field. */
class JsonObject {
  readonly #fields: Readonly<Record<string, unknown>>;

  constructor(
    private readonly path: string,
    data: Uint8Array,
  ) {
    let value: unknown;
    try {
      value = JSON.parse(Buffer.from(data).toString());
    } catch {
      throw new ZnodeFormatError(path, "no JSON");
    }
    if (!isObject(value)) throw new ZnodeFormatError(path, "no JSON object");
    this.#fields = value;
  }

  value(field: string): unknown {
    return Object.hasOwn(this.#fields, field) ? this.#fields[field] : undefined;
  }

  text(field: string): string {
    const value = this.value(field);
    return typeof value === "string" ? value : this.#refuse(field, "a text");
  }

  optionalText(field: string): string | undefined {
    return this.value(field) === undefined || this.value(field) === null ? undefined : this.text(field);
  }

  number(field: string): number {
    const value = this.value(field);
    return Number.isSafeInteger(value) ? (value as number) : this.#refuse(field, "a whole number");
  }

  /** A whole number from 0. */
  count(field: string): number {
    const value = this.number(field);
    return value >= 0 ? value : this.#refuse(field, "0 or more");
  }

  /** A whole number of any size, as text or as a number. */
  integer(field: string): bigint {
    const value = this.value(field);
    if (typeof value === "string" && /^-?\d{1,19}$/.test(value)) return BigInt(value);
    return BigInt(this.number(field));
  }

  list(field: string): readonly unknown[] {
    const value = this.value(field);
    return Array.isArray(value) ? (value as unknown[]) : this.#refuse(field, "a list");
  }

  object(field: string): Readonly<Record<string, unknown>> {
    const value = this.value(field);
    return isObject(value) ? value : this.#refuse(field, "an object");
  }

  #refuse(field: string, wanted: string): never {
    throw new ZnodeFormatError(
      this.path,
      `${field} is ${JSON.stringify(this.value(field)) ?? "missing"}, not ${wanted}`,
    );
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
