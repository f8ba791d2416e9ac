import type { SingleBar } from "cli-progress";
import type { CommandContext } from "./command-context.js";
import { formatSize } from "./quantities.js";

/** Nothing is shown for work that is done sooner. */
const QUIET_MS = 1000;
const EVERY_MS = 200;

/** How much of an input is read, on stderr and only when a person sees it. */
export class InputProgress {
  #bar: SingleBar | undefined;
  #bytes = 0;
  readonly #timer: NodeJS.Timeout | undefined;
  #loading = false;
  #ended = false;
  readonly #startedMs = performance.now();

  constructor(
    context: Pick<CommandContext, "json">,
    /** Unknown: what has been read is shown without a bar. */
    private readonly totalBytes: number | undefined,
  ) {
    if (context.json || process.stderr.isTTY !== true || totalBytes === undefined) return;
    this.#timer = setInterval(() => void this.#show(), EVERY_MS).unref();
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Clears the bar away. */
  end(): void {
    this.#ended = true;
    clearInterval(this.#timer);
    this.#bar?.stop();
  }

  async #show(): Promise<void> {
    if (performance.now() - this.#startedMs < QUIET_MS || this.#loading) return;
    if (this.#bar === undefined) {
      this.#loading = true;
      const { default: cliProgress } = await import("cli-progress");
      this.#loading = false;
      if (this.#ended) return;
      this.#bar = new cliProgress.SingleBar({
        format: "{bar} {percentage}% of {size}, {eta_formatted} left",
        stream: process.stderr,
        clearOnComplete: true,
        hideCursor: true,
        etaBuffer: 50,
      });
      this.#bar.start(this.totalBytes ?? 0, 0, { size: formatSize(this.totalBytes ?? 0) });
    }
    this.#bar.update(this.#bytes);
  }
}
