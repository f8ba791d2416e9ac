import { ProtocolError } from "../../../client/errors.js";
import type { ClientError } from "../../../client/errors.js";
import { PartitionReader } from "../../../client/partition-reader.js";
import { ReadWatch } from "../../../client/read-watch.js";
import { Backoff } from "../../../client/retry.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import { silentLogger } from "../../../common/logger.js";
import type { TopicId } from "../../../protocol/types.js";
import { ManualTime } from "../../support/manual-time.js";

const topicId = "00000000-0000-4000-8000-000000000001" as TopicId;

/** A watch over two partitions that are to be read from 0 to 4. Nothing comes of any. */
function setUp({ untilEnd = true } = {}) {
  const time = new ManualTime();
  const troubles = new Map<PartitionReader, ClientError>();
  const lines: (object | undefined)[] = [];
  const errors: ClientError[] = [];
  const readers = [0, 1].map((partition) => {
    const reader = new PartitionReader("t", topicId, partition, new Backoff(nodeEnv().random));
    reader.restartAt(0);
    if (untilEnd) reader.endOffset = 4;
    return reader;
  });
  const watch = new ReadWatch(
    {
      clock: time,
      logger: { ...silentLogger, warn: (_, fields) => void lines.push(fields) },
      troubleOf: (reader) => troubles.get(reader),
      fail: (error) => errors.push(error),
    },
    { deadlineMs: 3000, stallMs: 1000 },
  );
  watch.begin(untilEnd);
  const [first, second] = readers as [PartitionReader, PartitionReader];
  return {
    watch,
    first,
    second,
    lines,
    errors,
    troubles,
    time,
    /** Looks every 100 ms. */
    pass(ms: number, isAwaited = true): void {
      for (let left = ms; left > 0; left -= 100) {
        time.advance(100);
        watch.look(readers, isAwaited);
      }
    },
  };
}

describe("the watch over a loop to the end", () => {
  it("ends it when nothing has come for the whole deadline, and names what is in trouble", () => {
    const { pass, errors, troubles, second } = setUp();
    troubles.set(second, new ProtocolError("NOT_LEADER_OR_FOLLOWER", "it does not lead", { brokerId: 7 }));
    pass(2900);
    expect(errors).toEqual([]);
    pass(100);
    expect(errors).toMatchObject([
      { code: "DEADLINE_EXCEEDED", topic: "t", partition: 1, brokerId: 7, retriable: true },
    ]);
    expect(errors[0]?.what).toBe("t-1: nothing has come of it for 3000 ms, at offset 0 of 4 (it does not lead)");
  });

  it("names a partition also when nothing is known to be wrong", () => {
    const { pass, errors, first } = setUp();
    first.restartAt(4);
    pass(3000);
    expect(errors[0]).toMatchObject({ partition: 1, what: expect.stringContaining("answers, but has nothing of it") });
  });

  it("counts from when something came, or the application began to wait", () => {
    const { pass, errors, watch } = setUp();
    for (let time = 0; time < 3; time += 1) {
      pass(2900);
      watch.onProgress();
    }
    expect(errors).toEqual([]);
    pass(3000);
    expect(errors).toHaveLength(1);
  });

  it("does not count the time in which the application has the loop, or the process stands still", () => {
    const { pass, errors, time } = setUp();
    pass(60_000, false);
    time.advance(60_000);
    pass(1900);
    expect(errors).toEqual([]);
    pass(1000);
    expect(errors).toHaveLength(1);
  });

  it.each<[string, (reader: PartitionReader) => void]>([
    ["paused", (reader) => void (reader.isPaused = true)],
    ["at its end", (reader) => reader.restartAt(4)],
    ["looked up", (reader) => reader.restartFrom("earliest")],
    ["looked up to its end", (reader) => void (reader.awaitsEnd = true)],
    ["left alone, because of an error that is told", (reader) => void (reader.hasFailed = true)],
  ])("waits for as long as all is %s, and has the whole deadline then", (_, change) => {
    const { pass, errors, first, second } = setUp();
    pass(2900);
    change(first);
    change(second);
    pass(60_000);
    expect(errors).toEqual([]);
    first.restartAt(0);
    first.isPaused = false;
    first.awaitsEnd = false;
    pass(2900);
    expect(errors).toEqual([]);
    pass(200);
    expect(errors).toMatchObject([{ partition: 0 }]);
  });
});

describe("the watch over an endless loop", () => {
  it("says in the log why nothing comes, again and again but not often, and ends nothing", () => {
    const { pass, errors, troubles, first, second, lines } = setUp({ untilEnd: false });
    pass(60_000);
    expect(lines).toEqual([]);
    troubles.set(first, new ProtocolError("LEADER_NOT_AVAILABLE", "none leads"));
    troubles.set(second, new ProtocolError("STORAGE_ERROR", "its disk is gone", { topic: "t", partition: 1 }));
    pass(1000);
    expect(lines).toEqual([]);
    pass(100);
    expect(lines).toEqual([{ partitions: 2, reasons: ["t-0: none leads", "t-1: its disk is gone"], forMs: 1000 }]);
    pass(5000);
    expect(lines).toHaveLength(2);
    troubles.clear();
    pass(60_000);
    expect(lines).toHaveLength(2);
    expect(errors).toEqual([]);
  });

  it("says nothing of what passes soon", () => {
    const { pass, troubles, first, lines } = setUp({ untilEnd: false });
    for (let time = 0; time < 10; time += 1) {
      troubles.set(first, new ProtocolError("LEADER_NOT_AVAILABLE", undefined));
      pass(900);
      troubles.clear();
      pass(100);
    }
    expect(lines).toEqual([]);
  });
});
