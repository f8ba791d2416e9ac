import type { Env } from "../../common/env/env.js";
import { basePaths, decodeClusterId, encodeClusterId, paths } from "./znodes.js";
import type { ZooKeeper } from "./zookeeper.js";
import { ZooKeeperError } from "./zookeeper.js";

/**
 * The id of the cluster that this ensemble coordinates; the first broker of a new one makes it. Rejects with
 * ZooKeeperError.
 */
export async function ensureClusterId(zookeeper: ZooKeeper, env: Env): Promise<string> {
  for (const path of basePaths) await zookeeper.ensurePath(path);
  const known = await zookeeper.getIfExists(paths.clusterId);
  if (known !== undefined) return decodeClusterId(known.data);
  try {
    await zookeeper.create(paths.clusterId, encodeClusterId(env.random.uuid()));
  } catch (error) {
    // Another broker was first, or this one was and its answer was lost: either way the node says who.
    const mayBeThere =
      error instanceof ZooKeeperError && (error.kind === "NodeExists" || error.kind === "OutcomeUnknown");
    if (!mayBeThere) throw error;
  }
  return decodeClusterId((await zookeeper.get(paths.clusterId)).data);
}
