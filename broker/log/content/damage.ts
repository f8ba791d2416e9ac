import type { Logger } from "../../../common/logger.js";
import { ApiError } from "../../../protocol/error-codes.js";
import type { Offset } from "../../../protocol/types.js";
import type { DamagedRange } from "../segment/scan.js";

/**
 * The offsets of a log that its disk has lost or changed, in order. They are never served, and kept until retention takes
 * them or a truncation replaces them.
 */
export class LogDamage {
  constructor(
    /** For messages: the name of the log's directory. */
    private readonly name: string,
    private readonly logger: Logger,
    /** What lies outside of them is no part of the log any more. */
    private readonly bounds: { readonly logStart: Offset; readonly logEnd: Offset },
    private known: readonly DamagedRange[],
    /** Damage was found that was not known. */
    private readonly onNews: () => void,
  ) {
    this.cutStart(bounds.logStart);
    this.#say(this.known);
  }

  get ranges(): readonly DamagedRange[] {
    return this.known;
  }

  /**
   * Takes note of damage, which is news unless all of it is known. A file that is opened to be cut shows what is cut off as
   * well.
   */
  add(found: readonly DamagedRange[]): void {
    const { logStart, logEnd } = this.bounds;
    const news = endingAt(startingAt(found, logStart), logEnd).filter(
      (range) => !this.known.some((known) => known.from <= range.from && known.to >= range.to),
    );
    if (news.length === 0) return;
    this.known = [...this.known, ...news].sort((left, right) => left.from - right.from);
    this.#say(news);
    this.onNews();
  }

  #say(news: readonly DamagedRange[]): void {
    for (const { from, to, reason } of news) {
      this.logger.error(
        `${this.name}: offsets ${from} to ${to - 1} are damaged on this disk and are not served: ${reason}`,
      );
    }
  }

  /** `end`, or where the next damage begins if that is before it. Throws ApiError CORRUPT_LOG when `from` is damaged. */
  undamagedEnd(from: Offset, end: Offset): Offset {
    for (const range of this.known) {
      if (range.to <= from) continue;
      if (range.from <= from)
        throw new ApiError(
          "CORRUPT_LOG",
          `${this.name}: offsets ${range.from} to ${range.to - 1} are damaged: ${range.reason}`,
        );
      return range.from < end ? range.from : end;
    }
    return end;
  }

  /** The log starts here now. */
  cutStart(offset: Offset): void {
    this.known = startingAt(this.known, offset);
  }

  /** The log ends here now. */
  cutEnd(offset: Offset): void {
    this.known = endingAt(this.known, offset);
  }
}

/** Whether some of these offsets are damaged. */
export function isDamaged(
  damage: readonly DamagedRange[],
  { baseOffset, endOffset }: { readonly baseOffset: Offset; readonly endOffset: Offset },
): boolean {
  return damage.some((range) => range.to > baseOffset && range.from < endOffset);
}

/** What of the ranges lies at or behind the offset. */
function startingAt(ranges: readonly DamagedRange[], offset: Offset): DamagedRange[] {
  return ranges
    .filter((range) => range.to > offset)
    .map((range) => (range.from < offset ? { ...range, from: offset } : range));
}

/** What of the ranges lies in front of the offset. */
function endingAt(ranges: readonly DamagedRange[], offset: Offset): DamagedRange[] {
  return ranges
    .filter((range) => range.from < offset)
    .map((range) => (range.to > offset ? { ...range, to: offset } : range));
}
