import { ProducerIds } from "../../../../broker/api/producer-ids.js";
import { takeProducerIds } from "../../../../broker/zookeeper/producer-id-blocks.js";
import type { ZooKeeper } from "../../../../broker/zookeeper/zookeeper.js";
import { silentLogger } from "../../../../common/logger.js";
import { ApiError } from "../../../../protocol/error-codes.js";

describe("ProducerIds", () => {
  it("tells its log once that ids cannot be had, however often they are asked for, and again the next time", async () => {
    const lines: unknown[] = [];
    let isAway = true;
    let blocks = 0;
    const ids = new ProducerIds({ ...silentLogger, error: (_, fields) => void lines.push(fields?.["reason"]) }, () => {
      blocks += 1;
      return isAway
        ? Promise.reject(new ApiError("ZOOKEEPER_UNAVAILABLE", "ZooKeeper is away"))
        : Promise.resolve({ firstId: blocks, count: 1 });
    });
    const ask = async (): Promise<unknown> => (await ids.handle({} as never, {} as never, [])) as unknown;
    for (let count = 0; count < 20; count += 1)
      await expect(ask()).rejects.toMatchObject({ message: "ZooKeeper is away" });
    expect(lines).toEqual(["ZooKeeper is away"]);
    isAway = false;
    await ask();
    isAway = true;
    await expect(ask()).rejects.toThrow();
    expect(lines).toHaveLength(2);
  });

  it("names the znode that cannot be read", async () => {
    const zookeeper = {
      getIfExists: () => Promise.resolve({ data: Buffer.from("no json"), stat: { version: 0 } }),
    } as unknown as ZooKeeper;
    await expect(takeProducerIds(zookeeper, 1)).rejects.toMatchObject({
      errorName: "UNKNOWN_SERVER_ERROR",
      message: expect.stringMatching(/no producer id can be given out: .*latest_producer_id_block/),
    });
  });
});
