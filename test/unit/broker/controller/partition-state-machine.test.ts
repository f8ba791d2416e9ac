import fc from "fast-check";
import type { Partition } from "../../../../broker/controller/cluster-state.js";
import type { ElectionRules } from "../../../../broker/controller/leader-election.js";
import { electUnverified, unverifiedCandidates } from "../../../../broker/controller/leader-election.js";
import type { PartitionMove } from "../../../../broker/controller/partition-state-machine.js";
import {
  isSame,
  newPartition,
  withIsr,
  withLeader,
  withMinInsyncReplicas,
  withoutBrokers,
  withoutUncertain,
  withPreferredLeader,
  withRegistrations,
  withSettings,
  withSynced,
  withStopping,
  withUnverifiedLeader,
} from "../../../../broker/controller/partition-state-machine.js";

const rules = (alive: readonly number[], options: Partial<ElectionRules> = {}): ElectionRules => ({
  isAlive: (id) => alive.includes(id),
  isElectable: (id) => alive.includes(id),
  isReached: (id) => alive.includes(id),
  isAwaited: () => false,
  minInsyncReplicas: 2,
  durability: "page-cache",
  uncleanAllowed: false,
  ...options,
});

const partition = (change: Partial<Partition> = {}): Partition => ({
  partition: 0,
  replicas: [1, 2, 3],
  leader: 1,
  leaderEpoch: 5,
  partitionEpoch: 9,
  isr: [1, 2, 3],
  elr: [],
  unverified: [],
  minInsyncReplicas: 2,
  lost: [],
  brokerEpochs: new Map(),
  durability: "page-cache",
  ...change,
});

const gone = (...ids: number[]): ReadonlySet<number> => new Set(ids);

describe("a new partition", () => {
  it("is led by the first reached replica, with all reached ones in sync", () => {
    expect(newPartition(4, [3, 1, 2], rules([1, 2]))).toMatchObject({
      partition: 4,
      leader: 1,
      isr: [1, 2],
      leaderEpoch: 0,
    });
  });

  it("waits for any of its replicas when none is reached, since none has a record", () => {
    const born = newPartition(0, [1, 2], rules([]));
    expect(born).toMatchObject({ leader: -1, isr: [1, 2] });
    expect(withLeader(born, rules([2]))?.to).toMatchObject({ leader: 2, isr: [2] });
  });
});

describe("brokers that are gone", () => {
  it("are followed by the next in sync, in a new epoch", () => {
    const move = withoutBrokers(partition(), gone(1), rules([2, 3]));
    expect(move).toMatchObject({ ground: "in sync", to: { leader: 2, leaderEpoch: 6, isr: [2, 3], elr: [] } });
  });

  it("leave the ISR without a new leader epoch when they only followed", () => {
    const move = withoutBrokers(partition(), gone(3), rules([1, 2]));
    expect(move?.to).toMatchObject({ leader: 1, leaderEpoch: 5, isr: [1, 2], elr: [] });
  });

  it("stay eligible when they leave fewer than min.insync.replicas behind", () => {
    const move = withoutBrokers(partition({ isr: [1, 2] }), gone(1), rules([2, 3]));
    expect(move?.to).toMatchObject({ leader: 2, isr: [2], elr: [1] });
  });

  it("are followed by one that has answered, where registrations may have outlived their processes", () => {
    const ghosts = rules([2, 3], { isReached: (id) => id === 3 });
    expect(withoutBrokers(partition(), gone(1), ghosts)?.to).toMatchObject({ leader: 3, isr: [2, 3] });
    const none = rules([2, 3], { isReached: () => false });
    expect(withoutBrokers(partition(), gone(1), none)?.to).toMatchObject({ leader: -1, isr: [1, 2, 3] });
    expect(withPreferredLeader(partition({ leader: 2 }), rules([1, 2, 3], { ...none, isAlive: () => true }))).toBe(
      undefined,
    );
  });

  it("are followed by the first of the assignment, whose answer is waited for, and not by the first to answer", () => {
    const early: Partial<ElectionRules> = { isReached: (id) => id === 3, isAwaited: (id) => id === 2 };
    expect(withoutBrokers(partition(), gone(1), rules([2, 3], early))?.to).toMatchObject({
      leader: -1,
      isr: [1, 2, 3],
    });
    // One that was eligible only is not waited for where one in sync has answered.
    const eligible = partition({ isr: [1, 3], elr: [2] });
    expect(withoutBrokers(eligible, gone(1), rules([2, 3], early))?.to).toMatchObject({ leader: 3 });
    const two = partition({ isr: [1], elr: [2, 3] });
    expect(withoutBrokers(two, gone(1), rules([2, 3], early))?.to).toMatchObject({ leader: -1, elr: [2, 3] });
    const late: Partial<ElectionRules> = { ...early, isAwaited: () => false };
    expect(withoutBrokers(partition(), gone(1), rules([2, 3], late))?.to).toMatchObject({ leader: 3 });
  });

  it("keep the last seats, so that it is known who may lead again", () => {
    const all = withoutBrokers(partition(), gone(1, 2, 3), rules([]));
    expect(all?.to).toMatchObject({ leader: -1, leaderEpoch: 6, isr: [1, 2, 3], elr: [] });
    const last = withoutBrokers(partition({ isr: [1], elr: [2] }), gone(1), rules([3]));
    expect(last?.to).toMatchObject({ leader: -1, isr: [1], elr: [2] });
  });

  it("are replaced by an eligible replica when nobody in sync is left", () => {
    const move = withoutBrokers(partition({ isr: [1], elr: [3] }), gone(1), rules([2, 3]));
    expect(move).toMatchObject({ ground: "eligible", to: { leader: 3, isr: [3], elr: [1] } });
  });

  it("are replaced by anybody only where the topic allows it, and then nobody else is eligible", () => {
    const from = partition({ isr: [1], elr: [] });
    expect(withoutBrokers(from, gone(1), rules([2, 3]))?.to.leader).toBe(-1);
    const move = withoutBrokers(from, gone(1), rules([2, 3], { uncleanAllowed: true }));
    expect(move).toMatchObject({ ground: "unclean", to: { leader: 2, isr: [2], elr: [] } });
  });

  it("are waited for, however unclean the topic may be, while somebody in sync is only not reached yet", () => {
    const from = partition({ isr: [1, 2] });
    const unreached = rules([3], { uncleanAllowed: true, isAlive: (id) => id !== 1 });
    expect(withoutBrokers(from, gone(1), unreached)?.to).toMatchObject({ leader: -1, isr: [1, 2] });
  });

  it("lead again in a newer epoch when they come back as another process", () => {
    const sole = partition({ replicas: [1], isr: [1] });
    const offline = withoutBrokers(sole, gone(1), rules([1]))?.to as Partition;
    expect(offline).toMatchObject({ leader: -1, leaderEpoch: 6 });
    expect(withLeader(offline, rules([1]))?.to).toMatchObject({ leader: 1, leaderEpoch: 7 });
  });

  it("change nothing where they are no member", () => {
    expect(withoutBrokers(partition({ isr: [1, 2] }), gone(3), rules([1, 2]))).toBeUndefined();
  });
});

describe("a broker that is back after a power cut", () => {
  const back = (
    from: Partition,
    id: number,
    alive: number[],
    options: Partial<ElectionRules> = {},
  ): PartitionMove | undefined =>
    withRegistrations(from, { gone: gone(), cut: gone(id), lost: gone() }, rules(alive, options));

  it("loses its seat when somebody certain can lead", () => {
    expect(back(partition(), 3, [1, 2, 3])?.to).toMatchObject({ isr: [1, 2], unverified: [] });
  });

  it("is no longer eligible, and does not become so by losing its seat", () => {
    expect(back(partition({ isr: [1], elr: [3] }), 3, [1, 3])?.to).toMatchObject({ isr: [1], elr: [] });
    expect(back(partition({ isr: [1, 3] }), 3, [1, 3])?.to).toMatchObject({ isr: [1], elr: [] });
  });

  it("keeps its seat when it is the last, but does not lead by itself", () => {
    const offline = partition({ leader: -1, isr: [1] });
    const marked = back(offline, 1, [1])?.to as Partition;
    expect(marked).toMatchObject({ isr: [1], unverified: [1] });
    expect(withLeader(marked, rules([1, 2]))).toBeUndefined();
    expect(withUnverifiedLeader(marked, 1, rules([1, 2, 3]))).toMatchObject({
      ground: "unclean",
      to: { leader: 1, unverified: [] },
    });
  });

  it("is remembered as one that lost its disk as long as it is uncertain", () => {
    const offline = partition({ leader: -1, isr: [1, 2] });
    const disk = { gone: gone(2), cut: gone(1), lost: gone(1) };
    const marked = withRegistrations(offline, disk, rules([1]))?.to as Partition;
    expect(marked).toMatchObject({ leader: -1, isr: [1, 2], unverified: [1], lost: [1] });
    // It is back once more, after a mere crash.
    const again = withRegistrations(marked, { gone: gone(1, 2), cut: gone(), lost: gone() }, rules([1]))?.to ?? marked;
    expect(again).toMatchObject({ unverified: [1], lost: [1] });
    expect(withLeader(again, rules([1, 2]))?.to).toMatchObject({ leader: 2, isr: [2], unverified: [], lost: [] });
    expect(withUnverifiedLeader(again, 1, rules([1, 2, 3])).to).toMatchObject({ unverified: [], lost: [] });
  });

  it("gives way to a member that comes back with its records", () => {
    const marked = partition({ leader: -1, isr: [1, 2], unverified: [1] });
    expect(withLeader(marked, rules([1, 2]))?.to).toMatchObject({ leader: 2, isr: [2], elr: [], unverified: [] });
  });

  it("does not give way to registrations that outlived their processes", () => {
    const ghosts: Partial<ElectionRules> = { isReached: (id) => id === 1 };
    const marked = back(partition({ leader: -1 }), 1, [1, 2, 3], ghosts)?.to as Partition;
    expect(marked).toMatchObject({ leader: -1, isr: [1, 2, 3], unverified: [1] });
    expect(withLeader(marked, rules([1, 2, 3], ghosts))).toBeUndefined();
    expect(withoutBrokers(marked, gone(2), rules([1, 3], ghosts))).toBeUndefined();
    expect(withLeader(marked, rules([1, 3]))?.to).toMatchObject({ leader: 3, isr: [3], elr: [2], unverified: [] });
  });

  it("keeps its seat beside a leader that has not answered since, and loses it when that one has", () => {
    const silent: Partial<ElectionRules> = { isReached: (id) => id === 3 };
    const marked = back(partition(), 3, [1, 3], silent)?.to as Partition;
    expect(marked).toMatchObject({ leader: 1, isr: [1, 2, 3], unverified: [3] });
    expect(withoutBrokers(marked, gone(3), rules([1, 3], silent))).toBeUndefined();
    expect(withStopping(marked, 3, rules([1, 3], silent))).toBeUndefined();
    expect(withoutUncertain(marked, rules([1, 3], silent))).toBeUndefined();
    expect(withoutUncertain(marked, rules([1, 3]))?.to).toMatchObject({ isr: [1], elr: [2], unverified: [] });
  });

  it("is remembered though it was only eligible, until somebody certain leads or all were asked", () => {
    const silent: Partial<ElectionRules> = { isReached: (id) => id === 3 };
    const marked = back(partition({ isr: [1], elr: [3] }), 3, [1, 3], silent)?.to as Partition;
    expect(marked).toMatchObject({ leader: 1, isr: [1], elr: [], unverified: [3] });
    expect(withoutUncertain(marked, rules([1, 3]))?.to).toMatchObject({ isr: [1], elr: [], unverified: [] });
    const offline = withRegistrations(marked, { gone: gone(1), cut: gone(1), lost: gone() }, rules([1, 3]))
      ?.to as Partition;
    expect(offline).toMatchObject({ leader: -1, isr: [1], unverified: [1, 3] });
    expect(unverifiedCandidates(offline)).toEqual([1, 3]);
    expect(withUnverifiedLeader(offline, 3, rules([1, 2, 3])).to).toMatchObject({
      leader: 3,
      isr: [3],
      unverified: [],
    });
  });

  it("is not elected in the very moment in which others are found gone", () => {
    const move = withRegistrations(partition(), { gone: gone(1, 3), cut: gone(2), lost: gone() }, rules([2]));
    expect(move?.to).toMatchObject({ leader: -1, isr: [1, 2, 3], unverified: [2] });
  });
});

describe("a stopping broker", () => {
  it("hands its leaderships over and leaves the ISR", () => {
    expect(withStopping(partition(), 1, rules([1, 2, 3]))?.to).toMatchObject({
      leader: 2,
      leaderEpoch: 6,
      isr: [2, 3],
    });
    expect(withStopping(partition(), 2, rules([1, 2, 3]))?.to).toMatchObject({
      leader: 1,
      leaderEpoch: 5,
      isr: [1, 3],
    });
  });

  it("keeps what nobody can take over, unclean elections or not", () => {
    const alone = partition({ isr: [1], elr: [2] });
    expect(withStopping(alone, 1, rules([1, 2, 3], { uncleanAllowed: true }))).toBeUndefined();
    expect(withStopping(partition({ leader: 2, isr: [2, 3] }), 1, rules([1, 2, 3]))).toBeUndefined();
  });

  it("keeps its seat while nobody leads: it may hold what no other member has", () => {
    const powerless = partition({ leader: -1, unverified: [2, 3] });
    expect(withStopping(powerless, 3, rules([2, 3]))).toBeUndefined();
    expect(withStopping(partition({ leader: -1, isr: [1, 3] }), 3, rules([3]))).toBeUndefined();
  });
});

describe("other moves", () => {
  it("give leadership back to the preferred replica only while it is in sync and reached", () => {
    const from = partition({ leader: 2 });
    expect(withPreferredLeader(from, rules([1, 2, 3]))?.to).toMatchObject({
      leader: 1,
      leaderEpoch: 6,
      isr: [1, 2, 3],
    });
    expect(withPreferredLeader(from, rules([2, 3]))).toBeUndefined();
    expect(withPreferredLeader({ ...from, isr: [2, 3] }, rules([1, 2, 3]))).toBeUndefined();
    expect(withPreferredLeader(partition(), rules([1, 2, 3]))).toBeUndefined();
  });

  it("remember who is eligible exactly while the ISR is too small", () => {
    expect(withIsr(partition(), [1], 2).to.elr).toEqual([2, 3]);
    expect(withIsr(partition({ isr: [1], elr: [2, 3] }), [1, 3], 2).to.elr).toEqual([]);
    const minimum = (minInsyncReplicas: number) => ({ minInsyncReplicas, isReached: (id: number) => id === 1 });
    expect(withMinInsyncReplicas(partition({ isr: [1], elr: [2] }), minimum(1))?.to.elr).toEqual([]);
    expect(withMinInsyncReplicas(partition({ isr: [1], elr: [2] }), minimum(2))).toBeUndefined();
    expect(withMinInsyncReplicas(partition({ isr: [1], elr: [2] }), minimum(3))?.to).toMatchObject({
      elr: [2],
      minInsyncReplicas: 3,
    });
    expect(withMinInsyncReplicas(partition(), minimum(1))?.to).toMatchObject({ elr: [], minInsyncReplicas: 1 });
    // Nobody leads, or a leader that has not answered: the eligible may be the only ones that have everything.
    expect(withMinInsyncReplicas(partition({ leader: -1, isr: [1], elr: [2] }), minimum(1))).toBeUndefined();
    expect(withMinInsyncReplicas(partition({ leader: 3, isr: [3], elr: [2] }), minimum(1))).toBeUndefined();
  });
});

describe("a smaller min.insync.replicas that waits for the leader's answer", () => {
  const waiting = { isr: [1], elr: [2], minInsyncReplicas: 2 };
  const smaller = rules([1, 2, 3], { minInsyncReplicas: 1 });

  it("comes with whatever ends the list of the eligible", () => {
    const offline = partition({ ...waiting, leader: -1 });
    const onlyThree = rules([3], { minInsyncReplicas: 1, uncleanAllowed: true });
    const moves = [
      withIsr(partition(waiting), [1, 3], 1),
      withLeader(offline, smaller),
      withLeader(offline, onlyThree),
      withUnverifiedLeader({ ...offline, unverified: [1, 2] }, 1, smaller),
      withStopping(partition({ ...waiting, isr: [1, 3] }), 3, smaller),
      withPreferredLeader(partition({ ...waiting, leader: 3, isr: [1, 3] }), smaller),
    ];
    for (const move of moves) expect(move?.to).toMatchObject({ elr: [], minInsyncReplicas: 1 });
  });

  it("is another state by itself, which the leader is told of", () => {
    expect(isSame(partition(), partition({ minInsyncReplicas: 1 }))).toBe(false);
  });
});

describe("the durability of a partition", () => {
  const under = (durability: Partition["durability"], setting: string) =>
    withSettings(partition({ durability }), { ...rules([1, 2, 3]), durability: setting })?.to.durability;

  it("grows by a confirmation only, and shrinks at once", () => {
    expect(under("page-cache", "fsync")).toBe("syncing");
    expect([under("syncing", "fsync"), under("fsync", "fsync"), under("page-cache", "page-cache")]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect([under("syncing", "page-cache"), under("fsync", "page-cache")]).toEqual(["page-cache", "page-cache"]);
    expect(withSynced(partition({ durability: "syncing" }))?.to.durability).toBe("fsync");
    expect(withSynced(partition({ durability: "syncing", isr: [1], elr: [2] }))).toBeUndefined();
    expect(withSynced(partition())).toBeUndefined();
  });

  it("is that of the settings from the start where there are no records yet", () => {
    expect(newPartition(0, [1, 2], rules([1, 2], { durability: "fsync" })).durability).toBe("fsync");
    expect(newPartition(0, [1, 2], rules([1, 2])).durability).toBe("page-cache");
  });
});

describe("electUnverified", () => {
  const report = (brokerId: number, lastEpochPlusOne: number, logEndOffset: number, cut = false) => ({
    brokerId,
    brokerEpoch: "7",
    lastEpochPlusOne,
    logEndOffset,
    cut,
  });

  it("takes the newest last epoch, then the longest log", () => {
    expect(electUnverified([report(1, 3, 100), report(2, 4, 50), report(3, 4, 60)])?.brokerId).toBe(3);
    expect(electUnverified([])).toBeUndefined();
  });

  it("prefers a log that was not cut only to one that holds as much", () => {
    expect(electUnverified([report(1, 4, 100, true), report(2, 4, 90)])?.brokerId).toBe(1);
    expect(electUnverified([report(1, 4, 100, true), report(2, 4, 100)])?.brokerId).toBe(2);
    expect(electUnverified([report(1, 5, 90, true), report(2, 4, 100)])?.brokerId).toBe(1);
  });
});

/**
 * Goal: no sequence of failures makes a leader, other than an admittedly unclean one, that lacks an acknowledged record.
 * Method: a model that knows nothing of elections, only how many records each replica's disk holds and how many were
 * acknowledged; random failures on it, with the moves under test deciding who leads.
 */
describe("any sequence of failures", () => {
  class World {
    state: Partition;
    readonly alive = new Set([1, 2, 3]);
    readonly held = new Map([1, 2, 3].map((id) => [id, 0]));
    acknowledged = 0;
    losses = 0;

    constructor(readonly minimum: number) {
      this.state = newPartition(0, [1, 2, 3], this.rules());
    }

    rules(): ElectionRules {
      return rules([...this.alive], { minInsyncReplicas: this.minimum });
    }

    apply(move: PartitionMove | undefined): void {
      if (move === undefined) return;
      const before = this.state;
      this.state = { ...move.to, partitionEpoch: before.partitionEpoch + 1 };
      const { leader, leaderEpoch, isr, elr } = this.state;
      expect(leaderEpoch - before.leaderEpoch).toBe(leader === before.leader ? 0 : 1);
      expect(isr.length).toBeGreaterThan(0);
      expect(elr.filter((id) => isr.includes(id))).toEqual([]);
      if (leader === -1 || leader === before.leader) return;
      expect(isr).toContain(leader);
      expect(this.alive).toContain(leader);
      const has = this.held.get(leader) ?? 0;
      if (has < this.acknowledged) {
        expect(move.ground).toBe("unclean");
        this.losses += 1;
        this.acknowledged = has;
      }
    }

    get leads(): boolean {
      return this.state.leader !== -1;
    }

    step([kind, id, amount]: Step): void {
      const { state, alive, held } = this;
      const leaderHas = held.get(state.leader) ?? 0;
      switch (kind) {
        case "append":
          if (this.leads) held.set(state.leader, leaderHas + amount);
          break;
        case "fetch":
          if (this.leads && alive.has(id)) held.set(id, leaderHas);
          break;
        case "acknowledge":
          // What the leader does: everything below the least of the ISR, while the ISR is large enough.
          if (this.leads && state.isr.length >= this.minimum) {
            this.acknowledged = Math.max(this.acknowledged, Math.min(...state.isr.map((one) => held.get(one) ?? 0)));
          }
          break;
        case "join":
          if (this.leads && alive.has(id) && !state.isr.includes(id) && held.get(id) === leaderHas) {
            this.apply(withIsr(state, [...state.isr, id], this.minimum));
          }
          break;
        case "leave":
          if (this.leads && id !== state.leader && state.isr.includes(id)) {
            this.apply(
              withIsr(
                state,
                state.isr.filter((one) => one !== id),
                this.minimum,
              ),
            );
          }
          break;
        case "stop":
          if (alive.has(id)) this.apply(withStopping(state, id, this.rules()));
          break;
        case "crash":
          this.#die([id]);
          break;
        case "crash two":
          this.#die([id, (id % 3) + 1]);
          break;
        case "return":
          alive.add(id);
          this.apply(withLeader(this.state, this.rules()));
          break;
        case "return after a power cut":
          if (alive.has(id)) break;
          held.set(id, Math.max(0, (held.get(id) ?? 0) - amount));
          alive.add(id);
          this.apply(withRegistrations(state, { gone: gone(), cut: gone(id), lost: gone() }, this.rules()));
          this.apply(withLeader(this.state, this.rules()));
          break;
        case "bounce":
          if (!alive.has(id)) break;
          this.apply(withoutBrokers(state, gone(id), this.rules()));
          this.apply(withLeader(this.state, this.rules()));
          break;
        case "ask":
          if (!this.leads && state.unverified.length > 0 && state.isr.every((one) => alive.has(one))) {
            const longest = [...state.isr].sort((left, right) => (held.get(right) ?? 0) - (held.get(left) ?? 0))[0];
            this.apply(withUnverifiedLeader(state, longest as number, this.rules()));
          }
          break;
        case "prefer":
          this.apply(withPreferredLeader(state, this.rules()));
          break;
      }
    }

    #die(ids: readonly number[]): void {
      for (const id of ids) this.alive.delete(id);
      this.apply(withoutBrokers(this.state, new Set(ids), this.rules()));
    }
  }

  const kinds = [
    "append",
    "fetch",
    "acknowledge",
    "join",
    "leave",
    "stop",
    "crash",
    "crash two",
    "return",
    "bounce",
    "prefer",
  ] as const;
  const powerKinds = ["return after a power cut", "ask"] as const;
  type Step = readonly [(typeof kinds)[number] | (typeof powerKinds)[number], number, number];
  const steps = (names: readonly Step[0][]): fc.Arbitrary<Step[]> =>
    fc.array(fc.tuple(fc.constantFrom(...names), fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })), {
      maxLength: 60,
      size: "max",
    });

  it("keeps every acknowledged record, as long as disks keep theirs", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), steps(kinds), (minimum, sequence) => {
        const world = new World(minimum);
        for (const step of sequence) world.step(step);
        expect(world.losses).toBe(0);
      }),
      { numRuns: 1500 },
    );
  });

  it("loses records to power cuts only in elections that say so", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 3 }), steps([...kinds, ...powerKinds]), (minimum, sequence) => {
        const world = new World(minimum);
        for (const step of sequence) world.step(step);
      }),
      { numRuns: 1500 },
    );
  });
});
