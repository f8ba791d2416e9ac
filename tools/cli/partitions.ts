import { CliError } from "./cli-error.js";
import type { CommandContext } from "./command-context.js";

/** Throws for a partition that was asked for and is not there: before anything is read or written. */
export function checkPartitions(
  context: Pick<CommandContext, "flag">,
  topic: string,
  existing: readonly number[] | undefined,
  wanted: readonly number[] | undefined,
  /** The option that named them. */
  attribute = "partition",
): void {
  const missing = wanted?.find((partition) => existing?.includes(partition) !== true);
  if (missing === undefined || existing === undefined) return;
  throw new CliError(
    "UNKNOWN_TOPIC_OR_PARTITION",
    `${context.flag(attribute)} ${missing}: ${topic} has no partition ${missing}`,
    { hint: existing.length === 1 ? "it has partition 0 only" : `choose from 0 to ${existing.length - 1}` },
  );
}
