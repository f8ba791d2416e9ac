import type { Env } from "./env.js";
import { nodeFileSystem } from "./node-files.js";
import { nodeNetwork } from "./node-network.js";
import { nodeBootId, nodeCompute, nodeProcess } from "./node-process.js";
import { nodeClock, nodeRandom, nodeTimers } from "./node-time.js";

/** The real world, bound once. `overrides` replaces single parts, for tests that need a real one with one thing odd. */
export function nodeEnv(overrides: Partial<Env> = {}): Env {
  return {
    clock: nodeClock,
    timers: nodeTimers,
    random: nodeRandom,
    network: nodeNetwork(),
    files: nodeFileSystem,
    compute: nodeCompute,
    zookeeper: {
      open: () => {
        throw new Error("the real ZooKeeper connector is not there yet");
      },
    },
    bootId: nodeBootId(),
    process: nodeProcess,
    ...overrides,
  };
}
