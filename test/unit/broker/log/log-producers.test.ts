import type { Log } from "../../../../broker/log/log.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import { batch, DIRECTORY, LogWorld, offset, stampedBatch } from "./log-fixtures.js";

/** What a leader with this log does with a batch of two records: the offset it gets or has, or the refusal. */
function send(log: Log, producerId: number, baseSequence: number): string {
  try {
    const { duplicate, baseOffset } = log.appendAsLeader(
      batch({ producerId, baseSequence, records: 2 }),
      log.lastEpoch ?? 0,
    );
    return `${duplicate ? "at" : "new"} ${baseOffset}`;
  } catch (error) {
    if (error instanceof ApiError) return error.errorName;
    throw error;
  }
}

const removeSnapshots = async (world: LogWorld): Promise<void> => {
  for (const path of world.disk.paths().filter((name) => name.endsWith(".snapshot")))
    await world.complete(world.process.env.files.remove(path));
};

describe("the producers of a log", () => {
  it("are known as far as the records that are left show them, where there is no snapshot", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300 });
    for (let sequence = 0; sequence < 40; sequence += 2) send(log, 9, sequence);
    send(log, 8, 0);
    log.advanceHighWatermark(log.logEndOffset);
    await world.complete(log.advanceLogStart(offset(20)));
    const first = Number(log.segmentOf(offset(20)));
    expect(first).toBeGreaterThan(10);
    await world.stopCleanly();
    await removeSnapshots(world);
    await world.start();
    const again = world.log();
    expect(send(again, 9, 38)).toBe("at 38");
    expect(send(again, 9, first)).toBe("DUPLICATE_SEQUENCE_NUMBER");
    expect(send(again, 9, first - 2)).toBe("UNKNOWN_PRODUCER_ID");
    expect(send(again, 9, 40)).toBe("new 42");
  });

  it("are known by the last snapshot as they were before it", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300 });
    for (let sequence = 0; sequence < 40; sequence += 2) send(log, 9, sequence);
    log.advanceHighWatermark(log.logEndOffset);
    await world.complete(log.advanceLogStart(offset(20)));
    await world.stopCleanly();
    await world.start();
    expect(send(world.log(), 9, 2)).toBe("DUPLICATE_SEQUENCE_NUMBER");
  });

  it.each([12, 42])("outlive a power cut when what they sent was deleted before, up to offset %i", async (before) => {
    const seen: string[] = [];
    for (let seed = 1; seed <= 12; seed += 1) {
      const world = await LogWorld.open({ seed, settings: { segmentBytes: 300 } });
      const log = world.log({ segmentBytes: 300 });
      send(log, 8, 0);
      for (let sequence = 0; sequence < 40; sequence += 2) send(log, 9, sequence);
      await world.complete(log.flush());
      log.advanceHighWatermark(log.logEndOffset);
      if (before < 42) await world.complete(log.advanceLogStart(offset(before)));
      else {
        // After such a jump of the clock the first run is skipped.
        const wallMs = world.process.env.clock.wallMs() + 100 * 86_400_000;
        await world.complete(log.applyRetention(wallMs));
        await world.complete(log.applyRetention(wallMs));
        expect(log.logStartOffset).toBe(42);
      }
      await world.run(1000);
      world.powerCut();
      await world.start({ settings: { segmentBytes: 300 } });
      seen.push(send(world.log(), 8, 0));
    }
    expect(new Set(seen)).toEqual(new Set(["at 0"]));
  });

  it.each(["kill", "powerCut"] as const)(
    "outlive a %s when what they sent to a follower was deleted before",
    async (end) => {
      const seen: string[] = [];
      for (let seed = 1; seed <= 12; seed += 1) {
        const world = await LogWorld.open({ seed, settings: { segmentBytes: 300 } });
        const log = world.log({ segmentBytes: 300 });
        // A follower gets many batches at once, so that segments begin in the middle of what it appends.
        const batches = [stampedBatch(0, 0, { producerId: 8, baseSequence: 0, records: 2 })];
        for (let sequence = 0; sequence < 40; sequence += 2)
          batches.push(stampedBatch(sequence + 2, 0, { producerId: 9, baseSequence: sequence, records: 2 }));
        log.appendAsFollower(Buffer.concat(batches), 0);
        await world.complete(log.flush());
        log.advanceHighWatermark(log.logEndOffset);
        await world.complete(log.advanceLogStart(offset(12)));
        await world.run(1000);
        world[end]();
        await world.start({ settings: { segmentBytes: 300 } });
        seen.push(send(world.log(), 8, 0));
      }
      expect(new Set(seen)).toEqual(new Set(["at 0"]));
    },
  );

  it.each(["kill", "powerCut"] as const)(
    "outlive a %s when what they sent was deleted behind which a start had begun a segment",
    async (end) => {
      const seen: string[] = [];
      for (let seed = 1; seed <= 12; seed += 1) {
        const settings = { flushMs: 1_000_000 };
        const world = await LogWorld.open({ seed, settings });
        const first = world.log(settings);
        send(first, 8, 0);
        send(first, 9, 0);
        await world.complete(first.flush());
        await world.run(6000);
        send(first, 9, 2);
        await world.run(10);
        world.kill();
        await world.start({ settings });
        const log = world.log(settings);
        // Made on the way: nobody has to read the segment in front for it.
        expect(world.disk.namesIn(`${DIRECTORY}/orders-0`)).toContain("00000000000000000004.snapshot");
        log.advanceHighWatermark(log.logEndOffset);
        await world.complete(log.advanceLogStart(offset(4)));
        await world.run(1000);
        world[end]();
        await world.start({ settings });
        seen.push(send(world.log(), 8, 0));
      }
      expect(new Set(seen)).toEqual(new Set(["at 0"]));
    },
  );

  it("are not taken from a snapshot behind which records are missing", async () => {
    const world = await LogWorld.open();
    const log = world.log({ segmentBytes: 300 });
    for (let sequence = 0; sequence < 40; sequence += 2) send(log, 9, sequence);
    await world.complete(log.flush());
    const [, old = "", ...newer] = world.disk.paths().filter((name) => name.endsWith(".snapshot"));
    const content = world.disk.contentOf(old) ?? Buffer.alloc(0);
    for (let sequence = 0; sequence < 20; sequence += 2) send(log, 8, sequence);
    log.advanceHighWatermark(log.logEndOffset);
    await world.complete(log.advanceLogStart(offset(44)));
    expect(newer.length).toBeGreaterThan(1);
    await world.stopCleanly();
    await removeSnapshots(world);
    await world.complete(world.process.env.files.writeFile(old, content));
    await world.start();
    // By the snapshot this one would be next. It has been written since.
    const next = Number(/(\d+)\.snapshot/.exec(old)?.[1]);
    expect(next).toBeGreaterThan(0);
    expect(send(world.log(), 9, next)).toBe("UNKNOWN_PRODUCER_ID");
    expect(send(world.log(), 8, 18)).toBe("at 58");
  });

  it.each([
    ["in the middle", 2],
    ["at the end", 3],
  ])("are forgotten where a damaged batch may be theirs (%s)", async (_, damaged) => {
    const world = await LogWorld.open();
    const log = world.log();
    for (let sequence = 0; sequence < 6; sequence += 2) send(log, 9, sequence);
    send(log, 8, 0);
    await world.complete(log.flush());
    await world.stopCleanly();
    await removeSnapshots(world);
    const [path = ""] = world.disk.paths().filter((name) => name.endsWith(".log"));
    const size = world.disk.contentOf(path)?.length ?? 0;
    // Four batches of one size.
    world.disk.flipBit(path, Math.floor((size * (damaged + 0.5)) / 4), 0);
    await world.start();
    expect(send(world.log(), 9, 4)).toBe("UNKNOWN_PRODUCER_ID");
    expect(send(world.log(), 8, 0)).toBe(damaged === 2 ? "at 6" : "new 8");
  });

  it("are not taken from snapshots of a log that was dropped", async () => {
    const world = await LogWorld.open();
    let log = world.log();
    await world.complete(log.truncateFullyAndStartAt(offset(100)));
    log.appendAsFollower(stampedBatch(100, 0, { producerId: 9, baseSequence: 0, records: 2 }), 0);
    await world.stopCleanly();
    await world.start();
    log = world.log();
    // Its leader has something else at that offset.
    await world.complete(log.truncateFullyAndStartAt(offset(98)));
    for (let at = 98; at < 110; at += 2)
      log.appendAsFollower(stampedBatch(at, 1, { producerId: 8, baseSequence: at - 98, records: 2 }), 1);
    world.kill();
    await world.start();
    expect(send(world.log(), 8, 10)).toBe("at 108");
    expect(send(world.log(), 9, 0)).toBe("new 110");
  });
});
