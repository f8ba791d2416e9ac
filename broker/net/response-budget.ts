/**
 * Bytes of responses to clients that are being read or wait to be sent, all connections together. What comes from a disk or
 * from the tail of a log is taken from here before it is read: who does not get it waits, or is refused. Other answers are
 * small, and made at once; they are counted once they wait to be sent.
 */
export class ResponseBudget {
  /** `short`: a fetch waits for some. `over`: more is taken than there is. Whoever does not read is to give some back. */
  onLack: ((lack: "short" | "over") => void) | undefined;
  #used = 0;

  constructor(readonly bytesMax: number) {}

  get used(): number {
    return this.#used;
  }

  get free(): number {
    return Math.max(0, this.bytesMax - this.#used);
  }

  take(bytes: number): void {
    this.#used += bytes;
    if (this.#used > this.bytesMax) this.onLack?.("over");
  }

  release(bytes: number): void {
    this.#used -= bytes;
  }
}
