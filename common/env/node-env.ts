import type { Env } from "./env.js";
import { nodeFileSystem } from "./node-files.js";
import { nodeNetwork } from "./node-network.js";
import { nodeBootId, nodeCompute, nodeProcess } from "./node-process.js";
import { nodeClock, nodeRandom, nodeTimers } from "./node-time.js";

/**
 * The real world, bound once. `overrides` replaces single parts: a broker adds its way to ZooKeeper, which clients have no
 * use for and therefore do not load.
 */
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
        throw new Error("this process was given no way to ZooKeeper: pass nodeZooKeeperConnector to nodeEnv");
      },
    },
    bootId: nodeBootId(),
    process: nodeProcess,
    ...overrides,
  };
}
