import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { PortClaims } from "../../tools/local-cluster/port-claims.js";
import { findZooKeeper, startZooKeeper, waitUntilServing, zookeeperStatus } from "../../tools/local-zookeeper.js";
import type { EnsembleMember, LocalZooKeeper, ZooKeeperInstallation } from "../../tools/local-zookeeper.js";

/** The tick of every ZooKeeper in tests: sessions of 1.2 s and more. */
export const tickTimeMs = 200;
const startDeadlineMs = 30_000;

/** One server of an ensemble, or the only one. */
export class RealZooKeeperServer {
  #process: LocalZooKeeper | undefined;

  constructor(
    private readonly installation: ZooKeeperInstallation,
    private readonly dataDir: string,
    readonly port: number,
    private readonly id: number | undefined,
    private readonly members: readonly EnsembleMember[],
  ) {}

  async start(): Promise<void> {
    this.#process = await startZooKeeper(this.installation, {
      dataDir: this.dataDir,
      clientPort: this.port,
      tickTimeMs,
      ...(this.id !== undefined && { id: this.id, servers: this.members }),
    });
  }

  async waitUntilServing(): Promise<void> {
    if (this.#process === undefined) throw new Error(`the server on port ${this.port} was not started`);
    await waitUntilServing(this.#process, startDeadlineMs);
  }

  /** "standalone", "leader" or "follower"; undefined when it does not serve. */
  status(): Promise<string | undefined> {
    return zookeeperStatus(this.port);
  }

  /** kill -9. */
  async kill(): Promise<void> {
    await this.#process?.kill();
    this.#process = undefined;
  }

  /** SIGSTOP: the kernel still accepts connections for it. */
  freeze(): void {
    this.#signal("SIGSTOP");
  }

  /** SIGCONT. */
  thaw(): void {
    this.#signal("SIGCONT");
  }

  #signal(signal: "SIGSTOP" | "SIGCONT"): void {
    if (this.#process !== undefined) process.kill(this.#process.pid, signal);
  }
}

/** Real servers in a directory of their own, for one test file. */
export class RealZooKeeper {
  constructor(
    readonly servers: readonly RealZooKeeperServer[],
    private readonly directory: string,
  ) {}

  /** Names all servers. */
  get connectString(): string {
    return this.servers.map((server) => `127.0.0.1:${server.port}`).join(",");
  }

  /** The server that leads the ensemble. */
  async leader(): Promise<RealZooKeeperServer> {
    const statuses = await Promise.all(this.servers.map((server) => server.status()));
    const leader = this.servers[statuses.indexOf("leader")];
    if (leader === undefined) throw new Error(`no leader among ${statuses.join(", ")}`);
    return leader;
  }

  /** Kills all servers and removes what they wrote. */
  async stop(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.kill()));
    await fs.promises.rm(this.directory, { recursive: true, force: true });
  }
}

/** Starts a single server, or an ensemble, on free ports; resolves when it serves. */
export async function startRealZooKeeper(serverCount = 1): Promise<RealZooKeeper> {
  const found = await findZooKeeper((sentence) => process.stderr.write(`${sentence}\n`));
  const directory = await fs.promises.mkdtemp(path.join(os.tmpdir(), "ottla-zookeeper-"));
  const installation = await endingWithThisProcess(found, directory);
  const claims = new PortClaims(directory);
  const ports = await portsOf(claims, 3 * serverCount);
  const port = (index: number): number => ports[index] as number;
  const members = Array.from({ length: serverCount }, (_, index) => ({
    id: index + 1,
    quorumPort: port(serverCount + 2 * index),
    electionPort: port(serverCount + 2 * index + 1),
  }));
  const servers = members.map(
    ({ id }, index) =>
      new RealZooKeeperServer(
        installation,
        path.join(directory, String(id)),
        port(index),
        serverCount === 1 ? undefined : id,
        members,
      ),
  );
  const ensemble = new RealZooKeeper(servers, directory);
  try {
    await Promise.all(servers.map((server) => server.start()));
    await Promise.all(servers.map((server) => server.waitUntilServing()));
  } catch (error) {
    await ensemble.stop();
    throw error;
  } finally {
    await claims.release();
  }
  return ensemble;
}

/**
 * A test that is killed cannot end its servers, which are started to outlive their starter. So each has a shell beside it
 * that ends it, and removes what it wrote, once this process is gone.
 */
async function endingWithThisProcess(
  installation: ZooKeeperInstallation,
  directory: string,
): Promise<ZooKeeperInstallation> {
  if (installation.kind !== "java") return installation;
  const program = path.join(directory, "java");
  const lines = [
    "#!/bin/sh",
    `( while kill -0 $$ && kill -0 ${process.pid}; do sleep 0.3; done`,
    `  kill -0 ${process.pid} || { kill -9 $$; rm -rf "${directory}"; } ) >/dev/null 2>&1 &`,
    `exec "${installation.java}" "$@"`,
  ];
  await fs.promises.writeFile(program, `${lines.join("\n")}\n`, { mode: 0o755 });
  return { ...installation, java: program };
}

/** Ports that nobody else takes until the servers listen. */
async function portsOf(claims: PortClaims, count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = await claims.claimAny();
    if (port === undefined) throw new Error("no port is free");
    ports.push(port);
  }
  return ports;
}
