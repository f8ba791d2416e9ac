import { invariant } from "../../../common/assert.js";
import type { Offset } from "../../../protocol/types.js";

/**
 * The bounds of a log. All are exclusive at the top:
 *
 *   log start offset      high watermark       log end offset        next offset
 *          |  on every in-sync  |  written here, not   |  queued, not yet  |
 *          |  replica           |  yet everywhere      |  written          |
 *
 * and, anywhere between log start and log end, the flushed offset: what is below it is on this disk.
 * Invariant: logStartOffset <= highWatermark <= logEndOffset <= nextOffset, logStartOffset <= flushedOffset <= logEndOffset.
 */
export class LogOffsets {
  #logStart: Offset;
  #highWatermark: Offset;
  #flushed: Offset;
  #logEnd: Offset;
  #next: Offset;

  constructor(from: { logStart: Offset; highWatermark: Offset; logEnd: Offset }) {
    this.#logStart = from.logStart;
    this.#highWatermark = clamp(from.highWatermark, from.logStart, from.logEnd);
    this.#flushed = from.logEnd;
    this.#logEnd = from.logEnd;
    this.#next = from.logEnd;
    this.#check();
  }

  get logStart(): Offset {
    return this.#logStart;
  }
  get highWatermark(): Offset {
    return this.#highWatermark;
  }
  get flushed(): Offset {
    return this.#flushed;
  }
  get logEnd(): Offset {
    return this.#logEnd;
  }
  /** Where the next batch goes. */
  get next(): Offset {
    return this.#next;
  }

  /** A batch that ends here has its place. */
  plannedTo(offset: Offset): void {
    invariant(offset > this.#next, () => `a batch that ends at ${offset} was planned behind ${this.#next}`);
    this.#next = offset;
  }

  writtenTo(offset: Offset): void {
    invariant(
      offset >= this.#logEnd,
      () => `log end moved back from ${this.#logEnd} to ${offset} without a truncation`,
    );
    this.#logEnd = offset;
    this.#check();
  }

  flushedTo(offset: Offset): void {
    if (offset > this.#flushed) this.#flushed = offset;
    this.#check();
  }

  /** What was queued behind the log end is dropped. */
  dropPlanned(): void {
    this.#next = this.#logEnd;
  }

  /** Up to the offset or the log end. Returns whether it moved; it never moves back. */
  advanceHighWatermark(offset: Offset): boolean {
    const to = clamp(offset, this.#highWatermark, this.#logEnd);
    if (to === this.#highWatermark) return false;
    this.#highWatermark = to;
    this.#check();
    return true;
  }

  /** Returns whether it moved. */
  advanceLogStart(offset: Offset): boolean {
    if (offset <= this.#logStart) return false;
    this.#logStart = offset;
    if (offset > this.#flushed) this.#flushed = offset;
    this.#check();
    return true;
  }

  /** The only way back. */
  truncateTo(offset: Offset): void {
    this.#next = offset;
    this.#logEnd = offset;
    this.#highWatermark = clamp(this.#highWatermark, this.#logStart, offset);
    this.#flushed = clamp(this.#flushed, this.#logStart, offset);
    this.#check();
  }

  /** The log is empty and begins here. */
  startAt(offset: Offset): void {
    this.#logStart = offset;
    this.#highWatermark = offset;
    this.#flushed = offset;
    this.#logEnd = offset;
    this.#next = offset;
  }

  #check(): void {
    invariant(
      this.#logStart <= this.#highWatermark && this.#highWatermark <= this.#logEnd,
      () =>
        `log start ${this.#logStart}, high watermark ${this.#highWatermark} and log end ${this.#logEnd} are out of order`,
    );
    invariant(
      this.#logStart <= this.#flushed && this.#flushed <= this.#logEnd,
      () => `log start ${this.#logStart}, flushed ${this.#flushed} and log end ${this.#logEnd} are out of order`,
    );
    invariant(this.#logEnd <= this.#next, () => `log end ${this.#logEnd} is behind the next offset ${this.#next}`);
  }
}

function clamp(offset: Offset, from: Offset, to: Offset): Offset {
  return offset < from ? from : offset > to ? to : offset;
}
