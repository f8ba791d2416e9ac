import type { ClientError } from "../../../client/errors.js";
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

  it("fails a record that cannot be encoded, whatever was thrown, and admits those behind it", async () => {
    const admitted: unknown[] = [];
    const failed: ClientError[] = [];
    const fault = new TypeError("the partitioner knows no such key");
    const waiting = new WaitingRecords(nodeEnv().clock, 1000, {
      tryAppend: (_, { value }) => {
        if (value === "a") throw fault;
        admitted.push(value);
        return true;
      },
      onFailed: (error) => failed.push(error),
    });
    const done = ["a", "b"].map((value) => waiting.awaitMemory("t", { value }, 0, undefined));
    waiting.admit();
    await Promise.all(done);
    expect(admitted).toEqual(["b"]);
    expect(failed).toMatchObject([{ code: "INVALID_ARGUMENT", cause: fault }]);
  });
});
