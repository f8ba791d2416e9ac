import { BytePool } from "../../../common/byte-pool.js";
import { readBatch } from "../../../protocol/record-batch.js";
import type { Offset } from "../../../protocol/types.js";

/** Slabs of a log double in size while it is appended to, so that an idle one pins little. */
const SLAB_BYTES_MIN = 4 * 1024;
const SLAB_BYTES_MAX = 1024 * 1024;
/** Slabs that lie idle for the next log that needs one. */
const IDLE_BYTES_MAX = 16 * 1024 * 1024;
/** What an entry costs beside its bytes. */
const ENTRY_BYTES = 128;

/** Memory that batches lie in. It is used again once no entry and no reader refers to it. */
interface Slab {
  readonly memory: Buffer;
  used: number;
  entries: number;
  readers: number;
}

/** Whole batches, in order, that were appended together. */
interface TailEntry {
  readonly baseOffset: Offset;
  readonly endOffset: Offset;
  readonly slab: Slab;
  readonly start: number;
  readonly end: number;
}

/** Views of batches in memory. They are valid until `release`, which is called once. */
export interface TailRead {
  readonly pieces: Buffer[];
  readonly bytes: number;
  release(): void;
}

/**
 * The newest batches of a log in memory, so that readers who keep up never touch the disk. Batches are copied one behind
 * the other into slabs: the frame they came in can be used again at once, a few bytes never pin a large frame, and many
 * small batches leave in one piece. Slabs go back to a pool, because the collector would come late for them.
 *
 * Bounded twice: by `bytesMax` for one log and by the TailBudget for all.
 */
export class LogTail {
  /** Entries before `#head` were evicted; the array is compacted now and then. */
  #entries: TailEntry[] = [];
  #head = 0;
  /** Where the next batches go. */
  #slab: Slab | undefined;
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

  /** Whole batches behind those it has. They are copied. */
  append(baseOffset: Offset, endOffset: Offset, batches: Buffer): void {
    const slab = this.#slabFor(batches.length);
    const start = slab.used;
    slab.memory.set(batches, start);
    slab.used += batches.length;
    slab.entries += 1;
    this.#entries.push({ baseOffset, endOffset, slab, start, end: slab.used });
    this.#account(ENTRY_BYTES);
    while (this.#bytes > this.bytesMax && this.#head < this.#entries.length) this.evictOldest();
    this.budget.appended(this);
  }

  /**
   * Batches from the one that holds `from`, all of them below `end`, at most `bytesMax` but at least one; empty when none
   * ends at or below `end`. Undefined when `from` lies before the tail.
   */
  read(from: Offset, end: Offset, bytesMax: number): TailRead | undefined {
    const startOffset = this.startOffset;
    if (startOffset === undefined || from < startOffset) return undefined;
    const pieces: Buffer[] = [];
    let bytes = 0;
    // The piece that is being built; grows over entries that lie one behind the other in one slab.
    let open: { slab: Slab; start: number; end: number } | undefined;
    const slabs: Slab[] = [];
    const close = (): void => {
      if (open === undefined) return;
      pieces.push(open.slab.memory.subarray(open.start, open.end));
      open.slab.readers += 1;
      slabs.push(open.slab);
    };
    for (let at = this.#firstEndingAfter(from); at < this.#entries.length; at += 1) {
      const entry = this.#entries[at] as TailEntry;
      if (entry.baseOffset >= end) break;
      const left = bytesMax - bytes;
      const whole = entry.baseOffset >= from && entry.endOffset <= end && entry.end - entry.start <= left;
      const part = whole ? entry : partOf(entry, from, end, left, bytes === 0);
      if (part !== undefined) {
        bytes += part.end - part.start;
        if (open !== undefined && open.slab === entry.slab && open.end === part.start) open.end = part.end;
        else {
          close();
          open = { slab: entry.slab, start: part.start, end: part.end };
        }
      }
      if (part === undefined || part.end < entry.end) break;
    }
    close();
    return { pieces, bytes, release: () => this.#readersLeft(slabs) };
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
    this.#slab = undefined;
    for (let at = this.#head; at < this.#entries.length; at += 1) this.#release(this.#entries[at] as TailEntry);
    this.#entries = [];
    this.#head = 0;
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

  #slabFor(bytes: number): Slab {
    const slab = this.#slab;
    if (slab !== undefined && slab.used + bytes <= slab.memory.length) return slab;
    const doubled = Math.min(SLAB_BYTES_MAX, Math.max(SLAB_BYTES_MIN, (slab?.memory.length ?? 0) * 2));
    const size = 2 ** Math.ceil(Math.log2(Math.max(doubled, bytes)));
    const next: Slab = { memory: this.budget.pool.take(size), used: 0, entries: 0, readers: 0 };
    this.#account(next.memory.length);
    this.#slab = next;
    return next;
  }

  #release(entry: TailEntry): void {
    const { slab } = entry;
    slab.entries -= 1;
    this.#account(-ENTRY_BYTES);
    if (slab.entries > 0) return;
    this.#account(-slab.memory.length);
    if (this.#slab === slab) this.#slab = undefined;
    this.#maybeUseAgain(slab);
  }

  #readersLeft(slabs: readonly Slab[]): void {
    for (const slab of slabs) {
      slab.readers -= 1;
      this.#maybeUseAgain(slab);
    }
  }

  #maybeUseAgain(slab: Slab): void {
    if (slab.entries === 0 && slab.readers === 0) this.budget.pool.give(slab.memory);
  }

  #account(bytes: number): void {
    this.#bytes += bytes;
    this.budget.changed(bytes);
  }
}

/** The bytes that all tails together may pin. Over it the log that was appended to longest ago gives up its oldest. */
export class TailBudget {
  /** For LogTail: memory for slabs. */
  readonly pool = new BytePool(IDLE_BYTES_MAX);
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
    const batch = readBatch(entry.slab.memory, at, entry.end);
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
