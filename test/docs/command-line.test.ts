import { readFileSync } from "node:fs";
import { commandLineManual } from "../../tools/command-line-manual.js";

describe("docs/command-line.md", () => {
  it("is what the tree of commands says: run `npm run docs`", () => {
    expect(readFileSync("docs/command-line.md", "utf8")).toBe(commandLineManual());
  });
});
