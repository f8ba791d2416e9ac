import { nearestName } from "../common/nearest-name.js";
import { ApiError } from "../protocol/error-codes.js";

/** One row of a table of settings: its type, default, checks and manual come from here. */
export interface SettingEntry {
  readonly type: "number" | "boolean" | "text" | "choice";
  readonly unit?: "ms" | "bytes" | "bytes/s" | "count" | "percent";
  readonly default: number | boolean | string;
  readonly least?: number;
  readonly most?: number;
  readonly choices?: readonly string[];
  /** May be changed while the broker runs. */
  readonly dynamic?: boolean;
  /** Of a setting of topics: the broker's setting that holds where a topic has none. */
  readonly brokerDefault?: string;
  readonly doc: string;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const DAY = 24 * 60 * MINUTE;
const KIB = 1024;
const MIB = 1024 * KIB;
const NO_LIMIT = -1;
/** What is told to another broker travels in 32 bits. */
const INT32_MAX = 2 ** 31 - 1;

/** Settings of a broker, by Kafka's names where Kafka has them. */
export const brokerSettings = {
  "num.partitions": {
    type: "number",
    unit: "count",
    default: 1,
    least: 1,
    most: 10_000,
    dynamic: true,
    doc: "Partitions of a topic that is created without a number.",
  },
  "default.replication.factor": {
    type: "number",
    unit: "count",
    default: 0,
    least: 0,
    most: 1_000,
    dynamic: true,
    doc: "Replicas of a topic that is created without a number; 0: three, or as many as there are brokers.",
  },
  "min.insync.replicas": {
    type: "number",
    unit: "count",
    default: 0,
    least: 0,
    most: 1_000,
    dynamic: true,
    doc: "acks=all is refused with NOT_ENOUGH_REPLICAS while fewer replicas are in sync; 0: two for topics with three or more replicas, else one.",
  },
  "unclean.leader.election.enable": {
    type: "boolean",
    default: false,
    dynamic: true,
    doc: "Elect a replica from outside the in-sync replicas when none of them is alive: available again, at the price of records.",
  },
  "auto.create.topics.enable": {
    type: "boolean",
    default: false,
    doc: "Not supported: topics are created by `ottla topic create` or a client's admin, never by a typo.",
  },
  "message.max.bytes": {
    type: "number",
    unit: "bytes",
    default: MIB,
    least: KIB,
    most: 7 * MIB,
    dynamic: true,
    doc: "The largest record batch a topic accepts.",
  },
  "log.segment.bytes": {
    type: "number",
    unit: "bytes",
    default: 128 * MIB,
    least: KIB,
    most: 1024 * MIB,
    dynamic: true,
    doc: "Roll to a new segment once the active one holds this many bytes. Small ones cost a file each.",
  },
  "log.roll.ms": {
    type: "number",
    unit: "ms",
    default: 7 * DAY,
    least: 1,
    dynamic: true,
    doc: "Roll to a new segment once the active one is this old.",
  },
  "log.retention.ms": {
    type: "number",
    unit: "ms",
    default: 7 * DAY,
    least: NO_LIMIT,
    dynamic: true,
    doc: "Delete segments whose newest record is older; -1: keep.",
  },
  "log.retention.bytes": {
    type: "number",
    unit: "bytes",
    default: NO_LIMIT,
    least: NO_LIMIT,
    dynamic: true,
    doc: "Delete the oldest segments of a partition that holds more; -1: no limit.",
  },
  "log.retention.check.interval.ms": {
    type: "number",
    unit: "ms",
    default: 5 * MINUTE,
    least: 100,
    doc: "How often retention looks for segments to delete.",
  },
  "log.durability": {
    type: "choice",
    choices: ["page-cache", "fsync"],
    default: "page-cache",
    dynamic: true,
    doc: "page-cache: replication keeps acknowledged records, the disk is synced in the background. fsync: synced before they are acknowledged.",
  },
  "log.flush.interval.ms": {
    type: "number",
    unit: "ms",
    default: SECOND,
    least: 10,
    dynamic: true,
    doc: "How often the disk is synced in the background.",
  },
  "log.index.interval.bytes": {
    type: "number",
    unit: "bytes",
    default: 4 * KIB,
    least: 64,
    dynamic: true,
    doc: "An index entry each so many bytes.",
  },
  "log.segment.delete.delay.ms": {
    type: "number",
    unit: "ms",
    default: MINUTE,
    least: 0,
    dynamic: true,
    doc: "How long the files of a deleted segment stay, for reads that began before.",
  },
  "log.tail.bytes": {
    type: "number",
    unit: "bytes",
    default: 64 * MIB,
    least: 0,
    doc: "Memory for the newest records of all partitions together, so that readers who keep up never touch the disk.",
  },
  "log.open.files.max": {
    type: "number",
    unit: "count",
    default: 4_000,
    least: 100,
    doc: "Files of closed segments kept open; the files that are appended to are open besides.",
  },
  "producer.id.expiration.ms": {
    type: "number",
    unit: "ms",
    default: DAY,
    least: 1,
    dynamic: true,
    doc: "How long an idle idempotent producer is remembered; keep it above the producers' deliveryTimeoutMs.",
  },
  "producers.per.partition.max": {
    type: "number",
    unit: "count",
    default: 10_000,
    least: 1,
    dynamic: true,
    doc: "Idempotent producers remembered for each partition; the longest idle are forgotten first. If more write at the same time they need new ids all the time.",
  },
  "replica.lag.time.max.ms": {
    type: "number",
    unit: "ms",
    default: 30 * SECOND,
    least: 500,
    doc: "A follower that has not caught up for this long leaves the in-sync replicas.",
  },
  "replica.fetch.wait.max.ms": {
    type: "number",
    unit: "ms",
    default: 500,
    least: 1,
    most: INT32_MAX,
    doc: "How long a follower's fetch waits at the leader for records.",
  },
  "replica.fetch.max.bytes": {
    type: "number",
    unit: "bytes",
    default: MIB,
    least: KIB,
    most: INT32_MAX,
    doc: "The most bytes of one partition in a follower's fetch.",
  },
  "replica.fetch.response.max.bytes": {
    type: "number",
    unit: "bytes",
    default: 8 * MIB,
    least: KIB,
    most: INT32_MAX,
    doc: "The most bytes of a follower's fetch.",
  },
  "replica.high.watermark.checkpoint.interval.ms": {
    type: "number",
    unit: "ms",
    default: 5 * SECOND,
    least: 100,
    doc: "How soon high watermarks that have moved, and what else is in the checkpoints, are written to the disk.",
  },
  listeners: {
    type: "text",
    default: "",
    doc: "Where to listen: [NAME://]HOST:PORT, comma-separated. One named as inter.broker.listener.name is opened on a free port of the same host when none is given.",
  },
  "advertised.listeners": {
    type: "text",
    default: "",
    doc: "What others are told to connect to, by listener name; empty: as `listeners`.",
  },
  "inter.broker.listener.name": {
    type: "text",
    default: "INTERNAL",
    doc: "The listener on which brokers talk to brokers; replication and orders are accepted there only.",
  },
  "broker.rack": { type: "text", default: "", doc: "Where the broker stands; replicas are spread over racks." },
  "zookeeper.connect": {
    type: "text",
    default: "",
    doc: "HOST:PORT,...[/CHROOT] of the ZooKeeper ensemble; the chroot stands behind the last server only.",
  },
  "zookeeper.session.timeout.ms": {
    type: "number",
    unit: "ms",
    default: 6 * SECOND,
    least: SECOND,
    most: 5 * MINUTE,
    doc: "After so long without contact ZooKeeper declares the broker dead. The ensemble's tick should be a sixth of it at most.",
  },
  "controlled.shutdown.max.ms": {
    type: "number",
    unit: "ms",
    default: 15 * SECOND,
    least: 0,
    doc: "How long a stopping broker tries to hand its leaderships over.",
  },
  "auto.leader.rebalance.enable": {
    type: "boolean",
    default: true,
    doc: "Give leadership back to preferred replicas.",
  },
  "leader.imbalance.check.interval.ms": {
    type: "number",
    unit: "ms",
    default: 5 * MINUTE,
    least: SECOND,
    doc: "How often the controller looks for leaders that are not the preferred replica.",
  },
  "leader.imbalance.per.broker.percentage": {
    type: "number",
    unit: "percent",
    default: 10,
    least: 0,
    most: 100,
    doc: "Leaders of a broker that may be elsewhere before they are moved back.",
  },
  "fast.fencing.enable": {
    type: "boolean",
    default: true,
    doc: "Replace a broker at once when its connections end and no fresh one can be made, instead of waiting for its ZooKeeper session to expire.",
  },
  "fast.fencing.probe.timeout.ms": {
    type: "number",
    unit: "ms",
    default: 150,
    least: 10,
    doc: "How long a broker whose connection ended has to shake hands on a fresh one.",
  },
  "fast.fencing.gather.ms": {
    type: "number",
    unit: "ms",
    default: 20,
    least: 0,
    doc: "How long evidence is gathered, so that brokers which died together are fenced together.",
  },
  "fast.fencing.per.broker.per.minute": {
    type: "number",
    unit: "count",
    default: 3,
    least: 0,
    doc: "Fencings of one broker in a minute; beyond that its session must expire.",
  },
  "unclean.recovery.wait.ms": {
    type: "number",
    unit: "ms",
    default: 30 * SECOND,
    least: 0,
    doc: "After a power cut of all in-sync replicas: how long the controller waits for all of them before it elects the one that holds most.",
  },
  "partitions.max": {
    type: "number",
    unit: "count",
    default: 10_000,
    least: 1,
    most: 100_000,
    doc: "Partitions in the cluster.",
  },
  "connections.max": {
    type: "number",
    unit: "count",
    default: 10_000,
    least: 10,
    doc: "Connections on all listeners together.",
  },
  "connections.per.ip.max": {
    type: "number",
    unit: "count",
    default: 1_000,
    least: 1,
    doc: "Connections from one address; loopback is exempt.",
  },
  "connection.creation.rate.max": {
    type: "number",
    unit: "count",
    default: 500,
    least: 1,
    doc: "New connections in a second; loopback is exempt.",
  },
  "connections.max.idle.ms": {
    type: "number",
    unit: "ms",
    default: 10 * MINUTE,
    least: SECOND,
    doc: "A connection without a request for so long is closed; those between brokers never are.",
  },
  "handshake.timeout.ms": {
    type: "number",
    unit: "ms",
    default: 5 * SECOND,
    least: 100,
    doc: "How long a new connection has to shake hands.",
  },
  "frame.progress.timeout.ms": {
    type: "number",
    unit: "ms",
    default: 10 * SECOND,
    least: 100,
    doc: "A frame that has begun must go on within this time, and beyond it come at 64 KiB/s at least.",
  },
  "unread.responses.max.bytes": {
    type: "number",
    unit: "bytes",
    default: 32 * MIB,
    least: MIB,
    doc: "A peer that leaves so many bytes of responses unread is disconnected.",
  },
  "unread.responses.max.ms": {
    type: "number",
    unit: "ms",
    default: 30 * SECOND,
    least: SECOND,
    doc: "A peer that reads no response for so long is disconnected.",
  },
  "in.flight.bytes.max": {
    type: "number",
    unit: "bytes",
    default: 128 * MIB,
    least: 16 * MIB,
    doc: "Memory for clients' request frames being received or worked on, all connections together; beyond it they are not read from.",
  },
  "response.bytes.max": {
    type: "number",
    unit: "bytes",
    default: 256 * MIB,
    least: 16 * MIB,
    doc: "Memory for responses to clients being read or waiting to be sent, all connections together; beyond it fetches wait and then get BROKER_OVERLOADED, and who leaves responses unread for longest is disconnected.",
  },
  "fetch.sessions.max": {
    type: "number",
    unit: "count",
    default: 10_000,
    least: 10,
    doc: "Fetch sessions remembered.",
  },
  "fetch.partitions.max": {
    type: "number",
    unit: "count",
    default: 200_000,
    least: 1_000,
    doc: "Partitions that the fetches of all consumers together name, in sessions or while they wait; beyond it fetches are refused with BROKER_OVERLOADED. One takes about half a kilobyte.",
  },
} as const satisfies Record<string, SettingEntry>;

/** Settings of a topic; what it does not set comes from the broker. */
export const topicSettings = {
  "cleanup.policy": {
    type: "choice",
    choices: ["delete"],
    default: "delete",
    doc: "What happens to old records. delete: whole segments go by retention.ms and retention.bytes.",
  },
  "retention.ms": { ...brokerSettings["log.retention.ms"], brokerDefault: "log.retention.ms" },
  "retention.bytes": { ...brokerSettings["log.retention.bytes"], brokerDefault: "log.retention.bytes" },
  "segment.bytes": { ...brokerSettings["log.segment.bytes"], brokerDefault: "log.segment.bytes" },
  "segment.ms": { ...brokerSettings["log.roll.ms"], brokerDefault: "log.roll.ms" },
  durability: { ...brokerSettings["log.durability"], brokerDefault: "log.durability" },
  "flush.ms": { ...brokerSettings["log.flush.interval.ms"], brokerDefault: "log.flush.interval.ms" },
  "index.interval.bytes": { ...brokerSettings["log.index.interval.bytes"], brokerDefault: "log.index.interval.bytes" },
  "file.delete.delay.ms": {
    ...brokerSettings["log.segment.delete.delay.ms"],
    brokerDefault: "log.segment.delete.delay.ms",
  },
  "max.message.bytes": { ...brokerSettings["message.max.bytes"], brokerDefault: "message.max.bytes" },
  "min.insync.replicas": { ...brokerSettings["min.insync.replicas"], brokerDefault: "min.insync.replicas" },
  "unclean.leader.election.enable": {
    ...brokerSettings["unclean.leader.election.enable"],
    brokerDefault: "unclean.leader.election.enable",
  },
} as const satisfies Record<string, SettingEntry>;

export type BrokerSettingName = keyof typeof brokerSettings;
export type TopicSettingName = keyof typeof topicSettings;

type ValueOf<Entry extends SettingEntry> = Entry["type"] extends "number"
  ? number
  : Entry["type"] extends "boolean"
    ? boolean
    : string;
type SettingValue = number | boolean | string;

/** One setting as it is given to a broker or topic; `value` null: back to the default. */
export interface SettingChange {
  readonly name: string;
  readonly value: string | null;
}

/** In its one way: no spaces, no plus, no exponent, no other base, no zeros in front. */
const WHOLE_NUMBER = /^(?:0|-?[1-9]\d*)$/;

/** A value read from text, or why it cannot be one. */
function parseSetting(
  name: string,
  entry: SettingEntry,
  text: string,
): { readonly value: SettingValue } | { readonly refusal: string } {
  switch (entry.type) {
    case "number": {
      const value = Number(text);
      const most = entry.most ?? Number.MAX_SAFE_INTEGER;
      if (!WHOLE_NUMBER.test(text))
        return { refusal: `${name}=${text}: give a whole number${entry.unit ? ` (${entry.unit})` : ""}` };
      if (value < (entry.least ?? Number.MIN_SAFE_INTEGER))
        return { refusal: `${name}=${text}: give ${entry.least ?? Number.MIN_SAFE_INTEGER} or more` };
      if (value > most) return { refusal: `${name}=${text}: give ${most} or less` };
      return { value };
    }
    case "boolean":
      return text === "true" || text === "false"
        ? { value: text === "true" }
        : { refusal: `${name}=${text}: give true or false` };
    case "choice":
      return entry.choices?.includes(text)
        ? { value: text }
        : { refusal: `${name}=${text}: give one of ${entry.choices?.join(", ")}` };
    case "text":
      return { value: text };
  }
}

function changeRefusal(
  table: Readonly<Record<string, SettingEntry>>,
  what: string,
  change: SettingChange,
): string | undefined {
  const entry = Object.hasOwn(table, change.name) ? table[change.name] : undefined;
  if (entry === undefined) {
    const nearest = nearestName(change.name, Object.keys(table));
    return `${change.name} is not a setting of ${what}${nearest ? `; did you mean ${nearest}?` : ""}`;
  }
  if (change.value === null) return undefined;
  const parsed = parseSetting(change.name, entry, change.value);
  return "refusal" in parsed ? parsed.refusal : undefined;
}

/** Why a topic may not be given these settings; undefined: it may. */
export function topicConfigRefusal(changes: readonly SettingChange[]): string | undefined {
  for (const change of changes) {
    const refusal = changeRefusal(topicSettings, "topics", change);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** Why brokers may not be given these settings while they run; undefined: they may. */
export function brokerConfigRefusal(changes: readonly SettingChange[]): string | undefined {
  for (const change of changes) {
    const refusal = changeRefusal(brokerSettings, "brokers", change);
    if (refusal !== undefined) return refusal;
    const entry: SettingEntry = brokerSettings[change.name as BrokerSettingName];
    if (!entry.dynamic)
      return `${change.name} cannot be changed while the broker runs; set it in the broker's configuration and restart it`;
  }
  return undefined;
}

/** Settings that the controller resolves for all replicas of a topic: of one broker alone they would mean nothing. */
const forAllBrokers: ReadonlySet<string> = new Set<BrokerSettingName>(["min.insync.replicas", "log.durability"]);

export const isForAllBrokers = (name: string): boolean => forAllBrokers.has(name);

/** Why a single broker may not be given these settings while it runs; undefined: it may. Taking them back is allowed. */
export function singleBrokerConfigRefusal(changes: readonly SettingChange[]): string | undefined {
  const change = changes.find(({ name, value }) => value !== null && isForAllBrokers(name));
  return (
    change &&
    `${change.name} is a setting of a topic or of all brokers; set it for one of those, not for a single broker`
  );
}

/**
 * The settings of one broker: what it was started with, and above that what was changed at run time. Parts receive the
 * values they use.
 */
export class BrokerConfig {
  readonly #given: ReadonlyMap<string, SettingValue>;
  #changed: ReadonlyMap<string, SettingValue> | undefined;

  /** Throws ApiError INVALID_CONFIG, naming every setting that is wrong. */
  constructor(given: Readonly<Record<string, string>>) {
    const refusals: string[] = [];
    const values = new Map<string, SettingValue>();
    for (const [name, value] of Object.entries(given)) {
      const refusal = changeRefusal(brokerSettings, "brokers", { name, value });
      if (refusal !== undefined) refusals.push(refusal);
      else values.set(name, parsedValue(brokerSettings[name as BrokerSettingName], value));
    }
    this.#given = values;
    if (this.get("auto.create.topics.enable"))
      refusals.push("auto.create.topics.enable=true is not supported: create topics with `ottla topic create`");
    if (this.get("log.segment.bytes") < this.get("message.max.bytes"))
      refusals.push("log.segment.bytes must not be below message.max.bytes");
    if (refusals.length > 0) throw new ApiError("INVALID_CONFIG", refusals.join("; "));
  }

  get<Name extends BrokerSettingName>(name: Name): ValueOf<(typeof brokerSettings)[Name]> {
    const value = this.#changed?.get(name) ?? this.#given.get(name) ?? brokerSettings[name].default;
    return value as ValueOf<(typeof brokerSettings)[Name]>;
  }

  /** The value without what was changed at run time. */
  startedWith<Name extends BrokerSettingName>(name: Name): ValueOf<(typeof brokerSettings)[Name]> {
    return (this.#given.get(name) ?? brokerSettings[name].default) as ValueOf<(typeof brokerSettings)[Name]>;
  }

  /** Where the value of a setting comes from. */
  sourceOf(name: BrokerSettingName): "cluster" | "broker" | "default" {
    return this.#changed?.has(name) ? "cluster" : this.#given.has(name) ? "broker" : "default";
  }

  /** Whether the run-time changes were told: before that, what must not be done by a default has to wait. */
  get isTold(): boolean {
    return this.#changed !== undefined;
  }

  /** Replaces all run-time changes. Ones that this version does not know are ignored: a newer broker may have set them. Returns whether a value changed. */
  applyChanges(changes: readonly SettingChange[]): boolean {
    const values = new Map<string, SettingValue>();
    for (const change of changes) {
      if (change.value === null || brokerConfigRefusal([change]) !== undefined) continue;
      values.set(change.name, parsedValue(brokerSettings[change.name as BrokerSettingName], change.value));
    }
    const before = this.#changed ?? new Map<string, SettingValue>();
    this.#changed = values;
    return values.size !== before.size || [...values].some(([name, value]) => before.get(name) !== value);
  }
}

function parsedValue(entry: SettingEntry, text: string): SettingValue {
  const parsed = parseSetting("", entry, text);
  return "value" in parsed ? parsed.value : entry.default;
}

/** The settings of one topic, complete. */
export class TopicConfig {
  readonly #own: ReadonlyMap<string, SettingValue>;

  constructor(
    private readonly broker: BrokerConfig,
    own: readonly SettingChange[],
  ) {
    this.#own = new Map(
      own
        .filter((change) => change.value !== null && topicConfigRefusal([change]) === undefined)
        .map((change) => [
          change.name,
          parsedValue(topicSettings[change.name as TopicSettingName], change.value as string),
        ]),
    );
  }

  get<Name extends TopicSettingName>(name: Name): ValueOf<(typeof topicSettings)[Name]> {
    const entry: SettingEntry = topicSettings[name];
    const inherited = (): SettingValue =>
      entry.brokerDefault === undefined ? entry.default : this.broker.get(entry.brokerDefault as BrokerSettingName);
    return (this.#own.get(name) ?? inherited()) as ValueOf<(typeof topicSettings)[Name]>;
  }

  sourceOf(name: TopicSettingName): "topic" | "cluster" | "broker" | "default" {
    const entry: SettingEntry = topicSettings[name];
    if (this.#own.has(name)) return "topic";
    return entry.brokerDefault === undefined
      ? "default"
      : this.broker.sourceOf(entry.brokerDefault as BrokerSettingName);
  }

  /** min.insync.replicas for a partition with so many replicas: two of three or more, if nobody said otherwise. */
  minInsyncReplicas(replicationFactor: number): number {
    return minInsyncReplicas(this.get("min.insync.replicas"), replicationFactor);
  }
}

/** What a min.insync.replicas of 0 (nobody said) means for a partition. */
export function minInsyncReplicas(setting: number, replicationFactor: number): number {
  return setting > 0 ? setting : replicationFactor >= 3 ? 2 : 1;
}
