// Runs before `npm pack` and `npm publish`: the package holds what is built, and a fresh checkout has nothing of that.
import { build, giveUp, install, requireNode } from "./prepare.mjs";

requireNode();
try {
  await install();
  await build();
} catch (error) {
  giveUp(error);
}
