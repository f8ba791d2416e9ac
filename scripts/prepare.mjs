// What has to be true before anything of this checkout can run: a new enough Node, the dependencies, a current dist/.
// Node's own modules only, because it runs before anything is installed. All it says goes to stderr.
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { clearInterval, setInterval } from "node:timers";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");

const NODE_MIN = [20, 19];
const STILL_MS = 5000;
const sourceFolders = ["broker", "client", "common", "protocol", "tools"];
const sourceFiles = ["package-lock.json", "tsconfig.json", "scripts/build.mjs", "scripts/message-types.mjs"];
/** Its time is the start of the build that made dist/. */
const builtMark = join(root, "dist/.built");

export const say = (sentence) => process.stderr.write(`${sentence}\n`);

/** `--help`: ends the process with the comment that the script begins with, if this is the script that was started. */
export function helpIfAsked(script) {
  const file = fileURLToPath(script);
  const asked = process.argv.slice(2);
  if (process.argv[1] !== file || !(asked.includes("--help") || asked.includes("-h"))) return;
  const lines = readFileSync(file, "utf8").split("\n");
  const end = lines.findIndex((line) => !line.startsWith("//"));
  const comment = lines.slice(0, end).map((line) => line.replace(/^\/\/ ?/, ""));
  process.stdout.write(`${comment.join("\n")}\n`);
  process.exit(0);
}

/** Ends the process when a script that takes nothing is given something. Its name is that of `npm run`. */
export function takesNothing(name) {
  const [word] = process.argv.slice(2);
  if (word === undefined) return;
  say(`error: USAGE: Unknown ${word.startsWith("-") ? "option" : "word"} '${word}' - npm run ${name} takes none`);
  process.exit(2);
}

/** All that has to be true before this checkout can run. Ends the process, with what went wrong, when it cannot be made so. */
export async function prepare() {
  requireNode();
  try {
    await install();
    await build();
  } catch (error) {
    giveUp(error);
  }
}

/** Ends the process with one line when this Node is too old. */
export function requireNode() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return;
  say(`error: NODE_TOO_OLD: this is Node ${process.versions.node} - install Node ${NODE_MIN.join(".")} or newer`);
  process.exit(1);
}

/** Installs what package-lock.json lists, if that is missing or from before it changed. */
export async function install() {
  const installed = modifiedMs(join(root, "node_modules/.package-lock.json"));
  if (installed !== undefined && installed >= (modifiedMs(join(root, "package-lock.json")) ?? 0)) return;
  // With the compiler, also where NODE_ENV or a setting of npm leaves out what only development needs.
  const args = ["ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  await step("installing dependencies (npm ci)", "npm", args);
}

/** Builds dist/ unless it is newer than all sources. */
export async function build() {
  const startedMs = Date.now();
  const built = modifiedMs(builtMark);
  if (built !== undefined && built > newestSourceMs()) return;
  await step("building", process.execPath, [join(root, "scripts/build.mjs")]);
  writeFileSync(builtMark, "");
  // Whatever was saved while the compiler ran counts as newer.
  utimesSync(builtMark, startedMs / 1000, startedMs / 1000);
}

/** Runs a command to its end; says what runs, that it still does, and how long it took. Throws StepFailed. */
export async function step(what, command, args, environment = {}) {
  const startedMs = Date.now();
  const seconds = () => Math.round((Date.now() - startedMs) / 1000);
  say(`${what} ...`);
  const timer = setInterval(() => say(`${what}: ${seconds()} s so far`), STILL_MS);
  try {
    const { code, output } = await run(command, args, environment);
    if (code !== 0) throw new StepFailed(`${what} failed`, output);
  } finally {
    clearInterval(timer);
  }
}

/** Runs a command and resolves with its exit code and all it printed, both streams in their order. */
export function run(command, args, environment = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...environment },
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
    child.on("error", (error) => resolve({ code: 127, output: `${command}: ${error.message}\n` }));
    child.on("close", (code) => resolve({ code: code ?? 1, output }));
  });
}

export class StepFailed extends Error {
  name = "StepFailed";
  constructor(message, output) {
    super(message);
    this.output = output;
  }
}

/** Ends the process as a failed step asks for: what it printed, and one line. */
export function giveUp(error) {
  if (error instanceof StepFailed) {
    process.stderr.write(error.output);
    say(`error: STEP_FAILED: ${error.message} - see above`);
  } else if (/^ERR_PARSE_ARGS/.test(error.code)) {
    say(`error: USAGE: ${error.message.replace(/\. .*$/s, "")} - see --help`);
    process.exit(2);
  } else {
    say(error.stack ?? String(error));
  }
  process.exit(1);
}

function newestSourceMs() {
  const times = sourceFiles.map((name) => modifiedMs(join(root, name)) ?? 0);
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.name === "generated") continue;
      if (entry.isDirectory()) {
        // Adding or removing a file changes the time of its folder.
        times.push(statSync(path).mtimeMs);
        visit(path);
      } else if (/\.(ts|proto)$/.test(entry.name)) times.push(statSync(path).mtimeMs);
    }
  };
  for (const folder of sourceFolders) visit(join(root, folder));
  return Math.max(...times);
}

function modifiedMs(path) {
  return existsSync(path) ? statSync(path).mtimeMs : undefined;
}
