import fc from "fast-check";
import { assignReplicas } from "../../../../broker/controller/replica-assignment.js";

const brokers = (count: number, racks?: number) =>
  Array.from({ length: count }, (_, index) => ({
    id: index + 1,
    rack: racks === undefined ? undefined : `rack-${index % racks}`,
  }));

const countBy = (ids: readonly number[]): number[] => {
  const counts = new Map<number, number>();
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return [...counts.values()];
};

describe("assignReplicas", () => {
  it("is the same for the same chance", () => {
    const request = { brokers: brokers(3), partitions: 3, replicationFactor: 2, start: 1, shift: 0 };
    expect(assignReplicas(request)).toEqual([
      [2, 3],
      [3, 1],
      [1, 2],
    ]);
    expect(assignReplicas(request)).toEqual(assignReplicas(request));
  });

  it("spreads the followers of one leader over the other brokers", () => {
    const assignment = assignReplicas({
      brokers: brokers(4),
      partitions: 12,
      replicationFactor: 2,
      start: 0,
      shift: 0,
    });
    const followersOfFirst = assignment.filter(([leader]) => leader === 1).map(([, follower]) => follower);
    expect(new Set(followersOfFirst)).toEqual(new Set([2, 3, 4]));
  });

  it("goes on where a topic that grows left off", () => {
    const whole = assignReplicas({ brokers: brokers(5), partitions: 9, replicationFactor: 3, start: 2, shift: 1 });
    const rest = assignReplicas({
      brokers: brokers(5),
      partitions: 4,
      replicationFactor: 3,
      start: 2,
      shift: 1,
      firstPartition: 5,
    });
    expect(rest).toEqual(whole.slice(5));
  });

  it("ignores racks when one broker names none", () => {
    const mixed = [
      { id: 1, rack: "a" },
      { id: 2, rack: "a" },
      { id: 3, rack: undefined },
    ];
    const plain = mixed.map(({ id }) => ({ id, rack: undefined }));
    const rest = { partitions: 6, replicationFactor: 2, start: 0, shift: 0 };
    expect(assignReplicas({ brokers: mixed, ...rest })).toEqual(assignReplicas({ brokers: plain, ...rest }));
  });

  it("gives each partition distinct brokers in as many racks as possible, and each broker its share of leaders", () => {
    const chance = fc.nat({ max: 20 });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 40 }),
        chance,
        chance,
        (count, factor, racks, partitions, start, shift) => {
          const replicationFactor = Math.min(factor, count);
          const all = brokers(count, racks);
          const assignment = assignReplicas({ brokers: all, partitions, replicationFactor, start, shift });
          const rackOf = new Map(all.map(({ id, rack }) => [id, rack]));
          const rackCount = new Set(rackOf.values()).size;
          for (const replicas of assignment) {
            expect(new Set(replicas).size).toBe(replicationFactor);
            expect(new Set(replicas.map((id) => rackOf.get(id))).size).toBe(Math.min(replicationFactor, rackCount));
          }
          const leaders = countBy(assignment.map(([leader]) => leader as number));
          expect(Math.max(...leaders) - (leaders.length < count ? 0 : Math.min(...leaders))).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("without racks gives each broker the same number of replicas after each full round", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 7 }),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 4 }),
        fc.nat({ max: 20 }),
        fc.nat({ max: 20 }),
        (count, factor, rounds, start, shift) => {
          const replicationFactor = Math.min(factor, count);
          const assignment = assignReplicas({
            brokers: brokers(count),
            partitions: rounds * count,
            replicationFactor,
            start,
            shift,
          });
          expect(new Set(countBy(assignment.flat()))).toEqual(new Set([rounds * replicationFactor]));
        },
      ),
      { numRuns: 300 },
    );
  });
});
