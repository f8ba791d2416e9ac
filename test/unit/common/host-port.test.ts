import { parseAddresses } from "../../../client/options.js";
import { formatAddress } from "../../../common/host-port.js";

describe("an address", () => {
  it.each([
    [{ host: "broker-1", port: 9092 }, "broker-1:9092"],
    [{ host: "127.0.0.1", port: 9092 }, "127.0.0.1:9092"],
    [{ host: "::1", port: 22_151 }, "[::1]:22151"],
  ])("is written as it is read: %j", (address, text) => {
    expect(formatAddress(address)).toBe(text);
    expect(parseAddresses(text)).toEqual([address]);
  });

  it("is refused without brackets, with how it is written", () => {
    expect(() => parseAddresses("::1:22151")).toThrow('an IPv6 address as "[::1]:9092"');
  });
});
