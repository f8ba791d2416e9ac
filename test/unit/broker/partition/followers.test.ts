import { Followers } from "../../../../broker/partition/followers.js";
import type { FollowerFetch } from "../../../../broker/partition/followers.js";
import { toOffset } from "../../../../protocol/types.js";

describe("Followers", () => {
  const fetchOf = (brokerEpoch: string, fetchOffset: number): FollowerFetch => ({
    brokerId: 2,
    brokerEpoch,
    fetchOffset: toOffset(fetchOffset),
    durableLogStart: toOffset(0),
    flushedOffset: toOffset(0),
    lastFetchedEpoch: 0,
    damagedFrom: undefined,
    diskFull: false,
  });

  it("take no late fetch of a process whose successor has fetched", () => {
    const followers = new Followers(0);
    followers.note(fetchOf("9", 100), toOffset(100), 10);
    followers.note(fetchOf("10", 90), toOffset(100), 20);
    expect(() => followers.note(fetchOf("9", 100), toOffset(100), 30)).toThrow(
      expect.objectContaining({ errorName: "STALE_BROKER_EPOCH" }),
    );
    expect(followers.get(2)).toMatchObject({ brokerEpoch: "10", logEndOffset: 90, fetchedMs: 20 });
    followers.note(fetchOf("10", 95), toOffset(100), 40);
    expect(followers.get(2)).toMatchObject({ logEndOffset: 95 });
  });

  it("take no fetch of a process whose epoch is none, and go on", () => {
    const followers = new Followers(0);
    followers.note(fetchOf("9", 100), toOffset(100), 10);
    for (const junk of ["", "-1", "x", "99999999999999999999x"]) {
      expect(() => followers.note(fetchOf(junk, 100), toOffset(100), 20)).toThrow(
        expect.objectContaining({ errorName: "STALE_BROKER_EPOCH" }),
      );
    }
    expect(followers.get(2)).toMatchObject({ brokerEpoch: "9", fetchedMs: 10 });
  });

  it("count with what their present process has told, and not with what the one before it had told", () => {
    const followers = new Followers(0);
    followers.note(fetchOf("9", 100), toOffset(100), 10);
    expect(followers.getAs(2, undefined)).toMatchObject({ logEndOffset: 100 });
    expect(followers.getAs(2, "9")).toMatchObject({ logEndOffset: 100 });
    expect(followers.getAs(2, "10")).toBeUndefined();
    // It registers, fetches, and this broker hears of the registration last.
    followers.note(fetchOf("10", 90), toOffset(100), 20);
    expect(followers.getAs(2, "9")).toMatchObject({ logEndOffset: 90 });
    // When it was last heard does not change: nobody is put out of sync because he was bounced.
    expect(followers.get(2)).toMatchObject({ fetchedMs: 20 });
  });
});
