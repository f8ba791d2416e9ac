// The program of a checkout: what ./ottla runs. Builds if a source has changed, then is the program itself.
import { build, giveUp, install, requireNode } from "./prepare.mjs";

requireNode();
try {
  await install();
  await build();
} catch (error) {
  giveUp(error);
}
await import("../dist/tools/ottla.js");
