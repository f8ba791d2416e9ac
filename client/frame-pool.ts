/** A received frame whose memory is used again when nobody needs it any more. */
export interface PooledFrame {
  /** One more part of it is in use. */
  retain(): void;
  /** One part less; the last one gives the memory back. */
  release(): void;
}

/** Smaller frames are left to the garbage collector, which is quick with them. */
const POOLED_BYTES_MIN = 64 * 1024;
/** Buffers are made in multiples of this, so that frames of about the same size can use each other's. */
const STEP_BYTES = 256 * 1024;

/**
 * Memory for answers to fetch requests. A large frame that is dropped makes little garbage by count and much by size, so
 * the collector comes late and finds its pages cold; using the same few buffers in turn keeps them in the caches.
 *
 * Only what is released is used again. A frame that nobody releases (its answer came too late to be looked at) is simply
 * collected: the pool keeps no reference to what it has handed out.
 */
export class FramePool {
  readonly #free: Buffer[] = [];
  #freeBytes = 0;
  readonly #handedOut = new WeakMap<ArrayBufferLike, Buffer>();

  constructor(private readonly keepBytesMax: number) {}

  /** A buffer of exactly this length. */
  allocate(bytes: number): Buffer {
    if (bytes < POOLED_BYTES_MIN) return Buffer.allocUnsafeSlow(bytes);
    const index = this.#free.findIndex((buffer) => buffer.length >= bytes);
    let whole = index < 0 ? undefined : this.#free.splice(index, 1)[0];
    if (whole === undefined) whole = Buffer.allocUnsafeSlow(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES);
    else this.#freeBytes -= whole.length;
    this.#handedOut.set(whole.buffer, whole);
    return whole.subarray(0, bytes);
  }

  /** The frame that these bytes lie in, in use once; undefined when it is not of this pool. */
  frameOf(bytes: Buffer): PooledFrame | undefined {
    const whole = this.#handedOut.get(bytes.buffer);
    if (whole === undefined) return undefined;
    this.#handedOut.delete(bytes.buffer);
    let users = 1;
    return {
      retain: () => {
        users += 1;
      },
      release: () => {
        users -= 1;
        if (users === 0) this.#giveBack(whole);
      },
    };
  }

  #giveBack(whole: Buffer): void {
    if (this.#freeBytes + whole.length > this.keepBytesMax) return;
    this.#freeBytes += whole.length;
    this.#free.push(whole);
  }
}
