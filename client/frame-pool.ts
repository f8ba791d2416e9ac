import { BytePool } from "../common/byte-pool.js";

/** A received frame whose memory is used again when nobody needs it any more. */
export interface PooledFrame {
  /** One more part of it is in use. */
  retain(): void;
  /** One part less; the last one gives the memory back. */
  release(): void;
}

/** Smaller frames are left to the garbage collector, which is quick with them. */
const POOLED_BYTES_MIN = 64 * 1024;

/**
 * Memory for answers to fetch requests: a BytePool for frames with several users, which are counted, because none of them
 * knows whether it is the last. Using the same few buffers in turn also keeps their pages in the caches.
 *
 * Only what is released is used again. A frame that nobody releases (its answer came too late to be looked at) is simply
 * collected: the pool keeps no reference to what it has handed out.
 */
export class FramePool {
  readonly #memory: BytePool;
  readonly #handedOut = new WeakMap<ArrayBufferLike, Buffer>();

  /** Keeps up to `idleBytesMax` for later. */
  constructor(idleBytesMax: number) {
    this.#memory = new BytePool(idleBytesMax);
  }

  /** A buffer of exactly this length. */
  allocate(bytes: number): Buffer {
    if (bytes < POOLED_BYTES_MIN) return Buffer.allocUnsafeSlow(bytes);
    const frame = this.#memory.take(bytes);
    this.#handedOut.set(frame.buffer, frame);
    return frame;
  }

  /** The frame that these bytes lie in, in use once; undefined when it is not of this pool. */
  frameOf(bytes: Buffer): PooledFrame | undefined {
    const frame = this.#handedOut.get(bytes.buffer);
    if (frame === undefined) return undefined;
    this.#handedOut.delete(bytes.buffer);
    let users = 1;
    return {
      retain: () => {
        users += 1;
      },
      release: () => {
        users -= 1;
        if (users === 0) this.#memory.give(frame);
      },
    };
  }
}
