import { counted } from "../../../common/counted.js";

describe("what is counted", () => {
  it("stands in the singular where there is one", () => {
    expect([0, 1, 2].map((count) => counted(count, "replica", "are"))).toEqual([
      "0 replicas are",
      "1 replica is",
      "2 replicas are",
    ]);
    expect([1, 2].map((count) => counted(count, "batch"))).toEqual(["1 batch", "2 batches"]);
    expect([1, 2].map((count) => counted(count, "process", "have"))).toEqual(["1 process has", "2 processes have"]);
  });
});
