import type { Env } from "../../common/env/env.js";
import type { SocketEnd } from "../../common/env/network.js";
import { withDeadline } from "../../common/env/time.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { Endpoint } from "../../protocol/messages.js";
import { RpcConnection } from "../../protocol/rpc-connection.js";
import { TransportError } from "../../protocol/rpc-error.js";
import type { BrokerEpoch, BrokerId } from "../../protocol/types.js";
import type { ProbeVerdict } from "./fast-fencing.js";

/** The registered broker that is to be reached. */
export interface ControlPeer {
  readonly id: BrokerId;
  readonly incarnation: string;
  readonly endpoints: readonly Endpoint[];
}

export interface ControlConnectionOptions {
  readonly to: ControlPeer;
  readonly from: { readonly brokerId: BrokerId; readonly incarnation: string; readonly brokerEpoch: BrokerEpoch };
  readonly clusterId: string;
  /** On which the peer takes the requests of brokers. */
  readonly listener: string;
  /** For the connection and the handshake together. */
  readonly timeoutMs: number;
  readonly onClosed: (end: SocketEnd) => void;
}

/** No control connection, and what that says about the peer's process. */
export interface NotReached {
  readonly verdict: Exclude<ProbeVerdict, "alive">;
  readonly reason: string;
}

const CLIENT_ID = "ottla-broker";
const REQUEST_TIMEOUT_MS = 5000;

/**
 * A connection between a broker and the controller, made by either side to the other: it stays open, and its end is evidence
 * that the process at the far end died. Resolves with a connection to the very process that is registered, or with what was
 * found instead. Never rejects.
 */
export async function openControlConnection(
  env: Env,
  options: ControlConnectionOptions,
): Promise<RpcConnection | NotReached> {
  const { to, from, timeoutMs } = options;
  const endpoint = to.endpoints.find(({ listener }) => listener === options.listener);
  if (endpoint === undefined) {
    return {
      verdict: "silent",
      reason: `broker ${to.id} has no listener ${options.listener} (inter.broker.listener.name)`,
    };
  }
  let established = false;
  let expired = false;
  const opening = RpcConnection.open(env, {
    host: endpoint.host,
    port: endpoint.port,
    handshake: {
      clientId: `${CLIENT_ID}-${from.brokerId}`,
      clientSoftware: CLIENT_ID,
      clusterId: options.clusterId,
      broker: { ...from, toBrokerId: to.id, control: true },
    },
    connectTimeoutMs: timeoutMs,
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
    onClosed: (end) => {
      if (established) options.onClosed(end);
    },
  }).then((connection) => {
    // A handshake that is answered after the verdict is nobody's.
    if (expired) connection.close();
    return connection;
  });
  try {
    const connection = await withDeadline(env.timers, timeoutMs, opening, () => new ProbeTimeout(timeoutMs)).catch(
      async (error: unknown) => {
        if (!(error instanceof ProbeTimeout)) throw error;
        // Our own loop may be what stalled: timers run before sockets. One look at the sockets before the verdict.
        const late = await Promise.race([opening, laterTurn(env)]);
        if (late !== undefined) return late;
        expired = true;
        opening.catch(() => undefined);
        throw error;
      },
    );
    if (connection.isOpen && connection.peer.incarnation === to.incarnation) {
      established = true;
      return connection;
    }
    connection.close();
    return connection.peer.incarnation === to.incarnation
      ? { verdict: "silent", reason: "the connection ended right after the handshake" }
      : { verdict: "replaced", reason: "another process of this broker answers" };
  } catch (error) {
    return { verdict: verdictOf(error), reason: reasonOf(error) };
  }
}

class ProbeTimeout extends Error {
  override readonly name = "ProbeTimeout";
  constructor(timeoutMs: number) {
    super(`no handshake within ${timeoutMs} ms`);
  }
}

/** Two turns of the event loop later, with the sockets read in between. */
function laterTurn(env: Env): Promise<undefined> {
  return new Promise((resolve) => env.timers.soon(() => env.timers.soon(() => resolve(undefined))));
}

function verdictOf(error: unknown): Exclude<ProbeVerdict, "alive"> {
  if (error instanceof TransportError && error.end === "refused") return "refused";
  // Somebody answers who is not the registered process: not registered (yet, or any more), or another broker.
  if (error instanceof ApiError && (error.errorName === "SHUTTING_DOWN" || error.errorName === "WRONG_BROKER")) {
    return "replaced";
  }
  return "silent";
}
