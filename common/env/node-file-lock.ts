import { randomUUID } from "node:crypto";
import fs from "node:fs";
import type { FileLock } from "./files.js";
import { isProcessAlive } from "./node-process.js";

/**
 * A lock that ends with its process, without the system calls Node lacks. The file says who holds it: process id, the
 * time that process started (so that a later process with the same id does not count) and a random name of this very
 * taking. It guards processes that see each other's ids: not two machines, not two containers, on one volume.
 *
 * The file appears whole, because it is written under another name and linked to its own. A lock whose process is gone
 * is replaced by whoever first makes `<path>.after-<its name>`: of all who saw the same stale lock exactly one succeeds,
 * and the renaming of that file to `path` both replaces the lock and frees the name. One who saw the stale lock earlier
 * and makes the file after that finds, on a second look, another lock in place, and withdraws.
 *
 * Failures are the system's; node-files.ts translates them.
 */
export async function tryLock(path: string): Promise<FileLock | undefined> {
  const name = randomUUID();
  const content = `${process.pid} ${startTimeOf(process.pid) ?? "-"} ${name}\n`;
  const draft = `${path}.${name}`;
  try {
    await fs.promises.writeFile(draft, content, { flag: "wx" });
    while (true) {
      if (await linked(draft, path)) return held(path, content);
      const holder = await contentOf(path);
      if (holder === undefined) continue;
      if (isHeld(holder)) return undefined;
      const successor = `${path}.after-${/ ([0-9a-f-]{36})\n$/.exec(holder)?.[1] ?? "damaged"}`;
      if (await linked(draft, successor)) {
        if ((await contentOf(path)) === holder) {
          await fs.promises.rename(successor, path);
          return held(path, content);
        }
        await fs.promises.rm(successor, { force: true });
      } else if (!isHeld((await contentOf(successor)) ?? content)) {
        // Its maker died between making and renaming it.
        await fs.promises.rm(successor, { force: true });
      } else {
        // Its maker is about to rename it, or to withdraw.
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  } finally {
    await fs.promises.rm(draft, { force: true });
  }
}

/** Whether somebody holds the lock now. */
export async function isLocked(path: string): Promise<boolean> {
  const holder = await contentOf(path);
  return holder !== undefined && isHeld(holder);
}

function held(path: string, content: string): FileLock {
  return {
    release: async () => {
      // Nobody takes it from a living process; but the directory may have been removed and made anew.
      if ((await contentOf(path)) === content) await fs.promises.rm(path, { force: true });
    },
  };
}

/** Whether the process that wrote this is running. A damaged lock was written by a process that a power cut ended. */
function isHeld(content: string): boolean {
  const match = /^(\d+) (\d+|-) [0-9a-f-]{36}\n$/.exec(content);
  if (match === null) return false;
  const pid = Number(match[1]);
  const startTime = startTimeOf(pid);
  return (
    isProcessAlive(pid) &&
    startTime !== "ended" &&
    (startTime === undefined || match[2] === "-" || startTime === match[2])
  );
}

/**
 * When a process started, in the kernel's ticks since boot; `ended` for one that has ended and whose parent has not looked
 * yet; undefined where the system does not tell.
 */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is the program's name in parentheses, and may itself hold blanks and parentheses; the state is the
    // third and the start time the twenty-second of all.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? "ended" : fields[19];
  } catch {
    return undefined;
  }
}

/** False when `to` exists. */
function linked(from: string, to: string): Promise<boolean> {
  return fs.promises.link(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === "EEXIST") return false;
      throw error;
    },
  );
}

/** Undefined when the file does not exist. */
function contentOf(path: string): Promise<string | undefined> {
  return fs.promises.readFile(path, "latin1").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}
