import { StorageFailure } from "../common/env/files.js";
import { ListenFailure } from "../common/env/network.js";
import { ApiError } from "../protocol/error-codes.js";
import { DataDirectoryError } from "./data-directory.js";
import { BrokerIdTaken } from "./zookeeper/broker-registration.js";
import { ConnectStringError } from "./zookeeper/server-list.js";
import { ZooKeeperError } from "./zookeeper/zookeeper.js";

/** Why a broker could not start, in the shape in which the command line reports errors. */
class BrokerDidNotStart extends Error {
  override readonly name = "BrokerDidNotStart";
  readonly retriable: boolean;
  readonly exitCode: number;

  constructor(
    readonly code: string,
    readonly what: string,
    readonly hint: string,
    cause: unknown,
  ) {
    super(what, { cause });
    this.retriable = code === "ZOOKEEPER_UNAVAILABLE";
    // Settings are part of the command, wherever they are written.
    this.exitCode = code === "INVALID_CONFIG" ? 2 : 1;
  }
}

/** What is expected to happen to whoever starts a broker, with what to do; anything else as it is. */
export function explained(error: unknown): unknown {
  const because = (code: string, what: string, hint: string): Error => new BrokerDidNotStart(code, what, hint, error);
  if (error instanceof ListenFailure) {
    const [what, hint] = {
      "port-taken": [`${error.address} is taken by another process`, "stop it, or give another port with --listen"],
      "not-permitted": [`this user may not listen on ${error.address}`, "choose a port above 1023"],
      "no-such-address": [`${error.address} is no address of this machine`, "listen on one that it has"],
      failed: [`cannot listen on ${error.address}`, "check --listen"],
    }[error.reason] as [string, string];
    return because("LISTEN_FAILED", what, hint);
  }
  if (error instanceof ApiError) {
    const hint = "correct it where it is given, in the file of --config or on the command line";
    return because(error.errorName, error.message, hint);
  }
  if (error instanceof ConnectStringError) return because("INVALID_CONFIG", error.message, "correct --zookeeper");
  if (error instanceof DataDirectoryError) return because("DATA_DIRECTORY", error.message, "check --data");
  if (error instanceof StorageFailure) return because(...storageFailure(error));
  if (error instanceof BrokerIdTaken) return because("BROKER_ID_TAKEN", error.message, "check --id");
  if (error instanceof ZooKeeperError)
    return because("ZOOKEEPER_UNAVAILABLE", error.message, "check --zookeeper, and start the broker again");
  return error;
}

/** Nothing of what is on the disk is lost by a start that fails on it. */
function storageFailure({ reason, path, message }: StorageFailure): [code: string, what: string, hint: string] {
  switch (reason) {
    case "full":
      return ["DISK_FULL", `the disk of ${path} is full`, "make room on it, and start the broker again"];
    case "read-only":
      return [
        "DISK_READ_ONLY",
        `the disk of ${path} takes no writes`,
        "mount it for writing, or look for its errors in the kernel's log",
      ];
    case "not-permitted":
      return ["DATA_NOT_WRITABLE", `this user may not write to ${path}`, "give it to the user who runs the broker"];
    case "too-many-open-files":
      return [
        "TOO_MANY_OPEN_FILES",
        `no more files can be opened, at ${path}`,
        "raise the limit (ulimit -n), or lower log.open.files.max",
      ];
    case "not-found":
    case "exists":
    case "io":
      return [
        "DISK_FAILED",
        message,
        "look for errors of the disk in the kernel's log, and whether another process changes the directory",
      ];
  }
}
