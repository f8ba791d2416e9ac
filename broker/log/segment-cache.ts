import type { Segment, SegmentFiles } from "./segment.js";
import type { DamagedRange } from "./segment-scan.js";

/** Opens a closed segment; damage that opening brings to light is its log's business. */
type OpenSegment = () => Promise<{ files: SegmentFiles; damage: readonly DamagedRange[] }>;

/**
 * The open files of closed segments, over all logs: at most `openMax`, the ones used longest ago go first. Active segments
 * are not in it, theirs stay open. Files in use are never closed, so there may be more than `openMax` while as many reads
 * are under way.
 */
export class SegmentCache {
  /** In the order of last use. */
  readonly #opened = new Map<Segment, Promise<SegmentFiles>>();

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
    let opening = this.#opened.get(segment);
    if (opening === undefined) {
      opening = open().then(({ files, damage }) => {
        if (this.#opened.get(segment) === opening) segment.files = files;
        if (damage.length > 0) onDamage(damage);
        return files;
      });
      this.#touch(segment, opening);
    }
    let files: SegmentFiles;
    try {
      files = await opening;
    } catch (error) {
      if (this.#opened.get(segment) === opening) this.#opened.delete(segment);
      throw error;
    }
    const result = files.use(task);
    if (segment.files !== files) await files.retire();
    this.#evict();
    return result;
  }

  /** Takes over the files of a segment that was active until now. */
  adopt(segment: Segment, files: SegmentFiles): void {
    this.#touch(segment, Promise.resolve(files));
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
    for (const [segment, opening] of opened) {
      const files = await opening;
      segment.files = undefined;
      await files.retire();
    }
  }

  #touch(segment: Segment, opening: Promise<SegmentFiles>): void {
    this.#opened.delete(segment);
    this.#opened.set(segment, opening);
  }

  #evict(): void {
    for (const segment of this.#opened.keys()) {
      if (this.#opened.size <= this.openMax) return;
      const files = segment.files;
      if (files === undefined || files.inUse) continue;
      this.#opened.delete(segment);
      segment.files = undefined;
      void files.retire();
    }
  }
}
