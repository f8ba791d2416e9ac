import { jest } from "@jest/globals";
import fc from "fast-check";
import type { LogSettings } from "../../../../broker/log/log-settings.js";
import { readBatches } from "../../../../protocol/record-batch.js";
import { batch, DIRECTORY, LogWorld, offset, readAll, summary } from "./log-fixtures.js";

// Properties and every byte take seconds; on a busy machine many of them.
jest.setTimeout(60_000);

const ORDERS = `${DIRECTORY}/orders-0`;
const segmentPath = (base: number): string => `${ORDERS}/${String(base).padStart(20, "0")}.log`;

async function cutFile(world: LogWorld, path: string, length: number): Promise<void> {
  const file = await world.complete(world.process.env.files.open(path, "write"));
  await world.complete(file.truncate(length));
  await world.complete(file.close());
}

/** Batches of which the first `flushed` are durable, and the checkpoint says so. Then the process is killed. */
async function killedWith(
  flushed: number,
  settings: Partial<LogSettings> = {},
  batches = 6,
): Promise<{ world: LogWorld; positions: number[] }> {
  const world = await LogWorld.open({ settings: { flushMs: 1_000_000, ...settings } });
  const log = world.log({ flushMs: 1_000_000, ...settings });
  const positions = [0];
  for (let mark = 0; mark < batches; mark += 1) {
    if (mark === flushed) {
      await world.complete(log.flush());
      await world.run(6_000);
    }
    const bytes = batch({ records: 2, mark, valueBytes: 3 });
    log.appendAsLeader(bytes, mark);
    positions.push(positions.at(-1)! + bytes.length);
  }
  if (flushed === batches) {
    await world.complete(log.flush());
    await world.run(6_000);
  }
  world.kill();
  return { world, positions };
}

const whole = (count: number): string[] =>
  Array.from({ length: count }, (_, mark) => `${mark * 2}-${mark * 2 + 1}@${mark}:${mark}`);

describe("a log cut at every byte", () => {
  it.each(["crash", "power-cut"] as const)(
    "keeps every whole batch and reports what was durable (%s)",
    async (lastStop) => {
      const flushed = 2;
      const { positions } = await killedWith(flushed, {}, 4);
      const end = positions.at(-1)!;
      for (let length = 0; length <= end; length += 1) {
        const { world } = await killedWith(flushed, {}, 4);
        await cutFile(world, segmentPath(0), length);
        if (lastStop === "power-cut") world.powerCutWithoutLoss();
        await world.start();
        const log = world.log();
        const count = positions.filter((position) => position > 0 && position <= length).length;
        if (count >= flushed) {
          expect(await world.contents()).toEqual(whole(count));
          expect(log.logEndOffset).toBe(count * 2);
          expect(log.damage).toEqual([]);
          expect(log.wasCut).toBe(!positions.includes(length));
        } else {
          expect(log.damage).toEqual([expect.objectContaining({ from: count * 2, to: flushed * 2 })]);
          expect(log.logEndOffset).toBe(flushed * 2);
          expect(summary(await world.complete(readAll(log, 0, count * 2)))).toEqual(whole(count));
          expect(() => log.read(offset(count * 2), { maxBytes: 1 })).toThrow(/damaged/);
        }
        // It goes on from there, and finds the same again. Not at each byte: that would take too long.
        if (length % 7 > 0 && !positions.includes(length)) continue;
        const epoch = log.lastEpoch ?? 0;
        const appended = log.appendAsLeader(batch({ mark: 99 }), epoch);
        expect(appended.baseOffset).toBe(log.logEndOffset - 1);
        await world.stopCleanly();
        await world.start();
        const again = world.log();
        expect(again.logEndOffset).toBe(appended.endOffset);
        expect(summary(await world.complete(readAll(again, appended.baseOffset)))).toEqual([
          `${appended.baseOffset}-${appended.baseOffset}@${epoch}:99`,
        ]);
      }
    },
  );
});

describe("a log with one changed bit", () => {
  it("never delivers damage, keeps all before it and reports what was durable", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          flushed: fc.integer({ min: 0, max: 5 }),
          where: fc.integer({ min: 0, max: 9_999 }),
          bit: fc.integer({ min: 0, max: 7 }),
          lastStop: fc.constantFrom("crash" as const, "power-cut" as const),
          segmentBytes: fc.constantFrom(300, 100_000),
        }),
        async ({ flushed, where, bit, lastStop, segmentBytes }) => {
          const { world } = await killedWith(flushed, { segmentBytes });
          if (lastStop === "power-cut") world.powerCutWithoutLoss();
          const paths = world.disk.paths().filter((path) => path.endsWith(".log"));
          const path = paths[where % paths.length]!;
          const position = where % world.disk.contentOf(path)!.length;
          const original = readBatches(Buffer.from(world.disk.contentOf(path)!));
          const hit = original.find((one) => one.start <= position && one.end > position)!;
          world.disk.flipBit(path, position, bit);
          await world.start({ settings: { segmentBytes } });
          const log = world.log();
          // A segment that was durable as a whole is not read by recovery, but when somebody asks for its records.
          await world.complete(log.verifyRange(hit.baseOffset));
          const wasDurable = hit.endOffset <= flushed * 2;
          if (wasDurable) {
            expect(log.damage).toEqual([expect.objectContaining({ from: hit.baseOffset, to: hit.endOffset })]);
            expect(() => log.read(hit.baseOffset, { maxBytes: 1 })).toThrow(/damaged/);
          } else {
            expect([log.damage, log.logEndOffset, log.wasCut]).toEqual([[], hit.baseOffset, true]);
          }
          const before = await world.complete(readAll(log, 0, hit.baseOffset));
          expect(summary(before)).toEqual(whole(hit.baseOffset / 2));
          const behind = wasDurable ? await world.complete(readAll(log, hit.endOffset)) : [];
          expect(summary(behind)).toEqual(wasDurable ? whole(6).slice(hit.endOffset / 2) : []);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe("segments", () => {
  it("drops whole segments behind a hole, for they were written later", async () => {
    const { world } = await killedWith(0, { segmentBytes: 300 });
    const paths = world.disk.paths().filter((path) => path.endsWith(".log"));
    expect(paths.length).toBeGreaterThan(2);
    await cutFile(world, paths[0]!, world.disk.contentOf(paths[0]!)!.length / 2);
    world.powerCutWithoutLoss();
    await world.start();
    expect(await world.contents()).toEqual(whole(1));
    expect(world.log().wasCut).toBe(true);
    expect(world.disk.paths().filter((path) => path.endsWith(".log"))).toEqual([segmentPath(0)]);
  });

  it("tells what is lost when the files of durable segments are gone", async () => {
    const { world } = await killedWith(6, { segmentBytes: 300 });
    const paths = world.disk.paths().filter((path) => path.endsWith(".log"));
    await world.complete(world.process.env.files.remove(paths.at(-1)!));
    world.powerCutWithoutLoss();
    await world.start();
    const lost = Number(paths.at(-1)!.slice(-24, -4));
    expect(world.log().damage).toEqual([expect.objectContaining({ from: lost, to: 12 })]);
    expect(world.log().logEndOffset).toBe(12);
    expect(summary(await world.complete(readAll(world.log(), 0, lost)))).toEqual(whole(lost / 2));
  });

  it("mean nothing after a power cut that took the ones before them", async () => {
    const { world } = await killedWith(0, { segmentBytes: 300 });
    await world.complete(world.process.env.files.remove(segmentPath(0)));
    world.powerCutWithoutLoss();
    await world.start();
    expect(world.log()).toMatchObject({ logStartOffset: 0, logEndOffset: 0, wasCut: true, damage: [] });
    expect(world.disk.paths().filter((path) => path.endsWith(".log"))).toEqual([]);
  });

  it("cuts a zero-filled tail, as some file systems leave it", async () => {
    const { world, positions } = await killedWith(2);
    const file = await world.complete(world.process.env.files.open(segmentPath(0), "write"));
    await world.complete(file.write([Buffer.alloc(5_000)], positions[4]!));
    world.powerCutWithoutLoss();
    await world.start();
    expect(await world.contents()).toEqual(whole(4));
    expect(world.log().wasCut).toBe(true);
  });
});

describe("sidecar files", () => {
  it("are made anew when they are missing or wrong", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0 });
    const log = world.log({ segmentBytes: 2_000, indexIntervalBytes: 200 });
    for (let mark = 0; mark < 60; mark += 1)
      log.appendAsLeader(batch({ mark, producerId: 5, baseSequence: mark }), mark);
    const contents = await world.contents();
    await world.stopCleanly();
    const sidecars = world.disk.paths().filter((path) => path.startsWith(ORDERS) && !path.endsWith(".log"));
    expect(sidecars.length).toBeGreaterThan(6);
    sidecars.forEach((path, at) => {
      const length = world.disk.contentOf(path)!.length;
      if (path.endsWith("partition.metadata")) return;
      if (length > 0) world.disk.flipBit(path, (at * 7) % length, at % 8);
    });
    await world.start({ settings: { indexIntervalBytes: 200 } });
    const again = world.log();
    expect(await world.contents()).toEqual(contents);
    expect(again.endOffsetForEpoch(30)).toEqual({ epoch: 30, endOffset: 31 });
    // The producer is known.
    expect(again.appendAsLeader(batch({ mark: 59, producerId: 5, baseSequence: 59 }), 60)).toMatchObject({
      duplicate: true,
      baseOffset: 59,
    });
  });
});

describe("power cuts", () => {
  it.each(["fsync", "page-cache"] as const)("lose nothing that %s promised, and no order", async (durability) => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          seed: fc.nat(),
          rounds: fc.array(
            fc.record({
              appends: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 12 }),
              pauseMs: fc.integer({ min: 0, max: 4 }),
              end: fc.constantFrom("power" as const, "kill" as const),
              recoveryCutAfterMs: fc.option(fc.integer({ min: 0, max: 20 })),
            }),
            { minLength: 1, maxLength: 4 },
          ),
        }),
        async ({ seed, rounds }) => {
          const settings = { durability, segmentBytes: 500, flushMs: 3, indexIntervalBytes: 150 };
          const world = await LogWorld.open({ seed, settings });
          let sent: string[] = [];
          let mark = 0;
          let acknowledged = 0;
          for (const round of rounds) {
            const log = world.log(settings);
            for (const records of round.appends) {
              mark += 1;
              const { baseOffset, endOffset, written } = log.appendAsLeader(batch({ records, mark: mark % 128 }), 1);
              sent.push(`${baseOffset}-${endOffset - 1}@1:${mark % 128}`);
              written?.then(
                () => (acknowledged = Math.max(acknowledged, endOffset)),
                () => undefined,
              );
              if (round.pauseMs > 0 && mark % 3 === 0) await world.run(round.pauseMs);
            }
            if (durability === "page-cache") acknowledged = log.flushedOffset;
            // A process that is killed leaves its page cache; what it wrote is there.
            const written = log.logEndOffset;
            const died = round.end === "power" ? "powerCut" : "kill";
            world[died]();
            if (round.recoveryCutAfterMs !== null) {
              await world.startCutShort(round.recoveryCutAfterMs, "powerCut", { settings });
            }
            await world.start({ settings });
            const found = await world.contents();
            expect(found).toEqual(sent.slice(0, found.length));
            const recovered = world.log(settings);
            expect(recovered.damage).toEqual([]);
            expect(recovered.logEndOffset).toBeGreaterThanOrEqual(acknowledged);
            if (died === "kill" && round.recoveryCutAfterMs === null)
              expect(recovered.logEndOffset).toBeGreaterThanOrEqual(written);
            expect(recovered.flushedOffset).toBe(recovered.logEndOffset);
            sent = found;
            acknowledged = recovered.logEndOffset;
          }
          expect(world.fatal).toEqual([]);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("leave a truncation, a restart or a deletion done, undone or in between, and never look like rot", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          seed: fc.nat(),
          what: fc.constantFrom("truncate" as const, "restart" as const, "delete" as const),
          at: fc.integer({ min: 1, max: 20 }),
          afterMs: fc.integer({ min: 0, max: 25 }),
          end: fc.constantFrom("powerCut" as const, "kill" as const),
        }),
        async ({ seed, what, at, afterMs, end }) => {
          const settings = { durability: "fsync" as const, segmentBytes: 400, indexIntervalBytes: 150 };
          const world = await LogWorld.open({ seed, settings });
          const log = world.log(settings);
          for (let mark = 0; mark < 20; mark += 1)
            await world.complete(log.appendAsLeader(batch({ mark }), mark).written!);
          log.advanceHighWatermark(offset(20));
          await world.run(6_000);
          const before = await world.contents();
          let done = false;
          const change =
            what === "truncate"
              ? log.truncateTo(offset(at))
              : what === "restart"
                ? log.truncateFullyAndStartAt(offset(at + 30))
                : log.advanceLogStart(offset(at));
          void change.then(() => (done = true));
          await world.run(afterMs);
          world[end]();
          await world.start({ settings });
          const again = world.log();
          expect(again.damage).toEqual([]);
          const found = await world.contents();
          if (what === "truncate") {
            expect(found).toEqual(before.slice(0, found.length));
            expect(found.length).toBeGreaterThanOrEqual(at);
            if (done) expect(found).toHaveLength(at);
          } else if (what === "restart") {
            expect(found).toEqual(before.slice(0, found.length));
            if (done) expect([again.logStartOffset, again.logEndOffset]).toEqual([at + 30, at + 30]);
          } else {
            expect(found).toEqual(before.slice(before.length - found.length));
            expect([0, at]).toContain(again.logStartOffset);
            if (done) expect(again.logStartOffset).toBe(at);
          }
          const epoch = Math.max(30, again.lastEpoch ?? 0);
          const { baseOffset, written } = again.appendAsLeader(batch({ mark: 99 }), epoch);
          await world.complete(written ?? Promise.resolve());
          expect((await world.contents()).at(-1)).toBe(`${baseOffset}-${baseOffset}@${epoch}:99`);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("do not take what a crash left in the page cache, although a sync had lied about it", async () => {
    const world = await LogWorld.open();
    const log = world.log({ flushMs: 50 });
    log.appendAsLeader(batch({ mark: 1 }), 0);
    world.disk.fail("sync", (path) => path.endsWith(".log"), { times: 1 });
    await world.run(200);
    expect(world.fatal).toHaveLength(1);
    world.kill();
    await world.start();
    expect(await world.contents()).toEqual(["0-0@0:1"]);
    world.powerCut();
    await world.start();
    expect(await world.contents()).toEqual(["0-0@0:1"]);
  });
});

describe("a start that finds only the torn first write of a file", () => {
  it.each([
    ["the first segment", 0],
    ["a later segment", 3],
  ])("loses nothing that is synced from then on, by a power cut (%s)", async (_, before) => {
    // Each draws anew what the disk keeps of names and writes that were not synced.
    for (let seed = 1; seed <= 12; seed += 1) {
      const settings = { durability: "fsync", segmentBytes: 200 } as const;
      const world = await LogWorld.open({ seed, settings });
      const append = (mark: number): Promise<void> =>
        world.complete(world.log(settings).appendAsLeader(batch({ mark, valueBytes: 100 }), 0).written!);
      for (let mark = 0; mark < before; mark += 1) await append(mark);
      // The checkpoint knows that all of it is durable.
      await world.run(6_000);
      world.disk.fail("write", (path) => path.endsWith(".log"), { reason: "io", times: 1 });
      expect(() => world.log(settings).appendAsLeader(batch({ mark: 9, valueBytes: 100 }), 0)).toThrow();
      world.kill();
      await world.start({ settings });
      await append(before);
      world.powerCut();
      await world.start({ settings });
      const expected = Array.from({ length: before + 1 }, (_, offset) => `${offset}-${offset}@0:${offset}`);
      expect([seed, await world.contents()]).toEqual([seed, expected]);
    }
  });
});

/** Six batches, none of them synced, of a process that was killed when the cluster knew how the runs before had ended. */
async function killedUnsynced(): Promise<LogWorld> {
  const flushMs = 1_000_000;
  const world = await LogWorld.open({ settings: { flushMs } });
  await world.complete(world.manager.recoveryReported());
  const log = world.log({ flushMs });
  for (let mark = 0; mark < 6; mark += 1) log.appendAsLeader(batch({ mark, valueBytes: 20 }), 0);
  world.kill();
  return world;
}

describe("how the last run ended", () => {
  it("is told by mark and boot id, and stays told until it was reported", async () => {
    const world = await LogWorld.open();
    world.log().appendAsLeader(batch(), 0);
    await world.complete(world.manager.recoveryReported());
    world.kill();
    expect(await world.lastStop()).toBe("crash");
    world.powerCut();
    expect(await world.lastStop()).toBe("power-cut");
    await world.start();
    world.kill();
    expect(await world.lastStop()).toBe("power-cut");
    await world.start();
    await world.complete(world.manager.recoveryReported());
    world.kill();
    expect(await world.lastStop()).toBe("crash");
    await world.start();
    await world.complete(world.manager.recoveryReported());
    await world.stopCleanly();
    expect(await world.lastStop()).toBe("clean");
  });

  it("is told like a lost disk when the process alone died and more is gone than its last write", async () => {
    for (const [what, damage, expected] of [
      [
        "the last write is torn",
        (size: number, path: string, world: LogWorld) => cutFile(world, path, size - 5),
        "crash",
      ],
      [
        "a batch in the middle is bad",
        (size: number, path: string, world: LogWorld) => world.disk.flipBit(path, size / 2),
        "lost",
      ],
      [
        "the last batch is there as a whole and bad",
        (size: number, path: string, world: LogWorld) => world.disk.flipBit(path, size - 5),
        "lost",
      ],
    ] as const) {
      const world = await killedUnsynced();
      const path = segmentPath(0);
      await damage(world.disk.contentOf(path)!.length, path, world);
      await world.start();
      expect([what, world.manager.untoldStop]).toEqual([what, expected]);
    }
  });

  it("is told together with what starts before it cut off and could not say", async () => {
    const settings = { flushMs: 1_000_000 };
    for (let afterMs = 0; afterMs < 40; afterMs += 0.5) {
      const world = await LogWorld.open({ settings });
      await world.complete(world.manager.recoveryReported());
      const cut = (): void => {
        for (let mark = 0; mark < 3; mark += 1) world.log(settings).appendAsLeader(batch({ mark, valueBytes: 20 }), 0);
        world.kill();
        const path = world.disk
          .paths()
          .filter((name) => name.endsWith(".log"))
          .at(-1)!;
        world.disk.flipBit(path, world.disk.contentOf(path)!.length - 5);
      };
      cut();
      await world.start({ settings });
      expect(world.log().wasCut).toBe(true);
      cut();
      await world.startCutShort(afterMs, "kill", { settings });
      await world.start({ settings });
      expect([afterMs, world.log().wasCut, world.manager.untoldStop]).toEqual([afterMs, true, "lost"]);
      await world.complete(world.manager.close());
    }
  });

  it("is told like a lost disk also when the start that found that out was killed before it could say so", async () => {
    for (let afterMs = 0; afterMs < 40; afterMs += 0.5) {
      const world = await killedUnsynced();
      const path = segmentPath(0);
      world.disk.flipBit(path, world.disk.contentOf(path)!.length - 5);
      await world.startCutShort(afterMs, "kill");
      await world.start();
      expect([afterMs, world.manager.untoldStop]).toEqual([afterMs, "lost"]);
      await world.complete(world.manager.close());
    }
  });

  it("is not known of a directory without a mark, which stays so until it was reported, through a clean stop too", async () => {
    const world = await LogWorld.open();
    expect(world.manager.untoldStop).toBe("lost");
    world.kill();
    expect(await world.lastStop()).toBe("lost");
    await world.start();
    await world.stopCleanly();
    expect(await world.lastStop()).toBe("lost");
    await world.start();
    await world.complete(world.manager.recoveryReported());
    world.disk.remove(`${DIRECTORY}/last-run`);
    expect(await world.lastStop()).toBe("lost");
  });

  it("counts as a loss when the directory of a log is gone, and not when the log was being removed", async () => {
    const world = await LogWorld.open();
    await world.complete(world.manager.recoveryReported());
    world.log().appendAsLeader(batch(), 0);
    await world.complete(world.log().flush());
    await world.stopCleanly();
    await world.start();
    expect(world.manager.untoldStop).toBe("clean");
    await world.complete(world.manager.recoveryReported());
    await world.stopCleanly();
    // As a crash between the renaming and the next checkpoint leaves it.
    world.disk.rename(`${DIRECTORY}/orders-0`, `${DIRECTORY}/orders-0~deleted-0`);
    const checkpoint = world.disk.contentOf(`${DIRECTORY}/recovery-point-offset-checkpoint`);
    await world.start();
    expect(world.manager.untoldStop).toBe("clean");
    await world.run(1000);
    expect(world.disk.paths().filter((path) => path.includes("orders-0"))).toEqual([]);
    await world.stopCleanly();
    // And now there is no trace of a removal.
    const file = world.disk.open(`${DIRECTORY}/recovery-point-offset-checkpoint`, "create");
    world.disk.truncate(file, "recovery points", 0);
    world.disk.write(file, "recovery points", Uint8Array.from(checkpoint ?? []), 0);
    world.disk.close(file);
    await world.start();
    expect(world.manager.untoldStop).toBe("lost");
    world.kill();
    await world.start();
    expect(world.manager.untoldStop).toBe("lost");
  });
});
