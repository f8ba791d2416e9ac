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

  it.each([
    { typed: "--port 0", args: ["0"], kept: { npm_config_port: "true" }, right: "--port 0" },
    { typed: "--port=0", args: [], kept: { npm_config_port: "0" }, right: "--port 0" },
    {
      typed: "--brokers 1 --data /tmp/x",
      args: ["1", "/tmp/x"],
      kept: { npm_config_brokers: "true", npm_config_data: "true" },
      right: "--data DIR --brokers N",
    },
  ])("show the -- that `npm start $typed` lacks", async ({ args, kept, right }) => {
    const environment = { ...kept, npm_lifecycle_event: "start" };
    const { code, stdout, stderr } = await startProgram(`${scripts}/start.mjs`, args, environment).result;
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error: USAGE: --\w+ went to npm, not to ottla: no -- stands before it - /);
    expect(stderr.endsWith(` - type npm start -- ${right}\n`)).toBe(true);
  });
});
