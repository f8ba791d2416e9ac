import { MemoryShare } from "../../../client/buffer-pool.js";
import type { ClientError } from "../../../client/errors.js";
import type { RecordPlace } from "../../../client/waiting-records.js";
import { WaitingRecords } from "../../../client/waiting-records.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { ManualTime } from "../../support/manual-time.js";

describe("WaitingRecords", () => {
  const place = { share: new MemoryShare(1), isGone: false };

  it("admits each record once and in order, also when admitting one makes room for others", async () => {
    const admitted: unknown[] = [];
    let isRoom = false;
    const waiting: WaitingRecords<RecordPlace> = new WaitingRecords<RecordPlace>(nodeEnv().clock, 1000, {
      placeOf: () => place,
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
    const done = ["a", "b", "c"].map((value) => waiting.awaitMemory("t", place, { value }, 0, undefined));
    waiting.admit();
    expect(admitted).toEqual([]);
    isRoom = true;
    waiting.admit();
    await Promise.all(done);
    expect(admitted).toEqual(["a", "b", "c"]);
    expect(waiting.isEmpty).toBe(true);
  });

  it("admits and ends each record once, though others are put before it while it is admitted", async () => {
    const time = new ManualTime();
    const admitted: unknown[] = [];
    let isRoom = false;
    let held: unknown = "back";
    const waiting: WaitingRecords<RecordPlace> = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => place,
      tryAppend: (_, { value }) => {
        if (!isRoom || value === held) return false;
        // The batch that it fills makes another partition's hand its records back, which are older.
        if (admitted.push(value) === 1) {
          const back = {
            record: { value: "back" },
            timestamp: 0,
            onAcknowledged: undefined,
            isNamed: false,
            deadlineMs: 0,
          };
          waiting.takeBack("t", [back]);
        }
        return true;
      },
      onFailed: ({ what }) => admitted.push(what),
    });
    for (const value of ["a", "b"]) void waiting.awaitMemory("t", place, { value }, 0, undefined);
    isRoom = true;
    waiting.admit();
    expect(admitted).toEqual(["a"]);
    const drained = waiting.drained();
    held = undefined;
    waiting.admit();
    await drained;
    expect(admitted).toEqual(["a", "back", "b"]);
    expect(waiting.isEmpty).toBe(true);
    expect(place.share.isShort).toBe(false);
  });

  it("puts what was encoded already before what waits, also where both have the same deadline", () => {
    const time = new ManualTime();
    const admitted: unknown[] = [];
    let isRoom = false;
    const waiting: WaitingRecords<RecordPlace> = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => place,
      tryAppend: (_, { value }) => isRoom && admitted.push(value) > 0,
      onFailed: (error) => {
        throw error;
      },
    });
    const deadlineMs = time.monotonicMs() + 1000;
    void waiting.awaitMemory("t", place, { key: "k", value: "second" }, 0, undefined);
    const back = { record: { key: "k", value: "first" }, timestamp: 0, onAcknowledged: undefined, isNamed: false };
    waiting.takeBack("t", [{ ...back, deadlineMs }]);
    isRoom = true;
    waiting.admit();
    expect(admitted).toEqual(["first", "second"]);
  });

  it("fails a record that cannot be encoded, whatever was thrown, and admits those behind it", async () => {
    const admitted: unknown[] = [];
    const failed: ClientError[] = [];
    const fault = new TypeError("the partitioner knows no such key");
    const waiting = new WaitingRecords<RecordPlace>(nodeEnv().clock, 1000, {
      placeOf: () => place,
      tryAppend: (_, { value }) => {
        if (value === "a") throw fault;
        admitted.push(value);
        return true;
      },
      onFailed: (error) => failed.push(error),
    });
    const done = ["a", "b"].map((value) => waiting.awaitMemory("t", place, { value }, 0, undefined));
    waiting.admit();
    await Promise.all(done);
    expect(admitted).toEqual(["b"]);
    expect(failed).toMatchObject([{ code: "INVALID_ARGUMENT", cause: fault }]);
  });

  it.each(["waits for its topic", "waits for memory"])(
    "lets nobody pass who hears of the failure of one that %s",
    (event) => {
      const admitted: unknown[] = [];
      const share = new MemoryShare(1);
      const stays = { share, isGone: false };
      const goes = { share, isGone: false };
      let isRoom = false;
      const waiting: WaitingRecords<RecordPlace> = new WaitingRecords<RecordPlace>(nodeEnv().clock, 1000, {
        placeOf: (_, { value }) => {
          if (value === "gone") throw new RangeError("there is no such partition");
          return stays;
        },
        tryAppend: (_, { value }) => isRoom && admitted.push(value) > 0,
        onFailed: () => {
          // As a producer does with a record that is handed over in a callback.
          if (share.isShort) void waiting.awaitMemory("t", stays, { value: "last" }, 0, undefined);
          else admitted.push("last");
        },
      });
      for (const value of ["gone", "a", "b"]) {
        if (event === "waits for its topic") void waiting.awaitTopic("t", { value }, 0, undefined);
        else void waiting.awaitMemory("t", value === "gone" ? goes : stays, { value }, 0, undefined);
      }
      isRoom = true;
      goes.isGone = true;
      waiting.onMetadata(event === "waits for memory", () => true);
      waiting.admit();
      expect(admitted).toEqual(["a", "b", "last"]);
    },
  );

  it("fails a record once, also when who hears of it has older ones taken back", () => {
    const time = new ManualTime();
    const admitted: unknown[] = [];
    let failures = 0;
    let isRoom = false;
    const waiting: WaitingRecords<RecordPlace> = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => place,
      tryAppend: (_, { value }) => {
        if (!isRoom) return false;
        if (value === "too large") throw new RangeError("the topic takes less by now");
        return admitted.push(value) > 0;
      },
      onFailed: () => {
        failures += 1;
        // As a producer whose callback flushes does, with a batch whose partition is gone.
        const deadlineMs = time.monotonicMs() + 500;
        const older = {
          record: { value: "older" },
          timestamp: 0,
          onAcknowledged: undefined,
          deadlineMs,
          isNamed: false,
        };
        if (failures === 1) waiting.takeBack("t", [older]);
      },
    });
    for (const value of ["too large", "behind"]) void waiting.awaitMemory("t", place, { value }, 0, undefined);
    isRoom = true;
    waiting.admit();
    expect(failures).toBe(1);
    expect(admitted).toEqual(["older", "behind"]);
  });

  it("hands each record on with the deadline of its call, however long it waited", () => {
    const time = new ManualTime();
    const deadlines: number[] = [];
    const waiting = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => place,
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
    waiting.onMetadata(false, () => true);
    expect(deadlines).toEqual([firstCallMs + 1000, firstCallMs + 1600]);
  });

  it("hands a record on with the deadline of its call that waited for its topic, then for its partition, then for memory", () => {
    const time = new ManualTime();
    const deadlines: number[] = [];
    const failed: string[] = [];
    let hasPartition = false;
    let hasRoom = false;
    const waiting = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: (_, { partition }) => (partition === undefined || hasPartition ? place : undefined),
      tryAppend: (_place, _record, _timestamp, deadlineMs) => hasRoom && deadlines.push(deadlineMs) > 0,
      onFailed: ({ what }) => failed.push(what),
    });
    const calledMs = time.monotonicMs();
    void waiting.awaitTopic("t", { value: "a", partition: 7 }, 0, undefined);
    time.advance(300);
    waiting.onMetadata(false, () => true);
    void waiting.awaitPartition("t", 7, { value: "b", partition: 7 }, 0, undefined);
    time.advance(300);
    hasPartition = true;
    waiting.onMetadata(false, () => true);
    expect(place.share.isShort).toBe(true);
    time.advance(300);
    hasRoom = true;
    waiting.admit();
    expect(deadlines).toEqual([calledMs + 1000, calledMs + 1300]);
    hasPartition = false;
    void waiting.awaitPartition("t", 8, { value: "c", partition: 8 }, 0, undefined);
    time.advance(1000);
    waiting.expire(time.monotonicMs());
    expect(failed).toEqual(["t-8: the partition could not be looked up within deliveryTimeoutMs 1000"]);
    expect(waiting.isEmpty).toBe(true);
  });

  it("admits and fails records in the order of their calls, though some waited for their topic before", () => {
    const time = new ManualTime();
    const failed: unknown[] = [];
    const admitted: unknown[] = [];
    let room = 0;
    const waiting = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => place,
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
    void waiting.awaitMemory("known", place, { value: "b" }, 0, undefined);
    time.advance(100);
    void waiting.awaitTopic("early", { value: "c" }, 0, undefined);
    time.advance(100);
    void waiting.awaitMemory("known", place, { value: "d" }, 0, undefined);
    waiting.onMetadata(false, () => true);
    waiting.expire(time.monotonicMs() + 700);
    expect(failed).toEqual(["early"]);
    room = 3;
    waiting.admit();
    expect(admitted).toEqual(["b", "c", "d"]);
  });

  it("lets records for one leader in while those for another wait, each leader's in their order", () => {
    const time = new ManualTime();
    const places = {
      stuck: { share: new MemoryShare(1), isGone: false },
      well: { share: new MemoryShare(2), isGone: false },
    };
    const admitted: unknown[] = [];
    let hasRoom = false;
    const waiting = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => places.well,
      tryAppend: (place, { value }) => {
        if (!hasRoom || place.share.brokerId === 1) return false;
        admitted.push(value);
        return true;
      },
      onFailed: ({ message }) => admitted.push(message),
    });
    for (const value of ["1", "2", "3"]) {
      time.advance(1);
      void waiting.awaitMemory("t", places.stuck, { value: `stuck ${value}` }, 0, undefined);
      void waiting.awaitMemory("t", places.well, { value: `well ${value}` }, 0, undefined);
    }
    expect([places.stuck.share.isShort, places.well.share.isShort]).toEqual([true, true]);
    hasRoom = true;
    waiting.admit();
    expect(admitted.splice(0)).toEqual(["well 1", "well 2", "well 3"]);
    expect([places.stuck.share.isShort, places.well.share.isShort]).toEqual([true, false]);
    // Another broker leads it.
    places.stuck.share = places.well.share;
    waiting.onMetadata(true, () => true);
    expect(admitted.splice(0)).toEqual(["stuck 1", "stuck 2", "stuck 3"]);
    expect(waiting.isEmpty).toBe(true);
  });

  it("is drained when all that waited has an outcome, though some has moved to another line", async () => {
    const time = new ManualTime();
    const places = [1, 2].map((id) => ({ share: new MemoryShare(id), isGone: false }));
    let room = 0;
    const waiting = new WaitingRecords<RecordPlace>(time, 1000, {
      placeOf: () => places[1]!,
      tryAppend: () => (room -= 1) >= 0,
      onFailed: () => undefined,
    });
    for (const place of [places[0]!, places[1]!, places[0]!]) {
      time.advance(1);
      void waiting.awaitMemory("t", place, { value: "x" }, 0, undefined);
    }
    let isDrained = false;
    const drained = waiting.drained().then(() => (isDrained = true));
    places[0]!.isGone = true;
    waiting.onMetadata(true, () => true);
    for (const count of [1, 2]) {
      room = 1;
      waiting.admit();
      for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
      expect([count, isDrained]).toEqual([count, false]);
    }
    room = 1;
    waiting.admit();
    await drained;
    expect(waiting.isEmpty).toBe(true);
  });
});
