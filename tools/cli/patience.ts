import { CliError } from "./cli-error.js";

/** Aborts when nothing came for too long. */
export class Patience {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly limitMs: number) {
    this.begin();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The time runs from now on. */
  begin(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const what = `nothing came for ${this.limitMs} ms, and the end is not reached`;
      const hint = "see ottla topic describe whether every partition has a leader, or allow more time with --timeout";
      this.#controller.abort(new CliError("DEADLINE_EXCEEDED", what, { hint, retriable: true }));
    }, this.limitMs);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
