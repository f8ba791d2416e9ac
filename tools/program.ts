import type { CommanderError } from "commander";
import { Command } from "commander";
import type { CliError } from "./cli/cli-error.js";
import { usageError } from "./cli/cli-error.js";
import { addCommonOptions } from "./cli/command-context.js";
import { addHelpCommand, completeHelp } from "./cli/help.js";
import { instead } from "./cli/kafka-habits.js";
import { EXIT_OK, reportError } from "./cli/run-command.js";
import { didYouMean } from "./cli/suggestion.js";
import type { Terminal } from "./cli/terminal.js";
import { processTerminal, setInvocation } from "./cli/terminal.js";
import { nameFlagsInErrors, pathOf } from "./cli/typed-options.js";
import { asTyped } from "./cli/typed-program.js";
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

/** The tree of commands, in the order of the help. */
export function commandTree(version: string): Command {
  const program = new Command("ottla")
    .description("A distributed commit log: run a cluster, write to it, read from it.")
    .version(version, "-V, --version", "print the version")
    .enablePositionalOptions()
    .showSuggestionAfterError(false);
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
  for (const level of [program, ...program.commands.filter(({ commands }) => commands.length > 0)]) {
    addCommonOptions(level, true);
    addHelpCommand(level);
  }
  forEachCommand(program, completeHelp);
  return program;
}

/**
 * The program `ottla`. Gives every wrong usage its one line; what a command does lies in `commands/`, and loads the client
 * or the broker only when it runs. Resolves with the exit code, unless a command has ended the terminal with its own.
 */
export async function runProgram(
  args: readonly string[],
  version: string,
  terminal: Terminal = processTerminal,
): Promise<number> {
  // `ottla --help | head` is no error; nobody is left to tell.
  for (const stream of [terminal.stdout, terminal.stderr]) stream.on("error", () => undefined);
  const program = commandTree(version);
  setInvocation(program, { args, terminal });
  forEachCommand(program, (command) => {
    nameFlagsInErrors(command);
    command
      .configureOutput({
        writeOut: (text) => void terminal.stdout.write(asTyped(text)),
        // The help of a group that is typed without a command is as long as that of `--help`: its error names them.
        writeErr: (text) => {
          if (command === program) terminal.stderr.write(asTyped(text));
        },
        outputError: () => undefined,
      })
      .exitOverride((error) => {
        throw new WrongUsage(error, command);
      });
  });
  try {
    const instruction = instead(args.filter((arg) => arg !== "--json"));
    if (instruction !== undefined) throw usageError(`ottla ${args[0]} is no command here`, instruction);
    await program.parseAsync([...args], { from: "user" });
    return EXIT_OK;
  } catch (error) {
    return exitCodeOf(error, args, terminal);
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

function exitCodeOf(error: unknown, args: readonly string[], { stderr }: Terminal): number {
  // The options may not have been understood: whether JSON is wanted is seen from the words themselves.
  const options = { json: args.includes("--json"), debug: args.includes("--debug") };
  if (!(error instanceof WrongUsage)) return reportError(error, options, stderr);
  if (error.error.exitCode === 0) return EXIT_OK;
  return reportError(explained(error, args), options, stderr);
}

/** Commander's sentence with the nearest name that exists, and with the flags that were typed. */
function explained({ error, command }: WrongUsage, args: readonly string[]): CliError {
  const sentence = error.message.replace(/^error: /, "").replace(/\n[^]*$/, "");
  const given = /'([^]*)'/.exec(sentence)?.[1] ?? "";
  const help = `see ${pathOf(command)} --help`;
  const { options, commands } = command;
  switch (error.code) {
    case "commander.help": {
      if (command.parent === null) return usageError("no command is named", "choose one of those above");
      const names = commands.map((child) => child.name()).filter((name) => name !== "help");
      return usageError(`${pathOf(command)} what?`, `add one of ${names.join(", ")}`);
    }
    case "commander.unknownOption": {
      const [flag] = given.split("=") as [string];
      const flags = options.flatMap(({ long, short }) => [long, short]).filter((name) => typeof name === "string");
      if (flag !== given && flags.includes(flag))
        return usageError(`${given}: ${flag} takes no value`, `write ${flag}`);
      const owner = commandWith(command, flag, args);
      if (owner !== undefined) return usageError(sentence, `write it behind ${pathOf(owner)}`);
      return usageError(sentence, didYouMean(flag, flags) ?? help);
    }
    case "commander.unknownCommand": {
      const known = commands.flatMap((child) => [child.name(), ...child.aliases()]);
      return usageError(sentence, didYouMean(given, known) ?? help);
    }
    case "commander.optionMissingArgument": {
      // Of `-p, --partition <number>` what was typed: it is the last word, because any word behind it is its value.
      const option = options.find(({ flags }) => flags === given);
      const typed = args[args.length - 1];
      const flag = typed !== undefined && (typed === option?.short || typed === option?.long) ? typed : option?.long;
      const value = /[<[].*$/.exec(given)?.[0] ?? "";
      return usageError(`${flag ?? given} has no value`, `write ${flag ?? ""} ${value}`);
    }
    case "commander.missingMandatoryOptionValue": {
      const flags = given.replace(/^-\w, /, "");
      return usageError(`${flags.replace(/ .*$/, "")} is missing`, `write ${pathOf(command)} ... ${flags}`);
    }
    case "commander.excessArguments": {
      const surplus = command.args[command.registeredArguments.length] ?? "";
      return usageError(`${shown(surplus)} is one word too many`, `type ${usageOf(command)}`);
    }
    case "commander.missingArgument":
      return usageError(`${pathOf(command)}: no ${given} is named`, `type ${usageOf(command)}`);
    default:
      return usageError(sentence, help);
  }
}

const shown = (word: string): string => (word === "" || /\s/.test(word) ? `'${word}'` : word);

/** `ottla config set KIND NAME NAME=VALUE...` */
function usageOf(command: Command): string {
  const words = command.registeredArguments.map((argument) => {
    const name = `${argument.name().toUpperCase()}${argument.variadic ? "..." : ""}`;
    return argument.required ? name : `[${name}]`;
  });
  return [pathOf(command), ...words].join(" ");
}

/** The command below that was typed and has the option: it was written too far to the left. */
function commandWith(command: Command, flag: string, args: readonly string[]): Command | undefined {
  for (const child of command.commands) {
    if (![child.name(), ...child.aliases()].some((name) => args.includes(name))) continue;
    if (child.options.some(({ long, short }) => long === flag || short === flag)) return child;
    const found = commandWith(child, flag, args);
    if (found !== undefined) return found;
  }
  return undefined;
}

function forEachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const child of command.commands) forEachCommand(child, visit);
}
