/** Size of a pooled buffer, and so of one read from a segment file. */
export const POOLED_BUFFER_BYTES = 1024 * 1024;

/**
 * Buffers for reads from files. Without it V8 would collect these late: they are large, but little heap garbage.
 * At most `keptMax` lie idle; nothing bounds how many are out, that is the business of whoever bounds the requests.
 */
export class BufferPool {
  readonly #idle: Buffer[] = [];

  constructor(private readonly keptMax: number) {}

  /** A buffer with any content. */
  take(): Buffer {
    return this.#idle.pop() ?? Buffer.allocUnsafeSlow(POOLED_BUFFER_BYTES);
  }

  /** Takes a buffer back; its views must not be used any more. */
  give(buffer: Buffer): void {
    if (this.#idle.length < this.keptMax) this.#idle.push(buffer);
  }
}
