import { ApiError } from "../protocol/error-codes.js";

/** The listener for clients when nobody named one. */
const DEFAULT_NAME = "CLIENT";

/** An address to listen on, or to tell others. */
export interface ListenerAddress {
  readonly name: string;
  readonly host: string;
  /** 0: a free one. */
  readonly port: number;
}

/** Reads `[NAME://]HOST:PORT`. Throws ApiError INVALID_CONFIG. */
export function parseListener(text: string): ListenerAddress {
  const match = /^(?:([A-Za-z][A-Za-z0-9_-]*):\/\/)?(\[[0-9a-fA-F:.]+\]|[^:\s/]+):(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new ApiError(
      "INVALID_CONFIG",
      `listener ${JSON.stringify(text)}: give [NAME://]HOST:PORT, for example 127.0.0.1:9092`,
    );
  return { name: (match[1] ?? DEFAULT_NAME).toUpperCase(), host: (match[2] as string).replace(/^\[|\]$/g, ""), port };
}

/**
 * The listeners of a broker, the one between brokers among them: if none is given for it, one opens on a free port of the
 * first listener's host. Throws ApiError INVALID_CONFIG on doubled names.
 */
export function completeListeners(texts: readonly string[], interBrokerName: string): readonly ListenerAddress[] {
  const listeners = texts.map(parseListener);
  const [first] = listeners;
  if (first === undefined)
    throw new ApiError("INVALID_CONFIG", "no listener is given; give one with --listen HOST:PORT");
  const names = listeners.map(({ name }) => name);
  const doubled = names.find((name, index) => names.indexOf(name) !== index);
  if (doubled !== undefined)
    throw new ApiError(
      "INVALID_CONFIG",
      `two listeners are called ${doubled}; give each a name of its own, as in ${doubled}2://HOST:PORT`,
    );
  if (names.includes(interBrokerName)) {
    if (names.length === 1)
      throw new ApiError("INVALID_CONFIG", `${interBrokerName} is for brokers; give a listener for clients too`);
    return listeners;
  }
  return [...listeners, { name: interBrokerName, host: first.host, port: 0 }];
}

/** What others are told: the advertised address of that name, else the one listened on. */
export function advertisedAddress(
  listener: ListenerAddress,
  boundPort: number,
  advertised: readonly ListenerAddress[],
  hostname: string,
): ListenerAddress {
  const told = advertised.find(({ name }) => name === listener.name);
  if (told !== undefined) return { ...told, port: told.port === 0 ? boundPort : told.port };
  // Nobody can connect to "every address".
  const host = listener.host === "0.0.0.0" || listener.host === "::" ? hostname : listener.host;
  return { name: listener.name, host, port: boundPort };
}

/** Addresses beyond this machine: anybody in the network may connect, and nothing asks who they are. */
export function exposedListeners(listeners: readonly ListenerAddress[]): readonly ListenerAddress[] {
  return listeners.filter(({ host }) => host !== "localhost" && host !== "::1" && !host.startsWith("127."));
}
