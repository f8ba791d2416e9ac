import { invariant } from "../../common/assert.js";
import type { BrokerId } from "../../protocol/types.js";
import { NO_LEADER } from "../zookeeper/znodes.js";
import type { Partition } from "./cluster-state.js";
import type { Election, ElectionGround, ElectionRules } from "./leader-election.js";
import { electLeader, nextElr } from "./leader-election.js";

/**
 * The moves of one partition, as pure functions from its state to the next one; undefined means that nothing changes. The
 * controller writes what they return and applies it once it is committed.
 *
 *   New ──> Online ⇄ Offline          Online: it has a leader. Offline: no replica that may lead is alive.
 *
 * In every move: the leader epoch grows when the leader changes and only then; the leader is in the ISR; the ISR is never
 * empty (its last members stay, so that it is known who may lead again); ISR and ELR have no member in common.
 */
export type PartitionMove = { readonly to: Partition; readonly ground?: ElectionGround | undefined };

/** Moves one after the other, as a single one. */
export function inTurn(
  partition: Partition,
  ...moves: readonly ((partition: Partition) => PartitionMove | undefined)[]
): PartitionMove | undefined {
  let sum: PartitionMove | undefined;
  for (const move of moves) {
    const next = move(sum?.to ?? partition);
    if (next !== undefined) sum = { to: next.to, ground: next.ground ?? sum?.ground };
  }
  return sum;
}

/** The state that a partition is born with, before it is written. The first alive replica leads. */
export function newPartition(partition: number, replicas: readonly BrokerId[], rules: ElectionRules): Partition {
  const inSync = replicas.filter(rules.isElectable);
  // Nobody has a record yet, so all are in sync, whoever is alive; but only who is reached now can keep up.
  const born: Partition = {
    partition,
    replicas,
    leader: inSync[0] ?? NO_LEADER,
    leaderEpoch: 0,
    partitionEpoch: 0,
    isr: inSync.length > 0 ? inSync : replicas,
    elr: [],
    unverified: [],
    minInsyncReplicas: rules.minInsyncReplicas,
    lost: [],
    brokerEpochs: new Map(),
    // There is no record that was acknowledged by another rule.
    durability: rules.durability === "fsync" ? "fsync" : "page-cache",
  };
  assertConsistent(born);
  return born;
}

/**
 * Brokers are gone, or came back as another process: no leader of anything, and out of the ISR where the leader is there, or
 * another one is elected. A registration alone takes nobody's seat: the leader's may have outlived it.
 */
export function withoutBrokers(
  partition: Partition,
  gone: ReadonlySet<BrokerId>,
  rules: ElectionRules,
): PartitionMove | undefined {
  const lostLeader = gone.has(partition.leader);
  const lostMember = partition.isr.some((id) => gone.has(id));
  if (!lostLeader && !lostMember) return undefined;
  const left = { ...rules, isAlive: (id: BrokerId) => !gone.has(id) && rules.isAlive(id) };
  const leftElectable = { ...left, isElectable: (id: BrokerId) => !gone.has(id) && rules.isElectable(id) };
  if (!lostLeader && partition.leader !== NO_LEADER) {
    if (!rules.isReached(partition.leader)) return undefined;
    const isr = partition.isr.filter((id) => id === partition.leader || left.isAlive(id));
    return { to: moved(partition, decided(partition, isr, rules.minInsyncReplicas)) };
  }
  const election = electLeader(partition, leftElectable);
  if (election !== undefined) {
    return elected(partition, election, rules);
  }
  // While nobody leads all keep their seats: they say by whose records an election has to go.
  return partition.leader === NO_LEADER ? undefined : { to: moved(partition, { leader: NO_LEADER }) };
}

/**
 * Brokers are back after a power cut, and nothing was synced before it was acknowledged, or without their disk: what they
 * hold is uncertain. They are not eligible any more. Their seats in the ISR stay, marked, until somebody certain leads
 * (`withoutUncertain`), and whoever was eligible is remembered too: if nobody certain is left, all of them are asked.
 */
function withPowerCut(
  partition: Partition,
  cut: ReadonlySet<BrokerId>,
  lost: ReadonlySet<BrokerId>,
): PartitionMove | undefined {
  const { replicas, isr, elr } = partition;
  const counted = replicas.filter((id) => [...isr, ...elr, ...partition.unverified].includes(id));
  const unverified = counted.filter((id) => cut.has(id) || partition.unverified.includes(id));
  const to = {
    ...partition,
    elr: elr.filter((id) => !cut.has(id)),
    unverified,
    lost: unverified.filter((id) => lost.has(id) || partition.lost.includes(id)),
  };
  return isSame(partition, to) ? undefined : { to };
}

/** Members that are uncertain or gone lose their seats as soon as the leader has proved that it is there. */
export function withoutUncertain(partition: Partition, rules: ElectionRules): PartitionMove | undefined {
  const { leader, unverified } = partition;
  if (leader === NO_LEADER || unverified.includes(leader) || !rules.isReached(leader)) return undefined;
  const isr = partition.isr.filter((id) => id === leader || (rules.isAlive(id) && !unverified.includes(id)));
  if (isr.length === partition.isr.length && unverified.length === 0) return undefined;
  const to = moved(partition, decided(partition, isr, rules.minInsyncReplicas));
  return { to: { ...to, unverified: [], lost: [] } };
}

/** What the registrations of brokers say of a partition: who is gone, and who lost its power since it was last there. */
export function withRegistrations(
  partition: Partition,
  change: {
    readonly gone: ReadonlySet<BrokerId>;
    /** May have lost records of the partition. */
    readonly cut: ReadonlySet<BrokerId>;
    /** Of these, those that lost their disk. */
    readonly lost: ReadonlySet<BrokerId>;
  },
  rules: ElectionRules,
): PartitionMove | undefined {
  // The marks first: nobody may be elected in the moment in which it is found to be uncertain.
  return inTurn(
    partition,
    (from) => withPowerCut(from, change.cut, change.lost),
    (from) => withoutBrokers(from, change.gone, rules),
    (from) => withoutUncertain(from, rules),
  );
}

/** A leader for a partition that has none. */
export function withLeader(partition: Partition, rules: ElectionRules): PartitionMove | undefined {
  if (partition.leader !== NO_LEADER) return undefined;
  const election = electLeader(partition, rules);
  if (election === undefined) return undefined;
  return elected(partition, election, rules);
}

/** The preferred leader takes over, if it is in sync and may. */
export function withPreferredLeader(partition: Partition, rules: ElectionRules): PartitionMove | undefined {
  const [preferred] = partition.replicas;
  if (preferred === undefined || preferred === partition.leader) return undefined;
  if (!partition.isr.includes(preferred) || partition.unverified.includes(preferred)) return undefined;
  if (!rules.isElectable(preferred) || !rules.isReached(preferred)) return undefined;
  const { isr } = partition;
  return {
    to: moved(partition, { leader: preferred, ...decided(partition, isr, rules.minInsyncReplicas) }),
    ground: "in sync",
  };
}

/** The leader proposed these members, and they were found fit. `damaged`: replicas that have lost records. */
export function withIsr(
  partition: Partition,
  isr: readonly BrokerId[],
  minInsyncReplicas: number,
  damaged: readonly BrokerId[] = [],
): PartitionMove {
  invariant(isr.includes(partition.leader), () => `ISR ${isr.join()} without its leader ${partition.leader}`);
  return { to: moved(partition, decided(partition, isr, minInsyncReplicas, damaged)) };
}

/** The leader gives its leadership up and leaves the ISR; one of the members that remain leads, if one may. */
export function withResignation(
  partition: Partition,
  remaining: readonly BrokerId[],
  rules: ElectionRules,
  damaged: readonly BrokerId[],
): PartitionMove | undefined {
  const election = electLeader({ ...partition, isr: remaining, elr: [] }, { ...rules, uncleanAllowed: false });
  if (election === undefined) return undefined;
  const { leader, isr, ground } = election;
  return { to: moved(partition, { leader, ...decided(partition, isr, rules.minInsyncReplicas, damaged) }), ground };
}

/**
 * Who is in sync, who is eligible beside them, and the minimum by which that was decided: the leader acknowledges by that very
 * number, so it is told all three at once.
 */
function decided(
  from: Partition,
  isr: readonly BrokerId[],
  minInsyncReplicas: number,
  damaged: readonly BrokerId[] = [],
): Pick<Partition, "isr" | "elr" | "minInsyncReplicas"> {
  const elr = nextElr(from, isr, minInsyncReplicas).filter((id) => !damaged.includes(id));
  return { isr, elr, minInsyncReplicas };
}

function elected(partition: Partition, election: Election, { minInsyncReplicas }: ElectionRules): PartitionMove {
  const { leader, isr, elr, ground } = election;
  return { to: moved(partition, { leader, isr, elr, minInsyncReplicas }), ground };
}

/**
 * A broker is about to stop: somebody else in sync leads, and it leaves the ISR, if there is somebody else. While
 * nobody leads the seats say whose records an election has to go by, and those of a broker that stops are among them.
 */
export function withStopping(
  partition: Partition,
  brokerId: BrokerId,
  rules: ElectionRules,
): PartitionMove | undefined {
  if (partition.leader === NO_LEADER || !partition.isr.includes(brokerId)) return undefined;
  const others = { ...rules, isElectable: (id: BrokerId) => id !== brokerId && rules.isElectable(id) };
  const isrLeft = partition.isr.filter((id) => id !== brokerId);
  if (partition.leader !== brokerId) {
    if (!rules.isReached(partition.leader)) return undefined;
    return { to: moved(partition, decided(partition, isrLeft, rules.minInsyncReplicas)) };
  }
  return withResignation(partition, isrLeft, others, []);
}

/** The replica that was found to hold most leads, alone: others may hold records that it lost. */
export function withUnverifiedLeader(
  partition: Partition,
  leader: BrokerId,
  { minInsyncReplicas }: Pick<ElectionRules, "minInsyncReplicas">,
): PartitionMove {
  const to = moved(partition, { leader, isr: [leader], elr: [], minInsyncReplicas });
  return {
    to: { ...to, unverified: [], lost: [] },
    ground: "unclean",
  };
}

/**
 * After min.insync.replicas changed: who is eligible is only known while the ISR is too small. Where it has become large enough
 * by a smaller minimum, the eligible are given up for the sake of a leader that is there: one that lost its power unnoticed has
 * less than they. While nobody leads the high watermark stands, and they stay.
 */
export function withMinInsyncReplicas(
  partition: Partition,
  { minInsyncReplicas, isReached }: Pick<ElectionRules, "minInsyncReplicas" | "isReached">,
): PartitionMove | undefined {
  const isLargeEnough = partition.isr.length >= minInsyncReplicas;
  if (isLargeEnough && partition.elr.length > 0 && !isReached(partition.leader)) return undefined;
  const elr = isLargeEnough ? [] : partition.elr;
  if (partition.minInsyncReplicas === minInsyncReplicas && elr.length === partition.elr.length) return undefined;
  return { to: moved(partition, { elr, minInsyncReplicas }) };
}

/**
 * After the durability changed. The weaker one holds at once: from the next moment on records may be acknowledged by it. The
 * stronger one does not hold for the records that are there; the leader confirms it (`withSynced`). Each change is another
 * state, so that a confirmation of the time before is void.
 */
function withDurability(partition: Partition, setting: string): PartitionMove | undefined {
  if (setting !== "fsync")
    return partition.durability === "page-cache" ? undefined : { to: { ...partition, durability: "page-cache" } };
  return partition.durability === "page-cache" ? { to: { ...partition, durability: "syncing" } } : undefined;
}

/** After settings changed, all that stands in the state of a partition and follows from them. */
export function withSettings(
  partition: Partition,
  rules: Pick<ElectionRules, "minInsyncReplicas" | "durability" | "isReached">,
): PartitionMove | undefined {
  return inTurn(
    partition,
    (from) => withMinInsyncReplicas(from, rules),
    (from) => withDurability(from, rules.durability),
  );
}

/** Every in-sync replica has synced what may have been acknowledged by the weaker rule; nobody else is eligible. */
export function withSynced(partition: Partition): PartitionMove | undefined {
  return partition.durability === "syncing" && partition.elr.length === 0
    ? { to: { ...partition, durability: "fsync" } }
    : undefined;
}

function moved(
  from: Partition,
  change: Partial<Pick<Partition, "leader" | "isr" | "elr" | "minInsyncReplicas">>,
): Partition {
  const leader = change.leader ?? from.leader;
  const isr = change.isr ?? from.isr;
  // A member is uncertain for as long as it keeps its seat; one that was eligible, until it joins or somebody leads.
  const unverified = from.unverified.filter((id) =>
    from.isr.includes(id) ? isr.includes(id) : !isr.includes(id) && (leader === from.leader || leader === NO_LEADER),
  );
  const to: Partition = {
    ...from,
    ...change,
    leaderEpoch: leader === from.leader ? from.leaderEpoch : from.leaderEpoch + 1,
    unverified,
    lost: from.lost.filter((id) => unverified.includes(id)),
  };
  assertConsistent(to);
  return to;
}

function assertConsistent(partition: Partition): void {
  const contradiction = contradictionIn(partition);
  invariant(contradiction === undefined, () => `${contradiction}: ${JSON.stringify(partition)}`);
}

/** What is wrong with a state by itself, whatever it came from; undefined when nothing is. */
export function contradictionIn({
  leader,
  isr,
  elr,
  replicas,
}: Pick<Partition, "leader" | "isr" | "elr" | "replicas">): string | undefined {
  if (isr.length === 0) return "empty ISR";
  if (new Set(isr).size < isr.length) return "a member twice in the ISR";
  if (leader !== NO_LEADER && !isr.includes(leader)) return "leader outside the ISR";
  if (![...isr, ...elr].every((id) => replicas.includes(id))) return "ISR or ELR outside the assignment";
  if (elr.some((id) => isr.includes(id))) return "ISR and ELR overlap";
  return undefined;
}

/** Whether the two are the same in ZooKeeper, and for the leader, which is told of another minimum with a new partition epoch. */
export function isSame(left: Partition, right: Partition): boolean {
  return (
    left.leader === right.leader &&
    left.leaderEpoch === right.leaderEpoch &&
    isSameList(left.isr, right.isr) &&
    isSameList(left.elr, right.elr) &&
    isSameList(left.unverified, right.unverified) &&
    isSameList(left.lost, right.lost) &&
    left.minInsyncReplicas === right.minInsyncReplicas &&
    left.durability === right.durability
  );
}

function isSameList(left: readonly BrokerId[], right: readonly BrokerId[]): boolean {
  return left.length === right.length && left.every((id, index) => id === right[index]);
}
