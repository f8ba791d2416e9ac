import type { Command } from "commander";
import { Option } from "commander";
import type { ProducerOptions } from "../../client/index.js";
import { usageError } from "./cli-error.js";
import type { CommandContext } from "./command-context.js";
import { parseDuration } from "./quantities.js";

/** What `addProducerOptions` lets the user say. */
export interface ProducerFlags {
  readonly acks?: "all" | "1" | "0";
  readonly idempotent?: boolean;
  readonly linger?: number;
}

const acks = { all: "all", "1": "leader", "0": "none" } as const;

/** The options of every command that writes records. */
export function addProducerOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--acks <acks>", "wait for all in-sync replicas, the leader, or nothing").choices(["all", "1", "0"]),
    )
    .option("--idempotent", "neither duplicate nor reorder on a retry (the default with --acks all)")
    .option("--no-idempotent", "allow duplicates after a retry")
    .option("--linger <duration>", "wait so long for more records before a batch is sent (0ms)", parseDuration);
}

/** What they mean to the library. Throws a usage error when they contradict each other. */
export function producerOptions(context: CommandContext, flags: ProducerFlags): ProducerOptions {
  if (flags.idempotent === true && (flags.acks ?? "all") !== "all")
    throw usageError(`--idempotent needs --acks all, not ${flags.acks}`, "leave out one of them");
  return {
    ...(context.isTimeoutGiven ? { deliveryTimeoutMs: Math.max(1, context.timeoutMs) } : {}),
    ...(flags.acks === undefined ? {} : { acks: acks[flags.acks] }),
    ...(flags.idempotent === undefined ? {} : { idempotent: flags.idempotent }),
    ...(flags.linger === undefined ? {} : { lingerMs: flags.linger }),
  };
}
