import type { Clock, Random, Timers } from "./time.js";
import type { FileSystem } from "./files.js";
import type { Network } from "./network.js";
import type { ZooKeeperConnector } from "./zookeeper-connection.js";

/**
 * The world, as all code in `broker/`, `client/` and `protocol/` sees it. Production binds the real one once
 * (`node-env.ts`); the simulator binds one in which time is virtual, chance has a seed, sockets break, disks tear and
 * power is cut. A lint rule keeps every other door shut, because a single `Date.now()` makes a run irreproducible.
 */
export interface Env {
  readonly clock: Clock;
  readonly timers: Timers;
  readonly random: Random;
  readonly network: Network;
  readonly files: FileSystem;
  readonly compute: Compute;
  readonly zookeeper: ZooKeeperConnector;
  /**
   * Identifies one run of the kernel. Two starts with the same boot id shared a page cache, so an unclean stop between
   * them was a crash; with different ones it was a power cut, and unsynced writes may be gone.
   */
  readonly bootId: string;
  readonly process: ProcessInfo;
}

/** The part of the operating system's process that code needs to know of. */
export interface ProcessInfo {
  readonly pid: number;
  readonly hostname: string;
  /** Whether a process with this pid is running on this machine now. */
  isAlive(pid: number): boolean;
}

/**
 * Runs a job that is too heavy for one turn of the event loop (inflation, a long scan) away from the caller's turn.
 * The job must be pure: it may neither touch the caller's state nor do I/O. In the simulator it runs inline and its
 * result arrives at a seeded time.
 */
export interface Compute {
  run<T>(job: () => T): Promise<T>;
}
