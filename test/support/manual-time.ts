import type { Clock, Timer, Timers } from "../../common/env/time.js";

/** A clock and timers that stand still until a test moves them. */
export class ManualTime implements Clock, Timers {
  #nowMs = 1000;
  #timers: { atMs: number; callback: () => void }[] = [];

  get pendingTimers(): number {
    return this.#timers.length;
  }
  monotonicMs(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return this.#nowMs;
  }
  after(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.push(timer);
    return { cancel: () => void (this.#timers = this.#timers.filter((other) => other !== timer)) };
  }
  soon(callback: () => void): void {
    this.after(0, callback);
  }
  afterThisTurn(callback: () => void): void {
    this.after(0, callback);
  }

  /** Moves time forward and runs what falls due, in order. */
  advance(byMs: number): void {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      const [next] = [...this.#timers].sort((left, right) => left.atMs - right.atMs);
      if (next === undefined || next.atMs > untilMs) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
    }
    this.#nowMs = untilMs;
  }
}

/** A real clock that a test can set ahead. */
export class ClockAhead implements Clock {
  aheadMs = 0;

  constructor(private readonly real: Clock) {}

  monotonicMs(): number {
    return this.real.monotonicMs() + this.aheadMs;
  }
  wallMs(): number {
    return this.real.wallMs();
  }
}
