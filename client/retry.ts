import type { Clock, Random } from "../common/env/time.js";

const FIRST_MS = 20;
const MAX_MS = 250;

/** Growing pauses between attempts: each about twice the one before, up to a limit, with a quarter of chance. */
export class Backoff {
  #nextMs = FIRST_MS;

  constructor(private readonly random: Random) {}

  /** How long to wait now, in milliseconds. */
  next(): number {
    const pauseMs = this.#nextMs;
    this.#nextMs = Math.min(MAX_MS, pauseMs * 2);
    return pauseMs * (0.75 + 0.25 * this.random.float());
  }

  /** After a success. */
  reset(): void {
    this.#nextMs = FIRST_MS;
  }
}

/** The moment at which a caller's patience ends; every wait of a call is measured against the same one. */
export class Deadline {
  readonly #atMs: number;

  constructor(
    private readonly clock: Clock,
    readonly totalMs: number,
  ) {
    this.#atMs = clock.monotonicMs() + totalMs;
  }

  /** Milliseconds that are left; never below zero. */
  get leftMs(): number {
    return Math.max(0, this.#atMs - this.clock.monotonicMs());
  }

  get isOver(): boolean {
    return this.leftMs === 0;
  }
}
