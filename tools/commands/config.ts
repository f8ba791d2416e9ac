import type { Command } from "commander";
import type { ConfigDescription, ConfigTarget } from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { connectFor } from "../cli/cluster-connection.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { SETTINGS_HINT } from "../cli/in-flags.js";
import { collectSettings } from "../cli/quantities.js";
import { describeError, runCommand } from "../cli/run-command.js";
import { didYouMean } from "../cli/suggestion.js";
import { table } from "../cli/table.js";
import { withSuggestion } from "../cli/topic-suggestion.js";

const KINDS = "topic or broker";
const NAME = "its name; for a broker its id, or `default` for all brokers";

/** `ottla config ...`: settings of topics and brokers. */
export function addConfigCommands(program: Command): void {
  const group = program
    .command("config")
    .alias("configs")
    .description("look at and change settings of topics and brokers");
  const describe = group
    .command("describe")
    .alias("get")
    .argument("<kind>", KINDS)
    .argument("<name>", NAME)
    .description("show settings, their values and where those come from")
    .option("--all", "also those that nobody changed")
    .action((kind: string, name: string, options: { readonly all?: boolean }) =>
      runCommand(describe, (context) => describeConfig(context, targetOf(kind, name), options.all ?? false)),
    );
  const set = group
    .command("set")
    .alias("alter")
    .argument("<kind>", KINDS)
    .argument("<name>", NAME)
    .argument("<name=value...>", "settings")
    .description("change settings while everything runs")
    .action((kind: string, name: string, given: readonly string[]) =>
      runCommand(set, (context) =>
        alter(
          context,
          targetOf(kind, name),
          Object.fromEntries(
            given.reduce<readonly (readonly [string, string])[]>((all, text) => collectSettings(text, all), []),
          ),
        ),
      ),
    );
  const unset = group
    .command("unset")
    .argument("<kind>", KINDS)
    .argument("<name>", NAME)
    .argument("<settings...>", "their names")
    .description("go back to the defaults")
    .action((kind: string, name: string, given: readonly string[]) =>
      runCommand(unset, (context) =>
        alter(context, targetOf(kind, name), Object.fromEntries(given.map((setting) => [setting, null]))),
      ),
    );
  for (const command of [describe, set, unset]) addCommonOptions(command);
}

function targetOf(kind: string, name: string): ConfigTarget {
  if (name === "") throw usageError(`the name of the ${kind} is empty`, "give its name");
  switch (kind.replace(/s$/, "")) {
    case "topic":
      return { topic: name };
    case "broker":
      if (name === "default" || name === "<default>") return { broker: "" };
      if (!/^\d+$/.test(name))
        throw usageError(`${name} is not the id of a broker`, "give a number, or default for all");
      return { broker: Number(name) };
    case "client":
      throw usageError("clients have no settings at brokers yet", `name a ${KINDS}`);
    default:
      throw usageError(`${kind} has no settings`, didYouMean(kind, ["topic", "broker"]) ?? `name a ${KINDS}`);
  }
}

const topicsIn = (target: ConfigTarget): string[] => ("topic" in target ? [target.topic] : []);

async function describeConfig(context: CommandContext, target: ConfigTarget, all: boolean): Promise<void> {
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  const settings = await withSuggestion(admin, topicsIn(target), () =>
    admin.describeConfigs(target, { signal: context.signal }),
  );
  if (context.json) {
    for (const { name, value, source, type, unit, readOnly } of settings)
      context.out.writeJson({ name, value, source, type, unit: unit === "" ? null : unit, readOnly });
    return;
  }
  // A topic's settings are few; a broker's are many, and mostly as they always are.
  const shown = "broker" in target && !all ? settings.filter(({ source }) => source !== "default") : settings;
  if (shown.length > 0) context.out.writeText(forPeople(shown));
  if (shown.length < settings.length)
    context.note(`${settings.length - shown.length} more have their default; see --all`);
}

/** Where a setting is refused, the command that lists those that there are. */
function withSettingsOf(target: ConfigTarget, error: unknown): unknown {
  const { name, message, hint, exitCode } = describeError(error);
  if (hint !== SETTINGS_HINT || "client" in target) return error;
  const words =
    "topic" in target ? `topic ${target.topic}` : `broker ${target.broker === "" ? "default" : target.broker} --all`;
  return new CliError(name, message, { hint: `see ottla config describe ${words}`, exitCode, cause: error });
}

function forPeople(settings: readonly ConfigDescription[]): string {
  return table(
    ["SETTING", "VALUE", "UNIT", "FROM"],
    settings.map(({ name, value, unit, source }) => [name, value, unit, source]),
  );
}

async function alter(
  context: CommandContext,
  target: ConfigTarget,
  changes: Record<string, string | null>,
): Promise<void> {
  await using cluster = await connectFor(context);
  const admin = cluster.admin();
  try {
    await withSuggestion(admin, topicsIn(target), () =>
      admin.alterConfigs(target, changes, { signal: context.signal }),
    );
  } catch (error) {
    throw withSettingsOf(target, error);
  }
  if (context.json) context.out.writeJson({ altered: Object.keys(changes) });
  else context.out.writeText(`altered ${Object.keys(changes).join(", ")}\n`);
}
