import { FetchSession } from "../../../../broker/api/fetch-session.js";
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
    const session = new FetchSession(1, 1, 2);
    const ask = (logStartOffset: number) => session.put(asking(logStartOffset), undefined, toOffset(20));
    const entry = ask(0);
    entry.toldLogStart = toOffset(10);
    expect(ask(10).toldLogStart).toBe(10);
    // The answer came when the follower could not use it, or its disk did not take it.
    expect(ask(9).toldLogStart).toBeUndefined();
  });

  it("tells a consumer once, which has no log", () => {
    const session = new FetchSession(1, 1, undefined);
    const entry = session.put(asking(0), undefined, toOffset(20));
    entry.toldLogStart = toOffset(10);
    expect(session.put(asking(0), undefined, toOffset(20)).toldLogStart).toBe(10);
  });
});
