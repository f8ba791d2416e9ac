import type { Timer, Timers } from "../../common/env/time.js";
import { reasonOf } from "../../common/logger.js";
import type { Logger } from "../../common/logger.js";
import type { Offset } from "../../protocol/types.js";
import type { Log } from "./log.js";

/** Between two rounds over all logs, and before the first. */
const PAUSE_MS = 60_000;

/**
 * Reads closed segments again, all of them in turn and slowly, and checks their checksums: finds what the disk has changed
 * while another replica still has it right. A log that has damage is not served there any more; its partition is told.
 */
export class Scrubber {
  #timer: Timer | undefined;
  #wake: (() => void) | undefined;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(
    private readonly timers: Timers,
    private readonly logger: Logger,
    private readonly logs: () => Iterable<Log>,
    /** Bytes read in a second, at most; 0 reads none. */
    private readonly bytesPerSecond: number,
  ) {}

  start(): void {
    if (this.bytesPerSecond <= 0) return;
    this.#running = this.#run();
  }

  /** Resolves when nothing is read any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    for (;;) {
      await this.#sleep(PAUSE_MS);
      for (const log of [...this.logs()]) {
        for (const baseOffset of log.closedSegments()) {
          if (this.#stopped) return;
          await this.#scrub(log, baseOffset);
        }
      }
      if (this.#stopped) return;
    }
  }

  async #scrub(log: Log, baseOffset: Offset): Promise<void> {
    try {
      await log.verifySegment(baseOffset, async (bytes) => {
        if (this.#stopped) throw new ScrubStopped();
        await this.#sleep((bytes / this.bytesPerSecond) * 1000);
      });
    } catch (error) {
      if (error instanceof ScrubStopped) return;
      // Retention may have removed the segment while it was read.
      this.logger.debug(`scrub of ${log.topic}-${log.partition} at ${baseOffset} ended early: ${reasonOf(error)}`);
    }
  }

  #sleep(delayMs: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#timer = this.timers.after(delayMs, resolve);
    });
  }
}

class ScrubStopped extends Error {
  override readonly name = "ScrubStopped";
}
