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
  const probe = path.join(data, `.probe-${process.pid}`);
  try {
    fs.mkdirSync(data, { recursive: true });
    fs.writeFileSync(probe, "x".repeat(4096));
    fs.rmSync(probe);
  } catch (error) {
    fs.rmSync(probe, { force: true });
    throw unusable(data, error as NodeJS.ErrnoException);
  }
  const { bavail, bsize } = fs.statfsSync(data);
  if (bavail * bsize < FREE_BYTES_MIN) throw diskFull(data, bavail * bsize);
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
