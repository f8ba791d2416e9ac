import fs from "node:fs";
import os from "node:os";
import type { Compute, ProcessInfo } from "./env.js";

/** This process and its machine. */
export const nodeProcess: ProcessInfo = { pid: process.pid, hostname: os.hostname(), isAlive: isProcessAlive };

export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Somebody else's process may not be signalled, but it is there.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The kernel's own name for this run of it, on Linux; elsewhere the host and the minute it started in. */
export function nodeBootId(): string {
  try {
    return fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return `${os.hostname()}-${Math.round((Date.now() / 1000 - os.uptime()) / 60)}`;
  }
}

/** Runs the job in a turn of its own, after pending I/O was polled: a closure cannot be sent to a thread. */
export const nodeCompute: Compute = {
  run: (job) =>
    new Promise((resolve, reject) => {
      setImmediate(() => {
        try {
          resolve(job());
        } catch (error) {
          reject(error as Error);
        }
      });
    }),
};
