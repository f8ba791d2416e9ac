// npm run docs: writes docs/configuration.md, which is printed from tables in the code. Takes nothing.
import { writeFileSync } from "node:fs";
import { helpIfAsked, prepare, takesNothing } from "./prepare.mjs";

helpIfAsked(import.meta.url);
takesNothing("docs");
await prepare();
const { configurationManual } = await import("../dist/tools/configuration-manual.js");
writeFileSync(new URL("../docs/configuration.md", import.meta.url), configurationManual());
