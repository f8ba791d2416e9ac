import { toOffset } from "../../../protocol/types.js";
import type { LeaderEpoch, Offset } from "../../../protocol/types.js";

/** A leader epoch and the offset of its first record. */
export interface EpochStart {
  readonly epoch: LeaderEpoch;
  readonly startOffset: Offset;
}

/**
 * Where each leader epoch begins in this log: what replicas compare to find where they part (KIP-101, KIP-279). Epochs and
 * start offsets both ascend strictly; an epoch ends where the next one begins, the last one at the log end.
 * Memory only: LogEpochs writes it to its file, and rebuilds from the batches what a crash took.
 */
export class LeaderEpochCache {
  #entries: EpochStart[];

  constructor(entries: readonly EpochStart[] = []) {
    this.#entries = [...entries];
  }

  get entries(): readonly EpochStart[] {
    return this.#entries;
  }

  get latest(): LeaderEpoch | undefined {
    return this.#entries.at(-1)?.epoch;
  }

  /**
   * From this offset on records are of this epoch. Returns whether anything changed: an epoch that is not newer than the
   * latest changes nothing. Epochs that would begin at or behind the offset had no records and are forgotten.
   */
  assign(epoch: LeaderEpoch, startOffset: Offset): boolean {
    const latest = this.latest;
    if (latest !== undefined && epoch <= latest) return false;
    this.cutEnd(startOffset);
    this.#entries.push({ epoch, startOffset });
    return true;
  }

  /** The greatest known epoch that is not greater than the asked one, and where it ends; undefined when there is none. */
  endOffsetFor(epoch: LeaderEpoch, logEndOffset: Offset): { epoch: LeaderEpoch; endOffset: Offset } | undefined {
    for (let at = this.#entries.length - 1; at >= 0; at -= 1) {
      const entry = this.#entries[at] as EpochStart;
      if (entry.epoch <= epoch) {
        return { epoch: entry.epoch, endOffset: this.#entries[at + 1]?.startOffset ?? logEndOffset };
      }
    }
    return undefined;
  }

  /** Forgets epochs that begin at or behind the offset. Returns whether there were any. */
  cutEnd(offset: Offset): boolean {
    const before = this.#entries.length;
    while ((this.#entries.at(-1)?.startOffset ?? -1) >= offset) this.#entries.pop();
    return this.#entries.length !== before;
  }

  /** Forgets epochs that end at or before the offset; the one that holds it then begins there. Returns whether any did. */
  cutStart(offset: Offset): boolean {
    let first = 0;
    while (first + 1 < this.#entries.length && (this.#entries[first + 1] as EpochStart).startOffset <= offset)
      first += 1;
    const entry = this.#entries[first];
    if (entry === undefined || (first === 0 && entry.startOffset >= offset)) return false;
    this.#entries = [{ epoch: entry.epoch, startOffset: offset }, ...this.#entries.slice(first + 1)];
    return true;
  }

  clear(): void {
    this.#entries = [];
  }

  /** The lines of the checkpoint file. */
  toLines(): string[] {
    return this.#entries.map((entry) => `${entry.epoch} ${entry.startOffset}`);
  }

  /** Undefined when the lines are not ascending epochs and offsets. */
  static fromLines(lines: readonly string[]): LeaderEpochCache | undefined {
    const entries: EpochStart[] = [];
    for (const line of lines) {
      if (!/^[0-9]+ [0-9]+$/.test(line)) return undefined;
      const [epoch, startOffset] = line.split(" ").map(Number) as [number, number];
      const last = entries.at(-1);
      if (last !== undefined && (epoch <= last.epoch || startOffset <= last.startOffset)) return undefined;
      entries.push({ epoch, startOffset: toOffset(startOffset) });
    }
    return new LeaderEpochCache(entries);
  }
}
