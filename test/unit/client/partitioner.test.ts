import { murmur2, partitionOfKey } from "../../../client/partitioner.js";

describe("murmur2", () => {
  // The values that the tests of Kafka's Java client hold for Utils.murmur2.
  it.each([
    ["21", -973932308],
    ["foobar", -790332482],
    ["a-little-bit-long-string", -985981536],
    ["a-little-bit-longer-string", -1486304829],
    ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
    ["abc", 479470107],
  ])("hashes %s as Java's clients do", (key, hash) => {
    expect(murmur2(Buffer.from(key))).toBe(hash);
  });

  it("takes text for its UTF-8 bytes, short or long", () => {
    for (const key of ["", "ключ", "é".repeat(200), "x".repeat(1000), "\u{1f600}"]) {
      expect(partitionOfKey(key, 1000)).toBe(partitionOfKey(Buffer.from(key), 1000));
    }
  });

  it("gives a partition that exists for every key", () => {
    for (let index = 0; index < 500; index += 1) {
      const partition = partitionOfKey(`key-${index}`, 7);
      expect(partition).toBeGreaterThanOrEqual(0);
      expect(partition).toBeLessThan(7);
    }
  });
});
