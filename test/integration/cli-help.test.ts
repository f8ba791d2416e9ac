import type { Command } from "commander";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { helpPages } from "../../tools/cli/help.js";
import { pathOf } from "../../tools/cli/typed-options.js";
import { commandTree } from "../../tools/program.js";
import { eventually } from "../support/eventually.js";

const program = fileURLToPath(new URL("../../dist/tools/ottla.js", import.meta.url));

/** Those that do something; the others are groups. */
function commands(command: Command = commandTree("0.0.0")): Command[] {
  if (command.commands.length > 0) return command.commands.flatMap((child) => commands(child));
  return command.name() === "help" ? [] : [command];
}

const shownOptions = (command: Command): string[] =>
  command.options.filter(({ hidden }) => !hidden).map((option) => option.attributeName());

describe("the help of each command", () => {
  it("has examples, and is of a command that exists", () => {
    expect(commands().map(pathOf).sort()).toEqual(Object.keys(helpPages).sort());
    for (const [name, { examples }] of Object.entries(helpPages)) {
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) expect(example).toMatch(new RegExp(`(^|\\| )${name}( |$)`));
    }
  });

  // What scripts, labs and acceptance checks rely on.
  it.each([
    ["up", "--brokers --zookeepers --data --detach --port"],
    ["down", "--data"],
    ["status", "--data"],
    ["kill", "--data"],
    ["pause", "--data"],
    ["resume", "--data"],
    ["restart", "--data"],
    ["broker", "--config --id --zookeeper --listen --data --insecure --set"],
    ["topic create", "--partitions --replication --config"],
    ["topic list", ""],
    ["topic describe", ""],
    ["topic alter", "--partitions --config"],
    ["topic delete", ""],
    ["topic records-delete", "--before"],
    [
      "produce",
      "--key-separator --partition --acks --idempotent --no-idempotent --compression --header --linger --from --format --key-field --rate --report",
    ],
    ["consume", "--from --partition --count --until-end --format"],
    ["config describe", ""],
    ["config set", ""],
    ["config unset", ""],
    ["cluster describe", ""],
    ["elect-leaders", ""],
    ["log dump", "--records --verify"],
    ["perf produce", ""],
    ["perf consume", ""],
    ["perf latency", ""],
  ])("lists the promised flags of ottla %s", (name, flags) => {
    const command = commands().find((one) => pathOf(one) === `ottla ${name}`);
    const listed = command?.options.filter(({ hidden }) => !hidden).map(({ long }) => long);
    expect(listed).toEqual(expect.arrayContaining(flags.split(" ").filter((flag) => flag !== "")));
    const taken = command?.options.map(({ long }) => long);
    expect(taken).toEqual(expect.arrayContaining(["--bootstrap", "--json", "--timeout", "--encoding", "--debug"]));
  });

  it("shows --encoding, --bootstrap and --timeout where they do something, and nowhere else", () => {
    const showing = (option: string): string[] =>
      commands()
        .filter((one) => shownOptions(one).includes(option))
        .map(pathOf);
    expect(showing("encoding")).toEqual(["ottla produce", "ottla consume", "ottla log dump"]);
    const local = ["up", "down", "status", "kill", "pause", "resume", "restart", "broker", "log dump"];
    const all = commands().map(pathOf);
    expect(showing("bootstrap")).toEqual(all.filter((name) => !local.includes(name.replace("ottla ", ""))));
    expect(showing("timeout")).not.toContain("ottla log dump");
    for (const command of commands()) expect(shownOptions(command)).toEqual(expect.arrayContaining(["json", "debug"]));
  });
});

/** Each example of the help, from the first to the last, in a new directory: what the first one starts serves the others. */
describe("the examples of the help", () => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "ottla-test-"));
  let bootstrap = "";
  let zookeeper = "";

  /** Runs a line in a shell; `until` ends one that runs until it is told to end, once it has printed that. */
  async function run(line: string, until?: string): Promise<{ code: number | null; printed: string }> {
    const script = `ottla() { exec "${process.execPath}" "${program}" "$@"; }\n${line}`;
    const env = { PATH: process.env["PATH"], HOME: place, ...(bootstrap === "" ? {} : { OTTLA_BOOTSTRAP: bootstrap }) };
    const child = spawn("sh", ["-c", script], { cwd: place, env });
    let printed = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (printed += text));
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    try {
      if (until !== undefined) {
        await eventually(`${line} prints ${until}`, () => printed.includes(until), 60_000);
        child.kill("SIGINT");
      }
      return { code: await ended, printed };
    } finally {
      child.kill("SIGKILL");
    }
  }

  /** As the example, with free ports and directories of its own. */
  const here = (example: string): string =>
    example
      .replace(/^ottla up( .*)? --port \d+/, "ottla up$1 --port 0")
      .replace(/^ottla up(?!.*--port)/, "ottla up --port 0")
      .replace("127.0.0.1:2181", zookeeper)
      .replace("127.0.0.1:9099", "127.0.0.1:0")
      .replace(/\/tmp\//, `${place}/`);

  afterAll(async () => {
    await run("ottla down");
    fs.rmSync(place, { recursive: true, force: true });
  }, 60_000);

  const foreground: Readonly<Record<string, string>> = {
    "ottla up --brokers 1 --port 19092 --data /tmp/one": "Ctrl-C stops it",
    [helpPages["ottla broker"]?.examples[0] ?? ""]: "broker 9 serves",
  };

  it("work", async () => {
    for (const example of Object.values(helpPages).flatMap(({ examples }) => examples)) {
      if (example === "ottla resume 1") await run("ottla pause 1");
      const { code, printed } = await run(here(example), foreground[example]);
      expect([example, code, printed]).toEqual([example, 0, expect.not.stringContaining("error")]);
      if (example === "ottla up --detach") {
        bootstrap = /brokers +(\S+)/.exec(printed)?.[1] ?? "";
        zookeeper = /zookeeper +(\S+)/.exec(printed)?.[1] ?? "";
      }
      // What a lesson took away is there for the next one.
      const taken = /^(killed|paused) broker (\d+)/m.exec(printed);
      if (taken !== null) await run(`ottla ${taken[1] === "killed" ? "restart" : "resume"} ${taken[2]}`);
    }
  }, 180_000);
});
