import { CliError } from "./cli-error.js";

/**
 * Reads a properties file: a `name=value` a line, blank lines and lines that begin with `#` or `!` left out. A name that
 * comes twice is an error, because one of the two is not meant.
 */
export function readProperties(text: string, file: string): Record<string, string> {
  const properties: Record<string, string> = {};
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const trimmed = line.trim();
    if (trimmed === "" || /^[#!]/.test(trimmed)) continue;
    const match = /^([^=\s:]+)\s*[=:]\s*(.*)$/.exec(trimmed);
    const name = match?.[1];
    if (name === undefined)
      throw new CliError("INVALID_CONFIG", `line ${index + 1} of ${file} is not NAME=VALUE`, {
        hint: "correct it, or begin it with #",
      });
    if (Object.hasOwn(properties, name))
      throw new CliError("INVALID_CONFIG", `${name} comes a second time in line ${index + 1} of ${file}`, {
        hint: "keep one of them",
      });
    properties[name] = match?.[2] ?? "";
  }
  return properties;
}
