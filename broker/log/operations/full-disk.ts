import type { StorageFailure } from "../../../common/env/files.js";
import type { Timer } from "../../../common/env/time.js";
import { reasonOf } from "../../../common/logger.js";
import { FULL_DISK_RETRY_MS } from "../content/disk.js";
import type { LogDisk } from "../content/disk.js";
import type { LogContext } from "../content/log-context.js";
import type { LogWaiters } from "../content/waiters.js";
import type { Writability } from "../content/writability.js";

/** So much must be free before appends are taken again. */
const FREE_BYTES_MIN = 8 * 1024 * 1024;

/** Lets a log stand still while its disk is full, and go on when there is space again. */
export class FullDisk {
  #timer: Timer | undefined;

  constructor(
    private readonly context: LogContext,
    private readonly name: string,
    private readonly writability: Writability,
    private readonly disk: LogDisk,
    private readonly waiters: LogWaiters,
  ) {}

  /** Refuses appends from now on; `awaitSpace` follows when what was half written is cut off. */
  begin(cause: StorageFailure): void {
    this.writability.becomeFull();
    this.context.logger.error(`${this.name} refuses appends: ${reasonOf(cause)}`);
    this.waiters.fault("onFull");
  }

  /** Takes appends again when there is space for a few, and what `first` writes is written. */
  awaitSpace(largestAppendBytes: () => number, first: () => Promise<void>): void {
    if (!this.writability.isFull) return;
    const check = async (): Promise<void> => {
      const free = await this.context.env.files.freeBytes(this.context.directory);
      if (!this.writability.isFull) return;
      if (free < Math.max(FREE_BYTES_MIN, 2 * largestAppendBytes())) {
        this.awaitSpace(largestAppendBytes, first);
        return;
      }
      await this.disk.inSpiteOfFullDisk(first);
      if (!this.writability.isFull) return;
      this.writability.becomeWritable();
      this.context.logger.info(`${this.name} takes appends again: ${free} bytes are free`);
    };
    this.#timer = this.context.env.timers.after(FULL_DISK_RETRY_MS, () => {
      check().catch((error: unknown) => this.writability.fail(error));
    });
  }

  cancel(): void {
    this.#timer?.cancel();
  }
}
