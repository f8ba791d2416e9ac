import type { Clock } from "../../../common/env/time.js";
import type { Offset } from "../../../protocol/types.js";
import type { PlannedWrite } from "../content/segment-list.js";
import type { Writability } from "../content/writability.js";
import type { SegmentFiles } from "../segment/segment-files.js";
import type { Segment } from "../segment/segment.js";

/** A write that took longer turns the log to queued writes: the disk would hold up the event loop. */
const SLOW_WRITE_MS = 1;
/** For so long at first; doubled each time that the first write after it is slow again. */
const QUEUED_MS_MIN = 1_000;
const QUEUED_MS_MAX = 8_000;
/** One gathered write takes no more than this. */
const GATHERED_BYTES_MAX = 8 * 1024 * 1024;
const GATHERED_PIECES_MAX = 512;

/** What the writer tells its log. */
export interface LogWriterEvents {
  /** All batches that end at or below the offset are written now. */
  onWritten(endOffset: Offset, bytes: number, wasQueued: boolean): void;
  /** A write failed, and may have left anything behind the last good byte. Returns the error for who asked for it. */
  onWriteFailed(error: unknown): Error;
}

interface GatheredWrite {
  readonly segment: Segment;
  readonly files: SegmentFiles;
  readonly pieces: Buffer[];
  bytes: number;
  endOffset: Offset;
}

/**
 * Writes batches to their files in the order in which they got their places. An idle log on a quick disk is written to in
 * the caller's turn of the event loop, which is cheaper than any promise; else batches queue while a write is in flight,
 * and then leave as one gathered write.
 */
export class LogWriter {
  readonly #queue: PlannedWrite[] = [];
  #writing = false;
  #idleWaiters: (() => void)[] = [];
  /** After a slow write, until when all are queued, and for how long that is. */
  #queuedUntilMs = 0;
  #queuedMs = QUEUED_MS_MIN;

  constructor(
    private readonly clock: Clock,
    private readonly writability: Writability,
    private readonly events: LogWriterEvents,
  ) {}

  /** Whether no write is queued or in flight. */
  get isIdle(): boolean {
    return !this.#writing && this.#queue.length === 0;
  }

  /** Writes what belongs to one append, or queues it. Throws when a write failed at once. */
  write(writes: readonly PlannedWrite[], mayBlock: boolean): void {
    if (mayBlock && this.isIdle && this.clock.monotonicMs() >= this.#queuedUntilMs) {
      this.#writeNow(writes);
      return;
    }
    this.#queue.push(...writes);
    if (!this.#writing) void this.#writeQueued();
  }

  #writeNow(writes: readonly PlannedWrite[]): void {
    const startedMs = this.clock.monotonicMs();
    let bytes = 0;
    let written = 0;
    try {
      for (const { files, piece, segment } of writes) {
        files.file.writeSync([piece], segment.sizeBytes);
        segment.sizeBytes += piece.length;
        bytes += piece.length;
        written += 1;
      }
    } catch (error) {
      // The append is refused as a whole. What it left in the segments in front is to be cut off like the rest.
      for (const { piece, segment } of writes.slice(0, written)) segment.sizeBytes -= piece.length;
      throw this.events.onWriteFailed(error);
    }
    const endedMs = this.clock.monotonicMs();
    if (endedMs - startedMs > SLOW_WRITE_MS) {
      this.#queuedUntilMs = endedMs + this.#queuedMs;
      this.#queuedMs = Math.min(this.#queuedMs * 2, QUEUED_MS_MAX);
    } else this.#queuedMs = QUEUED_MS_MIN;
    this.events.onWritten((writes[writes.length - 1] as PlannedWrite).endOffset, bytes, false);
  }

  async #writeQueued(): Promise<void> {
    this.#writing = true;
    try {
      for (let group = this.#nextGroup(); group !== undefined; group = this.#nextGroup()) {
        const { segment, files, pieces, bytes, endOffset } = group;
        await files.use(({ file }) => file.write(pieces, segment.sizeBytes));
        if (!this.writability.isHealthy) return;
        segment.sizeBytes += bytes;
        this.events.onWritten(endOffset, bytes, true);
      }
    } catch (error) {
      this.events.onWriteFailed(error);
    } finally {
      this.#writing = false;
      // Nothing will be written any more, or not before a cut: whoever waits for an idle writer must not wait for it.
      if (!this.writability.isHealthy) this.drop();
      for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
  }

  /** The next writes that go to one file, as one. */
  #nextGroup(): GatheredWrite | undefined {
    const [first] = this.#queue;
    if (first === undefined) return undefined;
    const { segment, files, endOffset } = first;
    const group: GatheredWrite = { segment, files, pieces: [], bytes: 0, endOffset };
    let taken = 0;
    for (const write of this.#queue) {
      const fits = group.bytes + write.piece.length <= GATHERED_BYTES_MAX && taken < GATHERED_PIECES_MAX;
      if (write.segment !== segment || (taken > 0 && !fits)) break;
      group.pieces.push(write.piece);
      group.bytes += write.piece.length;
      group.endOffset = write.endOffset;
      taken += 1;
    }
    this.#queue.splice(0, taken);
    return group;
  }

  /** Forgets what is queued; a write in flight goes on. */
  drop(): void {
    this.#queue.length = 0;
  }

  /** Resolves when no write is queued or in flight. */
  drained(): Promise<void> {
    if (this.isIdle) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }
}
