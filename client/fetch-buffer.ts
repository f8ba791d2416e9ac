import type { ClientError } from "./errors.js";
import { InvalidArgumentError } from "./errors.js";
import { FifoQueue } from "./fifo-queue.js";
import type { FetchedChunk, PartitionReader } from "./partition-reader.js";

/**
 * Where what the fetch loops bring waits for the application, in the order in which it came, and where the application
 * waits for more. An error is told behind everything that came before it. How much may wait here the loops decide.
 */
export class FetchBuffer {
  readonly #chunks = new FifoQueue<FetchedChunk>();
  readonly #errors: ClientError[] = [];
  /** The `next` that waits. */
  #waiter: (() => void) | undefined;

  push(chunks: readonly FetchedChunk[]): void {
    for (const chunk of chunks) this.#chunks.push(chunk);
    this.wake();
  }

  /** What was taken and not delivered comes next: of its partition it is older than anything that waits here. */
  putBack(chunks: readonly FetchedChunk[]): void {
    this.#chunks.unshift(chunks);
    this.wake();
  }

  /** Ends the loop of the application with an error; about a partition, which is then left alone, if `reader` is given. */
  fail(error: ClientError, reader?: PartitionReader): void {
    if (reader !== undefined) reader.hasFailed = true;
    this.#errors.push(error);
    this.wake();
  }

  /** undefined: none is here. Throws what went wrong meanwhile. */
  take(): FetchedChunk | undefined {
    const chunk = this.#chunks.shift();
    if (chunk !== undefined) return chunk;
    const error = this.#errors.shift();
    if (error !== undefined) throw error;
    return undefined;
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
    for (let chunk = this.#chunks.shift(); chunk !== undefined; chunk = this.#chunks.shift()) chunk.release?.();
    this.#errors.splice(0);
  }
}
