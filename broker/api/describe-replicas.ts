import type { Handler } from "../net/request-context.js";
import type { LogManager } from "../log/index.js";

/** Tells the controller what the logs here hold, whatever their role: asked before an election that must not guess. */
export function describeReplicasHandler(logs: LogManager): Handler<"describeReplicas"> {
  return (request) => ({
    body: {
      partitions: request.partitions.map(({ topicId, partition }) => {
        const log = logs.get(topicId, partition);
        return {
          topicId,
          partition,
          lastEpochPlusOne: log?.lastEpoch === undefined ? 0 : log.lastEpoch + 1,
          logEndOffset: log?.logEndOffset ?? 0,
          cut: log?.wasCut ?? false,
        };
      }),
    },
  });
}
