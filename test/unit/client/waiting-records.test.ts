import type { ClientError } from "../../../client/errors.js";
import { WaitingRecords } from "../../../client/waiting-records.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { ManualTime } from "../../support/manual-time.js";

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

  it("hands each record on with the deadline of its call, however long it waited", () => {
    const time = new ManualTime();
    const deadlines: number[] = [];
    const waiting = new WaitingRecords(time, 1000, {
      tryAppend: (_topic, _record, _timestamp, deadlineMs) => deadlines.push(deadlineMs) > 0,
      onFailed: (error) => {
        throw error;
      },
    });
    const firstCallMs = time.monotonicMs();
    void waiting.awaitTopic("t", { value: "a" }, 0, undefined);
    time.advance(600);
    void waiting.awaitTopic("t", { value: "b" }, 0, undefined);
    time.advance(300);
    waiting.onTopics(() => true);
    expect(deadlines).toEqual([firstCallMs + 1000, firstCallMs + 1600]);
  });

  it("admits and fails records in the order of their calls, though some waited for their topic before", () => {
    const time = new ManualTime();
    const failed: unknown[] = [];
    const admitted: unknown[] = [];
    let room = 0;
    const waiting = new WaitingRecords(time, 1000, {
      tryAppend: (_, { value }) => {
        if (room === 0) return false;
        room -= 1;
        admitted.push(value);
        return true;
      },
      onFailed: ({ topic }) => failed.push(topic),
    });
    void waiting.awaitTopic("early", { value: "a" }, 0, undefined);
    time.advance(100);
    void waiting.awaitMemory("known", { value: "b" }, 0, undefined);
    time.advance(100);
    void waiting.awaitTopic("early", { value: "c" }, 0, undefined);
    time.advance(100);
    void waiting.awaitMemory("known", { value: "d" }, 0, undefined);
    waiting.onTopics(() => true);
    waiting.expire(time.monotonicMs() + 700);
    expect(failed).toEqual(["early"]);
    room = 3;
    waiting.admit();
    expect(admitted).toEqual(["b", "c", "d"]);
  });
});
