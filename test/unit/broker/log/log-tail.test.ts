import { jest } from "@jest/globals";
import fc from "fast-check";
import { LogTail, TailBudget } from "../../../../broker/log/content/tail.js";
import { readBatches } from "../../../../protocol/record-batch.js";
import { offset, stampedBatch } from "./log-fixtures.js";

jest.setTimeout(60_000);

describe("LogTail", () => {
  it("delivers the bytes that were appended, from its start on, within both limits", () => {
    const step = fc.record({
      batches: fc.array(fc.record({ records: fc.integer({ min: 1, max: 3 }), valueBytes: fc.nat(40_000) }), {
        minLength: 1,
        maxLength: 3,
      }),
      from: fc.nat(100),
      end: fc.nat(100),
      bytesMax: fc.nat(100_000),
      cut: fc.option(fc.nat(100), { freq: 8 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 15 }), (steps) => {
        const budget = new TailBudget(400_000);
        const tail = new LogTail(budget, 300_000);
        let model: { base: number; end: number; bytes: Buffer }[] = [];
        let next = 0;
        for (const each of steps) {
          const start = next;
          const made = each.batches.map((options, at) => {
            const bytes = stampedBatch(next, 0, { ...options, mark: at });
            model.push({ base: next, end: next + options.records, bytes });
            next += options.records;
            return bytes;
          });
          tail.append(offset(start), offset(next), Buffer.concat(made));
          expect(tail.bytes).toBeLessThanOrEqual(450_000);
          expect(budget.bytes).toBe(tail.bytes);
          const read = tail.read(offset(each.from), offset(Math.min(each.end, next)), each.bytesMax);
          if (read !== undefined) {
            const expected = model.filter((one) => one.end > each.from && one.end <= Math.min(each.end, next));
            const got = readBatches(Buffer.concat(read.pieces));
            expect(got.length > 0).toBe(expected.length > 0);
            got.forEach((one, at) => expect(one.bytes.equals(expected[at]!.bytes)).toBe(true));
            expect(read.bytes <= each.bytesMax || got.length === 1).toBe(true);
            // It stops for a reason: the limit or the end.
            const following = expected[got.length];
            if (following !== undefined) expect(read.bytes + following.bytes.length).toBeGreaterThan(each.bytesMax);
          } else expect(each.from < (tail.startOffset ?? Infinity)).toBe(true);
          if (each.cut !== null) {
            const cut = model.find((one) => one.end > each.cut!)?.base ?? next;
            tail.cutEnd(offset(cut));
            model = model.filter((one) => one.end <= cut);
            next = cut;
            const last = tail.startOffset === undefined ? undefined : tail.read(tail.startOffset, offset(next), 1e9);
            if (last !== undefined) expect(readBatches(Buffer.concat(last.pieces)).at(-1)?.endOffset).toBe(next);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("sends small appends in one piece", () => {
    const tail = new LogTail(new TailBudget(1e6), 1e6);
    for (let at = 0; at < 30; at += 1) tail.append(offset(at), offset(at + 1), stampedBatch(at, 0));
    expect(tail.read(offset(0), offset(30), 1e6)?.pieces).toHaveLength(1);
  });

  it("pins no frame that batches came in", () => {
    const tail = new LogTail(new TailBudget(1e9), 1e9);
    const frame = Buffer.concat([stampedBatch(0, 0), Buffer.alloc(1_000_000)]);
    tail.append(offset(0), offset(1), frame.subarray(0, stampedBatch(0, 0).length));
    expect(tail.bytes).toBeLessThan(10_000);
    const before = Buffer.concat(tail.read(offset(0), offset(1), 1e6)?.pieces ?? []);
    frame.fill(0);
    expect(Buffer.concat(tail.read(offset(0), offset(1), 1e6)?.pieces ?? []).equals(before)).toBe(true);
  });

  it("writes over nothing that a reader still holds", () => {
    const tail = new LogTail(new TailBudget(1e9), 300_000);
    const append = (at: number): void =>
      tail.append(offset(at), offset(at + 1), stampedBatch(at, 0, { valueBytes: 100_000 }));
    append(0);
    const read = tail.read(offset(0), offset(1), 1e6);
    const held = Buffer.from(read?.pieces[0] ?? []);
    // Evicts what is read, many times over.
    for (let at = 1; at < 30; at += 1) append(at);
    expect(tail.startOffset).toBeGreaterThan(1);
    expect(read?.pieces[0]?.equals(held)).toBe(true);
    read?.release();
    for (let at = 30; at < 60; at += 1) append(at);
    expect(read?.pieces[0]?.equals(held)).toBe(false);
  });
});

describe("TailBudget", () => {
  it("takes from the log that was appended to longest ago", () => {
    const budget = new TailBudget(450_000);
    const idle = new LogTail(budget, 1e6);
    const busy = new LogTail(budget, 1e6);
    idle.append(offset(0), offset(1), stampedBatch(0, 0, { valueBytes: 100_000 }));
    for (let at = 0; at < 2; at += 1)
      busy.append(offset(at), offset(at + 1), stampedBatch(at, 0, { valueBytes: 100_000 }));
    expect(idle.startOffset).toBeUndefined();
    expect(busy.startOffset).toBe(0);
    expect(budget.bytes).toBeLessThanOrEqual(450_000);
    busy.clear();
    expect(budget.bytes).toBe(0);
  });
});
