import { InvariantViolation } from "../../../common/assert.js";
import { StorageFailure } from "../../../common/env/files.js";
import { reasonOf } from "../../../common/logger.js";
import type { LogDisk } from "../content/disk.js";
import type { LogContent } from "../content/log-content.js";
import type { LogContext } from "../content/log-context.js";
import type { LogWaiters } from "../content/waiters.js";
import type { Writability } from "../content/writability.js";

/** What a flush makes durable. */
type FlushedContent = Pick<
  LogContent,
  "name" | "settings" | "offsets" | "segments" | "directory" | "producers" | "saveEpochs" | "checkpointStart"
>;

/** A flush begins when so many bytes wait for it, whatever the interval: recovery scans little. */
const UNFLUSHED_BYTES_MAX = 32 * 1024 * 1024;
/** After so many bytes indexes and producers are written, so that recovery need not read the whole segment. */
const SIDECAR_INTERVAL_BYTES = 16 * 1024 * 1024;

/** How the flusher gets a turn to flush. */
export interface FlushRequests {
  /** As soon as nothing else changes the files. */
  flush(): Promise<void>;
  /** When the interval of the settings has passed. */
  flushLater(): void;
}

/**
 * Makes durable what is written, and with it whatever else must be on disk before the flushed offset may say so. Decides
 * when that is due: with `fsync` at once, by group commit; else after an interval, or when much has been written.
 *
 * A failed sync fails the log. A flush that failed for another reason (a full disk) leaves the flushed offset where it was
 * and is tried again.
 */
export class LogFlusher {
  #committing = false;
  /** A flush was asked for, and has not begun. */
  #requested = false;
  #unflushedBytes = 0;

  constructor(
    private readonly context: LogContext,
    private readonly content: FlushedContent,
    private readonly writability: Writability,
    private readonly disk: LogDisk,
    private readonly waiters: LogWaiters,
    private readonly requests: FlushRequests,
  ) {}

  /** Whether a group commit runs: what is written now is best gathered for the next one. */
  get isCommitting(): boolean {
    return this.#committing;
  }

  /** The log end has moved by so many bytes. */
  wrote(bytes: number): void {
    this.#unflushedBytes += bytes;
    if (this.content.settings.durability === "fsync") {
      if (!this.#committing) void this.#commit();
    } else this.#flushLater();
    if (this.#unflushedBytes <= UNFLUSHED_BYTES_MAX) return;
    this.#unflushedBytes = 0;
    this.inBackground();
    this.context.checkpointSoon();
  }

  settingsChanged(): void {
    const { settings, offsets } = this.content;
    if (settings.durability === "fsync" && !this.#committing && offsets.flushed < offsets.logEnd) void this.#commit();
  }

  /** Group commit: one sync for all that was written before it, again until nothing is left. */
  async #commit(): Promise<void> {
    const { offsets } = this.content;
    this.#committing = true;
    try {
      // A full disk syncs as well as any.
      while (offsets.flushed < offsets.logEnd && !this.writability.hasEnded) await this.requests.flush();
    } catch (error) {
      // Who waits for a sync that failed was told by the flush itself; anything else is tried again.
      this.#warn(error);
    } finally {
      this.#committing = false;
    }
  }

  #flushLater(): void {
    if (this.#requested || this.writability.isClosed) return;
    this.#requested = true;
    this.requests.flushLater();
  }

  inBackground(): void {
    this.requests.flush().catch((error: unknown) => {
      if (!this.writability.isClosed) this.#warn(error);
    });
  }

  #warn(error: unknown): void {
    if (error instanceof InvariantViolation) this.writability.fail(error);
    this.context.logger.warn(`${this.content.name}: flush failed: ${reasonOf(error)}`);
  }

  /** In the queue of what changes files. */
  async flush(): Promise<void> {
    if (this.writability.hasEnded) return;
    const { segments, offsets } = this.content;
    const target = offsets.logEnd;
    this.#requested = false;
    this.#unflushedBytes = 0;
    for (const segment of segments.all.filter((candidate) => candidate.syncedBytes < candidate.sizeBytes)) {
      const bytes = segment.sizeBytes;
      await this.disk.sync(() => segment.openFiles.use(({ file }) => file.sync()));
      segment.syncedBytes = bytes;
    }
    try {
      await this.#flushSidecars();
    } catch (error) {
      this.#flushLater();
      throw error;
    }
    if (offsets.flushed >= target) return;
    offsets.flushedTo(target);
    this.context.checkpointSoon();
    this.waiters.flushedTo(target);
  }

  /** All that must be on disk, and need not be, before the flushed offset says that the batches are. */
  async #flushSidecars(): Promise<void> {
    const { directory, segments, producers } = this.content;
    await directory.syncMetadata();
    await this.content.saveEpochs();
    await directory.syncNames();
    await this.content.checkpointStart();
    const { active } = segments;
    for (const segment of segments.all) {
      if (segment === active || segment.sealed || segment.files === undefined) continue;
      // It may have been active still when this flush looked what to sync.
      if (segment.syncedBytes < segment.plannedBytes) continue;
      await segments.seal(segment);
    }
    await producers.writePending();
    if (active === undefined || active.unindexedBytes < SIDECAR_INTERVAL_BYTES) return;
    const snapshot = producers.snapshot(this.content.offsets.next);
    await active.writeIndexes();
    await producers.write(snapshot);
    await producers.removeOld(segments);
  }

  /** The last step of a truncation, in the same turn of the queue. */
  async flushAfterCut(): Promise<void> {
    try {
      await this.flush();
    } catch (error) {
      // The cut itself is durable; the rest is written when there is space, and could be made anew from the batches.
      if (!(error instanceof StorageFailure) || error.reason !== "full") throw error;
    }
  }

  /** After the last flush, in the queue: what spares the next start from reading. */
  async finish(): Promise<void> {
    const { producers, offsets, segments } = this.content;
    const { active } = segments;
    if (active === undefined) return;
    await producers.write(producers.snapshot(offsets.logEnd));
    await active.writeIndexes();
  }
}
