import type { Admin } from "../../client/index.js";
import { CliError } from "./cli-error.js";
import { didYouMean } from "./suggestion.js";
import { describeError } from "./run-command.js";

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
    const hint = unknown === undefined ? undefined : didYouMean(unknown, known);
    if (hint === undefined) throw error;
    throw new CliError(errorName, message, { hint, cause: error });
  }
}
