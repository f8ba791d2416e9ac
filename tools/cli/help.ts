import type { Command } from "commander";
import { usageError } from "./cli-error.js";
import { didYouMean } from "./suggestion.js";
import { pathOf } from "./typed-options.js";

/**
 * What the help of each command shows beside its own options: which of the common options do something there, and
 * examples. A test runs the examples from the first to the last on one new cluster.
 */
interface HelpPage {
  /** Of the common options; --json and --debug do something everywhere. */
  readonly uses: readonly ("bootstrap" | "timeout" | "encoding")[];
  readonly examples: readonly string[];
}

const cluster = ["bootstrap", "timeout"] as const;
const records = ["bootstrap", "timeout", "encoding"] as const;

export const helpPages: Readonly<Record<string, HelpPage>> = {
  "ottla up": {
    uses: ["timeout"],
    examples: ["ottla up --detach", "ottla up --brokers 1 --port 19092 --data /tmp/one"],
  },
  "ottla status": { uses: ["timeout"], examples: ["ottla status", "ottla status --json"] },
  "ottla topic create": {
    uses: cluster,
    examples: [
      "ottla topic create orders --partitions 3",
      "ottla topic create payments --replication 3 --config min.insync.replicas=2",
    ],
  },
  "ottla topic list": { uses: cluster, examples: ["ottla topic list"] },
  "ottla topic describe": {
    uses: cluster,
    examples: ["ottla topic describe orders", "ottla topic describe --json"],
  },
  "ottla topic alter": {
    uses: cluster,
    examples: ["ottla topic alter orders --partitions 4", "ottla topic alter orders --config retention.ms=3600000"],
  },
  "ottla produce": {
    uses: records,
    examples: [
      "echo '42:paid' | ottla produce orders --key-separator :",
      `echo '{"id":"42","state":"shipped"}' | ottla produce orders --format json --key-field id`,
    ],
  },
  "ottla consume": {
    uses: records,
    examples: [
      "ottla consume orders --from earliest --until-end",
      "ottla consume orders --from 5m --count 1 --format '%p:%o %k is %v\\n'",
    ],
  },
  "ottla topic records-delete": { uses: cluster, examples: ["ottla topic records-delete orders --before 0:end"] },
  "ottla config describe": {
    uses: cluster,
    examples: ["ottla config describe topic orders", "ottla config describe broker 1 --all"],
  },
  "ottla config set": {
    uses: cluster,
    examples: [
      "ottla config set topic orders retention.ms=3600000",
      "ottla config set broker default log.retention.ms=86400000",
    ],
  },
  "ottla config unset": { uses: cluster, examples: ["ottla config unset topic orders retention.ms"] },
  "ottla cluster describe": { uses: cluster, examples: ["ottla cluster describe"] },
  "ottla elect-leaders": {
    uses: cluster,
    examples: ["ottla elect-leaders", "ottla elect-leaders orders --partition 0"],
  },
  "ottla perf produce": { uses: cluster, examples: ["ottla perf produce load --records 10000 --size 1KiB"] },
  "ottla perf consume": { uses: cluster, examples: ["ottla perf consume load --records 10000"] },
  "ottla perf latency": { uses: cluster, examples: ["ottla perf latency load --records 100 --warmup 10"] },
  "ottla log dump": {
    uses: ["encoding"],
    examples: ["ottla log dump .ottla/broker-1 --records --verify"],
  },
  "ottla topic delete": { uses: cluster, examples: ["ottla topic delete payments"] },
  "ottla kill": { uses: ["timeout"], examples: ["ottla kill 2", "ottla kill leader:orders:0"] },
  "ottla pause": { uses: ["timeout"], examples: ["ottla pause controller"] },
  "ottla resume": { uses: ["timeout"], examples: ["ottla resume 1"] },
  "ottla restart": { uses: ["timeout"], examples: ["ottla restart 2"] },
  "ottla broker": {
    uses: [],
    examples: ["ottla broker --id 9 --zookeeper 127.0.0.1:2181 --listen 127.0.0.1:9099 --data /tmp/nine"],
  },
  "ottla down": { uses: [], examples: ["ottla down"] },
};

const onDemand: readonly string[] = ["bootstrap", "timeout", "encoding"] satisfies HelpPage["uses"][number][];

/** Hides the common options that do nothing for the command, and adds its examples. They are accepted all the same. */
export function completeHelp(command: Command): void {
  const page = helpPages[pathOf(command)];
  if (page === undefined) return;
  for (const option of command.options) {
    const name = option.attributeName();
    if (onDemand.includes(name) && !page.uses.some((used) => used === name)) option.hideHelp();
  }
  command.addHelpText("after", `\nExamples:\n${page.examples.map((example) => `  ${example}\n`).join("")}`.trimEnd());
}

/** `ottla help`, `ottla help topic create`, `ottla topic help create`. */
export function addHelpCommand(level: Command): void {
  level.helpCommand(false);
  level
    .command("help")
    .argument("[command...]", "the command")
    .description("show the help of a command")
    .action((words: readonly string[]) => {
      let found = level;
      for (const word of words) {
        const known = found.commands.filter((child) => child.name() !== "help");
        const next = known.find((child) => child.name() === word || child.aliases().includes(word));
        if (next === undefined) {
          const names = known.flatMap((child) => [child.name(), ...child.aliases()]);
          throw usageError(
            `${pathOf(found)} has no command ${word}`,
            didYouMean(word, names) ?? `see ${pathOf(found)} --help`,
          );
        }
        found = next;
      }
      found.outputHelp();
    });
}
