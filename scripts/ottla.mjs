// The program of a checkout: what ./ottla runs. Builds if a source has changed, then is the program itself.
import { prepare } from "./prepare.mjs";

await prepare();
await import("../dist/tools/ottla.js");
