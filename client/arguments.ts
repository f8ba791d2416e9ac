import { nearestName } from "../common/nearest-name.js";
import { InvalidArgumentError } from "./errors.js";

/**
 * Checks of what an application gives. Whoever writes JavaScript, or reads options from a file, may give anything: each
 * check throws InvalidArgumentError, which names the argument, what was given, and what is expected. Nothing is converted
 * and nothing is guessed, because a wrong value that is taken for a right one shows only much later.
 */

/** The greatest number that every field of 32 bits on the wire holds. */
export const INT32_MAX = 2 ** 31 - 1;

/** As brokers have it: longer names cannot exist. */
const TOPIC_NAME_MAX = 249;
const SHOWN_TEXT_MAX = 80;

/** What was given, in a few words. */
export function shown(given: unknown): string {
  switch (typeof given) {
    case "string":
      return `the text ${JSON.stringify(given.length > SHOWN_TEXT_MAX ? `${given.slice(0, SHOWN_TEXT_MAX)}...` : given)}`;
    case "bigint":
      return `${given}n`;
    case "number":
    case "boolean":
    case "undefined":
      return String(given);
    case "symbol":
    case "function":
      return `a ${typeof given}`;
    case "object":
      return given === null ? "null" : shownObject(given);
  }
}

function shownObject(given: object): string {
  if (Array.isArray(given)) return "a list";
  const kind = Object.prototype.toString.call(given).slice("[object ".length, -1);
  if (kind === "Object") return "an object";
  return `${/^[AEIO]/.test(kind) ? "an" : "a"} ${kind}`;
}

/** As the end of a hint: what may have been meant, or all there is. */
function meant(name: string, known: readonly string[], all: string): string {
  const nearest = nearestName(name, known);
  return nearest === undefined ? `${all} ${known.join(", ")}` : `did you mean "${nearest}"?`;
}

/** Whether fields can be expected of it: a Map, a list, a promise or bytes have none. */
const hasFields = (given: unknown): given is object =>
  typeof given === "object" && given !== null && Object.prototype.toString.call(given) === "[object Object]";

/** An object that holds nothing but its fields; also one of another realm. */
export function isPlain(given: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(given);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * Refuses more arguments than a function takes: whoever gives another one believes that it means something. Those that are
 * `undefined` count too. What ends something (`close`) takes whatever it is given, as a callback does.
 */
export function checkCount(name: string, given: number, most: number): void {
  if (given <= most) return;
  const takes = most === 0 ? "no arguments" : most === 1 ? "one argument" : `${most} arguments`;
  throw new InvalidArgumentError(`${name} takes ${takes}, and was given ${given}`, "leave out what is too much");
}

/** `what` is what the options belong to; throws for an option that does not exist, naming the nearest one that does. */
export function checkOptions(what: string, given: unknown, known: readonly string[]): void {
  if (!hasFields(given)) {
    throw new InvalidArgumentError(
      `the options of ${what} are ${shown(given)}`,
      `give an object with some of ${known.join(", ")}`,
    );
  }
  for (const name in given) {
    if (known.includes(name)) continue;
    throw new InvalidArgumentError(`${what} has no option "${name}"`, meant(name, known, "the options are"));
  }
}

/** The same for an object that is no options; `form` is how it is written. */
export function checkFields(what: string, given: unknown, form: string, known: readonly string[]): void {
  checkObject(what, given, form);
  for (const name in given) if (!known.includes(name)) throw unknownField(what, name, known);
}

export const unknownField = (what: string, name: string, known: readonly string[]): InvalidArgumentError =>
  new InvalidArgumentError(`${what} has no field "${name}"`, meant(name, known, "the fields are"));

function checkObject(what: string, given: unknown, form: string): asserts given is object {
  if (!hasFields(given)) throw new InvalidArgumentError(`${what} is ${shown(given)}`, `write it as ${form}`);
}

/** `what` is the beginning of the sentence: "the topics are". */
export function checkList(what: string, given: unknown, form: string): asserts given is readonly unknown[] {
  if (!Array.isArray(given)) throw new InvalidArgumentError(`${what} ${shown(given)}`, `give a list of ${form}`);
}

interface NumberRule {
  readonly min: number;
  readonly max?: number;
}

/** A whole number within its range. */
export function checkNumber(name: string, given: unknown, { min, max }: NumberRule): asserts given is number {
  if (Number.isSafeInteger(given) && (given as number) >= min && (max === undefined || (given as number) <= max))
    return;
  throw new InvalidArgumentError(
    `${name} is ${shown(given)}`,
    `give a whole number ${max === undefined ? `from ${min} on` : `from ${min} to ${max}`}`,
  );
}

/** A whole number within its range, or the default where none is given. */
export function numberOption(
  name: string,
  given: number | undefined,
  rule: NumberRule & { readonly defaultValue: number },
): number {
  if (given === undefined) return rule.defaultValue;
  checkNumber(name, given, rule);
  return given;
}

/** One of a few words, or the default where none is given. */
export function wordOption<Word extends string>(
  name: string,
  given: Word | undefined,
  words: readonly Word[],
  defaultValue: Word,
): Word {
  if (given === undefined) return defaultValue;
  if (words.includes(given)) return given;
  throw new InvalidArgumentError(`${name} is ${shown(given)}`, `give ${words.map((word) => `"${word}"`).join(" or ")}`);
}

export function booleanOption(name: string, given: boolean | undefined, defaultValue: boolean): boolean {
  if (given === undefined) return defaultValue;
  if (typeof given === "boolean") return given;
  throw new InvalidArgumentError(`${name} is ${shown(given)}`, "give true or false");
}

/** undefined stands for none. */
export function checkSignal(given: unknown): void {
  if (given === undefined) return;
  const signal = given as Partial<AbortSignal> | null;
  const isSignal =
    typeof signal === "object" &&
    signal !== null &&
    typeof signal.aborted === "boolean" &&
    typeof signal.addEventListener === "function" &&
    typeof signal.throwIfAborted === "function";
  if (isSignal) return;
  throw new InvalidArgumentError(`signal is ${shown(given)}`, "give the signal of an AbortController");
}

/** Half of a pair that stands alone has no UTF-8, and brokers refuse a whole request for it. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Text that can be told to a broker. */
export function checkText(name: string, given: unknown): asserts given is string {
  if (typeof given !== "string") throw new InvalidArgumentError(`${name} is ${shown(given)}`, "give text");
  if (LONE_SURROGATE.test(given)) {
    throw new InvalidArgumentError(`${name} is ${shown(given)}, which has no UTF-8`, "give text with whole characters");
  }
}

/** The name of a topic. Which characters it may have is for the brokers to say. */
export function checkTopicName(given: unknown): asserts given is string {
  if (given === undefined || given === "") throw new InvalidArgumentError("a topic has no name", "pass its name");
  checkText("the name of a topic", given);
  if (given.length <= TOPIC_NAME_MAX) return;
  throw new InvalidArgumentError(
    `the name of a topic has ${given.length} characters`,
    `a name has ${TOPIC_NAME_MAX} characters at most`,
  );
}

/** A list of names of topics. */
export function checkTopicNames(given: unknown): asserts given is readonly string[] {
  checkList("the topics are", given, "names");
  for (const name of given) checkTopicName(name);
}

/** One partition of one topic. It may have other fields: records and offsets are places in a partition too. */
export function checkPartition(given: unknown, what = "a partition", form = "{ topic, partition }"): void {
  checkObject(what, given, form);
  const { topic, partition } = given as { readonly topic: unknown; readonly partition: unknown };
  checkTopicName(topic);
  checkNumber("partition", partition, { min: 0, max: INT32_MAX });
}

/** A list of them. */
export function checkPartitions(given: unknown, form = "{ topic, partition }"): void {
  checkList("the partitions are", given, form);
  for (const one of given) checkPartition(one);
}
