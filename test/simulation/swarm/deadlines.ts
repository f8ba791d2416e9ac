import type { Scheduler } from "../scheduler.js";
import type { SimProcess } from "../sim-process.js";

interface Call {
  readonly what: string;
  readonly process: SimProcess;
  readonly limitMs: number;
  dueMs: number;
}

/** A call may end so much after its deadline: timers of a library look at deadlines in steps. */
const GRACE_MS = 1000;
const LOOK_MS = 500;

/** Calls of clients that promised to end by a deadline. One that is older is said; the time in which its process stood still does not count. */
export class Deadlines {
  readonly late: string[] = [];
  readonly #open = new Set<Call>();
  #lookedMs: number;

  constructor(private readonly scheduler: Scheduler) {
    this.#lookedMs = scheduler.nowMs;
    this.#look();
  }

  get openCount(): number {
    return this.#open.size;
  }

  track(what: string, work: Promise<unknown>, limitMs: number, process: SimProcess): void {
    const call: Call = { what, process, limitMs, dueMs: this.scheduler.nowMs + limitMs + GRACE_MS };
    this.#open.add(call);
    const end = (): void => void this.#open.delete(call);
    work.then(end, end);
  }

  #look(): void {
    this.scheduler.after(LOOK_MS, "deadlines", () => {
      const { nowMs } = this.scheduler;
      const sinceMs = nowMs - this.#lookedMs;
      this.#lookedMs = nowMs;
      for (const call of this.#open) {
        if (call.process.dead) this.#open.delete(call);
        else if (call.process.standsStill) call.dueMs += sinceMs + LOOK_MS;
        else if (call.dueMs < nowMs) {
          this.#open.delete(call);
          this.late.push(`${call.what} has not ended ${call.limitMs} ms after it began, at ${nowMs.toFixed(0)} ms`);
        }
      }
      this.#look();
    });
  }
}
