import type { ClientError } from "./errors.js";
import { InvalidArgumentError } from "./errors.js";
import { FifoQueue } from "./fifo-queue.js";
import type { FetchedChunk, PartitionReader } from "./partition-reader.js";

/** What went wrong, in its place among the chunks. */
class Failure {
  constructor(readonly error: ClientError) {}
}

/**
 * Where what the fetch loops bring waits for the application, in the order in which it came, and where the application
 * waits for more. An error is told behind everything that came before it, and before everything that comes later. How much
 * may wait here the loops decide.
 */
export class FetchBuffer {
  readonly #waiting = new FifoQueue<FetchedChunk | Failure>();
  /** The `next` that waits. */
  #waiter: (() => void) | undefined;

  push(chunks: readonly FetchedChunk[]): void {
    for (const chunk of chunks) this.#waiting.push(chunk);
    this.wake();
  }

  /** What was taken and not delivered comes next: of its partition it is older than anything that waits here. */
  putBack(chunks: readonly FetchedChunk[]): void {
    this.#waiting.unshift(chunks);
    this.wake();
  }

  /** Ends the loop of the application with an error; about a partition, which is then left alone, if `reader` is given. */
  fail(error: ClientError, reader?: PartitionReader): void {
    if (reader !== undefined) reader.hasFailed = true;
    this.#waiting.push(new Failure(error));
    this.wake();
  }

  /** undefined: none is here. Throws what went wrong meanwhile, each error once. */
  take(): FetchedChunk | undefined {
    const next = this.#waiting.shift();
    if (next instanceof Failure) throw next.error;
    return next;
  }

  /** Whether a `next` waits. */
  get isAwaited(): boolean {
    return this.#waiter !== undefined;
  }

  /** Resolves when something has come, or `wake` was called. */
  more(): Promise<void> {
    if (this.#waiter !== undefined) {
      throw new InvalidArgumentError("next() is called while an earlier call waits", "await each call before the next");
    }
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  wake(): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.();
  }

  /** Drops all that is here. */
  clear(): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift())
      if (!(next instanceof Failure)) next.release?.();
  }
}
