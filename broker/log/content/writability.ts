import type { StorageFailure } from "../../../common/env/files.js";
import { reasonOf } from "../../../common/logger.js";
import { ApiError } from "../../../protocol/error-codes.js";

/**
 * Whether a log takes appends:
 *
 *   Writable -> Full     a write failed for want of space
 *   Full -> Writable     there is space again, and what was half written is cut off
 *   any -> Failed        the disk failed otherwise; the process is about to stop
 *   any -> Closed
 *
 * Besides, appends are refused while a truncation waits or runs, and while files of a former topic bear the directory's
 * name.
 */
export class Writability {
  #state: "Writable" | "Full" | "Failed" | "Closed" = "Writable";
  /** Truncations that wait or run. */
  #truncations = 0;

  constructor(
    /** For messages: the name of the log's directory. */
    private readonly name: string,
    /** Nobody knows what is on the disk now: the process must stop. Called once. */
    private readonly onFailed: (error: Error) => void,
    /** Files of a former incarnation still bear the directory's name. */
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

  /** What a caller is told who cannot have what it wants of this log. */
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

  becomeFull(): void {
    this.#state = "Full";
  }

  /** Of a full disk. */
  becomeWritable(): void {
    this.#state = "Writable";
  }

  fail(error: unknown): void {
    if (this.hasEnded) return;
    this.#state = "Failed";
    this.onFailed(error instanceof Error ? error : new Error(reasonOf(error)));
  }

  close(): void {
    this.#state = "Closed";
  }
}
