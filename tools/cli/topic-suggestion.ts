import type { Admin } from "../../client/index.js";
import { CliError } from "./cli-error.js";
import { didYouMean } from "./suggestion.js";
import { describeError } from "./run-command.js";

/** A format or a header whose second word the shell has cut off is taken for a topic. */
const QUOTES_HINT = "that is no name a topic can have; when it belongs to the word before, put both in quotes";
const isTopicName = (text: string): boolean => /^[A-Za-z0-9._-]{1,249}$/.test(text);

/** Adds the name that was probably meant to the error about a topic that does not exist. */
export async function withSuggestion<T>(admin: Admin, names: readonly string[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { name: errorName, message } = describeError(error);
    if (errorName !== "UNKNOWN_TOPIC_OR_PARTITION") throw error;
    const topics = await admin.listTopics().catch(() => []);
    const known = topics.map(({ name }) => name);
    const unknown = names.find((name) => !known.includes(name));
    const hint = unknown === undefined ? undefined : isTopicName(unknown) ? didYouMean(unknown, known) : QUOTES_HINT;
    if (hint === undefined) throw error;
    throw new CliError(errorName, message, { hint, cause: error });
  }
}
