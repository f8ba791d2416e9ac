// npm run accept: measures the figures that acceptance asks for. Each is a program of its own, bench/accept/NAME.ts.
//   npm run accept                 takes all of them
//   npm run accept -- NAME...      some of them
//   npm run accept -- --list       names them
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { helpIfAsked, prepare, root, say } from "./prepare.mjs";

helpIfAsked(import.meta.url);
await prepare();
const folder = join(root, "bench/accept");
const known = existsSync(folder)
  ? readdirSync(folder)
      .filter((name) => name.endsWith(".ts"))
      .map((name) => name.slice(0, -3))
  : [];
const asked = process.argv.slice(2);
if (asked.includes("--list")) {
  for (const name of known) console.log(name);
  process.exit(0);
}
const unknown = asked.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  say(`error: USAGE: there is no figure ${unknown.join(", ")} - choose from ${known.join(", ")}`);
  process.exit(2);
}
await compile();
const failed = [];
for (const name of asked.length === 0 ? known : asked) {
  say(`--- ${name}`);
  if ((await runFigure(name)) !== 0) failed.push(name);
}
if (failed.length > 0) say(`failed: ${failed.join(", ")}`);
process.exit(failed.length > 0 ? 1 : 0);

/** Into dist/bench, beside the compiled program that the figures import. Types are checked by `npm run check`. */
async function compile() {
  const { transformSync } = await import("@swc/core");
  const visit = (relative) => {
    for (const entry of readdirSync(join(root, relative), { withFileTypes: true })) {
      const path = join(relative, entry.name);
      if (entry.isDirectory()) visit(path);
      if (!entry.name.endsWith(".ts")) continue;
      const target = join(root, "dist", path.replace(/\.ts$/, ".js"));
      const { code } = transformSync(readFileSync(join(root, path), "utf8"), {
        filename: path,
        jsc: { parser: { syntax: "typescript" }, target: "es2022" },
        module: { type: "es6" },
      });
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, code);
    }
  };
  visit("bench");
}

function runFigure(name) {
  const child = spawn(process.execPath, [join(root, "dist/bench/accept", `${name}.js`)], {
    cwd: root,
    stdio: "inherit",
  });
  return new Promise((resolve) => child.on("close", (code) => resolve(code ?? 1)));
}
