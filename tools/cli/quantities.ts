import { usageError } from "./cli-error.js";

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const sizeUnits: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

/** Milliseconds of `500ms`, `10s`, `5m`, `2h`, `7d`; undefined when the text is none of these. */
export function durationMsOf(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text);
  if (match === null) return undefined;
  return Math.round(Number(match[1]) * (durationUnits[match[2] as string] as number));
}

/** For commander: an option that is a duration. */
export function parseDuration(text: string): number {
  const ms = durationMsOf(text);
  if (ms === undefined) throw usageError(`${text} is not a duration`, "write one like 500ms, 10s, 5m or 2h");
  return ms;
}

/** For commander: a duration in a range, whose ends are written as people write them. */
export function parseDurationWithin(least: string, most: string): (text: string) => number {
  return (text) => {
    const ms = parseDuration(text);
    if (ms < parseDuration(least) || ms > parseDuration(most))
      throw usageError(`${text} is not a duration from ${least} to ${most}`);
    return ms;
  };
}

/** For commander: a number of bytes in a range, whose ends are written as people write them. */
export function parseSizeWithin(least: string, most: string): (text: string) => number {
  return (text) => {
    const bytes = parseSize(text);
    if (bytes < parseSize(least) || bytes > parseSize(most))
      throw usageError(`${text} is not a size from ${least} to ${most}`);
    return bytes;
  };
}

/** For commander: an option that is a number of bytes, like `64KiB` or `1MB`. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmg]?i?b|)$/i.exec(text);
  const unit = match === null ? undefined : sizeUnits[(match[2] as string).toLowerCase()];
  if (match === null || unit === undefined)
    throw usageError(`${text} is not a size`, "write one like 100, 64KiB or 1MB");
  return Math.round(Number(match[1]) * unit);
}

/** For commander: a whole number in [least, most]. */
export function parseCount(least = 0, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least || value > most) {
      const range = most === Number.MAX_SAFE_INTEGER ? `from ${least} on` : `from ${least} to ${most}`;
      throw usageError(`${text} is not a whole number ${range}`);
    }
    return value;
  };
}

/** For commander: a rate like `1000` or `1000/s`, in records per second. */
export function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(?:\/s)?$/.exec(text);
  const value = match === null ? 0 : Number(match[1]);
  if (value <= 0) throw usageError(`${text} is not a rate`, "write records per second, like 1000/s");
  return value;
}

/** For commander: gathers an option that may be given more than once. */
export function collect<T>(parse: (text: string) => T): (text: string, previous: readonly T[] | undefined) => T[] {
  return (text, previous) => [...(previous ?? []), parse(text)];
}

/** For commander: several of them, in one word with commas or in an option that is given more than once. */
export function collectList<T>(parse: (text: string) => T): (text: string, previous: readonly T[] | undefined) => T[] {
  return (text, previous) => {
    const all = [...(previous ?? [])];
    for (const one of text.split(",")) {
      const value = parse(one);
      if (all.includes(value)) throw usageError(`${text} names ${one} a second time`, "name each once");
      all.push(value);
    }
    return all;
  };
}

/** For commander: gathers `NAME=VALUE`, each name once. */
export function collectSettings(
  text: string,
  previous: readonly (readonly [string, string])[] | undefined,
): (readonly [string, string])[] {
  const assignment = parseAssignment(text, "retention.ms=60000");
  if (previous?.some(([name]) => name === assignment[0]))
    throw usageError(`${text} sets ${assignment[0]} a second time`, "keep one of them");
  return [...(previous ?? []), assignment];
}

/** Splits `NAME=VALUE`; the value may hold further equal signs. `example` is what it looks like. */
function parseAssignment(text: string, example: string): readonly [name: string, value: string] {
  const at = text.indexOf("=");
  if (at <= 0) throw usageError(`${text} is not NAME=VALUE`, `write one like ${example}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** For commander: a header of a record. */
export const parseHeader = (text: string): readonly [name: string, value: string] =>
  parseAssignment(text, "source=web");

/** Bytes for people: `1.5 MiB`. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** A duration for people, as they would type it: `5s`, `1500ms`. */
export function formatDuration(ms: number): string {
  const units = Object.entries(durationUnits).sort(([, left], [, right]) => right - left);
  const [unit, length] = units.find(([, one]) => ms >= one && ms % one === 0) ?? ["ms", 1];
  return `${ms / length}${unit}`;
}

/** `1 record`, `1,234 records`. */
export function plural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : /(?:ch|s)$/.test(noun) ? "es" : "s"}`;
}

/** A count for people: `1,234,567`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}
