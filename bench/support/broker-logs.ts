import fs from "node:fs";
import path from "node:path";
import type { MeasuredCluster } from "./measured-cluster.js";

/** Follows what all brokers of a cluster log, those included that do not run any more. */
export class BrokerLogs {
  readonly #seen = new Map<string, number>();

  constructor(private readonly cluster: MeasuredCluster) {}

  /** The lines since this was called last, each behind the name of its file. */
  takeNews(): string[] {
    const directory = path.join(this.cluster.directory, "logs");
    const files = fs.readdirSync(directory).filter((name) => name.endsWith(".log"));
    return files.flatMap((name) => {
      const text = fs.readFileSync(path.join(directory, name), "utf8");
      const end = text.lastIndexOf("\n") + 1;
      const lines = text.slice(this.#seen.get(name) ?? 0, end).split("\n");
      this.#seen.set(name, end);
      return lines.filter((line) => line !== "").map((line) => `${name}: ${line}`);
    });
  }
}
