import { EarliestTimer } from "../../common/earliest-timer.js";
import type { Env } from "../../common/env/env.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { Broker } from "./cluster-state.js";

export interface EvidenceOfLifeParts {
  /** Those that are registered. */
  readonly brokers: ReadonlyMap<BrokerId, Broker>;
  /** It is about to stop, or something says that it is not there any more: its answer is not waited for. */
  readonly isGoing: (broker: Broker) => boolean;
  /** Asks every broker for an answer. */
  readonly ask: () => void;
  /** Somebody is not waited for any more, which can only be noticed by looking. */
  readonly onPatienceOver: () => void;
}

/**
 * Whoever is to lead and was asked whether it lives is waited for so long. Answers take a round trip; one that takes longer
 * comes from a process that is busy, or from nobody.
 */
const ANSWER_PATIENCE_MS = 100;
/** Somebody for whom there is no substitute, and without whom only something worse could be done, is waited for so long. */
const LAST_PATIENCE_MS = 2000;

/**
 * Which of the registered brokers live. Registrations outlive processes by a session timeout, so those count that have
 * answered since there was last a reason to doubt (`doubt`). What rests on it is in docs/decisions/0012-evidence-of-life.md.
 */
export class EvidenceOfLife {
  readonly #env: Env;
  readonly #parts: EvidenceOfLifeParts;
  /** Brokers that answered under this epoch, and how many doubts there had been when they were asked. */
  readonly #answered = new Map<BrokerId, { readonly epoch: BrokerEpoch; readonly doubts: number }>();
  /** When it was first asked what it has not answered yet; of a broker that is reached it means nothing. */
  readonly #askedMs = new Map<BrokerId, number>();
  #doubts = 0;
  #doubtedMs = Number.NEGATIVE_INFINITY;
  readonly #patience: EarliestTimer;
  /** Called when nobody is waited for. */
  #onAnswered: (() => void) | undefined;
  #stopped = false;

  constructor(env: Env, parts: EvidenceOfLifeParts) {
    this.#env = env;
    this.#parts = parts;
    this.#patience = new EarliestTimer(env, () => {
      parts.onPatienceOver();
      this.#watchPatience();
      this.#tellIfAnswered();
    });
  }

  /** How often there was a reason to doubt that registered brokers live. */
  get doubts(): number {
    return this.#doubts;
  }

  hasShakenHands(broker: Broker): boolean {
    return this.#answered.get(broker.id)?.epoch === broker.epoch;
  }

  /** Whether it is registered and has answered since there was last a reason to doubt that it lives. */
  isReached(brokerId: BrokerId): boolean {
    const answered = this.#answered.get(brokerId);
    const isThisProcess = answered !== undefined && answered.epoch === this.#parts.brokers.get(brokerId)?.epoch;
    return isThisProcess && answered.doubts === this.#doubts;
  }

  /** Whether its answer may still be on its way. */
  isAwaited(brokerId: BrokerId): boolean {
    return this.#patienceLeftMs(brokerId, ANSWER_PATIENCE_MS) > 0;
  }

  /** Whether it is worth while to wait for any of them: longer where none has answered yet. */
  areAwaited(brokerIds: readonly BrokerId[]): boolean {
    if (brokerIds.some((id) => this.isAwaited(id))) return true;
    if (brokerIds.some((id) => this.isReached(id))) return false;
    return brokerIds.some((id) => this.#patienceLeftMs(id, LAST_PATIENCE_MS) > 0);
  }

  /** A process is registered, and is asked from now on whether it is there. */
  noteRegistered({ id }: Broker): void {
    this.#askedMs.set(id, this.#env.clock.monotonicMs());
    this.#watchPatience();
  }

  /** It is not registered any more. */
  noteGone(brokerId: BrokerId): void {
    this.#answered.delete(brokerId);
    this.#askedMs.delete(brokerId);
    this.#tellIfAnswered();
  }

  /** The broker answered what it was asked when there had been so many doubts. Returns whether it is reached by that. */
  noteAnswer({ id, epoch }: Broker, doubts: number): boolean {
    if (this.isReached(id)) return false;
    this.#answered.set(id, { epoch, doubts });
    this.#tellIfAnswered();
    return this.isReached(id);
  }

  /**
   * Something happened that others may have met with too: from here on those are known to live that answer what they are
   * asked now. However many doubts follow, an answer is waited for from the first question on.
   */
  doubt(): void {
    const nowMs = this.#env.clock.monotonicMs();
    for (const id of this.#parts.brokers.keys()) if (this.isReached(id)) this.#askedMs.set(id, nowMs);
    this.#doubts += 1;
    this.#doubtedMs = nowMs;
    this.#parts.ask();
    this.#watchPatience();
  }

  /**
   * A power cut or a broken network seldom takes one machine only, and sessions outlive both: others that are still registered
   * may be gone as well. So each is asked once more when a broker comes back without its power or disk, and when one goes or is
   * another process, for whatever reason: those that stay keep what it held.
   */
  doubtIfChanged(registered: ReadonlyMap<BrokerId, Broker>): void {
    const { brokers } = this.#parts;
    const isNew = ({ id, epoch }: Broker): boolean => brokers.get(id)?.epoch !== epoch;
    const lostSomething = [...registered.values()].some(
      (broker) => isNew(broker) && (broker.lastStop === "power-cut" || broker.lastStop === "lost"),
    );
    const hasGone = [...brokers.values()].some(({ id, epoch }) => registered.get(id)?.epoch !== epoch);
    if (lostSomething || hasGone) this.doubt();
  }

  /** Something took its time since the brokers were asked: whoever has answered may have lost its power in it. */
  doubtIfLongSince(askedMs: number): void {
    if (this.#env.clock.monotonicMs() - Math.max(askedMs, this.#doubtedMs) > ANSWER_PATIENCE_MS) this.doubt();
  }

  /** The same, and resolves when those that live have answered: what waits meanwhile may rest on their answers. */
  async askAgainIfLongSince(askedMs: number): Promise<void> {
    const { doubts } = this;
    this.doubtIfLongSince(askedMs);
    if (doubts === this.#doubts || this.#stopped || !this.#isAnybodyAwaited) return;
    await new Promise<void>((resolve) => (this.#onAnswered = resolve));
  }

  stop(): void {
    this.#stopped = true;
    this.#patience.cancel();
    this.#onAnswered?.();
  }

  get #isAnybodyAwaited(): boolean {
    return [...this.#parts.brokers.keys()].some((id) => this.isAwaited(id));
  }

  #tellIfAnswered(): void {
    if (this.#onAnswered === undefined || this.#isAnybodyAwaited) return;
    this.#onAnswered();
    this.#onAnswered = undefined;
  }

  /** 0: it has answered, or it is not waited for. */
  #patienceLeftMs(brokerId: BrokerId, patienceMs: number): number {
    const broker = this.#parts.brokers.get(brokerId);
    const askedMs = this.#askedMs.get(brokerId);
    if (broker === undefined || askedMs === undefined || this.isReached(brokerId) || this.#parts.isGoing(broker))
      return 0;
    return Math.max(0, patienceMs - (this.#env.clock.monotonicMs() - askedMs));
  }

  /** Whoever is asked now may be given up before one that is waited for already, and longer. */
  #watchPatience(): void {
    if (this.#stopped) return;
    const waits = [...this.#parts.brokers.keys()]
      .flatMap((id) => [ANSWER_PATIENCE_MS, LAST_PATIENCE_MS].map((patienceMs) => this.#patienceLeftMs(id, patienceMs)))
      .filter((leftMs) => leftMs > 0);
    if (waits.length > 0) this.#patience.wakeAt(this.#env.clock.monotonicMs() + Math.min(...waits));
  }
}
