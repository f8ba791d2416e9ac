import { crc32 } from "node:zlib";

/** Bytes of one entry in the file: relative offset, position, CRC-32 of both; little-endian. */
export const OFFSET_INDEX_ENTRY_BYTES = 12;

/**
 * Where in a segment some of its batches begin: sparse, ascending, so that a reader has at most about
 * `indexIntervalBytes` to walk. Offsets are relative to the segment's base offset. Each entry in the file carries its own
 * checksum, so the entries up to the first bad one can be used: what is lost costs a longer walk, never a wrong answer.
 */
export class OffsetIndex {
  #offsets = new Uint32Array(64);
  #positions = new Uint32Array(64);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds an entry behind the last one. */
  append(relativeOffset: number, position: number): void {
    if (this.#count === this.#offsets.length) {
      this.#offsets = grown(this.#offsets);
      this.#positions = grown(this.#positions);
    }
    this.#offsets[this.#count] = relativeOffset;
    this.#positions[this.#count] = position;
    this.#count += 1;
  }

  /** Adds an entry where its place is, if there is none for the offset yet. Returns how many entries stand before it. */
  insert(relativeOffset: number, position: number): number {
    const at = this.#countTo(relativeOffset);
    if (at > 0 && this.#offsets[at - 1] === relativeOffset) return at - 1;
    this.append(relativeOffset, position);
    for (const [array, value] of [
      [this.#offsets, relativeOffset],
      [this.#positions, position],
    ] as const) {
      array.copyWithin(at + 1, at, this.#count - 1);
      array[at] = value;
    }
    return at;
  }

  /** The last entry at or before the offset; undefined when the walk must begin at the segment's first byte. */
  floor(relativeOffset: number): { relativeOffset: number; position: number } | undefined {
    return this.entry(this.#countTo(relativeOffset) - 1);
  }

  /** How many entries stand at or before the offset. */
  #countTo(relativeOffset: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#offsets[middle] as number) <= relativeOffset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  entry(at: number): { relativeOffset: number; position: number } | undefined {
    if (at < 0 || at >= this.#count) return undefined;
    return { relativeOffset: this.#offsets[at] as number, position: this.#positions[at] as number };
  }

  /** Drops entries at or behind the offset, or at or behind the position. */
  cut(relativeOffset: number, position: number): void {
    while (
      this.#count > 0 &&
      ((this.#offsets[this.#count - 1] as number) >= relativeOffset ||
        (this.#positions[this.#count - 1] as number) >= position)
    ) {
      this.#count -= 1;
    }
  }

  /** The bytes of the entries from the given one on. */
  encode(fromEntry: number): Buffer {
    const bytes = Buffer.allocUnsafe((this.#count - fromEntry) * OFFSET_INDEX_ENTRY_BYTES);
    for (let entry = fromEntry, at = 0; entry < this.#count; entry += 1, at += OFFSET_INDEX_ENTRY_BYTES) {
      bytes.writeUInt32LE(this.#offsets[entry] as number, at);
      bytes.writeUInt32LE(this.#positions[entry] as number, at + 4);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 8)), at + 8);
    }
    return bytes;
  }

  /** The entries up to the first one that is damaged or out of order. */
  static decode(bytes: Buffer): OffsetIndex {
    const index = new OffsetIndex();
    let last = { relativeOffset: -1, position: -1 };
    for (let at = 0; at + OFFSET_INDEX_ENTRY_BYTES <= bytes.length; at += OFFSET_INDEX_ENTRY_BYTES) {
      if (crc32(bytes.subarray(at, at + 8)) !== bytes.readUInt32LE(at + 8)) break;
      const entry = { relativeOffset: bytes.readUInt32LE(at), position: bytes.readUInt32LE(at + 4) };
      if (entry.relativeOffset <= last.relativeOffset || entry.position <= last.position) break;
      index.append(entry.relativeOffset, entry.position);
      last = entry;
    }
    return index;
  }
}

function grown(array: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(array.length * 2);
  larger.set(array);
  return larger;
}
