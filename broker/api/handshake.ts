import { ApiError } from "../../protocol/error-codes.js";
import type { BrokerIdentity, RegisteredBroker } from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { Handler, RequestContext } from "../net/request-context.js";

export interface HandshakeParts {
  readonly clusterId: string;
  readonly brokerId: BrokerId;
  readonly incarnation: string;
  /** Under which this broker is registered; undefined: it is not. */
  readonly brokerEpoch: () => BrokerEpoch | undefined;
  /** A registration as it was last heard of. */
  readonly knownBroker: (id: BrokerId) => Pick<RegisteredBroker, "incarnation" | "epoch"> | undefined;
  /** A registration as it is now; rejects while ZooKeeper does not answer. */
  readonly readRegistration: (id: BrokerId) => Promise<Pick<RegisteredBroker, "incarnation" | "epoch"> | undefined>;
  /** The peer's end of a control connection ended: evidence that its process died. */
  readonly onControlConnectionEnded: (brokerId: BrokerId, brokerEpoch: BrokerEpoch) => void;
}

const MAX_FRAME_BYTES = 8 * 1024 * 1024;

/**
 * The first request of each connection: says who we are, and on the inter-broker listener makes the peer prove
 * who it is.
 */
export function handshakeHandler(parts: HandshakeParts): Handler<"handshake"> {
  const controlConnections = new Map<BrokerId, RequestContext>();
  return (request, context) => {
    if (request.clusterId !== "" && request.clusterId !== parts.clusterId) {
      throw new ApiError(
        "INCONSISTENT_CLUSTER_ID",
        `this is cluster ${parts.clusterId}, not ${request.clusterId.slice(0, 64)}; check the address`,
      );
    }
    const body = {
      clusterId: parts.clusterId,
      brokerId: parts.brokerId,
      features: [],
      maxFrameBytes: MAX_FRAME_BYTES,
      // Whoever knows it is taken for this process: told to none but brokers that have proved who they are.
      incarnation: "",
      brokerEpoch: parts.brokerEpoch() ?? "",
    };
    const { broker } = request;
    if (broker === null) return { body };
    if (!context.isInterBroker) {
      throw new ApiError(
        "CLUSTER_AUTHORIZATION_FAILED",
        `brokers talk to brokers on the inter-broker listener, not on ${context.listenerName}`,
      );
    }
    let isClosed = false;
    const forget = context.whenClosed(() => (isClosed = true));
    return prove(parts, broker)
      .finally(forget)
      .then(() => {
        // Its sender may have made another one by now, which is not to end because of this. Nor where it cannot be seen yet that
        // this one was given up.
        if (isClosed) return undefined;
        if (broker.control && (controlConnections.get(broker.brokerId)?.connectionId ?? 0) > context.connectionId) {
          context.disconnect();
          return undefined;
        }
        context.identify(broker);
        if (broker.control) adoptControlConnection(parts, controlConnections, broker, context);
        return { body: { ...body, incarnation: parts.incarnation } };
      });
  };
}

async function prove(parts: HandshakeParts, broker: BrokerIdentity): Promise<void> {
  if (broker.toBrokerId !== parts.brokerId) {
    throw new ApiError("WRONG_BROKER", `this is broker ${parts.brokerId}, not ${broker.toBrokerId}`);
  }
  // A restarted broker must not be believed to be its former self before the world knows of the restart.
  if (parts.brokerEpoch() === undefined)
    throw new ApiError("SHUTTING_DOWN", `broker ${parts.brokerId} is not registered yet`);
  if (parts.knownBroker(broker.brokerId)?.incarnation === broker.incarnation) return;
  const registered = await parts.readRegistration(broker.brokerId);
  if (registered?.incarnation !== broker.incarnation) {
    throw new ApiError(
      "CLUSTER_AUTHORIZATION_FAILED",
      `the sender is not the process that is registered as broker ${broker.brokerId}`,
    );
  }
}

/**
 * A broker has one control connection to this one. When it makes another, what is still on its way on the former would
 * arrive after what is newer, so the former ends first.
 */
function adoptControlConnection(
  parts: HandshakeParts,
  connections: Map<BrokerId, RequestContext>,
  broker: BrokerIdentity,
  context: RequestContext,
): void {
  const former = connections.get(broker.brokerId);
  connections.set(broker.brokerId, context);
  former?.disconnect();
  context.whenClosed((end) => {
    if (connections.get(broker.brokerId) !== context) return;
    connections.delete(broker.brokerId);
    if (end === "ended" || end === "reset") parts.onControlConnectionEnded(broker.brokerId, broker.brokerEpoch);
  });
}
