import type { Command } from "commander";
import { Option } from "commander";
import type { NewTopic, TopicDescription } from "../../client/index.js";
import { usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { collect, parseAssignment, parseCount } from "../cli/quantities.js";
import { EXIT_FAILED, reportError, runCommand } from "../cli/run-command.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import { table } from "../cli/table.js";

interface CreateOptions {
  readonly partitions?: number;
  readonly replication?: number;
  readonly replicationFactor?: number;
  readonly config?: readonly (readonly [string, string])[];
  readonly topic?: readonly string[];
}

/** `ottla topic ...`: make, look at, change and delete topics. */
export function addTopicCommands(program: Command): void {
  const group = program.command("topic").alias("topics").description("make, look at, change and delete topics");
  const names = (given: readonly string[], options: { readonly topic?: readonly string[] }): string[] => [
    ...given,
    ...(options.topic ?? []),
  ];
  const named = new Option("--topic <name>").argParser(collect((text) => text)).hideHelp();

  const create = group
    .command("create")
    .argument("[names...]", "the names of the new topics")
    .description("make topics")
    .option("-p, --partitions <number>", "partitions of each (num.partitions of the cluster)", parseCount(1))
    .option("-r, --replication <number>", "replicas of each partition (default.replication.factor)", parseCount(1))
    .addOption(new Option("--replication-factor <number>").argParser(parseCount(1)).hideHelp())
    .option("--config <name=value>", "a setting of the topics; may be repeated", collect(parseAssignment))
    .addOption(named)
    .action((given: string[], options: CreateOptions) =>
      runCommand(create, (context) => createTopics(context, atLeastOne(names(given, options)), options)),
    );
  const list = group
    .command("list")
    .alias("ls")
    .description("list all topics")
    .action(() => runCommand(list, listTopics));
  const describe = group
    .command("describe")
    .argument("[names...]", "topics; all when none is named")
    .description("show partitions, leaders, replicas and offsets")
    .addOption(named)
    .action((given: string[], options: { readonly topic?: readonly string[] }) =>
      runCommand(describe, (context) => describeTopics(context, names(given, options))),
    );
  const alter = group
    .command("alter")
    .argument("<name>", "the topic")
    .description("give a topic more partitions, or change its settings")
    .option("-p, --partitions <number>", "the number of partitions after the change", parseCount(1))
    .option(
      "--config <name=value>",
      "a setting; name= goes back to the default; may be repeated",
      collect(parseAssignment),
    )
    .action((name: string, options: CreateOptions) =>
      runCommand(alter, (context) => alterTopic(context, name, options)),
    );
  const remove = group
    .command("delete")
    .alias("rm")
    .argument("[names...]", "the topics")
    .description("delete topics with all their records")
    .addOption(named)
    .action((given: string[], options: { readonly topic?: readonly string[] }) =>
      runCommand(remove, (context) => deleteTopics(context, atLeastOne(names(given, options)))),
    );
  const deleteRecords = group
    .command("records-delete")
    .argument("<name>", "the topic")
    .description("delete the oldest records of partitions")
    .requiredOption(
      "--before <partition:offset>",
      "delete what is below this offset; `end` for all there is; may be repeated",
      collect(parseBefore),
    )
    .action((name: string, { before }: { readonly before: readonly Before[] }) =>
      runCommand(deleteRecords, (context) => deleteRecordsOf(context, name, before)),
    );
  for (const command of [create, list, describe, alter, remove, deleteRecords]) addCommonOptions(command);
}

async function createTopics(
  context: CommandContext,
  names: readonly string[],
  options: CreateOptions,
): Promise<number> {
  const replicationFactor = options.replication ?? options.replicationFactor;
  const topics: NewTopic[] = names.map((name) => ({
    name,
    ...(options.partitions === undefined ? {} : { partitions: options.partitions }),
    ...(replicationFactor === undefined ? {} : { replicationFactor }),
    config: Object.fromEntries(options.config ?? []),
  }));
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  return await forEach(context, topics, async (topic) => {
    const [created] = await admin.createTopics([topic], { signal: context.signal });
    if (created === undefined) return;
    const { name, topicId, partitions, replicationFactor: replicas } = created;
    if (context.json) context.out.writeJson({ topic: name, id: topicId, partitions, replicationFactor: replicas });
    else
      context.out.writeText(
        `created ${name}: ${plural(partitions, "partition")}, ${plural(replicas, "replica")} each\n`,
      );
  });
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

async function describeTopics(context: CommandContext, names: readonly string[]): Promise<void> {
  const { json, out, signal } = context;
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  const topics = await withSuggestion(admin, names, () => admin.describeTopics(names, { signal }));
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
  await withSuggestion(admin, [name], async () => {
    if (options.config !== undefined) {
      const changes = options.config.map(([setting, value]) => [setting, value === "" ? null : value] as const);
      await admin.alterConfigs({ topic: name }, Object.fromEntries(changes), { signal });
    }
    if (options.partitions !== undefined) await admin.createPartitions(name, options.partitions, { signal });
  });
  if (context.json) context.out.writeJson({ topic: name, altered: true });
  else context.out.writeText(`altered ${name}\n`);
}

async function deleteTopics(context: CommandContext, names: readonly string[]): Promise<number> {
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  return await forEach(context, names, async (name) => {
    await withSuggestion(admin, [name], () => admin.deleteTopics([name], { signal: context.signal }));
    if (context.json) context.out.writeJson({ topic: name, deleted: true });
    else context.out.writeText(`deleted ${name}\n`);
  });
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

async function deleteRecordsOf(context: CommandContext, topic: string, before: readonly Before[]): Promise<void> {
  await using cluster = await connectFor(context);
  const targets = before.map((one) => ({ topic, ...one }));
  const admin = cluster.admin();
  const deleted = await withSuggestion(admin, [topic], () => admin.deleteRecords(targets, { signal: context.signal }));
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

const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;
