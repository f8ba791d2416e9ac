#!/usr/bin/env node
import { readFileSync } from "node:fs";
import { runProgram } from "./program.js";

/** From package.json, two levels above `dist/tools/`. */
const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

process.exitCode = await runProgram(process.argv.slice(2), version);
