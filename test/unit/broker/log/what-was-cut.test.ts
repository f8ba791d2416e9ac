import { jest } from "@jest/globals";
import { batch, DIRECTORY, LogWorld, offset, readAll, stampedBatch } from "./log-fixtures.js";

// Some go through every moment at which a process can die.
jest.setTimeout(60_000);

const settings = { flushMs: 1_000_000 };
const ends = ["kill", "powerCutWithoutLoss"] as const;

/** Five records of epoch 6, durable, behind which nothing was ever written. */
async function fiveRecords(options: Parameters<typeof LogWorld.open>[0] = {}): Promise<LogWorld> {
  const world = await LogWorld.open({ settings, ...options });
  world.log(settings).appendAsFollower(stampedBatch(0, 6, { records: 5, mark: 1 }), 6);
  await world.complete(world.log().flush());
  await world.run(6_000);
  return world;
}

/** The epochs that the batches of the log say, and the newest that the log itself says. */
async function epochs(world: LogWorld): Promise<{ ofBatches: number | undefined; ofLog: number | undefined }> {
  const batches = await world.complete(readAll(world.log()));
  return { ofBatches: batches.at(-1)?.leaderEpoch, ofLog: world.log().lastEpoch };
}

describe("an epoch in front of a log start that did not become durable", () => {
  it("is known again with its records", async () => {
    const world = await LogWorld.open({ settings });
    const log = world.log(settings);
    for (const [epoch, base] of [
      [3, 0],
      [4, 5],
      [6, 10],
    ] as const)
      log.appendAsFollower(stampedBatch(base, epoch, { records: 5, mark: epoch }), epoch);
    log.advanceHighWatermark(offset(15));
    await world.complete(log.flush());
    await world.run(6_000);
    const path = `${DIRECTORY}/log-start-offset-checkpoint`;
    const before = world.disk.contentOf(path);
    await world.complete(log.advanceLogStart(offset(12)));
    await world.complete(log.flush());
    await world.run(6_000);
    world.kill();
    const file = world.disk.open(path, "create");
    world.disk.truncate(file, path, 0);
    world.disk.write(file, path, Uint8Array.from(before ?? []), 0);
    world.disk.close(file);
    await world.start({ settings });
    const again = world.log();
    expect(again.logStartOffset).toBe(0);
    expect([3, 4, 5, 6].map((epoch) => again.endOffsetForEpoch(epoch))).toEqual([
      { epoch: 3, endOffset: 5 },
      { epoch: 4, endOffset: 10 },
      { epoch: 4, endOffset: 10 },
      { epoch: 6, endOffset: 15 },
    ]);
  });
});

describe("a log of which all records were deleted", () => {
  it.each(ends)("is of the epoch of the last one, also after %s", async (end) => {
    const world = await fiveRecords();
    const log = world.log();
    log.advanceHighWatermark(offset(5));
    await world.complete(log.advanceLogStart(offset(5)));
    await world.complete(log.flush());
    await world.run(6_000);
    world[end]();
    await world.start({ settings });
    const again = world.log();
    expect([again.logStartOffset, again.logEndOffset, again.lastEpoch]).toEqual([5, 5, 6]);
    expect(again.endOffsetForEpoch(6)).toEqual({ epoch: 6, endOffset: 5 });
  });
});

describe("a log that begins anew in front of where it began", () => {
  it("is there as before or is gone, whenever the process dies or the power fails, and has lost nothing", async () => {
    const seen = { before: 0, after: 0 };
    for (const end of ["kill", "powerCut"] as const) {
      for (let afterMs = 0; afterMs <= 16; afterMs += 0.25) {
        const world = await LogWorld.open({ seed: 1 + afterMs * 4, settings });
        const log = world.log(settings);
        await world.complete(log.truncateFullyAndStartAt(offset(100)));
        log.appendAsFollower(stampedBatch(100, 6, { records: 5, mark: 1 }), 6);
        await world.complete(log.flush());
        await world.run(6_000);
        await world.complete(world.manager.recoveryReported());
        // Its leader has lost what was before, and has other records since.
        log.truncateFullyAndStartAt(offset(50)).then(
          () => log.appendAsFollower(stampedBatch(50, 7, { mark: 2 }), 7),
          () => undefined,
        );
        await world.run(afterMs);
        world[end]();
        await world.start({ settings });
        const again = world.log();
        const stop = end === "kill" ? "crash" : "power-cut";
        const at = [end, afterMs] as const;
        expect([...at, again.damage, world.manager.untoldStop]).toEqual([...at, [], stop]);
        const isBefore = again.logStartOffset === 100;
        expect([...at, again.logStartOffset]).toEqual([...at, isBefore ? 100 : 50]);
        if (again.logEndOffset > again.logStartOffset)
          expect([...at, await world.contents()]).toEqual([...at, isBefore ? ["100-104@6:1"] : ["50-50@7:2"]]);
        seen[isBefore ? "before" : "after"] += 1;
      }
    }
    expect([seen.before > 2, seen.after > 2]).toEqual([true, true]);
  });

  it("does not say that it begins later because a checkpoint of the time before is done only now", async () => {
    const world = await fiveRecords();
    const log = world.log();
    log.advanceHighWatermark(offset(5));
    const advanced = log.advanceLogStart(offset(4));
    const begun = log.truncateFullyAndStartAt(offset(2));
    await world.complete(Promise.all([advanced, begun]));
    expect([log.logStartOffset, log.durableLogStart]).toEqual([2, 2]);
    world.kill();
    await world.start({ settings });
    expect(world.log().logStartOffset).toBe(2);
  });
});

describe("an epoch that was cut off", () => {
  it.each(ends)("without a record does not come back (%s)", async (end) => {
    const world = await fiveRecords();
    const log = world.log();
    log.assignEpochStart(7, offset(5));
    await world.complete(log.flush());
    await world.complete(log.truncateTo(offset(5)));
    log.appendAsFollower(stampedBatch(5, 6, { records: 3, mark: 2 }), 6);
    world[end]();
    await world.start({ settings });
    expect(await epochs(world)).toEqual({ ofBatches: 6, ofLog: 6 });
    expect(world.log().endOffsetForEpoch(6)).toEqual({ epoch: 6, endOffset: 8 });
  });

  it.each(
    ends.flatMap((end) => [
      [end, "cut to nothing", 0],
      [end, "begun anew", 40],
    ]) as [(typeof ends)[number], string, number][],
  )("with all records does not come back (%s, a log %s)", async (end, _, at) => {
    const world = await fiveRecords();
    const log = world.log();
    await world.complete(at === 0 ? log.truncateTo(offset(0)) : log.truncateFullyAndStartAt(offset(at)));
    log.appendAsFollower(stampedBatch(at, 4, { records: 3, mark: 2 }), 4);
    world[end]();
    await world.start({ settings });
    expect(await epochs(world)).toEqual({ ofBatches: 4, ofLog: 4 });
    expect(world.log().endOffsetForEpoch(4)).toEqual({ epoch: 4, endOffset: at + 3 });
  });

  it("while the disk was full does not come back", async () => {
    const world = await fiveRecords();
    const log = world.log();
    log.appendAsFollower(stampedBatch(5, 7, { records: 5, mark: 2 }), 7);
    await world.complete(log.flush());
    world.disk.fail("create", (path) => path.endsWith("leader-epoch-checkpoint.tmp"), { reason: "full", times: 1 });
    await world.complete(log.truncateTo(offset(5)));
    log.appendAsFollower(stampedBatch(5, 6, { records: 3, mark: 3 }), 6);
    world.kill();
    await world.start({ settings });
    expect(await epochs(world)).toEqual({ ofBatches: 6, ofLog: 6 });
  });

  it("because its first record could not be written does not come back", async () => {
    const world = await fiveRecords();
    const log = world.log();
    // A flush writes the epochs down while the record is on its way to a disk that has no room for it.
    log.assignEpochStart(7, offset(5));
    await world.complete(log.flush());
    world.disk.fail("write", (path) => path.endsWith(".log"), { reason: "full", times: 1 });
    expect(() => log.appendAsLeader(batch({ mark: 2 }), 7)).toThrow(/full/);
    await world.run(2_000);
    log.appendAsFollower(stampedBatch(5, 6, { records: 3, mark: 3 }), 6);
    world.kill();
    await world.start({ settings });
    expect(await epochs(world)).toEqual({ ofBatches: 6, ofLog: 6 });
  });

  it("is there as before or is gone, whenever the process dies or the power fails", async () => {
    const cuts = [
      ["an epoch without a record", 10, 8],
      ["records", 5, 6],
      ["all records", 0, 3],
      ["the log for another one", 40, 3],
    ] as const;
    for (const end of ["kill", "powerCut"] as const) {
      for (const [what, at, next] of cuts) {
        const moments = { before: 0, after: 0 };
        for (let afterMs = 0; afterMs <= 16; afterMs += 0.5) {
          const world = await fiveRecords({ seed: 1 + afterMs * 2 });
          const log = world.log();
          log.appendAsFollower(stampedBatch(5, 7, { records: 5, mark: 2 }), 7);
          log.assignEpochStart(8, offset(10));
          await world.complete(log.flush());
          await world.run(6_000);
          const cut = at > 10 ? log.truncateFullyAndStartAt(offset(at)) : log.truncateTo(offset(at));
          let done = false;
          cut.then(
            () => {
              done = true;
              log.appendAsFollower(
                stampedBatch(at, what === "an epoch without a record" ? 7 : next, { mark: 3 }),
                what === "an epoch without a record" ? 7 : next,
              );
            },
            () => undefined,
          );
          await world.run(afterMs);
          moments[done ? "after" : "before"] += 1;
          world[end]();
          await world.start({ settings });
          const { ofBatches, ofLog } = await epochs(world);
          const where = `${what}: ${end} after ${afterMs} ms`;
          expect([where, world.log().damage]).toEqual([where, []]);
          // The last epoch is that of the last batch, or the one without a record behind what was there before.
          const asBefore = !done && world.log().logEndOffset === 10 && ofLog === 8;
          if (ofBatches !== undefined && !asBefore) expect([where, ofLog]).toEqual([where, ofBatches]);
        }
        expect([what, moments.before > 2, moments.after > 2]).toEqual([what, true, true]);
      }
    }
  });
});

describe("a segment whose first write failed", () => {
  it("does not come back by a power cut behind what was appended since", async () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const world = await LogWorld.open({ seed, settings });
      const log = world.log({ ...settings, segmentBytes: 300 });
      log.appendAsLeader(batch({ mark: 1, valueBytes: 100 }), 1);
      await world.complete(log.flush());
      // The disk takes the first two batches, of which the second begins a segment, and a part of the third.
      const two = [batch({ mark: 2, valueBytes: 20 }), batch({ mark: 3, valueBytes: 100 })];
      world.disk.setCapacity(world.disk.usedBytes + Buffer.concat(two).length + 10);
      expect(() => log.appendAsLeader(Buffer.concat([...two, batch({ mark: 5 })]), 1)).toThrow(/full/);
      expect(world.disk.paths()).toContain(`${DIRECTORY}/orders-0/${"2".padStart(20, "0")}.log`);
      world.disk.setCapacity(Number.POSITIVE_INFINITY);
      await world.run(2_000);
      log.appendAsLeader(batch({ mark: 4 }), 1);
      // What is in the files gets to the disk by itself, names when they are synced.
      for (const path of world.disk.paths().filter((each) => each.endsWith(".log"))) {
        const file = world.disk.open(path, "write");
        world.disk.sync(file, path);
        world.disk.close(file);
      }
      world.powerCut();
      await world.start({ settings });
      expect([seed, await world.contents()]).toEqual([seed, ["0-0@1:1", "1-1@1:4"]]);
    }
  });
});

describe("producers that were cut off", () => {
  const sent = (sequence: number): Buffer => batch({ mark: sequence, producerId: 9, baseSequence: sequence });

  /** Eight records of producer 9, and a snapshot that says so. */
  async function eightOfOne(seed = 1): Promise<LogWorld> {
    const world = await LogWorld.open({ seed, settings });
    for (let sequence = 0; sequence < 8; sequence += 1) world.log(settings).appendAsLeader(sent(sequence), 1);
    await world.stopCleanly();
    await world.start({ settings });
    return world;
  }

  /** As many records of nobody, so that the log is longer than the snapshot says. */
  async function grow(world: LogWorld): Promise<void> {
    const log = world.log();
    while (log.nextOffset < 9) {
      const { written } = log.appendAsLeader(batch({ mark: 50 }), 1);
      await world.complete(written ?? Promise.resolve());
    }
  }

  it.each([
    ["cut to nothing", (world: LogWorld) => world.log().truncateTo(offset(0))],
    ["begun anew", (world: LogWorld) => world.log().truncateFullyAndStartAt(offset(8))],
  ])("do not come back with a log that was %s", async (_, cut) => {
    const world = await eightOfOne();
    await world.complete(cut(world));
    await grow(world);
    world.kill();
    await world.start({ settings });
    // Known, it would be a duplicate.
    expect(() => world.log().appendAsLeader(sent(7), 1)).toThrow(/not remembered/);
  });

  it("do not come back by a power cut after recovery took them off", async () => {
    for (let seed = 1; seed <= 10; seed += 1) {
      const world = await eightOfOne(seed);
      world.kill();
      // As a power cut leaves a log whose end had not been written back.
      const path = `${DIRECTORY}/orders-0/${"0".repeat(20)}.log`;
      world.disk.remove(`${DIRECTORY}/recovery-point-offset-checkpoint`);
      const file = world.disk.open(path, "write");
      world.disk.truncate(file, path, world.disk.contentOf(path)!.length / 2);
      world.disk.close(file);
      world.disk.writeBack();
      await world.start({ settings });
      expect(world.log().logEndOffset).toBe(4);
      const fsync = { ...world.log().settings, durability: "fsync" as const };
      world.log().updateSettings(fsync);
      await grow(world);
      world.powerCut();
      await world.start({ settings });
      expect(world.log().logEndOffset).toBe(9);
      expect(() => world.log().appendAsLeader(sent(7), 1)).toThrow(/sends sequence 7 where 4 is next/);
    }
  });
});

describe("a high watermark above a cut", () => {
  it("does not come back", async () => {
    const world = await fiveRecords();
    const log = world.log();
    log.appendAsFollower(stampedBatch(5, 7, { records: 5, mark: 2 }), 7);
    log.advanceHighWatermark(offset(10));
    await world.run(6_000);
    expect(log.flushedOffset).toBe(5);
    await world.complete(log.truncateTo(offset(5)));
    log.appendAsFollower(stampedBatch(5, 8, { records: 5, mark: 3 }), 8);
    world.kill();
    await world.start({ settings });
    expect([world.log().logEndOffset, world.log().highWatermark]).toEqual([10, 5]);
  });
});

describe("a log start that was moved", () => {
  it("is durable for each who asked for it, also while another one waits for space", async () => {
    const world = await fiveRecords();
    const log = world.log();
    log.advanceHighWatermark(offset(5));
    const endFault = world.disk.fail("create", (path) => path.includes("log-start"), { reason: "full" });
    let ended = 0;
    const both = Promise.all(
      [log.advanceLogStart(offset(3)), log.advanceLogStart(offset(3))].map((moved) => moved.then(() => (ended += 1))),
    );
    await world.run(2000);
    expect(ended).toBe(0);
    endFault();
    await world.complete(both);
    world.kill();
    await world.start({ settings });
    expect(world.log().logStartOffset).toBe(3);
  });
});

describe("records that were cut off", () => {
  it("do not come back behind others when the cut could not be synced and the power fails later", async () => {
    const world = await LogWorld.open({ settings });
    for (let mark = 0; mark < 5; mark += 1) world.log(settings).appendAsLeader(batch({ mark }), 6);
    await world.complete(world.log().flush());
    await world.run(6_000);
    world.disk.fail("sync", (path) => path.endsWith(".log"), { times: 1 });
    await expect(world.complete(world.log().truncateTo(offset(2)))).rejects.toMatchObject({ reason: "io" });
    world.kill();
    await world.start({ settings });
    world.log().appendAsFollower(stampedBatch(2, 6, { mark: 7 }), 6);
    await world.complete(world.log().flush());
    world.powerCut();
    await world.start({ settings });
    expect(await world.contents()).toEqual(["0-0@6:0", "1-1@6:1", "2-2@6:7"]);
  });
});
