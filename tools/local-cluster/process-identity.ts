import { execFileSync } from "node:child_process";
import fs from "node:fs";

/**
 * One process, and no later one that was given the same number: pids are reused, and a signal sent to the wrong process is
 * somebody else's loss.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, as the system tells it: ticks since boot on Linux, a date elsewhere. */
  readonly startTime: string;
  /** The run of the kernel that `startTime` counts in; empty where the system does not tell. */
  readonly bootId: string;
}

export type ProcessCondition = "running" | "paused" | "gone";

/** Undefined when there is no such process. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const facts = factsOf(pid);
  return facts === undefined ? undefined : { pid, startTime: facts.startTime, bootId: bootId() };
}

/** What has become of a process. One that ended and was not collected by its parent counts as gone. */
export function conditionOf(identity: ProcessIdentity): ProcessCondition {
  if (identity.bootId !== bootId()) return "gone";
  const facts = factsOf(identity.pid);
  if (facts === undefined || facts.startTime !== identity.startTime) return "gone";
  return facts.condition;
}

/** Sends a signal if the process is still the one it was; false when it is gone. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (conditionOf(identity) === "gone") return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

interface ProcessFacts {
  readonly startTime: string;
  readonly condition: ProcessCondition;
}

function factsOf(pid: number): ProcessFacts | undefined {
  if (process.platform === "linux") return factsFromProc(pid);
  try {
    // The date is compared as text: it must not depend on the language and the time zone of who asks.
    const env = { ...process.env, LC_ALL: "C", TZ: "UTC" };
    const output = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "utf8", env }).trim();
    const [state = "", ...started] = output.split(/\s+/);
    return state === "" ? undefined : { startTime: started.join(" "), condition: conditionFrom(state) };
  } catch {
    // `ps` fails when there is no such process.
    return undefined;
  }
}

function factsFromProc(pid: number): ProcessFacts | undefined {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses and may hold blanks; the third is the state, the 22nd the start.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { startTime: fields[19] ?? "", condition: conditionFrom(fields[0] ?? "") };
}

function conditionFrom(state: string): ProcessCondition {
  const letter = state.charAt(0);
  if (letter === "Z" || letter === "X" || letter === "") return "gone";
  return letter === "T" || letter === "t" ? "paused" : "running";
}

function bootId(): string {
  try {
    return fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  } catch {
    // Elsewhere the start is a date, which needs no boot to count from.
    return "";
  }
}
