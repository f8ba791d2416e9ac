import { PassThrough, Writable } from "node:stream";
// Commands load it when they need it, and of several that do so at once jest gives some a module that has not run yet.
import "../../client/index.js";
import { runProgram } from "../../tools/program.js";
import type { Terminal } from "../../tools/cli/terminal.js";
import type { CommandResult } from "./cluster.js";

/** A command line in this process: what is wrong with one is told without a process for each. */
export interface TypedCommand {
  readonly result: Promise<CommandResult>;
  readonly stdin: PassThrough;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Ctrl-C. */
  interrupt(): void;
}

interface World {
  readonly environment?: NodeJS.ProcessEnv;
  /** A person types at stdin. */
  readonly isTyped?: boolean;
}

const HANG_MS = 20_000;

/** Starts the program in this process. `stdin` stays open. */
export function typeCommand(args: readonly string[], world: World = {}): TypedCommand {
  const printed = { stdout: "", stderr: "" };
  const collector = (name: keyof typeof printed): Writable =>
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        printed[name] += chunk.toString();
        done();
      },
    });
  const stdin = new PassThrough();
  let stop = (): void => undefined;
  let ended: number | undefined;
  const terminal: Terminal = {
    stdin,
    stdout: collector("stdout"),
    stderr: collector("stderr"),
    isTyped: world.isTyped ?? false,
    environment: world.environment ?? {},
    onInterrupt: (given) => {
      stop = given;
    },
    end: (code) => {
      ended ??= code;
    },
  };
  const run = async (): Promise<CommandResult> => {
    let timer: NodeJS.Timeout | undefined;
    const hanging = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`ottla ${args.join(" ")} hangs; ${printed.stderr}`)), HANG_MS);
    });
    try {
      const code = await Promise.race([runProgram(args, "0.0.0", terminal), hanging]);
      return { code: ended ?? code, ...printed };
    } finally {
      clearTimeout(timer);
    }
  };
  return {
    result: run(),
    stdin,
    stdout: () => printed.stdout,
    stderr: () => printed.stderr,
    interrupt: () => stop(),
  };
}

/** Runs it to its end, with this input. */
export function runTyped(
  args: readonly string[],
  world: World & { readonly input?: string } = {},
): Promise<CommandResult> {
  const command = typeCommand(args, world);
  command.stdin.end(world.input ?? "");
  return command.result;
}
