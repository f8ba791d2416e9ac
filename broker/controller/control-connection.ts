import type { Env } from "../../common/env/env.js";
import type { SocketEnd } from "../../common/env/network.js";
import type { Timer } from "../../common/env/time.js";
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
  /** For the connection and the handshake together, without the time for which this process stood still. */
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
/** How much later than the probe a connection attempt ends: longer than the stalls that a ZooKeeper session survives. */
const ABANDONED_MS = 10_000;
/** How often the probe looks whether its own process stood still, and how late a timer is after that. */
const STEP_MS = 25;
const STALL_MS = 25;

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
    // Its own deadlines know nothing of stalls: they only end what the probe has given up long ago.
    connectTimeoutMs: timeoutMs + ABANDONED_MS,
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
    const connection = await withPatience(env, timeoutMs, opening);
    if (connection === undefined) {
      expired = true;
      opening.catch(() => undefined);
      return { verdict: "silent", reason: `no handshake within ${timeoutMs} ms` };
    }
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

/**
 * Waits until this process was awake for `timeoutMs` without a pause; undefined when the work was not done by then. A loop
 * that stalls cannot tell who is silent: neither did it read what had come, nor did the other side get what it would have
 * sent. So after a stall the wait begins again. Shorter ones are no excuse, but for a last look at the sockets, because
 * timers run before them.
 */
function withPatience<T>(env: Env, timeoutMs: number, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    let timer: Timer | undefined;
    let isDone = false;
    const done = <V>(settle: (value: V) => void): ((value: V) => void) => {
      return (value) => {
        isDone = true;
        timer?.cancel();
        settle(value);
      };
    };
    const wait = (leftMs: number): void => {
      const stepMs = Math.min(STEP_MS, leftMs);
      const dueMs = env.clock.monotonicMs() + stepMs;
      timer = env.timers.after(stepMs, () => {
        const isLate = env.clock.monotonicMs() - dueMs > STALL_MS;
        if (isLate) wait(timeoutMs);
        else if (leftMs > stepMs) wait(leftMs - stepMs);
        else void laterTurn(env).then(() => isDone || resolve(undefined));
      });
    };
    wait(timeoutMs);
    work.then(done(resolve), done(reject));
  });
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
