import { execFile } from "node:child_process";
import fs from "node:fs";
import net from "node:net";

const LOOPBACK = "127.0.0.1";
const PROBE_MS = 300;
const CONNECT_MS = 1000;
const ZOOKEEPER_PORT = 2181;

/** Whether this process could listen on the port now, on the loopback address and on all addresses. */
export async function isPortFree(port: number): Promise<boolean> {
  // A listener on every address does not keep a second one from binding 127.0.0.1 on all systems: so both are tried.
  const isFreeOn = async (host: string): Promise<boolean> => (await refusalOf(port, host)) === undefined;
  return (await isFreeOn(LOOPBACK)) && (await isFreeOn("0.0.0.0"));
}

/** Whether the system lets this user listen on the port at all. */
export async function isPortPermitted(port: number): Promise<boolean> {
  return (await refusalOf(port, LOOPBACK)) !== "EACCES";
}

/** The system's code for why this process cannot listen there; undefined when it can. */
function refusalOf(port: number, host: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "unknown"));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}

/** Who holds a port, as far as it can be found out, in words for an error message. */
export async function describePortHolder(port: number): Promise<string> {
  const [pid, isKafka] = await Promise.all([pidListeningOn(port), speaksKafka(port)]);
  const command = pid === undefined ? undefined : commandOf(pid);
  const what = isKafka || /\bkafka\.Kafka\b/.test(command ?? "") ? "a Kafka broker" : nameOf(command);
  if (pid === undefined) return what ?? "another process";
  return `${what ?? "another process"} (pid ${pid})`;
}

/**
 * The processes of a local cluster, ZooKeeper among them, of which one listens on this port and whose directory was deleted
 * while they ran: they still write to logs in it. Empty where it is another process, and where the system does not tell.
 */
export async function orphansOf(port: number): Promise<number[]> {
  const pid = process.platform === "linux" ? await pidListeningOn(port) : undefined;
  const data = pid === undefined ? undefined : /^(.+)\/logs\/broker-\d+\.log \(deleted\)$/.exec(errorsOf(pid))?.[1];
  if (data === undefined) return [];
  return namesIn("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((one) => errorsOf(one).startsWith(`${data}/`) && errorsOf(one).endsWith(" (deleted)"));
}

/** The file that a process writes its errors to. */
const errorsOf = (pid: number): string => linkOf(`/proc/${pid}/fd/2`);

/** Whether somebody listens at one of the addresses of a connect string, `host:port,...` with or without a path. */
export async function isAnyListening(connectString: string): Promise<boolean> {
  const addresses = connectString.replace(/\/.*$/, "").split(",");
  const isListening = (address: string): Promise<boolean> => {
    const [, host = address, port = String(ZOOKEEPER_PORT)] = /^\[?(.+?)\]?:(\d+)$/.exec(address.trim()) ?? [];
    return new Promise((resolve) => {
      const socket = net.connect({ host, port: Number(port) });
      const end = (is: boolean): void => {
        socket.destroy();
        resolve(is);
      };
      socket.setTimeout(CONNECT_MS, () => end(false));
      socket.on("error", () => end(false));
      socket.on("connect", () => end(true));
    });
  };
  return (await Promise.all(addresses.map(isListening))).includes(true);
}

function nameOf(command: string | undefined): string | undefined {
  if (command === undefined || command === "") return undefined;
  if (/ottla\.js\0?.*\bbroker\b/s.test(command)) return "an ottla broker";
  const [program = "", ...args] = command.split("\0");
  const script = /(^|\/)(node|python3?|java)$/.test(program)
    ? args.find((arg) => arg !== "" && !arg.startsWith("-"))
    : undefined;
  return [program, script]
    .filter((word) => word !== undefined)
    .map((word) => word.split("/").at(-1))
    .join(" ");
}

function commandOf(pid: number): string | undefined {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return undefined;
  }
}

async function pidListeningOn(port: number): Promise<number | undefined> {
  return process.platform === "linux" ? pidFromProc(port) : pidFromLsof(port);
}

/** The socket's inode stands in the kernel's table, and in the directory of open files of the process that holds it. */
function pidFromProc(port: number): number | undefined {
  const inodes = new Set<string>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of linesOf(table).slice(1)) {
      const fields = line.trim().split(/\s+/);
      const isListening = fields[3] === "0A";
      if (isListening && Number.parseInt(fields[1]?.split(":")[1] ?? "", 16) === port)
        inodes.add(`socket:[${fields[9]}]`);
    }
  }
  if (inodes.size === 0) return undefined;
  for (const name of namesIn("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    for (const fd of namesIn(`/proc/${name}/fd`)) {
      if (inodes.has(linkOf(`/proc/${name}/fd/${fd}`))) return Number(name);
    }
  }
  return undefined;
}

// Processes of others, and processes that end while they are looked at, are passed over in silence.
const linesOf = (path: string): string[] => orElse([], () => fs.readFileSync(path, "latin1").trimEnd().split("\n"));
const namesIn = (path: string): string[] => orElse([], () => fs.readdirSync(path));
const linkOf = (path: string): string => orElse("", () => fs.readlinkSync(path));

function orElse<T>(fallback: T, read: () => T): T {
  try {
    return read();
  } catch {
    return fallback;
  }
}

function pidFromLsof(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    execFile("lsof", ["-nP", "-t", `-iTCP:${port}`, "-sTCP:LISTEN"], { timeout: 2000 }, (error, stdout) => {
      const pid = Number.parseInt(stdout, 10);
      resolve(error === null && Number.isSafeInteger(pid) ? pid : undefined);
    });
  });
}

const KAFKA_CORRELATION_ID = 0x6f74746c;

/** Asks as Kafka's clients do first (ApiVersions, version 0): a Kafka broker answers with the same correlation id. */
function speaksKafka(port: number): Promise<boolean> {
  const request = Buffer.alloc(14);
  request.writeInt32BE(10, 0);
  request.writeInt16BE(18, 4);
  request.writeInt16BE(0, 6);
  request.writeInt32BE(KAFKA_CORRELATION_ID, 8);
  request.writeInt16BE(-1, 12);
  return new Promise((resolve) => {
    let answer = Buffer.alloc(0);
    const socket = net.connect({ host: LOOPBACK, port });
    const end = (isKafka: boolean): void => {
      socket.destroy();
      resolve(isKafka);
    };
    socket.setTimeout(PROBE_MS, () => end(false));
    socket.on("error", () => end(false));
    socket.on("close", () => end(false));
    socket.on("connect", () => socket.write(request));
    socket.on("data", (chunk) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length >= 8) end(answer.readInt32BE(4) === KAFKA_CORRELATION_ID && answer.readInt32BE(0) < 65_536);
    });
  });
}
