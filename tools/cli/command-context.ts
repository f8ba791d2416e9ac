import type { Command } from "commander";
import { Option } from "commander";
import net from "node:net";
import type { Readable } from "node:stream";
import { formatAddress } from "../../common/host-port.js";
import type { TextEncoding } from "./byte-text.js";
import { textEncodings } from "./byte-text.js";
import { usageError } from "./cli-error.js";
import { parseDurationWithin } from "./quantities.js";
import type { Stdout } from "./stdout.js";
import { addAliases, typedFlag } from "./typed-options.js";

const DEFAULT_BOOTSTRAP = "localhost:9092,localhost:9093,localhost:9094";
const DEFAULT_PORT = 9092;
const DEFAULT_TIMEOUT_MS = 30_000;

/** What every command is given: the options that all have, and its doors to the world. */
export interface CommandContext {
  /** `host:port,...` */
  readonly bootstrap: string;
  /** What named them: a flag or a variable of the environment; undefined: nobody. */
  readonly bootstrapFrom: string | undefined;
  /** One JSON object a line on stdout, and nothing else there. */
  readonly json: boolean;
  readonly encoding: TextEncoding;
  /** Bounds each wait for the cluster. */
  readonly timeoutMs: number;
  /** Whether the user chose that, so that it also bounds what has a longer limit of its own. */
  readonly isTimeoutGiven: boolean;
  readonly debug: boolean;
  readonly out: Stdout;
  /** Aborts when the user interrupts, or the reader of stdout goes away: finish within a few seconds. */
  readonly signal: AbortSignal;
  /** What is typed or piped in; 0: that of the process. */
  readonly stdin: Readable | 0;
  /** A person types it. */
  readonly isTyped: boolean;
  /** The flag by which an option was given: `-p` or `--partition` for `partition`. For errors about its value. */
  flag(attribute: string): string;
  /** A sentence for people, on stderr; scripts (`--json`) do not get it. */
  note(sentence: string): void;
}

/** The options of every command, as commander gives them. */
export interface CommonOptions {
  readonly bootstrap?: string;
  readonly json?: boolean;
  readonly encoding?: TextEncoding;
  readonly timeout?: number;
  readonly debug?: boolean;
}

/** Adds them; `hidden` for the levels above a command, where they work but would only fill the help. */
export function addCommonOptions(command: Command, hidden = false): Command {
  const options = [
    new Option(
      "-b, --bootstrap <host:port,...>",
      `brokers to begin with; port ${DEFAULT_PORT} where none is given (or OTTLA_BOOTSTRAP; ${DEFAULT_BOOTSTRAP})`,
    ).argParser(parseBootstrap),
    new Option("--json", "one JSON object a line on stdout, and nothing else there"),
    new Option("--timeout <duration>", "the longest wait for the cluster (30s)").argParser(
      parseDurationWithin("1ms", "365d"),
    ),
    new Option("--encoding <encoding>", "how keys and values are written: utf8, base64 or hex").choices(textEncodings),
    new Option("--debug", "print stack traces of errors"),
  ];
  for (const option of options) command.addOption(hidden ? option.hideHelp() : option);
  // What people of Kafka type.
  return addAliases(command, "bootstrap", "--bootstrap-server <host:port,...>", "--broker-list <host:port,...>");
}

/** For commander: addresses that a broker can have. The client reads them in the same way. */
export function parseBootstrap(text: string): string {
  const addresses = text.split(",").map((one) => one.trim());
  for (const address of addresses.filter((one) => one !== "")) {
    const match = /^(?:\[[^\]]+\]|[^:[\]\s/]+)(?::(\d+))?$/.exec(address);
    const port = Number(match?.[1] ?? DEFAULT_PORT);
    if (match !== null && port >= 1 && port <= 65_535 && !/^\d+$/.test(address)) continue;
    throw usageError(
      `${address} is not the address of a broker`,
      `write it as ${meantAddress(address) ?? "host:port"}`,
    );
  }
  if (addresses.every((one) => one === "")) throw usageError(`${text} names no broker`, "write one as host:port");
  return text;
}

/** A port alone is one of this machine; an IPv6 address wants brackets, its last piece is the port when it can be one. */
function meantAddress(address: string): string | undefined {
  if (/^\d+$/.test(address)) return `localhost:${address}`;
  const [, host = "", port = ""] = /^(.*):(\d{4,5})$/.exec(address) ?? [];
  if (net.isIPv6(host)) return formatAddress({ host, port: Number(port) });
  return net.isIPv6(address) ? formatAddress({ host: address, port: DEFAULT_PORT }) : undefined;
}

/** The values in force: the nearest to the command wins. */
export function commonOptionsOf(
  command: Command,
  environment: NodeJS.ProcessEnv,
): Pick<
  CommandContext,
  "bootstrap" | "bootstrapFrom" | "json" | "encoding" | "timeoutMs" | "isTimeoutGiven" | "debug"
> {
  const levels: CommonOptions[] = [];
  for (let level: Command | null = command; level !== null; level = level.parent) levels.push(level.opts());
  const first = <Key extends keyof CommonOptions>(key: Key): CommonOptions[Key] | undefined =>
    levels.map((options) => options[key]).find((value) => value !== undefined);
  return {
    bootstrap: first("bootstrap") ?? (environment["OTTLA_BOOTSTRAP"] || DEFAULT_BOOTSTRAP),
    bootstrapFrom:
      first("bootstrap") !== undefined
        ? typedFlag(command, "bootstrap")
        : environment["OTTLA_BOOTSTRAP"]
          ? "OTTLA_BOOTSTRAP"
          : undefined,
    json: first("json") ?? false,
    encoding: first("encoding") ?? "utf8",
    timeoutMs: first("timeout") ?? DEFAULT_TIMEOUT_MS,
    isTimeoutGiven: first("timeout") !== undefined,
    debug: first("debug") ?? false,
  };
}
