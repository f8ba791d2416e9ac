import type { ClusterImage, ReplicaImage, Violation } from "./history.js";
import {
  brokenPromises,
  controllerEpochSteps,
  ghostAcknowledgements,
  History,
  lostAcknowledgements,
  replicaDifferences,
  unconverged,
} from "./history.js";

/** A history written by hand, a step a millisecond, about partition `t:0` unless said otherwise. */
class Story {
  #nowMs = 0;
  readonly history = new History(() => this.#nowMs);
  readonly #operations = new Map<string, ReturnType<History["invoke"]>>();

  invoke(value: string, options: Partial<ReturnType<History["invoke"]>> = {}): this {
    this.#nowMs += 1;
    const { leaderEpoch, ...rest } = options;
    const operation = this.history.invoke({
      producer: "p",
      partition: "t:0",
      values: [value],
      acks: "all",
      idempotent: true,
      ...rest,
    });
    operation.leaderEpoch = leaderEpoch;
    this.#operations.set(value, operation);
    return this;
  }

  ok(value: string, baseOffset: number, brokerId = 1): this {
    this.#nowMs += 1;
    this.history.ok(this.#operation(value), { baseOffset, brokerId });
    return this;
  }

  fail(value: string): this {
    this.history.fail(this.#operation(value), "refused");
    return this;
  }

  info(value: string): this {
    this.history.info(this.#operation(value), "timed out");
    return this;
  }

  /** Handed over and acknowledged. */
  write(value: string, baseOffset: number, options: Parameters<Story["invoke"]>[1] = {}, brokerId = 1): this {
    return this.invoke(value, options).ok(value, baseOffset, brokerId);
  }

  deliver(offset: number, value: string, partition = "t:0"): this {
    this.#nowMs += 1;
    this.history.deliver({ consumer: "c", partition, offset, value });
    return this;
  }

  wait(durationMs: number): this {
    this.#nowMs += durationMs;
    return this;
  }

  /** The log at the end: one value an offset, `undefined` where there is none. */
  end(
    values: readonly (string | undefined)[],
    options: { from?: number; partition?: string; epochs?: number[] } = {},
  ): this {
    const { from = 0, partition = "t:0", epochs = [] } = options;
    this.history.finalRead({
      via: "broker 1",
      partition,
      logStartOffset: from,
      highWatermark: from + values.length,
      records: values.flatMap((value, index) =>
        value === undefined ? [] : [{ offset: from + index, value, leaderEpoch: epochs[index] ?? 0 }],
      ),
    });
    return this;
  }

  #operation(value: string): ReturnType<History["invoke"]> {
    const operation = this.#operations.get(value);
    if (operation === undefined) throw new Error(`${value} was not handed over`);
    return operation;
  }
}

const ids = (violations: readonly Violation[]): string[] => [...new Set(violations.map(({ id }) => id))].sort();
const broken = (story: Story): string[] => ids(brokenPromises(story.history, 10));

describe("checkers of histories", () => {
  it("find nothing in a history where everything went well", () => {
    const story = new Story().write("a", 0).write("b", 1).invoke("c").info("c").invoke("d").fail("d");
    expect(broken(story.deliver(0, "a").deliver(1, "b").end(["a", "b", "c"]))).toEqual([]);
    expect(story.history.counts()).toEqual({ ok: 2, fail: 1, info: 1, delivered: 2 });
  });

  it("find an acknowledged record that is missing", () => {
    expect(broken(new Story().write("a", 0).write("b", 1).end(["a"]))).toEqual(["L1"]);
  });

  it("find an acknowledged record at another offset than was told", () => {
    expect(broken(new Story().write("a", 0).invoke("x").info("x").end(["x", "a"]))).toContain("L1");
  });

  it("find an acknowledgement without an offset, though the record is there or deleted", () => {
    expect(broken(new Story().write("a", -1).end(["a"]))).toContain("L1");
    expect(broken(new Story().write("a", -1).write("b", 1).end(["b"], { from: 1 }))).toContain("L1");
  });

  it("excuse an acknowledged record below the log start", () => {
    expect(broken(new Story().write("a", 0).write("b", 1).end(["b"], { from: 1 }))).toEqual([]);
  });

  it("excuse a lost record that only the leader had acknowledged", () => {
    expect(broken(new Story().write("a", 0, { acks: "leader", idempotent: false }).end([]))).toEqual([]);
  });

  it("see the loss whichever broker is asked", () => {
    const story = new Story().write("a", 0).end(["a"]);
    expect(lostAcknowledgements(story.history)).toEqual([]);
    expect(ids(lostAcknowledgements(story.end([]).history))).toEqual(["L1"]);
  });

  it("find a refused record that was read", () => {
    expect(broken(new Story().invoke("a").fail("a").end(["a"]))).toEqual(["L2"]);
  });

  it("find a record that nobody wrote", () => {
    expect(broken(new Story().write("a", 0).end(["a", "z"]))).toEqual(["L3"]);
  });

  it("find two values at one offset", () => {
    const story = new Story().write("a", 0).invoke("b").info("b").deliver(0, "b").end(["a"]);
    expect(broken(story)).toEqual(["L10", "L4"]);
  });

  it("find what an idempotent producer wrote twice, and excuse another one", () => {
    expect(broken(new Story().write("a", 0).end(["a", "a"]))).toEqual(["L5"]);
    expect(broken(new Story().write("a", 0, { idempotent: false }).end(["a", "a"]))).toEqual([]);
  });

  it("find records of one producer out of order", () => {
    const story = new Story().invoke("a").invoke("b").ok("b", 0).ok("a", 1);
    expect(broken(story.end(["b", "a"]))).toEqual(["L6"]);
  });

  it("find a later record in front of one that was acknowledged before", () => {
    const story = new Story().write("a", 1, { producer: "p" }).write("b", 0, { producer: "q" });
    expect(broken(story.end(["b", "a"]))).toEqual(["L7"]);
  });

  it("excuse any order of records that were under way at the same time", () => {
    const story = new Story().invoke("a", { producer: "p" }).invoke("b", { producer: "q" }).ok("a", 1).ok("b", 0);
    expect(broken(story.end(["b", "a"]))).toEqual([]);
  });

  it("find a consumer that goes back", () => {
    const story = new Story().write("a", 0).write("b", 1).deliver(0, "a").deliver(1, "b").deliver(0, "a");
    expect(broken(story.end(["a", "b"]))).toEqual(["L8"]);
  });

  it("find a consumer that passes over a record, and excuse one that was told", () => {
    const story = (): Story => new Story().write("a", 0).write("b", 1).write("c", 2).deliver(0, "a");
    expect(broken(story().deliver(2, "c").end(["a", "b", "c"]))).toEqual(["L9"]);
    const told = story();
    told.history.moved({ consumer: "c", partition: "t:0" });
    expect(broken(told.deliver(2, "c").end(["a", "b", "c"]))).toEqual([]);
  });

  it("find a delivered record that is gone at the end", () => {
    const story = new Story().write("a", 0).invoke("b").info("b").deliver(0, "a").deliver(1, "b");
    expect(broken(story.end(["a"]))).toEqual(["L10"]);
  });

  it("find two brokers that acknowledge in one epoch", () => {
    const story = new Story().write("a", 0, { leaderEpoch: 3 }, 1).write("b", 1, { leaderEpoch: 3 }, 2);
    expect(broken(story.end(["a", "b"]))).toEqual(["L12"]);
  });

  it("find epochs that fall along a log", () => {
    expect(
      broken(
        new Story()
          .write("a", 0)
          .write("b", 1)
          .end(["a", "b"], { epochs: [2, 1] }),
      ),
    ).toEqual(["L13"]);
  });

  it("find a record of a topic's former incarnation", () => {
    const story = new Story().write("a", 0, { partition: "old:0" }).deliver(0, "a", "new:0");
    expect(broken(story)).toEqual(["L18"]);
  });

  it("find a log that begins earlier than before", () => {
    const story = new Story().write("a", 0).write("b", 1).end(["b"], { from: 1 }).end(["a", "b"]);
    expect(broken(story)).toContain("L20");
  });

  it("find what a replaced leader acknowledged in vain, after the time in which it may not know", () => {
    const story = (waitMs: number): Story =>
      new Story()
        .write("new", 0, { leaderEpoch: 2 }, 2)
        .wait(waitMs)
        .write("ghost", 0, { leaderEpoch: 1, acks: "leader", idempotent: false }, 1)
        .end(["new"]);
    expect(ids(ghostAcknowledgements(story(5).history, 10))).toEqual([]);
    expect(ids(ghostAcknowledgements(story(15).history, 10))).toEqual(["L21"]);
  });

  it("find a controller epoch that does not grow", () => {
    const { history } = new Story();
    history.controllerEpochs.push(1, 2, 4);
    expect(controllerEpochSteps(history)).toEqual([]);
    history.controllerEpochs.push(4);
    expect(ids(controllerEpochSteps(history))).toEqual(["C1"]);
  });
});

describe("comparison of replicas", () => {
  const image = (brokerId: number, highWatermark: number, ...crcs: number[]): ReplicaImage => ({
    brokerId,
    partition: "t:0",
    logStartOffset: 0,
    highWatermark,
    batches: crcs.map((crc, baseOffset) => ({ baseOffset, leaderEpoch: 0, crc })),
  });

  it("finds nothing when they are equal below the lower high watermark", () => {
    expect(replicaDifferences([image(1, 2, 7, 8, 9), image(2, 3, 7, 8, 5)])).toEqual([]);
  });

  it("finds a batch that differs, and one that is missing", () => {
    expect(ids(replicaDifferences([image(1, 2, 7, 8), image(2, 2, 7, 5)]))).toEqual(["L16"]);
    expect(ids(replicaDifferences([image(1, 2, 7, 8), image(2, 2, 7)]))).toEqual(["L16"]);
  });
});

describe("comparison of what brokers say", () => {
  const says = (of: string, leaderId: number, isr: number[], leaderEpoch = 1): ClusterImage => ({
    of,
    partitions: new Map([["t:0", { leaderId, leaderEpoch, isr }]]),
  });
  const expected = {
    liveBrokers: new Set([1, 2, 3]),
    replicas: new Map([["t:0", [1, 2, 3]]]),
    minInsyncReplicas: 2,
  };

  it("finds nothing when they agree and all that live are in sync", () => {
    expect(unconverged([says("ZooKeeper", 1, [1, 2, 3]), says("broker 1", 1, [3, 2, 1])], expected)).toEqual([]);
  });

  it("finds a broker that disagrees, a dead leader, and a live replica out of sync", () => {
    expect(unconverged([says("ZooKeeper", 1, [1, 2, 3]), says("broker 1", 1, [1, 2, 3], 2)], expected)).toHaveLength(1);
    expect(unconverged([says("ZooKeeper", 4, [1, 2, 3])], expected)).toHaveLength(1);
    expect(unconverged([says("ZooKeeper", 1, [1, 2])], expected)).toHaveLength(1);
    expect(unconverged([{ of: "ZooKeeper", partitions: new Map() }], expected)).toHaveLength(1);
  });
});
