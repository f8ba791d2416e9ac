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
  onUnreadable: "--on-unreadable",
  partitionBytes: "--fetch-size",
  replicationFactor: "--replication",
  requestTimeoutMs: "--timeout",
};

/** Who knows what the setting is of can name the command that lists them. */
export const SETTINGS_HINT = "see docs/configuration.md in the sources for names and ranges";

/** What to do, where the client's own advice is about code. */
const hints: Readonly<Record<string, string>> = {
  'seek to an offset in it, or set onOutOfRange to "earliest" or "latest"':
    "give --from earliest, --from latest, or an offset in it",
  'use acks "all", or switch idempotence off': "give --acks all, or add --no-idempotent",
  "describe the configuration to see names, types and ranges": SETTINGS_HINT,
  "read again after the broker has fetched it from a replica, or seek past it":
    "read again after the broker has fetched it from a replica, or begin behind it with --from OFFSET",
  "restore the replica, or seek past the damage": "restore the replica, or begin behind the damage with --from OFFSET",
  "the number of partitions can only grow": "ask for more than there are",
};

const singular: Readonly<Record<string, string>> = { are: "is", have: "has", need: "needs", were: "was" };

/** How the advice begins that brokers end a sentence with. */
const ADVICE =
  /^(?:alter|ask|choose|create|did you mean|give|keep|listen|look|lower|raise|see|split|start|use|wait|write)\b/;

/** What an error of the client says, in flags, and what to do: each once. */
export function told(error: { readonly code: string; readonly what: string; readonly hint: string }): {
  readonly message: string;
  readonly hint: string;
} {
  // The client puts the topic in front of what a broker says, who has mostly named it.
  const [, topic, said] = /^(.+?): (.*)$/s.exec(error.what) ?? [];
  const isNamed =
    topic !== undefined && said !== undefined && (said.startsWith(`${topic}: `) || namedAs(topic).test(` ${said} `));
  const message = inSingular(inFlags(isNamed ? said : error.what)).replace(
    "ottla topic create NAME",
    () => `ottla topic create ${topic}`,
  );
  // `...; give it at most 3`, `retention.ms=x: give a whole number`
  const [{ index: at, 0: mark } = { index: 0, 0: "" }] = [...message.matchAll(/[;:] (?=[a-z])/g)].filter(({ index }) =>
    ADVICE.test(message.slice(index + 2)),
  );
  const advice = message.slice(at + mark.length);
  // Of a broker that says what to do in this case, the advice is better than that for all cases.
  if (at > 0) return { message: message.slice(0, at), hint: advice };
  if (error.code === "INVALID_PARTITIONS" && message.includes("too many"))
    return { message, hint: "ask for fewer, or raise partitions.max of the brokers" };
  return {
    message,
    hint: hints[error.hint] ?? inFlags(error.hint),
  };
}

/** `1 records were` in sentences that count. */
const inSingular = (sentence: string): string =>
  sentence.replace(
    /(?<![\d.,:-])1 (batch|broker|byte|partition|record|replica)e?s\b(?: (are|have|need|were)\b)?/g,
    (_, noun: string, verb: string | undefined) => `1 ${noun}${verb === undefined ? "" : ` ${singular[verb]}`}`,
  );

/** `topic NAME`, or the name in quotes. */
const namedAs = (topic: string): RegExp => {
  const name = topic.replace(/[^\w]/g, "\\$&");
  return new RegExp(`topic ${name}[: ]|"${name}"`);
};

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
      .replace(
        /seek to (\d+), or set onUnreadable to "skip"/g,
        "begin behind with --from $1, or leave out what is unreadable with --on-unreadable skip",
      )
      .replace(/\b[a-z]+(?:[A-Z][a-z]+)+\b/g, (name) => (Object.hasOwn(flags, name) ? (flags[name] as string) : name))
  );
}
