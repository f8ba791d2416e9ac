import type { PartitionState as PartitionStateMessage } from "../../protocol/messages.js";
import type { BrokerId, LeaderEpoch, PartitionEpoch } from "../../protocol/types.js";

/** The state of a partition as the controller committed it. */
export interface CommittedState {
  /** undefined: it has none at the moment. */
  readonly leaderId: BrokerId | undefined;
  readonly leaderEpoch: LeaderEpoch;
  readonly partitionEpoch: PartitionEpoch;
  readonly replicas: readonly BrokerId[];
  readonly isr: readonly BrokerId[];
  readonly elr: readonly BrokerId[];
  /**
   * With how many in-sync replicas the high watermark moves, by the controller's word: who is eligible was decided with the
   * same number. undefined: it did not say.
   */
  readonly minInsyncReplicas: number | undefined;
  /** The controller waits for the leader to say that what is there is synced on every in-sync replica. */
  readonly syncing: boolean;
}

export function committedState(message: PartitionStateMessage): CommittedState {
  return {
    leaderId: message.leaderId < 0 ? undefined : message.leaderId,
    leaderEpoch: message.leaderEpoch,
    partitionEpoch: message.partitionEpoch,
    replicas: message.replicas,
    isr: message.isr,
    elr: message.elr,
    minInsyncReplicas: message.minInsyncReplicas > 0 ? message.minInsyncReplicas : undefined,
    syncing: message.syncing,
  };
}

/** Whether `left` is at least as new as `right`, within one topic id. */
export function isAtLeastAsNew(left: CommittedState, right: CommittedState): boolean {
  if (left.leaderEpoch !== right.leaderEpoch) return left.leaderEpoch > right.leaderEpoch;
  return left.partitionEpoch >= right.partitionEpoch;
}
