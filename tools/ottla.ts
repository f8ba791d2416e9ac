#!/usr/bin/env node
import type { CommanderError } from "commander";
import { Command } from "commander";
import { readFileSync } from "node:fs";
import type { CliError } from "./cli/cli-error.js";
import { usageError } from "./cli/cli-error.js";
import { addCommonOptions } from "./cli/command-context.js";
import { instead } from "./cli/kafka-habits.js";
import { EXIT_OK, reportError } from "./cli/run-command.js";
import { didYouMean } from "./cli/suggestion.js";
import { addBrokerCommand } from "./commands/broker.js";
import { addClusterCommands } from "./commands/cluster.js";
import { addConfigCommands } from "./commands/config.js";
import { addConsumeCommand } from "./commands/consume.js";
import { addLocalCommands } from "./commands/local.js";
import { addLogCommands } from "./commands/log.js";
import { addPerfCommands } from "./commands/perf.js";
import { addProduceCommand } from "./commands/produce.js";
import { addTopicCommands } from "./commands/topic.js";
import { addUpCommands } from "./commands/up.js";

/**
 * The program `ottla`. Builds the tree of commands and gives every wrong usage its one line; what a command does lies in
 * `commands/`, and loads the client or the broker only when it runs.
 */
async function main(args: readonly string[]): Promise<void> {
  // `ottla --help | head` is no error; nobody is left to tell.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  const program = new Command("ottla")
    .description("A distributed commit log: run a cluster, write to it, read from it.")
    .version(versionOf(), "-V, --version", "print the version")
    .enablePositionalOptions()
    .showSuggestionAfterError(false)
    .configureOutput({ outputError: () => undefined });
  addUpCommands(program);
  addLocalCommands(program);
  addBrokerCommand(program);
  addTopicCommands(program);
  addProduceCommand(program);
  addConsumeCommand(program);
  addConfigCommands(program);
  addClusterCommands(program);
  addLogCommands(program);
  addPerfCommands(program);
  for (const level of [program, ...program.commands.filter(({ commands }) => commands.length > 0)])
    addCommonOptions(level, true);
  forEachCommand(program, (command) =>
    command.exitOverride((error) => {
      throw new WrongUsage(error, command);
    }),
  );
  try {
    const instruction = instead(args.filter((arg) => arg !== "--json"));
    if (instruction !== undefined) throw usageError(`ottla ${args[0]} is no command here`, `type: ${instruction}`);
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    process.exitCode = exitCodeOf(error, args);
  }
}

/** What commander says about a command line, and of which command. */
class WrongUsage extends Error {
  override readonly name = "WrongUsage";
  constructor(
    readonly error: CommanderError,
    readonly command: Command,
  ) {
    super(error.message);
  }
}

function exitCodeOf(error: unknown, args: readonly string[]): number {
  // The options may not have been understood: whether JSON is wanted is seen from the words themselves.
  const options = { json: args.includes("--json"), debug: args.includes("--debug") };
  if (!(error instanceof WrongUsage)) return reportError(error, options);
  const { code, exitCode } = error.error;
  if (code === "commander.help")
    return reportError(usageError("no command is named", "choose one of those above"), options);
  if (exitCode === 0) return EXIT_OK;
  return reportError(explained(error), options);
}

/** Commander's sentence with the nearest name that exists. */
function explained({ error, command }: WrongUsage): CliError {
  const sentence = error.message.replace(/^error: /, "").replace(/\n[^]*$/, "");
  const given = /'([^']+)'/.exec(sentence)?.[1] ?? "";
  const help = `see ${pathOf(command)} --help`;
  switch (error.code) {
    case "commander.unknownOption": {
      const known = command.options
        .flatMap(({ long, short }) => [long, short])
        .filter((name) => name !== undefined && name !== null);
      return usageError(sentence, didYouMean(given.replace(/=.*$/s, ""), known) ?? help);
    }
    case "commander.unknownCommand": {
      const known = command.commands.flatMap((child) => [child.name(), ...child.aliases()]);
      return usageError(sentence, didYouMean(given, known) ?? help);
    }
    default:
      return usageError(sentence, help);
  }
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

function forEachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const child of command.commands) forEachCommand(child, visit);
}

/** From package.json, two levels above `dist/tools/`. */
function versionOf(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

await main(process.argv.slice(2));
