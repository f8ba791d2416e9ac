import { FetchSession } from "../../../../broker/api/fetch-session.js";
import type { SessionPartition } from "../../../../broker/api/fetch-session.js";
import type { Partition } from "../../../../broker/partition/partition.js";
import type { FetchPartition } from "../../../../protocol/messages.js";
import { toOffset } from "../../../../protocol/types.js";

const asking = (logStartOffset: number): FetchPartition => ({
  topicId: "0f8fad5b-d9cb-469f-a165-70867728950e",
  partition: 0,
  fetchOffset: 20,
  leaderEpochPlusOne: 1,
  maxBytes: 1,
  lastFetchedEpochPlusOne: 1,
  logStartOffset,
  flushedOffset: 20,
  damagedFromPlusOne: 0,
  diskFull: false,
  verify: false,
});

describe("FetchSession", () => {
  it("tells a follower of a log start again that it was told and does not have", () => {
    const session = new FetchSession(1, 1, 2, { count: 0 });
    const ask = (logStartOffset: number) => session.put(asking(logStartOffset), undefined, toOffset(20));
    const entry = ask(0);
    entry.toldLogStart = toOffset(10);
    expect(ask(10).toldLogStart).toBe(10);
    // The answer came when the follower could not use it, or its disk did not take it.
    expect(ask(9).toldLogStart).toBeUndefined();
  });

  it("tells a consumer once, which has no log", () => {
    const session = new FetchSession(1, 1, undefined, { count: 0 });
    const entry = session.put(asking(0), undefined, toOffset(20));
    entry.toldLogStart = toOffset(10);
    expect(session.put(asking(0), undefined, toOffset(20)).toldLogStart).toBe(10);
  });

  function setUp(): { session: FetchSession; partition: Partition; ask: () => SessionPartition; wakes: string[] } {
    const session = new FetchSession(1, 1, undefined, { count: 0 });
    const partition = { observe: () => undefined, unobserve: () => undefined } as unknown as Partition;
    const named = { topicId: "t", partition: 0, leaderEpochPlusOne: 0, maxBytes: 1, verify: false };
    const wakes: string[] = [];
    session.park((urgency) => wakes.push(urgency));
    return { session, partition, ask: () => session.put(named as FetchPartition, partition, toOffset(0)), wakes };
  }
  /** As when its records are read from disk. */
  function read(session: FetchSession, entry: SessionPartition): number {
    session.markTold(entry);
    entry.awaitsReader = true;
    return entry.asked;
  }

  it("keeps what happens during a read for the reader's next question, when records come of it", () => {
    const { session, partition, ask, wakes } = setUp();
    const entry = ask();
    read(session, entry);
    session.onHighWatermark(partition);
    expect(session.changed().size).toBe(0);
    expect(wakes).toEqual([]);
    ask();
    expect([...session.changed()]).toEqual([entry]);
  });

  it("tells it without being asked, when nothing comes of the read", () => {
    const { session, partition, ask, wakes } = setUp();
    const entry = ask();
    const asked = read(session, entry);
    session.onHighWatermark(partition);
    session.nothingRead(entry, asked);
    expect([...session.changed()]).toEqual([entry]);
    expect(wakes).toEqual(["records"]);
  });

  it("does not ask a reader to wait, or to look, because of what it does not want any more", () => {
    const { session, partition, ask } = setUp();
    const entry = ask();
    const asked = read(session, entry);
    ask();
    read(session, entry);
    session.onHighWatermark(partition);
    session.nothingRead(entry, asked);
    expect(entry.awaitsReader).toBe(true);
    expect(session.changed().size).toBe(0);
    session.forget(`t:0` as never);
    session.nothingRead(entry, entry.asked);
    expect(session.changed().size).toBe(0);
  });

  it("tells nothing of a partition whose disk is read again before the last look that was asked for is over", async () => {
    const looks: (() => void)[] = [];
    const verify = (): Promise<void> => new Promise((resolve) => void looks.push(resolve));
    const partition = { observe: () => undefined, unobserve: () => undefined, verify } as unknown as Partition;
    const session = new FetchSession(1, 1, 2, { count: 0 });
    const wakes: string[] = [];
    session.park((urgency) => wakes.push(urgency));
    const ask = (): SessionPartition => session.put({ ...asking(0), verify: true }, partition, toOffset(20));
    for (let question = 0; question < 2; question += 1) {
      const entry = ask();
      session.verify(entry);
      session.verify(entry);
      session.markTold(entry);
    }
    const entry = ask();
    session.verify(entry);
    session.markTold(entry);
    expect(looks).toHaveLength(3);
    looks[0]?.();
    looks[1]?.();
    await Promise.resolve();
    expect([entry.verify, wakes, session.changed().size]).toEqual([true, [], 0]);
    looks[2]?.();
    await Promise.resolve();
    expect([entry.verify, wakes, [...session.changed()]]).toEqual([false, ["records"], [entry]]);
  });
});
