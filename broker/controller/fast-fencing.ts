import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { ControllerSettings } from "./controller-settings.js";

/**
 * How a fresh connection to a suspected broker went. `refused`: nobody listens there, which proves that the process is gone.
 * `replaced`: another process answers. `silent`: no handshake in time, which proves nothing by itself.
 */
export type ProbeVerdict = "alive" | "refused" | "replaced" | "silent";

/** A broker whose established connection ended. */
export interface Suspect {
  readonly brokerId: BrokerId;
  readonly epoch: BrokerEpoch;
}

/** What the limits look at. */
export interface FencingLimits {
  readonly registered: ReadonlySet<BrokerId>;
  /** Brokers fenced within the last session timeout. */
  readonly fencedLately: ReadonlySet<BrokerId>;
}

/**
 * Which of the brokers that seem dead may be fenced. At most a minority of the cluster within one session timeout: if
 * most of it seems dead, it is rather we who are cut off. Proven deaths first; silent ones only if all of them fit,
 * because whoever loses a network hears silence from many. The rest wait for their sessions to expire.
 */
export function fenceable(
  dead: readonly (Suspect & { readonly verdict: ProbeVerdict })[],
  limits: FencingLimits,
): Suspect[] {
  const cluster = new Set([...limits.registered, ...limits.fencedLately]);
  const minority = Math.floor((cluster.size - 1) / 2);
  const counted = new Set(limits.fencedLately);
  const proven = dead.filter(({ verdict }) => verdict !== "silent");
  const silent = dead.filter(({ verdict }) => verdict === "silent");
  const fits = (suspects: readonly Suspect[]): boolean =>
    new Set([...counted, ...suspects.map(({ brokerId }) => brokerId)]).size <= minority;
  const fenced: Suspect[] = [];
  for (const suspect of proven) {
    if (!fits([suspect])) continue;
    counted.add(suspect.brokerId);
    fenced.push(suspect);
  }
  return fits(silent) ? [...fenced, ...silent] : fenced;
}

const MINUTE_MS = 60_000;

/**
 * Turns evidence into verdicts: a broker is suspected when one of its established control connections ended without our
 * doing, and found dead when a fresh connection does not shake hands either. Evidence is gathered for a moment, so that
 * brokers which die together are fenced together and none of them is elected in between. It decides nothing in ZooKeeper:
 * `onDecided` is told who is to be fenced.
 */
export class FastFencing {
  readonly #env: Env;
  readonly #logger: Logger;
  readonly #settings: ControllerSettings;
  readonly #parts: FastFencingParts;
  /** Undefined: the fresh connection is not decided yet. */
  readonly #suspects = new Map<BrokerId, { readonly epoch: BrokerEpoch; verdict: ProbeVerdict | undefined }>();
  readonly #fences: { readonly brokerId: BrokerId; readonly atMs: number }[] = [];
  #gathering: Timer | undefined;

  constructor(env: Env, logger: Logger, settings: ControllerSettings, parts: FastFencingParts) {
    this.#env = env;
    this.#logger = logger;
    this.#settings = settings;
    this.#parts = parts;
  }

  /** Whether the broker is under suspicion: until that is settled nobody should count on it. */
  isSuspected(brokerId: BrokerId, epoch: BrokerEpoch): boolean {
    return this.#suspects.get(brokerId)?.epoch === epoch;
  }

  /** An established connection of this broker ended. The caller makes a fresh one and reports with `onVerdict`. */
  suspect({ brokerId, epoch }: Suspect): void {
    if (!this.#settings.fastFencing || this.isSuspected(brokerId, epoch)) return;
    this.#suspects.set(brokerId, { epoch, verdict: undefined });
    this.#logger.info(`The connection of broker ${brokerId} ended: trying a fresh one before it is taken for dead.`);
    this.#gathering ??= this.#env.timers.after(this.#settings.fencingGatherMs, () => {
      this.#gathering = undefined;
      this.#decide();
    });
  }

  onVerdict({ brokerId, epoch }: Suspect, verdict: ProbeVerdict): void {
    const suspect = this.#suspects.get(brokerId);
    if (suspect?.epoch !== epoch) return;
    if (verdict === "alive") this.#suspects.delete(brokerId);
    else suspect.verdict ??= verdict;
    if (this.#gathering === undefined) this.#decide();
  }

  /** A broker was fenced by other means; it counts for the limits. */
  noteFenced(brokerId: BrokerId): void {
    this.#fences.push({ brokerId, atMs: this.#env.clock.monotonicMs() });
  }

  /** The broker's registration is gone, or is another one: nothing is left to decide. */
  forget(brokerId: BrokerId): void {
    if (this.#suspects.delete(brokerId) && this.#gathering === undefined) this.#decide();
  }

  stop(): void {
    this.#gathering?.cancel();
    this.#suspects.clear();
  }

  #decide(): void {
    const nowMs = this.#env.clock.monotonicMs();
    while (this.#fences[0] !== undefined && this.#fences[0].atMs < nowMs - MINUTE_MS) this.#fences.shift();
    // Silence is judged together, once nobody's verdict is open: that of many is ours.
    const isOpen = [...this.#suspects.values()].some(({ verdict }) => verdict === undefined);
    const dead = [...this.#suspects].flatMap(([brokerId, { epoch, verdict }]) =>
      verdict === undefined || (verdict === "silent" && isOpen) ? [] : [{ brokerId, epoch, verdict }],
    );
    // Whoever is not fenced below is no suspect any more either: its session decides.
    for (const { brokerId } of dead) this.#suspects.delete(brokerId);
    const rested = dead.filter(({ brokerId }) => {
      const lately = this.#fences.filter((fence) => fence.brokerId === brokerId).length;
      return lately < this.#settings.fencingsPerBrokerPerMinute;
    });
    const sinceMs = nowMs - this.#parts.sessionTimeoutMs();
    const fencedLately = new Set(this.#fences.filter(({ atMs }) => atMs >= sinceMs).map(({ brokerId }) => brokerId));
    const fenced = fenceable(rested, { registered: this.#parts.registered(), fencedLately });
    for (const { brokerId, verdict } of dead) {
      const isFenced = fenced.some((suspect) => suspect.brokerId === brokerId);
      this.#logger.warn(
        isFenced
          ? `Broker ${brokerId} is dead (${sentences[verdict]}): fencing it.`
          : `Broker ${brokerId} seems dead (${sentences[verdict]}), but fencing it would exceed the limits: its ZooKeeper session decides.`,
      );
      if (isFenced) this.#fences.push({ brokerId, atMs: nowMs });
    }
    if (dead.length > 0) this.#parts.onDecided(fenced, dead);
  }
}

export interface FastFencingParts {
  readonly registered: () => ReadonlySet<BrokerId>;
  readonly sessionTimeoutMs: () => number;
  /** `fenced` of the `dead` are to be fenced; of the others nothing is known but that they do not answer. */
  readonly onDecided: (fenced: readonly Suspect[], dead: readonly Suspect[]) => void;
}

const sentences: Readonly<Record<ProbeVerdict, string>> = {
  alive: "it answers",
  refused: "nobody listens at its address",
  replaced: "another process answers at its address",
  silent: "it did not shake hands in time",
};
