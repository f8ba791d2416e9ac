import fs from "node:fs";
import path from "node:path";
import { CliError } from "../cli/cli-error.js";
import { formatSize } from "../cli/quantities.js";

/** Less than this and a cluster would stop soon after it started. */
const FREE_BYTES_MIN = 64 * 1024 * 1024;
const OTHER_DIRECTORY = "make it writable, or give another directory with --data";

/** Where `up` keeps its cluster when nobody says: `$OTTLA_HOME`, else `.ottla` here. */
export function dataPlace(given: string | undefined, environment: NodeJS.ProcessEnv): string {
  return path.resolve(given ?? (environment["OTTLA_HOME"] || ".ottla"));
}

/** Makes the directory and proves that it can be written, before any process fails on it. Throws CliError. */
export function prepareDataPlace(data: string): void {
  try {
    makeDirectory(data);
    const probe = path.join(data, `.probe-${process.pid}`);
    const file = fs.openSync(probe, "w");
    try {
      fs.writeSync(file, "x".repeat(4096));
    } finally {
      fs.closeSync(file);
      fs.rmSync(probe);
    }
  } catch (error) {
    throw unusable(data, error as NodeJS.ErrnoException);
  }
  const { bavail, bsize } = fs.statfsSync(data);
  if (bavail * bsize < FREE_BYTES_MIN) throw diskFull(data, bavail * bsize);
}

/**
 * With its parents. Not Node's own recursive way: where a directory cannot be made although its parent is there (in
 * /proc), that one tries for ever.
 */
function makeDirectory(directory: string): void {
  try {
    fs.mkdirSync(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const parent = path.dirname(directory);
    if (code === "EEXIST" && fs.statSync(directory).isDirectory()) return;
    if (code !== "ENOENT" || fs.existsSync(parent)) throw error;
    makeDirectory(parent);
    fs.mkdirSync(directory);
  }
}

function unusable(data: string, error: NodeJS.ErrnoException): CliError {
  switch (error.code) {
    case "EACCES":
    case "EPERM":
      return new CliError("DATA_NOT_WRITABLE", `this user may not write to ${data}`, { hint: OTHER_DIRECTORY });
    case "EROFS":
      return new CliError("DATA_NOT_WRITABLE", `${data} is on a read-only file system`, { hint: OTHER_DIRECTORY });
    case "ENOTDIR":
    case "EEXIST":
      return new CliError("DATA_NOT_A_DIRECTORY", `${data} is not a directory`, {
        hint: "remove what is in its place, or give another one with --data",
      });
    case "ENOSPC":
    case "EDQUOT":
      return diskFull(data, 0);
    default:
      return new CliError("DATA_NOT_WRITABLE", `${data} cannot be used: ${error.message}`, {
        hint: OTHER_DIRECTORY,
        cause: error,
      });
  }
}

function diskFull(data: string, freeBytes: number): CliError {
  return new CliError(
    "DISK_FULL",
    `the disk of ${data} has ${formatSize(freeBytes)} left, and a cluster needs ${formatSize(FREE_BYTES_MIN)} to begin with`,
    {
      hint: "make room, or give a directory on another disk with --data",
    },
  );
}
