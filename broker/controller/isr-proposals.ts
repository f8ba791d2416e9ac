import type { ErrorReport } from "../../protocol/error-codes.js";
import { errorReport } from "../../protocol/error-codes.js";
import type { IsrProposal } from "../../protocol/messages.js";
import type { BrokerId } from "../../protocol/types.js";
import type { ClusterState, Partition, Topic } from "./cluster-state.js";
import type { ElectionRules } from "./leader-election.js";
import { withIsr, withResignation, withSynced } from "./partition-state-machine.js";

/** What the controller answers a proposal with. */
export type ProposalVerdict =
  | { readonly kind: "accepted"; readonly to: Partition }
  /** The ISR is as proposed already, and a new partition epoch is to begin: the leader wants older proposals void. */
  | { readonly kind: "renewed" }
  /** The ISR is as proposed already: the answer to an earlier proposal was lost. */
  | { readonly kind: "unchanged" }
  | { readonly kind: "refused"; readonly error: ErrorReport };

export interface ProposalContext {
  readonly state: ClusterState;
  /** The proposing broker. */
  readonly brokerId: BrokerId;
  readonly topic: Topic;
  /** As it is now, or will be once what was accepted before is written. */
  readonly partition: Partition;
  /** Of the partition's topic. */
  readonly rules: ElectionRules;
  /** Whether a broker may join now: it is not about to stop, and not suspected to be dead. */
  readonly mayJoin: (brokerId: BrokerId) => boolean;
}

/**
 * Judges in-sync replicas that a leader proposes (KIP-497). The proposal must build on the very state that is committed;
 * each member must be the process that the leader saw catching up, not one that restarted since (KIP-903).
 */
export function judgeProposal(proposal: IsrProposal, context: ProposalContext): ProposalVerdict {
  const { partition, brokerId, state } = context;
  const name = `${context.topic.name}-${partition.partition}`;
  const refuse = (...[code, detail]: Parameters<typeof errorReport>): ProposalVerdict => ({
    kind: "refused",
    error: errorReport(code, detail),
  });
  if (proposal.leaderEpoch > partition.leaderEpoch) {
    return refuse(
      "NOT_CONTROLLER",
      `${name}: broker ${brokerId} knows leader epoch ${proposal.leaderEpoch}, this controller only ${partition.leaderEpoch}`,
    );
  }
  if (proposal.leaderEpoch < partition.leaderEpoch || partition.leader !== brokerId) {
    return refuse(
      "FENCED_LEADER_EPOCH",
      `${name}: broker ${brokerId} led in epoch ${proposal.leaderEpoch}; the leader is ${partition.leader} in epoch ${partition.leaderEpoch}`,
    );
  }
  const proposed = proposal.isr.map((member) => member.brokerId);
  const losesElr = partition.elr.some((id) => proposal.damaged.includes(id));
  if (isSameSet(proposed, partition.isr) && !losesElr) {
    if (proposal.synced && proposal.partitionEpoch === partition.partitionEpoch) {
      const synced = withSynced(partition);
      if (synced !== undefined) return { kind: "accepted", to: synced.to };
      return refuse("INVALID_REQUEST", `${name}: nobody asked whether its records are synced`);
    }
    return { kind: proposal.partitionEpoch === partition.partitionEpoch ? "renewed" : "unchanged" };
  }
  if (proposal.partitionEpoch !== partition.partitionEpoch) {
    return refuse(
      "INVALID_UPDATE_VERSION",
      `${name}: the proposal builds on partition epoch ${proposal.partitionEpoch}, and ${partition.partitionEpoch} is committed`,
    );
  }
  if (new Set(proposed).size !== proposed.length || proposed.length === 0) {
    return refuse("INVALID_REQUEST", `${name}: the ISR ${proposed.join()} must have members, and name each once`);
  }
  const stranger = proposed.find((id) => !partition.replicas.includes(id));
  if (stranger !== undefined) return refuse("INVALID_REQUEST", `${name}: broker ${stranger} is no replica`);
  for (const member of proposal.isr) {
    if (!state.isCurrent(member.brokerId, member.brokerEpoch)) {
      return refuse(
        "INELIGIBLE_REPLICA",
        `${name}: broker ${member.brokerId} is not registered with epoch ${member.brokerEpoch} any more`,
      );
    }
    if (!partition.isr.includes(member.brokerId) && !context.mayJoin(member.brokerId)) {
      return refuse("INELIGIBLE_REPLICA", `${name}: broker ${member.brokerId} is about to stop, or cannot be reached`);
    }
  }
  // In the order of the assignment, whatever order was proposed: states that mean the same then look the same.
  const isr = partition.replicas.filter((id) => proposed.includes(id));
  if (isr.includes(brokerId))
    return { kind: "accepted", to: withIsr(partition, isr, context.rules.minInsyncReplicas, proposal.damaged).to };
  const resignation = withResignation(partition, isr, context.rules, proposal.damaged);
  if (resignation !== undefined) return { kind: "accepted", to: resignation.to };
  return refuse("INELIGIBLE_REPLICA", `${name}: nobody else of the ISR may lead now; broker ${brokerId} goes on`);
}

function isSameSet(left: readonly BrokerId[], right: readonly BrokerId[]): boolean {
  return (
    left.length === right.length && left.every((id) => right.includes(id)) && right.every((id) => left.includes(id))
  );
}
