import { jest } from "@jest/globals";
import { batch, DIRECTORY, LogWorld, offset, stampedBatch } from "./log-fixtures.js";

jest.setTimeout(120_000);

const settings = { flushMs: 1_000_000, segmentBytes: 700 };
const sent = (sequence: number): Buffer => batch({ mark: sequence, producerId: 9, baseSequence: sequence });
const place = (base: number): string => `${DIRECTORY}/orders-0/${String(base).padStart(20, "0")}.log`;

describe("segments that were cut off", () => {
  it("do not come back by a power cut when the process had died before their names were synced", async () => {
    let tried = 0;
    for (let seed = 1; seed <= 40; seed += 1) {
      const world = await LogWorld.open({ seed, settings });
      for (let mark = 0; mark < 12; mark += 1) world.log(settings).appendAsLeader(batch({ mark, valueBytes: 100 }), 3);
      await world.complete(world.log().flush());
      await world.run(6_000);
      world.disk.writeBack();
      const second = world.disk.paths().filter((path) => path.endsWith(".log"))[1] ?? "";
      const base = Number(second.slice(-24, -4));
      // The process dies when all is cut off in the page cache.
      void world
        .log()
        .truncateTo(offset(base - 1))
        .catch(() => undefined);
      const { length } = world.disk.contentOf(place(0)) ?? [];
      for (let ms = 0; ms < 100 && world.disk.contentOf(place(0))?.length === length; ms += 0.1) await world.run(0.1);
      await world.run(0.7);
      world.kill();
      await world.start({ settings });
      if (world.log().logEndOffset !== base - 1) continue;
      tried += 1;
      world.log().appendAsFollower(stampedBatch(base - 1, 5, { mark: 7, valueBytes: 100 }), 5);
      await world.run(1);
      // What is in the files gets to the disk by itself, names when they are synced.
      const file = world.disk.open(place(0), "write");
      world.disk.sync(file, place(0));
      world.disk.close(file);
      world.powerCut();
      await world.start({ settings });
      const contents = await world.contents();
      // Behind a record of epoch 5 there is none of epoch 3.
      expect([seed, contents]).toEqual([seed, contents.slice(0, base)]);
    }
    expect(tried).toBeGreaterThan(3);
  });
});

describe("producers that were cut off", () => {
  it("do not come back by a power cut when the process had died before their snapshot's name was synced", async () => {
    let tried = 0;
    for (let seed = 1; seed <= 60; seed += 1) {
      const world = await LogWorld.open({ seed, settings });
      for (let sequence = 0; sequence < 8; sequence += 1) world.log(settings).appendAsLeader(sent(sequence), 1);
      await world.stopCleanly();
      world.disk.writeBack();
      await world.start({ settings });
      const snapshot = world.disk.paths().find((path) => path.endsWith("8.snapshot")) ?? "";
      // The process dies when the snapshot is removed in the page cache.
      void world
        .log()
        .truncateTo(offset(4))
        .catch(() => undefined);
      for (let ms = 0; ms < 100 && world.disk.contentOf(snapshot) !== undefined; ms += 0.05) await world.run(0.05);
      world.kill();
      await world.start({ settings });
      const log = world.log();
      if (log.logEndOffset !== 4) continue;
      tried += 1;
      log.updateSettings({ ...log.settings, durability: "fsync" });
      while (log.nextOffset < 9) await world.complete(log.appendAsLeader(batch({ mark: 50 }), 1).written!);
      world.powerCut();
      await world.start({ settings });
      expect([seed, world.log().logEndOffset]).toEqual([seed, 9]);
      // Known, it would be acknowledged as a duplicate, and is not in the log.
      expect(() => world.log().appendAsLeader(sent(7), 1)).toThrow(/sends sequence 7 where 4 is next/);
    }
    expect(tried).toBeGreaterThan(3);
  });
});
