import type { Command } from "commander";
import { Option } from "commander";
import { CliError, usageError } from "./cli-error.js";
import { didYouMean } from "./suggestion.js";
import { invocationOf } from "./terminal.js";

/**
 * Options as they were typed: an error names the flag that stands on the command line (`-p`, `--partitions`,
 * `--bootstrap-server`), whatever the option is called in the code.
 */

/** Another name for an option, which people of other tools type. Not listed in the help. */
class AliasOption extends Option {
  constructor(
    flags: string,
    private readonly target: Option,
  ) {
    super(flags);
    if (emptiable.has(target)) emptiable.add(this);
    if (target.parseArg !== undefined) this.parseArg = target.parseArg;
    if (target.argChoices !== undefined) this.argChoices = target.argChoices;
    this.hideHelp();
  }

  override attributeName(): string {
    return this.target.attributeName();
  }
}

const emptiable = new WeakSet<Option>();

/** An option to which the empty text is a value like any other. */
export function mayBeEmpty(option: Option): Option {
  emptiable.add(option);
  return option;
}

/** Adds other names to an option of the command: `addAliases(consume, "count", "-n, --num <number>")`. */
export function addAliases(command: Command, attribute: string, ...flags: readonly string[]): Command {
  const target = command.options.find((option) => option.attributeName() === attribute);
  if (target === undefined) throw new Error(`${command.name()} has no option ${attribute}`);
  for (const one of flags) command.addOption(new AliasOption(one, target));
  return command;
}

/** What an option that people of other tools type is answered with. */
export function refuseOption(command: Command, flags: string, what: string, hint: string): Command {
  return command.addOption(
    new Option(flags).hideHelp().argParser(() => {
      throw new CliError("USAGE", what, { hint, exitCode: 2 });
    }),
  );
}

/** The flag by which an option was given; its long name when it was not. With `value`: where it was given that value. */
export function typedFlag(command: Command, attribute: string, value?: string): string {
  const options = optionsOf(command).filter((option) => option.attributeName() === attribute);
  const { args } = invocationOf(command);
  for (const [at, word] of args.entries()) {
    if (word === "--") break;
    for (const option of options) {
      const flag = flagIn(word, args[at + 1], option, value);
      if (flag !== undefined) return flag;
    }
  }
  const [own] = options;
  return own?.long ?? own?.short ?? attribute;
}

/** Those of the command, and of the levels above it. */
function optionsOf(command: Command): readonly Option[] {
  return command.parent === null ? command.options : [...command.options, ...optionsOf(command.parent)];
}

/** The flag of the option that a word is, when its value is the given one. */
function flagIn(word: string, next: string | undefined, option: Option, value: string | undefined): string | undefined {
  const fits = (given: string | undefined): boolean => value === undefined || given === value;
  const { long, short } = option;
  if (long !== undefined && long !== null) {
    if (word === long && (option.isBoolean() || fits(next))) return long;
    if (word.startsWith(`${long}=`) && fits(word.slice(long.length + 1))) return long;
  }
  if (short === undefined || short === null || !/^-[^-]/.test(word)) return undefined;
  // `-p 1`, `-p1`, and behind flags that take no value: `-ep 1`.
  if (word === short && (option.isBoolean() || fits(next))) return short;
  if (word.endsWith(short.slice(1)) && /^-[a-zA-Z]+$/.test(word) && (option.isBoolean() || fits(next))) return short;
  return word.startsWith(short) && fits(word.slice(2)) ? short : undefined;
}

/**
 * Makes each refusal of a value name its flag, refuses an empty value, and takes no flag of the command for a value that
 * was forgotten.
 */
export function nameFlagsInErrors(command: Command): void {
  for (const option of command.options) {
    if (!option.required && !option.optional) continue;
    const { argChoices } = option;
    const parse: ((text: string, previous: unknown) => unknown) | undefined =
      argChoices === undefined ? option.parseArg : (text) => choice(text, argChoices);
    option.argParser<unknown>((text, previous) => {
      const flag = typedFlag(command, option.attributeName(), text);
      const { args } = invocationOf(command);
      const isFlag = optionsOf(command).some(({ long }) => long === text);
      if (isFlag && !args.includes(`${flag}=${text}`))
        throw usageError(`${flag} has no value`, `write ${option.flags.replace(/^.*?(?=[<[])/, `${flag} `)}`);
      if (text === "" && !emptiable.has(option)) throw usageError(`${flag} is empty`, `see ${pathOf(command)} --help`);
      try {
        return parse === undefined ? text : parse(text, previous);
      } catch (error) {
        if (!(error instanceof CliError) || error.errorName !== "USAGE") throw error;
        throw usageError(`${flag} ${error.message}`, error.hint ?? `see ${pathOf(command)} --help`);
      }
    });
  }
}

function choice(text: string, choices: readonly string[]): string {
  if (choices.includes(text)) return text;
  const known = choices.length === 1 ? `only ${choices[0]} is known` : `choose one of ${choices.join(", ")}`;
  throw usageError(`${text} is not known`, didYouMean(text, choices) ?? known);
}

/** The words that lead to a command: `ottla topic create`. */
export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}
