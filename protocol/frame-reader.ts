import { requestKindOf } from "./api-keys.js";
import type { RequestKind } from "./api-keys.js";

const LENGTH_BYTES = 4;
/** Correlation id and body tag stand within so many bytes of a frame. */
const HEAD_BYTES = 16;
/** Received bytes whose frame is not known yet land here. */
const SLAB_BYTES = 64 * 1024;
/** What that is at first. Most of many connections never have more to say at once, and each would hold the memory for good. */
const FIRST_SLAB_BYTES = 8 * 1024;
/** What arrives while the reader is held up lands in a buffer of this size, until it is known where it belongs. */
const SPARE_BYTES = 4 * 1024;
/** A frame up to this size is accepted without looking at its head. */
const ANY_KIND_BYTES = 64;

/** What the first bytes of a frame tell. */
export interface FrameHead {
  readonly frameBytes: number;
  readonly correlationId: number;
  /** undefined: a request that this version does not know, or no request at all. */
  readonly kind: RequestKind | undefined;
}

/** Bytes that cannot be a frame, or a frame over its limit. The connection cannot go on. */
export class FrameFault extends Error {
  override readonly name = "FrameFault";
  constructor(
    readonly kind: "empty" | "too-large" | "malformed",
    /** The first bytes, to tell what the peer speaks instead. */
    readonly firstBytes: Uint8Array,
    readonly correlationId: number | undefined,
    detail: string,
  ) {
    super(detail);
  }
}

export interface FrameReaderOptions {
  /** The most bytes a frame with this head may have. Asked before anything is allocated for it. */
  readonly frameBytesMax: (head: FrameHead) => number;
  /** Memory for a frame; undefined: not now, `retry` will be called. */
  readonly allocate: (bytes: number) => Buffer | undefined;
  /** A whole frame, without its length. The buffer belongs to the receiver. */
  readonly onFrame: (frame: Buffer) => void;
}

/**
 * Cuts length-prefixed frames out of a stream of bytes. Does no I/O: the socket asks it where to put received bytes, and a
 * large frame is received straight into the buffer it stays in. Small frames are copied out, so that no view ever pins the
 * slab they came in.
 */
export class FrameReader {
  readonly #options: FrameReaderOptions;
  #slab: Buffer = Buffer.allocUnsafeSlow(FIRST_SLAB_BYTES);
  /** A read filled the slab: there may have been more. */
  #wasFull = false;
  /** Bytes of the slab that are received and not yet consumed: [start, end). */
  #start = 0;
  #end = 0;
  /** The frame that is being received into its own buffer, and how much of it is there. */
  #frame: Buffer | undefined;
  #received = 0;
  /** The buffer that was handed out last, if that was not the place where the bytes belong. */
  #handedOutSpare: Buffer | undefined;
  #spare: Buffer | undefined;
  #waitsForMemory = false;
  #paused = false;
  #stopped = false;

  constructor(options: FrameReaderOptions) {
    this.#options = options;
  }

  /** A frame has begun and not ended. */
  get isInsideFrame(): boolean {
    return this.#frame !== undefined || this.#end > this.#start;
  }

  /** How many bytes of it are there. */
  get bytesInsideFrame(): number {
    return this.#frame === undefined ? this.#end - this.#start : this.#received;
  }

  /** `allocate` refused; nothing more is consumed until `retry`. The socket should be paused. */
  get waitsForMemory(): boolean {
    return this.#waitsForMemory;
  }

  /**
   * Where the next bytes are to go; never empty. A socket asks right after it has delivered some, and keeps what it got:
   * also over a pause, after which the reader stands elsewhere. So while that may happen it gets a place of its own.
   */
  receiveBuffer(): Uint8Array {
    const isHeldUp = this.#stopped || this.#paused || this.#waitsForMemory;
    this.#handedOutSpare = isHeldUp ? (this.#spare ??= Buffer.allocUnsafeSlow(SPARE_BYTES)) : undefined;
    return this.#handedOutSpare ?? this.#place();
  }

  /** So many bytes came into the buffer that was handed out last. Throws FrameFault. */
  onReceived(count: number): void {
    if (this.#stopped) return;
    if (this.#handedOutSpare === undefined) {
      this.#accept(count);
      return;
    }
    const bytes = this.#handedOutSpare.subarray(0, count);
    for (let at = 0; at < bytes.length && !this.#stopped;) {
      const place = this.#place();
      const taken = Math.min(place.length, bytes.length - at);
      place.set(bytes.subarray(at, at + taken));
      at += taken;
      this.#accept(taken);
    }
  }

  /** Where the next byte of the stream belongs. */
  #place(): Uint8Array {
    if (this.#frame !== undefined) return this.#frame.subarray(this.#received);
    // Only a few bytes of an unfinished head can be left here, so this copy is short. It also never leaves the slab full.
    if (this.#start > 0) {
      this.#slab.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    if (this.#wasFull && this.#slab.length < SLAB_BYTES) {
      const larger = Buffer.allocUnsafeSlow(SLAB_BYTES);
      larger.set(this.#slab.subarray(0, this.#end));
      this.#slab = larger;
    }
    // A socket that could not be paused at once may deliver more than the slab holds; most of that is of one frame.
    if (this.#end === this.#slab.length) this.#slab = Buffer.concat([this.#slab, Buffer.allocUnsafeSlow(SLAB_BYTES)]);
    return this.#end === 0 ? this.#slab : this.#slab.subarray(this.#end);
  }

  /** The bytes are where they belong. */
  #accept(count: number): void {
    if (this.#frame !== undefined) {
      this.#received += count;
      if (this.#received < this.#frame.length) return;
      const frame = this.#frame;
      this.#frame = undefined;
      this.#options.onFrame(frame);
      return;
    }
    this.#end += count;
    if (this.#end === this.#slab.length) this.#wasFull = true;
    this.#consume();
  }

  /** Memory may be there now. Throws FrameFault. */
  retry(): void {
    if (!this.#waitsForMemory) return;
    this.#waitsForMemory = false;
    this.#consume();
  }

  /** No further frame is delivered until `resume`, not even one that was received in the same read. Pause the socket too. */
  pause(): void {
    this.#paused = true;
  }

  /** Delivers what was received meanwhile. Throws FrameFault. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.#waitsForMemory) this.#consume();
  }

  /**
   * Nothing is delivered any more, not even frames that were received in the same read. Returns how many bytes had been
   * allocated for a frame that is not delivered; the first time only.
   */
  stop(): number {
    const unfinishedBytes = this.#frame?.length ?? 0;
    this.#stopped = true;
    this.#frame = undefined;
    this.#start = 0;
    this.#end = 0;
    return unfinishedBytes;
  }

  #consume(): void {
    while (!this.#stopped && !this.#paused) {
      const available = this.#end - this.#start;
      if (available < LENGTH_BYTES) break;
      const frameBytes = this.#slab.readUInt32BE(this.#start);
      const frameStart = this.#start + LENGTH_BYTES;
      const inSlab = Math.min(frameBytes, available - LENGTH_BYTES);
      if (frameBytes === 0) throw this.#fault("empty", undefined, "a frame of no bytes");
      if (frameBytes > ANY_KIND_BYTES) {
        const headBytes = this.#slab.subarray(frameStart, frameStart + Math.min(inSlab, HEAD_BYTES));
        const head = readFrameHead(headBytes, frameBytes);
        if (head === undefined) {
          if (inSlab < HEAD_BYTES) break;
          throw this.#fault(
            "malformed",
            readCorrelationId(headBytes),
            `a frame of ${frameBytes} bytes does not begin with a correlation id and a body`,
          );
        }
        const limit = this.#options.frameBytesMax(head);
        if (frameBytes > limit) {
          throw this.#fault(
            "too-large",
            head.correlationId,
            `a frame of ${frameBytes} bytes where at most ${limit} are accepted`,
          );
        }
      }
      const frame = this.#options.allocate(frameBytes);
      if (frame === undefined) {
        this.#waitsForMemory = true;
        return;
      }
      this.#slab.copy(frame, 0, frameStart, frameStart + inSlab);
      this.#start = frameStart + inSlab;
      if (inSlab < frameBytes) {
        this.#frame = frame;
        this.#received = inSlab;
        break;
      }
      this.#options.onFrame(frame);
    }
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
    }
  }

  #fault(kind: FrameFault["kind"], correlationId: number | undefined, detail: string): FrameFault {
    return new FrameFault(
      kind,
      Buffer.from(this.#slab.subarray(this.#start, Math.min(this.#end, this.#start + 16))),
      correlationId,
      detail,
    );
  }
}

/** The head of a frame from its first bytes; undefined when they are too few or are none. */
export function readFrameHead(bytes: Uint8Array, frameBytes: number): FrameHead | undefined {
  const { correlationId = 0, tag } = readStart(bytes);
  // A body is a message: wire type 2.
  if (tag === undefined || (tag & 7) !== 2) return undefined;
  return { frameBytes, correlationId, kind: requestKindOf(tag >>> 3) };
}

/** What an answer to the frame has to name, be its body what it may; undefined when that cannot be told. */
export function readCorrelationId(bytes: Uint8Array): number | undefined {
  return readStart(bytes).correlationId ?? readFrameHead(bytes, bytes.length)?.correlationId;
}

/** The correlation id, if it is written, and the tag behind it. A number that is not there, or is too large, is undefined. */
function readStart(bytes: Uint8Array): { readonly correlationId?: number; readonly tag: number | undefined } {
  let at = 0;
  const varint = (): number | undefined => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) return undefined;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value > 0xffffffff ? undefined : value;
    }
    return undefined;
  };
  const tag = varint();
  if (tag !== 0x08) return { tag };
  const correlationId = varint();
  return correlationId === undefined ? { tag: undefined } : { correlationId, tag: varint() };
}
