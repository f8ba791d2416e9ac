import { formatDuration } from "./quantities.js";

/**
 * The client speaks to programmers, of its options; who types commands has flags. This says the client's sentences in
 * their words.
 */

const flags: Readonly<Record<string, string>> = {
  acks: "--acks",
  batchBytes: "--batch-size",
  bootstrapBrokers: "--bootstrap",
  bufferBytes: "--buffer-memory",
  connectTimeoutMs: "--timeout",
  deadlineMs: "--timeout",
  deliveryTimeoutMs: "--timeout",
  idempotent: "--idempotent",
  lingerMs: "--linger",
  maxInFlight: "--max-in-flight",
  onOutOfRange: "--from",
  partitionBytes: "--fetch-size",
  replicationFactor: "--replication",
  requestTimeoutMs: "--timeout",
};

/** What to do, where the client's own advice is about code. */
const hints: Readonly<Record<string, string>> = {
  CORRUPT_BATCH: "read again after the broker has fetched it from a replica, or begin behind it with --from OFFSET",
  CORRUPT_LOG: "restore the replica, or begin behind the damage with --from OFFSET",
  INVALID_REQUIRED_ACKS: "give --acks all, or add --no-idempotent",
  OFFSET_OUT_OF_RANGE: "give --from earliest, --from latest, or an offset in it",
};

/** The advice for an error of this name. */
export function hintInFlags(name: string, hint: string): string {
  return hints[name] ?? inFlags(hint);
}

/** A sentence of the client in flags. */
export function inFlags(sentence: string): string {
  return (
    sentence
      .replace(/raise bufferBytes, or send less at a time/g, "send less at a time, see --rate")
      // `deliveryTimeoutMs 120000` is a time that passed; `lingerMs is 7200000` one that was given.
      .replace(/\b[a-z]+(?:[A-Z][a-z]+)*Ms (\d+)\b/g, (_, ms: string) => formatDuration(Number(ms)))
      .replace(/\b([a-z]+(?:[A-Z][a-z]+)*Ms) is (\d+)\b/g, (_, name: string, ms: string) => {
        return `${flags[name] ?? name} is ${formatDuration(Number(ms))}`;
      })
      .replace(/\b[a-z]+(?:[A-Z][a-z]+)+\b/g, (name) => (Object.hasOwn(flags, name) ? (flags[name] as string) : name))
  );
}

/** The sentence without advice that the hint repeats: brokers say some of it themselves. */
export function withoutRepetition(message: string, hint: string): string {
  const at = Math.max(message.lastIndexOf("; "), message.lastIndexOf(" - "));
  if (at < 0) return message;
  const last = message.slice(at).replace(/^[; -]+/, "");
  return hint.includes(last) ? message.slice(0, at) : message;
}
