import { execFileSync } from "node:child_process";
import os from "node:os";

/** Where figures were taken: no figure is worth anything without it. */
export function printMachine(): void {
  const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
  const [cpu] = os.cpus();
  console.log(
    `machine: ${os.cpus().length} x ${cpu?.model ?? "unknown"}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.type()} ${os.release()}, Node ${process.version}`,
  );
  console.log(
    `commit: ${commit}, load before: ${os
      .loadavg()
      .map((load) => load.toFixed(1))
      .join(" ")}`,
  );
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** One figure, beside what was asked of it. Sets the exit code when it is not reached. */
export function report(name: string, figure: string, reached: boolean | undefined): void {
  const verdict = reached === undefined ? "" : reached ? "reached" : "NOT REACHED";
  console.log(`${name.padEnd(52)} ${figure.padEnd(44)} ${verdict}`);
  if (reached === false) process.exitCode = 1;
}
