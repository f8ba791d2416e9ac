import type { Random } from "../../common/env/time.js";
import { formatAddress } from "../../common/host-port.js";

export interface ZooKeeperServer {
  readonly host: string;
  readonly port: number;
}

/** What stands in front of all paths of this cluster in the ensemble; empty for none. */
export interface ConnectString {
  readonly servers: readonly ZooKeeperServer[];
  readonly chroot: string;
}

/** A connect string that cannot be understood. A mistake in the settings, so it is thrown at once. */
export class ConnectStringError extends Error {
  override readonly name = "ConnectStringError";
  constructor(
    connectString: string,
    why: string,
    hint = 'write "host:port,host:port", with "/path" behind the last port to keep everything below that node',
  ) {
    super(`"${connectString}" does not name ZooKeeper servers: ${why}; ${hint}`);
  }
}

const defaultPort = 2181;

/** Understands "host:port,host:port/chroot"; an IPv6 address stands in brackets. */
export function parseConnectString(connectString: string): ConnectString {
  const slash = connectString.indexOf("/");
  const list = slash < 0 ? connectString : connectString.slice(0, slash);
  const chroot = slash < 0 ? "" : connectString.slice(slash).replace(/\/$/, "");
  if (chroot.includes(",")) throw severalPaths(connectString);
  const reason = chroot === "" ? undefined : pathFault(chroot);
  if (reason !== undefined) throw new ConnectStringError(connectString, `the path ${reason}`);
  const servers = list
    .split(",")
    .map((text) => text.trim())
    .filter((text) => text !== "")
    .map((text) => parseServer(connectString, text));
  if (servers.length === 0) throw new ConnectStringError(connectString, "it is empty");
  return { servers, chroot };
}

/** A node may have a comma in its name, but whoever writes one here means the next server. */
function severalPaths(connectString: string): ConnectStringError {
  const parts = connectString.split(",").map((text) => /^\s*([^/\s]+)(\/\S*[^\s/])?\/?\s*$/.exec(text));
  const paths = new Set(parts.map((part) => part?.[2]).filter((path) => path !== undefined));
  const [path] = paths;
  const isClear = paths.size === 1 && parts.every((part) => part !== null);
  const right = `${parts.map((part) => part?.[1]).join(",")}${path}`;
  const why = "the path stands behind the last server only";
  return isClear
    ? new ConnectStringError(connectString, why, `write "${right}"`)
    : new ConnectStringError(connectString, why);
}

function parseServer(connectString: string, text: string): ZooKeeperServer {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^\s:[\]]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined) throw new ConnectStringError(connectString, `"${text}" is not host:port`);
  const port = Number(match?.[3] ?? defaultPort);
  if (port < 1 || port > 65_535) throw new ConnectStringError(connectString, `${port} is no port`);
  return { host, port };
}

/** As it is written in a connect string. */
export function serverName(server: ZooKeeperServer): string {
  return formatAddress(server);
}

/** Why this is no path of a node, as the end of a sentence; undefined when it is one. */
export function pathFault(path: string): string | undefined {
  if (!path.startsWith("/")) return "does not begin with /";
  if (path === "/") return undefined;
  if (path.endsWith("/")) return "ends with /";
  const parts = path.slice(1).split("/");
  if (parts.includes("")) return "has an empty part";
  if (parts.includes(".") || parts.includes("..")) return "has a part . or ..";
  if ([...path].some(isForbidden)) return "has a character that is not allowed";
  return undefined;
}

/** What ZooKeeper itself refuses: control characters, surrogates, the private use area, what lies behind U+FFF0. */
function isForbidden(character: string): boolean {
  const code = character.codePointAt(0) ?? 0;
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0xd800 && code < 0xf900) || code >= 0xfff0;
}

/** Which server to try next: each in turn, from a random one on, so that brokers spread over the ensemble. */
export class ServerRotation {
  #next: number;

  constructor(
    private readonly servers: readonly ZooKeeperServer[],
    random: Random,
  ) {
    this.#next = random.below(servers.length);
  }

  next(): ZooKeeperServer {
    const server = this.servers[this.#next % this.servers.length] as ZooKeeperServer;
    this.#next = (this.#next + 1) % this.servers.length;
    return server;
  }
}
