import type { Clock, Timer, Timers } from "../common/env/time.js";

const CHECK_MS = 100;
/** A check that comes later than this was stalled. */
const STALL_MS = 400;

/**
 * Notices when this process did not run. A stalled judge does not sentence: whoever is to be accused of silence is given
 * the time since the judge woke, because their words may still lie unread in the sockets.
 */
export class LoopMonitor {
  #awakeSinceMs: number;
  #checkedMs: number;
  #timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly timers: Timers,
    private readonly onStall: (stalledMs: number) => void,
  ) {
    this.#awakeSinceMs = this.#checkedMs = clock.monotonicMs();
  }

  /** Since when the event loop has run without a long pause, on the monotonic clock. */
  get awakeSinceMs(): number {
    // A judge may run before the monitor does after a pause, so the pause is looked for here too.
    this.#look();
    return this.#awakeSinceMs;
  }

  start(): void {
    this.#timer = this.timers.after(CHECK_MS, () => {
      this.#look();
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #look(): void {
    const nowMs = this.clock.monotonicMs();
    const stalledMs = nowMs - this.#checkedMs;
    this.#checkedMs = nowMs;
    if (stalledMs <= STALL_MS) return;
    this.#awakeSinceMs = nowMs;
    this.onStall(stalledMs);
  }
}
