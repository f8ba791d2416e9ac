import type { Command } from "commander";
import { Option } from "commander";
import fs from "node:fs";
import { CliError, usageError } from "../cli/cli-error.js";
import { addCommonOptions } from "../cli/command-context.js";
import { namingFlag } from "../cli/file-errors.js";
import { withFlagInHint } from "../cli/flag-in-hint.js";
import { readProperties } from "../cli/properties.js";
import { collect, collectSettings, parseCount } from "../cli/quantities.js";
import { describeError, runCommand } from "../cli/run-command.js";
import { checkConnectString } from "../local-cluster/start-checks.js";

interface BrokerCommandOptions {
  readonly config?: string;
  readonly id?: number;
  readonly zookeeper?: string;
  readonly listen?: readonly string[];
  readonly advertise?: readonly string[];
  readonly data?: string;
  readonly insecure?: boolean;
  readonly set?: readonly (readonly [string, string])[];
  readonly logFormat?: "human" | "json";
}

/** `ottla broker`: one broker in the foreground. */
export function addBrokerCommand(program: Command): void {
  const command = program
    .command("broker")
    .description("run one broker in the foreground")
    .option("--config <file>", "settings, a NAME=VALUE a line; what is also given here on the command line wins")
    .option("--id <number>", "unique in the cluster (broker.id)", parseCount(0, 2 ** 31 - 1))
    .option("--zookeeper <host:port,...>", "the ZooKeeper ensemble (zookeeper.connect)")
    .option("--listen <[name://]host:port>", "where to listen; may be repeated (listeners)", collect(String))
    .option("--advertise <[name://]host:port>", "what others are told to connect to; may be repeated", collect(String))
    .option("--data <directory>", "where the records lie (log.dirs)")
    .option("--insecure", "listen beyond this machine, although nothing asks who connects")
    .option("--set <name=value>", "any other setting; may be repeated", collectSettings)
    .addOption(
      new Option("--log-format <format>", "lines for people, or JSON (the default with --json)").choices([
        "human",
        "json",
      ]),
    )
    .action((options: BrokerCommandOptions) =>
      runCommand(
        command,
        async ({ json, flag }) => {
          const given = await brokerOptions(options, flag("config"));
          const { runBroker } = await import("../../broker/main.js");
          try {
            return await runBroker({ ...given, logFormat: options.logFormat ?? (json ? "json" : "human") });
          } catch (error) {
            throw withFlag(error, options, flag);
          }
        },
        { signals: "own" },
      ),
    );
  addCommonOptions(command);
}

/** A refusal of a setting with the flag that gave it. */
function withFlag(error: unknown, options: BrokerCommandOptions, flag: (attribute: string) => string): unknown {
  const { name, message } = describeError(error);
  if (name !== "INVALID_CONFIG") return error;
  const given = {
    listen: options.listen,
    advertise: options.advertise,
    set: options.set?.map(([setting]) => setting),
  };
  for (const [attribute, values] of Object.entries(given)) {
    const isMeant = values?.some((value) => message.includes(attribute === "set" ? value : JSON.stringify(value)));
    if (isMeant === true) return withFlagInHint(error, flag(attribute));
  }
  return error;
}

/**
 * What the file says, then what the command line says. Names that have an option of their own are taken from the file
 * too.
 */
async function brokerOptions(
  options: BrokerCommandOptions,
  configFlag: string,
): Promise<{
  id: number;
  zookeeper: string;
  listeners: readonly string[];
  advertised?: readonly string[];
  data: string;
  insecure: boolean;
  settings: Record<string, string>;
}> {
  const { config } = options;
  const text =
    config === undefined ? "" : await namingFlag(configFlag, config, () => fs.promises.readFile(config, "utf8"));
  const settings: Record<string, string> = {
    ...readProperties(text, `${configFlag} ${config}`),
    ...Object.fromEntries(options.set ?? []),
  };
  const take = (name: string): string | undefined => {
    const value = settings[name];
    delete settings[name];
    return value;
  };
  const idText = take("broker.id");
  const id = options.id ?? (idText === undefined ? undefined : parseCount(0, 2 ** 31 - 1)(idText));
  const zookeeperText = take("zookeeper.connect");
  const zookeeper = options.zookeeper ?? zookeeperText;
  const directory = take("log.dirs") ?? take("log.dir");
  const data = options.data ?? directory;
  if (id === undefined) throw missing("the broker has no id", "--id N, or broker.id in the file of --config");
  if (zookeeper === undefined || zookeeper === "")
    throw missing("no ZooKeeper is named", "--zookeeper HOST:PORT,..., or zookeeper.connect in the file of --config");
  // Before a data directory is made.
  checkConnectString(zookeeper, options.zookeeper === undefined ? "zookeeper.connect" : "--zookeeper");
  if (data === undefined)
    throw missing("no data directory is named", "--data DIR, or log.dirs in the file of --config");
  if (data.includes(","))
    throw new CliError("INVALID_CONFIG", `log.dirs names several directories: ${data}`, {
      hint: "a broker has one directory",
      exitCode: 2,
    });
  if (options.listen === undefined && (settings["listeners"] ?? "") === "")
    throw missing("the broker listens nowhere", "--listen HOST:PORT, or listeners in the file of --config");
  return {
    id,
    zookeeper,
    listeners: options.listen ?? [],
    ...(options.advertise === undefined ? {} : { advertised: options.advertise }),
    data,
    insecure: options.insecure ?? false,
    settings,
  };
}

const missing = (what: string, how: string): CliError => usageError(what, `give ${how}`);
