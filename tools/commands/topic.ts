import type { Command } from "commander";
import { setTimeout as sleep } from "node:timers/promises";
import type { Admin, CreatedTopic, NewTopic, TopicDescription, TopicListing } from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { collectSettings, parseCount, plural } from "../cli/quantities.js";
import { addTopicOption, topicsNamed } from "../cli/topic-names.js";
import { addAliases } from "../cli/typed-options.js";
import { hintingAtFlags } from "../cli/flag-in-hint.js";
import { checkPartitions } from "../cli/partitions.js";
import { describeError, EXIT_FAILED, reportError, runCommand } from "../cli/run-command.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import { table } from "../cli/table.js";

interface CreateOptions {
  readonly partitions?: number;
  readonly replication?: number;
  readonly config?: readonly (readonly [string, string])[];
  readonly ifNotExists?: boolean;
  readonly topic?: readonly string[];
}

interface TopicOption {
  readonly topic?: readonly string[];
}

const COUNT_MAX = 2 ** 31 - 1;
/** Which option a refusal of the controller is about. */
const refusedOptions = {
  INVALID_CONFIG: "config",
  INVALID_PARTITIONS: "partitions",
  INVALID_REPLICATION_FACTOR: "replication",
} as const;
/** How often `topic describe --watch` looks. */
const WATCH_MS = 1000;

/** `ottla topic ...`: make, look at, change and delete topics. */
export function addTopicCommands(program: Command): void {
  const group = program.command("topic").alias("topics").description("make, look at, change and delete topics");
  const create = group
    .command("create")
    .argument("[names...]", "the names of the new topics")
    .description("make topics")
    .option("-p, --partitions <number>", "partitions of each (num.partitions of the cluster)", parseCount(1, COUNT_MAX))
    .option(
      "-r, --replication <number>",
      "replicas of each partition (default.replication.factor)",
      parseCount(1, COUNT_MAX),
    )
    .option("-c, --config <name=value>", "a setting of the topics; may be repeated", collectSettings)
    .option("--if-not-exists", "leave a topic that exists as it is, and call that done")
    .action((given: string[], options: CreateOptions) =>
      runCommand(create, (context) =>
        createTopics(context, atLeastOne(topicsNamed(context, given, options.topic)), options),
      ),
    );
  addAliases(create, "replication", "--replication-factor <number>", "--replicas <number>");
  addAliases(create, "config", "--topic-config <name=value>");
  const list = group
    .command("list")
    .alias("ls")
    .description("list all topics")
    .action(() => runCommand(list, listTopics));
  const describe = group
    .command("describe")
    .argument("[names...]", "topics; all when none is named")
    .description("show partitions, leaders, replicas and offsets")
    .option("-w, --watch", "again every second, until Ctrl-C")
    .action((given: string[], options: TopicOption & { readonly watch?: boolean }) =>
      runCommand(describe, (context) =>
        watchTopics(context, topicsNamed(context, given, options.topic), options.watch ?? false),
      ),
    );
  const alter = group
    .command("alter")
    .argument("<name>", "the topic")
    .description("give a topic more partitions, or change its settings")
    .option("-p, --partitions <number>", "the number of partitions after the change", parseCount(1, COUNT_MAX))
    .option("-c, --config <name=value>", "a setting; name= goes back to the default; may be repeated", collectSettings)
    .action((name: string, options: CreateOptions) =>
      runCommand(alter, (context) => alterTopic(context, name, options)),
    );
  const remove = group
    .command("delete")
    .alias("rm")
    .argument("[names...]", "the topics")
    .description("delete topics with all their records")
    .option("--if-exists", "call a topic done that is not there")
    .action((given: string[], options: TopicOption & { readonly ifExists?: boolean }) =>
      runCommand(remove, (context) =>
        deleteTopics(context, atLeastOne(topicsNamed(context, given, options.topic)), options.ifExists ?? false),
      ),
    );
  const deleteRecords = group
    .command("records-delete")
    .argument("<name>", "the topic")
    .description("delete the oldest records of partitions")
    .requiredOption(
      "--before <partition:offset>",
      "delete what is below this offset; `end` for all there is; may be repeated",
      collectBefore,
    )
    .action((name: string, { before }: { readonly before: readonly Before[] }) =>
      runCommand(deleteRecords, (context) => deleteRecordsOf(context, name, before)),
    );
  for (const command of [create, describe, remove]) addTopicOption(command);
  for (const command of [create, list, describe, alter, remove, deleteRecords]) addCommonOptions(command);
}

async function createTopics(
  context: CommandContext,
  names: readonly string[],
  options: CreateOptions,
): Promise<number> {
  const { replication: replicationFactor } = options;
  const topics: NewTopic[] = names.map((name) => ({
    name,
    ...(options.partitions === undefined ? {} : { partitions: options.partitions }),
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
    config: Object.fromEntries(options.config ?? []),
  }));
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  const { json, out, signal } = context;
  const existing = new Map(
    options.ifNotExists === true ? (await admin.listTopics({ signal })).map((topic) => [topic.name, topic]) : [],
  );
  // Of several, none is made while one of them cannot be.
  if (topics.length > 1) {
    for (const topic of topics.filter(({ name }) => !existing.has(name)))
      await unless(options.ifNotExists === true, "TOPIC_ALREADY_EXISTS", () =>
        hintingAtFlags(context, options, refusedOptions, () =>
          admin.createTopics([topic], { signal, validateOnly: true }),
        ),
      );
  }
  return await forEach(context, topics, async (topic) => {
    const found =
      existing.get(topic.name) ??
      (await hintingAtFlags(context, options, refusedOptions, () => createUnlessMade(admin, topic, options, signal)));
    const { name, topicId, partitions, replicationFactor: replicas } = found;
    const warning = "warning" in found ? found.warning : undefined;
    if (warning !== undefined) context.note(`warning: ${warning}`);
    if (json)
      return out.writeJson({
        topic: name,
        id: topicId,
        partitions,
        replicationFactor: replicas,
        ...(warning === undefined ? {} : { warning }),
      });
    const shape = `${plural(partitions, "partition")}, ${plural(replicas, "replica")} each`;
    out.writeText(existing.has(name) ? `${name} exists: ${shape}\n` : `created ${name}: ${shape}\n`);
  });
}

/** With `--if-not-exists` also when somebody else has made it in the meantime. */
async function createUnlessMade(
  admin: Admin,
  topic: NewTopic,
  options: CreateOptions,
  signal: AbortSignal,
): Promise<TopicListing & Pick<CreatedTopic, "warning">> {
  const created = await unless(options.ifNotExists === true, "TOPIC_ALREADY_EXISTS", () =>
    admin.createTopics([topic], { signal }),
  );
  if (created?.[0] !== undefined) return created[0];
  const [described] = await admin.describeTopics([topic.name], { signal });
  return {
    name: topic.name,
    topicId: described?.topicId ?? "",
    partitions: described?.partitions.length ?? 0,
    replicationFactor: described?.partitions[0]?.replicas.length ?? 0,
  };
}

async function listTopics(context: CommandContext): Promise<void> {
  await using cluster = await connectFor(context);
  const topics = await cluster.admin().listTopics({ signal: context.signal });
  if (context.json) {
    for (const { name, topicId, partitions, replicationFactor } of topics)
      context.out.writeJson({ topic: name, id: topicId, partitions, replicationFactor });
    return;
  }
  if (topics.length === 0) return context.note("there are no topics; make one with ottla topic create NAME");
  context.out.writeText(
    table(
      ["TOPIC", "PARTITIONS", "REPLICAS"],
      topics.map(({ name, partitions, replicationFactor }) => [name, partitions, replicationFactor]),
    ),
  );
}

async function watchTopics(context: CommandContext, names: readonly string[], isWatched: boolean): Promise<void> {
  const { json, out, signal } = context;
  await using cluster = await connectFor(context);
  await describeTopics(context, cluster.admin(), names);
  while (isWatched && !signal.aborted) {
    await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    if (!json) out.writeText("\n");
    await describeTopics(context, cluster.admin(), names);
  }
}

async function describeTopics(context: CommandContext, admin: Admin, names: readonly string[]): Promise<void> {
  const { json, out, signal } = context;
  const wanted = names.length === 0 ? undefined : names;
  const topics = await withSuggestion(admin, names, () => admin.describeTopics(wanted, { signal }));
  for (const topic of [...topics].sort((left, right) => (left.name < right.name ? -1 : 1))) {
    const settings = await admin.describeConfigs({ topic: topic.name }, { signal });
    const config = Object.fromEntries(
      settings.filter(({ source }) => source === "topic").map(({ name, value }) => [name, value]),
    );
    if (json) out.writeJson(topicAsJson(topic, config));
    else out.writeText(topicForPeople(topic, config));
    if (out.isFull) await out.ready();
  }
}

function topicAsJson({ name, topicId, partitions }: TopicDescription, config: Record<string, string>): unknown {
  return {
    topic: name,
    id: topicId,
    partitions: partitions.map(
      ({ partition, leader, leaderEpoch, replicas, isr, startOffset, highWatermark, endOffset }) => ({
        partition,
        leader,
        leaderEpoch,
        replicas,
        isr,
        startOffset,
        highWatermark,
        endOffset,
      }),
    ),
    config,
  };
}

function topicForPeople({ name, topicId, partitions }: TopicDescription, config: Record<string, string>): string {
  const settings = Object.entries(config).map(([setting, value]) => `  ${setting}=${value}`);
  const rows = partitions.map((one) => [
    one.partition,
    one.leader < 0 ? "none" : one.leader,
    one.leaderEpoch,
    one.replicas.join(","),
    one.isr.join(","),
    one.startOffset ?? "?",
    one.highWatermark ?? "?",
    one.endOffset ?? "?",
  ]);
  return (
    `${name}  ${plural(partitions.length, "partition")}  id ${topicId}${settings.join("")}\n` +
    table(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "HIGH WATERMARK", "END"], rows)
  );
}

async function alterTopic(context: CommandContext, name: string, options: CreateOptions): Promise<void> {
  const { signal } = context;
  if (options.partitions === undefined && options.config === undefined)
    throw usageError("nothing is to be changed", "give --partitions or --config");
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  const change = async (): Promise<void> => {
    const settings = (options.config ?? []).map(([setting, value]) => [setting, value === "" ? null : value] as const);
    const changes = Object.fromEntries(settings);
    if (options.partitions !== undefined) {
      // Either can be refused: the one is checked, the other done, and then the first.
      if (settings.length > 0) await admin.alterConfigs({ topic: name }, changes, { signal, validateOnly: true });
      await admin.createPartitions(name, options.partitions, { signal });
    }
    if (settings.length > 0) await admin.alterConfigs({ topic: name }, changes, { signal });
  };
  await withSuggestion(admin, [name], () => hintingAtFlags(context, options, refusedOptions, change));
  if (context.json) context.out.writeJson({ topic: name, altered: true });
  else context.out.writeText(`altered ${name}\n`);
}

async function deleteTopics(context: CommandContext, names: readonly string[], ifExists: boolean): Promise<number> {
  const { json, out, signal } = context;
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  // Of several, none is deleted while one of them is misspelt.
  if (names.length > 1 && !ifExists)
    await withSuggestion(admin, names, () => Promise.all(names.map((name) => cluster.partitionsOf(name))));
  return await forEach(context, names, async (name) => {
    const deleted = await unless(ifExists, "UNKNOWN_TOPIC_OR_PARTITION", async () => {
      await withSuggestion(admin, [name], () => admin.deleteTopics([name], { signal }));
      return true;
    });
    if (json) out.writeJson({ topic: name, deleted: deleted ?? false });
    else out.writeText(deleted === true ? `deleted ${name}\n` : `there is no topic ${name}\n`);
  });
}

/** What the work comes to; undefined when it fails with this name and that is allowed. */
async function unless<T>(isAllowed: boolean, errorName: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isAllowed && describeError(error).name === errorName) return undefined;
    throw error;
  }
}

interface Before {
  readonly partition: number;
  readonly before: number | "all";
}

function parseBefore(text: string): Before {
  const match = /^(\d+):(\d+|end)$/.exec(text);
  const before = match?.[2] === "end" ? "all" : Number(match?.[2]);
  if (match === null || (before !== "all" && !Number.isSafeInteger(before)))
    throw usageError(`${text} is not PARTITION:OFFSET`, "write one like 0:120, or 0:end");
  return { partition: Number(match[1]), before };
}

/** Of several partitions none loses records while one of the offsets cannot be. */
async function checkOffsets(
  { flag, signal }: CommandContext,
  admin: Admin,
  topic: string,
  before: readonly Before[],
): Promise<void> {
  const wanted = before.filter((one) => one.before !== "all");
  const lookups = wanted.map(({ partition }) => ({ topic, partition, query: "latest" as const }));
  const ends = await admin.listOffsets(lookups, { signal });
  for (const [index, { partition, before: offset }] of wanted.entries()) {
    const highWatermark = ends[index]?.offset ?? 0;
    if (Number(offset) > highWatermark)
      throw new CliError(
        "OFFSET_OUT_OF_RANGE",
        `${flag("before")} ${partition}:${offset} is above the high watermark of ${topic}-${partition}, ${highWatermark}`,
        { hint: `give an offset up to that, or ${partition}:end for all there is` },
      );
  }
}

function collectBefore(text: string, previous: readonly Before[] | undefined): Before[] {
  const parsed = parseBefore(text);
  if (previous?.some(({ partition }) => partition === parsed.partition))
    throw usageError(`${text} names partition ${parsed.partition} a second time`, "keep one of them");
  return [...(previous ?? []), parsed];
}

async function deleteRecordsOf(context: CommandContext, topic: string, before: readonly Before[]): Promise<void> {
  await using cluster = await connectFor(context);
  const targets = before.map((one) => ({ topic, ...one }));
  const admin = cluster.admin();
  const partitions = await withSuggestion(admin, [topic], () => cluster.partitionsOf(topic));
  checkPartitions(
    context,
    topic,
    partitions,
    before.map(({ partition }) => partition),
    "before",
  );
  await checkOffsets(context, admin, topic, before);
  const deleted = await admin.deleteRecords(targets, { signal: context.signal });
  for (const { partition, offset } of deleted) {
    if (context.json) context.out.writeJson({ topic, partition, startOffset: offset });
    else context.out.writeText(`${topic}-${partition} begins at offset ${offset}\n`);
  }
}

/** Does all of them, even if some fail: each failure is told, and the exit code is 1. */
async function forEach<T>(
  context: CommandContext,
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<number> {
  if (items.length === 1) {
    await work(items[0] as T);
    return 0;
  }
  let exitCode = 0;
  for (const item of items) {
    try {
      await work(item);
    } catch (error) {
      context.signal.throwIfAborted();
      reportError(error, context);
      exitCode = EXIT_FAILED;
    }
  }
  return exitCode;
}

function atLeastOne(names: readonly string[]): readonly string[] {
  if (names.length === 0) throw usageError("no topic is named", "give one name or more");
  return names;
}
