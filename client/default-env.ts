import type { Env } from "../common/env/env.js";
import { nodeEnv } from "../common/env/node-env.js";

/** The real world, for clients that were not given another one. The only door to it in this folder. */
export const defaultEnv = (): Env => nodeEnv();
