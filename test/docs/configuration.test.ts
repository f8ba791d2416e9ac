import { readFileSync } from "node:fs";
import { configurationManual } from "../../tools/configuration-manual.js";

describe("docs/configuration.md", () => {
  it("says what the tables of settings say", () => {
    expect(readFileSync("docs/configuration.md", "utf8")).toBe(configurationManual());
  });
});
