import fc from "fast-check";
import type { IsrState } from "../../../../broker/partition/isr.js";
import {
  laggingMembers,
  maximalIsr,
  mayJoin,
  nextHighWatermark,
  replicatedLogStart,
} from "../../../../broker/partition/isr.js";
import { toOffset } from "../../../../protocol/types.js";

const brokerIds = fc.uniqueArray(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 });
const offset = fc.integer({ min: 0, max: 30 });

const situation = fc.record({
  current: offset,
  isr: brokerIds,
  proposed: fc.option(brokerIds, { nil: undefined }),
  minInsyncReplicas: fc.integer({ min: 1, max: 4 }),
  durability: fc.constantFrom("page-cache" as const, "fsync" as const),
  written: fc.dictionary(fc.constantFrom("1", "2", "3", "4", "5", "6"), offset),
  flushLag: fc.integer({ min: 0, max: 5 }),
});

/** The same question answered the slow way: try every candidate from the top and ask whether all who count have it. */
function modelHighWatermark(input: {
  current: number;
  isr: number[];
  proposed: number[] | undefined;
  minInsyncReplicas: number;
  durability: string;
  written: Record<string, number>;
  flushLag: number;
}): number {
  if (input.isr.length < input.minInsyncReplicas) return input.current;
  const counting = [...input.isr, ...(input.proposed ?? [])];
  for (let candidate = 40; candidate > input.current; candidate -= 1) {
    const everyoneHasIt = counting.every((id) => {
      const end = input.written[String(id)];
      if (end === undefined) return false;
      return (input.durability === "fsync" ? Math.max(0, end - input.flushLag) : end) >= candidate;
    });
    if (everyoneHasIt) return candidate;
  }
  return input.current;
}

describe("nextHighWatermark", () => {
  it("is the greatest offset that everyone who counts has, and never goes back", () => {
    fc.assert(
      fc.property(situation, (input) => {
        const state: IsrState =
          input.proposed === undefined
            ? { kind: "committed", isr: new Set(input.isr) }
            : { kind: "pending", isr: new Set(input.isr), proposed: new Set(input.proposed) };
        const next = nextHighWatermark({
          current: toOffset(input.current),
          state,
          minInsyncReplicas: input.minInsyncReplicas,
          durability: input.durability,
          positionOf: (id) => {
            const end = input.written[String(id)];
            return end === undefined
              ? undefined
              : { logEndOffset: toOffset(end), flushedOffset: toOffset(Math.max(0, end - input.flushLag)) };
          },
        });
        expect(next).toBe(modelHighWatermark(input));
      }),
      { numRuns: 5000 },
    );
  });
});

describe("in-sync replicas", () => {
  it("counts a replica that is asked to join and one that is asked to leave", () => {
    expect(maximalIsr({ kind: "pending", isr: new Set([1, 2]), proposed: new Set([1, 3]) })).toEqual(
      new Set([1, 2, 3]),
    );
  });

  it("lets nobody join below the high watermark, below the start of the leader's epoch, or with what is deleted", () => {
    const at = (end: number, start = 3): Parameters<typeof mayJoin>[0] => ({
      logEndOffset: toOffset(end),
      flushedOffset: toOffset(start),
      durableLogStart: toOffset(start),
    });
    const leader = {
      logStartOffset: toOffset(3),
      highWatermark: toOffset(5),
      epochStart: toOffset(8),
      durability: "page-cache" as const,
    };
    expect([4, 5, 7, 8].map((end) => mayJoin(at(end), leader))).toEqual([false, false, false, true]);
    expect([2, 3, 4].map((start) => mayJoin(at(8, start), leader))).toEqual([false, true, true]);
    expect(mayJoin(at(100), { ...leader, durability: "fsync" })).toBe(false);
  });

  it("count as having deleted what every one of them has that may be elected, and with too few of them nothing", () => {
    const starts = new Map([
      [1, 9],
      [2, 7],
      [3, 5],
    ]);
    const durableLogStartOf = (id: number): ReturnType<typeof toOffset> | undefined => {
      const start = starts.get(id);
      return start === undefined ? undefined : toOffset(start);
    };
    const committed = (...isr: number[]): IsrState => ({ kind: "committed", isr: new Set(isr) });
    const of = (state: IsrState): number | undefined =>
      replicatedLogStart({ state, minInsyncReplicas: 2, durableLogStartOf });
    expect(of(committed(1, 2))).toBe(7);
    expect(of({ kind: "pending", isr: new Set([1, 2]), proposed: new Set([1, 2, 3]) })).toBe(5);
    expect(of({ kind: "pending", isr: new Set([1, 2, 3]), proposed: new Set([1, 2]) })).toBe(5);
    expect(of(committed(1))).toBeUndefined();
    expect(of(committed(1, 4))).toBeUndefined();
  });

  it("accuses nobody of silence while the judge itself did not run", () => {
    const input = {
      isr: new Set([1, 2, 3]),
      self: 1,
      nowMs: 100_000,
      lagMaxMs: 30_000,
      caughtUpMs: (id: number) => (id === 2 ? 60_000 : 95_000),
    };
    expect(laggingMembers({ ...input, judgeAwakeSinceMs: 0 })).toEqual([2]);
    expect(laggingMembers({ ...input, judgeAwakeSinceMs: 99_000 })).toEqual([]);
  });
});
