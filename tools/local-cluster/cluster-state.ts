import fs from "node:fs";
import path from "node:path";
import { CliError } from "../cli/cli-error.js";
import type { ProcessIdentity } from "./process-identity.js";

/** One broker of a local cluster. */
export interface BrokerEntry {
  readonly id: number;
  readonly port: number;
  /** The process that runs it, or ran it last; undefined: none that should run now. */
  readonly process?: ProcessIdentity | undefined;
}

/** One ZooKeeper server of a local cluster. */
export interface ZooKeeperEntry {
  readonly id: number;
  readonly port: number;
  readonly quorumPort: number;
  readonly electionPort: number;
  /** The container that it runs in; `process` is then Docker's client, which passes SIGTERM on and no more. */
  readonly container?: string;
  readonly process?: ProcessIdentity | undefined;
}

/**
 * What `ottla up` knows of its cluster, in `cluster.json` of the data directory: which ports it has, so that it comes back
 * at the same place, and which processes are its own, so that `down`, `status` and `kill` touch no others.
 */
export interface ClusterState {
  readonly version: 1;
  /** Its id, once it has served: another cluster may answer at its addresses while its own brokers are stopped. */
  readonly cluster?: string;
  readonly brokers: readonly BrokerEntry[];
  /** Its own servers. */
  readonly zookeepers: readonly ZooKeeperEntry[];
  /** `host:port,...` of servers that somebody else runs; then it has none of its own. */
  readonly zookeeper?: string;
  /** Of all brokers, by their dotted names; they come back with the same. */
  readonly settings: Readonly<Record<string, string>>;
}

const FILE = "cluster.json";

/** Undefined when the directory holds no cluster. Throws CliError when what it holds cannot be read. */
export function readClusterState(data: string): ClusterState | undefined {
  const file = path.join(data, FILE);
  let text: string;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  const state = parse(text);
  if (state === undefined)
    throw new CliError("STATE_FILE_DAMAGED", `${file} is not a state file of this version of ottla up`, {
      hint: "end its processes by hand if any run, remove the file, and start again: the data beside it is kept",
    });
  return state;
}

/** Replaces the file whole: a reader sees the old state or the new one. */
export function writeClusterState(data: string, state: ClusterState): void {
  const file = path.join(data, FILE);
  const draft = `${file}.${process.pid}.tmp`;
  try {
    fs.writeFileSync(draft, `${JSON.stringify(state, null, 2)}\n`);
    fs.renameSync(draft, file);
  } catch (error) {
    // On a full disk a part of it may have been written.
    fs.rmSync(draft, { force: true });
    throw error;
  }
}

/** After this there is no cluster here, only what its processes wrote. */
export function removeClusterState(data: string): void {
  fs.rmSync(path.join(data, FILE), { force: true });
}

function parse(text: string): ClusterState | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(value) || value["version"] !== 1) return undefined;
  const { cluster, brokers, zookeepers, zookeeper, settings } = value;
  if (zookeeper !== undefined && typeof zookeeper !== "string") return undefined;
  if (cluster !== undefined && typeof cluster !== "string") return undefined;
  if (!Array.isArray(brokers) || !Array.isArray(zookeepers) || !isObject(settings)) return undefined;
  const areEntries =
    brokers.every((entry) => hasNumbers(entry, ["id", "port"])) &&
    zookeepers.every((entry) => hasNumbers(entry, ["id", "port", "quorumPort", "electionPort"]));
  return areEntries ? (value as unknown as ClusterState) : undefined;
}

function hasNumbers(value: unknown, names: readonly string[]): boolean {
  if (!isObject(value) || !names.every((name) => Number.isSafeInteger(value[name]))) return false;
  const { process } = value;
  return (
    process === undefined ||
    (isObject(process) &&
      Number.isSafeInteger(process["pid"]) &&
      typeof process["startTime"] === "string" &&
      typeof process["bootId"] === "string")
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
