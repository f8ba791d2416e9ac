import { WaitingRecords } from "../../../client/waiting-records.js";
import { nodeEnv } from "../../../common/env/node-env.js";

describe("WaitingRecords", () => {
  it("admits each record once and in order, also when admitting one makes room for others", async () => {
    const admitted: unknown[] = [];
    let isRoom = false;
    const waiting: WaitingRecords = new WaitingRecords(nodeEnv().clock, 1000, {
      tryAppend: (_, { value }) => {
        if (!isRoom) return false;
        // A full batch is sent, which ends another one, whose memory is free now.
        waiting.admit();
        admitted.push(value);
        return true;
      },
      onFailed: (error) => {
        throw error;
      },
    });
    const done = ["a", "b", "c"].map((value) => waiting.awaitMemory("t", { value }, 0, undefined));
    waiting.admit();
    expect(admitted).toEqual([]);
    isRoom = true;
    waiting.admit();
    await Promise.all(done);
    expect(admitted).toEqual(["a", "b", "c"]);
    expect(waiting.isEmpty).toBe(true);
  });
});
