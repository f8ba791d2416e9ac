import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { apiKeys } from "../../protocol/api-keys.js";
import type { RequestKind } from "../../protocol/api-keys.js";
import { errorCodes } from "../../protocol/error-codes.js";
import type { ErrorCodeEntry } from "../../protocol/error-codes.js";
import { tableOf } from "./markdown.js";

const document = "docs/protocol.md";
const schemas = "protocol/schema";
const kinds = Object.keys(apiKeys) as RequestKind[];
const bodyName = (kind: RequestKind): string => kind.charAt(0).toUpperCase() + kind.slice(1);
const size = (bytes: number): string => (bytes < 2 ** 20 ? `${bytes / 1024} KiB` : `${bytes / 2 ** 20} MiB`);

/** The table of errors as docs/protocol.md has to show it. UPDATE_DOCS=1 writes it there. */
function errorTable(): string {
  const rows = (Object.entries(errorCodes) as [string, ErrorCodeEntry][])
    .sort(([, left], [, right]) => left.code - right.code)
    .map(
      ([name, { code, retriable, refreshMetadata, appended = "", message }]) =>
        `| ${code} | \`${name}\` | ${retriable ? "yes" : ""} | ${refreshMetadata ? "yes" : ""} | ${appended} | ${message} |`,
    );
  return [
    "| Code | Name | Retriable | Refresh metadata | Appended | Meaning |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}

/**
 * The messages and fields of a schema that have no comment, neither on the line before nor on their own; a line of dashes
 * is none. The branches of `oneof body` only name a message, so they need none.
 */
function uncommented(schema: string): string[] {
  const lines = readFileSync(schema, "utf8").split("\n");
  const open: string[] = [];
  const missing: string[] = [];
  for (const [at, line] of lines.entries()) {
    const code = line.replace(/\/\/.*/, "").trim();
    const block = /^(?:message|enum|oneof) (\w+) \{/.exec(code)?.[1];
    const field = open.at(-1) === "body" ? undefined : /^\S.* (\w+) = \d+/.exec(code)?.[1];
    const name = code.startsWith("message ") ? block : field;
    const isCommented = /\/\/.*[a-z]/i.test(line) || /^\s*\/\/.*[a-z]/i.test(lines[at - 1] ?? "");
    if (name !== undefined && !isCommented) missing.push([...open, name].join("."));
    if (block !== undefined && !code.endsWith("}")) open.push(block);
    if (code === "}") open.pop();
  }
  return missing;
}

describe("docs/protocol.md", () => {
  it("lists every request with its key, its limits and who may send it", () => {
    const rows = tableOf(document, ["Key", "Request", "From", "To"]);
    const shown = rows.map(([key, name, from, , , frame, elements]) => [key, name, from !== "broker", frame, elements]);
    const expected = kinds.map((kind) => {
      const { key, audience, frameBytesMax, elementsMax } = apiKeys[kind];
      const elements = elementsMax.toLocaleString("en-US");
      return [String(key), `\`${bodyName(kind)}\``, audience === "everyone", size(frameBytesMax), elements];
    });
    expect(shown).toEqual(expected);
  });

  it("has a paragraph on every request", () => {
    const text = readFileSync(document, "utf8");
    const missing = kinds.filter((kind) => !text.includes(`\n**${bodyName(kind)}**`));
    expect(missing).toEqual([]);
  });

  it("shows the table of errors as it is in the code", () => {
    const text = readFileSync(document, "utf8");
    const printed = /(<!-- errors:[^>]*-->\n\n)([^]*?)(\n<!-- end of errors -->)/;
    if (process.env["UPDATE_DOCS"] === "1")
      writeFileSync(
        document,
        text.replace(printed, (_all, head: string, _table, tail: string) => head + errorTable() + tail),
      );
    expect(printed.exec(readFileSync(document, "utf8"))?.[2]).toBe(errorTable());
  });
});

describe("protocol/schema", () => {
  it("has a comment on every message and field", () => {
    const files = readdirSync(schemas).filter((name) => name.endsWith(".proto"));
    expect(files.flatMap((name) => uncommented(`${schemas}/${name}`))).toEqual([]);
  });
});
