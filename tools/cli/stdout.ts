import type { Writable } from "node:stream";

/**
 * Standard output as a stream of small pieces: gathers them into large writes, says when the reader falls behind, and
 * knows when it has gone away (`| head`). One per process. What is gathered leaves at the end of the turn, so a
 * person who tails a topic sees a record when it comes.
 */
export class Stdout {
  #buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  #used = 0;
  #pendingBytes = 0;
  #scheduled = false;
  #waiting: (() => void)[] = [];
  #failure: Error | undefined;
  readonly #closed: Promise<void>;

  constructor(private readonly target: Writable) {
    this.#closed = new Promise((resolve) => {
      target.on("error", (error: NodeJS.ErrnoException) => {
        this.#failure = error;
        this.#wake();
        resolve();
      });
    });
  }

  /** Resolves when writing has become impossible, mostly because the reader closed the pipe. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Why writing has become impossible. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  writeText(text: string): void {
    // UTF-8 takes at most three bytes a UTF-16 unit.
    const most = text.length * 3;
    if (most > CHUNK_BYTES) return this.writeBytes(Buffer.from(text));
    if (this.#used + most > CHUNK_BYTES) this.#send();
    this.#used += this.#buffer.write(text, this.#used, "utf8");
    this.#schedule();
  }

  writeBytes(bytes: Uint8Array): void {
    if (this.#used + bytes.length > CHUNK_BYTES) this.#send();
    if (bytes.length > CHUNK_BYTES) return this.#write(Buffer.from(bytes));
    this.#buffer.set(bytes, this.#used);
    this.#used += bytes.length;
    this.#schedule();
  }

  writeByte(byte: number): void {
    if (this.#used === CHUNK_BYTES) this.#send();
    this.#buffer[this.#used++] = byte;
    this.#schedule();
  }

  /** One JSON object, on a line. */
  writeJson(value: unknown): void {
    this.writeText(`${JSON.stringify(value)}\n`);
  }

  /** The same, where it is wanted. */
  writeJsonIf(wanted: boolean, value: unknown): void {
    if (wanted) this.writeJson(value);
  }

  /** Whether the reader is far behind: await `ready()` before writing more. */
  get isFull(): boolean {
    return this.#pendingBytes > PENDING_BYTES_MAX;
  }

  /** Resolves when the reader has caught up, or has gone. */
  ready(): Promise<void> {
    if (!this.isFull || this.#failure !== undefined) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when everything is written, or cannot be. */
  async flush(): Promise<void> {
    this.#send();
    while (this.#pendingBytes > 0 && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#send();
    });
  }

  #send(): void {
    if (this.#used === 0) return;
    const full = this.#buffer.subarray(0, this.#used);
    // A small remainder is copied out, so that the large buffer is filled further instead of being allocated anew.
    if (this.#used < CHUNK_BYTES / 4) {
      this.#write(Buffer.from(full));
    } else {
      this.#write(full);
      this.#buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    }
    this.#used = 0;
  }

  #write(bytes: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#pendingBytes += bytes.length;
    this.target.write(bytes, () => {
      this.#pendingBytes -= bytes.length;
      if (this.#pendingBytes === 0 || !this.isFull) this.#wake();
    });
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

const CHUNK_BYTES = 128 * 1024;
const PENDING_BYTES_MAX = 1024 * 1024;
