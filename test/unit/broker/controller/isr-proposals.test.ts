import type { Broker, Partition, Topic } from "../../../../broker/controller/cluster-state.js";
import { ClusterState } from "../../../../broker/controller/cluster-state.js";
import { judgeProposal } from "../../../../broker/controller/isr-proposals.js";
import { errorNameOf } from "../../../../protocol/error-codes.js";
import type { IsrProposal } from "../../../../protocol/messages.js";

const partition: Partition = {
  partition: 0,
  replicas: [3, 1, 2],
  leader: 1,
  leaderEpoch: 5,
  partitionEpoch: 9,
  isr: [1, 2],
  elr: [],
  unverified: [],
  minInsyncReplicas: 2,
  lost: [],
  brokerEpochs: new Map(),
  durability: "page-cache",
};
const topic: Topic = {
  name: "letters",
  topicId: "t",
  version: 0,
  config: new Map(),
  partitionCount: 1,
  growsFrom: 0,
  partitions: new Map([[0, partition]]),
};

function judged(
  change: Partial<IsrProposal>,
  options: {
    brokerId?: number;
    mayJoin?: boolean;
    notElectable?: number;
    partition?: Partition;
    see?: Exclude<keyof Partition, "brokerEpochs">;
  } = {},
): string | number | readonly number[] {
  const state = new ClusterState();
  for (const id of [1, 2, 3]) {
    const broker: Broker = {
      id,
      epoch: `10${id}`,
      version: 0,
      incarnation: "",
      lastStop: "clean",
      rack: undefined,
      endpoints: [],
    };
    state.brokers.set(id, broker);
  }
  const proposal: IsrProposal = {
    topicId: "t",
    partition: 0,
    leaderEpoch: 5,
    partitionEpoch: 9,
    isr: members(1, 2, 3),
    damaged: [],
    synced: false,
    ...change,
  };
  const verdict = judgeProposal(proposal, {
    state,
    brokerId: options.brokerId ?? 1,
    topic,
    partition: options.partition ?? partition,
    rules: {
      isElectable: (id) => id !== options.notElectable,
      isReached: () => true,
      isAwaited: () => false,
      isAlive: () => true,
      minInsyncReplicas: 2,
      durability: "fsync",
      uncleanAllowed: true,
    },
    mayJoin: () => options.mayJoin ?? true,
  });
  if (verdict.kind === "refused") return errorNameOf(verdict.error.code);
  return verdict.kind === "accepted" ? verdict.to[options.see ?? "isr"] : verdict.kind;
}

const members = (...ids: number[]) => ids.map((brokerId) => ({ brokerId, brokerEpoch: `10${brokerId}` }));

describe("judgeProposal", () => {
  it("accepts who caught up, in the order of the assignment", () => {
    expect(judged({})).toEqual([3, 1, 2]);
    expect(judged({ isr: members(1) })).toEqual([1]);
  });

  it("answers what is committed already with success, whatever the proposal was built on", () => {
    expect(judged({ isr: members(2, 1), partitionEpoch: 8 })).toBe("unchanged");
  });

  it("refuses a proposal that builds on another state", () => {
    expect(judged({ partitionEpoch: 8 })).toBe("INVALID_UPDATE_VERSION");
    expect(judged({ partitionEpoch: 10 })).toBe("INVALID_UPDATE_VERSION");
  });

  it("believes that records are synced when it asked, in the state that it asked in, and while nobody else is eligible", () => {
    const syncing: Partition = { ...partition, durability: "syncing" };
    const confirmed = { isr: members(1, 2), synced: true };
    expect(judged(confirmed, { partition: syncing, see: "durability" })).toBe("fsync");
    expect(judged({ ...confirmed, partitionEpoch: 8 }, { partition: syncing })).toBe("unchanged");
    expect(judged(confirmed, { partition: { ...syncing, elr: [3] } })).toBe("INVALID_REQUEST");
    expect(judged(confirmed)).toBe("INVALID_REQUEST");
    expect(judged({ ...confirmed, leaderEpoch: 4 }, { partition: syncing })).toBe("FENCED_LEADER_EPOCH");
  });

  it("fences a former leader, and a broker that never led", () => {
    expect(judged({ leaderEpoch: 4 })).toBe("FENCED_LEADER_EPOCH");
    expect(judged({ leaderEpoch: 4, isr: members(1, 2) })).toBe("FENCED_LEADER_EPOCH");
    expect(judged({}, { brokerId: 2 })).toBe("FENCED_LEADER_EPOCH");
  });

  it("admits that a newer leader epoch means a newer controller", () => {
    expect(judged({ leaderEpoch: 6 })).toBe("NOT_CONTROLLER");
  });

  it("refuses a member that registered again since it caught up, newcomer or not", () => {
    expect(judged({ isr: [...members(1, 2), { brokerId: 3, brokerEpoch: "99" }] })).toBe("INELIGIBLE_REPLICA");
    expect(judged({ isr: [...members(1, 3), { brokerId: 2, brokerEpoch: "99" }] })).toBe("INELIGIBLE_REPLICA");
  });

  it("refuses a joiner that is stopping or suspected, but not a member that was in sync before", () => {
    expect(judged({}, { mayJoin: false })).toBe("INELIGIBLE_REPLICA");
    expect(judged({ isr: members(1) }, { mayJoin: false })).toEqual([1]);
  });

  it("elects one of those that a leader leaves behind, in the next epoch", () => {
    expect(judged({ isr: members(2) })).toEqual([2]);
    expect(judged({ isr: members(2) }, { see: "leader" })).toBe(2);
    expect(judged({ isr: members(2) }, { see: "leaderEpoch" })).toBe(6);
    // It has every committed record, unless it says that it lost some.
    expect(judged({ isr: members(2) }, { see: "elr" })).toEqual([1]);
    expect(judged({ isr: members(2), damaged: [1] }, { see: "elr" })).toEqual([]);
  });

  it("keeps a leader that wants to leave when nobody else may lead, unclean or not", () => {
    expect(judged({ isr: members(2) }, { notElectable: 2 })).toBe("INELIGIBLE_REPLICA");
  });

  it("takes an eligible replica that has lost records off the list, though the ISR stays", () => {
    const small: Partition = { ...partition, isr: [1], elr: [2, 3] };
    expect(judged({ isr: members(1), damaged: [3] }, { partition: small, see: "elr" })).toEqual([2]);
    expect(judged({ isr: members(1) }, { partition: small })).toBe("renewed");
  });

  it("refuses what no leader of ours would send", () => {
    expect(judged({ isr: members(1, 1) })).toBe("INVALID_REQUEST");
    expect(judged({ isr: [] })).toBe("INVALID_REQUEST");
    expect(judged({ isr: [...members(1), { brokerId: 7, brokerEpoch: "1" }] })).toBe("INVALID_REQUEST");
  });
});
