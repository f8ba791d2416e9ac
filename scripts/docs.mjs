// Writes the documents that are printed from tables in the code. Needs a build.
import { writeFileSync } from "node:fs";
import { configurationManual } from "../dist/tools/configuration-manual.js";

writeFileSync(new URL("../docs/configuration.md", import.meta.url), configurationManual());
