import type { BytePool } from "../../../common/byte-pool.js";
import { StorageFailure } from "../../../common/env/files.js";
import { ApiError } from "../../../protocol/error-codes.js";
import { firstRecordAt } from "../../../protocol/record-times.js";
import type { RecordTime } from "../../../protocol/record-times.js";
import type { Offset } from "../../../protocol/types.js";
import type { LogContent } from "../content/log-content.js";
import type { Writability } from "../content/writability.js";
import { emptyRead, readFromSegment, UnreadableSegment } from "../segment/read.js";
import type { LogRead } from "../segment/read.js";
import { surveySegment } from "../segment/scan.js";
import type { SegmentFiles } from "../segment/segment-files.js";
import type { Segment } from "../segment/segment.js";
import type { LogVerifier } from "./verifier.js";

/** What a read looks at. */
type ReadContent = Pick<LogContent, "name" | "cuts" | "offsets" | "segments" | "damage" | "tail">;

/** How much to read, and up to where; to the log end if not given. */
export interface ReadOptions {
  readonly maxBytes: number;
  readonly end?: Offset;
}

/**
 * Reads a log while others change it: from the tail at once, else from the files. Whoever changes the log does not wait for
 * readers; a reader notices afterwards, by the count of cuts or a segment that is not there any more, and begins again.
 */
export class LogReader {
  constructor(
    private readonly pool: BytePool,
    private readonly content: ReadContent,
    private readonly writability: Writability,
    private readonly verifier: LogVerifier,
  ) {}

  read(from: Offset, options: ReadOptions): LogRead | Promise<LogRead> {
    const { offsets, damage, tail } = this.content;
    if (from < offsets.logStart || from > offsets.logEnd)
      throw new ApiError(
        "OFFSET_OUT_OF_RANGE",
        `${this.content.name}: offset ${from} is not in ${offsets.logStart} to ${offsets.logEnd}`,
      );
    const limit = options.end === undefined || options.end > offsets.logEnd ? offsets.logEnd : options.end;
    const end = damage.undamagedEnd(from, limit);
    if (from >= end) return emptyRead;
    const inMemory = tail.read(from, end, options.maxBytes);
    if (inMemory !== undefined) return inMemory;
    return this.#readFiles(from, end, options);
  }

  async #readFiles(from: Offset, end: Offset, options: ReadOptions, isRetry = false): Promise<LogRead> {
    const { segments, damage, cuts } = this.content;
    let segment: Segment | undefined;
    try {
      for (let at = segments.indexOf(from); ; at += 1) {
        segment = segments.all[at];
        if (segment === undefined || segment.baseOffset >= end) return emptyRead;
        const source = segment;
        const read = await segments.use(source, (files) =>
          readFromSegment(source, files, this.pool, { from, end, maxBytes: options.maxBytes }),
        );
        if (this.content.cuts !== cuts) {
          read?.release();
          return await this.read(from, options);
        }
        if (read !== undefined) return read;
        // Opening the segment may have shown that what should be here is lost.
        damage.undamagedEnd(from, end);
      }
    } catch (error) {
      if (this.content.cuts !== cuts) return this.read(from, options);
      if (error instanceof StorageFailure) {
        // Retention may have removed the segment between the look and the opening.
        if (segment !== undefined && !segments.all.includes(segment)) return this.read(from, options);
        throw this.writability.refusal(error);
      }
      if (!(error instanceof UnreadableSegment)) throw error;
      await this.verifier.verifyRange(from);
      if (this.content.cuts !== cuts) return this.read(from, options);
      // Where the damage lies in front of `from`, the index leads behind it now.
      if (!isRetry) return await this.#readFiles(from, damage.undamagedEnd(from, end), options, true);
      const reason = `${this.content.name}: offset ${from} cannot be read: ${error.message}`;
      throw new ApiError("CORRUPT_LOG", reason, { cause: error });
    }
  }

  async offsetForTimestamp(timestamp: number, end: Offset): Promise<RecordTime | undefined> {
    const { segments, offsets, cuts } = this.content;
    for (const segment of [...segments.all]) {
      if (segment.baseOffset >= end || this.content.cuts !== cuts) break;
      if (segment.endOffset <= offsets.logStart) continue;
      try {
        const found = await segments.use(segment, (files) => this.#searchTime(segment, files, timestamp, end));
        if (found !== undefined) return found;
      } catch (error) {
        if (!(error instanceof StorageFailure)) throw error;
        // As in a read: removed between the look and the opening.
        if (!segments.all.includes(segment)) return this.offsetForTimestamp(timestamp, end);
        throw this.writability.refusal(error);
      }
    }
    return this.content.cuts === cuts ? undefined : this.offsetForTimestamp(timestamp, end);
  }

  async #searchTime(
    segment: Segment,
    files: SegmentFiles,
    timestamp: number,
    end: Offset,
  ): Promise<RecordTime | undefined> {
    if (segment.maxTimestamp < timestamp) return undefined;
    const indexed = files.index.floor(files.timeIndex.searchStart(timestamp));
    let found: RecordTime | undefined;
    await surveySegment(files.file, segment.scanFrom(indexed), segment.endOffset, (batch) => {
      if (batch.endOffset > end) return false;
      found = firstRecordAt(batch, timestamp, this.content.offsets.logStart);
      return found === undefined;
    });
    return found;
  }
}
