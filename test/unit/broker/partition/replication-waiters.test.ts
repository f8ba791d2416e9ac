import { DeadlineWheel } from "../../../../broker/partition/deadline-wheel.js";
import { ReplicationWaiters } from "../../../../broker/partition/replication-waiters.js";
import { errorReport } from "../../../../protocol/error-codes.js";
import { toOffset } from "../../../../protocol/types.js";
import { ManualTime } from "../../../support/manual-time.js";

describe("ReplicationWaiters", () => {
  const setUp = (): {
    time: ManualTime;
    waiters: ReplicationWaiters;
    outcomes: string[];
    add: (name: string, end: number, timeoutMs?: number) => void;
  } => {
    const time = new ManualTime();
    const waiters = new ReplicationWaiters(new DeadlineWheel(time, time), 1);
    const outcomes: string[] = [];
    const add = (name: string, end: number, timeoutMs = 1000): void =>
      waiters.add(
        toOffset(end),
        timeoutMs,
        () => errorReport("REQUEST_TIMED_OUT"),
        (refusal) => outcomes.push(`${name}:${refusal === undefined ? "ok" : refusal.code}`),
      );
    return { time, waiters, outcomes, add };
  };

  it("completes in the order of offsets, a duplicate of an early batch included", () => {
    const { waiters, outcomes, add } = setUp();
    add("a", 10);
    add("b", 20);
    add("duplicate of a", 10);
    waiters.reached(toOffset(9));
    expect(outcomes).toEqual([]);
    waiters.reached(toOffset(10));
    expect(outcomes).toEqual(["a:ok", "duplicate of a:ok"]);
    waiters.reached(toOffset(25));
    expect(outcomes).toEqual(["a:ok", "duplicate of a:ok", "b:ok"]);
  });

  it("times out once, not before its time, and is not completed again", () => {
    const { time, waiters, outcomes, add } = setUp();
    add("slow", 10, 500);
    time.advance(499);
    expect(outcomes).toEqual([]);
    time.advance(30);
    expect(outcomes).toEqual(["slow:7"]);
    waiters.reached(toOffset(10));
    waiters.failAll(errorReport("NOT_LEADER_OR_FOLLOWER"));
    expect(outcomes).toEqual(["slow:7"]);
  });

  it("fails everything when the leader epoch ends, because the offsets may be given to other records", () => {
    const { time, waiters, outcomes, add } = setUp();
    add("a", 10);
    add("b", 20);
    waiters.failAll(errorReport("NOT_LEADER_OR_FOLLOWER"));
    time.advance(10_000);
    expect(outcomes).toEqual(["a:6", "b:6"]);
    expect(waiters.size).toBe(0);
  });
});

describe("DeadlineWheel", () => {
  it("expires deadlines in their order on one timer, however many there are", () => {
    const time = new ManualTime();
    const wheel = new DeadlineWheel(time, time);
    const expired: number[] = [];
    for (const delayMs of [300, 50, 200, 50]) wheel.after(delayMs, () => expired.push(delayMs));
    wheel.after(100, () => expired.push(-1)).cancel();
    expect(time.pendingTimers).toBe(1);
    time.advance(60);
    expect(expired).toEqual([50, 50]);
    time.advance(1000);
    expect(expired).toEqual([50, 50, 200, 300]);
    expect(time.pendingTimers).toBe(0);
  });
});
