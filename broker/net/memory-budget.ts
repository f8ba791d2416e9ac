/**
 * Bytes that all connections together may hold in request frames. Who does not get memory waits in line and stops reading
 * its socket meanwhile, so that what a broker holds is bounded whatever clients send.
 */
export class MemoryBudget {
  #used = 0;
  readonly #waiting = new Set<() => void>();

  constructor(private readonly bytesMax: number) {}

  /**
   * Takes the bytes if they are there and nobody has waited for longer. One request larger than the whole budget gets it
   * when nothing else is held.
   */
  tryReserve(bytes: number): boolean {
    if (this.#waiting.size > 0 || (this.#used > 0 && this.#used + bytes > this.bytesMax)) return false;
    this.#used += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#used -= bytes;
    if (this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const retry of waiting) retry();
  }

  /** Calls `retry` once when memory was released, behind those who wait already. */
  whenReleased(retry: () => void): void {
    this.#waiting.add(retry);
  }

  /** Whoever stands behind it may have been waiting for its turn only. */
  forget(retry: () => void): void {
    if (this.#waiting.delete(retry)) this.release(0);
  }
}
