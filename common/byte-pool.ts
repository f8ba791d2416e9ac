/** Smaller ones are left to the allocator, which is good at them. */
const POOLED_BYTES_MIN = 4 * 1024;

/**
 * Memory that is used again. Large buffers are little garbage on the heap, so the collector comes late and a process that
 * allocates them at full speed grows by hundreds of megabytes; here whoever is done with one says so. Sizes are rounded up
 * to powers of two. A buffer that is never given back is collected like any other.
 */
export class BytePool {
  readonly #idle = new Map<number, ArrayBuffer[]>();
  #idleBytes = 0;

  /** Keeps up to `idleBytesMax` for later. */
  constructor(private readonly idleBytesMax: number) {}

  /** A buffer of exactly so many bytes, with any content. */
  take(bytes: number): Buffer {
    if (bytes < POOLED_BYTES_MIN) return Buffer.allocUnsafeSlow(bytes);
    const size = roundedUp(bytes);
    const memory = this.#idle.get(size)?.pop();
    if (memory === undefined) return Buffer.allocUnsafeSlow(size).subarray(0, bytes);
    this.#idleBytes -= size;
    return Buffer.from(memory, 0, bytes);
  }

  /** The caller holds no view of the buffer any more, and neither does anybody it gave one to. */
  give(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (size < POOLED_BYTES_MIN || size !== roundedUp(size) || this.#idleBytes + size > this.idleBytesMax) return;
    let idle = this.#idle.get(size);
    if (idle === undefined) this.#idle.set(size, (idle = []));
    idle.push(buffer.buffer as ArrayBuffer);
    this.#idleBytes += size;
  }
}

const roundedUp = (bytes: number): number => 2 ** Math.ceil(Math.log2(bytes));
