import { CliError } from "./cli-error.js";
import { describeError } from "./run-command.js";

/** Does what opens the file that a flag names; what the system says of the file is told with the flag. */
export async function namingFlag<T>(flag: string, open: () => T | Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    const { name, message, hint, exitCode } = describeError(error);
    if (name !== "FILE_ERROR") throw error;
    throw new CliError(name, `${flag} ${message}`, { ...(hint === undefined ? {} : { hint }), exitCode, cause: error });
  }
}
