import { ZooKeeper } from "../../broker/zookeeper/zookeeper.js";
import { nodeEnv } from "../../common/env/node-env.js";
import { nodeClock, nodeRandom, nodeTimers } from "../../common/env/node-time.js";
import { nodeZooKeeperConnector } from "../../common/env/node-zookeeper.js";
import type { Env } from "../../common/env/env.js";
import type { Logger } from "../../common/logger.js";
import { silentLogger } from "../../common/logger.js";
import { SimZooKeeper } from "../simulation/sim-zookeeper.js";
import { startRealZooKeeper } from "./real-zookeeper.js";

/** One ZooKeeper to hold to the contract, and the world in which the wrapper reaches it. */
export interface ZooKeeperWorld {
  readonly env: Env;
  readonly connectString: string;
  stop(): Promise<void>;
}

/** The simulator's ensemble, of one server like the real one, in real time. */
export function inMemoryWorld(): Promise<ZooKeeperWorld> {
  const parts = { clock: nodeClock, timers: nodeTimers, random: nodeRandom };
  const ensemble = new SimZooKeeper(parts, { hosts: ["zk1"] });
  const connector = ensemble.connector({ guard: (callback) => callback, timers: nodeTimers });
  return Promise.resolve({
    env: nodeEnv({ zookeeper: connector }),
    connectString: ensemble.connectString,
    stop: () => {
      ensemble.stop();
      return Promise.resolve();
    },
  });
}

/** A real standalone server. */
export async function realWorld(): Promise<ZooKeeperWorld> {
  const zookeeper = await startRealZooKeeper();
  return { env: realZooKeeperEnv, connectString: zookeeper.connectString, stop: () => zookeeper.stop() };
}

export const realZooKeeperEnv: Env = nodeEnv({ zookeeper: nodeZooKeeperConnector });

/** The sessions of one test; `abandonAll` is for its end. */
export class Sessions {
  readonly #sessions: ZooKeeper[] = [];

  constructor(
    private readonly env: Env,
    private readonly defaultServers: string,
  ) {}

  /** A session that has begun. */
  async open(options: SessionOptions = {}): Promise<ZooKeeper> {
    const session = this.start(options);
    await session.whenConnected(10_000);
    return session;
  }

  /** A session that is being made. */
  start(options: SessionOptions = {}): ZooKeeper {
    const session = new ZooKeeper(this.env, options.logger ?? silentLogger, {
      servers: options.servers ?? this.defaultServers,
      sessionTimeoutMs: options.sessionTimeoutMs ?? 6000,
    });
    this.#sessions.push(session);
    return session;
  }

  async closeAll(): Promise<void> {
    await Promise.all(this.#sessions.splice(0).map((session) => session.close()));
  }
}

export interface SessionOptions {
  readonly servers?: string;
  /** @defaultValue 6000 */
  readonly sessionTimeoutMs?: number;
  readonly logger?: Logger;
}

/** Text as a node's data, and back. */
export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const textOf = (node: { readonly data: Uint8Array } | undefined): string | undefined =>
  node && new TextDecoder().decode(node.data);
