import { jest } from "@jest/globals";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LogManager } from "../../../../broker/log/log-manager.js";
import { nodeFileSystem } from "../../../../common/env/node-files.js";
import { nodeClock, nodeRandom, nodeTimers } from "../../../../common/env/node-time.js";
import type { Env } from "../../../../common/env/env.js";
import { silentLogger } from "../../../../common/logger.js";
import { toOffset } from "../../../../protocol/types.js";
import { ApiError } from "../../../../protocol/error-codes.js";
import { batch, DIRECTORY, LogWorld, readAll, SETTINGS, summary, TOPIC_ID } from "./log-fixtures.js";

jest.setTimeout(60_000);

const OTHER_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
const directories = (world: LogWorld): string[] => [
  ...new Set(
    world.disk
      .paths()
      .map((path) => path.split("/")[2]!)
      .filter((name) => name.startsWith("orders")),
  ),
];

describe("LogManager", () => {
  it("recovers every partition by its topic id, and no other directory", async () => {
    const world = await LogWorld.open();
    for (let partition = 0; partition < 9; partition += 1) {
      const log = world.manager.create(TOPIC_ID, "orders-1.x", partition, SETTINGS);
      log.appendAsLeader(batch({ mark: partition }), 0);
    }
    await world.stopCleanly();
    const { files } = world.process.env;
    await world.complete(files.makeDirectory(`${DIRECTORY}/lost+found`));
    await world.start();
    const found = [...world.manager.all()].map((log) => [log.topicId, log.topic, log.partition]);
    expect(found.sort()).toEqual(Array.from({ length: 9 }, (_, partition) => [TOPIC_ID, "orders-1.x", partition]));
    const log = world.manager.get(TOPIC_ID, 7)!;
    expect(summary(await world.complete(readAll(log)))).toEqual(["0-0@0:7"]);
  });

  it("counts a start as lost when the checkpoint of the log starts is damaged: logs may begin too early", async () => {
    const world = await LogWorld.open();
    const log = world.log();
    for (let mark = 0; mark < 10; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    log.advanceHighWatermark(toOffset(10));
    await world.complete(log.advanceLogStart(toOffset(6)));
    await world.complete(world.manager.recoveryReported());
    await world.stopCleanly();
    world.disk.flipBit(`${DIRECTORY}/log-start-offset-checkpoint`, 30);
    await world.start();
    expect(world.log().logStartOffset).toBe(0);
    expect(world.manager.untoldStop).toBe("lost");
  });

  it.each([
    [300, 10],
    [5000, 0],
  ])("writes what has moved to the checkpoints after %d ms", async (checkpointIntervalMs, highWatermark) => {
    const world = await LogWorld.open({ checkpointIntervalMs });
    const log = world.log();
    for (let mark = 0; mark < 10; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    log.advanceHighWatermark(toOffset(10));
    await world.run(1000);
    world.kill();
    await world.start();
    expect(world.log().highWatermark).toBe(highWatermark);
  });

  it("removes a log so that it is never served again, and takes the next incarnation of the topic at once", async () => {
    const world = await LogWorld.open();
    const old = world.log();
    old.appendAsLeader(batch({ mark: 1 }), 7);
    const removed = world.manager.remove(TOPIC_ID, 0);
    expect(world.manager.get(TOPIC_ID, 0)).toBeUndefined();
    expect(() => old.appendAsLeader(batch(), 7)).toThrow(ApiError);
    const next = world.manager.create(OTHER_ID, "orders", 0, SETTINGS);
    // The directory still bears the name.
    expect(() => next.appendAsLeader(batch(), 0)).toThrow(/former/);
    await world.complete(removed);
    next.appendAsLeader(batch({ mark: 2 }), 0);
    await world.run(1_000);
    expect(directories(world)).toEqual(["orders-0"]);
    world.powerCut();
    await world.start();
    expect(world.manager.get(TOPIC_ID, 0)).toBeUndefined();
  });

  it("puts the log of a former topic of that name aside, and keeps it", async () => {
    const world = await LogWorld.open();
    world.log().appendAsLeader(batch({ mark: 1 }), 7);
    await world.stopCleanly();
    await world.start();
    const next = world.manager.create(OTHER_ID, "orders", 0, SETTINGS);
    await world.run(1_000);
    expect(next.appendAsLeader(batch({ mark: 2 }), 0).baseOffset).toBe(0);
    await world.stopCleanly();
    await world.start();
    expect([...world.manager.all()].map((log) => log.topicId)).toEqual([OTHER_ID]);
    expect(directories(world)).toEqual(["orders-0", "orders-0~stray-0"]);
  });

  it.each(["setAside", "remove"] as const)(
    "does not miss a log that was renamed when the process died (%s)",
    async (how) => {
      const topic = "t".repeat(249);
      let renamed = 0;
      for (let ms = 0; ms < 10; ms += 0.2) {
        const world = await LogWorld.open();
        world.manager.create(TOPIC_ID, topic, 12, SETTINGS).appendAsLeader(batch({ mark: 1 }), 7);
        await world.complete(world.manager.recoveryReported());
        await world.run(10_000);
        world.manager[how](TOPIC_ID, 12).catch(() => undefined);
        await world.run(ms);
        world.kill();
        if (world.disk.contentOf(`${DIRECTORY}/${topic}-12/partition.metadata`) === undefined) renamed += 1;
        await world.start();
        expect([ms, world.manager.untoldStop]).toEqual([ms, "crash"]);
        await world.run(1000);
        const left = world.manager.get(TOPIC_ID, 12) === undefined ? directories(world) : [];
        expect(left.filter((name) => !/~stray-0$/.test(name))).toEqual([]);
      }
      expect(renamed).toBeGreaterThan(10);
    },
  );

  it("misses a log that is gone though another one stood in its place once, and was put aside", async () => {
    const world = await LogWorld.open();
    world.log().appendAsLeader(batch({ mark: 1 }), 7);
    await world.run(10_000);
    await world.complete(world.manager.setAside(TOPIC_ID, 0));
    await world.run(1000);
    world.log().appendAsLeader(batch({ mark: 2 }), 8);
    await world.stopCleanly();
    await world.complete(world.process.env.files.removeTree(`${DIRECTORY}/orders-0`));
    await world.start();
    expect(directories(world)).toEqual(["orders-0~stray-0"]);
    expect(world.lines.join("\n")).toMatch(/error the log .* had records up to offset 1, but its directory is gone/);
  });

  it("puts a directory aside that does not say whose it is, and removes one that holds nothing", async () => {
    const world = await LogWorld.open();
    world.log().appendAsLeader(batch(), 0);
    await world.stopCleanly();
    const { files } = world.process.env;
    await world.complete(files.remove(`${DIRECTORY}/orders-0/partition.metadata`));
    await world.complete(files.makeDirectory(`${DIRECTORY}/orders-1`));
    await world.start();
    expect([...world.manager.all()]).toEqual([]);
    expect(directories(world)).toEqual(["orders-0~stray-0"]);
    expect(world.lines.join("\n")).toMatch(/put aside/);
  });

  it("says which log had records and is gone", async () => {
    const world = await LogWorld.open();
    world.log().appendAsLeader(batch(), 0);
    await world.stopCleanly();
    await world.complete(world.process.env.files.removeTree(`${DIRECTORY}/orders-0`));
    await world.start();
    expect(world.lines.join("\n")).toMatch(/error the log .* had records up to offset 1, but its directory is gone/);
  });

  it("remembers that a log was cut until the cluster was told", async () => {
    const world = await LogWorld.open({ settings: { flushMs: 1e9 } });
    world.log({ flushMs: 1e9 }).appendAsLeader(batch(), 0);
    world.kill();
    world.disk.flipBit(`${DIRECTORY}/orders-0/00000000000000000000.log`, 80);
    await world.start();
    expect(world.log().wasCut).toBe(true);
    world.kill();
    await world.start();
    expect(world.log().wasCut).toBe(true);
    await world.complete(world.manager.recoveryReported());
    world.kill();
    await world.start();
    expect(world.log().wasCut).toBe(false);
  });

  it("keeps no more files of closed segments open than it may", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0, openFilesMax: 2 });
    const log = world.log({ segmentBytes: 100 });
    for (let mark = 0; mark < 30; mark += 1) log.appendAsLeader(batch({ mark }), 0);
    await world.run(2_000);
    const contents = await world.contents();
    expect(contents).toHaveLength(30);
    const reads = Array.from({ length: 10 }, () => readAll(log));
    for (const read of await world.complete(Promise.all(reads))) expect(summary(read)).toEqual(contents);
  });

  it("closes no file that is about to be used, by a reader or by a flush", async () => {
    const world = await LogWorld.open({ tailBytesMax: 0, openFilesMax: 1 });
    const settings = { segmentBytes: 100 };
    for (let mark = 0; mark < 30; mark += 1) world.log(settings).appendAsLeader(batch({ mark }), 0);
    await world.stopCleanly();
    const directory = `${DIRECTORY}/orders-0`;
    for (const name of world.disk.namesIn(directory).filter((each) => each.endsWith("index")))
      world.disk.remove(`${directory}/${name}`);
    await world.start({ tailBytesMax: 0, openFilesMax: 1, settings });
    const log = world.log();
    const contents = await world.contents();
    for (let mark = 30; mark < 60; mark += 1) {
      // A segment ends with each batch, and a flush writes the indexes that readers have made anew since.
      const { written } = log.appendAsLeader(batch({ mark }), 0);
      const reads = Array.from({ length: 4 }, () => readAll(log, 0, 30));
      for (const read of await world.complete(Promise.all(reads))) expect(summary(read)).toEqual(contents);
      await world.complete(written ?? Promise.resolve());
    }
  });
});

it("flushes each log in its own time, though another one may wait for longer", async () => {
  const world = await LogWorld.open();
  const patient = world.manager.create(TOPIC_ID, "orders", 0, { ...SETTINGS, flushMs: 3_600_000 });
  const hasty = world.manager.create(TOPIC_ID, "orders", 1, { ...SETTINGS, flushMs: 1_000 });
  patient.appendAsLeader(batch(), 0);
  hasty.appendAsLeader(batch(), 0);
  await world.run(2_000);
  expect([patient.flushedOffset, hasty.flushedOffset]).toEqual([0, 1]);
  patient.updateSettings({ ...SETTINGS, flushMs: 1_000 });
  await world.run(12_000);
  expect(patient.flushedOffset).toBe(1);
});

it("is silent about a log that is deleted while its flush waits for a turn", async () => {
  const world = await LogWorld.open();
  const logs = Array.from({ length: 8 }, (_, partition) =>
    world.manager.create(TOPIC_ID, "orders", partition, SETTINGS),
  );
  for (const log of logs) log.appendAsLeader(batch(), 0);
  await world.run(900);
  world.disk.syncDelayMeanMs = 300;
  await world.run(200);
  expect(logs.map((log) => log.flushedOffset)).toContain(0);
  for (const { partition } of logs) void world.manager.remove(TOPIC_ID, partition);
  await world.run(10_000);
  expect(world.lines.filter((line) => !line.startsWith("info"))).toEqual([]);
});

it("works on a real disk", async () => {
  const parent = await mkdtemp(join(tmpdir(), "ottla-log-"));
  const env = {
    clock: nodeClock,
    timers: nodeTimers,
    random: nodeRandom,
    files: nodeFileSystem,
    bootId: "boot",
  } as unknown as Env;
  const directory = join(parent, "logs");
  const open = async () =>
    LogManager.open(env, silentLogger, {
      directory,
      defaultSettings: SETTINGS,
      tailBytesMax: 1024,
      openFilesMax: 2,
      onFatal: (error) => {
        throw error;
      },
    });
  try {
    let manager = await open();
    const settings = { ...SETTINGS, segmentBytes: 3_000, maxMessageBytes: 10_000 };
    const log = manager.create(TOPIC_ID, "orders", 0, settings);
    const fsync = manager.create(TOPIC_ID, "orders", 1, { ...settings, durability: "fsync" });
    const waiting: (Promise<void> | undefined)[] = [];
    for (let mark = 0; mark < 100; mark += 1) {
      waiting.push(log.appendAsLeader(batch({ mark, valueBytes: mark * 10 }), 1).written);
      waiting.push(fsync.appendAsLeader(batch({ mark }), 1).written);
    }
    await Promise.all(waiting);
    expect(fsync.flushedOffset).toBe(100);
    const before = summary(await readAll(log));
    expect(before).toHaveLength(100);
    await log.truncateTo(before.length === 100 ? log.logStartOffset : log.logEndOffset);
    expect(log.logEndOffset).toBe(0);
    await manager.close();
    manager = await open();
    expect(summary(await readAll(manager.get(TOPIC_ID, 1)!))).toHaveLength(100);
    manager.abandon();
    manager = await open();
    expect(summary(await readAll(manager.get(TOPIC_ID, 1)!))).toHaveLength(100);
    await manager.close();
  } finally {
    await rm(parent, { recursive: true });
  }
});
