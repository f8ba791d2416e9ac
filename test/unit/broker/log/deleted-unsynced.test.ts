import { readBatches } from "../../../../protocol/record-batch.js";
import { batch, DIRECTORY, LogWorld, offset } from "./log-fixtures.js";

describe("records that are deleted before they were synced", () => {
  it("leave nothing unreadable in front of what is appended after a power cut", async () => {
    for (let seed = 1; seed <= 40; seed += 1) {
      const settings = { flushMs: 1_000_000 };
      const world = await LogWorld.open({ seed, settings });
      const log = world.log(settings);
      log.appendAsLeader(batch({ mark: 1 }), 1);
      await world.complete(log.flush());
      for (let mark = 2; mark <= 4; mark += 1) log.appendAsLeader(batch({ mark, valueBytes: 50 }), 1);
      log.advanceHighWatermark(offset(4));
      await world.complete(log.advanceLogStart(offset(3)));
      world.powerCut();
      await world.start({ settings });
      const again = world.log(settings);
      again.appendAsLeader(batch({ mark: 9 }), 2);
      const directory = `${DIRECTORY}/orders-0`;
      for (const name of world.disk.namesIn(directory).filter((file) => file.endsWith(".log"))) {
        const bytes = Buffer.from(world.disk.contentOf(`${directory}/${name}`)!);
        expect(() => readBatches(bytes).forEach((stored) => stored.verify())).not.toThrow();
      }
      expect([seed, again.damage]).toEqual([seed, []]);
    }
  });
});
