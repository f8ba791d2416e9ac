import { nodeTimers } from "../../common/env/node-time.js";
import { sleep } from "../../common/env/time.js";

/** The longest burst, so that a rate is even and not a lump a second. */
const BURST_MS = 20;

/** Holds a sender to a rate: `take` for each record. */
export class Pace {
  readonly #startedMs: number;
  #taken = 0;

  constructor(
    private readonly perSecond: number,
    private readonly signal: AbortSignal,
    private readonly nowMs: () => number = () => performance.now(),
  ) {
    this.#startedMs = nowMs();
  }

  /** Nothing when the record may go now, else a promise of when. It resolves early when the signal aborts. */
  take(): undefined | Promise<void> {
    const dueMs = this.#startedMs + (this.#taken / this.perSecond) * 1000;
    this.#taken += 1;
    const waitMs = dueMs - this.nowMs();
    if (waitMs < BURST_MS / 2) return undefined;
    return sleep(nodeTimers, waitMs, this.signal).catch(() => undefined);
  }
}
