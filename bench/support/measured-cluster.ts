import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const program = path.resolve("dist/tools/ottla.js");

/** A line of `ottla status --json`. */
export interface ProcessStatus {
  readonly kind: "broker" | "zookeeper";
  readonly id: number;
  readonly pid: number;
  readonly port: number;
  readonly alive: boolean;
  readonly controller?: boolean;
}

/** A cluster of `ottla up`, of real processes, for measuring. Everything is reached through the command line. */
export class MeasuredCluster {
  private constructor(
    readonly directory: string,
    readonly bootstrap: string,
    private readonly up: readonly string[],
  ) {}

  /** `prepare` is called with the data directory before anything is in it; `settings` are of all brokers. */
  static async start(options: {
    port: number;
    zookeepers?: 1 | 3;
    settings?: Readonly<Record<string, string>>;
    prepare?: (directory: string) => void;
  }): Promise<MeasuredCluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-accept-"));
    options.prepare?.(directory);
    const up = [
      "up",
      "--detach",
      "--json",
      "--data",
      directory,
      "--port",
      String(options.port),
      "--zookeepers",
      String(options.zookeepers ?? 1),
      ...Object.entries(options.settings ?? {}).flatMap(([name, value]) => ["--set", `${name}=${value}`]),
    ];
    const { stdout } = await run(process.execPath, [program, ...up]);
    const { bootstrap } = JSON.parse(stdout.trim().split("\n").at(-1) as string) as { bootstrap: string };
    return new MeasuredCluster(directory, bootstrap, up);
  }

  get bootstrapBrokers(): string[] {
    return this.bootstrap.split(",");
  }

  /** Runs a command; resolves with the JSON lines it printed. */
  async ottla(...args: string[]): Promise<Record<string, unknown>[]> {
    const { stdout } = await run(process.execPath, [program, ...args, "--json"], { env: this.env, maxBuffer: 1 << 28 });
    return stdout
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Runs a command that prints to a file. Resolves with its exit code and largest memory in KiB. */
  async ottlaInto(file: string, args: readonly string[]): Promise<{ code: number; peakKiB: number }> {
    const output = fs.openSync(file, "w");
    const child = spawn(process.execPath, [program, ...args], { env: this.env, stdio: ["ignore", output, "inherit"] });
    let peakKiB = 0;
    const watch = setInterval(() => (peakKiB = Math.max(peakKiB, residentKiB(child.pid as number))), 50);
    const code = await new Promise<number>((resolve) => child.once("close", (exit) => resolve(exit ?? -1)));
    clearInterval(watch);
    fs.closeSync(output);
    return { code, peakKiB };
  }

  /** Starts what does not run, all of it at once: a single server of an ensemble cannot serve. */
  async startMissing(): Promise<void> {
    await run(process.execPath, [program, ...this.up]);
  }

  get env(): NodeJS.ProcessEnv {
    return { ...process.env, OTTLA_HOME: this.directory, OTTLA_BOOTSTRAP: this.bootstrap };
  }

  async status(): Promise<ProcessStatus[]> {
    return (await this.ottla("status")) as unknown as ProcessStatus[];
  }

  async brokerPids(): Promise<Map<number, number>> {
    return new Map(
      (await this.status()).filter(({ kind, alive }) => kind === "broker" && alive).map(({ id, pid }) => [id, pid]),
    );
  }

  async stop(options: { beforeRemoval?: () => void } = {}): Promise<void> {
    const processes = await this.status().catch(() => []);
    await this.ottla("down").catch(() => {
      // A figure that failed half-way must not leave its cluster running.
      for (const { pid, alive } of processes) if (alive) process.kill(pid, "SIGKILL");
    });
    options.beforeRemoval?.();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What a process holds in memory now; 0 when it is gone. */
export function residentKiB(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** What a process has read so far, from files and from connections; 0 where the system does not say. */
export function bytesReadBy(pid: number): number {
  try {
    return Number(/rchar: (\d+)/.exec(fs.readFileSync(`/proc/${pid}/io`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
