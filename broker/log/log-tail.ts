import { readBatch } from "../../protocol/record-batch.js";
import type { Offset } from "../../protocol/types.js";

/** What is shorter than this is copied out of its frame: a view would pin the whole frame. */
const COPIED_BELOW_BYTES = 32 * 1024;
const SLAB_BYTES_MIN = 4 * 1024;
const SLAB_BYTES_MAX = 64 * 1024;
/** What an entry costs beside its bytes. */
const ENTRY_BYTES = 128;

/** Memory that stays as long as an entry refers to it. */
interface Backing {
  readonly memory: ArrayBufferLike;
  readonly bytes: number;
  entries: number;
}

/** Whole batches, in order, that were appended together. */
interface TailEntry {
  readonly baseOffset: Offset;
  readonly endOffset: Offset;
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  readonly backing: Backing;
}

/**
 * The newest batches of a log, as the very buffers that were written, so that readers who keep up never touch the disk.
 * Large buffers are kept as views of the frame they came in, and the whole frame is what they are counted as; small ones
 * are copied one behind the other into slabs, so that many of them leave in one piece (hazard 8.7).
 *
 * Bounded twice: by `bytesMax` for one log and by the TailBudget for all. Whoever reads gets views; evicted memory is
 * freed when the last view is gone.
 */
export class LogTail {
  /** Entries before `#head` were evicted; the array is compacted now and then. */
  #entries: TailEntry[] = [];
  #head = 0;
  #slab: Buffer | undefined;
  #slabUsed = 0;
  #lastBacking: Backing | undefined;
  #bytes = 0;

  constructor(
    private readonly budget: TailBudget,
    private readonly bytesMax: number,
  ) {}

  /** Memory that the tail pins. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The tail answers reads from here on; undefined when it is empty. */
  get startOffset(): Offset | undefined {
    return this.#entries[this.#head]?.baseOffset;
  }

  /** Whole batches behind those it has. `view` must not be changed afterwards. */
  append(baseOffset: Offset, endOffset: Offset, view: Buffer): void {
    const copied = view.length < COPIED_BELOW_BYTES || view.buffer.byteLength > view.length * 2;
    const buffer = copied ? this.#copy(view) : view;
    const start = copied ? this.#slabUsed - view.length : 0;
    const backing = this.#backingOf(buffer);
    backing.entries += 1;
    this.#entries.push({ baseOffset, endOffset, buffer, start, end: start + view.length, backing });
    this.#account(ENTRY_BYTES);
    while (this.#bytes > this.bytesMax && this.#head < this.#entries.length) this.evictOldest();
    this.budget.appended(this);
  }

  /**
   * Batches from the one that holds `from`, all of them below `end`, at most `bytesMax` but at least one; empty when none
   * ends at or below `end`. Undefined when `from` lies before the tail.
   */
  read(from: Offset, end: Offset, bytesMax: number): { pieces: Buffer[]; bytes: number } | undefined {
    const startOffset = this.startOffset;
    if (startOffset === undefined || from < startOffset) return undefined;
    const pieces: Buffer[] = [];
    let bytes = 0;
    // The piece that is being built; grows over entries that lie one behind the other in one slab.
    let open: { buffer: Buffer; start: number; end: number } | undefined;
    for (let at = this.#firstEndingAfter(from); at < this.#entries.length; at += 1) {
      const entry = this.#entries[at] as TailEntry;
      if (entry.baseOffset >= end) break;
      const left = bytesMax - bytes;
      const whole = entry.baseOffset >= from && entry.endOffset <= end && entry.end - entry.start <= left;
      const part = whole ? entry : partOf(entry, from, end, left, bytes === 0);
      if (part !== undefined) {
        bytes += part.end - part.start;
        if (open !== undefined && open.buffer === entry.buffer && open.end === part.start) open.end = part.end;
        else {
          if (open !== undefined) pieces.push(open.buffer.subarray(open.start, open.end));
          open = { buffer: entry.buffer, start: part.start, end: part.end };
        }
      }
      if (part === undefined || part.end < entry.end) break;
    }
    if (open !== undefined) pieces.push(open.buffer.subarray(open.start, open.end));
    return { pieces, bytes };
  }

  /** Bytes of the entries between the offsets; undefined when `from` lies before the tail. Counts whole appends. */
  bytesBetween(from: Offset, end: Offset): number | undefined {
    const startOffset = this.startOffset;
    if (startOffset === undefined || from < startOffset) return undefined;
    let bytes = 0;
    for (let at = this.#entries.length - 1; at >= this.#head; at -= 1) {
      const entry = this.#entries[at] as TailEntry;
      if (entry.endOffset <= from) break;
      if (entry.baseOffset < end) bytes += entry.end - entry.start;
    }
    return bytes;
  }

  /** Forgets all batches from the offset on, and with them what was appended together with them. */
  cutEnd(offset: Offset): void {
    for (;;) {
      const last = this.#entries.length > this.#head ? this.#entries.at(-1) : undefined;
      if (last === undefined || last.endOffset <= offset) break;
      if (last.baseOffset < offset) {
        // Part of it stays in the log; without it the tail would have a hole.
        this.clear();
        return;
      }
      this.#entries.pop();
      this.#release(last);
    }
    // The bytes behind the cut may not be written over: readers may still hold views of them.
    this.#slab = undefined;
    if (this.#entries.length === this.#head) this.clear();
  }

  clear(): void {
    this.#entries = [];
    this.#head = 0;
    this.#slab = undefined;
    this.#lastBacking = undefined;
    this.#account(-this.#bytes);
    this.budget.emptied(this);
  }

  /** Gives up the oldest entry, if there is one. */
  evictOldest(): void {
    const entry = this.#entries[this.#head];
    if (entry === undefined) return;
    this.#release(entry);
    this.#head += 1;
    if (this.#head === this.#entries.length) this.clear();
    else if (this.#head >= 1024 && this.#head * 2 >= this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  #firstEndingAfter(offset: Offset): number {
    let low = this.#head;
    let high = this.#entries.length;
    // Readers mostly keep up, so the last entry is looked at first.
    if (high > low && (this.#entries[high - 1] as TailEntry).baseOffset <= offset) {
      return (this.#entries[high - 1] as TailEntry).endOffset > offset ? high - 1 : high;
    }
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle] as TailEntry).endOffset <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Copies into the slab and leaves `#slabUsed` at the end of the copy. */
  #copy(view: Buffer): Buffer {
    let slab = this.#slab;
    if (slab === undefined || this.#slabUsed + view.length > slab.length) {
      const doubled = Math.min(SLAB_BYTES_MAX, Math.max(SLAB_BYTES_MIN, (slab?.length ?? 0) * 2));
      slab = Buffer.allocUnsafeSlow(Math.max(doubled, view.length));
      this.#slab = slab;
      this.#slabUsed = 0;
    }
    slab.set(view, this.#slabUsed);
    this.#slabUsed += view.length;
    return slab;
  }

  #backingOf(buffer: Buffer): Backing {
    if (this.#lastBacking?.memory !== buffer.buffer) {
      this.#lastBacking = { memory: buffer.buffer, bytes: buffer.buffer.byteLength, entries: 0 };
      this.#account(this.#lastBacking.bytes);
    }
    return this.#lastBacking;
  }

  #release(entry: TailEntry): void {
    entry.backing.entries -= 1;
    this.#account(-ENTRY_BYTES);
    if (entry.backing.entries > 0) return;
    this.#account(-entry.backing.bytes);
    if (this.#lastBacking === entry.backing) {
      this.#lastBacking = undefined;
      this.#slab = undefined;
    }
  }

  #account(bytes: number): void {
    this.#bytes += bytes;
    this.budget.changed(bytes);
  }
}

/** The bytes that all tails together may pin. Over it the log that was appended to longest ago gives up its oldest. */
export class TailBudget {
  /** In the order of last append. */
  readonly #tails = new Set<LogTail>();
  #bytes = 0;

  constructor(private readonly bytesMax: number) {}

  get bytes(): number {
    return this.#bytes;
  }

  /** For LogTail. */
  appended(tail: LogTail): void {
    if (tail.startOffset === undefined) return;
    this.#tails.delete(tail);
    this.#tails.add(tail);
    while (this.#bytes > this.bytesMax) {
      const oldest = this.#tails.values().next().value;
      if (oldest === undefined) return;
      oldest.evictOldest();
    }
  }

  /** For LogTail. */
  emptied(tail: LogTail): void {
    this.#tails.delete(tail);
  }

  /** For LogTail. */
  changed(bytes: number): void {
    this.#bytes += bytes;
  }
}

/** The batches of one entry between the offsets that fit; `atLeastOne` takes the first one however large it is. */
function partOf(
  entry: TailEntry,
  from: Offset,
  end: Offset,
  bytesMax: number,
  atLeastOne: boolean,
): { start: number; end: number } | undefined {
  let first: number | undefined;
  let last = entry.start;
  for (let at = entry.start; at < entry.end;) {
    const batch = readBatch(entry.buffer, at, entry.end);
    at = batch.end;
    if (batch.endOffset <= from) continue;
    if (batch.endOffset > end) break;
    const fits = batch.end - (first ?? batch.start) <= bytesMax;
    if (!fits && !(atLeastOne && first === undefined)) break;
    first ??= batch.start;
    last = batch.end;
  }
  return first === undefined ? undefined : { start: first, end: last };
}
