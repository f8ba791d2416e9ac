import type { Command } from "commander";
import { Option } from "commander";
import { usageError } from "./cli-error.js";
import type { CommandContext } from "./command-context.js";
import { collect } from "./quantities.js";

/** A topic may also be named by an option, as people of Kafka and kcat write it. */
export function addTopicOption(command: Command): Command {
  return command.addOption(new Option("-t, --topic <name>").argParser(collect((text: string) => text)).hideHelp());
}

/** The topics that a command names, in either way. Throws for an empty name, and for one that comes twice. */
export function topicsNamed(
  context: Pick<CommandContext, "flag">,
  words: readonly string[],
  byOption: readonly string[] | undefined,
): string[] {
  const names = [...words, ...(byOption ?? [])];
  for (const [at, name] of names.entries()) {
    if (name === "") throw usageError("the name of a topic is empty", "give its name");
    if (names.indexOf(name) === at) continue;
    const where = at < words.length ? "" : `${context.flag("topic")} `;
    throw usageError(`${where}${name} is named a second time`, "name each topic once");
  }
  return names;
}

/** The one topic that a command is for. */
export function topicNamed(
  context: Pick<CommandContext, "flag">,
  word: string | undefined,
  byOption: readonly string[] | undefined,
): string | undefined {
  const [topic, second] = topicsNamed(context, word === undefined ? [] : [word], byOption);
  if (second !== undefined)
    throw usageError(`${context.flag("topic")} ${second} is a second topic, beside ${topic}`, "name one");
  return topic;
}
