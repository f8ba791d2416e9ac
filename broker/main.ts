import { nodeEnv } from "../common/env/node-env.js";
import { onStopSignal } from "../common/env/node-signals.js";
import { nodeZooKeeperConnector } from "../common/env/node-zookeeper.js";
import { formatAddress } from "../common/host-port.js";
import type { Logger } from "../common/logger.js";
import { ApiError } from "../protocol/error-codes.js";
import { Broker } from "./broker.js";
import { BrokerConfig } from "./config.js";
import { completeListeners, exposedListeners, parseListener } from "./listeners.js";
import { explained } from "./start-failure.js";
import { createWinstonLogger } from "./winston-logger.js";
import { parseConnectString } from "./zookeeper/server-list.js";

export interface BrokerOptions {
  /** From 0, unique in the cluster. */
  readonly id: number;
  /** HOST:PORT,...[/CHROOT] */
  readonly zookeeper: string;
  /** [NAME://]HOST:PORT each. */
  readonly listeners: readonly string[];
  /** What others are told to connect to, [NAME://]HOST:PORT each. */
  readonly advertised?: readonly string[];
  /** The data directory. */
  readonly data: string;
  /** Listening beyond loopback is meant, although nothing asks who connects. */
  readonly insecure: boolean;
  /** By their dotted names. */
  readonly settings: Readonly<Record<string, string>>;
  readonly logFormat: "human" | "json";
}

/** A second signal, or a shutdown that takes longer than this, ends the process at once. */
const SHUTDOWN_MS_MAX = 30_000;

/**
 * Runs one broker until it is told to stop (SIGTERM, SIGINT). Resolves with the exit code, 0 after a clean stop. Rejects
 * when it could not start. Prints one line of JSON on stdout once it serves.
 */
export async function runBroker(options: BrokerOptions): Promise<number> {
  const logger = createWinstonLogger({ format: options.logFormat, level: "info" }).child({ broker: options.id });
  try {
    return await serve(options, logger);
  } catch (error) {
    throw explained(error);
  }
}

async function serve(options: BrokerOptions, logger: Logger): Promise<number> {
  const settings = { ...options.settings, "zookeeper.connect": options.zookeeper };
  const config = new BrokerConfig(settings);
  // Before anything is made for a cluster that is not the one that is meant.
  parseConnectString(options.zookeeper);
  const given =
    options.listeners.length > 0
      ? options.listeners
      : config
          .get("listeners")
          .split(",")
          .filter((text) => text !== "");
  const listeners = completeListeners(given, config.get("inter.broker.listener.name"));
  const advertisedTexts =
    options.advertised ??
    config
      .get("advertised.listeners")
      .split(",")
      .filter((text) => text !== "");
  const exposed = exposedListeners(listeners);
  if (exposed.length > 0) {
    const addresses = exposed.map(({ name, host, port }) => `${name}://${formatAddress({ host, port })}`).join(", ");
    if (!options.insecure) {
      throw new ApiError(
        "INVALID_CONFIG",
        `${addresses} can be reached by anybody in the network, and nothing asks who they are; listen on 127.0.0.1, or say --insecure`,
      );
    }
    logger.warn(
      `${addresses} can be reached by anybody in the network, without encryption and without asking who they are (--insecure)`,
    );
  }

  let stopping: Promise<number> | undefined;
  const broker = new Broker(
    nodeEnv({ zookeeper: nodeZooKeeperConnector }),
    logger,
    config,
    { brokerId: options.id, dataDirectory: options.data, listeners, advertised: advertisedTexts.map(parseListener) },
    (error) => die(logger, error),
  );
  process.on("uncaughtException", (error) => die(logger, error));
  process.on("unhandledRejection", (reason) =>
    die(logger, reason instanceof Error ? reason : new Error(String(reason))),
  );

  const stopped = new Promise<number>((resolve, reject) => {
    onStopSignal(["SIGTERM", "SIGINT"], (signal) => {
      logger.info(`${signal}: the broker stops`);
      setTimeout(
        () => die(logger, new Error(`the broker did not stop within ${SHUTDOWN_MS_MAX} ms`)),
        SHUTDOWN_MS_MAX,
      ).unref();
      stopping = broker.stop().then(() => 0);
      stopping.then(resolve, reject);
    });
  });
  const started = broker.start().catch((error: unknown) => {
    // A start that was told to stop ends with whatever it waited for: that is no failure.
    if (stopping === undefined) throw error;
  });
  await Promise.race([started, stopped]);
  if (stopping === undefined) process.stdout.write(`${JSON.stringify(servingLine(options.id, broker))}\n`);
  return stopped;
}

function servingLine(id: number, broker: Broker): Record<string, unknown> {
  const listeners = broker.endpoints.map(({ listener, host, port }) => ({ name: listener, host, port }));
  return { event: "serving", id, epoch: broker.epoch, listeners };
}

/**
 * A broken invariant, or a disk that refuses to sync: going on could lose records, so the process ends and others take
 * over.
 */
function die(logger: Logger, error: Error): never {
  logger.error(`the broker cannot go on and ends: ${error.message}`, { error: error.stack ?? error.message });
  // What winston holds is written by the stream in the same turn; stderr of a file or pipe is synchronous here.
  process.exit(70);
}
