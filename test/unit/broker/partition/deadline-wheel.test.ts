import { DeadlineWheel } from "../../../../broker/partition/deadline-wheel.js";
import { ManualTime } from "../../../support/manual-time.js";

describe("DeadlineWheel", () => {
  it("expires each deadline once, not before its time, and none that was cancelled, be it by one that expires with it", () => {
    const time = new ManualTime();
    const wheel = new DeadlineWheel(time, time);
    const expired: string[] = [];
    const later = wheel.after(20, () => expired.push("cancelled before"));
    wheel.after(20, () => {
      expired.push("first");
      second.cancel();
    });
    const second = wheel.after(20, () => expired.push("cancelled by the first"));
    wheel.after(50, () => expired.push("last"));
    later.cancel();
    time.advance(19);
    expect(expired).toEqual([]);
    time.advance(20);
    expect(expired).toEqual(["first"]);
    time.advance(100);
    expect(expired).toEqual(["first", "last"]);
    expect(time.pendingTimers).toBe(0);
  });
});
