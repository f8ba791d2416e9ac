// npm run docs: writes docs/configuration.md and docs/command-line.md, which are printed from tables in the code. Takes nothing.
import { writeFileSync } from "node:fs";
import { helpIfAsked, prepare, takesNothing } from "./prepare.mjs";

helpIfAsked(import.meta.url);
takesNothing("docs");
await prepare();
const { configurationManual } = await import("../dist/tools/configuration-manual.js");
const { commandLineManual } = await import("../dist/tools/command-line-manual.js");
writeFileSync(new URL("../docs/configuration.md", import.meta.url), configurationManual());
writeFileSync(new URL("../docs/command-line.md", import.meta.url), commandLineManual());
