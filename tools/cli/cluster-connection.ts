import type { Cluster } from "../../client/index.js";
import type { LogFields, Logger } from "../../common/logger.js";
import { silentLogger } from "../../common/logger.js";
import { CliError, usageError } from "./cli-error.js";
import { readClusterState } from "../local-cluster/cluster-state.js";
import { dataPlace } from "../local-cluster/data-place.js";
import { conditionOf } from "../local-cluster/process-identity.js";
import type { CommandContext } from "./command-context.js";
import { parseBootstrap } from "./command-context.js";
import { withFlagInHint } from "./flag-in-hint.js";
import { formatDuration } from "./quantities.js";
import { describeError } from "./run-command.js";

/** Waiting longer than this without a word looks like hanging. */
const PATIENCE_MS = 2000;
/** A note names so many partitions, and says how many more there are. */
const LISTED_MAX = 5;

/** The connection of a command to its cluster. The client is loaded here and not before: `--help` needs none. */
export async function connectTo(
  target: Pick<CommandContext, "bootstrap" | "timeoutMs" | "signal">,
  note?: (sentence: string) => void,
): Promise<Cluster> {
  const { connect } = await import("../../client/index.js");
  const waiting = setTimeout(() => {
    note?.(`waiting for a broker at ${target.bootstrap} (up to ${formatDuration(target.timeoutMs)}, see --timeout)`);
  }, PATIENCE_MS);
  try {
    return await connect({
      bootstrapBrokers: target.bootstrap,
      clientId: "ottla-cli",
      deadlineMs: target.timeoutMs,
      signal: target.signal,
      ...(note === undefined ? {} : { logger: loggerTo(note) }),
    });
  } finally {
    clearTimeout(waiting);
  }
}

/** Connects as the command's options say. */
export async function connectFor(context: CommandContext): Promise<Cluster> {
  try {
    parseBootstrap(context.bootstrap);
  } catch (error) {
    // What was typed has been checked when it was read.
    if (error instanceof CliError) throw usageError(`OTTLA_BOOTSTRAP: ${error.message}`, error.hint);
    throw error;
  }
  try {
    return await connectTo(context, (sentence) => context.note(sentence));
  } catch (error) {
    const { name, message } = describeError(error);
    if (name !== "CONNECTION_FAILED") throw error;
    if (context.bootstrapFrom !== undefined) throw withFlagInHint(error, context.bootstrapFrom);
    const running = runningHere();
    const hint =
      running === undefined
        ? "start a cluster with ottla up, or name brokers of one that runs with --bootstrap"
        : `a cluster runs on other ports: add --bootstrap ${running}, or set OTTLA_BOOTSTRAP to that`;
    throw new CliError(name, message, { hint, retriable: true, cause: error });
  }
}

/** The addresses of the brokers that run of the cluster which `ottla up` has started here; undefined: there are none. */
function runningHere(): string | undefined {
  try {
    const brokers = readClusterState(dataPlace(undefined, process.env))?.brokers ?? [];
    const running = brokers.filter((entry) => entry.process !== undefined && conditionOf(entry.process) !== "gone");
    return running.length === 0 ? undefined : running.map(({ port }) => `127.0.0.1:${port}`).join(",");
  } catch {
    // A state file that cannot be read is told by the commands that are about it.
    return undefined;
  }
}

/** What the client has to say beyond its errors: a silent leader, a cluster that moved. */
function loggerTo(note: (sentence: string) => void): Logger {
  const tell = (sentence: string, fields?: LogFields): void => note(noteOf(sentence, fields));
  const logger: Logger = { ...silentLogger, warn: tell, error: tell, child: () => logger };
  return logger;
}

/** `a leader does not answer (broker 2, partitions orders-0, orders-1, silent 10s)` */
function noteOf(sentence: string, { topic, partition, reason, ...fields }: LogFields = {}): string {
  const place = topic === undefined ? [] : [`${topic}-${partition}`];
  const others = Object.entries(fields).flatMap(([name, value]) => {
    if (value === undefined || value === null) return [];
    if (name.endsWith("Ms")) return [`${wordsOf(name.slice(0, -2))} ${formatDuration(Number(value))}`];
    return [`${wordsOf(name.replace(/Id$/, ""))} ${Array.isArray(value) ? listed(value) : String(value)}`];
  });
  const told = [...place, ...others].join(", ");
  return `${sentence}${told === "" ? "" : ` (${told})`}${reason === undefined ? "" : `: ${reason}`}`;
}

const wordsOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);

function listed(values: readonly unknown[]): string {
  const more = values.length - LISTED_MAX;
  return `${values.slice(0, LISTED_MAX).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
