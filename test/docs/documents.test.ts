import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { brokerSettings, topicSettings } from "../../broker/config.js";
import { documents, tableOf } from "./markdown.js";

const load = createRequire(import.meta.url);
const folders = "broker|client|common|protocol|tools|test|bench|scripts|docs";
/** A path in the checkout: a file by its ending, wherever it stands, or a folder in code letters. */
const pathInText = new RegExp(
  `(?<![\\w./-])(?:${folders})/[\\w./-]*\\.(?:ts|mjs|proto|md)\\b|(?<=\`)(?:${folders})/[\\w./-]*(?=\`)`,
  "g",
);

const settings = [...Object.keys(brokerSettings), ...Object.keys(topicSettings)];
/** Words with dots between them that are three or more, or end as settings do; what is behind a `=` does not matter. */
const settingInText = /`([a-z]+(?:\.[a-z]+)*(?:(?:\.[a-z]+){2}|\.(?:ms|bytes|enable|max)))(?:=[^`]*)?`/g;

describe("the documents", () => {
  it("link only to what is there", () => {
    const broken: string[] = [];
    for (const document of documents()) {
      for (const [, target] of readFileSync(document, "utf8").matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (target === undefined || /^[a-z]+:/.test(target)) continue;
        if (!existsSync(join(dirname(document), target))) broken.push(`${document}: ${target}`);
      }
    }
    expect(broken).toEqual([]);
  });

  it("name only files and folders that are there", () => {
    const missing: string[] = [];
    for (const document of documents()) {
      for (const [name] of readFileSync(document, "utf8").matchAll(pathInText))
        if (!existsSync(name) && !existsSync(join(dirname(document), name))) missing.push(`${document}: ${name}`);
    }
    expect(missing).toEqual([]);
  });

  it("name only settings that there are", () => {
    const unknown: string[] = [];
    for (const document of documents()) {
      for (const [, name] of readFileSync(document, "utf8").matchAll(settingInText))
        if (name !== undefined && !settings.includes(name)) unknown.push(`${document}: ${name}`);
    }
    expect(unknown).toEqual([]);
  });

  it("are all listed in docs/README.md", () => {
    const list = readFileSync("docs/README.md", "utf8");
    const here = readdirSync("docs").filter((name) => name.endsWith(".md") && name !== "README.md");
    expect(here.filter((name) => !list.includes(`](${name})`))).toEqual([]);
  });

  it("give a reason for every run-time dependency", () => {
    const { dependencies } = JSON.parse(readFileSync("package.json", "utf8")) as {
      dependencies: Readonly<Record<string, string>>;
    };
    const pages = readdirSync("docs/decisions").map((name) => readFileSync(`docs/decisions/${name}`, "utf8"));
    expect(Object.keys(dependencies).filter((name) => !pages.some((page) => page.includes(name)))).toEqual([]);
  });

  it("name in docs/architecture.md every rule about imports that is checked, and no other", () => {
    const { forbidden } = load(join(process.cwd(), ".dependency-cruiser.cjs")) as {
      forbidden: readonly { readonly name: string }[];
    };
    const rows = tableOf("docs/architecture.md", ["Rule", "What it forbids"]);
    expect(rows.map(([name]) => name)).toEqual(forbidden.map(({ name }) => `\`${name}\``));
  });
});
