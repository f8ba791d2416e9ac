import { brokerEpochNumber, isOlderBrokerEpoch } from "../../../protocol/types.js";

describe("epochs of brokers", () => {
  it("are compared as numbers of 64 bits", () => {
    expect(isOlderBrokerEpoch("9", "10")).toBe(true);
    expect(isOlderBrokerEpoch("10", "9")).toBe(false);
    expect(isOlderBrokerEpoch("10", "10")).toBe(false);
    expect(isOlderBrokerEpoch("9223372036854775806", "9223372036854775807")).toBe(true);
    expect(isOlderBrokerEpoch("9223372036854775807", "9223372036854775806")).toBe(false);
  });

  it("are older than any when they are none", () => {
    for (const junk of ["", "-1", "1.5", "0x9", "x"]) {
      expect(brokerEpochNumber(junk)).toBe(0n);
      expect(isOlderBrokerEpoch(junk, "1")).toBe(true);
      expect(isOlderBrokerEpoch("1", junk)).toBe(false);
    }
    expect(brokerEpochNumber(undefined)).toBe(0n);
  });
});
