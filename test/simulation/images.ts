import type { BrokerId, TopicId } from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";
import type { SimCluster } from "./cluster.js";
import type { ClusterImage } from "./history.js";

/** A partition, and the name under which ZooKeeper has its topic. */
export interface NamedPartition {
  readonly topic: string;
  readonly topicId: TopicId;
  readonly partition: number;
}

/** What ZooKeeper says of the partitions, and then what each broker does. */
export function clusterImages(cluster: SimCluster, partitions: readonly NamedPartition[]): ClusterImage[] {
  const image = (
    of: string,
    stateOf: (
      target: NamedPartition,
    ) => { leader: BrokerId; leaderEpoch: number; isr: readonly BrokerId[] } | undefined,
  ): ClusterImage => ({
    of,
    partitions: new Map(
      partitions.flatMap((target) => {
        const state = stateOf(target);
        if (state === undefined) return [];
        const { leader, leaderEpoch, isr } = state;
        return [[partitionKey(target.topicId, target.partition), { leaderId: leader, leaderEpoch, isr }] as const];
      }),
    ),
  });
  return [
    image("ZooKeeper", ({ topic, partition }) => cluster.stateOf(topic, partition)),
    ...[...cluster.brokers.values()].map((slot) =>
      image(`broker ${slot.id}`, ({ topicId, partition }) => {
        const state = slot.broker?.metadata.topic(topicId)?.partitions.get(partition);
        return state && { leader: state.leaderId ?? -1, leaderEpoch: state.leaderEpoch, isr: state.isr };
      }),
    ),
  ];
}
