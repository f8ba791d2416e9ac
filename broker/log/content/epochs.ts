import type { FileSystem } from "../../../common/env/files.js";
import type { LeaderEpoch, Offset } from "../../../protocol/types.js";
import { writeCheckpoint } from "../files/checkpoint-file.js";
import type { LeaderEpochCache } from "./leader-epoch-cache.js";

/** The leader epochs of a log and the file that they are kept in. The file may be behind until `save`. */
export class LogEpochs {
  #changed = false;

  constructor(
    private readonly files: FileSystem,
    private readonly path: string,
    private readonly cache: LeaderEpochCache,
  ) {}

  /** The newest that this log has heard of; undefined when it never had a record. */
  get latest(): LeaderEpoch | undefined {
    return this.cache.latest;
  }

  endOffsetFor(epoch: LeaderEpoch, logEndOffset: Offset): { epoch: LeaderEpoch; endOffset: Offset } | undefined {
    return this.cache.endOffsetFor(epoch, logEndOffset);
  }

  /** From this offset on records are of this epoch. */
  assign(epoch: LeaderEpoch, startOffset: Offset): void {
    if (this.cache.assign(epoch, startOffset)) this.#changed = true;
  }

  cutStart(offset: Offset): void {
    if (this.cache.cutStart(offset)) this.#changed = true;
  }

  cutEnd(offset: Offset): void {
    if (this.cache.cutEnd(offset)) this.#changed = true;
  }

  clear(): void {
    this.cache.clear();
    this.#changed = true;
  }

  async save(): Promise<void> {
    if (!this.#changed) return;
    this.#changed = false;
    try {
      await writeCheckpoint(this.files, this.path, this.cache.toLines());
    } catch (error) {
      this.#changed = true;
      throw error;
    }
  }
}
