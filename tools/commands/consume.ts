import type { Command } from "commander";
import { Option } from "commander";
import type { Consumer, Position, UnreadablePolicy } from "../../client/index.js";
import { usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { unlessAborted } from "../cli/interruption.js";
import { Patience } from "../cli/patience.js";
import { checkPartitions } from "../cli/partitions.js";
import { collectList, parseCount, plural } from "../cli/quantities.js";
import type { RecordPrinter } from "../cli/record-format.js";
import { parseFormat, recordPrinter } from "../cli/record-format.js";
import { runCommand } from "../cli/run-command.js";
import type { StartPosition } from "../cli/start-position.js";
import { parseStartPosition } from "../cli/start-position.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import { addTopicOption, topicsNamed } from "../cli/topic-names.js";
import { addAliases, refuseOption } from "../cli/typed-options.js";
import { unreadableOption } from "../cli/unreadable-option.js";

interface ConsumeOptions {
  readonly from?: StartPosition;
  readonly fromBeginning?: boolean;
  readonly partition?: readonly number[];
  readonly count?: number;
  readonly untilEnd?: boolean;
  readonly format?: string;
  readonly onUnreadable?: UnreadablePolicy;
  readonly topic?: readonly string[];
}

/** `ottla consume`: records become lines. */
export function addConsumeCommand(program: Command): void {
  const command = program
    .command("consume")
    .argument("[topics...]", "the topics to read")
    .description("read records and print them")
    .option(
      "-o, --from <position>",
      "earliest, latest (the default), an offset, -N for the last N of each partition, a time, @milliseconds, or 5m (so long ago)",
      (text: string) => parseStartPosition(text),
    )
    .option(
      "-p, --partition <number>",
      "read this partition only; may be repeated, or a list like 0,1",
      collectList(parseCount(0, 2 ** 31 - 1)),
    )
    .option("-c, --count <number>", "stop after so many records", parseCount())
    .option("-e, --until-end", "stop at the end that each partition has now")
    .option(
      "-f, --format <format>",
      "value, json, or a template: %t topic, %p partition, %o offset, %k key, %v value, %T timestamp, %d time, %h headers, \\n",
      parseFormat,
    )
    .addOption(unreadableOption())
    .addOption(new Option("--from-beginning").hideHelp())
    .action((topics: readonly string[], options: ConsumeOptions) =>
      runCommand(command, (context) => consume(context, topicsNamed(context, topics, options.topic), options)),
    );
  addTopicOption(command);
  addCommonOptions(command);
  // As people of Kafka, kcat and rpk write them.
  addAliases(command, "from", "--offset <position>");
  addAliases(command, "count", "-n, --num <number>", "--max-messages <number>");
  addAliases(command, "partition", "--partitions <number>");
  refuseOption(
    command,
    "-g, --group <name>",
    "is for consumer groups, and there are none yet",
    "leave it out: this reads without a group, from where --from says",
  );
}

async function consume(context: CommandContext, topics: readonly string[], options: ConsumeOptions): Promise<void> {
  const [firstTopic] = topics;
  if (firstTopic === undefined) throw usageError("no topic is named", "type ottla consume TOPIC");
  if (options.from?.kind === "timestamp" && topics.includes("ago"))
    throw usageError(`${context.flag("from")} takes one word, and ago is another`, "write 5m, or '5m ago'");
  if (options.partition !== undefined && topics.length > 1)
    throw usageError(`${context.flag("partition")} goes with one topic`, "run one ottla consume for each topic");
  if (options.fromBeginning === true && options.from !== undefined && options.from.kind !== "earliest")
    throw usageError(`--from-beginning and ${context.flag("from")} do not go together`, "leave out one of them");
  const print = recordPrinter(options.format ?? (context.json ? "json" : "value"), context.encoding);
  const from = options.from ?? { kind: options.fromBeginning === true ? "earliest" : "latest" };
  await using cluster = await connectFor(context);
  const [partitions] = await withSuggestion(cluster.admin(), topics, () =>
    Promise.all(topics.map((topic) => cluster.partitionsOf(topic))),
  );
  checkPartitions(context, firstTopic, partitions, options.partition);
  if (options.count === 0) return;
  // One that follows waits for ever; one that reads to an end must not.
  const patience = options.untilEnd === true ? new Patience(context.timeoutMs) : undefined;
  await using consumer = cluster.consumer({
    ...(options.partition === undefined ? { topics } : { topic: firstTopic, partitions: options.partition }),
    from: clientPosition(from),
    ...(options.onUnreadable === undefined ? {} : { onUnreadable: options.onUnreadable }),
    signal: patience === undefined ? context.signal : AbortSignal.any([context.signal, patience.signal]),
  });
  if (from.kind === "latest" && options.untilEnd !== true)
    context.note(`waiting for new records of ${topics.join(", ")}; Ctrl-C ends, --from earliest shows those before`);
  try {
    const printed = await printRecords(context, consumer, print, options, patience);
    const isByDefault = options.from === undefined && options.fromBeginning !== true;
    if (printed === 0 && isByDefault && !context.signal.aborted)
      context.note("without --from it begins at the end; --from earliest shows the records that are there");
  } finally {
    patience?.end();
  }
}

/** Prints until the count, the end, or the user says stop; resolves with how many it printed. */
async function printRecords(
  context: CommandContext,
  consumer: Consumer,
  print: RecordPrinter,
  options: ConsumeOptions,
  patience: Patience | undefined,
): Promise<number> {
  const { out, signal } = context;
  const most = options.count ?? Number.POSITIVE_INFINITY;
  let printed = 0;
  let isWhole = false;
  try {
    for await (const batch of consumer.batches({ untilEnd: options.untilEnd ?? false })) {
      for (const record of batch) {
        print(record, out);
        printed += 1;
        if (printed >= most) {
          isWhole = true;
          return printed;
        }
      }
      // The time that whoever reads the output takes is not the cluster's.
      patience?.end();
      if (out.isFull) await unlessAborted(out.ready(), signal);
      if (signal.aborted) return printed;
      patience?.begin();
    }
    isWhole = true;
    return printed;
  } finally {
    // When it fails at once, the error says all there is to say.
    if (isWhole || printed > 0 || signal.aborted) context.note(plural(printed, "record"));
  }
}

function clientPosition(from: StartPosition): Position {
  switch (from.kind) {
    case "earliest":
    case "latest":
      return from.kind;
    case "offset":
      return { offset: from.offset };
    case "timestamp":
      return { timestamp: from.timestamp };
    case "last":
      return { last: from.records };
  }
}
