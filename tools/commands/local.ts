import type { Command } from "commander";
import type { Cluster, PartitionDescription } from "../../client/index.js";
import { CliError, usageError } from "../cli/cli-error.js";
import type { CommandContext } from "../cli/command-context.js";
import { addCommonOptions } from "../cli/command-context.js";
import { runCommand } from "../cli/run-command.js";
import { table } from "../cli/table.js";
import { dataPlace } from "../local-cluster/data-place.js";
import type { LocalProcess } from "../local-cluster/local-cluster.js";
import { isRunning, LocalCluster, nameOf } from "../local-cluster/local-cluster.js";
import { conditionOf, signalProcess } from "../local-cluster/process-identity.js";
import { setTimeout as sleep } from "node:timers/promises";

const DATA = "where the cluster lies ($OTTLA_HOME, or ./.ottla)";
const TARGET = "a broker's id, controller, leader:TOPIC[:PARTITION], or zookeeper:N";
/** How long `status` waits for brokers to say what they do: they may all be paused. */
const STATUS_MS_MAX = 2000;
const POLL_MS = 10;
const SIGNAL_MS_MAX = 5000;

type Action = "kill" | "pause" | "resume" | "restart";

/** `ottla status`, and `ottla kill|pause|resume|restart`: the processes of a cluster that `ottla up` started. */
export function addLocalCommands(program: Command): void {
  const status = program
    .command("status")
    .description("show the processes of ottla up: pids, ports, roles, health")
    .option("--data <directory>", DATA)
    .action((options: { readonly data?: string }) =>
      runCommand(status, (context) => showStatus(context, options.data)),
    );
  addCommonOptions(status);
  const actions: Readonly<Record<Action, string>> = {
    kill: "end a process at once, as a crash would (SIGKILL)",
    pause: "stop a process where it stands, as a long stall would (SIGSTOP)",
    resume: "let a paused process go on (SIGCONT)",
    restart: "stop a process in order if it runs, and start it again",
  };
  for (const action of Object.keys(actions) as Action[]) {
    const command = program
      .command(action)
      .argument("<target>", TARGET)
      .description(actions[action])
      .option("--data <directory>", DATA)
      .action((target: string, options: { readonly data?: string }) =>
        runCommand(command, (context) => act(context, action, target, options.data)),
      );
    addCommonOptions(command);
  }
}

async function showStatus(context: CommandContext, data: string | undefined): Promise<void> {
  const local = new LocalCluster(dataPlace(data, process.env));
  const processes = local.processes();
  const { zookeeperStatus } = await import("../local-zookeeper.js");
  const [roles, modes] = await Promise.all([
    rolesOf(context, local, processes),
    Promise.all(
      processes.map((entry) =>
        entry.kind === "zookeeper" && isRunning(entry) ? zookeeperStatus(entry.port) : undefined,
      ),
    ),
  ]);
  const rows: (string | number)[][] = [];
  for (const [index, entry] of processes.entries()) {
    const { kind, id, port } = entry;
    const condition = entry.process === undefined ? "gone" : conditionOf(entry.process);
    const alive = condition !== "gone";
    const pid = alive ? (entry.process?.pid ?? null) : null;
    const mode = modes[index] ?? null;
    const { controller, leads, replicas } =
      roles === undefined && alive
        ? { controller: null, leads: null, replicas: null }
        : {
            controller: roles?.controller === id,
            leads: roles?.leads.get(id) ?? 0,
            replicas: roles?.replicas.get(id) ?? 0,
          };
    const health =
      condition === "paused"
        ? "paused"
        : !alive
          ? "stopped"
          : kind === "zookeeper"
            ? mode === null
              ? "silent"
              : "serving"
            : roles === undefined
              ? "silent"
              : roles.registered.has(id)
                ? "serving"
                : "not in the cluster";
    if (context.json) {
      if (kind === "broker") context.out.writeJson({ kind, id, pid, port, alive, health, controller, leads, replicas });
      else context.out.writeJson({ kind, id, pid, port, alive, health, mode });
      continue;
    }
    const role = kind === "zookeeper" ? (mode ?? "") : controller === true && alive ? "controller" : "";
    const counts = kind === "broker" ? [leads ?? "?", replicas ?? "?"] : ["", ""];
    rows.push([kind, id, pid ?? "-", port, health, role, ...counts]);
  }
  if (!context.json)
    context.out.writeText(table(["PROCESS", "ID", "PID", "PORT", "HEALTH", "ROLE", "LEADS", "REPLICAS"], rows));
}

interface Roles {
  readonly controller: number;
  readonly registered: ReadonlySet<number>;
  readonly leads: ReadonlyMap<number, number>;
  readonly replicas: ReadonlyMap<number, number>;
}

/** What the brokers do; undefined when none of them says. */
async function rolesOf(
  context: CommandContext,
  local: LocalCluster,
  processes: readonly LocalProcess[],
): Promise<Roles | undefined> {
  if (!processes.some((entry) => entry.kind === "broker" && isRunning(entry))) return undefined;
  const timeoutMs = Math.min(context.timeoutMs, STATUS_MS_MAX);
  try {
    await using cluster = await local.connect({ timeoutMs, signal: context.signal });
    const call = { deadlineMs: timeoutMs, signal: context.signal };
    const admin = cluster.admin();
    const { controllerId, brokers } = await admin.describeCluster(call);
    const partitions = (await admin.describeTopics(undefined, call)).flatMap((topic) => topic.partitions);
    return {
      controller: controllerId,
      registered: new Set(brokers.map(({ id }) => id)),
      leads: countBy(partitions, ({ leader }) => [leader]),
      replicas: countBy(partitions, ({ replicas }) => replicas),
    };
  } catch (error) {
    context.signal.throwIfAborted();
    if (error instanceof CliError && error.errorName === "OTHER_CLUSTER") context.note(error.message);
    // Status is asked for when something is wrong: what the processes are is told all the same.
    return undefined;
  }
}

function countBy(
  partitions: readonly PartitionDescription[],
  idsOf: (partition: PartitionDescription) => readonly number[],
): Map<number, number> {
  const counts = new Map<number, number>();
  for (const id of partitions.flatMap(idsOf)) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
}

async function act(context: CommandContext, action: Action, text: string, data: string | undefined): Promise<void> {
  const local = new LocalCluster(dataPlace(data, process.env));
  const target = local.find(await resolveTarget(context, local, text));
  const ranOn = action === "resume" && target.process !== undefined && conditionOf(target.process) === "running";
  const done = await perform(context, local, action, target);
  const { kind, id } = done;
  const pid = done.process?.pid ?? null;
  const pastTense = { kill: "killed", pause: "paused", resume: "resumed", restart: "restarted" }[action];
  if (context.json) context.out.writeJson({ action, kind, id, pid });
  else if (ranOn) context.out.writeText(`${nameOf(done)} (pid ${pid}) was not paused\n`);
  else context.out.writeText(`${pastTense} ${nameOf(done)} (pid ${pid})\n`);
}

async function perform(
  context: CommandContext,
  local: LocalCluster,
  action: Action,
  target: LocalProcess,
): Promise<LocalProcess> {
  if (action === "restart")
    return local.restart(target, {
      timeoutMs: context.timeoutMs,
      signal: context.signal,
      say: (sentence) => context.note(sentence),
    });
  if (target.kind === "zookeeper" && target.container !== undefined && isRunning(target))
    throw new CliError("IN_DOCKER", `${nameOf(target)} runs in Docker, whose client would get the signal`, {
      hint: `type docker ${action === "resume" ? "unpause" : action} ${target.container}`,
    });
  const { signal, wanted } = {
    kill: { signal: "SIGKILL", wanted: "gone" },
    pause: { signal: "SIGSTOP", wanted: "paused" },
    resume: { signal: "SIGCONT", wanted: "running" },
  }[action] as { signal: NodeJS.Signals; wanted: string };
  if (target.process === undefined || !signalProcess(target.process, signal))
    throw new CliError("NOT_RUNNING", `${nameOf(target)} does not run`, {
      hint: `start it with ottla restart ${wordFor(target)}`,
    });
  // The signal takes effect a little later; what follows in a script may rely on it.
  const deadline = Date.now() + SIGNAL_MS_MAX;
  while (conditionOf(target.process) !== wanted) {
    if (Date.now() > deadline)
      throw new CliError("NO_EFFECT", `${nameOf(target)} is not ${wanted} ${SIGNAL_MS_MAX / 1000} s after ${signal}`, {
        hint: `see what process ${target.process.pid} waits for`,
      });
    await sleep(POLL_MS);
  }
  return target;
}

const wordFor = ({ kind, id }: LocalProcess): string => (kind === "broker" ? String(id) : `zookeeper:${id}`);

async function resolveTarget(
  context: CommandContext,
  local: LocalCluster,
  text: string,
): Promise<Pick<LocalProcess, "kind" | "id">> {
  if (/^\d+$/.test(text)) return { kind: "broker", id: Number(text) };
  const zookeeper = /^zookeeper:(\d+)$/.exec(text);
  if (zookeeper !== null) return { kind: "zookeeper", id: Number(zookeeper[1]) };
  const leader = /^leader:([^:]+)(?::(\d+))?$/.exec(text);
  if (text !== "controller" && leader === null) throw usageError(`${text} is not a target`, `give ${TARGET}`);
  await using cluster = await local.connect(context, (sentence) => context.note(sentence));
  const id =
    leader === null
      ? await controllerOf(cluster, context)
      : await leaderOf(cluster, context, leader[1] as string, Number(leader[2] ?? 0));
  return { kind: "broker", id };
}

async function controllerOf(cluster: Cluster, { signal }: CommandContext): Promise<number> {
  const { controllerId } = await cluster.admin().describeCluster({ signal });
  if (controllerId < 0)
    throw new CliError("NOT_CONTROLLER", "no broker is the controller at the moment", {
      hint: "try again",
      retriable: true,
    });
  return controllerId;
}

async function leaderOf(
  cluster: Cluster,
  { signal }: CommandContext,
  topic: string,
  partition: number,
): Promise<number> {
  const [description] = await cluster.admin().describeTopics([topic], { signal });
  const found = description?.partitions.find((one) => one.partition === partition);
  if (found === undefined)
    throw new CliError("UNKNOWN_TOPIC_OR_PARTITION", `${topic} has no partition ${partition}`, {
      hint: `see ottla topic describe ${topic}`,
    });
  if (found.leader < 0)
    throw new CliError("LEADER_NOT_AVAILABLE", `${topic}-${partition} has no leader at the moment`, {
      hint: `start one of its replicas: ${found.replicas.join(", ")}`,
      retriable: true,
    });
  return found.leader;
}
