import { nodeEnv } from "../common/env/node-env.js";
import { onStopSignal } from "../common/env/node-signals.js";
import { nodeZooKeeperConnector } from "../common/env/node-zookeeper.js";
import { ListenFailure } from "../common/env/network.js";
import type { Logger } from "../common/logger.js";
import { ApiError } from "../protocol/error-codes.js";
import { Broker } from "./broker.js";
import { BrokerConfig } from "./config.js";
import { DataDirectoryError } from "./data-directory.js";
import { completeListeners, exposedListeners, parseListener } from "./listeners.js";
import { createWinstonLogger } from "./winston-logger.js";
import { BrokerIdTaken } from "./zookeeper/broker-registration.js";
import { ConnectStringError } from "./zookeeper/server-list.js";
import { ZooKeeperError } from "./zookeeper/zookeeper.js";

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

/** Why a broker could not start, in the shape in which the command line reports errors. */
class BrokerDidNotStart extends Error {
  override readonly name = "BrokerDidNotStart";
  readonly retriable: boolean;
  readonly exitCode: number;

  constructor(
    readonly code: string,
    readonly what: string,
    readonly hint: string,
    cause: unknown,
  ) {
    super(what, { cause });
    this.retriable = code === "ZOOKEEPER_UNAVAILABLE";
    // Settings are part of the command, wherever they are written.
    this.exitCode = code === "INVALID_CONFIG" ? 2 : 1;
  }
}

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
    const addresses = exposed.map(({ name, host, port }) => `${name}://${host}:${port}`).join(", ");
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

/** What is expected to happen to whoever starts a broker, with what to do; anything else as it is. */
function explained(error: unknown): unknown {
  const because = (code: string, what: string, hint: string): Error => new BrokerDidNotStart(code, what, hint, error);
  if (error instanceof ListenFailure) {
    const [what, hint] = {
      "port-taken": [`${error.address} is taken by another process`, "stop it, or give another port with --listen"],
      "not-permitted": [`this user may not listen on ${error.address}`, "choose a port above 1023"],
      "no-such-address": [`${error.address} is no address of this machine`, "listen on one that it has"],
      failed: [`cannot listen on ${error.address}`, "check --listen"],
    }[error.reason] as [string, string];
    return because("LISTEN_FAILED", what, hint);
  }
  if (error instanceof ApiError) {
    const hint = "correct it where it is given, in the file of --config or on the command line";
    return because(error.errorName, error.message, hint);
  }
  if (error instanceof ConnectStringError) return because("INVALID_CONFIG", error.message, "correct --zookeeper");
  if (error instanceof DataDirectoryError) return because("DATA_DIRECTORY", error.message, "check --data");
  if (error instanceof BrokerIdTaken) return because("BROKER_ID_TAKEN", error.message, "check --id");
  if (error instanceof ZooKeeperError)
    return because("ZOOKEEPER_UNAVAILABLE", error.message, "check --zookeeper, and start the broker again");
  return error;
}
