// npm run build: makes dist/: code from the .proto files when they changed, then the compiler. Takes nothing, prints little.
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { helpIfAsked, takesNothing } from "./prepare.mjs";

const isStarted = process.argv[1] === fileURLToPath(import.meta.url);
if (isStarted) {
  helpIfAsked(import.meta.url);
  takesNothing("build");
}
// Help is there before anything is installed.
const { messageTypes } = await import("./message-types.mjs");

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const bin = (name) => join(root, "node_modules", ".bin", name);
const run = (command, args) => execFileSync(command, args, { cwd: root, stdio: "inherit" });

export function generate() {
  const schemas = readdirSync(join(root, "protocol/schema")).map((name) => join(root, "protocol/schema", name));
  const target = join(root, "protocol/generated/messages.js");
  const types = join(root, "protocol/generated/messages.d.ts");
  const sources = [...schemas, join(root, "scripts/build.mjs"), join(root, "scripts/message-types.mjs")];
  const newest = Math.max(...sources.map((path) => statSync(path).mtimeMs));
  if (!existsSync(types) || statSync(types).mtimeMs < newest) {
    mkdirSync(dirname(target), { recursive: true });
    const shape = [
      "-w",
      "esm",
      "--no-verify",
      "--no-delimited",
      "--no-service",
      "--no-convert",
      "--force-number",
      "--no-beautify",
      "--no-typeurl",
      "--no-comments",
    ];
    run(bin("pbjs"), ["-t", "static-module", ...shape, "-o", target, ...schemas]);
    const { types: messages, codecs } = messageTypes(schemas);
    writeFileSync(join(root, "protocol/generated/message-types.ts"), messages);
    writeFileSync(types, codecs);
  }
  mkdirSync(join(root, "dist/protocol/generated"), { recursive: true });
  for (const name of ["messages.js", "messages.d.ts"]) {
    copyFileSync(join(root, "protocol/generated", name), join(root, "dist/protocol/generated", name));
  }
}

export function compile() {
  run(bin("tsc"), ["-p", "tsconfig.json"]);
  declareForCommonJs();
}

/**
 * The client's types once more, in a folder that is CommonJS: Node gives an ES module to `require`, and the compiler believes
 * that of no module whose types are those of one.
 */
function declareForCommonJs() {
  const target = join(root, "dist/commonjs-types");
  rmSync(target, { recursive: true, force: true });
  for (const folder of ["client", "common", "protocol"]) {
    const isDeclaration = (path) => statSync(path).isDirectory() || path.endsWith(".d.ts");
    cpSync(join(root, "dist", folder), join(target, folder), { recursive: true, filter: isDeclaration });
  }
  writeFileSync(join(target, "package.json"), `${JSON.stringify({ type: "commonjs" })}\n`);
}

if (isStarted) {
  generate();
  compile();
}
