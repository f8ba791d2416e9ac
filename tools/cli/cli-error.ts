/**
 * What a command says instead of doing its work: one line, `error: NAME: what - what to do`. Thrown anywhere in `tools/`,
 * printed once, by `run-command.ts`. `exitCode` 1: the cluster or the data said no; 2: the command was typed wrongly.
 */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly hint: string | undefined;
  readonly retriable: boolean;
  readonly exitCode: number;

  constructor(
    /** In capitals, for scripts: `PORT_TAKEN`. */
    readonly errorName: string,
    message: string,
    options: {
      readonly hint?: string;
      readonly retriable?: boolean;
      readonly exitCode?: number;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.hint = options.hint;
    this.retriable = options.retriable ?? false;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** The command was typed wrongly: exit code 2. */
export function usageError(message: string, hint?: string): CliError {
  return new CliError("USAGE", message, { exitCode: 2, ...(hint === undefined ? {} : { hint }) });
}
