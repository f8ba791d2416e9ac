// npm run check: form, types, and who imports whom. Prints what it does, what fails, and one line at the end.
import os from "node:os";
import { join } from "node:path";
import { clearInterval, setInterval } from "node:timers";
import { fileURLToPath } from "node:url";
import { helpIfAsked, prepare, root, run, say, takesNothing } from "./prepare.mjs";

/** The whole takes a minute or two: so often it is said that it goes on. */
const STILL_MS = 30_000;

const bin = (name) => join(root, "node_modules/.bin", name);

/** The slowest first, so that none of them runs alone at the end. */
const checks = [
  { name: "eslint", args: ["--max-warnings=0", "."] },
  { name: "tsc", args: ["-p", "tsconfig.test.json", "--noEmit"] },
  {
    name: "depcruise",
    args: [
      "--config",
      ".dependency-cruiser.cjs",
      "--output-type",
      "err",
      "broker",
      "client",
      "common",
      "protocol",
      "tools",
      "test",
    ],
  },
  { name: "knip", args: [] },
  { name: "prettier", args: ["--check", "--log-level", "warn", "."] },
];

/** Runs all; resolves with whether all passed. The compiler of the main sources has run in the build before. */
export async function check() {
  const startedMs = Date.now();
  const seconds = () => Math.round((Date.now() - startedMs) / 1000);
  const names = checks.map(({ name }) => name).join(", ");
  const what = "checking form and types";
  say(`${what} (${names}) ...`);
  const timer = setInterval(() => say(`${what}: ${seconds()} s so far`), STILL_MS);
  const waiting = [...checks];
  const failed = [];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const { code, output } = await run(bin(next.name), next.args, { FORCE_COLOR: process.stderr.isTTY ? "1" : "0" });
      if (code === 0) continue;
      failed.push(next.name);
      say(`--- ${next.name}\n${output.trimEnd()}`);
    }
  };
  await Promise.all(Array.from({ length: Math.max(2, os.availableParallelism()) }, worker));
  clearInterval(timer);
  say(
    failed.length === 0
      ? `check passed in ${seconds()} s (${names})`
      : `check failed in ${seconds()} s: ${failed.join(", ")}`,
  );
  return failed.length === 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  helpIfAsked(import.meta.url);
  takesNothing("check");
  await prepare();
  process.exitCode = (await check()) ? 0 : 1;
}
