// Runs before `npm pack` and `npm publish`: the package holds what is built, and a fresh checkout has nothing of that.
import { prepare } from "./prepare.mjs";

await prepare();
