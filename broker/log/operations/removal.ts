import { StorageFailure } from "../../../common/env/files.js";
import type { Timer } from "../../../common/env/time.js";
import { reasonOf } from "../../../common/logger.js";
import type { Offset } from "../../../protocol/types.js";
import { isDamaged } from "../content/damage.js";
import type { LogDisk } from "../content/disk.js";
import type { LogContent } from "../content/log-content.js";
import type { LogContext } from "../content/log-context.js";
import type { Writability } from "../content/writability.js";
import type { Segment } from "../segment/segment.js";
import type { LogFlusher } from "./flusher.js";
import { expiredSegments, wallClockJumped } from "./retention.js";
import type { ClockReading } from "./retention.js";
import type { LogWriter } from "./writer.js";

/** What the oldest segments take with them. */
type RemovableContent = Pick<
  LogContent,
  "name" | "settings" | "offsets" | "segments" | "damage" | "producers" | "advanceLogStart"
>;

/**
 * Removes the oldest segments of a log: those that retention lets go, and those below a log start that was moved. What may
 * go is decided in retention.ts. Removing runs in the queue of what changes files; the files themselves stay for a while
 * under another name, for readers who found them before.
 */
export class LogRemoval {
  #lastReading: ClockReading;
  /** By the names that the files have in the meantime. */
  readonly #waiting = new Map<string, Timer>();

  constructor(
    private readonly context: LogContext,
    private readonly content: RemovableContent,
    private readonly writability: Writability,
    private readonly disk: LogDisk,
    private readonly writer: LogWriter,
    private readonly flusher: LogFlusher,
  ) {
    const { clock } = context.env;
    this.#lastReading = { wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() };
  }

  /** Whether ages by this wall clock are to be believed: not so once after it was set. */
  trustsClock(wallMs: number): boolean {
    const before = this.#lastReading;
    this.#lastReading = { wallMs, monotonicMs: this.context.env.clock.monotonicMs() };
    if (!wallClockJumped(before, this.#lastReading)) return true;
    this.context.logger.warn(
      `${this.content.name}: the wall clock was set by more than 5 minutes; retention is skipped once`,
    );
    return false;
  }

  /** Removes what the settings say is too old or too much. Resolves with how many segments. */
  async removeExpired(wallMs: number): Promise<number> {
    if (this.writability.hasEnded) return 0;
    const { segments } = this.content;
    for (;;) {
      const { settings } = this.content;
      const facts = segments.all.map((segment, at) => {
        const dated = this.#datedBy(at);
        return {
          endOffset: segment.endOffset,
          sizeBytes: segment.sizeBytes,
          // Unknown until its indexes are read: decided as if it had just been written, then read, then decided again.
          maxTimestamp: dated?.timesKnown === true ? Math.max(segment.maxTimestamp, dated.maxTimestamp) : wallMs,
        };
      });
      const expired = expiredSegments(facts, this.#bounds, settings, wallMs);
      const dated = this.#datedBy(expired);
      if (dated === undefined || dated.timesKnown || settings.retentionMs < 0) {
        return this.#removeOldest(expired);
      }
      await segments.use(dated, () => Promise.resolve());
      dated.timesKnown = true;
    }
  }

  /**
   * The segment by which it is known when the newest record of one was written: itself; where it is damaged the next whole
   * one, because what cannot be read may be newer than the rest and is no newer than what follows. Undefined: nothing follows.
   */
  #datedBy(at: number): Segment | undefined {
    const { segments, damage } = this.content;
    const segment = segments.all[at];
    if (segment === undefined || !isDamaged(damage.ranges, segment)) return segment;
    return segments.all.slice(at + 1).find((later) => later.plannedBytes > 0 && !isDamaged(damage.ranges, later));
  }

  /** Removes segments that lie below the log start as a whole. */
  async removeBelowLogStart(): Promise<void> {
    const nothingExpires = { retentionMs: -1, retentionBytes: -1 };
    await this.#removeOldest(expiredSegments(this.content.segments.all, this.#bounds, nothingExpires, 0));
  }

  get #bounds(): Parameters<typeof expiredSegments>[1] {
    const { logStart, highWatermark } = this.content.offsets;
    return { logStartOffset: logStart, highWatermark };
  }

  /** Resolves with how many were removed: none when a write that is under way, or has failed, is in the way. */
  async #removeOldest(count: number): Promise<number> {
    if (count === 0) return 0;
    const { segments, offsets, producers } = this.content;
    if (count === segments.all.length) {
      // Even the active one is too old. Nobody may be writing to it.
      if (!this.writer.isIdle) return 0;
      const { next } = offsets;
      segments.create(next);
      producers.snapshotAt(next);
      await this.flusher.flush();
    }
    const first = segments.all[count];
    if (first === undefined) return 0;
    await this.#keepProducers(first.baseOffset);
    // A write that fails takes a segment back that was begun for it, and the log would have none.
    if (segments.all[count] !== first || (first.sizeBytes === 0 && !this.writer.isIdle)) return 0;
    const removed = segments.takeOldest(count);
    this.content.advanceLogStart((segments.all[0] as Segment).baseOffset);
    // In the checkpoint first: a log that begins later than it says is taken for one that lost its beginning.
    await this.disk.checkpointInSpiteOfFullDisk();
    for (const segment of removed) {
      await segments.release(segment);
      await this.#removeLater(segment);
    }
    this.context.logger.info(
      `${this.content.name}: deleted ${count} segments; the log starts at ${offsets.logStart} now`,
    );
    return count;
  }

  /** Where the disk has no room for a snapshot it is done without: the removal makes room. */
  async #keepProducers(before: Offset): Promise<void> {
    const { producers, segments, settings } = this.content;
    try {
      await producers.keepBefore(before, segments, settings);
      await this.context.syncs.run(() => producers.sync(before));
    } catch (error) {
      if (!(error instanceof StorageFailure) || error.reason !== "full") throw error;
    }
  }

  /** Renamed at once, so that it is no segment any more; removed when readers who found it before are done. */
  async #removeLater(segment: Segment): Promise<void> {
    const { files, timers } = this.context.env;
    const path = segment.path("log");
    const renamed = `${path}.deleted`;
    await files.rename(path, renamed);
    await segment.removeFiles();
    const timer = timers.after(this.content.settings.fileDeleteDelayMs, () => {
      this.#waiting.delete(renamed);
      files.remove(renamed).catch((error: unknown) => {
        this.context.logger.warn(
          `${renamed} could not be removed; it is tried again at the next start: ${reasonOf(error)}`,
        );
      });
    });
    this.#waiting.set(renamed, timer);
  }

  /** Files that wait are removed by the next recovery. */
  cancel(): void {
    for (const timer of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
  }
}
