import { nearestName } from "../common/nearest-name.js";
import {
  checkFields,
  checkList,
  checkNumber,
  checkPartitions,
  checkText,
  checkTopicName,
  INT32_MAX,
  isPlain,
  shown,
} from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";
import { timestampOf } from "./offset-lookup.js";

/** Checks of what the admin's methods are given; each throws InvalidArgumentError. See `arguments.ts`. */

const topicFields = ["name", "partitions", "replicationFactor", "config", "assignment"];
const targetFields = ["topic", "broker", "client"];
const queryWords = ["earliest", "latest", "logEnd"];

/** What an object has, before it is known to have it. */
type Fields = Readonly<Record<string, unknown>>;

export function checkNewTopics(topics: unknown): void {
  checkList("the topics are", topics, "{ name }");
  for (const topic of topics) {
    checkFields("a topic", topic, "{ name }", topicFields);
    checkNewTopic(topic as Fields);
  }
}

function checkNewTopic({ name, partitions, replicationFactor, config, assignment }: Fields): void {
  checkTopicName(name);
  for (const [field, given] of Object.entries({ partitions, replicationFactor })) {
    if (given === undefined) continue;
    checkNumber(field, given, { min: 1, max: INT32_MAX });
    if (assignment === undefined) continue;
    throw new InvalidArgumentError(`assignment is given with ${field}`, "leave out one of them");
  }
  if (config !== undefined) checkConfig("config", config, false);
  if (assignment !== undefined) checkAssignment(assignment);
}

function checkAssignment(assignment: unknown): void {
  const form = "lists of broker ids, one for each partition";
  checkList("assignment is", assignment, form);
  if (assignment.length === 0) throw new InvalidArgumentError("assignment is empty", `give ${form}`);
  for (const [partition, replicas] of assignment.entries()) {
    checkList(`the replicas of partition ${partition} are`, replicas, "broker ids");
    if (replicas.length === 0)
      throw new InvalidArgumentError(`partition ${partition} has no replica`, "give at least one broker id");
    for (const id of replicas) checkNumber(`a replica of partition ${partition}`, id, { min: 0, max: INT32_MAX });
  }
}

/** Changes of settings. */
export const checkChanges = (changes: unknown): void => checkConfig("changes", changes, true);

/** Whether a setting has a value at all is checked here; which one it may have, brokers know. */
function checkConfig(what: string, config: unknown, mayBeNull: boolean): void {
  if (typeof config !== "object" || config === null || Array.isArray(config) || !isPlain(config)) {
    throw new InvalidArgumentError(`${what} is ${shown(config)}`, 'write it as { "retention.ms": 86400000 }');
  }
  for (const [name, value] of Object.entries(config)) {
    checkText("the name of a setting", name);
    if (typeof value === "string") checkText(name, value);
    if (typeof value === "string" || typeof value === "boolean" || Number.isFinite(value)) continue;
    if (value === null && mayBeNull) continue;
    throw new InvalidArgumentError(
      `${name} is ${shown(value)}`,
      mayBeNull ? "give text, a number, a boolean, or null for the default" : "give text, a number or a boolean",
    );
  }
}

export function checkConfigTarget(target: unknown): void {
  checkFields("the target", target, "{ topic }, { broker } or { client }", targetFields);
  const named = targetFields.filter((field) => field in (target as Fields));
  if (named.length === 0)
    throw new InvalidArgumentError("the target names neither topic nor broker nor client", "name one of them");
  if (named.length > 1)
    throw new InvalidArgumentError(`the target names both ${named.join(" and ")}`, "name one of them");
  const { topic, broker, client } = target as Fields;
  if ("topic" in (target as Fields)) checkTopicName(topic);
  else if ("broker" in (target as Fields)) {
    if (broker !== "") checkBroker(broker);
  } else checkText("client", client);
}

function checkBroker(broker: unknown): void {
  if (Number.isSafeInteger(broker) && (broker as number) >= 0 && (broker as number) <= INT32_MAX) return;
  throw new InvalidArgumentError(`broker is ${shown(broker)}`, 'give the id of a broker, or "" for all');
}

export function checkLookups(lookups: unknown): void {
  checkPartitions(lookups);
  for (const { query } of lookups as readonly Fields[]) checkQuery(query);
}

function checkQuery(query: unknown): void {
  if (typeof query === "string" && queryWords.includes(query)) return;
  if (typeof query === "object" && query !== null) {
    checkFields("the query", query, "{ timestamp }", ["timestamp"]);
    timestampOf(query as { readonly timestamp: number });
    return;
  }
  const nearest = typeof query === "string" ? nearestName(query, queryWords) : undefined;
  throw new InvalidArgumentError(
    `query is ${shown(query)}`,
    nearest === undefined ? 'give "earliest", "latest", "logEnd" or { timestamp }' : `did you mean "${nearest}"?`,
  );
}
