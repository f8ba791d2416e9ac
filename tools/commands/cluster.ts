import type { Command } from "commander";
import { Option } from "commander";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { formatAddress } from "../../common/host-port.js";
import { checkPartitions } from "../cli/partitions.js";
import { parseCount } from "../cli/quantities.js";
import { describeError, EXIT_FAILED, runCommand } from "../cli/run-command.js";
import { table } from "../cli/table.js";
import { usageError } from "../cli/cli-error.js";
import { withSuggestion } from "../cli/topic-suggestion.js";
import type { TopicPartition } from "../../client/index.js";

interface ElectOptions {
  readonly partition?: number;
  readonly unclean?: boolean;
}

/** `ottla cluster ...` and `ottla elect-leaders`: the cluster as a whole. */
export function addClusterCommands(program: Command): void {
  const group = program.command("cluster").description("look at the cluster as a whole");
  const describe = group
    .command("describe")
    .alias("info")
    .description("show the brokers and which of them is the controller")
    .action(() => runCommand(describe, describeCluster));
  const elect = program
    .command("elect-leaders")
    .argument("[topic]", "the topic; all partitions of all topics when none is named")
    .description("give leadership back to the preferred replicas")
    .addOption(new Option("--partition <number>", "of the topic").argParser(parseCount(0, 2 ** 31 - 1)))
    .option("--unclean", "elect from outside the in-sync replicas where nothing else is alive: loses records")
    .action((topic: string | undefined, options: ElectOptions) =>
      runCommand(elect, (context) => electLeaders(context, topic, options)),
    );
  for (const command of [describe, elect]) addCommonOptions(command);
}

async function describeCluster(context: CommandContext): Promise<void> {
  await using cluster = await connectFor(context);
  const { clusterId, controllerId, controllerEpoch, brokers } = await cluster
    .admin()
    .describeCluster({ signal: context.signal });
  const sorted = [...brokers].sort((left, right) => left.id - right.id);
  if (context.json) {
    return context.out.writeJson({
      cluster: clusterId,
      controller: controllerId,
      controllerEpoch,
      brokers: sorted.map(({ id, host, port, rack, epoch }) => ({ id, host, port, rack, epoch })),
    });
  }
  const controller =
    controllerId < 0 ? "no controller at the moment" : `controller ${controllerId} (epoch ${controllerEpoch})`;
  context.out.writeText(`cluster ${clusterId}  ${controller}\n`);
  context.out.writeText(
    table(
      ["BROKER", "ADDRESS", "RACK", "EPOCH"],
      sorted.map(({ id, host, port, rack, epoch }) => [id, formatAddress({ host, port }), rack ?? "-", epoch]),
    ),
  );
}

async function electLeaders(
  context: CommandContext,
  topic: string | undefined,
  options: ElectOptions,
): Promise<number> {
  if (topic === undefined && options.partition !== undefined)
    throw usageError("--partition needs a topic", "type ottla elect-leaders TOPIC --partition N");
  await using cluster = await connectFor(context);
  let chosen: readonly TopicPartition[] | "all" = "all";
  if (topic !== undefined) {
    const existing = await withSuggestion(cluster.admin(), [topic], () => cluster.partitionsOf(topic));
    const wanted = options.partition === undefined ? undefined : [options.partition];
    checkPartitions(context, topic, existing, wanted);
    chosen = (wanted ?? existing).map((partition) => ({ topic, partition }));
  }
  const results = await cluster
    .admin()
    .electLeaders(chosen, { unclean: options.unclean ?? false, signal: context.signal });
  const rows: (string | number)[][] = [];
  let failed = 0;
  for (const { topic: name, partition, leader, error } of results) {
    const reason = error === undefined ? undefined : describeError(error).name;
    // Led as asked already is what was asked for.
    if (reason !== undefined && reason !== "ELECTION_NOT_NEEDED") failed += 1;
    if (context.json)
      context.out.writeJson({ topic: name, partition, leader, error: reason === undefined ? null : { name: reason } });
    else rows.push([name, partition, leader < 0 ? "none" : leader, reason ?? "elected"]);
  }
  if (results.length === 0 && !context.json)
    context.note(
      options.unclean === true ? "every partition has a leader" : "every partition is led by its preferred replica",
    );
  if (rows.length > 0) context.out.writeText(table(["TOPIC", "PARTITION", "LEADER", "RESULT"], rows));
  return failed > 0 ? EXIT_FAILED : 0;
}
