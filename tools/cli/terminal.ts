import type { Command } from "commander";
import type { Readable, Writable } from "node:stream";
import { onStopSignal } from "../../common/env/node-signals.js";

/** What a command line has of the world around it: streams, environment, signals, and its end. Tests give another one. */
export interface Terminal {
  /** 0: that of the process, which is opened when it is read. */
  readonly stdin: Readable | 0;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** A person types at `stdin`. */
  readonly isTyped: boolean;
  readonly environment: NodeJS.ProcessEnv;
  /** Calls `stop` when the user interrupts. */
  onInterrupt(stop: () => void): void;
  /** Ends the command line with this exit code. In a process of its own nothing runs after it. */
  end(exitCode: number): void;
}

/** A process of its own. */
export const processTerminal: Terminal = {
  stdin: 0,
  stdout: process.stdout,
  stderr: process.stderr,
  get isTyped() {
    return process.stdin.isTTY === true;
  },
  environment: process.env,
  onInterrupt: (stop) => onStopSignal(["SIGINT", "SIGTERM"], stop),
  end: (exitCode) => process.exit(exitCode),
};

/** One run of the program: the words that were typed, and where. */
export interface Invocation {
  readonly args: readonly string[];
  readonly terminal: Terminal;
}

const invocations = new WeakMap<Command, Invocation>();

/** Remembers how the program was called, for `invocationOf` of each of its commands. */
export function setInvocation(program: Command, invocation: Invocation): void {
  invocations.set(program, invocation);
}

/** How the program was called that the command belongs to. */
export function invocationOf(command: Command): Invocation {
  let root = command;
  while (root.parent !== null) root = root.parent;
  return invocations.get(root) ?? { args: process.argv.slice(2), terminal: processTerminal };
}
