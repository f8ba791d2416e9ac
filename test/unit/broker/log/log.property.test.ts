import { jest } from "@jest/globals";
import fc from "fast-check";
import { batch, batchesOf, LogWorld, offset, stampedBatch, summary } from "./log-fixtures.js";

jest.setTimeout(60_000);

/** A log as an array: what it should hold, without segments, files, tails and indexes. */
interface ModelBatch {
  base: number;
  end: number;
  epoch: number;
  mark: number;
}

type Step =
  | { readonly kind: "append"; readonly records: number[]; readonly newEpoch: boolean }
  | { readonly kind: "follow"; readonly gap: number; readonly records: number }
  | { readonly kind: "read"; readonly at: number; readonly maxBytes: number; readonly end: number }
  | { readonly kind: "truncate"; readonly at: number }
  | { readonly kind: "restartAt"; readonly at: number }
  | { readonly kind: "highWatermark"; readonly at: number }
  | { readonly kind: "stop"; readonly how: "clean" | "kill" }
  | { readonly kind: "wait"; readonly ms: number };

// Not fc.double: nearly all of its values between 0 and 1 are next to 0.
const share = fc.integer({ min: 0, max: 1000 }).map((thousandths) => thousandths / 1000);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      records: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
      newEpoch: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("follow" as const),
      gap: fc.integer({ min: 0, max: 3 }),
      records: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      at: share,
      maxBytes: fc.integer({ min: 1, max: 900 }),
      end: share,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("truncate" as const), at: share }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restartAt" as const), at: share }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("highWatermark" as const), at: share }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("stop" as const),
      how: fc.constantFrom("clean" as const, "kill" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 3000 }) }) },
);

const text = (each: ModelBatch): string => `${each.base}-${each.end - 1}@${each.epoch}:${each.mark}`;

async function runSteps(steps: readonly Step[], tailBytesMax: number, seed: number): Promise<void> {
  const settings = { segmentBytes: 600, indexIntervalBytes: 150 };
  const world = await LogWorld.open({ tailBytesMax, seed, settings });
  let log = world.log(settings);
  let model: ModelBatch[] = [];
  let end = 0;
  let start = 0;
  let highWatermark = 0;
  let epoch = 0;
  let mark = 0;
  const at = (portion: number): number => start + Math.round(portion * (end - start));
  for (const each of steps) {
    switch (each.kind) {
      case "append": {
        if (each.newEpoch) epoch += 1;
        const made = each.records.map((records) => batch({ records, mark: (mark += 1) % 128 }));
        mark -= each.records.length;
        const { written } = log.appendAsLeader(Buffer.concat(made), epoch);
        if (written !== undefined) await world.complete(written);
        for (const records of each.records) {
          model.push({ base: end, end: end + records, epoch, mark: (mark += 1) % 128 });
          end += records;
        }
        break;
      }
      case "follow": {
        const base = end + each.gap;
        if (model.length === 0 && base > end) {
          start = base;
          highWatermark = base;
        }
        mark += 1;
        const { written } = log.appendAsFollower(
          stampedBatch(base, epoch, { records: each.records, mark: mark % 128 }),
          epoch,
        );
        if (written !== undefined) await world.complete(written);
        end = base + each.records;
        model.push({ base, end, epoch, mark: mark % 128 });
        break;
      }
      case "read": {
        const from = at(each.at);
        const readEnd = from + Math.round(each.end * (end - from));
        const read = log.read(offset(from), { maxBytes: each.maxBytes, end: offset(readEnd) });
        const got = batchesOf(read instanceof Promise ? await world.complete(read) : read);
        const expected = model.filter((one) => one.end > from && one.end <= readEnd);
        // From the right place, without a hole, at least one if there is one, and no more than was asked for.
        expect(summary(got)).toEqual(expected.slice(0, got.length).map(text));
        expect(got.length > 0).toBe(expected.length > 0);
        const bytes = got.reduce((sum, one) => sum + one.sizeBytes, 0);
        expect(bytes <= each.maxBytes || got.length === 1).toBe(true);
        break;
      }
      case "truncate": {
        const to = at(each.at);
        await world.complete(log.truncateTo(offset(to)));
        // The batch that holds the offset goes as a whole; a log ends where its last batch does.
        model = model.filter((one) => one.end <= to);
        end = model.at(-1)?.end ?? start;
        highWatermark = Math.min(highWatermark, end);
        break;
      }
      case "restartAt": {
        start = end = highWatermark = at(each.at) + 5;
        model = [];
        await world.complete(log.truncateFullyAndStartAt(offset(start)));
        break;
      }
      case "highWatermark":
        log.advanceHighWatermark(offset(at(each.at)));
        highWatermark = Math.max(highWatermark, at(each.at));
        break;
      case "stop":
        if (each.how === "clean") await world.stopCleanly();
        else world.kill();
        await world.start({ tailBytesMax, settings });
        log = world.log(settings);
        if (each.how === "kill") {
          // Checkpoints are written at intervals: after a kill these two may be older than they were.
          expect(log.highWatermark).toBeLessThanOrEqual(highWatermark);
          expect(log.logStartOffset).toBeLessThanOrEqual(start);
          log.advanceHighWatermark(offset(highWatermark));
        }
        expect(log.wasCut).toBe(false);
        break;
      case "wait":
        await world.run(each.ms);
        break;
    }
    expect([log.logEndOffset, log.highWatermark]).toEqual([end, highWatermark]);
    expect(log.flushedOffset).toBeLessThanOrEqual(end);
  }
  expect(await world.contents()).toEqual(model.map(text));
  expect(world.fatal).toEqual([]);
}

describe("a log is an array of batches, whatever is done to it", () => {
  it("with a tail in memory", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, seed) =>
        runSteps(steps, 1024 * 1024, seed),
      ),
      { numRuns: 120 },
    );
  });

  it("from files only", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, seed) => runSteps(steps, 0, seed)),
      { numRuns: 120 },
    );
  });
});
