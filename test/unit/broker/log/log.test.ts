import type { LogListener } from "../../../../broker/log/log.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import {
  batch,
  batchesOf,
  LogWorld,
  offset,
  readAll,
  SETTINGS,
  stampedBatch,
  summary,
  TOPIC_ID,
  WALL_MS,
} from "./log-fixtures.js";

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ApiError) return error.errorName;
    throw error;
  }
  return "none";
}

describe("append as leader", () => {
  it("gives offsets, stamps epochs and serves what it wrote at once", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    const first = log.appendAsLeader(batch({ records: 3, mark: 1 }), 4);
    expect(first).toEqual({ baseOffset: 0, endOffset: 3, duplicate: false, written: undefined });
    expect(log.appendAsLeader(batch({ mark: 2 }), 5)).toMatchObject({ baseOffset: 3, endOffset: 4 });
    expect(log.logEndOffset).toBe(4);
    expect(log.lastEpoch).toBe(5);
    expect(await world.contents()).toEqual(["0-2@4:1", "3-3@5:2"]);
  });

  it("takes several batches in one append", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsLeader(Buffer.concat([batch({ records: 2, mark: 1 }), batch({ mark: 2 })]), 0);
    expect(await world.contents()).toEqual(["0-1@0:1", "2-2@0:2"]);
  });

  it("refuses what must not be in a log and appends nothing of it", async () => {
    const world = await LogWorld.open();
    const log = world.log({ maxMessageBytes: 500 });
    const damaged = batch();
    damaged[damaged.length - 1]! ^= 1;
    expect(refusal(() => log.appendAsLeader(damaged, 0))).toBe("CORRUPT_MESSAGE");
    expect(refusal(() => log.appendAsLeader(Buffer.from("GET / HTTP/1.1"), 0))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsLeader(batch().subarray(0, -1), 0))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsLeader(Buffer.alloc(0), 0))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsLeader(batch({ attributes: 0x20 }), 0))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsLeader(batch({ valueBytes: 600 }), 0))).toBe("MESSAGE_TOO_LARGE");
    const ahead = WALL_MS + 2 * 3_600_000;
    expect(refusal(() => log.appendAsLeader(batch({ timestamp: ahead }), 0))).toBe("INVALID_TIMESTAMP");
    expect(refusal(() => log.appendAsLeader(Buffer.concat([batch(), damaged]), 0))).toBe("CORRUPT_MESSAGE");
    // Which of them, and by what.
    const pair = Buffer.concat([batch(), damaged]);
    expect(() => log.appendAsLeader(pair, 0)).toThrow(
      `the batch at byte ${batch().length} of the records does not match`,
    );
    expect(() => log.appendAsLeader(batch({ timestamp: ahead }), 0)).toThrow(
      `the batch at byte 0 of the records has timestamp ${ahead}, more than an hour ahead of the broker's clock, which says ${WALL_MS / 10_000}`,
    );
    expect(log.logEndOffset).toBe(0);
    expect(world.disk.paths().filter((path) => path.endsWith(".log"))).toEqual([]);
  });
});

describe("append as follower", () => {
  it("takes the leader's offsets and epochs as they are, gaps included", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsFollower(
      Buffer.concat([stampedBatch(0, 1, { records: 2, mark: 1 }), stampedBatch(5, 3, { mark: 2 })]),
      3,
    );
    expect(await world.contents()).toEqual(["0-1@1:1", "5-5@3:2"]);
    expect(log.endOffsetForEpoch(2)).toEqual({ epoch: 1, endOffset: 5 });
    expect(log.endOffsetForEpoch(0)).toBeUndefined();
    expect(log.endOffsetForEpoch(9)).toEqual({ epoch: 3, endOffset: 6 });
  });

  it("refuses damage, offsets that step back and epochs that step back", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsFollower(stampedBatch(0, 3, { records: 2 }), 3);
    const damaged = stampedBatch(2, 3);
    damaged[5]! ^= 1;
    expect(refusal(() => log.appendAsFollower(damaged, 3))).toBe("CORRUPT_MESSAGE");
    expect(refusal(() => log.appendAsFollower(stampedBatch(1, 3), 3))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsFollower(stampedBatch(2, 2), 3))).toBe("INVALID_RECORD");
    expect(refusal(() => log.appendAsFollower(stampedBatch(2, 4), 3))).toBe("INVALID_RECORD");
    expect(log.logEndOffset).toBe(2);
  });

  it("begins an empty log where the first batch of the leader is", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsFollower(stampedBatch(500, 2, { records: 3, mark: 7 }), 2);
    expect([log.logStartOffset, log.highWatermark, log.logEndOffset]).toEqual([500, 500, 503]);
    await world.stopCleanly();
    await world.start();
    expect(await world.contents()).toEqual(["500-502@2:7"]);
  });

  it("begins at the batch that holds the log start, and serves from there", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    await world.complete(log.truncateFullyAndStartAt(offset(105)));
    log.appendAsFollower(stampedBatch(100, 0, { records: 10, mark: 3 }), 0);
    expect([log.logStartOffset, log.logEndOffset]).toEqual([105, 110]);
    expect(await world.contents()).toEqual(["100-109@0:3"]);
    await world.stopCleanly();
    await world.start();
    expect(world.log().logStartOffset).toBe(105);
    expect(await world.contents()).toEqual(["100-109@0:3"]);
  });
});

describe("log start", () => {
  it("counts as durable when it survives a power cut, and not before", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    for (let mark = 0; mark < 10; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    log.advanceHighWatermark(offset(10));
    const done = log.advanceLogStart(offset(6));
    expect(log.durableLogStart).toBe(0);
    await world.complete(done);
    expect([log.logStartOffset, log.durableLogStart]).toEqual([6, 6]);
    world.powerCut();
    await world.start();
    // What is in front of it was synced first, and what is behind it with that.
    expect([world.log().logStartOffset, world.log().durableLogStart, world.log().logEndOffset]).toEqual([6, 6, 10]);
  });

  it("is not taken back by a cut below it, which leaves an empty log", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    for (let mark = 0; mark < 10; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    log.advanceHighWatermark(offset(8));
    await world.complete(log.advanceLogStart(offset(6)));
    await world.complete(log.truncateTo(offset(3)));
    expect([log.logStartOffset, log.logEndOffset]).toEqual([6, 6]);
    world.kill();
    await world.start();
    expect([world.log().logStartOffset, world.log().logEndOffset]).toEqual([6, 6]);
  });
});

describe("read", () => {
  it("delivers whole batches from the one that holds the offset, below the end, within the limit", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    for (let mark = 0; mark < 5; mark += 1) log.appendAsLeader(batch({ records: 2, mark }), 0);
    const size = batch({ records: 2 }).length;
    const marks = async (from: number, maxBytes: number, end?: number) =>
      summary(
        batchesOf(await log.read(offset(from), { maxBytes, ...(end === undefined ? {} : { end: offset(end) }) })),
      );
    expect(await marks(3, size * 2)).toEqual(["2-3@0:1", "4-5@0:2"]);
    expect(await marks(3, size * 2 - 1)).toEqual(["2-3@0:1"]);
    expect(await marks(3, 1)).toEqual(["2-3@0:1"]);
    expect(await marks(0, 10_000, 4)).toEqual(["0-1@0:0", "2-3@0:1"]);
    // A batch that reaches beyond the end is not delivered in part, nor as a whole.
    expect(await marks(0, 10_000, 3)).toEqual(["0-1@0:0"]);
    expect(await marks(10, 10_000)).toEqual([]);
  });

  it("refuses offsets outside the log", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsLeader(batch(), 0);
    expect(refusal(() => log.read(offset(2), { maxBytes: 1 }))).toBe("OFFSET_OUT_OF_RANGE");
    await world.complete(log.truncateFullyAndStartAt(offset(9)));
    expect(refusal(() => log.read(offset(8), { maxBytes: 1 }))).toBe("OFFSET_OUT_OF_RANGE");
  });

  it("delivers the same from files as from memory", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log({ segmentBytes: 2000, indexIntervalBytes: 300 });
    for (let mark = 0; mark < 60; mark += 1) log.appendAsLeader(batch({ records: 1 + (mark % 3), mark }), 0);
    expect(log.closedSegments().length).toBeGreaterThanOrEqual(2);
    const contents = await world.contents();
    expect(contents).toHaveLength(60);
    for (let from = 0; from < log.logEndOffset; from += 7) {
      const some = await world.complete(readAll(log, from));
      expect(contents.slice(-some.length)).toEqual(summary(some));
      expect(some[0]!.baseOffset <= from && some[0]!.endOffset > from).toBe(true);
    }
  });
});

describe("durability", () => {
  it("with fsync acknowledges only what is on the disk, and moves the log end before", async () => {
    const world = await LogWorld.open();
    const log = world.log({ durability: "fsync" });
    let flushed = 0;
    const listener: LogListener = {
      onWritten: () => undefined,
      onFlushed: () => (flushed += 1),
      onLogStart: () => undefined,
      onFull: () => undefined,
      onDamaged: () => undefined,
    };
    log.setListener(listener);
    const appended = log.appendAsLeader(batch(), 0);
    expect(appended.written).toBeDefined();
    expect([log.logEndOffset, log.flushedOffset]).toEqual([1, 0]);
    await world.complete(appended.written!);
    expect(log.flushedOffset).toBe(1);
    expect(flushed).toBe(1);
  });

  it("with page-cache flushes in the background within the interval", async () => {
    const world = await LogWorld.open();
    const log = world.log({ flushMs: 200 });
    log.appendAsLeader(batch(), 0);
    await world.run(150);
    expect(log.flushedOffset).toBe(0);
    await world.run(150);
    expect(log.flushedOffset).toBe(1);
  });

  it("queues appends after a slow write, in order, and becomes direct again", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    world.disk.syncWriteStallMs = 5;
    expect(log.appendAsLeader(batch({ mark: 0 }), 0).written).toBeUndefined();
    const queued = [1, 2, 3].map((mark) => log.appendAsLeader(batch({ mark }), 0));
    expect(log.logEndOffset).toBe(1);
    await world.complete(Promise.all(queued.map((append) => append.written)));
    expect(await world.contents()).toEqual(["0-0@0:0", "1-1@0:1", "2-2@0:2", "3-3@0:3"]);
    world.disk.syncWriteStallMs = 0;
    await world.run(2_000);
    expect(log.appendAsLeader(batch(), 0).written).toBeUndefined();
  });
});

describe("restart", () => {
  it("finds everything again after a clean stop", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 500 });
    for (let mark = 0; mark < 20; mark += 1) log.appendAsLeader(batch({ mark }), mark < 10 ? 1 : 2);
    log.advanceHighWatermark(offset(15));
    const before = await world.contents();
    await world.stopCleanly();
    await world.start();
    expect(await world.contents()).toEqual(before);
    const again = world.log();
    expect([again.highWatermark, again.logEndOffset, again.flushedOffset, again.wasCut]).toEqual([15, 20, 20, false]);
    expect(again.endOffsetForEpoch(1)).toEqual({ epoch: 1, endOffset: 10 });
    expect(again.appendAsLeader(batch(), 2).baseOffset).toBe(20);
  });

  it.each(["kill", "powerCut"] as const)("finds what was flushed after a %s", async (how) => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 500, durability: "fsync" });
    for (let mark = 0; mark < 20; mark += 1) await world.complete(log.appendAsLeader(batch({ mark }), 1).written!);
    const before = await world.contents();
    world[how]();
    await world.start();
    expect(await world.contents()).toEqual(before);
    expect(world.log().damage).toEqual([]);
  });
});

it("does not make files before the first append", async () => {
  const world = await LogWorld.open();
  world.manager.create(TOPIC_ID, "orders", 0, SETTINGS);
  expect(world.disk.paths().filter((path) => path.includes("orders"))).toEqual([]);
});
