// Node's module hooks by which TypeScript of this checkout runs as it is, without a build: types are stripped file by
// file when it is imported. A plant (test/plants/) is put into its file on the way.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { transformSync, version } from "@swc/core";
import { root } from "./prepare.mjs";

/** Stripped files, by what they were: each process would strip some 300 of them, which takes half a second. */
const CACHE = join(root, "dist/stripped");

/** The plants to put in: `{ file, from, to }`, files as absolute paths. */
let edits = [];

export function initialize(data) {
  edits = data?.edits ?? [];
}

/** Imports say `.js`, as the built files are called; here the sources lie beside them. */
export function resolve(specifier, context, next) {
  if (/^\.{1,2}\//.test(specifier) && specifier.endsWith(".js") && context.parentURL?.endsWith(".ts")) {
    const source = new URL(specifier.replace(/\.js$/, ".ts"), context.parentURL);
    if (existsSync(fileURLToPath(source))) return { url: source.href, shortCircuit: true };
  }
  return next(specifier, context);
}

export function load(url, context, next) {
  if (!url.endsWith(".ts")) return next(url, context);
  const path = fileURLToPath(url);
  let text = readFileSync(path, "utf8");
  for (const { file, from, to } of edits) if (file === path) text = text.replace(from, () => to);
  return { format: "module", source: stripped(path, text), shortCircuit: true };
}

function stripped(path, text) {
  const cached = join(CACHE, `${createHash("sha256").update([version, path, text].join("\0")).digest("hex")}.js`);
  if (existsSync(cached)) return readFileSync(cached, "utf8");
  const { code } = transformSync(text, {
    filename: path,
    jsc: { parser: { syntax: "typescript" }, target: "es2022" },
    module: { type: "es6" },
    sourceMaps: "inline",
  });
  mkdirSync(CACHE, { recursive: true });
  // Other processes strip the same file at the same time: each writes its own, and the last one stays.
  const mine = `${cached}.${process.pid}`;
  writeFileSync(mine, code);
  renameSync(mine, cached);
  return code;
}
