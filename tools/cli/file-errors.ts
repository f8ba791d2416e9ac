import { CliError } from "./cli-error.js";
import { describeError } from "./run-command.js";

/** Does what reads the file that a flag names; what the system says of the file is told with the flag. */
export async function namingFlag<T>(flag: string, path: string, read: () => T | Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    // Of a file that is open already the system does not say the name: a directory is found out when it is read.
    const system = error as NodeJS.ErrnoException;
    if (typeof system.code === "string" && system.syscall !== undefined) system.path ??= path;
    const { name, message, hint, exitCode } = describeError(error);
    if (name !== "FILE_ERROR") throw error;
    throw new CliError(name, `${flag} ${message}`, { ...(hint === undefined ? {} : { hint }), exitCode, cause: error });
  }
}
