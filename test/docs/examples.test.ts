import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { connect } from "../../client/index.js";
import { blocksOf, documents } from "./markdown.js";
import type { Block } from "./markdown.js";

/*
 * Runs what the documents show, as a reader would, against one real cluster:
 *
 * - `sh` blocks run in bash, in a directory that looks like the checkout: ./ottla, protocol/, the cluster in ./.ottla.
 * - `js` and `ts` blocks are programs in a directory where `ottla` is installed; `ts` is checked by the compiler first.
 * - A `text` block right behind one of them is what it prints on stdout; `...` stands for anything.
 * - The blocks of a document run in their order. Each document begins with a whole cluster without topics.
 * - Not run are blocks of commands that install, start or test the checkout itself, and those behind a comment
 *   `<!-- not run: why -->`.
 *
 * `localhost:9092` in an example becomes the address of the first broker; the command line is told of all of them.
 */
const checkout = process.cwd();
const program = join(checkout, "dist/tools/ottla.js");
const aboutTheCheckout = /^(npm|npx|docker|git|[A-Z_]+=\S+ (npm|npx)) /m;
const runLanguages = ["sh", "js", "ts"];
const otherLanguages = ["", "text", "json", "proto", "properties", "yaml"];

const blocks = documents().flatMap(blocksOf);
const isRun = (block: Block): boolean =>
  runLanguages.includes(block.language) && block.notRunBecause === undefined && !aboutTheCheckout.test(block.text);

let place: string;
let bootstrap: string;

interface Outcome {
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], cwd: string, timeoutMs = 60_000): Promise<Outcome> {
  const env = { PATH: process.env["PATH"], HOME: place, OTTLA_BOOTSTRAP: bootstrap };
  return new Promise((done) => {
    execFile(command, args, { cwd, env, timeout: timeoutMs }, (error, stdout, stderr) =>
      done({ ok: error === null, stdout, stderr }),
    );
  });
}

const ottla = (...args: string[]): Promise<Outcome> => run(process.execPath, [program, ...args], place);
const withAddress = (text: string): string => text.replaceAll("localhost:9092", bootstrap.split(",")[0] as string);
const fileOf = (block: Block): string => `${block.document.replace(/\W+/g, "-")}-${block.line}`;

beforeAll(async () => {
  if (!existsSync(program)) throw new Error("the examples run the compiled program: build it first with npm run build");
  place = mkdtempSync(join(tmpdir(), "ottla-examples-"));
  bootstrap = "";
  writeFileSync(join(place, "ottla"), `#!/bin/sh\nexec "${process.execPath}" "${program}" "$@"\n`, { mode: 0o755 });
  symlinkSync(join(checkout, "protocol"), join(place, "protocol"));
  mkdirSync(join(place, "app/node_modules"), { recursive: true });
  symlinkSync(checkout, join(place, "app/node_modules/ottla"));
  await startWhatIsDown();
  await writePrograms();
}, 120_000);

afterAll(async () => {
  await ottla("down");
  rmSync(place, { recursive: true, force: true });
}, 60_000);

/** Writes the programs of all documents, and compiles those in TypeScript with one call. */
async function writePrograms(): Promise<void> {
  const app = join(place, "app");
  writeFileSync(join(app, "package.json"), JSON.stringify({ type: "module" }));
  const compilerOptions = {
    ...{ target: "es2022", module: "nodenext", lib: ["es2022", "esnext.disposable"] },
    ...{ strict: true, noUncheckedIndexedAccess: true, skipLibCheck: true, outDir: "out", rootDir: "." },
    ...{ types: ["node"], typeRoots: [join(checkout, "node_modules/@types")] },
  };
  writeFileSync(join(app, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const programs = blocks.filter((block) => isRun(block) && block.language !== "sh");
  for (const block of programs) {
    const name = block.language === "ts" ? `${fileOf(block)}.ts` : `out/${fileOf(block)}.js`;
    mkdirSync(join(app, "out"), { recursive: true });
    writeFileSync(join(app, name), withAddress(block.text));
  }
  const tsc = join(checkout, "node_modules/typescript/bin/tsc");
  const compiled = await run(process.execPath, [tsc, "-p", "."], app, 120_000);
  if (!compiled.ok) throw new Error(`the examples do not compile:\n${compiled.stdout}${compiled.stderr}`);
}

async function startWhatIsDown(): Promise<void> {
  const up = await ottla("up", "--detach", "--json", "--port", "0");
  if (!up.ok) throw new Error(`the cluster for the examples does not start: ${up.stderr}`);
  bootstrap = (JSON.parse(up.stdout) as { bootstrap: string }).bootstrap;
}

async function deleteTopics(): Promise<void> {
  await using cluster = await connect({ bootstrapBrokers: bootstrap });
  const topics = await cluster.admin().listTopics();
  if (topics.length > 0) await cluster.admin().deleteTopics(topics.map(({ name }) => name));
}

async function expectToRun(block: Block): Promise<void> {
  const outcome =
    block.language === "sh"
      ? await run("bash", ["--norc", "-euo", "pipefail", "-c", withAddress(block.text)], place)
      : await run(process.execPath, [join(place, "app/out", `${fileOf(block)}.js`)], resolve(place, "app"));
  const where = `${block.document}:${block.line}`;
  const told = `${block.text}\n--- stdout\n${outcome.stdout}--- stderr\n${outcome.stderr}`;
  if (!outcome.ok) throw new Error(`${where} fails:\n${told}`);
  if (block.output !== undefined && !matches(outcome.stdout, block.output))
    throw new Error(`${where} prints something else than the document says:\n${told}--- document\n${block.output}`);
}

/** `...` stands for anything; blanks at the ends of lines, and how many there are between words, do not count. */
function matches(printed: string, expected: string): boolean {
  const plain = (text: string): string =>
    text
      .trim()
      .replace(/[ \t]+/g, " ")
      .replace(/ ?\n ?/g, "\n");
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const pattern = plain(expected).split("...").map(literal).join("[^]*");
  return new RegExp(`^${pattern}$`).test(plain(printed));
}

describe("the examples in the documents", () => {
  it("are in languages that are run or are known not to be", () => {
    const known = [...runLanguages, ...otherLanguages];
    const unknown = blocks.filter(({ language }) => !known.includes(language));
    expect(unknown.map(({ document, line, language }) => `${document}:${line}: ${language}`)).toEqual([]);
  });

  it("begin in README.md with a shell and a program", () => {
    const languages = blocks.filter((block) => block.document === "README.md" && isRun(block));
    expect(new Set(languages.map(({ language }) => language))).toEqual(new Set(runLanguages));
  });

  for (const document of documents()) {
    const runnable = blocksOf(document).filter(isRun);
    if (runnable.length === 0) continue;
    it(`do in ${document} what it says`, async () => {
      await startWhatIsDown();
      await deleteTopics();
      for (const block of runnable) await expectToRun(block);
    }, 120_000);
  }
});
