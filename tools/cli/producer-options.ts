import type { Command } from "commander";
import { Option } from "commander";
import type { ProducerOptions } from "../../client/index.js";
import { usageError } from "./cli-error.js";
import type { CommandContext } from "./command-context.js";
import { formatDuration, parseDurationWithin } from "./quantities.js";
import { addAliases } from "./typed-options.js";

/** What `addProducerOptions` lets the user say. */
export interface ProducerFlags {
  readonly acks?: keyof typeof acks;
  readonly idempotent?: boolean;
  readonly linger?: number;
}

const acks = { all: "all", "-1": "all", "1": "leader", "0": "none" } as const;
/** The library's own, when `--timeout` is not given. */
const DELIVERY_TIMEOUT_MS = 120_000;

/** The options of every command that writes records. */
export function addProducerOptions(command: Command): Command {
  command
    .addOption(
      new Option("--acks <acks>", "wait for all in-sync replicas (all, -1), the leader (1), or nothing (0)").choices(
        Object.keys(acks),
      ),
    )
    .option("--idempotent", "neither duplicate nor reorder on a retry (the default with --acks all)")
    .option("--no-idempotent", "allow duplicates after a retry")
    .option(
      "--linger <duration>",
      "wait so long for more records before a batch is sent (0ms)",
      parseDurationWithin("0ms", "1m"),
    );
  return addAliases(command, "acks", "--request-required-acks <acks>");
}

/** What they mean to the library. Throws a usage error when they contradict each other. */
export function producerOptions(context: CommandContext, flags: ProducerFlags): ProducerOptions {
  if (flags.idempotent === true && acks[flags.acks ?? "all"] !== "all")
    throw usageError(`--idempotent needs --acks all, not ${flags.acks}`, "leave out one of them");
  const deliveryTimeoutMs = context.isTimeoutGiven ? context.timeoutMs : DELIVERY_TIMEOUT_MS;
  if (flags.linger !== undefined && flags.linger > 0 && flags.linger >= deliveryTimeoutMs)
    throw usageError(
      `--linger ${formatDuration(flags.linger)} leaves nothing of --timeout ${formatDuration(deliveryTimeoutMs)}`,
      "give a shorter --linger or a longer --timeout",
    );
  return {
    ...(context.isTimeoutGiven ? { deliveryTimeoutMs } : {}),
    ...(flags.acks === undefined ? {} : { acks: acks[flags.acks] }),
    ...(flags.idempotent === undefined ? {} : { idempotent: flags.idempotent }),
    ...(flags.linger === undefined ? {} : { lingerMs: flags.linger }),
  };
}
