import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { tryLock } from "../../common/env/node-file-lock.js";
import type { FileLock } from "../../common/env/files.js";
import type { BrokerEntry, ClusterState, ZooKeeperEntry } from "./cluster-state.js";
import { readClusterState } from "./cluster-state.js";
import { isPortFree } from "./ports.js";
import { conditionOf } from "./process-identity.js";

/** Systems take the ports of outgoing connections from above: one from there may be gone when a cluster comes back to it. */
const ANY_PORT_MIN = 10_000;
const ANY_PORT_MAX = 32_767;
const PORT_MAX = 65_535;
const ATTEMPTS_MAX = 1000;

/**
 * The ports that a starting cluster has chosen and its processes do not listen on yet. A port nobody listens on is not free
 * for that: two clusters that start at the same time would choose the same, and one's brokers would register in the other's
 * ZooKeeper. So a port is claimed by a file that every `ottla` of this user sees, until whoever it was chosen for listens.
 * Claims end with their process.
 */
export class PortClaims {
  readonly #claims = new Map<number, FileLock>();

  constructor(
    /** Of the cluster that they are for. */
    private readonly data: string,
    private readonly directory = claimsDirectory(),
  ) {}

  /**
   * Claims a port; `shared`: another command has done so for the same cluster; `claimed`: another starting cluster has;
   * `kept`: it is that of a stopped process of another cluster that runs, to which the process is to come back; `taken`:
   * somebody listens there.
   */
  async claim(port: number): Promise<"ours" | "shared" | "claimed" | "kept" | "taken"> {
    if (this.#claims.has(port)) return "ours";
    fs.mkdirSync(this.directory, { recursive: true, mode: 0o700 });
    const lock = await tryLock(path.join(this.directory, String(port)));
    // Another one may only be looking: a port on which somebody listens is taken, whoever looks at it.
    if (lock === undefined) {
      if (!(await isPortFree(port))) return "taken";
      return contentOf(this.#claimantFile(port)) === this.data ? "shared" : "claimed";
    }
    // Only now: whoever claimed it until a moment ago listens by now.
    const isFree = await isPortFree(port);
    if (isFree && this.ownerOf(port) === undefined) {
      this.#claims.set(port, lock);
      fs.writeFileSync(this.#claimantFile(port), this.data);
      return "ours";
    }
    await lock.release();
    return isFree ? "kept" : "taken";
  }

  /** These are the ports of the cluster from now on, as long as one of its processes runs. */
  keep(ports: readonly number[]): void {
    for (const port of ports) fs.writeFileSync(this.#ownerFile(port), this.data);
  }

  /** The data directory of another cluster that runs and has this port, whether or not somebody listens there. */
  ownerOf(port: number): string | undefined {
    const owner = contentOf(this.#ownerFile(port));
    if (owner === undefined || owner === this.data) return undefined;
    const state = stateIn(owner);
    const isIn = (entry: BrokerEntry | ZooKeeperEntry): boolean => portsOf(entry).includes(port);
    const all = [...(state?.brokers ?? []), ...(state?.zookeepers ?? [])];
    return all.some(isIn) && all.some(({ process }) => process !== undefined && conditionOf(process) !== "gone")
      ? owner
      : undefined;
  }

  /** Says for which cluster a port is claimed, as long as it is. */
  #claimantFile(port: number): string {
    return path.join(this.directory, `${port}.for`);
  }

  #ownerFile(port: number): string {
    return path.join(this.directory, `${port}.of`);
  }

  /** Claims the first port from `from` on that can be had and is not claimed here already; undefined when there is none. */
  async claimFrom(from: number): Promise<number | undefined> {
    for (let port = from; port <= PORT_MAX; port += 1) {
      if (!this.#claims.has(port) && (await this.claim(port)) === "ours") return port;
    }
    return undefined;
  }

  /** Claims some port that is likely to be free the next time as well; undefined when there is none. */
  async claimAny(): Promise<number | undefined> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
      const port = ANY_PORT_MIN + Math.floor(Math.random() * (ANY_PORT_MAX - ANY_PORT_MIN + 1));
      if (!this.#claims.has(port) && (await this.claim(port)) === "ours") return port;
    }
    return undefined;
  }

  /** Gives all claims up: those for whom ports were chosen listen, or never will. */
  async release(): Promise<void> {
    const locks = [...this.#claims.values()];
    for (const port of this.#claims.keys()) fs.rmSync(this.#claimantFile(port), { force: true });
    this.#claims.clear();
    await Promise.all(locks.map((lock) => lock.release()));
  }
}

/** Undefined where there is no such file. */
function contentOf(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Undefined also where it cannot be read: nothing says then that a port is its own. */
function stateIn(data: string): ClusterState | undefined {
  try {
    return readClusterState(data);
  } catch {
    return undefined;
  }
}

/** All ports that a process of a cluster listens on. */
export function portsOf(entry: BrokerEntry | ZooKeeperEntry): number[] {
  return "quorumPort" in entry ? [entry.port, entry.quorumPort, entry.electionPort] : [entry.port];
}

/** One for each user, because nobody may write into another's. */
function claimsDirectory(): string {
  return path.join(os.tmpdir(), `ottla-ports-${process.getuid?.() ?? os.userInfo().username}`);
}
