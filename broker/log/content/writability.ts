import { StorageFailure } from "../../../common/env/files.js";
import { sleep } from "../../../common/env/time.js";
import type { Timer } from "../../../common/env/time.js";
import { reasonOf } from "../../../common/logger.js";
import { ApiError } from "../../../protocol/error-codes.js";
import type { Offset } from "../../../protocol/types.js";
import type { LogContext } from "./log-context.js";
import type { LogWaiters } from "./waiters.js";

/** How often a full disk is looked at again, and how much must be free before appends are taken again. */
const FULL_DISK_RETRY_MS = 500;
const FULL_DISK_FREE_BYTES_MIN = 8 * 1024 * 1024;

/**
 * Whether a log takes appends, and what a failed disk does to it:
 *
 *   Writable -> Full     a write failed for want of space
 *   Full -> Writable     there is space again, and what was half written is cut off
 *   any -> Failed        the disk failed otherwise; the process is about to stop
 *   any -> Closed
 *
 * Besides, appends are refused while a truncation waits or runs, and while files of a former topic bear the directory's
 * name.
 */
export class LogState {
  #state: "Writable" | "Full" | "Failed" | "Closed" = "Writable";
  /** Truncations that wait or run. */
  #truncations = 0;
  #healTimer: Timer | undefined;

  /** `blockedUntil`: files of a former incarnation still bear the directory's name. */
  constructor(
    private readonly context: LogContext,
    /** For messages: the name of its directory. */
    readonly name: string,
    private readonly waiters: LogWaiters,
    private blockedUntil: Promise<void> | undefined,
  ) {
    blockedUntil?.then(
      () => (this.blockedUntil = undefined),
      (error: unknown) => this.fail(error),
    );
  }

  get isFull(): boolean {
    return this.#state === "Full";
  }
  /** Whether what has its place may be written: truncations wait for it, so they do not count here. */
  get isHealthy(): boolean {
    return this.#state === "Writable";
  }
  /** Failed or closed: nothing will change any more. */
  get hasEnded(): boolean {
    return this.#state === "Failed" || this.#state === "Closed";
  }
  get isFailed(): boolean {
    return this.#state === "Failed";
  }
  /** A truncation waits or runs. */
  get isBeingTruncated(): boolean {
    return this.#truncations > 0;
  }
  get isClosed(): boolean {
    return this.#state === "Closed";
  }

  /** Throws ApiError STORAGE_ERROR when appends are not taken. */
  assertWritable(): void {
    if (this.blockedUntil !== undefined)
      throw this.refusal("the files of a former topic of that name are still being put aside; try again");
    if (this.#truncations > 0) throw this.refusal("the log is being truncated; try again");
    switch (this.#state) {
      case "Writable":
        return;
      case "Full":
        throw this.refusal("the disk is full; free some space, the log goes on by itself");
      case "Failed":
        throw this.refusal("the disk failed; the broker is stopping");
      case "Closed":
        throw this.refusal("the log is closed");
    }
  }

  refusal(cause: StorageFailure | string): ApiError {
    const reason = typeof cause === "string" ? cause : cause.message;
    const options = typeof cause === "string" ? undefined : { cause };
    return new ApiError("STORAGE_ERROR", `${this.name}: ${reason}`, options);
  }

  /** Refuses appends until the task has ended. Fails the log when the disk makes the task fail. */
  async duringTruncation(task: () => Promise<void>): Promise<void> {
    this.#truncations += 1;
    try {
      await task();
    } catch (error) {
      // A truncation that was begun must not be left half done: the files and what is in memory may differ.
      if (!(error instanceof ApiError)) this.fail(error);
      throw error;
    } finally {
      this.#truncations -= 1;
    }
  }

  /** Refuses appends from now on; `awaitSpace` follows when what was half written is cut off. */
  becomeFull(cause: StorageFailure): void {
    this.#state = "Full";
    this.context.logger.error(`${this.name} refuses appends: ${reasonOf(cause)}`);
    this.waiters.fault("onFull");
  }

  /** Appends do not suffer from damage; the partition may, and the next run is to know. */
  tellDamage(): void {
    this.context.checkpointSoon();
    this.waiters.fault("onDamaged");
  }

  /** Records at and behind the offset are cut off: nobody may wait for them any more. */
  rejectBehind(offset: Offset): void {
    this.waiters.rejectUnwritten(
      offset,
      this.refusal("the records were cut off again, because another log is followed"),
    );
  }

  /** Takes appends again when there is space for a few, and what `first` writes is written. */
  awaitSpace(largestAppendBytes: () => number, first: () => Promise<void>): void {
    if (this.#state !== "Full") return;
    const check = async (): Promise<void> => {
      const free = await this.context.env.files.freeBytes(this.context.directory);
      if (this.#state !== "Full") return;
      if (free < Math.max(FULL_DISK_FREE_BYTES_MIN, 2 * largestAppendBytes())) {
        this.awaitSpace(largestAppendBytes, first);
        return;
      }
      await this.inSpiteOfFullDisk(first);
      if (this.#state !== "Full") return;
      this.#state = "Writable";
      this.context.logger.info(`${this.name} takes appends again: ${free} bytes are free`);
    };
    this.#healTimer = this.context.env.timers.after(FULL_DISK_RETRY_MS, () => {
      check().catch((error: unknown) => this.fail(error));
    });
  }

  /** Nobody knows what is on the disk now: the process must stop. */
  fail(error: unknown): void {
    if (this.hasEnded) return;
    this.#state = "Failed";
    this.waiters.rejectAll(this.refusal(reasonOf(error)));
    this.context.onFatal(error instanceof Error ? error : new Error(reasonOf(error)));
  }

  close(): void {
    this.#state = "Closed";
    this.#healTimer?.cancel();
    this.waiters.rejectAll(this.refusal("the log is closed"));
    this.waiters.listener = undefined;
  }

  /** After a failed sync nobody knows what is on the disk, and asking again would be answered with a lie. */
  async syncOrFail(sync: () => Promise<void>): Promise<void> {
    try {
      await this.context.syncs.run(sync);
    } catch (error) {
      // Not even tried: a directory must be opened first.
      if (!(error instanceof StorageFailure && error.reason === "too-many-open-files")) this.fail(error);
      throw error;
    }
  }

  /** For what was begun and cannot be given up for want of space; it waits for some. */
  checkpointInSpiteOfFullDisk(): Promise<void> {
    return this.inSpiteOfFullDisk(() => this.context.checkpointNow());
  }

  async inSpiteOfFullDisk(write: () => Promise<void>): Promise<void> {
    for (;;) {
      try {
        await write();
        return;
      } catch (error) {
        if (!(error instanceof StorageFailure) || error.reason !== "full" || this.isClosed) throw error;
        await sleep(this.context.env.timers, FULL_DISK_RETRY_MS);
      }
    }
  }
}
