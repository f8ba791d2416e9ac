// npm run plants: faults that are put into the code on purpose, to see that the tests find them (docs/testing.md).
//
//   npm run plants                         every plant, until it is caught or 30 minutes of CPU time are over
//   npm run plants -- NAME ...             these plants
//   npm run plants -- --minutes 3          with another limit, for each plant
//   npm run plants -- --quick              one that is caught soon, drawn by chance
//   npm run plants -- --list               which there are
//   npm run plants -- --jobs 1             one at a time
//
// A plant that the swarm must catch is put in by scripts/typescript-hooks.mjs and meets random seeds; one that is another
// test's is put into a copy of the checkout, in which that test must fail.
import { fork } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { clearTimeout } from "node:timers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { giveUp, helpIfAsked, install, requireNode, root, run } from "./prepare.mjs";
import { plantEdits, readPlants } from "./plant-table.mjs";
import { freshSeeds, isBroken, workerOptions } from "./swarm.mjs";

const MINUTES = 30;
/** A run that takes longer, by the clock on the wall, has not ended. */
const RUN_LIMIT_MS = 600_000;
/** What is caught within so much CPU time, on the average, is looked for in every test run. */
const QUICK_SECONDS = 15;
/** What a test needs of the checkout. */
const copied = ["broker", "client", "common", "protocol", "test", "tools", "jest.config.mjs", "package.json"];

/** The name of a plant, drawn by chance, that the swarm catches so soon that every test run can look for it. */
function drawQuickPlant() {
  const quick = Object.entries(readPlants())
    .filter(([, { caughtBy, seconds }]) => caughtBy === "swarm" && seconds !== undefined && seconds <= QUICK_SECONDS)
    .map(([name]) => name);
  return quick[Math.floor(Math.random() * quick.length)];
}

/** A process that runs seeds of the swarm, with a plant or without one (""). */
export class SwarmProcess {
  #child;
  #onMessage;
  #onEnd;

  constructor(plant) {
    this.plant = plant;
  }

  /** Resolves with what the worker found out; a process that dies or does not end has failed as well. */
  async run(seed) {
    if (this.#child === undefined) await this.#start();
    const startedMs = Date.now();
    const ended = (failure) => ({ seed, failure, violations: [], lines: [], cpuMs: Date.now() - startedMs });
    return new Promise((resolve) => {
      const limit = setTimeout(() => {
        this.stop();
        resolve(ended(`the run has not ended after ${RUN_LIMIT_MS / 1000} s`));
      }, RUN_LIMIT_MS);
      const end = (result) => {
        clearTimeout(limit);
        resolve(result);
      };
      this.#onMessage = end;
      this.#onEnd = (code) => end(ended(`the process ended with ${code}`));
      this.#child.send(seed);
    });
  }

  stop() {
    const child = this.#child;
    this.#child = undefined;
    this.#onEnd = undefined;
    child?.kill("SIGKILL");
  }

  /** Rejects when the code does not load. */
  #start() {
    return new Promise((resolve, reject) => {
      let output = "";
      const child = fork(fileURLToPath(new URL("swarm-worker.mjs", import.meta.url)), [this.plant], {
        execArgv: workerOptions,
        stdio: ["ignore", "pipe", "pipe", "ipc"],
      });
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output = `${output}${chunk}`));
      this.#child = child;
      this.#onEnd = (code) => reject(new TableError(`with the plant the code does not load (${code}): ${output}`));
      child.on("message", (message) => (message.ready ? resolve() : this.#onMessage(message)));
      child.on("error", reject);
      child.on("exit", (code, signal) => {
        if (this.#child !== child) return;
        this.#child = undefined;
        this.#onEnd?.(code ?? signal);
      });
    });
  }
}

/** Something is wrong with an entry of the table, and nothing can be said about who catches it. */
class TableError extends Error {}

/** What a failed run showed first, in one line. */
export function firstLine({ failure, violations }) {
  const [violation] = violations;
  const text = failure ?? (violation && `${violation.id}: ${violation.sentence}`) ?? "";
  return text
    .split("\n", 1)[0]
    .replace(/^SimulationFailure: /, "")
    .slice(0, 200);
}

/** Random seeds until one fails that does not fail without the plant. */
async function hunt(name, limitMs, withoutPlant) {
  const planted = new SwarmProcess(name);
  const found = { name, caught: false, seeds: 0, cpuMs: 0, by: "" };
  try {
    for (const seed of freshSeeds()) {
      if (found.cpuMs >= limitMs) break;
      const result = await planted.run(seed);
      found.seeds += 1;
      found.cpuMs += result.cpuMs;
      if (!isBroken(result)) continue;
      if (/ReferenceError|SyntaxError/.test(result.failure ?? ""))
        throw new TableError(`the plant is no code: ${firstLine(result)}`);
      if (isBroken(await withoutPlant.run(seed))) continue;
      return { ...found, caught: true, by: `seed ${seed}: ${firstLine(result)}` };
    }
    return found;
  } finally {
    planted.stop();
  }
}

/** The test fails in a copy of the checkout that has the plant. */
async function test(name, path) {
  const copy = mkdtempSync(join(tmpdir(), "plant-"));
  const results = join(copy, "results.json");
  const startedMs = Date.now();
  try {
    for (const part of copied) cpSync(join(root, part), join(copy, part), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"));
    for (const { file, from, to } of plantEdits(name)) {
      const place = join(copy, relative(root, file));
      writeFileSync(
        place,
        readFileSync(place, "utf8").replace(from, () => to),
      );
    }
    const jest = join(root, "node_modules/jest/bin/jest.js");
    const options = ["--rootDir", copy, "--config", join(copy, "jest.config.mjs"), "--json", `--outputFile=${results}`];
    const node = ["--experimental-vm-modules", "--no-warnings", jest, ...options, "--runInBand"];
    const { output } = await run(process.execPath, [...node, "--runTestsByPath", join(copy, path)]);
    const report = existsSync(results) ? JSON.parse(readFileSync(results, "utf8")) : { numTotalTests: 0 };
    if (report.numTotalTests === 0) throw new TableError(`with the plant ${path} does not run: ${output.slice(-2000)}`);
    const failed = report.testResults.flatMap(({ assertionResults }) =>
      assertionResults.filter(({ status }) => status === "failed").map(({ fullName }) => fullName),
    );
    const by = failed.length === 0 ? "" : `${path}: ${failed[0]}`;
    return { name, caught: failed.length > 0, seeds: 0, cpuMs: Date.now() - startedMs, by };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

function line({ name, caught, seeds, cpuMs, by }) {
  const verdict = caught ? "caught" : "NOT CAUGHT";
  const effort = `${String(seeds).padStart(4)} seeds ${(cpuMs / 1000).toFixed(0).padStart(5)} s`;
  return `${name.padEnd(40)} ${verdict.padEnd(10)} ${effort}  ${by}`;
}

function list(names) {
  const plants = readPlants();
  for (const name of names) {
    const { caughtBy, seconds, breaks } = plants[name];
    console.log(`${name.padEnd(40)} ${caughtBy}${seconds === undefined ? "" : `, ${seconds} s`}\n  ${breaks}`);
  }
}

async function main() {
  helpIfAsked(import.meta.url);
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      list: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      minutes: { type: "string", default: String(MINUTES) },
      jobs: { type: "string", default: String(cpus().length) },
    },
  });
  requireNode();
  const plants = readPlants();
  const names = values.quick ? [drawQuickPlant()] : positionals.length > 0 ? positionals : Object.keys(plants);
  // Names and places first: whoever mistyped one need not wait.
  for (const name of names) plantEdits(name);
  if (values.list) {
    list(names);
    return 0;
  }
  await install();
  const limitMs = Number(values.minutes) * 60_000;
  const waiting = [...names];
  const found = [];
  await Promise.all(
    Array.from({ length: Number(values.jobs) }, async () => {
      const withoutPlant = new SwarmProcess("");
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
        const { caughtBy } = plants[name];
        try {
          found.push(await (caughtBy === "swarm" ? hunt(name, limitMs, withoutPlant) : test(name, caughtBy)));
        } catch (error) {
          if (!(error instanceof TableError)) throw error;
          found.push({ name, caught: false, seeds: 0, cpuMs: 0, by: error.message });
        }
        console.log(line(found[found.length - 1]));
      }
      withoutPlant.stop();
    }),
  );
  console.log("");
  for (const name of names) console.log(line(found.find((one) => one.name === name)));
  const caught = found.filter((one) => one.caught).length;
  console.log(`${caught} passed, ${found.length - caught} failed`);
  return caught === found.length ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().then(
    (code) => process.exit(code),
    (error) => giveUp(error),
  );
}
