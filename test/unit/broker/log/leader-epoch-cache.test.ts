import fc from "fast-check";
import { LeaderEpochCache } from "../../../../broker/log/content/leader-epoch-cache.js";
import { offset } from "./log-fixtures.js";

describe("LeaderEpochCache", () => {
  it("answers as the list of all records' epochs would", () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant("append" as const),
        newer: fc.integer({ min: 0, max: 3 }),
        count: fc.integer({ min: 0, max: 4 }),
      }),
      fc.record({ kind: fc.constant("cutEnd" as const), at: fc.nat(20) }),
      fc.record({ kind: fc.constant("cutStart" as const), at: fc.nat(20) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        const cache = new LeaderEpochCache();
        // The epoch of each offset from `start` on.
        let start = 0;
        let epochs: number[] = [];
        let latest = 0;
        for (const each of steps) {
          if (each.kind === "append") {
            latest += each.newer;
            if (each.count > 0) cache.assign(latest, offset(start + epochs.length));
            epochs.push(...Array<number>(each.count).fill(latest));
          } else if (each.kind === "cutEnd") {
            const at = Math.min(each.at, epochs.length);
            cache.cutEnd(offset(start + at));
            epochs = epochs.slice(0, at);
          } else {
            const at = Math.min(each.at, Math.max(0, epochs.length - 1));
            cache.cutStart(offset(start + at));
            epochs = epochs.slice(at);
            start += at;
          }
          for (let asked = 0; asked <= latest + 1; asked += 1) {
            const known = epochs.filter((epoch) => epoch <= asked);
            const expected = known.length === 0 ? undefined : { epoch: known.at(-1), endOffset: start + known.length };
            expect(cache.endOffsetFor(asked, offset(start + epochs.length))).toEqual(expected);
          }
          expect(LeaderEpochCache.fromLines(cache.toLines())?.entries).toEqual(cache.entries);
        }
      }),
    );
  });

  it("forgets an epoch that had no record when the next one begins at the same offset", () => {
    const cache = new LeaderEpochCache();
    cache.assign(1, offset(0));
    cache.assign(2, offset(5));
    cache.assign(3, offset(5));
    expect(cache.endOffsetFor(2, offset(9))).toEqual({ epoch: 1, endOffset: 5 });
  });

  it("refuses lines that are not ascending", () => {
    expect(LeaderEpochCache.fromLines(["1 0", "1 5"])).toBeUndefined();
    expect(LeaderEpochCache.fromLines(["1 5", "2 5"])).toBeUndefined();
    expect(LeaderEpochCache.fromLines(["1 x"])).toBeUndefined();
  });
});
