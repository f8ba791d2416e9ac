// One process that runs seeds of the swarm which its parent (swarm.mjs) sends it, with at most one plant put in.
import { Buffer } from "node:buffer";
import { register } from "node:module";
import { plantEdits } from "./plant-table.mjs";

const [plant = "", world = ""] = process.argv.slice(2);
const edits = plant === "" ? [] : plantEdits(plant);
register("./typescript-hooks.mjs", { parentURL: import.meta.url, data: { edits } });
const { runSwarm } = await import("../test/simulation/swarm/run.ts");
const { measuredWorld, worldOf } = await import("../test/simulation/swarm/world.ts");
const makeWorld = world === "measured" ? measuredWorld : worldOf;

/** Each seed that this divides is run again: the same must happen. */
const AGAIN_EACH = 16;
/** Many errors are expected, and where they were made is asked only of a seed that fails. */
const FRAMES_OF_FAILURE = 30;
Error.stackTraceLimit = 0;

/** Memory of their own for small buffers costs several times as much as a piece of a large one. */
const SMALL_BYTES_MAX = 4 * 1024;
/** No power of two: what the product uses again when it is given back. */
const SLAB_BYTES = 15 * SMALL_BYTES_MAX;
const allocateAlone = Buffer.allocUnsafeSlow;
let slab = new ArrayBuffer(SLAB_BYTES);
let slabEnd = 0;
Buffer.allocUnsafeSlow = (bytes) => {
  if (!(bytes < SMALL_BYTES_MAX)) return allocateAlone(bytes);
  if (slabEnd + bytes > SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabEnd = 0;
  }
  const buffer = Buffer.from(slab, slabEnd, bytes);
  slabEnd += bytes;
  return buffer;
};

process.on("message", (seed) => {
  void runTwiceAtTimes(seed).then((result) => process.send(result));
});
process.send({ ready: true });

async function runTwiceAtTimes(seed) {
  const result = await runOne(seed);
  const isBroken = result.failure !== undefined || result.violations.length > 0;
  if (!isBroken && seed % AGAIN_EACH !== 0) return result;
  if (isBroken) Error.stackTraceLimit = FRAMES_OF_FAILURE;
  const again = await runOne(seed);
  Error.stackTraceLimit = 0;
  const { traceHash } = again;
  if (traceHash === result.traceHash && isBroken) return { ...again, cpuMs: result.cpuMs };
  if (traceHash !== result.traceHash)
    result.failure = `the seed was run again, and something else happened: ${result.traceHash} and ${traceHash}`;
  return result;
}

/** What came of a seed, as the parent prints it. */
async function runOne(seed) {
  const before = process.cpuUsage();
  let cluster;
  const result = { seed, failure: undefined, violations: [], counts: undefined, faults: {}, lines: [] };
  try {
    const run = await runSwarm(seed, makeWorld(seed), (made) => (cluster = made));
    Object.assign(result, { violations: run.violations.slice(0, 20), counts: run.counts, faults: run.faults });
  } catch (error) {
    result.failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const used = process.cpuUsage(before);
  result.cpuMs = (used.user + used.system) / 1000;
  result.virtualMs = cluster?.nowMs ?? 0;
  result.traceHash = cluster?.simulation.scheduler.traceHash;
  if (result.failure !== undefined || result.violations.length > 0)
    result.lines = cluster?.lines.slice(-Number(process.env.SIM_LINES ?? 40)) ?? [];
  return result;
}
