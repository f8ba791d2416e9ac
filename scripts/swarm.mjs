// npm run swarm: random seeds of the simulator, on all cores.
//
//   npm run swarm -- --seeds 1..200        these seeds
//   npm run swarm -- --seconds 120         fresh seeds, as many as begin within this time
//   npm run swarm -- --plant NAME          with a planted bug (test/plants/plants.json)
//   npm run swarm -- --jobs 1              on one core
//   npm run swarm -- --measure             how fast it is: ten seeds of one fixed world with three brokers, on one core
import { fork } from "node:child_process";
import { randomInt } from "node:crypto";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { plantEdits } from "./plant-table.mjs";
import { build, giveUp, helpIfAsked, install, requireNode } from "./prepare.mjs";

/** Fresh seeds lie here, far from those that anybody types. */
const FRESH_SEEDS = { min: 100_000, max: 2_000_000_000 };

/**
 * A simulation runs much code, and each part of it seldom: what V8 spends on compiling it counts as much as how it runs.
 * V8 has a compiler for that since Node 22 (Maglev). Before, baseline code at once, and optimized code early, but with
 * little inlined into it, which makes it cheap to compile, cost least.
 */
const compilerOptions =
  Number(process.versions.node.split(".")[0]) >= 22
    ? []
    : [
        "--always-sparkplug",
        "--interrupt-budget=66000",
        "--max-inlined-bytecode-size=150",
        "--max-inlined-bytecode-size-cumulative=150",
      ];

/** Almost everything dies young, and a young generation that begins larger is looked through less often. */
export const workerOptions = ["--enable-source-maps", "--no-warnings", "--min-semi-space-size=16", ...compilerOptions];

/**
 * Runs seeds until `seeds` are used up, the time has come, or `isEnough` says so after a result. Resolves with the results
 * in the order in which they came.
 */
export async function runSeeds({
  seeds,
  seconds = Infinity,
  jobs = cpus().length,
  plant = "",
  world = "",
  onResult = () => false,
}) {
  const results = [];
  const endMs = Date.now() + seconds * 1000;
  const next = seeds[Symbol.iterator]();
  let enough = false;
  await Promise.all(Array.from({ length: jobs }, () => work()));
  return results;

  /** One process: a seed, its result, the next. */
  function work() {
    return new Promise((resolve, reject) => {
      const child = fork(fileURLToPath(new URL("swarm-worker.mjs", import.meta.url)), [plant, world], {
        execArgv: workerOptions,
        stdio: ["ignore", "inherit", "inherit", "ipc"],
      });
      let ended = false;
      const end = () => {
        ended = true;
        child.kill("SIGKILL");
        resolve();
      };
      const giveNext = () => {
        if (enough || Date.now() >= endMs) return end();
        const { done, value } = next.next();
        if (done) return end();
        child.send(value);
      };
      child.on("message", (message) => {
        if (ended) return;
        if (!message.ready) {
          results.push(message);
          if (onResult(message)) enough = true;
        }
        giveNext();
      });
      child.on("error", reject);
      child.on("exit", (code) => {
        if (!ended) reject(new Error(`a process of the swarm ended with ${code}`));
      });
    });
  }
}

/** Whether a seed showed a broken promise. */
export const isBroken = ({ failure, violations }) => failure !== undefined || violations.length > 0;

/** What a seed showed, and how to see it again. */
export function report({ seed, failure, violations, lines }, plant = "") {
  const again = `npm run swarm -- --seeds ${seed}${plant === "" ? "" : ` --plant ${plant}`}`;
  const shown = violations.slice(0, 5).map(({ id, sentence }) => `  ${id}: ${sentence.slice(0, 400)}`);
  return [`seed ${seed} broke a promise; again: ${again}`, failure ?? shown.join("\n"), ...lines].join("\n");
}

/** How often each kind of thing happened over all results, and to whom. */
export function addFaults(results) {
  const sums = new Map();
  for (const { faults } of results) {
    for (const [kind, roles] of Object.entries(faults)) {
      const sum = sums.get(kind) ?? {};
      sums.set(kind, sum);
      for (const [role, count] of Object.entries(roles)) sum[role] = (sum[role] ?? 0) + count;
    }
  }
  return sums;
}

export function* freshSeeds() {
  const first = randomInt(FRESH_SEEDS.min, FRESH_SEEDS.max);
  for (let seed = first; ; seed += 1) yield seed;
}

/** `1..20`, `7`, `1..3,9`. */
export function* range(text) {
  for (const part of text.split(",")) {
    const [first, last = first] = part.split("..").map(Number);
    for (let seed = first; seed <= last; seed += 1) yield seed;
  }
}

async function main() {
  helpIfAsked(import.meta.url);
  const { values } = parseArgs({
    options: {
      seeds: { type: "string" },
      seconds: { type: "string" },
      plant: { type: "string", default: "" },
      jobs: { type: "string" },
      quiet: { type: "boolean", default: false },
      measure: { type: "boolean", default: false },
    },
  });
  requireNode();
  await install();
  await build();
  const { plant, measure } = values;
  if (plant !== "") plantEdits(plant);
  const wanted = values.seeds ?? (measure ? "1..10" : undefined);
  const seeds = wanted === undefined ? freshSeeds() : range(wanted);
  const seconds = values.seconds === undefined ? (wanted === undefined ? 60 : Infinity) : Number(values.seconds);
  const jobs = values.jobs === undefined ? (measure ? 1 : cpus().length) : Number(values.jobs);
  const onResult = (result) => {
    if (isBroken(result)) console.log(report(values.quiet ? { ...result, lines: [] } : result, plant));
    return false;
  };
  const results = await runSeeds({ seeds, seconds, jobs, plant, world: measure ? "measured" : "", onResult });
  if (results.length === 0) throw new Error(`no seed was run: ${wanted ?? `${seconds} seconds`} are none`);
  const broken = results.filter(isBroken);
  const sum = (of) => results.reduce((total, result) => total + of(result), 0);
  const virtualS = sum(({ virtualMs }) => virtualMs) / 1000;
  const cpuS = sum(({ cpuMs }) => cpuMs) / 1000;
  const whole = results.filter(({ counts }) => counts !== undefined);
  const wholeS = whole.reduce((total, { virtualMs }) => total + virtualMs, 0) / 1000;
  const operations = whole.reduce(
    (total, { counts }) => total + counts.ok + counts.fail + counts.info + counts.delivered,
    0,
  );
  for (const [kind, roles] of [...addFaults(results)].sort(([left], [right]) => (left < right ? -1 : 1))) {
    const total = Object.values(roles).reduce((all, count) => all + count, 0);
    const byRole = Object.entries(roles).map(([role, count]) => (role === "" ? "" : `${role} ${count}`));
    console.log(`${kind.padEnd(36)} ${String(total).padStart(7)}  ${byRole.join(", ")}`);
  }
  console.log(
    `${results.length} seeds, ${(virtualS / 3600).toFixed(2)} simulated hours, ${(virtualS / cpuS).toFixed(0)} simulated seconds a CPU second, ` +
      `${(operations / wholeS).toFixed(0)} operations a simulated second`,
  );
  console.log(`${results.length - broken.length} passed, ${broken.length} failed`);
  if (broken.length > 0) console.log(`broken: ${broken.map(({ seed }) => seed).join(" ")}`);
  return broken.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().then(
    (code) => process.exit(code),
    (error) => giveUp(error),
  );
}
