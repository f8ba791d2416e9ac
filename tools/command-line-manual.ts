import type { Command, Option } from "commander";
import { helpPages } from "./cli/help.js";
import { pathOf } from "./cli/typed-options.js";
import { commandTree } from "./program.js";

const COMMON = ["bootstrap", "json", "timeout", "encoding", "debug"];

/** docs/command-line.md, printed from the tree of commands. `npm run docs` writes it; a test compares. */
export function commandLineManual(): string {
  const program = commandTree("");
  const commands = leavesOf(program).filter((command) => helpPages[pathOf(command)] !== undefined);
  // One that shows all of them.
  const reading = commands.find((command) => pathOf(command) === "ottla consume");
  const common = (reading?.options ?? []).filter(isCommon);
  const isShown = ({ hidden }: Option): boolean => !hidden;
  return [
    "# The command line",
    "",
    "<!-- Printed from tools/commands/ by `npm run docs`; edit the options there. -->",
    "",
    "What `ottla COMMAND --help` says, on one page. A name behind *also* is what people of other tools type.",
    "",
    "The exit code is 0 when it is done, 1 when the cluster or the data said no, 2 when the command was typed wrongly, 130 when",
    "it was interrupted. An error is one line on stderr, `error: NAME: what - what to do`. With `--json` stdout has one object a",
    "line and nothing else, and an error is printed on stderr as an object as well.",
    "",
    "## Options of many commands",
    "",
    ...listOf(
      common.filter(isShown),
      common.filter((option) => !isShown(option)),
    ),
    "",
    ...commands.flatMap(sectionOf),
  ].join("\n");
}

function sectionOf(command: Command): string[] {
  const words = command.registeredArguments.map((argument) => {
    const name = `${argument.name().toUpperCase()}${argument.variadic ? "..." : ""}`;
    return argument.required ? name : `[${name}]`;
  });
  const shown = command.options.filter((option) => !option.hidden && !isCommon(option));
  const used = command.options.filter((option) => isCommon(option) && !option.hidden);
  const others = command.options.filter((option) => option.hidden && !isCommon(option));
  const also = [command.parent?.aliases() ?? [], command.aliases()].flat().map((name) => `\`${name}\``);
  return [
    `## ${[pathOf(command), ...words].join(" ")}`,
    "",
    `${sentence(command.description())}${also.length > 0 ? ` Also ${also.join(", ")}.` : ""}`,
    "",
    ...(shown.length > 0 ? [...listOf(shown, others), ""] : []),
    `With ${used.map(({ long }) => `\`${long}\``).join(", ")}.`,
    "",
    "```text",
    ...(helpPages[pathOf(command)]?.examples ?? []),
    "```",
    "",
  ];
}

/** One line for each, with the names that mean the same. */
function listOf(options: readonly Option[], others: readonly Option[]): string[] {
  return options.map((option) => {
    const same = others.filter((other) => other.attributeName() === option.attributeName());
    const names = same.flatMap(({ short, long }) => [short, long]).filter((name) => typeof name === "string");
    const also = names.length > 0 ? ` (also ${names.map((name) => `\`${name}\``).join(", ")})` : "";
    const choices =
      option.argChoices === undefined || option.argChoices.length === 1
        ? ""
        : `; one of ${option.argChoices.join(", ")}`;
    const usual = option.defaultValue === undefined ? "" : `; ${String(option.defaultValue)} if it is left out`;
    return `- \`${option.flags}\`: ${option.description}${choices}${usual}${also}`;
  });
}

const isCommon = (option: Option): boolean => COMMON.includes(option.attributeName());
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

function leavesOf(command: Command): Command[] {
  return command.commands.length === 0 ? [command] : command.commands.flatMap(leavesOf);
}
