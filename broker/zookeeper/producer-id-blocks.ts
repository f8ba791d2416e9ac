import { ApiError } from "../../protocol/error-codes.js";
import type { BrokerId } from "../../protocol/types.js";
import { decodeProducerIdBlock, encodeProducerIdBlock, paths, ZnodeFormatError } from "./znodes.js";
import type { ZooKeeper } from "./zookeeper.js";
import { ZooKeeperError } from "./zookeeper.js";

const BLOCK_IDS = 1000;
const ATTEMPTS_MAX = 20;

/**
 * Takes the next block of producer ids for one broker, by compare-and-set on one znode. A block whose outcome is unknown is
 * never used: the next attempt takes another. Throws ApiError ZOOKEEPER_UNAVAILABLE, and
 * UNKNOWN_SERVER_ERROR when what stands in the znode cannot be read.
 */
export async function takeProducerIds(
  zookeeper: ZooKeeper,
  brokerId: BrokerId,
): Promise<{ firstId: number; count: number }> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    try {
      const node = await zookeeper.getIfExists(paths.producerIdBlock);
      const firstId = node === undefined ? 0n : decodeProducerIdBlock(node.data).lastId + 1n;
      const data = encodeProducerIdBlock({ brokerId, firstId, lastId: firstId + BigInt(BLOCK_IDS) - 1n });
      if (node === undefined) await zookeeper.create(paths.producerIdBlock, data);
      else await zookeeper.set(paths.producerIdBlock, data, node.stat.version);
      return { firstId: Number(firstId), count: BLOCK_IDS };
    } catch (error) {
      if (error instanceof ZnodeFormatError)
        throw new ApiError("UNKNOWN_SERVER_ERROR", `no producer id can be given out: ${error.message}`, {
          cause: error,
        });
      if (!(error instanceof ZooKeeperError)) throw error;
      const lostRace = error.kind === "BadVersion" || error.kind === "NodeExists" || error.kind === "OutcomeUnknown";
      if (!lostRace)
        throw new ApiError("ZOOKEEPER_UNAVAILABLE", `no producer id can be given out: ${error.message}`, {
          cause: error,
        });
    }
  }
  throw new ApiError("ZOOKEEPER_UNAVAILABLE", `no producer id could be taken in ${ATTEMPTS_MAX} attempts; try again`);
}
