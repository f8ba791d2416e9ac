import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { startProgram } from "../support/cluster.js";

const scripts = fileURLToPath(new URL("../../scripts", import.meta.url));
const { scripts: commands } = JSON.parse(
  fs.readFileSync(fileURLToPath(new URL("../../package.json", import.meta.url)), "utf8"),
) as { scripts: Record<string, string> };

describe("the scripts of the checkout", () => {
  it.each(["build", "docs", "start", "test", "check", "accept", "swarm", "plants"])(
    "say what they take when `npm run %s` is asked for help, and do nothing",
    async (name) => {
      expect(commands[name]?.replace(/^exec /, "")).toBe(`node scripts/${name}.mjs`);
      for (const flag of ["--help", "-h"]) {
        const { code, stdout, stderr } = await startProgram(`${scripts}/${name}.mjs`, [flag]).result;
        expect([code, stderr]).toEqual([0, ""]);
        expect(stdout).toMatch(new RegExp(`^npm (run )?${name}: `));
        expect(stdout).not.toContain("//");
      }
    },
  );

  it.each(["build", "docs", "check", "start", "swarm", "plants"])(
    "answer a wrong option of `npm run %s` with one line",
    async (name) => {
      const { code, stdout, stderr } = await startProgram(`${scripts}/${name}.mjs`, ["--nosuch"]).result;
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toMatch(/^error: USAGE: Unknown option '--nosuch'[^\n]* - [^\n]+\n$/);
    },
  );
});
