import type { TopicLimits } from "../../../../broker/controller/topic-rules.js";
import {
  TopicNames,
  assignMorePartitions,
  assignNewTopic,
  checkTopicName,
} from "../../../../broker/controller/topic-rules.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import type { NewTopic } from "../../../../protocol/messages.js";

const limits = (change: Partial<TopicLimits> = {}): TopicLimits => ({
  brokers: [1, 2, 3].map((id) => ({ id, rack: undefined })),
  partitionCount: 0,
  partitionsMax: 10_000,
  numPartitions: 4,
  defaultReplicationFactor: 0,
  randomBelow: () => 0,
  ...change,
});
const wanted = (change: Partial<NewTopic> = {}): NewTopic => ({
  name: "letters",
  partitions: 0,
  replicationFactor: 0,
  config: [],
  assignment: [],
  ...change,
});
const lists = (...replicas: number[][]) => replicas.map((brokerIds) => ({ brokerIds }));

function refusal(check: () => unknown): string {
  try {
    check();
  } catch (error) {
    if (error instanceof ApiError) return error.errorName;
    throw error;
  }
  return "none";
}

describe("checkTopicName", () => {
  it.each(["a", "A.b_c-9", "x".repeat(249)])("accepts %s", (name) => {
    expect(refusal(() => checkTopicName(name, new TopicNames([])))).toBe("none");
  });

  it.each(["", ".", "..", "x".repeat(250), "a b", "a/b", "ä", "a\n", "a:b"])("refuses %j", (name) => {
    expect(refusal(() => checkTopicName(name, new TopicNames([])))).toBe("INVALID_TOPIC");
  });

  it("refuses a name that differs from another one only in . and _", () => {
    expect(refusal(() => checkTopicName("a.b", new TopicNames(["a_b"])))).toBe("INVALID_TOPIC");
    expect(refusal(() => checkTopicName("a.b", new TopicNames(["a-b", "ab"])))).toBe("none");
  });
});

describe("a new topic", () => {
  it("gets the cluster's defaults: three replicas, or as many as there are brokers", () => {
    const assignment = assignNewTopic(wanted(), limits());
    expect(assignment.map((replicas) => replicas.length)).toEqual([3, 3, 3, 3]);
    const alone = limits({ brokers: [{ id: 7, rack: undefined }] });
    expect(assignNewTopic(wanted(), alone)).toEqual([[7], [7], [7], [7]]);
  });

  it("cannot have more replicas than there are brokers, nor any without a broker", () => {
    expect(refusal(() => assignNewTopic(wanted({ replicationFactor: 4 }), limits()))).toBe(
      "INVALID_REPLICATION_FACTOR",
    );
    expect(refusal(() => assignNewTopic(wanted(), limits({ brokers: [] })))).toBe("INVALID_REPLICATION_FACTOR");
  });

  it("cannot exceed the partitions of the cluster", () => {
    const nearlyFull = limits({ partitionCount: 9_999 });
    expect(refusal(() => assignNewTopic(wanted({ partitions: 1 }), nearlyFull))).toBe("none");
    expect(refusal(() => assignNewTopic(wanted({ partitions: 2 }), nearlyFull))).toBe("INVALID_PARTITIONS");
    expect(refusal(() => assignNewTopic(wanted({ assignment: lists([1], [2]) }), nearlyFull))).toBe(
      "INVALID_PARTITIONS",
    );
  });

  it("takes a manual assignment as it is, if it makes sense", () => {
    expect(assignNewTopic(wanted({ assignment: lists([3, 1], [2, 3]) }), limits())).toEqual([
      [3, 1],
      [2, 3],
    ]);
    for (const wrong of [lists([1], [2, 3]), lists([1, 1]), lists([9]), lists([])]) {
      expect(refusal(() => assignNewTopic(wanted({ assignment: wrong }), limits()))).toBe("INVALID_REPLICA_ASSIGNMENT");
    }
    const counts = [1, 2, 5].map((partitions) =>
      refusal(() => assignNewTopic(wanted({ partitions, assignment: lists([3], [2]) }), limits())),
    );
    expect(counts).toEqual(["INVALID_REPLICA_ASSIGNMENT", "none", "INVALID_REPLICA_ASSIGNMENT"]);
  });
});

describe("more partitions", () => {
  const more = (total: number, assignment: number[][] = [], change: Partial<TopicLimits> = {}): unknown =>
    assignMorePartitions("letters", { partitions: 2, replicationFactor: 2 }, total, assignment, limits(change));

  it("are the added ones, with as many replicas as the others", () => {
    expect((more(5) as number[][]).map((replicas) => replicas.length)).toEqual([2, 2, 2]);
    expect(more(3, [[2, 1]])).toEqual([[2, 1]]);
  });

  it("are refused when they are not more, too many, or not as many as were assigned by hand", () => {
    expect(refusal(() => more(2))).toBe("INVALID_PARTITIONS");
    expect(refusal(() => more(1))).toBe("INVALID_PARTITIONS");
    expect(refusal(() => more(5, [], { partitionCount: 9_998 }))).toBe("INVALID_PARTITIONS");
    expect(refusal(() => more(4, [[1, 2]]))).toBe("INVALID_REPLICA_ASSIGNMENT");
    expect(refusal(() => more(3, [], { brokers: [{ id: 1, rack: undefined }] }))).toBe("INVALID_REPLICATION_FACTOR");
  });
});
