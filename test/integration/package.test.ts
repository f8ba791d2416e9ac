import { execFile, execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { connect } from "../../client/index.js";
import { blocksOf } from "../docs/markdown.js";

/*
 * What `npm pack` makes of a checkout in which nothing was built, installed by npm in projects of other people: its command
 * starts a cluster there, and README's programs run as ES modules, as CommonJS, and in TypeScript with each way in which it
 * looks for modules.
 */
const checkout = process.cwd();
const STEP_MS_MAX = 240_000;

let place: string;
let bootstrap: string;

interface Outcome {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  const env = { ...process.env, OTTLA_BOOTSTRAP: bootstrap };
  return new Promise((done) => {
    execFile(command, args, { cwd, env, timeout: STEP_MS_MAX }, (error, stdout, stderr) =>
      done({ code: error === null ? 0 : (error.code ?? "killed"), stdout, stderr }),
    );
  });
}

async function succeed(command: string, args: readonly string[], cwd: string): Promise<string> {
  const outcome = await run(command, args, cwd);
  if (outcome.code !== 0)
    throw new Error(`${command} ${args.join(" ")} ended with ${outcome.code}:\n${outcome.stdout}${outcome.stderr}`);
  return outcome.stdout;
}

/** The files of this checkout, and nothing that a build or a test has made. */
function copyUnbuilt(target: string): void {
  const list = ["ls-files", "--cached", "--others", "--exclude-standard"];
  for (const name of execFileSync("git", list, { encoding: "utf8" }).trim().split("\n")) {
    if (!existsSync(name)) continue;
    mkdirSync(dirname(join(target, name)), { recursive: true });
    cpSync(name, join(target, name), { preserveTimestamps: true });
  }
  // What `npm ci` would put there: a copy, because whoever finds it too old removes it.
  cpSync("node_modules", join(target, "node_modules"), {
    recursive: true,
    verbatimSymlinks: true,
    preserveTimestamps: true,
  });
}

/** A project of its own, with the installed package in reach. */
function project(name: string, type: "module" | "commonjs"): string {
  const directory = join(place, "apps", name);
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "package.json"), JSON.stringify({ name, type, private: true }));
  return directory;
}

const programs = blocksOf("README.md").filter(({ language }) => language === "js" || language === "ts");
const withAddress = (text: string): string => text.replaceAll("localhost:9092", bootstrap.split(",")[0] as string);

function programOf(language: "js" | "ts"): {
  readonly imports: string;
  readonly body: string;
  readonly output: string;
} {
  const block = programs.find((one) => one.language === language);
  if (block?.output === undefined) throw new Error(`README.md has no program in ${language} with its output`);
  const lines = withAddress(block.text).split("\n");
  const isImport = (line: string): boolean => line.startsWith("import ");
  return {
    imports: lines.filter(isImport).join("\n"),
    body: lines.filter((line) => !isImport(line)).join("\n"),
    output: block.output,
  };
}

beforeAll(async () => {
  bootstrap = "";
  place = mkdtempSync(join(tmpdir(), "ottla-package-"));
  const unbuilt = join(place, "unbuilt");
  copyUnbuilt(unbuilt);
  await succeed("npm", ["pack", "--silent", "--pack-destination", place], unbuilt);
  const archive = readdirSync(place).find((name) => name.endsWith(".tgz"));
  if (archive === undefined) throw new Error("npm pack has made nothing");
  mkdirSync(join(place, "apps"));
  writeFileSync(join(place, "apps/package.json"), JSON.stringify({ private: true }));
  await succeed(
    "npm",
    ["install", "--no-audit", "--no-fund", "--prefer-offline", join(place, archive)],
    join(place, "apps"),
  );
  // What `npm install --save-dev @types/node` would put there.
  mkdirSync(join(place, "apps/node_modules/@types"), { recursive: true });
  symlinkSync(join(checkout, "node_modules/@types/node"), join(place, "apps/node_modules/@types/node"));
  const up = await succeed(
    join(place, "apps/node_modules/.bin/ottla"),
    ["up", "--detach", "--json", "--port", "0"],
    place,
  );
  bootstrap = (JSON.parse(up) as { bootstrap: string }).bootstrap;
}, 300_000);

afterAll(async () => {
  await run(join(place, "apps/node_modules/.bin/ottla"), ["down"], place);
  rmSync(place, { recursive: true, force: true });
}, 120_000);

/** As `npx tsc` does in a project. */
async function compile(directory: string): Promise<void> {
  await succeed(process.execPath, [join(checkout, "node_modules/typescript/bin/tsc"), "-p", "."], directory);
}

/** The topics of README's programs as they find them there: without records of another test. */
async function beforeProgram(): Promise<void> {
  await using cluster = await connect({ bootstrapBrokers: bootstrap });
  const admin = cluster.admin();
  await admin.deleteTopics((await admin.listTopics()).map(({ name }) => name));
  await admin.createTopics([{ name: "orders", partitions: 3 }]);
}

describe("the package", () => {
  it("holds what its manifest names, and nothing that only the checkout needs", () => {
    const installed = join(place, "apps/node_modules/ottla");
    const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as { bin: { ottla: string } };
    expect(existsSync(join(installed, manifest.bin.ottla))).toBe(true);
    expect(existsSync(join(installed, "protocol/schema/messages.proto"))).toBe(true);
    const all = readdirSync(installed, { recursive: true, encoding: "utf8" });
    expect(all.filter((name) => /\.map$|\.tsbuildinfo|\.built|test-results|stripped/.test(name))).toEqual([]);
  });

  it("runs README's program as an ES module", async () => {
    const directory = project("esm", "module");
    const { imports, body, output } = programOf("js");
    writeFileSync(join(directory, "main.js"), `${imports}\n${body}`);
    await beforeProgram();
    expect(await succeed(process.execPath, ["main.js"], directory)).toBe(`${output.replace("offset 2", "offset 0")}\n`);
  }, 120_000);

  it("runs README's program in CommonJS", async () => {
    const directory = project("cjs", "commonjs");
    const { imports, body, output } = programOf("js");
    const required = imports.replace(/import (.*) from (.*);/g, "const $1 = require($2);");
    writeFileSync(join(directory, "main.js"), `${required}\nasync function main() {\n${body}\n}\nvoid main();\n`);
    await beforeProgram();
    const outcome = await run(process.execPath, ["main.js"], directory);
    expect(outcome).toEqual({ code: 0, stdout: `${output.replace("offset 2", "offset 0")}\n`, stderr: "" });
  }, 120_000);

  it("runs README's TypeScript program with the tsconfig.json that stands before it", async () => {
    const directory = project("ts-readme", "module");
    const { imports, body, output } = programOf("ts");
    writeFileSync(join(directory, "main.ts"), `${imports}\n${body}\n`);
    const settings = blocksOf("README.md").filter(({ language }) => language === "json");
    expect(settings).toHaveLength(1);
    writeFileSync(join(directory, "tsconfig.json"), settings[0]?.text ?? "");
    await compile(directory);
    await beforeProgram();
    const outcome = await run(process.execPath, ["main.js"], directory);
    expect(outcome).toEqual({ code: 0, stdout: `${output}\n`, stderr: "" });
  }, 240_000);

  it.each([
    { name: "nodenext", type: "module", options: { module: "nodenext" } },
    { name: "node16", type: "commonjs", options: { module: "node16" } },
    { name: "bundler", type: "module", options: { module: "esnext", moduleResolution: "bundler" } },
    { name: "commonjs", type: "commonjs", options: { module: "commonjs", moduleResolution: "node10" } },
  ] as const)(
    "runs README's TypeScript program with module settings of $name",
    async ({ name, type, options }) => {
      const directory = project(`ts-${name}`, type);
      const { imports, body, output } = programOf("ts");
      const typed =
        'import type { Cluster } from "ottla/client";\nexport const keep = (cluster: Cluster): Cluster => cluster;';
      const main = type === "module" ? body : `async function main(): Promise<void> {\n${body}\n}\nvoid main();`;
      writeFileSync(join(directory, "main.ts"), `${imports}\n${typed}\n${main}\n`);
      const compilerOptions = {
        ...options,
        ...{ target: "es2022", lib: ["es2022", "esnext.disposable"], strict: true, skipLibCheck: false, outDir: "out" },
        types: ["node"],
      };
      writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["main.ts"] }));
      await compile(directory);
      await beforeProgram();
      const outcome = await run(process.execPath, ["out/main.js"], directory);
      expect(outcome).toEqual({ code: 0, stdout: `${output}\n`, stderr: "" });
    },
    240_000,
  );
});
