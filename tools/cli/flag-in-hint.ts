import { CliError } from "./cli-error.js";
import type { CommandContext } from "./command-context.js";
import { describeError } from "./run-command.js";

/** What was refused far away is told with the flag that asked for it: `give at most 3 (--replication)`. */
export function withFlagInHint(error: unknown, flag: string): CliError {
  const { name, message, hint, retriable, exitCode } = describeError(error);
  return new CliError(name, message, {
    hint: hint === undefined || /^correct /.test(hint) ? `correct ${flag}` : `${hint} (${flag})`,
    retriable,
    exitCode,
    cause: error,
  });
}

/** Does the work; an error of one of these names is told with the flag of its option, if that was given. */
export async function hintingAtFlags<Options extends object, T>(
  { flag }: Pick<CommandContext, "flag">,
  options: Options,
  attributes: Readonly<Record<string, keyof Options & string>>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { name } = describeError(error);
    const attribute = Object.hasOwn(attributes, name) ? attributes[name] : undefined;
    if (attribute === undefined || options[attribute] === undefined) throw error;
    throw withFlagInHint(error, flag(attribute));
  }
}
