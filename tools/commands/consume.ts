import type { Command } from "commander";
import { Option } from "commander";
import type { Cluster, Consumer, ConsumerOptions, TopicPartition, TopicPartitionOffset } from "../../client/index.js";
import { usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { unlessAborted } from "../cli/interruption.js";
import { Patience } from "../cli/patience.js";
import { collect, formatCount, parseCount } from "../cli/quantities.js";
import type { RecordPrinter } from "../cli/record-format.js";
import { recordPrinter } from "../cli/record-format.js";
import { runCommand } from "../cli/run-command.js";
import type { StartPosition } from "../cli/start-position.js";
import { parseStartPosition } from "../cli/start-position.js";
import { withSuggestion } from "../cli/topic-suggestion.js";

interface ConsumeOptions {
  readonly from?: StartPosition;
  readonly fromBeginning?: boolean;
  readonly partition?: readonly number[];
  readonly count?: number;
  readonly untilEnd?: boolean;
  readonly format?: string;
  readonly topic?: string;
}

/** `ottla consume`: records become lines. */
export function addConsumeCommand(program: Command): void {
  const command = program
    .command("consume")
    .argument("[topics...]", "the topics to read")
    .description("read records and print them")
    .option(
      "-o, --from <position>",
      "earliest, latest (the default), an offset, -N for the last N of each partition, a time, @milliseconds, or 5m ago",
      (text: string) => parseStartPosition(text),
    )
    .option("-p, --partition <number>", "read this partition only; may be repeated", collect(parseCount()))
    .option("-c, --count <number>", "stop after so many records", parseCount())
    .option("-e, --until-end", "stop at the end that each partition has now")
    .option(
      "-f, --format <format>",
      "value, json, or a template: %t topic, %p partition, %o offset, %k key, %v value, %T timestamp, %d time, %h headers, \\n",
    )
    .addOption(new Option("--from-beginning").hideHelp())
    .addOption(new Option("--max-messages <number>").argParser(parseCount()).hideHelp())
    .addOption(new Option("--topic <name>").hideHelp())
    .action((topics: readonly string[], options: ConsumeOptions & { readonly maxMessages?: number }) =>
      runCommand(command, (context) =>
        consume(context, topics.length > 0 || options.topic === undefined ? topics : [options.topic], {
          ...options,
          ...(options.maxMessages === undefined ? {} : { count: options.maxMessages }),
        }),
      ),
    );
  addCommonOptions(command);
}

async function consume(context: CommandContext, topics: readonly string[], options: ConsumeOptions): Promise<void> {
  const [firstTopic] = topics;
  if (firstTopic === undefined) throw usageError("no topic is named", "type ottla consume TOPIC");
  if (options.partition !== undefined && topics.length > 1)
    throw usageError("--partition goes with one topic", "run one ottla consume for each topic");
  const print = recordPrinter(options.format ?? (context.json ? "json" : "value"), context.encoding);
  const from = options.from ?? { kind: options.fromBeginning === true ? "earliest" : "latest" };
  await using cluster = await connectFor(context);
  await withSuggestion(cluster.admin(), topics, () => Promise.all(topics.map((topic) => cluster.partitionsOf(topic))));
  if (options.count === 0) return;
  const start = await clientPosition(context, cluster, topics, from, options.partition);
  // One that follows waits for ever; one that reads to an end must not.
  const patience = options.untilEnd === true ? new Patience(context.timeoutMs) : undefined;
  await using consumer = cluster.consumer({
    ...(options.partition === undefined ? { topics } : { topic: firstTopic, partitions: options.partition }),
    ...(start === undefined ? {} : { from: start }),
    signal: patience === undefined ? context.signal : AbortSignal.any([context.signal, patience.signal]),
  });
  try {
    await printRecords(context, consumer, print, options, patience);
  } finally {
    patience?.end();
  }
}

/** Prints until the count, the end, or the user says stop. */
async function printRecords(
  context: CommandContext,
  consumer: Consumer,
  print: RecordPrinter,
  options: ConsumeOptions,
  patience: Patience | undefined,
): Promise<void> {
  const { out, signal } = context;
  const most = options.count ?? Number.POSITIVE_INFINITY;
  let printed = 0;
  try {
    for await (const batch of consumer.batches({ untilEnd: options.untilEnd ?? false })) {
      for (const record of batch) {
        print(record, out);
        printed += 1;
        if (printed >= most) return;
      }
      // The time that whoever reads the output takes is not the cluster's.
      patience?.end();
      if (out.isFull) await unlessAborted(out.ready(), signal);
      if (signal.aborted) return;
      patience?.begin();
    }
  } finally {
    context.note(`${formatCount(printed)} records`);
  }
}

/** Where the client is to begin; what it does not know by itself is looked up first. */
async function clientPosition(
  context: CommandContext,
  cluster: Cluster,
  topics: readonly string[],
  from: StartPosition,
  partitions: readonly number[] | undefined,
): Promise<ConsumerOptions["from"]> {
  switch (from.kind) {
    case "earliest":
    case "latest":
      return from.kind;
    case "offset":
      return { offset: from.offset };
    case "timestamp":
      return { timestamp: from.timestamp };
    case "last":
      return lastOf(context, cluster, await partitionsOf(cluster, topics, partitions), from.records);
  }
}

async function partitionsOf(
  cluster: Cluster,
  topics: readonly string[],
  chosen: readonly number[] | undefined,
): Promise<TopicPartition[]> {
  const all: TopicPartition[] = [];
  for (const topic of topics) {
    for (const partition of chosen ?? (await cluster.partitionsOf(topic))) all.push({ topic, partition });
  }
  return all;
}

/** The offsets so many records before the end, or the oldest there is. */
async function lastOf(
  { signal }: CommandContext,
  cluster: Cluster,
  targets: readonly TopicPartition[],
  records: number,
): Promise<TopicPartitionOffset[]> {
  const admin = cluster.admin();
  const [oldest, ends] = await Promise.all([
    admin.listOffsets(
      targets.map((target) => ({ ...target, query: "earliest" as const })),
      { signal },
    ),
    admin.listOffsets(
      targets.map((target) => ({ ...target, query: "latest" as const })),
      { signal },
    ),
  ]);
  return targets.map((target, index) => {
    const oldestOffset = oldest[index]?.offset ?? 0;
    return { ...target, offset: Math.max(oldestOffset, (ends[index]?.offset ?? oldestOffset) - records) };
  });
}
