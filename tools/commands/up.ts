import type { Command } from "commander";
import { setTimeout as sleep } from "node:timers/promises";
import { onStopSignal } from "../../common/env/node-signals.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { collectSettings, parseCount, plural } from "../cli/quantities.js";
import { runCommand } from "../cli/run-command.js";
import { asTyped } from "../cli/typed-program.js";
import { dataPlace } from "../local-cluster/data-place.js";
import { isRunning, LocalCluster, nameOf } from "../local-cluster/local-cluster.js";
import type { ServingCluster } from "../local-cluster/local-cluster.js";

interface UpOptions {
  readonly brokers?: number;
  readonly zookeepers?: number;
  readonly zookeeper?: string;
  readonly data?: string;
  readonly detach?: boolean;
  readonly port?: number;
  readonly zookeeperPort?: number;
  readonly set?: readonly (readonly [string, string])[];
}

const DATA = "where the cluster lies ($OTTLA_HOME, or ./.ottla)";
/** How often a cluster in the foreground is looked at. */
const WATCH_MS = 500;

/** `ottla up` and `ottla down`: a whole cluster on this machine. */
export function addUpCommands(program: Command): void {
  const up = program
    .command("up")
    .description("start a whole cluster on this machine: ZooKeeper and brokers")
    .option("--brokers <number>", "how many brokers (3)", parseCount(1, 100))
    .option("--zookeepers <1|3>", "how many ZooKeeper servers (1)", parseCount(1, 3))
    .option("--zookeeper <host:port,...>", "use servers that run already, and start none (or OTTLA_ZOOKEEPER)")
    .option("--data <directory>", DATA)
    .option("-d, --detach", "leave it running and return as soon as it serves")
    .option("--port <number>", "of the first broker, the others follow (9092); 0 for free ones", parseCount(0, 65_535))
    .option(
      "--zookeeper-port <number>",
      "of the first ZooKeeper server (2181, or the next free one)",
      parseCount(1, 65_535),
    )
    .option("--set <name=value>", "a setting of all brokers; may be repeated", collectSettings)
    .action((options: UpOptions) => runCommand(up, (context) => startCluster(context, options), { signals: "own" }));
  const down = program
    .command("down")
    .description("stop the cluster that ottla up started; its data stays")
    .option("--data <directory>", DATA)
    .action((options: { readonly data?: string }) => runCommand(down, (context) => stopCluster(context, options.data)));
  for (const command of [up, down]) addCommonOptions(command);
}

async function startCluster(context: CommandContext, options: UpOptions): Promise<number> {
  const cluster = new LocalCluster(dataPlace(options.data, process.env));
  const stopping = new AbortController();
  // After a second one the processes run on, and `ottla down` finds them.
  onStopSignal(["SIGINT", "SIGTERM", "SIGHUP"], () => stopping.abort(new Error("interrupted")));
  let serving: ServingCluster;
  try {
    serving = await cluster.start({
      ...options,
      settings: options.set === undefined ? undefined : Object.fromEntries(options.set),
      timeoutMs: context.timeoutMs,
      signal: stopping.signal,
      say: (sentence) => context.note(sentence),
    });
  } catch (error) {
    if (stopping.signal.aborted) return 130;
    throw error;
  }
  announce(context, cluster, serving);
  if (options.detach === true) return 0;
  context.note(serving.ranBefore ? "it ran before, and goes on after Ctrl-C; ottla down stops it" : "Ctrl-C stops it");
  await context.out.flush();
  await watch(context, cluster, stopping.signal);
  if (!serving.ranBefore) await cluster.stop((sentence) => context.note(sentence));
  return 0;
}

function announce({ json, out, note }: CommandContext, cluster: LocalCluster, serving: ServingCluster): void {
  if (json)
    return out.writeJson({
      cluster: serving.cluster,
      bootstrap: serving.bootstrap,
      zookeeper: serving.zookeeper,
      data: cluster.data,
    });
  if (serving.foundRunning.length > 0) note(`of an earlier run, still running: ${serving.foundRunning.join(", ")}`);
  out.writeText(
    `the cluster serves\n  brokers    ${serving.bootstrap}\n  zookeeper  ${serving.zookeeper}\n  data       ${cluster.data}\n`,
  );
  // Commands look for brokers at the usual ports only, unless they are told.
  if (!serving.bootstrap.startsWith("127.0.0.1:9092"))
    out.writeText(`  commands   OTTLA_BOOTSTRAP=${serving.bootstrap} ${asTyped("ottla topic list")}\n`);
}

/** Says when a process ends that was not told to, until the signal comes. */
async function watch(context: CommandContext, cluster: LocalCluster, signal: AbortSignal): Promise<void> {
  const running = new Map<string, boolean>();
  while (!signal.aborted) {
    for (const entry of cluster.processes()) {
      const name = nameOf(entry);
      const runs = isRunning(entry);
      if (running.get(name) === true && !runs)
        context.note(
          `${name} has ended; see ${cluster.logFileOf(entry)}${entry.kind === "broker" ? `, or start it again: ottla restart ${entry.id}` : ""}`,
        );
      if (running.get(name) === false && runs) context.note(`${name} runs again`);
      running.set(name, runs);
    }
    await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
  }
}

async function stopCluster(context: CommandContext, data: string | undefined): Promise<void> {
  const cluster = new LocalCluster(dataPlace(data, process.env));
  const stopped = await cluster.stop((sentence) => context.note(sentence));
  if (context.json) context.out.writeJson({ stopped });
  else context.out.writeText(stopped === 0 ? "nothing was running\n" : `stopped ${plural(stopped, "process")}\n`);
}
