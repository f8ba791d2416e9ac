import type { Command } from "commander";
import { Option } from "commander";
import type { TextEncoding } from "./byte-text.js";
import { textEncodings } from "./byte-text.js";
import { parseDuration } from "./quantities.js";
import type { Stdout } from "./stdout.js";

const DEFAULT_BOOTSTRAP = "localhost:9092,localhost:9093,localhost:9094";
const DEFAULT_TIMEOUT_MS = 30_000;

/** What every command is given: the options that all have, and its doors to the world. */
export interface CommandContext {
  /** `host:port,...` */
  readonly bootstrap: string;
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
  /** A sentence for people, on stderr; scripts (`--json`) do not get it. */
  note(sentence: string): void;
}

/** The options of every command, as commander gives them. */
export interface CommonOptions {
  readonly bootstrap?: string;
  readonly bootstrapServer?: string;
  readonly brokerList?: string;
  readonly json?: boolean;
  readonly encoding?: TextEncoding;
  readonly timeout?: number;
  readonly debug?: boolean;
}

/** Adds them; `hidden` for the levels above a command, where they work but would only fill the help. */
export function addCommonOptions(command: Command, hidden = false): Command {
  const options = [
    new Option("-b, --bootstrap <host:port,...>", `brokers to begin with (or OTTLA_BOOTSTRAP; ${DEFAULT_BOOTSTRAP})`),
    new Option("--json", "one JSON object a line on stdout, and nothing else there"),
    new Option("--timeout <duration>", "the longest wait for the cluster (30s)").argParser(parseDuration),
    new Option("--encoding <encoding>", "how keys and values are written: utf8, base64 or hex").choices(textEncodings),
    new Option("--debug", "print stack traces of errors"),
  ];
  for (const option of options) command.addOption(hidden ? option.hideHelp() : option);
  // What people of Kafka type.
  for (const flags of ["--bootstrap-server <host:port,...>", "--broker-list <host:port,...>"]) {
    command.addOption(new Option(flags).hideHelp());
  }
  return command;
}

/** The values in force: the nearest to the command wins. */
export function commonOptionsOf(
  command: Command,
  environment: NodeJS.ProcessEnv,
): Pick<CommandContext, "bootstrap" | "json" | "encoding" | "timeoutMs" | "isTimeoutGiven" | "debug"> {
  const levels: CommonOptions[] = [];
  for (let level: Command | null = command; level !== null; level = level.parent) levels.push(level.opts());
  const first = <Key extends keyof CommonOptions>(key: Key): CommonOptions[Key] | undefined =>
    levels.map((options) => options[key]).find((value) => value !== undefined);
  return {
    bootstrap:
      first("bootstrap") ??
      first("bootstrapServer") ??
      first("brokerList") ??
      (environment["OTTLA_BOOTSTRAP"] || DEFAULT_BOOTSTRAP),
    json: first("json") ?? false,
    encoding: first("encoding") ?? "utf8",
    timeoutMs: first("timeout") ?? DEFAULT_TIMEOUT_MS,
    isTimeoutGiven: first("timeout") !== undefined,
    debug: first("debug") ?? false,
  };
}
