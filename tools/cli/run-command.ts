import type { Command } from "commander";
import type { CommandContext } from "./command-context.js";
import { commonOptionsOf } from "./command-context.js";
import { CliError } from "./cli-error.js";
import { told } from "./in-flags.js";
import { reasonOf } from "../../common/logger.js";
import { Stdout } from "./stdout.js";
import { invocationOf } from "./terminal.js";
import { typedFlag } from "./typed-options.js";
import { asTyped } from "./typed-program.js";

/** After the first signal a command has so long to flush and end. */
const END_AFTER_SIGNAL_MS = 5000;

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
export const EXIT_INTERRUPTED = 130;

/** The reason of `context.signal` when the reader of stdout has gone away: no error, nobody is left to tell. */
class StdoutClosed extends Error {
  override readonly name = "StdoutClosed";
}

/** What a command does; it may return an exit code, otherwise it is 0, or 130 after an interruption. */
export type CommandBody = (context: CommandContext) => Promise<number | void>;

/**
 * Runs a command from its parsed options to the end of the process: signals, closed pipes, the one line an error gets,
 * the exit code. `signals: "own"` is for commands that end by a signal in the normal course (`broker`, `up`).
 */
export async function runCommand(
  command: Command,
  body: CommandBody,
  options: { readonly signals?: "own" } = {},
): Promise<void> {
  const { terminal } = invocationOf(command);
  const { stderr } = terminal;
  const common = commonOptionsOf(command, terminal.environment);
  const out = new Stdout(terminal.stdout);
  const aborting = new AbortController();
  let interrupted = false;
  if (options.signals !== "own") {
    terminal.onInterrupt(() => {
      interrupted = true;
      setTimeout(() => terminal.end(EXIT_INTERRUPTED), END_AFTER_SIGNAL_MS).unref();
      aborting.abort(new Error("interrupted"));
    });
  }
  // Nobody reads stderr any more: there is nobody to tell that to.
  stderr.on("error", () => undefined);
  void out.closed.then(() =>
    aborting.abort(out.failure && isBrokenPipe(out.failure) ? new StdoutClosed() : out.failure),
  );
  const context: CommandContext = {
    ...common,
    out,
    signal: aborting.signal,
    stdin: terminal.stdin,
    isTyped: terminal.isTyped,
    flag: (attribute) => typedFlag(command, attribute),
    note: (sentence) => {
      if (!common.json) stderr.write(`${asTyped(sentence)}\n`);
    },
  };
  let exitCode: number;
  try {
    const returned = await body(context);
    await out.flush();
    if (out.failure !== undefined && !isBrokenPipe(out.failure)) throw out.failure;
    exitCode = interrupted ? EXIT_INTERRUPTED : (returned ?? EXIT_OK);
  } catch (error) {
    if (interrupted) exitCode = EXIT_INTERRUPTED;
    else if (aborting.signal.reason instanceof StdoutClosed) exitCode = EXIT_OK;
    else {
      // What was printed before it stands before it.
      await out.flush();
      exitCode = reportError(error, common, stderr);
    }
    await out.flush();
  }
  terminal.end(exitCode);
}

function isBrokenPipe(error: Error): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "EPIPE" || code === "ECONNRESET" || code === "ERR_STREAM_DESTROYED";
}

/** Prints an error as scripts and people expect it, and returns the exit code that goes with it. */
export function reportError(
  error: unknown,
  options: { readonly json: boolean; readonly debug: boolean },
  stderr: NodeJS.WritableStream = process.stderr,
): number {
  const { name, retriable, exitCode, ...said } = describeError(error);
  const message = asTyped(said.message);
  const hint = said.hint === undefined ? undefined : asTyped(said.hint);
  stderr.write(`error: ${name}: ${oneLine(message)}${hint === undefined ? "" : ` - ${oneLine(hint)}`}\n`);
  if (options.json) {
    stderr.write(`${JSON.stringify({ error: { name, message, hint: hint ?? null, retriable } })}\n`);
  }
  if (options.debug && error instanceof Error) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) stderr.write(`${cause.stack}\n`);
  }
  return exitCode;
}

interface DescribedError {
  readonly name: string;
  readonly message: string;
  readonly hint: string | undefined;
  readonly retriable: boolean;
  readonly exitCode: number;
}

/** Name, sentence and next step of anything that was thrown. */
export function describeError(error: unknown): DescribedError {
  if (error instanceof CliError) {
    const { errorName: name, message, hint, retriable, exitCode } = error;
    return { name, message, hint, retriable, exitCode };
  }
  if (hasErrorShape(error)) {
    const { code: name, retriable } = error;
    const { message, hint } = told(error);
    // What the client refuses before it asks anybody was typed wrongly.
    const exitCode = error.exitCode ?? (name === "INVALID_ARGUMENT" ? EXIT_USAGE : EXIT_FAILED);
    return { name, message, hint, retriable, exitCode };
  }
  const { code, path } = error as NodeJS.ErrnoException;
  if (typeof code === "string" && typeof path === "string") {
    const { message, hint } = describeFileError(code, path);
    return { name: "FILE_ERROR", message, hint, retriable: false, exitCode: EXIT_FAILED };
  }
  return {
    name: "UNEXPECTED",
    message: reasonOf(error),
    hint: "run it again with --debug to see where it happened",
    retriable: false,
    exitCode: EXIT_FAILED,
  };
}

/** Of errors of the client, and of a broker that does not start. */
interface ErrorShape {
  readonly code: string;
  readonly what: string;
  readonly hint: string;
  readonly retriable: boolean;
  /** Where the name does not tell it. */
  readonly exitCode?: number;
}

/** Told by its shape, so that a command need load neither the client nor the broker for it. */
function hasErrorShape(error: unknown): error is ErrorShape {
  return error instanceof Error && "what" in error && "hint" in error && "retriable" in error && "code" in error;
}

function describeFileError(code: string, path: string): { message: string; hint: string } {
  switch (code) {
    case "ENOENT":
      return { message: `${path} does not exist`, hint: "check the path" };
    case "EACCES":
    case "EPERM":
      return { message: `${path} may not be opened by this user`, hint: "check its permissions" };
    case "EISDIR":
      return { message: `${path} is a directory`, hint: "name a file" };
    case "ENOSPC":
      return { message: `the disk of ${path} is full`, hint: "make room" };
    default:
      return { message: `${path}: ${code}`, hint: "check the file and its disk" };
  }
}

/** Without line ends, and without what a terminal would obey. */
const oneLine = (text: string): string =>
  text
    .trim()
    .replace(/\s*\n\s*/g, " ")
    // eslint-disable-next-line no-control-regex
    .replace(/[\u0000-\u001f\u007f]/g, (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
