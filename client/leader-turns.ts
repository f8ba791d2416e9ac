import { FifoQueue } from "./fifo-queue.js";

/** A batch on its way, as far as it counts. */
export interface UnderWay {
  readonly sentAtMs: number;
  isCounted: boolean;
}

/** What waits here for its turn to send a batch that is not full. */
export interface TurnTaker {
  pump(): void;
}

/** So many batches may be under way to a leader before those that are not full wait, and fill. */
const UNDER_WAY_MAX = 16;
/**
 * A batch without an answer counts no longer than twice the time that answers take on average, within these bounds: one
 * partition that is slow does not hold up the others.
 */
const COUNTED_MS_MIN = 20;
const COUNTED_MS_MAX = 500;
/** How much of the average the last answer makes. */
const NEWEST_SHARE = 1 / 16;

/**
 * Batches on their way to one leader. A request costs a broker about as much as a few hundred short records, so when many
 * partitions have a few records each, sending all at once makes everything slow. Here a leader that has enough to do gets
 * full batches at once, and others only in turn, as answers come; until then they take more records. A leader that
 * answers quicker than batches come makes nobody wait.
 */
export class LeaderTurns {
  /** In the order of sending; those that count no more are still there until they are first. */
  readonly #underWay = new FifoQueue<UnderWay>();
  #count = 0;
  /** In the order in which they came. */
  readonly #waiting = new Set<TurnTaker>();
  /** How long answers take, on average. */
  #answerMs = 0;
  /** Whose turn it is. */
  #next: TurnTaker | undefined;

  /** Whether it may send now; otherwise it is pumped when its turn comes. */
  isTurnOf(taker: TurnTaker, nowMs: number): boolean {
    if ((taker === this.#next || this.#waiting.size === 0) && this.#isFree(nowMs)) return true;
    this.#waiting.add(taker);
    return false;
  }

  /** When it is worth looking again, though no answer has come. */
  wakeAtMs(nowMs: number): number {
    return (this.#underWay.first?.sentAtMs ?? nowMs) + this.#countedMs;
  }

  /** A batch is sent now; returns what `onAnswered` or `onEnded` must be given. */
  onSent(nowMs: number): UnderWay {
    this.#forgetOld(nowMs);
    const sent = { sentAtMs: nowMs, isCounted: true };
    this.#underWay.push(sent);
    this.#count += 1;
    return sent;
  }

  onAnswered(sent: UnderWay, nowMs: number): void {
    this.#answerMs += (nowMs - sent.sentAtMs - this.#answerMs) * NEWEST_SHARE;
    this.onEnded(sent);
  }

  /** It has no answer, or none is waited for any more. */
  onEnded(sent: UnderWay): void {
    if (!sent.isCounted) return;
    sent.isCounted = false;
    this.#count -= 1;
  }

  /** Pumps those whose turn it is. */
  callNext(nowMs: number): void {
    for (const taker of this.#waiting) {
      if (!this.#isFree(nowMs)) return;
      this.#waiting.delete(taker);
      this.#next = taker;
      taker.pump();
      this.#next = undefined;
    }
  }

  #isFree(nowMs: number): boolean {
    this.#forgetOld(nowMs);
    return this.#count < UNDER_WAY_MAX;
  }

  get #countedMs(): number {
    return Math.min(COUNTED_MS_MAX, Math.max(COUNTED_MS_MIN, 2 * this.#answerMs));
  }

  #forgetOld(nowMs: number): void {
    const countedMs = this.#countedMs;
    for (let oldest = this.#underWay.first; oldest !== undefined; oldest = this.#underWay.first) {
      if (oldest.isCounted && nowMs - oldest.sentAtMs < countedMs) return;
      this.#underWay.shift();
      this.onEnded(oldest);
    }
  }
}
