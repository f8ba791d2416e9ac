import { nodeTimers } from "../../common/env/node-time.js";
import type { Timer } from "../../common/env/time.js";
import { CliError } from "./cli-error.js";
import { formatDuration } from "./quantities.js";

/** Aborts when nothing came for too long. */
export class Patience {
  readonly #controller = new AbortController();
  #timer: Timer | undefined;

  constructor(private readonly limitMs: number) {
    this.begin();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The time runs from now on. */
  begin(): void {
    this.#timer?.cancel();
    // A time as the user gives it may be longer than what a timer of Node holds.
    this.#timer = nodeTimers.after(this.limitMs, () => {
      const what = `nothing came for ${formatDuration(this.limitMs)}, and the end is not reached`;
      const hint = "see ottla topic describe whether every partition has a leader, or allow more time with --timeout";
      this.#controller.abort(new CliError("DEADLINE_EXCEEDED", what, { hint, retriable: true }));
    });
  }

  end(): void {
    this.#timer?.cancel();
  }
}
