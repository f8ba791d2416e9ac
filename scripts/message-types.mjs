// Writes the TypeScript types of all protobuf messages, as the generated codec decodes them: scalars and lists are always
// there, messages and `optional` fields may be null. (The generator that comes with protobufjs types every field as maybe
// absent.) Comments of the schema become doc comments.
import { readFileSync } from "node:fs";
import protobuf from "protobufjs";

const scalars = { string: "string", bytes: "Uint8Array", bool: "boolean" };
const comment = (text, indent) => (text ? `${indent}/** ${text.replaceAll("\n", " ")} */\n` : "");

function fieldType(field) {
  const resolved = field.resolve().resolvedType;
  const single = resolved ? resolved.name : (scalars[field.type] ?? "number");
  if (field.repeated) return `readonly ${single}[]`;
  const mayBeAbsent = resolved instanceof protobuf.Type || field.options?.proto3_optional;
  return mayBeAbsent ? `${single} | null` : single;
}

function declaration(type) {
  if (type instanceof protobuf.Enum) {
    const values = Object.entries(type.values).map(
      ([name, value]) => `${comment(type.comments[name], "  ")}  ${name}: ${value},\n`,
    );
    const ids = Object.values(type.values).join(" | ");
    return `${comment(type.comment, "")}export const ${type.name} = {\n${values.join("")}} as const;\nexport type ${type.name} = ${ids};\n`;
  }
  const fields = type.fieldsArray.map(
    (field) => `${comment(field.comment, "  ")}  readonly ${field.name}: ${fieldType(field)};\n`,
  );
  return `${comment(type.comment, "")}export interface ${type.name} {\n${fields.join("")}}\n`;
}

/** The text of `messages.d.ts` (the codecs) and of `message-types.ts` (the messages). */
export function messageTypes(schemas) {
  const root = new protobuf.Root();
  for (const path of schemas)
    protobuf.parse(readFileSync(path, "utf8"), root, { keepCase: false, alternateCommentMode: true });
  root.resolveAll();
  const nested = root.lookup("ottla").nestedArray;
  const head = "// Generated from protocol/schema/*.proto by scripts/message-types.mjs; do not edit.\n\n";
  const types = head + nested.map(declaration).join("\n");
  const messages = nested.filter((type) => type instanceof protobuf.Type).map((type) => type.name);
  const codecs =
    head +
    `import type { Reader, Writer } from "protobufjs";\nimport type * as types from "./message-types.js";\n` +
    `type Init<T> = T extends Uint8Array | string | number | boolean | null ? T\n` +
    `  : T extends readonly (infer E)[] ? readonly Init<E>[]\n` +
    `  : { readonly [K in keyof T]?: Init<T[K]> | null | undefined };\n` +
    `interface Codec<T> {\n  encode(message: Init<T>, writer?: Writer): Writer;\n  decode(reader: Reader | Uint8Array, length?: number): T;\n}\n` +
    `export type { Codec, Init };\nexport const ottla: {\n` +
    messages.map((name) => `  readonly ${name}: Codec<types.${name}>;\n`).join("") +
    `};\n`;
  return { types, codecs };
}
