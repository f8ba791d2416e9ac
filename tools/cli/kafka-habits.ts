import { basename } from "node:path";
import { parseFormat } from "./record-format.js";
import { parseStartPosition } from "./start-position.js";

/**
 * Somebody who knows Kafka, kcat or rpk types what the fingers know. Where it cannot simply work, this says what to type
 * instead: a whole command with the arguments that were given, which works when it is pasted. Options that ottla has no
 * counterpart for are left out of it.
 */
export function instead(args: readonly string[]): string | undefined {
  const [given, ...rest] = args;
  if (given === undefined) return undefined;
  // `ottla -L -b host:9092`, by the fingers of kcat.
  if (/^-[CPL]$/.test(given)) return insteadOfKcat(args);
  const tool = basename(given).replace(/\.(sh|bat)$/, "");
  if (Object.hasOwn(verbs, tool)) return typeThis([...(verbs[tool] as Words), ...rest]);
  if (tool === "topic" && (rest[0] === "produce" || rest[0] === "consume")) return typeThis(rest);
  if (["group", "groups", "kafka-consumer-groups"].includes(tool)) return NO_GROUPS;
  // As kafka-topics, without the half of its name.
  if (tool === "topics" || (tool === "topic" && topicVerb.test(rest[0] ?? "")))
    return kafkaTools["kafka-topics"]?.(kafkaOptions(rest));
  if (tool === "kcat" || tool === "kafkacat") return insteadOfKcat(rest);
  if (tool === "rpk") return insteadOfRpk(rest);
  return Object.hasOwn(kafkaTools, tool) ? kafkaTools[tool]?.(kafkaOptions(rest)) : undefined;
}

type Words = readonly (string | undefined)[];

const NO_GROUPS = "there are no consumer groups yet: ottla consume reads without one, from where --from says";

/** Words that name what is to be done, typed without saying to what. */
const verbs: Readonly<Record<string, Words>> = {
  create: ["topic", "create"],
  describe: ["topic", "describe"],
  delete: ["topic", "delete"],
  list: ["topic", "list"],
  ls: ["topic", "list"],
  info: ["cluster", "describe"],
  version: ["--version"],
  start: ["up"],
  stop: ["down"],
};

const topicVerb = /^--(alter|create|delete|describe|list)$/;

interface GivenOptions {
  readonly flags: ReadonlySet<string>;
  /** The last value of each option. */
  readonly values: ReadonlyMap<string, string>;
  readonly all: (name: string) => readonly string[];
  /** What is neither an option nor the value of one. */
  readonly words: readonly string[];
}

const kafkaTools: Readonly<Record<string, (given: GivenOptions) => string>> = {
  "kafka-topics": (given) => {
    const topic = given.values.get("topic");
    const config = given.all("config").flatMap((entry) => ["--config", entry]);
    const partitions = option(given, "partitions");
    if (given.flags.has("create"))
      return typeThis([
        ...["topic", "create", topic ?? "NAME"],
        ...partitions,
        ...option(given, "replication-factor", "replication"),
        ...config,
        ...flag(given, "if-not-exists"),
        ...bootstrap(given),
      ]);
    if (given.flags.has("describe")) return typeThis(["topic", "describe", topic, ...bootstrap(given)]);
    if (given.flags.has("delete"))
      return typeThis(["topic", "delete", topic ?? "NAME", ...flag(given, "if-exists"), ...bootstrap(given)]);
    if (given.flags.has("alter"))
      return typeThis(["topic", "alter", topic ?? "NAME", ...partitions, ...config, ...bootstrap(given)]);
    return typeThis(["topic", "list", ...bootstrap(given)]);
  },
  "kafka-console-producer": (given) => {
    const separator = property(given, "key.separator") ?? (property(given, "parse.key") === "true" ? "\\t" : undefined);
    return typeThis([
      ...["produce", topicOf(given)],
      ...(separator === undefined ? [] : ["--key-separator", separator]),
      ...option(given, "request-required-acks", "acks"),
      ...bootstrap(given),
    ]);
  },
  "kafka-console-consumer": (given) =>
    withoutGroup(
      given,
      ["group"],
      [
        ...["consume", topicOf(given)],
        ...(given.flags.has("from-beginning") ? ["--from", "earliest"] : position(given.values.get("offset"))),
        ...option(given, "partition"),
        ...option(given, "max-messages", "count"),
        ...(property(given, "print.key") === "true" ? ["--format", "%k\\t%v\\n"] : []),
        ...bootstrap(given),
      ],
    ),
  "kafka-configs": (given) => {
    const isBroker =
      given.values.has("broker") ||
      given.flags.has("broker-defaults") ||
      /^broker/.test(given.values.get("entity-type") ?? "");
    const name = given.values.get("entity-name") ?? given.values.get("topic") ?? given.values.get("broker");
    const target = [isBroker ? "broker" : "topic", name ?? (isBroker ? "default" : "NAME")];
    const added = given.values.get("add-config")?.split(",") ?? [];
    const removed = given.values.get("delete-config")?.split(",") ?? [];
    if (added.length > 0) return typeThis(["config", "set", ...target, ...added, ...bootstrap(given)]);
    if (removed.length > 0) return typeThis(["config", "unset", ...target, ...removed, ...bootstrap(given)]);
    return typeThis(["config", "describe", ...target, ...flag(given, "all"), ...bootstrap(given)]);
  },
  "kafka-leader-election": (given) =>
    typeThis([
      "elect-leaders",
      ...(given.values.has("topic") ? [given.values.get("topic"), ...option(given, "partition")] : []),
      ...(given.values.get("election-type") === "unclean" ? ["--unclean"] : []),
      ...bootstrap(given),
    ]),
  "kafka-get-offsets": (given) => typeThis(["topic", "describe", given.values.get("topic"), ...bootstrap(given)]),
  "kafka-delete-records": (given) =>
    typeThis(["topic", "records-delete", "NAME", "--before", "0:120", ...bootstrap(given)]),
  "kafka-dump-log": (given) =>
    typeThis([
      ...["log", "dump", given.values.get("files") ?? "FILE"],
      ...(given.flags.has("print-data-log") ? ["--records"] : []),
    ]),
  "kafka-producer-perf-test": (given) => {
    const rate = Number(given.values.get("throughput"));
    return typeThis([
      ...["perf", "produce", topicOf(given)],
      ...option(given, "num-records", "records"),
      ...option(given, "record-size", "size"),
      ...(rate > 0 ? ["--rate", String(rate)] : []),
      ...bootstrap(given),
    ]);
  },
  "kafka-consumer-perf-test": (given) =>
    typeThis([
      ...["perf", "consume", topicOf(given)],
      ...option(given, "messages", "records"),
      ...option(given, "fetch-size"),
      ...bootstrap(given),
    ]),
  "kafka-e2e-latency": ({ words: [brokers, topic, records] }) =>
    typeThis([
      ...["perf", "latency", topic],
      ...(records === undefined ? [] : ["--records", records]),
      ...(brokers === undefined ? [] : ["-b", brokers]),
    ]),
  "kafka-metadata-quorum": (given) => typeThis(["cluster", "describe", ...bootstrap(given)]),
  "kafka-cluster": (given) => typeThis(["cluster", "describe", ...bootstrap(given)]),
  "kafka-broker-api-versions": (given) => typeThis(["cluster", "describe", ...bootstrap(given)]),
  "kafka-server-start": ({ words: [file] }) => typeThis(["broker", "--config", file ?? "FILE"]),
  "kafka-server-stop": () => typeThis(["down"]),
  "zookeeper-server-start": () => typeThis(["up"]),
  "zookeeper-server-stop": () => typeThis(["down"]),
};

/** Options of Kafka's tools that take no value; a word behind any other one is its value. */
const kafkaFlags = new Set([
  ...["all", "all-topic-partitions", "alter", "broker-defaults", "create", "delete", "describe", "entity-default"],
  ...["exclude-internal", "force", "from-beginning", "if-exists", "if-not-exists", "list", "print-data-log", "sync"],
  ...["under-replicated-partitions", "unavailable-partitions"],
]);

/** `--name value`, `--name=value`, `--flag`; `--producer-props` takes several words. */
function kafkaOptions(args: readonly string[]): GivenOptions {
  const flags = new Set<string>();
  const pairs: (readonly [string, string])[] = [];
  const words: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] as string;
    const match = /^--?([^=]+)(?:=(.*))?$/s.exec(word);
    const name = match?.[1];
    if (name === undefined) {
      const last = pairs[pairs.length - 1]?.[0];
      if (last === "producer-props" && word.includes("=")) pairs.push([last, word]);
      else words.push(word);
    } else if (match?.[2] !== undefined) pairs.push([name, match[2]]);
    else if (kafkaFlags.has(name)) flags.add(name);
    else if (at + 1 < args.length) pairs.push([name, args[(at += 1)] as string]);
  }
  return givenOptions(flags, pairs, words);
}

/** Letters of kcat that take no value. */
const kcatFlags = "CPLQAeqEuZJOTUlvh";

/** `-t topic`, `-ttopic`, and flags in one word: `-Ce`. */
function kcatOptions(args: readonly string[]): GivenOptions {
  const flags = new Set<string>();
  const pairs: (readonly [string, string])[] = [];
  const words: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] as string;
    if (!/^-[^-]/.test(word)) {
      words.push(word);
      continue;
    }
    for (let letter = 1; letter < word.length; letter += 1) {
      const name = word[letter] as string;
      if (kcatFlags.includes(name)) {
        flags.add(name);
        continue;
      }
      const value = letter + 1 < word.length ? word.slice(letter + 1) : args[(at += 1)];
      if (value !== undefined) pairs.push([name, value]);
      break;
    }
  }
  return givenOptions(flags, pairs, words);
}

function insteadOfKcat(args: readonly string[]): string {
  const given = kcatOptions(args);
  const { flags, values, words } = given;
  const json = flags.has("J") ? ["--json"] : [];
  const end = values.has("b") ? ["-b", values.get("b")] : [];
  const topic = values.get("t");
  if (flags.has("L"))
    return typeThis([
      ...(topic === undefined ? ["cluster", "describe"] : ["topic", "describe", topic]),
      ...json,
      ...end,
    ]);
  if (flags.has("Q")) return typeThis(["topic", "describe", topic?.replace(/:.*$/, ""), ...end]);
  if (flags.has("P") || values.has("K") || values.has("k"))
    return typeThis([
      ...["produce", topic ?? "TOPIC"],
      ...option(given, "K", "key-separator"),
      ...(values.has("K") ? [] : option(given, "k", "key")),
      ...option(given, "p", "partition"),
      ...given.all("H").flatMap((header) => ["--header", header]),
      ...(words[0] === undefined ? [] : ["--from", words[0]]),
      ...end,
    ]);
  const from = values.get("o")?.replace(/^[se]@/, "@");
  const topics = values.has("G") ? words : [topic ?? "TOPIC"];
  return withoutGroup(
    given,
    ["G"],
    [
      ...["consume", ...(topics.length > 0 ? topics : ["TOPIC"])],
      ...position(from),
      ...(topics.length > 1 ? [] : option(given, "p", "partition")),
      ...option(given, "c", "count"),
      ...(flags.has("e") ? ["--until-end"] : []),
      ...(json.length > 0 ? json : format(given.values.get("f"))),
      ...end,
    ],
  );
}

/** What stands behind `rpk topic VERB`: our words for it, and our names of its options that take a value. */
const rpkTopics: Readonly<Record<string, { readonly ours: readonly string[]; readonly options: RpkOptions }>> = {
  create: {
    ours: ["topic", "create"],
    options: { p: "partitions", partitions: "partitions", r: "replication", replicas: "replication", c: "config" },
  },
  list: { ours: ["topic", "list"], options: {} },
  describe: { ours: ["topic", "describe"], options: {} },
  delete: { ours: ["topic", "delete"], options: {} },
  "alter-config": { ours: ["topic", "alter"], options: { s: "config", set: "config" } },
  produce: {
    ours: ["produce"],
    options: {
      k: "key",
      key: "key",
      p: "partition",
      partition: "partition",
      H: "header",
      header: "header",
      acks: "acks",
    },
  },
  consume: {
    ours: ["consume"],
    options: {
      ...{ n: "count", num: "count" },
      ...{ p: "partition", partitions: "partition" },
    },
  },
};
type RpkOptions = Readonly<Record<string, string>>;
const rpkFlags = new Set(["if-not-exists"]);

function insteadOfRpk(args: readonly string[]): string | undefined {
  const [area, verb] = args;
  if (area === "group") return NO_GROUPS;
  if (area === "cluster") return typeThis(["cluster", "describe", ...rpkBrokers(rpkOptions(args.slice(2)))]);
  const topics = area === "topic" && verb !== undefined && Object.hasOwn(rpkTopics, verb) ? rpkTopics[verb] : undefined;
  if (topics === undefined) return area === "topic" ? `type: ottla topic --help` : undefined;
  const given = rpkOptions(args.slice(2));
  const options = Object.entries(topics.options).flatMap(([theirs, ours]) =>
    given.all(theirs).flatMap((value) => [`--${ours}`, value]),
  );
  const json = verb !== "consume" && (given.values.get("format") ?? given.values.get("f")) === "json" ? ["--json"] : [];
  return withoutGroup(
    given,
    ["g", "group"],
    [
      ...topics.ours,
      ...given.words,
      ...options,
      ...(verb === "consume" ? position(given.values.get("offset") ?? given.values.get("o")) : []),
      ...(verb === "consume" ? format(given.values.get("format") ?? given.values.get("f")) : []),
      ...(verb === "create" ? flag(given, "if-not-exists") : []),
      ...(verb === "produce" ? [] : json),
      ...rpkBrokers(given),
    ],
  );
}

/** `-n 5`, `-n5`, `--num 5`, `--num=5`. */
function rpkOptions(args: readonly string[]): GivenOptions {
  const flags = new Set<string>();
  const pairs: (readonly [string, string])[] = [];
  const words: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at] as string;
    const long = /^--([^=]+)(?:=(.*))?$/s.exec(word);
    const short = /^-([^-])(.*)$/s.exec(word);
    const name = long?.[1] ?? short?.[1];
    const value = long?.[2] ?? (short?.[2] === "" ? undefined : short?.[2]);
    if (name === undefined) words.push(word);
    else if (value !== undefined) pairs.push([name, value]);
    else if (rpkFlags.has(name)) flags.add(name);
    else if (at + 1 < args.length) pairs.push([name, args[(at += 1)] as string]);
  }
  return givenOptions(flags, pairs, words);
}

function rpkBrokers(given: GivenOptions): string[] {
  const setting = given.all("X").find((entry) => entry.startsWith("brokers="));
  const brokers = given.values.get("brokers") ?? setting?.slice("brokers=".length);
  return brokers === undefined ? [] : ["-b", brokers];
}

function givenOptions(
  flags: ReadonlySet<string>,
  pairs: readonly (readonly [string, string])[],
  words: readonly string[],
): GivenOptions {
  const all = (name: string): string[] => pairs.filter(([key]) => key === name).map(([, value]) => value);
  return { flags, values: new Map(pairs), all, words };
}

const topicOf = (given: GivenOptions): string => given.values.get("topic") ?? "TOPIC";
const flag = ({ flags }: GivenOptions, name: string): string[] => (flags.has(name) ? [`--${name}`] : []);

function option(given: GivenOptions, theirs: string, ours = theirs): string[] {
  const value = given.values.get(theirs);
  return value === undefined ? [] : [`--${ours}`, value];
}

/** A position that ottla has a word for; others are left out. */
function position(text: string | undefined): string[] {
  return text !== undefined && isAccepted(() => parseStartPosition(text)) ? ["--from", text] : [];
}

function format(text: string | undefined): string[] {
  return text !== undefined && isAccepted(() => parseFormat(text)) ? ["--format", text] : [];
}

function isAccepted(parse: () => unknown): boolean {
  try {
    parse();
    return true;
  } catch {
    return false;
  }
}

function bootstrap(given: GivenOptions): string[] {
  const properties = given.all("producer-props").find((entry) => entry.startsWith("bootstrap.servers="));
  const brokers =
    given.values.get("bootstrap-server") ??
    given.values.get("broker-list") ??
    given.values.get("b") ??
    properties?.slice("bootstrap.servers=".length);
  return brokers === undefined ? [] : ["-b", brokers];
}

function property(given: GivenOptions, name: string): string | undefined {
  const all = ["property", "producer-property", "reader-property", "formatter-property"].flatMap(given.all);
  return all.find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
}

function withoutGroup({ values }: GivenOptions, names: readonly string[], words: Words): string {
  const typed = typeThis(words);
  return names.some((name) => values.has(name)) ? `there are no consumer groups yet; ${typed}` : typed;
}

function typeThis(words: Words): string {
  const shown = words.filter((word) => word !== undefined).map(quoted);
  return `type: ottla ${shown.join(" ")}`;
}

/** As a shell takes it for one word. */
function quoted(word: string): string {
  return /^[\w./:=,@+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
