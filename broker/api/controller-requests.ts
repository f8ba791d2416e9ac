import { ApiError } from "../../protocol/error-codes.js";
import type { BrokerId } from "../../protocol/types.js";
import type { ControllerApi, ControllerRequestKind } from "../controller/controller-api.js";
import type { Handler, Handlers } from "../net/request-context.js";

/** The requests that only the controller answers: handed to it when it is here, refused with its name when it is not. */
export function controllerHandlers(
  brokerId: BrokerId,
  active: () => ControllerApi | undefined,
  controllerId: () => BrokerId | undefined,
): Pick<Handlers, ControllerRequestKind> {
  const handler =
    <Kind extends ControllerRequestKind>(kind: Kind): Handler<Kind> =>
    async (request) => {
      const controller = active();
      if (controller === undefined) throw notController(brokerId, controllerId());
      return { body: await controller[kind](request) };
    };
  return {
    createTopics: handler("createTopics"),
    deleteTopics: handler("deleteTopics"),
    createPartitions: handler("createPartitions"),
    alterConfigs: handler("alterConfigs"),
    electLeaders: handler("electLeaders"),
    alterPartitions: handler("alterPartitions"),
    controlledShutdown: handler("controlledShutdown"),
  };
}

function notController(brokerId: BrokerId, controllerId: BrokerId | undefined): ApiError {
  const who =
    controllerId === undefined || controllerId === brokerId
      ? "none is elected at the moment"
      : `broker ${controllerId} is`;
  return new ApiError("NOT_CONTROLLER", `broker ${brokerId} is not the controller; ${who}`);
}
