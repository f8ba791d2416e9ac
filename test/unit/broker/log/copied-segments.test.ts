import type { LogSettings } from "../../../../broker/log/log-settings.js";
import { readBatches } from "../../../../protocol/record-batch.js";
import { batch, DIRECTORY, LogWorld, offset, stampedBatch } from "./log-fixtures.js";

const settings = { flushMs: 1_000_000 };

/** The base offsets of all batches in the files, in the order of the files. */
function offsetsOnDisk(world: LogWorld): number[] {
  const directory = `${DIRECTORY}/orders-0`;
  return world.disk
    .namesIn(directory)
    .filter((name) => name.endsWith(".log"))
    .flatMap((name) => readBatches(Buffer.from(world.disk.contentOf(`${directory}/${name}`) ?? [])))
    .map(({ baseOffset }) => baseOffset);
}

/** Five flushed records and five that are not. */
async function halfFlushed(how: Partial<LogSettings> = settings): Promise<LogWorld> {
  const world = await LogWorld.open({ settings: how });
  await world.complete(world.manager.recoveryReported());
  const log = world.log(how);
  for (let index = 0; index < 5; index += 1) log.appendAsLeader(batch({ mark: 1 }), 1);
  await world.complete(log.flush());
  await world.run(6_000);
  for (let index = 0; index < 5; index += 1) log.appendAsLeader(batch({ mark: 2 }), 1);
  return world;
}

/** A start after a crash that ends after so many milliseconds. */
async function startThatEnds(afterMs: number): Promise<LogWorld> {
  const world = await halfFlushed();
  world.kill();
  await world.startCutShort(afterMs, "kill", { settings });
  await world.start({ settings });
  return world;
}

describe("bytes that a start after a crash copies to a segment of their own", () => {
  const moments = Array.from({ length: 120 }, (_, index) => index / 4);

  it("stand in the files once, whenever that start is killed", async () => {
    for (const afterMs of moments) {
      const world = await startThatEnds(afterMs);
      expect([afterMs, offsetsOnDisk(world)]).toEqual([afterMs, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]);
      // What two segments held is not lost.
      expect([afterMs, world.manager.untoldStop]).toEqual([afterMs, "crash"]);
    }
  });

  it("are not missed by the next start, whenever that one is killed: a crash has cost nothing", async () => {
    for (const afterMs of moments) {
      const { manager } = await startThatEnds(afterMs);
      expect([afterMs, manager.untoldStop]).toEqual([afterMs, "crash"]);
    }
  });

  it("stand in the files once, also when the cut of the old file could not be synced and the power fails later", async () => {
    const world = await halfFlushed();
    world.disk.writeBack();
    world.kill();
    world.disk.fail("sync", (path) => path.endsWith("/00000000000000000000.log"), { times: 1 });
    await expect(world.start({ settings })).rejects.toMatchObject({ reason: "io" });
    world.kill();
    await world.start({ settings });
    world.log().appendAsLeader(batch({ mark: 3 }), 1);
    await world.complete(world.log().flush());
    await world.run(6_000);
    world.powerCut();
    await world.start({ settings });
    expect(offsetsOnDisk(world)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it("begin at their own offset, also where the last batch in front of them is damaged", async () => {
    const indexed = { ...settings, indexIntervalBytes: 1 };
    const world = await halfFlushed(indexed);
    await world.run(10);
    const path = `${DIRECTORY}/orders-0/00000000000000000000.log`;
    const fourth = readBatches(Buffer.from(world.disk.contentOf(path) ?? []))[4];
    world.disk.flipBit(path, (fourth?.start ?? 0) + 20, 1);
    world.kill();
    await world.start({ settings: indexed });
    const found = await world.complete(world.log().verifyRange(offset(4)));
    expect(found).toMatchObject([{ from: 4, to: 5 }]);
    expect(() => world.log().read(offset(4), { maxBytes: 1000 })).toThrow(/offsets 4 to 4 are damaged/);
  });

  it("do not come back where the log is cut at their beginning", async () => {
    for (const afterMs of moments) {
      const world = await startThatEnds(afterMs);
      await world.complete(world.log().truncateTo(offset(5)));
      world.log().appendAsFollower(stampedBatch(5, 2, { mark: 3 }), 2);
      world.kill();
      await world.start({ settings });
      expect([afterMs, (await world.contents()).slice(4)]).toEqual([afterMs, ["4-4@1:1", "5-5@2:3"]]);
    }
  });
});
