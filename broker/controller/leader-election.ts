import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { Partition } from "./cluster-state.js";

/** What an election may rely on. */
export interface ElectionRules {
  /** Registered, reached, not about to stop: may lead now. */
  readonly isElectable: (brokerId: BrokerId) => boolean;
  /**
   * Has answered this controller, as the process that is registered, since there was last a reason to doubt that registered
   * brokers live.
   */
  readonly isReached: (brokerId: BrokerId) => boolean;
  /** May lead, and was asked so lately whether it lives that its answer may still be on its way. */
  readonly isAwaited: (brokerId: BrokerId) => boolean;
  /** Registered: may keep its seat in the ISR. */
  readonly isAlive: (brokerId: BrokerId) => boolean;
  /** Of the partition's topic. */
  readonly minInsyncReplicas: number;
  /** The same: `fsync` or `page-cache`. */
  readonly durability: string;
  /** A replica from outside the ISR and ELR may lead when nobody else can: available again, at the price of records. */
  readonly uncleanAllowed: boolean;
}

/** Why a replica may lead: it is in sync; it holds all committed records; it is all that is left. */
export type ElectionGround = "in sync" | "eligible" | "unclean";

export interface Election {
  readonly leader: BrokerId;
  readonly ground: ElectionGround;
  readonly isr: readonly BrokerId[];
  readonly elr: readonly BrokerId[];
}

/**
 * Who leads, or undefined when nobody may, or the first who may has not answered yet and is waited for. The first of the
 * assignment order that is in sync and electable; else of the eligible replicas (KIP-966); else, if the topic allows it, of
 * any. A member of the ISR that lost its power does not count as in sync here (the last replica standing); whether it leads
 * is `electUnverified`'s question.
 */
export function electLeader(partition: Partition, rules: ElectionRules): Election | undefined {
  const { replicas, isr, elr, unverified } = partition;
  const trusted = isr.filter((id) => !unverified.includes(id));
  // Registrations outlive their processes, and to elect one that is not there costs the others their seats.
  const electable = replicas.filter((id) => rules.isElectable(id) && rules.isReached(id));
  // In the order of the assignment, not of the answers: the first to answer would lead everything.
  const candidates = replicas.filter((id) => electable.includes(id) || rules.isAwaited(id));
  const inSync = candidates.find((id) => trusted.includes(id));
  const eligible = candidates.find((id) => elr.includes(id));
  const first = inSync ?? eligible;
  if (first !== undefined && !electable.includes(first)) return undefined;
  if (inSync !== undefined) {
    const nextIsr = trusted.filter((id) => id === inSync || rules.isAlive(id));
    return {
      leader: inSync,
      ground: "in sync",
      isr: nextIsr,
      elr: nextElr(partition, nextIsr, rules.minInsyncReplicas),
    };
  }
  if (eligible !== undefined) {
    const nextIsr = [eligible];
    return {
      leader: eligible,
      ground: "eligible",
      isr: nextIsr,
      elr: nextElr(partition, nextIsr, rules.minInsyncReplicas),
    };
  }
  // Not while somebody certain is registered and only not reached yet: a moment later nothing needs to be lost.
  const awaited = [...trusted, ...elr].some(rules.isAlive);
  const [any] = rules.uncleanAllowed && !awaited ? electable : [];
  // Whoever else was in sync may hold records that the new leader lacks: nobody is eligible beside it.
  return any === undefined ? undefined : { leader: any, ground: "unclean", isr: [any], elr: [] };
}

/**
 * The eligible replicas once the ISR is `isr`. The high watermark stands still while the ISR is smaller than
 * min.insync.replicas, so whoever leaves it in that time, or brings it there by leaving, still has every committed record.
 * As soon as the ISR is large enough the watermark moves again and outsiders lose track.
 */
export function nextElr(
  from: Pick<Partition, "isr" | "elr" | "unverified">,
  isr: readonly BrokerId[],
  minInsyncReplicas: number,
): readonly BrokerId[] {
  if (isr.length >= minInsyncReplicas) return [];
  const eligible = new Set([...from.elr, ...from.isr]);
  for (const id of [...isr, ...from.unverified]) eligible.delete(id);
  return [...eligible];
}

/**
 * Replicas of which the one that holds most is elected when nobody certain is left: the members of the ISR, and those that
 * had as much until they lost their power. When all members lost their disks, a replica from outside may hold most of what
 * was committed.
 */
export function unverifiedCandidates({ isr, unverified, lost, replicas }: Partition): readonly BrokerId[] {
  if (isr.every((id) => lost.includes(id))) return replicas;
  return replicas.filter((id) => isr.includes(id) || unverified.includes(id));
}

/** What a replica said it holds. */
export interface ReplicaReport {
  readonly brokerId: BrokerId;
  /** The process that said so. */
  readonly brokerEpoch: BrokerEpoch;
  /** Epoch of its last record plus one; 0: it has none. */
  readonly lastEpochPlusOne: number;
  readonly logEndOffset: number;
  /** Its recovery cut records off. */
  readonly cut: boolean;
}

/**
 * Of replicas that all may have lost records, the one that holds most: the newest last epoch, then the longest log. Of two
 * logs with the same last epoch the longer one holds what the shorter does, whatever either has lost; and a log that was
 * not cut may have lost records as well, without a trace. So having been cut counts only where all else is equal.
 */
export function electUnverified(reports: readonly ReplicaReport[]): ReplicaReport | undefined {
  const better = (left: ReplicaReport, right: ReplicaReport): boolean => {
    if (left.lastEpochPlusOne !== right.lastEpochPlusOne) return left.lastEpochPlusOne > right.lastEpochPlusOne;
    if (left.logEndOffset !== right.logEndOffset) return left.logEndOffset > right.logEndOffset;
    return !left.cut && right.cut;
  };
  let best: ReplicaReport | undefined;
  for (const report of reports) {
    if (best === undefined || better(report, best)) best = report;
  }
  return best;
}
