import { basename } from "node:path";

/**
 * Somebody who knows Kafka, kcat or rpk types what the fingers know. Where it cannot simply work, this says what to type
 * instead: the whole command, with the arguments that were given.
 */
export function instead(args: readonly string[]): string | undefined {
  const [given, ...rest] = args;
  if (given === undefined) return undefined;
  const tool = basename(given).replace(/\.(sh|bat)$/, "");
  const habit = Object.hasOwn(habits, tool) ? habits[tool] : undefined;
  if (habit !== undefined) return join(habit(optionsOf(rest)));
  if (tool === "rpk") return insteadOfRpk(rest);
  if (tool === "topic" && (rest[0] === "produce" || rest[0] === "consume")) return join([rest[0], ...rest.slice(1)]);
  return undefined;
}

interface GivenOptions {
  readonly flags: ReadonlySet<string>;
  /** The last value of each option. */
  readonly values: ReadonlyMap<string, string>;
  readonly all: (name: string) => readonly string[];
}

type Words = readonly (string | undefined)[];

const habits: Readonly<Record<string, (given: GivenOptions) => Words>> = {
  "kafka-topics": (given) => {
    const topic = given.values.get("topic");
    const config = given.all("config").flatMap((entry) => ["--config", entry]);
    if (given.flags.has("create"))
      return [
        "topic create",
        topic ?? "NAME",
        ...option(given, "partitions"),
        ...option(given, "replication-factor", "replication"),
        ...config,
        ...bootstrap(given),
      ];
    if (given.flags.has("describe")) return ["topic describe", topic, ...bootstrap(given)];
    if (given.flags.has("delete")) return ["topic delete", topic ?? "NAME", ...bootstrap(given)];
    if (given.flags.has("alter"))
      return ["topic alter", topic ?? "NAME", ...option(given, "partitions"), ...config, ...bootstrap(given)];
    return ["topic list", ...bootstrap(given)];
  },
  "kafka-console-producer": (given) => {
    const separator = property(given, "key.separator") ?? (property(given, "parse.key") === "true" ? "\\t" : undefined);
    return [
      "produce",
      given.values.get("topic") ?? "TOPIC",
      ...(separator === undefined ? [] : ["--key-separator", separator]),
      ...bootstrap(given),
    ];
  },
  "kafka-console-consumer": (given) => [
    "consume",
    given.values.get("topic") ?? "TOPIC",
    ...(given.flags.has("from-beginning") ? ["--from", "earliest"] : []),
    ...option(given, "offset", "from"),
    ...option(given, "partition"),
    ...option(given, "max-messages", "count"),
    ...(property(given, "print.key") === "true" ? ["--format", "%k\\t%v\\n"] : []),
    ...bootstrap(given),
  ],
  "kafka-configs": (given) => [
    "config",
    given.flags.has("alter") ? "set" : "describe",
    (given.values.get("entity-type") ?? "topic").replace(/s$/, ""),
    given.values.get("entity-name") ?? "NAME",
    ...(given.values.get("add-config")?.split(",") ?? []),
    ...bootstrap(given),
  ],
  "kafka-leader-election": (given) => [
    "elect-leaders",
    given.values.get("topic"),
    ...option(given, "partition"),
    ...bootstrap(given),
  ],
  "kafka-delete-records": (given) => ["topic records-delete NAME --before PARTITION:OFFSET", ...bootstrap(given)],
  "kafka-dump-log": (given) => [
    "log dump",
    given.values.get("files") ?? "FILE",
    ...(given.flags.has("print-data-log") ? ["--records"] : []),
  ],
  "kafka-producer-perf-test": (given) => [
    "perf produce",
    given.values.get("topic") ?? "TOPIC",
    ...option(given, "num-records", "records"),
    ...option(given, "record-size", "size"),
    ...bootstrap(given),
  ],
  "kafka-consumer-perf-test": (given) => [
    "perf consume",
    given.values.get("topic") ?? "TOPIC",
    ...option(given, "messages", "records"),
    ...bootstrap(given),
  ],
  "kafka-e2e-latency": () => ["perf latency"],
  "kafka-metadata-quorum": (given) => ["cluster describe", ...bootstrap(given)],
  "kafka-cluster": (given) => ["cluster describe", ...bootstrap(given)],
  "kafka-server-start": () => ["broker --config FILE"],
  "zookeeper-server-start": () => ["up"],
  kcat: insteadOfKcat,
  kafkacat: insteadOfKcat,
};

function insteadOfKcat(given: GivenOptions): Words {
  const brokers = given.values.get("b");
  const end = brokers === undefined ? [] : ["-b", brokers];
  const topic = given.values.get("t") ?? "TOPIC";
  if (given.flags.has("L")) return ["cluster describe", ...end];
  if (given.flags.has("P") || given.values.has("K"))
    return ["produce", topic, ...option(given, "K", "key-separator"), ...option(given, "p", "partition"), ...end];
  return [
    "consume",
    topic,
    ...option(given, "o", "from"),
    ...option(given, "p", "partition"),
    ...option(given, "c", "count"),
    ...(given.flags.has("e") ? ["--until-end"] : []),
    ...option(given, "f", "format"),
    ...end,
  ];
}

function insteadOfRpk(args: readonly string[]): string | undefined {
  if (args[0] === "topic" && (args[1] === "produce" || args[1] === "consume")) return join(args.slice(1));
  if (args[0] === "topic") return join(args);
  if (args[0] === "cluster") return join(["cluster describe"]);
  return undefined;
}

/**
 * `--name value`, `--name=value`, `--flag`, `-x value`. Which options take a value need not be known: one that is
 * followed by a word has it.
 */
function optionsOf(args: readonly string[]): GivenOptions {
  const flags = new Set<string>();
  const pairs: (readonly [string, string])[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const match = /^--?([^=]+)(?:=(.*))?$/s.exec(args[at] as string);
    if (match === null) continue;
    const name = match[1] as string;
    const next = args[at + 1];
    if (match[2] !== undefined) pairs.push([name, match[2]]);
    else if (next !== undefined && !/^-[^\d]/.test(next)) pairs.push([name, args[(at += 1)] as string]);
    else flags.add(name);
  }
  return {
    flags,
    values: new Map(pairs),
    all: (name) => pairs.filter(([key]) => key === name).map(([, value]) => value),
  };
}

function option(given: GivenOptions, theirs: string, ours = theirs): string[] {
  const value = given.values.get(theirs);
  return value === undefined ? [] : [`--${ours}`, value];
}

function bootstrap(given: GivenOptions): string[] {
  const brokers = given.values.get("bootstrap-server") ?? given.values.get("broker-list");
  return brokers === undefined ? [] : ["-b", brokers];
}

function property(given: GivenOptions, name: string): string | undefined {
  const found = [...given.all("property"), ...given.all("producer-property")].find((entry) =>
    entry.startsWith(`${name}=`),
  );
  return found?.slice(name.length + 1);
}

function join(words: Words): string {
  const shown = words
    .filter((word) => word !== undefined)
    .map((word) => (/[\s\\'"$%]/.test(word) && !/^[a-z-]+ /.test(word) ? `'${word}'` : word));
  return `ottla ${shown.join(" ")}`;
}
