import type { File } from "../../../common/env/files.js";
import type { OffsetIndex } from "./offset-index.js";
import type { TimeIndex } from "./time-index.js";

/**
 * The open file of a segment with its indexes. Counted, because a descriptor that is closed under a read may by then
 * belong to another file.
 */
export class SegmentFiles {
  #users = 0;
  #retired = false;
  #closed: Promise<void> | undefined;

  constructor(
    readonly file: File,
    readonly index: OffsetIndex,
    readonly timeIndex: TimeIndex,
  ) {}

  get inUse(): boolean {
    return this.#users > 0;
  }

  /** Keeps the file open until the task has ended. */
  async use<T>(task: (files: SegmentFiles) => Promise<T>): Promise<T> {
    this.#users += 1;
    try {
      return await task(this);
    } finally {
      this.#users -= 1;
      if (this.#retired && this.#users === 0) await this.#close();
    }
  }

  /** Closes the file now, or when its last user is done. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#users === 0) await this.#close();
  }

  #close(): Promise<void> {
    this.#closed ??= this.file.close();
    return this.#closed;
  }
}
