import { StorageFailure } from "../../../common/env/files.js";
import { sleep } from "../../../common/env/time.js";
import type { LogContext } from "./log-context.js";
import type { Writability } from "./writability.js";

/** How often a full disk is looked at again. */
export const FULL_DISK_RETRY_MS = 500;

/** What a log asks of its disk and cannot do without: syncs, and writes that may have to wait for space. */
export class LogDisk {
  constructor(
    private readonly context: LogContext,
    private readonly writability: Writability,
  ) {}

  /** After a failed sync nobody knows what is on the disk, and asking again would be answered with a lie: the log fails. */
  async sync(sync: () => Promise<void>): Promise<void> {
    try {
      await this.context.syncs.run(sync);
    } catch (error) {
      // Not even tried: a directory must be opened first.
      if (!(error instanceof StorageFailure && error.reason === "too-many-open-files")) this.writability.fail(error);
      throw error;
    }
  }

  /** For what was begun and cannot be given up for want of space; it waits for some. */
  async inSpiteOfFullDisk(write: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await write();
        return;
      } catch (error) {
        if (!(error instanceof StorageFailure) || error.reason !== "full" || this.writability.isClosed) throw error;
        await sleep(this.context.env.timers, FULL_DISK_RETRY_MS);
      }
    }
  }

  /** The checkpoints say how things are now when this resolves, however long a full disk takes. */
  checkpointInSpiteOfFullDisk(): Promise<void> {
    return this.inSpiteOfFullDisk(() => this.context.checkpointNow());
  }
}
