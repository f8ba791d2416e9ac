import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { regressions } from "./swarm/regressions.js";
import { runSwarm } from "./swarm/run.js";

/** Seeds that every run takes, beside those that failed once and fresh ones. */
const FIXED_SEEDS = "1..12";
/** How long fresh seeds are taken; one that has begun goes on to its end. */
const FRESH_SECONDS = 45;

/** A planted bug that is caught within 15 seconds of CPU time on the average is looked for so long. */
const PLANT_MINUTES = 2.5;

/** Runs seeds in processes of plain Node, in which the simulator is quicker; resolves with what they printed. */
function run(script: string, ...args: string[]): Promise<{ readonly code: number | null; readonly output: string }> {
  const program = fileURLToPath(new URL(`../../scripts/${script}.mjs`, import.meta.url));
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, "--jobs", "1", ...args], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
}

async function expectPromisesKept(...args: string[]): Promise<void> {
  const { code, output } = await run("swarm", ...args);
  if (code !== 0) throw new Error(output);
  expect(output).toMatch(/^[1-9][0-9]* passed, 0 failed$/m);
}

describe("random worlds", () => {
  it("keep every promise: fixed seeds", () => expectPromisesKept("--seeds", FIXED_SEEDS), 600_000);

  it("keep every promise: seeds that failed once", async () => {
    await expectPromisesKept("--seeds", regressions.map(({ seed }) => seed).join(","));
  }, 600_000);

  it("keep every promise: fresh seeds", () => expectPromisesKept("--seconds", String(FRESH_SECONDS)), 600_000);

  it("show a bug that is planted, drawn by chance", async () => {
    const { code, output } = await run("plants", "--quick", "--minutes", String(PLANT_MINUTES));
    if (code !== 0) throw new Error(output);
    expect(output).toMatch(/^1 passed, 0 failed$/m);
  }, 400_000);

  it("are alike when a seed is run again", async () => {
    const [one, two] = [await runSwarm(3), await runSwarm(3)];
    expect([two.traceHash, two.eventCount, two.counts]).toEqual([one.traceHash, one.eventCount, one.counts]);
  }, 300_000);
});
