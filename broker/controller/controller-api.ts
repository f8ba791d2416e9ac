import type { ResponseBody, RequestBody } from "../../protocol/message-codec.js";
import type { Init } from "../../protocol/messages.js";

/** The requests that only the controller answers. */
export type ControllerRequestKind =
  | "createTopics"
  | "deleteTopics"
  | "createPartitions"
  | "alterConfigs"
  | "electLeaders"
  | "alterPartitions"
  | "controlledShutdown";

/**
 * What the active controller does for others: one method for each request, with the bodies of messages.proto. A request that
 * is refused as a whole rejects with ApiError; NOT_CONTROLLER once this broker is not the controller any more.
 */
export type ControllerApi = {
  readonly [Kind in ControllerRequestKind]: (request: RequestBody<Kind>) => Promise<Init<ResponseBody<Kind>>>;
};
