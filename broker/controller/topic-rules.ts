import { counted } from "../../common/counted.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { ConfigEntry, NewTopic } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { AssignableBroker } from "./replica-assignment.js";
import { assignReplicas } from "./replica-assignment.js";

/** What a new topic or a growing one is checked against. */
export interface TopicLimits {
  readonly brokers: readonly AssignableBroker[];
  /** In the cluster now. */
  readonly partitionCount: number;
  readonly partitionsMax: number;
  readonly numPartitions: number;
  /** 0: three, or as many as there are brokers. */
  readonly defaultReplicationFactor: number;
  /** Uniform whole number in [0, bound). */
  readonly randomBelow: (bound: number) => number;
}

/** If there are as many brokers, and nobody says otherwise. */
const REPLICAS_BY_DEFAULT = 3;

const NAME = /^[A-Za-z0-9._-]{1,249}$/;

/** Names that topics have, to be found by what metrics make of them. */
export class TopicNames {
  readonly #byMetricName = new Map<string, string>();

  constructor(names: Iterable<string>) {
    for (const name of names) this.add(name);
  }

  add(name: string): void {
    this.#byMetricName.set(metricName(name), name);
  }

  /** Another name that metrics do not tell apart from this one. */
  clashOf(name: string): string | undefined {
    const other = this.#byMetricName.get(metricName(name));
    return other === name ? undefined : other;
  }
}

function metricName(name: string): string {
  return name.replaceAll(".", "_");
}

/** Throws INVALID_TOPIC when no topic may have this name, or one that looks the same in metrics exists. */
export function checkTopicName(name: string, existing: TopicNames): void {
  if (!NAME.test(name) || name === "." || name === "..") {
    throw new ApiError(
      "INVALID_TOPIC",
      `topic ${JSON.stringify(name)}: a name has 1 to 249 characters of A-Z a-z 0-9 . _ - and is not . or ..`,
    );
  }
  const other = existing.clashOf(name);
  if (other !== undefined) {
    throw new ApiError(
      "INVALID_TOPIC",
      `topic ${name}: ${other} exists, and the names differ only in . and _, which metrics do not tell apart; choose another name`,
    );
  }
}

/**
 * Throws INVALID_CONFIG when the settings ask for more in-sync replicas than there are replicas: every write with acks=all
 * would be refused for ever.
 */
export function checkMinimum(topic: string, config: readonly ConfigEntry[], replicationFactor: number): void {
  const minimum = config.find(({ name }) => name === "min.insync.replicas")?.value;
  if (minimum === undefined || minimum === null || Number(minimum) <= replicationFactor) return;
  throw new ApiError(
    "INVALID_CONFIG",
    `topic ${topic}: min.insync.replicas=${minimum} can never be met, each partition has ${replicationFactor} ` +
      `${replicationFactor === 1 ? "replica" : "replicas"}; give it at most ${replicationFactor}`,
  );
}

/** Where the replicas of a new topic go. Throws ApiError when it may not be made so. */
export function assignNewTopic(topic: NewTopic, limits: TopicLimits): readonly (readonly BrokerId[])[] {
  if (topic.assignment.length > 0) {
    checkListCount(
      topic.name,
      topic.partitions > 0 ? topic.partitions : topic.assignment.length,
      topic.assignment,
      "asked for",
    );
    checkPartitionCount(topic.name, topic.assignment.length, limits);
    return checkManualAssignment(
      topic.name,
      topic.assignment.map(({ brokerIds }) => brokerIds),
      limits,
    );
  }
  const brokerCount = limits.brokers.length;
  const partitions = topic.partitions > 0 ? topic.partitions : limits.numPartitions;
  const byDefault =
    limits.defaultReplicationFactor > 0 ? limits.defaultReplicationFactor : Math.min(REPLICAS_BY_DEFAULT, brokerCount);
  const replicationFactor = topic.replicationFactor > 0 ? topic.replicationFactor : byDefault;
  checkPartitionCount(topic.name, partitions, limits);
  if (replicationFactor < 1 || replicationFactor > brokerCount) {
    throw new ApiError(
      "INVALID_REPLICATION_FACTOR",
      `topic ${topic.name}: ${replicationFactor} replicas need as many brokers, and ${counted(brokerCount, "broker", "are")} registered; ` +
        "ask for fewer replicas or start more brokers",
    );
  }
  return assigned(limits, partitions, replicationFactor, 0);
}

/** What whoever makes a topic should know of it; empty: nothing. */
export function newTopicWarning(topic: NewTopic, replicationFactor: number, limits: TopicLimits): string {
  const isByDefault = topic.replicationFactor === 0 && topic.assignment.length === 0;
  if (!isByDefault || limits.defaultReplicationFactor > 0 || replicationFactor >= REPLICAS_BY_DEFAULT) return "";
  const one = replicationFactor === 1;
  return (
    `topic ${topic.name} has ${replicationFactor} ${one ? "replica" : "replicas"} instead of ${REPLICAS_BY_DEFAULT}, ` +
    `because ${replicationFactor} ${one ? "broker is" : "brokers are"} registered; that stays so`
  );
}

/** Where the replicas of a topic's further partitions go. Throws ApiError when it may not grow so. */
export function assignMorePartitions(
  topic: string,
  current: { readonly partitions: number; readonly replicationFactor: number },
  total: number,
  assignment: readonly (readonly BrokerId[])[],
  limits: TopicLimits,
): readonly (readonly BrokerId[])[] {
  const added = total - current.partitions;
  if (added <= 0) {
    throw new ApiError(
      "INVALID_PARTITIONS",
      `topic ${topic} has ${counted(current.partitions, "partition")}; their number can only grow, not become ${total}`,
    );
  }
  checkPartitionCount(topic, added, limits);
  if (assignment.length > 0) {
    checkListCount(topic, added, assignment, "added");
    return checkManualAssignment(topic, assignment, limits);
  }
  if (current.replicationFactor > limits.brokers.length) {
    throw new ApiError(
      "INVALID_REPLICATION_FACTOR",
      `topic ${topic} has ${counted(current.replicationFactor, "replica")}, and ${counted(limits.brokers.length, "broker", "are")} registered; start more brokers`,
    );
  }
  return assigned(limits, added, current.replicationFactor, current.partitions);
}

function assigned(
  limits: TopicLimits,
  partitions: number,
  replicationFactor: number,
  firstPartition: number,
): readonly (readonly BrokerId[])[] {
  const count = limits.brokers.length;
  return assignReplicas({
    brokers: limits.brokers,
    partitions,
    replicationFactor,
    firstPartition,
    start: limits.randomBelow(count),
    shift: limits.randomBelow(count),
  });
}

function checkPartitionCount(topic: string, partitions: number, limits: TopicLimits): void {
  const room = limits.partitionsMax - limits.partitionCount;
  if (partitions > room) {
    throw new ApiError(
      "INVALID_PARTITIONS",
      `topic ${topic}: ${partitions} partitions are too many; the cluster has ${limits.partitionCount} of ${limits.partitionsMax} (partitions.max)`,
    );
  }
}

/** Who gives replicas by hand gives them for each partition. */
function checkListCount(
  topic: string,
  partitions: number,
  lists: readonly unknown[],
  what: "added" | "asked for",
): void {
  if (lists.length === partitions) return;
  throw new ApiError(
    "INVALID_REPLICA_ASSIGNMENT",
    `topic ${topic}: ${counted(partitions, "partition", "are")} ${what}, and ${lists.length === 1 ? "1 list of replicas was" : `${lists.length} lists of replicas were`} given`,
  );
}

function checkManualAssignment(
  topic: string,
  assignment: readonly (readonly BrokerId[])[],
  limits: TopicLimits,
): readonly (readonly BrokerId[])[] {
  const known = new Set(limits.brokers.map(({ id }) => id));
  const replicationFactor = assignment[0]?.length ?? 0;
  for (const [partition, replicas] of assignment.entries()) {
    const refuse = (why: string): never => {
      throw new ApiError("INVALID_REPLICA_ASSIGNMENT", `topic ${topic}, list ${partition} of replicas: ${why}`);
    };
    if (replicas.length === 0) refuse("it is empty");
    if (replicas.length !== replicationFactor) refuse("all partitions need the same number of replicas");
    if (new Set(replicas).size !== replicas.length) refuse("a broker is named twice");
    const unknown = replicas.find((id) => !known.has(id));
    if (unknown !== undefined) refuse(`broker ${unknown} is not registered`);
  }
  return assignment;
}
