import type { BrokerId } from "../../protocol/types.js";

/** A broker that replicas can be put on. */
export interface AssignableBroker {
  readonly id: BrokerId;
  readonly rack: string | undefined;
}

export interface AssignmentRequest {
  readonly brokers: readonly AssignableBroker[];
  readonly partitions: number;
  /** At most as many as there are brokers. */
  readonly replicationFactor: number;
  /**
   * Where in the list of brokers the first partition begins, and how far apart its replicas are: chance, so that topics
   * differ.
   */
  readonly start: number;
  readonly shift: number;
  /** Number of the first partition; not 0 when a topic grows. @defaultValue 0 */
  readonly firstPartition?: number;
}

/**
 * Which brokers hold each partition, the preferred leader first. Leaders go round the brokers; the followers of partitions
 * with the same leader lie on different brokers, so that a dead broker's load spreads over all. If every broker has a rack,
 * the replicas of a partition stand in as many racks as possible. (The idea is Kafka's.)
 */
export function assignReplicas(request: AssignmentRequest): BrokerId[][] {
  const { partitions, replicationFactor, firstPartition = 0 } = request;
  const brokers = arranged(request.brokers);
  const count = brokers.length;
  const rackCount = new Set(brokers.map(({ rack }) => rack)).size;
  const assignment: BrokerId[][] = [];
  for (let index = 0; index < partitions; index++) {
    const partition = firstPartition + index;
    const shift = request.shift + Math.floor(partition / count);
    const first = (partition + request.start) % count;
    const replicas: BrokerId[] = [];
    const racks = new Set<string | undefined>();
    const usable = new Set(brokers);
    const take = (broker: AssignableBroker): void => {
      replicas.push(broker.id);
      racks.add(broker.rack);
      usable.delete(broker);
      // Once each rack holds a replica, the next round over the racks begins.
      if (racks.size === rackCount) racks.clear();
    };
    for (const broker of candidates(brokers, first, shift)) {
      if (replicas.length === replicationFactor) break;
      if (usable.has(broker) && !racks.has(broker.rack)) take(broker);
    }
    // Racks of unequal size: whoever is left.
    for (const broker of candidates(brokers, first, shift)) {
      if (replicas.length === replicationFactor) break;
      if (usable.has(broker)) take(broker);
    }
    assignment.push(replicas);
  }
  return assignment;
}

/** The leader, then every other broker in an order that depends on the shift. */
function* candidates(
  brokers: readonly AssignableBroker[],
  first: number,
  shift: number,
): Generator<AssignableBroker, void> {
  const count = brokers.length;
  const at = (index: number): AssignableBroker => brokers[index % count] as AssignableBroker;
  yield at(first);
  for (let step = 0; step < count - 1; step++) yield at(first + 1 + ((shift + step) % (count - 1)));
}

/** By id, alternating between racks. If one broker names no rack, racks say nothing: each broker then counts as its own. */
function arranged(brokers: readonly AssignableBroker[]): AssignableBroker[] {
  const byId = [...brokers].sort((left, right) => left.id - right.id);
  if (byId.some(({ rack }) => rack === undefined)) return byId.map(({ id }) => ({ id, rack: String(id) }));
  const racks = new Map<string, AssignableBroker[]>();
  for (const broker of byId) {
    const rack = broker.rack ?? "";
    racks.set(rack, [...(racks.get(rack) ?? []), broker]);
  }
  const lists = [...racks.keys()].sort().map((rack) => racks.get(rack) ?? []);
  const longest = Math.max(...lists.map((list) => list.length));
  const result: AssignableBroker[] = [];
  for (let round = 0; round < longest; round++) {
    for (const list of lists) {
      const broker = list[round];
      if (broker !== undefined) result.push(broker);
    }
  }
  return result;
}
