import { crc32 } from "node:zlib";

/** Bytes of one entry in the file: timestamp (8), relative offset (4), CRC-32 of both (4); little-endian. */
export const TIME_INDEX_ENTRY_BYTES = 16;

const TWO_TO_32 = 2 ** 32;

/**
 * For some batches of a segment: the greatest timestamp *before* them, -1 if there is none. So a search for a timestamp
 * may begin at the last entry whose timestamp is smaller, although timestamps need not ascend from batch to batch.
 * A closed segment has one entry more, at its end offset: the greatest timestamp of the whole segment.
 * Damaged entries are treated as in OffsetIndex.
 */
export class TimeIndex {
  #timestamps = new Float64Array(64);
  #offsets = new Uint32Array(64);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds an entry behind the last one; timestamps never descend. */
  append(maxTimestampBefore: number, relativeOffset: number): void {
    if (this.#count === this.#offsets.length) {
      const timestamps = new Float64Array(this.#count * 2);
      timestamps.set(this.#timestamps);
      this.#timestamps = timestamps;
      const offsets = new Uint32Array(this.#count * 2);
      offsets.set(this.#offsets);
      this.#offsets = offsets;
    }
    this.#timestamps[this.#count] = maxTimestampBefore;
    this.#offsets[this.#count] = relativeOffset;
    this.#count += 1;
  }

  /** The relative offset from which a batch with this timestamp or a later one must be looked for. */
  searchStart(timestamp: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#timestamps[middle] as number) < timestamp) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? 0 : (this.#offsets[low - 1] as number);
  }

  last(): { maxTimestampBefore: number; relativeOffset: number } | undefined {
    if (this.#count === 0) return undefined;
    return {
      maxTimestampBefore: this.#timestamps[this.#count - 1] as number,
      relativeOffset: this.#offsets[this.#count - 1] as number,
    };
  }

  /** Drops entries behind the offset; one at the offset stays true, for it speaks of what is before. */
  cut(relativeOffset: number): void {
    while (this.#count > 0 && (this.#offsets[this.#count - 1] as number) > relativeOffset) this.#count -= 1;
  }

  /** The bytes of the entries from the given one on. */
  encode(fromEntry: number): Buffer {
    const bytes = Buffer.allocUnsafe((this.#count - fromEntry) * TIME_INDEX_ENTRY_BYTES);
    for (let entry = fromEntry, at = 0; entry < this.#count; entry += 1, at += TIME_INDEX_ENTRY_BYTES) {
      // One more than the timestamp, so that -1 fits an unsigned number.
      const value = (this.#timestamps[entry] as number) + 1;
      bytes.writeUInt32LE(value % TWO_TO_32, at);
      bytes.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4);
      bytes.writeUInt32LE(this.#offsets[entry] as number, at + 8);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 12)), at + 12);
    }
    return bytes;
  }

  /** The entries up to the first one that is damaged or out of order. */
  static decode(bytes: Buffer): TimeIndex {
    const index = new TimeIndex();
    let lastTimestamp = -1;
    let lastOffset = -1;
    for (let at = 0; at + TIME_INDEX_ENTRY_BYTES <= bytes.length; at += TIME_INDEX_ENTRY_BYTES) {
      if (crc32(bytes.subarray(at, at + 12)) !== bytes.readUInt32LE(at + 12)) break;
      const timestamp = bytes.readUInt32LE(at + 4) * TWO_TO_32 + bytes.readUInt32LE(at) - 1;
      const offset = bytes.readUInt32LE(at + 8);
      if (timestamp < lastTimestamp || offset <= lastOffset) break;
      index.append(timestamp, offset);
      lastTimestamp = timestamp;
      lastOffset = offset;
    }
    return index;
  }
}
