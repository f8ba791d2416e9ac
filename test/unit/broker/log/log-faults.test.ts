import { jest } from "@jest/globals";
import { ApiError } from "../../../../protocol/error-codes.js";
import type { LogListener } from "../../../../broker/log/log.js";
import { readBatches } from "../../../../protocol/record-batch.js";
import {
  batch,
  DIRECTORY,
  LogWorld,
  offset,
  readAll,
  SETTINGS,
  stampedBatch,
  summary,
  TOPIC_ID,
  WALL_MS,
} from "./log-fixtures.js";

jest.setTimeout(60_000);

const isLog = (path: string): boolean => path.endsWith(".log");

function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ApiError) return error.errorName;
    throw error;
  }
  return "none";
}

function listenTo(log: { setListener(listener: LogListener): void }): { faults: string[] } {
  const heard = { faults: [] as string[] };
  log.setListener({
    onWritten: () => undefined,
    onFlushed: () => undefined,
    onLogStart: () => undefined,
    onFull: () => heard.faults.push("full"),
    onDamaged: () => heard.faults.push("damaged"),
  });
  return heard;
}

describe("a full disk", () => {
  it.each([
    ["in the caller's turn", 0],
    ["queued", 5],
  ])("refuses appends, loses none that were taken, and goes on by itself (%s)", async (_, stallMs) => {
    const world = await LogWorld.open();
    const log = world.log({ durability: stallMs > 0 ? "fsync" : "page-cache" });
    const heard = listenTo(log);
    world.disk.syncWriteStallMs = stallMs;
    const first = log.appendAsLeader(batch({ mark: 1, producerId: 3, baseSequence: 0 }), 1);
    await world.complete(first.written ?? Promise.resolve());
    world.disk.setCapacity(world.disk.usedBytes + 50);
    const next = batch({ mark: 2, producerId: 3, baseSequence: 1 });
    if (stallMs > 0) {
      await expect(world.complete(log.appendAsLeader(next, 2).written!)).rejects.toMatchObject({
        errorName: "STORAGE_ERROR",
      });
    } else {
      expect(refusal(() => log.appendAsLeader(next, 2))).toBe("STORAGE_ERROR");
    }
    expect([log.logEndOffset, log.lastEpoch, log.isFull]).toEqual([1, 1, true]);
    expect(await world.contents()).toEqual(["0-0@1:1"]);
    expect(refusal(() => log.appendAsLeader(batch(), 2))).toBe("STORAGE_ERROR");
    await world.run(5_000);
    expect(log.isFull).toBe(true);
    expect(heard.faults).toEqual(["full"]);
    world.disk.setCapacity(Number.POSITIVE_INFINITY);
    await world.run(2_000);
    // Neither the batch nor its sequence was remembered.
    const again = log.appendAsLeader(batch({ mark: 3, producerId: 3, baseSequence: 1 }), 2);
    await world.complete(again.written ?? Promise.resolve());
    expect(again).toMatchObject({ baseOffset: 1, duplicate: false });
    expect(await world.contents()).toEqual(["0-0@1:1", "1-1@2:3"]);
    world.kill();
    await world.start();
    expect(await world.contents()).toEqual(["0-0@1:1", "1-1@2:3"]);
    expect(world.fatal).toEqual([]);
  });

  it("that leaves no room for another segment takes back what waits for its turn", async () => {
    const world = await LogWorld.open();
    const log = world.log({ durability: "fsync", segmentBytes: 300 });
    const heard = listenTo(log);
    world.disk.delayMeanMs = 5;
    world.disk.fail("create", (path) => /[1-9]\.log$/.test(path), { reason: "full", times: 1 });
    const appended: Promise<unknown>[] = [];
    while (heard.faults.length === 0) {
      if (refusal(() => appended.push(log.appendAsLeader(batch(), 0).written ?? Promise.resolve())) !== "none") break;
      await world.run(0.05);
    }
    const outcomes = await world.complete(Promise.allSettled(appended));
    const kept = outcomes.filter(({ status }) => status === "fulfilled").length;
    expect(kept).toBeLessThan(outcomes.length);
    expect(heard.faults).toEqual(["full"]);
    await world.run(2_000);
    expect([log.isFull, log.logEndOffset]).toEqual([false, kept]);
    const next = log.appendAsLeader(batch({ mark: 9 }), 0);
    expect(next.baseOffset).toBe(kept);
    await world.complete(next.written ?? Promise.resolve());
    expect(await world.contents()).toHaveLength(kept + 1);
    world.kill();
    await world.start();
    expect(await world.contents()).toHaveLength(kept + 1);
    expect(world.fatal).toEqual([]);
  });

  it("leaves nothing behind of a write that was half done", async () => {
    for (let seed = 0; seed < 30; seed += 1) {
      const world = await LogWorld.open({ seed });
      const log = world.log();
      log.appendAsLeader(batch({ mark: 1 }), 1);
      world.disk.fail("write", isLog, { reason: "full", times: 1 });
      const two = Buffer.concat([batch({ mark: 2 }), batch({ mark: 3 })]);
      expect(refusal(() => log.appendAsLeader(two, 1))).toBe("STORAGE_ERROR");
      await world.run(2_000);
      log.appendAsLeader(batch({ mark: 4 }), 1);
      world.kill();
      await world.start();
      expect(await world.contents()).toEqual(["0-0@1:1", "1-1@1:4"]);
    }
  });

  it("takes back the first part of an append that fails in its second segment", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 200 });
    log.appendAsLeader(batch({ mark: 1, valueBytes: 20 }), 1);
    world.disk.fail("write", (path) => path.endsWith("2.log"), { reason: "full", times: 1 });
    const two = Buffer.concat([batch({ mark: 2, valueBytes: 20 }), batch({ mark: 3, valueBytes: 100 })]);
    expect(refusal(() => log.appendAsLeader(two, 1))).toBe("STORAGE_ERROR");
    await world.run(2_000);
    log.appendAsLeader(batch({ mark: 4 }), 1);
    await world.complete(log.flush());
    expect(await world.contents()).toEqual(["0-0@1:1", "1-1@1:4"]);
    world.kill();
    await world.start();
    expect(await world.contents()).toEqual(["0-0@1:1", "1-1@1:4"]);
  });

  it("does not get back by a power cut what it took back", async () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const world = await LogWorld.open({ seed });
      const log = world.log({ durability: "fsync", segmentBytes: 600 });
      const append = (mark: number, valueBytes: number): Promise<void> =>
        log.appendAsLeader(batch({ mark, valueBytes }), 0).written ?? Promise.resolve();
      await world.complete(append(1, 100));
      world.disk.syncWriteStallMs = 5;
      await world.complete(append(2, 100));
      // The next one begins a segment, of which the disk takes a part.
      world.disk.setCapacity(world.disk.usedBytes + 150);
      await expect(world.complete(append(3, 400))).rejects.toMatchObject({ errorName: "STORAGE_ERROR" });
      world.disk.setCapacity(Number.POSITIVE_INFINITY);
      await world.run(2_000);
      await world.complete(append(4, 1));
      world.powerCut();
      await world.start();
      expect(world.log().damage).toEqual([]);
      expect(await world.contents()).toEqual(["0-0@0:1", "1-1@0:2", "2-2@0:4"]);
    }
  });

  it("refuses what cannot even have a file, and makes it later", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    world.disk.setCapacity(0);
    expect(refusal(() => log.appendAsLeader(batch({ mark: 1 }), 0))).toBe("STORAGE_ERROR");
    expect(log.logEndOffset).toBe(0);
    world.disk.setCapacity(Number.POSITIVE_INFINITY);
    await world.run(2_000);
    log.appendAsLeader(batch({ mark: 2 }), 0);
    expect(await world.contents()).toEqual(["0-0@0:2"]);
  });

  it("lets a truncation wait for space rather than leave it half done", async () => {
    const world = await LogWorld.open();
    const log = world.log({ durability: "fsync" });
    for (const mark of [1, 2, 3]) await world.complete(log.appendAsLeader(batch({ mark }), mark).written!);
    world.disk.setCapacity(0);
    const done = log.truncateTo(offset(1));
    await world.run(3_000);
    world.disk.setCapacity(Number.POSITIVE_INFINITY);
    await world.complete(done);
    expect(await world.contents()).toEqual(["0-0@1:1"]);
    expect(world.fatal).toEqual([]);
  });
});

describe("a disk that is full while old segments are removed", () => {
  it.each([
    ["in the caller's turn", 0],
    ["queued", 2],
  ])("takes no segment that is to stay (the write is %s)", async (_, stallMs) => {
    for (let afterMs = 0; afterMs <= 6; afterMs += 0.25) {
      const options = { settings: { segmentBytes: 100, flushMs: 1_000_000 }, tailBytesMax: 0 };
      const world = await LogWorld.open(options);
      const log = world.log(options.settings);
      // Who sends them is not forgotten with the records: what comes next would be refused.
      const append = async (mark: number): Promise<void> =>
        log.appendAsLeader(batch({ mark, producerId: 3, baseSequence: log.logEndOffset }), 0).written;
      for (let mark = 0; mark < 4; mark += 1) await world.complete(append(mark));
      await world.complete(log.flush());
      log.advanceHighWatermark(offset(4));
      await world.run(6_000);
      // After such a jump of the clock the first run is skipped.
      const wallMs = world.process.env.clock.wallMs() + 8 * 86_400_000;
      await world.complete(log.applyRetention(wallMs));
      world.disk.syncWriteStallMs = stallMs;
      if (stallMs > 0) await world.complete(append(7));
      const end = log.logEndOffset;
      log.advanceHighWatermark(end);
      world.disk.fail("write", (path) => path.endsWith(".log"), { reason: "full", times: 1 });
      const removal = log.applyRetention(wallMs);
      await world.run(afterMs);
      await expect(world.complete(append(8))).rejects.toMatchObject({ errorName: "STORAGE_ERROR" });
      await world.complete(removal);
      await world.run(5_000);
      expect([afterMs, log.logEndOffset, world.fatal]).toEqual([afterMs, end, []]);
      await world.complete(append(9));
      const contents = await world.contents();
      expect([afterMs, contents.at(-1)]).toEqual([afterMs, `${end}-${end}@0:9`]);
      expect(contents).toHaveLength(log.logEndOffset - log.logStartOffset);
      world.kill();
      await world.start(options);
      expect([afterMs, await world.contents(), world.log().damage]).toEqual([afterMs, contents, []]);
    }
  });
});

describe("a disk that fails", () => {
  it("stops the process when a write fails for another reason", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    world.disk.fail("write", isLog, { reason: "io", times: 1 });
    expect(refusal(() => log.appendAsLeader(batch(), 0))).toBe("STORAGE_ERROR");
    expect(world.fatal).toHaveLength(1);
    expect(refusal(() => log.appendAsLeader(batch(), 0))).toBe("STORAGE_ERROR");
  });

  it.each(["fsync", "page-cache"] as const)(
    "stops the process when a sync fails, and syncs no second time (%s)",
    async (durability) => {
      const world = await LogWorld.open();
      const log = world.log({ durability, flushMs: 50 });
      world.disk.fail("sync", isLog, { times: 1 });
      const { written } = log.appendAsLeader(batch(), 0);
      if (written === undefined) await world.run(200);
      else await expect(world.complete(written)).rejects.toMatchObject({ errorName: "STORAGE_ERROR" });
      expect(world.fatal).toHaveLength(1);
      await world.run(5_000);
      expect(log.flushedOffset).toBe(0);
      await world.complete(world.manager.close());
      world.kill();
      expect(world.disk.paths()).toContain(`${DIRECTORY}/last-run`);
      await world.start();
      expect(world.log().wasCut).toBe(false);
    },
  );

  it("closes although writes were queued when a sync failed", async () => {
    const world = await LogWorld.open();
    const log = world.log({ durability: "fsync" });
    world.disk.delayMeanMs = 5;
    world.disk.fail("sync", isLog, { times: 1 });
    // The first write is waited for by a sync, the second is in flight when that fails, the others queue behind it.
    while (refusal(() => log.appendAsLeader(batch(), 0)) === "none") await world.run(0.05);
    await world.run(100);
    expect(world.fatal).toHaveLength(1);
    await world.complete(world.manager.close());
  });

  it("does not serve what it finds rotten, and tells its partition", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0, scrubBytesPerSecond: 1_000_000 });
    const log = world.log({ segmentBytes: 300 });
    const heard = listenTo(log);
    for (let mark = 0; mark < 8; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    await world.run(2_000);
    const path = world.disk.paths().find((each) => isLog(each) && !each.includes("/00000000000000000000."))!;
    world.disk.flipBit(path, world.disk.contentOf(path)!.length - 1, 3);
    await world.run(200_000);
    const [range] = log.damage;
    expect(heard.faults).toEqual(["damaged"]);
    expect(refusal(() => log.read(range!.from, { maxBytes: 1 }))).toBe("CORRUPT_LOG");
    expect(summary(await world.complete(readAll(log, range!.to)))).toHaveLength(8 - range!.to);
    // A follower gets rid of it by a truncation.
    await world.complete(log.truncateTo(range!.from));
    expect(log.damage).toEqual([]);
    log.appendAsFollower(stampedBatch(range!.from, 0, { mark: 55 }), 0);
    expect((await world.contents()).at(-1)).toBe(`${range!.from}-${range!.from}@0:55`);
    await world.complete(world.manager.close());
  });

  it("forgets what a read finds rotten that a cut has overtaken", async () => {
    for (let afterMs = 0; afterMs < 12; afterMs += 0.5) {
      const world = await LogWorld.open({ tailBytesMax: 0 });
      const log = world.log({ segmentBytes: 300 });
      for (let mark = 0; mark < 8; mark += 1) log.appendAsLeader(batch({ mark }), 0);
      await world.run(2_000);
      const path = world.disk.paths().find(isLog)!;
      world.disk.flipBit(path, world.disk.contentOf(path)!.length - 1, 3);
      // Without its index the segment is read as a whole when somebody opens it.
      world.disk.remove(path.replace(/log$/, "index"));
      await world.stopCleanly();
      await world.start();
      const again = world.log();
      world.disk.delayMeanMs = 2;
      const read = Promise.resolve(again.read(offset(0), { maxBytes: 1 })).catch(() => undefined);
      await world.run(afterMs);
      await world.complete(again.truncateTo(offset(0)));
      await world.complete(read);
      expect([afterMs, again.logEndOffset, again.damage]).toEqual([afterMs, 0, []]);
      await world.complete(world.manager.close());
    }
  });

  it("forgets what is cut off as rotten, though the file is opened once more for the cut", async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const world = await LogWorld.open({ seed, tailBytesMax: 0 });
      const log = world.log({ segmentBytes: 300 });
      const other = world.manager.create(TOPIC_ID, "orders", 1, { ...SETTINGS, segmentBytes: 100 });
      for (let mark = 0; mark < 8; mark += 1) for (const one of [log, other]) one.appendAsLeader(batch({ mark }), 0);
      await world.run(2_000);
      const path = world.disk.paths().find(isLog)!;
      world.disk.flipBit(path, world.disk.contentOf(path)!.length - 1, 3);
      await world.complete(log.verifyRange(offset(0)));
      const [range] = log.damage;
      // What others read closes the file between the look where to cut and the cut.
      const reads = Array.from({ length: 4 }, () => readAll(other));
      await world.complete(log.truncateTo(range!.from));
      await world.complete(Promise.all(reads));
      expect([seed, log.logEndOffset, log.damage]).toEqual([seed, range!.from, []]);
      await world.complete(world.manager.close());
    }
  });

  it.each(["stopped", "killed"])("knows what it found rotten when it was %s and comes back", async (how) => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log({ segmentBytes: 300 });
    for (let mark = 0; mark < 8; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    await world.run(2_000);
    const path = world.disk.paths().find((each) => isLog(each) && !each.includes("/00000000000000000000."))!;
    world.disk.flipBit(path, world.disk.contentOf(path)!.length - 1, 3);
    for (let from = 0; from < 8; from += 1) await world.complete(log.verifyRange(offset(from)));
    const found = log.damage;
    expect(found).toHaveLength(1);
    await world.run(90_000);
    if (how === "stopped") await world.stopCleanly();
    else world.kill();
    await world.start();
    const again = world.log();
    expect(again.damage).toEqual(found);
    expect([again.logEndOffset, again.wasCut]).toEqual([8, false]);
    expect(refusal(() => again.read(found[0]!.from, { maxBytes: 1 }))).toBe("CORRUPT_LOG");
    // And forgets it once it has been replaced.
    await world.complete(again.truncateTo(found[0]!.from));
    again.appendAsFollower(stampedBatch(found[0]!.from, 0, { mark: 55 }), 0);
    await world.stopCleanly();
    await world.start();
    expect(world.log().damage).toEqual([]);
  });

  it("finds what is rotten in front of a cut that is made meanwhile", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log();
    for (let mark = 0; mark < 8; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    const path = world.disk.paths().find(isLog)!;
    world.disk.flipBit(path, world.disk.contentOf(path)!.length / 2 - 1, 3);
    // The write takes nothing, and is taken back while the file is read.
    world.disk.fail("write", isLog, { reason: "full", times: 1 });
    const looked = log.verifyRange(offset(0));
    expect(refusal(() => log.appendAsLeader(batch(), 0))).toBe("STORAGE_ERROR");
    expect(await world.complete(looked)).toEqual([expect.objectContaining({ from: 3, to: 4 })]);
    expect(log.damage).toHaveLength(1);
  });

  it.each([
    ["an active segment", 128 * 1024 * 1024],
    ["a closed segment", 500],
  ])("serves what stands behind something rotten in %s, and what follows it", async (_, segmentBytes) => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log({ segmentBytes });
    const batches = [0, 1, 2, 3, 4].map((mark) => batch({ mark }));
    for (const each of batches) log.appendAsLeader(each, 0);
    const path = world.disk.paths().find(isLog)!;
    // A bit of the head of the second batch: nobody can tell where it ends.
    world.disk.flipBit(path, batches[0]!.length + 3, 4);
    expect(await world.complete(readAll(log, 2).then(summary))).toEqual(["2-2@0:2", "3-3@0:3", "4-4@0:4"]);
    expect(log.damage).toMatchObject([{ from: 1, to: 2 }]);
    for (const mark of [5, 6, 7, 8]) log.appendAsLeader(batch({ mark }), 0);
    expect(await world.complete(readAll(log, 2))).toHaveLength(7);
    expect(await world.complete(readAll(log, 0, 1).then(summary))).toEqual(["0-0@0:0"]);
    for (const again of ["stopped", "killed"]) {
      if (again === "stopped") await world.stopCleanly();
      else world.kill();
      await world.start();
      expect(await world.complete(readAll(world.log(), 2))).toHaveLength(7);
    }
  });

  it("serves what stands behind something rotten that was the last when it was found", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log();
    const batches = [0, 1].map((mark) => batch({ mark }));
    for (const each of batches) log.appendAsLeader(each, 0);
    world.disk.flipBit(world.disk.paths().find(isLog)!, batches[0]!.length + 3, 4);
    expect(await world.complete(log.verifyRange(offset(0)))).toMatchObject([{ from: 1, to: 2 }]);
    log.appendAsLeader(batch({ mark: 2 }), 0);
    expect(await world.complete(readAll(log, 2).then(summary))).toEqual(["2-2@0:2"]);
  });

  it.each([
    ["one batch in front of the cut", [1]],
    ["two batches, one on each side of it,", [1, 2]],
    ["all from there on", [1, 2, 3]],
  ])("does not cut off what is rotten and should stay, and says so (%s)", async (_, rotten) => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log();
    for (let mark = 0; mark < 4; mark += 1) log.appendAsLeader(batch({ mark, records: 3 }), 0);
    log.advanceHighWatermark(offset(6));
    await world.run(10_000);
    const heard = listenTo(log);
    const path = world.disk.paths().find(isLog)!;
    const { length } = batch({ records: 3 });
    for (const number of rotten) world.disk.flipBit(path, (number + 1) * length - 1, 3);
    // Its leader says that they part there; whether the replica may lose more than that is not its own to decide.
    await world.complete(log.truncateTo(offset(6)));
    expect([log.logEndOffset, log.highWatermark, log.damage]).toEqual([
      6,
      6,
      [expect.objectContaining({ from: 3, to: 6 })],
    ]);
    expect(heard.faults).toEqual(["damaged"]);
    log.appendAsFollower(stampedBatch(6, 1, { mark: 9 }), 1);
    await world.run(10_000);
    for (const again of ["first", "killed", "stopped"]) {
      if (again === "killed") world.kill();
      if (again === "stopped") await world.stopCleanly();
      if (again !== "first") await world.start({ tailBytesMax: 0 });
      const { damage, logEndOffset } = world.log();
      expect([again, logEndOffset, damage]).toEqual([again, 7, [expect.objectContaining({ from: 3, to: 6 })]]);
      expect(await world.complete(readAll(world.log(), 6).then(summary))).toEqual(["6-6@1:9"]);
      expect(await world.complete(readAll(world.log(), 0, 3).then(summary))).toEqual(["0-2@0:0"]);
    }
  });

  it("leaves nothing in the index file of what was cut off behind something rotten", async () => {
    const { length } = batch();
    // Every second batch has an entry.
    const settings = { indexIntervalBytes: 2 * length };
    const world = await LogWorld.open({ tailBytesMax: 0, settings });
    for (let mark = 0; mark < 8; mark += 1) world.log(settings).appendAsLeader(batch({ mark }), 0);
    await world.stopCleanly();
    await world.start({ tailBytesMax: 0, settings });
    const log = world.log();
    world.disk.flipBit(world.disk.paths().find(isLog)!, 2 * length + 3, 4);
    // The batch behind it gets an entry now, between those that are in the file.
    expect(await world.complete(log.verifyRange(offset(2)))).toMatchObject([{ from: 2, to: 3 }]);
    await world.complete(log.truncateTo(offset(5)));
    // Where one began that was cut off, another one has its middle.
    for (const mark of [10, 11, 12]) log.appendAsLeader(batch({ mark, records: 2 }), 1);
    log.advanceHighWatermark(offset(11));
    await world.complete(log.advanceLogStart(offset(4)));
    await world.stopCleanly();
    await world.start({ tailBytesMax: 0, settings });
    const behind = await world.complete(readAll(world.log(), 6).then(summary));
    expect(behind).toEqual(["5-6@1:10", "7-8@1:11", "9-10@1:12"]);
    expect(world.log().damage).toEqual([]);
  });

  it("serves a log whose start stands behind something rotten", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log();
    const batches = [0, 1, 2].map((mark) => batch({ mark }));
    for (const each of batches) log.appendAsLeader(each, 0);
    log.advanceHighWatermark(offset(3));
    await world.complete(log.advanceLogStart(offset(2)));
    world.disk.flipBit(world.disk.paths().find(isLog)!, batches[0]!.length + 3, 4);
    expect(await world.contents()).toEqual(["2-2@0:2"]);
    // It is no part of the log any more.
    expect(log.damage).toEqual([]);
  });

  it("finds the disk innocent when it is", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300 });
    for (let mark = 0; mark < 8; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    for (let from = 0; from < 8; from += 1) expect(await world.complete(log.verifyRange(offset(from)))).toEqual([]);
  });
});

describe("retention", () => {
  it("deletes the oldest segments, by time and by size, never above the high watermark, and remembers", async () => {
    const world = await LogWorld.open();
    const settings = { segmentBytes: 300, retentionMs: 1_000, fileDeleteDelayMs: 100 };
    const log = world.log(settings);
    for (let mark = 0; mark < 9; mark += 1)
      log.appendAsLeader(batch({ mark, timestamp: WALL_MS - 50_000 + mark }), mark);
    const wallMs = () => world.process.env.clock.wallMs();
    expect(await world.complete(log.applyRetention(wallMs()))).toBe(0);
    log.advanceHighWatermark(offset(5));
    expect(await world.complete(log.applyRetention(wallMs()))).toBeGreaterThan(0);
    const start = log.logStartOffset;
    expect(start).toBeGreaterThan(0);
    expect(start).toBeLessThanOrEqual(5);
    expect(log.endOffsetForEpoch(0)).toBeUndefined();
    await world.run(200);
    expect(world.disk.paths().filter((path) => path.endsWith(".deleted"))).toEqual([]);
    world.powerCut();
    await world.start();
    expect(world.log().logStartOffset).toBe(start);
    expect(world.log().damage).toEqual([]);
  });

  it("empties a log whose newest record is too old, and goes on at the same offset", async () => {
    const world = await LogWorld.open();
    const log = world.log({ retentionMs: 1_000 });
    log.appendAsLeader(batch({ records: 4, timestamp: WALL_MS - 50_000 }), 0);
    log.advanceHighWatermark(offset(4));
    expect(await world.complete(log.applyRetention(world.process.env.clock.wallMs()))).toBe(1);
    expect([log.logStartOffset, log.logEndOffset]).toEqual([4, 4]);
    world.powerCut();
    await world.start();
    expect([world.log().logStartOffset, world.log().logEndOffset]).toEqual([4, 4]);
    expect(world.log().appendAsLeader(batch(), 0).baseOffset).toBe(4);
  });

  it.each(["all", "the newest"])(
    "does not take a segment for old of whose records %s cannot be read",
    async (which) => {
      const settings = { segmentBytes: 1000, retentionMs: 60_000 };
      const world = await LogWorld.open({ settings, tailBytesMax: 0 });
      const log = world.log(settings);
      // The first record of the log is old, and what follows is new.
      for (let mark = 0; mark < 30; mark += 1)
        log.appendAsLeader(batch({ mark, timestamp: WALL_MS - (mark === 0 ? 3_600_000 : 0) }), 0);
      await world.run(20_000);
      await world.stopCleanly();
      const [path = "", next = ""] = world.disk.paths().filter(isLog);
      const size = world.disk.contentOf(path)!.length;
      // From the first batch, or the second, to the end of the file.
      const batches = readBatches(Buffer.from(world.disk.contentOf(path)!));
      for (let at = which === "all" ? 0 : batches[1]!.start; at < size; at += 10) world.disk.flipBit(path, at);
      await world.start({ settings });
      const again = world.log();
      again.advanceHighWatermark(offset(30));
      await world.complete(again.verifyRange(offset(0)));
      expect(again.damage).toMatchObject([{ to: Number(next.slice(-24, -4)) }]);
      const apply = (wallMs: number) => world.complete(again.applyRetention(wallMs));
      expect([await apply(world.process.env.clock.wallMs()), again.logStartOffset]).toEqual([0, 0]);
      // It goes when what follows it is old.
      expect(await apply(world.process.env.clock.wallMs() + 61_000)).toBeGreaterThan(0);
      expect(again.damage).toEqual([]);
      await world.complete(world.manager.close());
    },
  );

  it("skips one run after the wall clock was set", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300, retentionMs: 1_000 });
    for (let mark = 0; mark < 9; mark += 1) log.appendAsLeader(batch({ mark, timestamp: WALL_MS }), 0);
    log.advanceHighWatermark(offset(9));
    await world.run(100);
    world.simulation.host("host").jumpWallClock(3_600_000);
    const apply = () => world.complete(world.log().applyRetention(world.process.env.clock.wallMs()));
    expect(await apply()).toBe(0);
    expect(await apply()).toBeGreaterThan(0);
  });
});

describe("delete records", () => {
  it("moves the log start durably and removes whole segments", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300 });
    for (let mark = 0; mark < 9; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    log.advanceHighWatermark(offset(7));
    await expect(world.complete(log.advanceLogStart(offset(8)))).rejects.toMatchObject({
      errorName: "OFFSET_OUT_OF_RANGE",
    });
    await world.complete(log.advanceLogStart(offset(7)));
    expect(refusal(() => log.read(offset(6), { maxBytes: 1 }))).toBe("OFFSET_OUT_OF_RANGE");
    expect(world.disk.paths().filter(isLog).length).toBeLessThan(3);
    world.kill();
    await world.start();
    expect(world.log().logStartOffset).toBe(7);
    expect((await world.contents())[0]).toMatch(/^7-7/);
  });
});

describe("timestamps", () => {
  it("finds the first record at or after a time, exactly, over segments and unordered batches", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 400, indexIntervalBytes: 100 });
    const times: number[] = [];
    for (let mark = 0; mark < 40; mark += 1) {
      const timestamps = [0, 1, 2].map((at) => WALL_MS - 100_000 + ((mark * 37 + at * 11) % 50) * 10 + mark * 20);
      times.push(...timestamps);
      log.appendAsLeader(batch({ timestamps, mark }), 0);
    }
    const check = async (): Promise<void> => {
      for (let timestamp = WALL_MS - 100_100; timestamp < WALL_MS - 98_400; timestamp += 33) {
        const at = times.findIndex((time) => time >= timestamp);
        const expected = at < 0 ? undefined : { offset: at, timestamp: times[at] };
        expect(await world.complete(world.log().offsetForTimestamp(timestamp, offset(120)))).toEqual(expected);
      }
    };
    await check();
    expect(await world.complete(log.offsetForTimestamp(WALL_MS - 98_800, offset(60)))).toBeUndefined();
    world.kill();
    await world.start();
    await check();
  });
});

describe("producers", () => {
  it("are known after truncation, restart and roll, on leaders and followers", async () => {
    const world = await LogWorld.open();
    let log = world.log({ segmentBytes: 300 });
    const send = (baseSequence: number, mark = 0) =>
      log.appendAsLeader(batch({ producerId: 9, baseSequence, records: 2, mark }), 0);
    for (let sequence = 0; sequence < 20; sequence += 2) send(sequence);
    expect(send(14)).toMatchObject({ duplicate: true, baseOffset: 14, endOffset: 16 });
    expect(refusal(() => send(2))).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(refusal(() => send(22))).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
    await world.complete(log.truncateTo(offset(12)));
    expect(send(10)).toMatchObject({ duplicate: true, baseOffset: 10 });
    expect(refusal(() => send(14))).toBe("OUT_OF_ORDER_SEQUENCE_NUMBER");
    expect(send(12)).toMatchObject({ duplicate: false, baseOffset: 12 });
    world.kill();
    await world.start();
    log = world.log();
    expect(send(12)).toMatchObject({ duplicate: true, baseOffset: 12 });
    await world.stopCleanly();
    await world.start();
    log = world.log();
    expect(send(12)).toMatchObject({ duplicate: true, baseOffset: 12 });
    expect(send(14)).toMatchObject({ duplicate: false, baseOffset: 14 });
  });

  it("are taken over from the leader's batches", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    log.appendAsFollower(stampedBatch(0, 1, { producerId: 9, baseSequence: 0 }), 1);
    expect(log.appendAsLeader(batch({ producerId: 9, baseSequence: 0 }), 2)).toMatchObject({
      duplicate: true,
      baseOffset: 0,
    });
  });

  it("hold a duplicate back until the original is written", async () => {
    const world = await LogWorld.open();
    const log = world.log({ durability: "fsync" });
    const original = log.appendAsLeader(batch({ producerId: 9, baseSequence: 0 }), 0);
    const again = log.appendAsLeader(batch({ producerId: 9, baseSequence: 0 }), 0);
    expect(again.duplicate).toBe(true);
    expect(again.written).toBeDefined();
    await world.complete(Promise.all([original.written, again.written]));
  });

  it("send one batch at a time", async () => {
    const world = await LogWorld.open();
    const two = Buffer.concat([batch({ producerId: 9, baseSequence: 0 }), batch({ producerId: 9, baseSequence: 1 })]);
    expect(refusal(() => world.log().appendAsLeader(two, 0))).toBe("INVALID_RECORD");
  });
});
