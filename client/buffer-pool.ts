/**
 * The memory of a producer: buffers of one size, handed out until the limit is reached, and used again. A record that is
 * larger than a buffer gets one of its own, which counts too. A buffer that may still be read by a socket is not given
 * back but abandoned: its bytes count as free, and the garbage collector decides.
 */
export class BufferPool {
  readonly #free: Buffer[] = [];
  #takenBytes = 0;

  constructor(
    /** Of an ordinary buffer. */
    readonly bufferBytes: number,
    private readonly limitBytes: number,
  ) {}

  /**
   * A buffer of at least so many bytes; undefined when the limit is reached. One is always to be had when nothing is
   * out.
   */
  take(bytes: number): Buffer | undefined {
    const wantedBytes = Math.max(bytes, this.bufferBytes);
    if (this.#takenBytes > 0 && this.#takenBytes + wantedBytes > this.limitBytes) return undefined;
    this.#takenBytes += wantedBytes;
    if (wantedBytes === this.bufferBytes) return this.#free.pop() ?? Buffer.allocUnsafeSlow(wantedBytes);
    return Buffer.allocUnsafeSlow(wantedBytes);
  }

  /** A buffer beyond the limit, for what is in memory already and must be laid out anew. */
  force(bytes: number): Buffer {
    this.#takenBytes += bytes;
    return Buffer.allocUnsafeSlow(bytes);
  }

  /** `reusable`: nobody reads the buffer any more. */
  give(buffer: Buffer, reusable: boolean): void {
    this.#takenBytes -= buffer.length;
    if (reusable && buffer.length === this.bufferBytes) this.#free.push(buffer);
  }
}
