import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The program as people run it: `npm test` builds it before. */
const program = fileURLToPath(new URL("../../dist/tools/ottla.js", import.meta.url));
const COMMAND_MS_MAX = 60_000;

/** How a command ended. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that runs. */
export interface RunningCommand {
  readonly result: Promise<CommandResult>;
  /** What it has printed so far. */
  readonly stdout: () => string;
  readonly stderr: () => string;
  kill(signal: NodeJS.Signals): void;
  /** Sends text to its stdin, which stays open. */
  write(text: string): void;
  endInput(): void;
  /** Reads nothing of what it prints for a while, as a pager does. */
  pauseOutput(): void;
  resumeOutput(): void;
  /** Stops reading what it prints, as `head` does. */
  closeOutput(): void;
  /** The same for its errors, as `2>&1 | tee` does when it ends. */
  closeErrors(): void;
}

/** Starts `ottla` with these arguments. */
export function startOttla(args: readonly string[], environment: NodeJS.ProcessEnv = {}): RunningCommand {
  return startProgram(program, args, environment);
}

/** Starts a program of ours with these arguments. */
export function startProgram(
  file: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): RunningCommand {
  const child = spawn(process.execPath, [file, ...args], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  // A command that ends without reading its input is no fault of the test.
  child.stdin.on("error", () => undefined);
  const timer = setTimeout(() => child.kill("SIGKILL"), COMMAND_MS_MAX);
  const result = new Promise<CommandResult>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (signal === "SIGKILL") stderr += `(ended by SIGKILL, perhaps after ${COMMAND_MS_MAX} ms)\n`;
      resolve({ code: code ?? -1, stdout, stderr });
    });
  });
  return {
    result,
    stdout: () => stdout,
    stderr: () => stderr,
    kill: (signal) => void child.kill(signal),
    write: (text) => void child.stdin.write(text),
    endInput: () => void child.stdin.end(),
    pauseOutput: () => void child.stdout.pause(),
    resumeOutput: () => void child.stdout.resume(),
    closeOutput: () => void child.stdout.destroy(),
    closeErrors: () => void child.stderr.destroy(),
  };
}

/** Runs `ottla` to its end. */
export function runOttla(
  args: readonly string[],
  options: { readonly input?: string; readonly environment?: NodeJS.ProcessEnv } = {},
): Promise<CommandResult> {
  const command = startOttla(args, options.environment);
  if (options.input !== undefined) command.write(options.input);
  command.endInput();
  return command.result;
}

/**
 * A real cluster of processes on free ports, with its data in a directory of its own; `close` stops it and removes that.
 * Made by `ottla up --detach`, so it is the same program from end to end.
 */
export class TestCluster implements AsyncDisposable {
  private constructor(
    readonly data: string,
    /** `127.0.0.1:port,...` */
    readonly bootstrap: string,
    readonly zookeeper: string,
    readonly clusterId: string,
  ) {}

  static async start(
    options: {
      readonly brokers?: number;
      readonly zookeepers?: 1 | 3;
      readonly settings?: Readonly<Record<string, string>>;
    } = {},
  ): Promise<TestCluster> {
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
    const settings = Object.entries(options.settings ?? {}).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
    const sizes = ["--brokers", String(options.brokers ?? 3), "--zookeepers", String(options.zookeepers ?? 1)];
    const { code, stdout, stderr } = await runOttla([
      "up",
      "--detach",
      "--json",
      "--data",
      data,
      "--port",
      "0",
      ...sizes,
      ...settings,
    ]);
    if (code !== 0) {
      fs.rmSync(data, { recursive: true, force: true });
      throw new Error(`the cluster did not start: ${stderr}`);
    }
    const { cluster, bootstrap, zookeeper } = JSON.parse(stdout) as Record<string, string>;
    return new TestCluster(data, bootstrap as string, zookeeper as string, cluster as string);
  }

  /** Where commands find it. */
  get environment(): NodeJS.ProcessEnv {
    return { OTTLA_BOOTSTRAP: this.bootstrap, OTTLA_HOME: this.data };
  }

  /** Runs a command against it. */
  ottla(args: readonly string[], input?: string): Promise<CommandResult> {
    return runOttla(args, { environment: this.environment, ...(input === undefined ? {} : { input }) });
  }

  /** Runs a command that must succeed, with `--json`, and returns the objects it prints. */
  async json<T = Record<string, unknown>>(args: readonly string[], input?: string): Promise<T[]> {
    const { code, stdout, stderr } = await this.ottla([...args, "--json"], input);
    if (code !== 0) throw new Error(`ottla ${args.join(" ")} ended with ${code}: ${stderr}`);
    return jsonLines<T>(stdout);
  }

  /** Starts a command against it. */
  startOttla(args: readonly string[]): RunningCommand {
    return startOttla(args, this.environment);
  }

  async close(): Promise<void> {
    await this.ottla(["down"]);
    fs.rmSync(this.data, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The objects of output with one JSON object a line. */
export function jsonLines<T = Record<string, unknown>>(text: string): T[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}
