import type { DamagedRange } from "./scan.js";
import type { SegmentFiles } from "./segment-files.js";
import type { Segment } from "./segment.js";

/** Opens a closed segment; damage that opening brings to light is its log's business. */
type OpenSegment = () => Promise<{ files: SegmentFiles; damage: readonly DamagedRange[] }>;

interface Opened {
  readonly files: Promise<SegmentFiles>;
  /** How many wait for them and have not begun to use them. */
  awaited: number;
}

/**
 * The open files of closed segments, over all logs: at most `openMax`, the ones used longest ago go first. Active segments
 * are not in it, theirs stay open. Files in use, or waited for, are never closed, so there may be more than `openMax` while as
 * many reads are under way.
 */
export class SegmentCache {
  /** In the order of last use. */
  readonly #opened = new Map<Segment, Opened>();

  constructor(private readonly openMax: number) {}

  /** Runs the task with the segment's files, which are opened if they are not. */
  async use<T>(
    segment: Segment,
    open: OpenSegment,
    onDamage: (damage: readonly DamagedRange[]) => void,
    task: (files: SegmentFiles) => Promise<T>,
  ): Promise<T> {
    if (segment.files !== undefined) {
      const known = this.#opened.get(segment);
      if (known !== undefined) this.#touch(segment, known);
      return segment.files.use(task);
    }
    const opened = this.#opened.get(segment) ?? this.#open(segment, open, onDamage);
    let files: SegmentFiles;
    opened.awaited += 1;
    try {
      files = await opened.files;
    } catch (error) {
      if (this.#opened.get(segment) === opened) this.#opened.delete(segment);
      throw error;
    } finally {
      opened.awaited -= 1;
    }
    const result = files.use(task);
    if (segment.files !== files) await files.retire();
    this.#evict();
    return result;
  }

  #open(segment: Segment, open: OpenSegment, onDamage: (damage: readonly DamagedRange[]) => void): Opened {
    const files = open().then(({ files, damage }) => {
      if (this.#opened.get(segment) === opened) segment.files = files;
      if (damage.length > 0) onDamage(damage);
      return files;
    });
    const opened: Opened = { files, awaited: 0 };
    this.#touch(segment, opened);
    return opened;
  }

  /** Takes over the open files of a segment that was active until now. */
  adopt(segment: Segment, files: SegmentFiles): void {
    this.#touch(segment, { files: Promise.resolve(files), awaited: 0 });
    this.#evict();
  }

  /** The segment is active again or gone: the cache lets go of its files without closing them. */
  release(segment: Segment): void {
    this.#opened.delete(segment);
  }

  /** Closes all files that are not in use. */
  async close(): Promise<void> {
    const opened = [...this.#opened];
    this.#opened.clear();
    for (const [segment, { files: opening }] of opened) {
      const files = await opening;
      segment.files = undefined;
      await files.retire();
    }
  }

  #touch(segment: Segment, opened: Opened): void {
    this.#opened.delete(segment);
    this.#opened.set(segment, opened);
  }

  #evict(): void {
    for (const [segment, { awaited }] of this.#opened) {
      if (this.#opened.size <= this.openMax) return;
      const files = segment.files;
      if (files === undefined || files.inUse || awaited > 0) continue;
      this.#opened.delete(segment);
      segment.files = undefined;
      void files.retire();
    }
  }
}
