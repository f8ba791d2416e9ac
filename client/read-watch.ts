import type { Clock } from "../common/env/time.js";
import type { Logger } from "../common/logger.js";
import type { ClientError } from "./errors.js";
import { DeadlineExceededError, ProtocolError } from "./errors.js";
import type { PartitionReader } from "./partition-reader.js";

/** What the watch needs of its consumer. */
export interface WatchHost {
  readonly clock: Clock;
  readonly logger: Logger;
  /** What is in the way of reading a partition now; undefined: nothing that is known. */
  troubleOf(reader: PartitionReader): ClientError | undefined;
  /** Ends the loop of the application. */
  fail(error: ClientError): void;
}

/** How long a loop to the end waits, and after how long the log says why nothing comes, in milliseconds. */
export interface WatchLimits {
  readonly deadlineMs: number;
  readonly stallMs: number;
}

/** One log line in so long, however much is in trouble. */
const SAID_AGAIN_MS = 5000;
/** So many partitions are named in a log line. */
const REASONS_MAX = 5;
/**
 * What of the time between two looks counts at most. A process that was stopped, or busy, for longer has not waited for
 * brokers meanwhile.
 */
const LOOK_MS_MAX = 1000;

/**
 * Looks after the waiting of a consumer. A loop that reads to the end fails when nothing has come of what is still missing
 * for `deadlineMs`; an endless one goes on. For both the log says why nothing comes of a partition, once that has been so
 * for `stallMs`.
 *
 * Only the time counts in which the application waits for a record. What it has paused, or was told an error about, is
 * not missing; what is being looked up has a deadline of its own.
 */
export class ReadWatch {
  #untilEnd = false;
  #lookedMs = 0;
  /** For how long the application has been waiting since something came. */
  #idleMs = 0;
  /** Since when (monotonic) something is in the way of a partition. */
  #troubled = new Map<PartitionReader, number>();
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly host: WatchHost,
    private readonly limits: WatchLimits,
  ) {}

  /** A new loop of the application. */
  begin(untilEnd: boolean): void {
    this.#untilEnd = untilEnd;
    this.#lookedMs = this.host.clock.monotonicMs();
    this.#idleMs = 0;
    this.#troubled.clear();
  }

  /** Something came, or the application begins to wait for it. */
  onProgress(): void {
    this.#idleMs = 0;
  }

  /** To be called again and again while something is read. `isAwaited`: the application waits for a record. */
  look(readers: readonly PartitionReader[], isAwaited: boolean): void {
    const nowMs = this.host.clock.monotonicMs();
    const elapsedMs = Math.min(LOOK_MS_MAX, nowMs - this.#lookedMs);
    this.#lookedMs = nowMs;
    const missing = readers.filter(({ isPaused, hasFailed, isAtEnd }) => !isPaused && !hasFailed && !isAtEnd);
    this.#say(missing, nowMs);
    if (!this.#untilEnd || !isAwaited) return;
    const located = missing.filter(({ position, awaitsEnd }) => position !== undefined && !awaitsEnd);
    if (located.length === 0) {
      this.#idleMs = 0;
      return;
    }
    this.#idleMs += elapsedMs;
    if (this.#idleMs < this.limits.deadlineMs) return;
    this.#idleMs = 0;
    const worst = located.find((reader) => this.#troubled.has(reader)) ?? located[0];
    if (worst !== undefined) this.host.fail(this.#error(worst));
  }

  #say(missing: readonly PartitionReader[], nowMs: number): void {
    const troubled = new Map<PartitionReader, number>();
    const reasons: string[] = [];
    let count = 0;
    let longestMs = 0;
    for (const reader of missing) {
      const trouble = this.host.troubleOf(reader);
      if (trouble === undefined) continue;
      const sinceMs = this.#troubled.get(reader) ?? nowMs;
      troubled.set(reader, sinceMs);
      if (nowMs - sinceMs < this.limits.stallMs) continue;
      count += 1;
      longestMs = Math.max(longestMs, nowMs - sinceMs);
      if (reasons.length < REASONS_MAX) reasons.push(`${nameOf(reader)}: ${bare(trouble, reader)}`);
    }
    this.#troubled = troubled;
    if (count === 0 || nowMs - this.#saidMs < Math.max(SAID_AGAIN_MS, this.limits.stallMs)) return;
    this.#saidMs = nowMs;
    this.host.logger.warn("nothing comes of partitions that are read; they are asked for on", {
      partitions: count,
      reasons,
      forMs: Math.round(longestMs),
    });
  }

  #error(reader: PartitionReader): ClientError {
    const { topic, partition, position = 0, endOffset } = reader;
    const trouble = this.host.troubleOf(reader);
    const why = trouble === undefined ? "its leader answers, but has nothing of it" : bare(trouble, reader);
    const what = `nothing has come of it for ${this.limits.deadlineMs} ms, at offset ${position} of ${endOffset} (${why})`;
    const place = { topic, partition, brokerId: trouble?.brokerId, cause: trouble };
    // The one that an application may wait for by itself.
    if (trouble?.code === "LEADER_NOT_AVAILABLE") return new ProtocolError("LEADER_NOT_AVAILABLE", what, place);
    const hint = trouble === undefined ? "look at the logs of the brokers" : trouble.hint;
    return new DeadlineExceededError(what, `${hint}, or allow more time with deadlineMs`, place);
  }
}

const nameOf = ({ topic, partition }: PartitionReader): string => `${topic}-${partition}`;

/** What happened, without the partition in front. */
function bare({ what }: ClientError, reader: PartitionReader): string {
  const prefix = `${nameOf(reader)}: `;
  return what.startsWith(prefix) ? what.slice(prefix.length) : what;
}
