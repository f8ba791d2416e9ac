import type { Clock, Timer, Timers } from "./env/time.js";

/** One timer for many wishes to be woken: it fires at the earliest, once; whoever still waits then asks again. */
export class EarliestTimer {
  #timer: Timer | undefined;
  #atMs = Number.POSITIVE_INFINITY;

  constructor(
    private readonly env: { readonly clock: Clock; readonly timers: Timers },
    private readonly onTime: () => void,
  ) {}

  /** Fires at this time of the monotonic clock, or before. */
  wakeAt(timeMs: number): void {
    if (timeMs >= this.#atMs) return;
    this.#timer?.cancel();
    this.#atMs = timeMs;
    this.#timer = this.env.timers.after(Math.max(0, timeMs - this.env.clock.monotonicMs()), () => {
      this.#timer = undefined;
      this.#atMs = Number.POSITIVE_INFINITY;
      this.onTime();
    });
  }

  /** Forgets every wish. */
  cancel(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#atMs = Number.POSITIVE_INFINITY;
  }
}
