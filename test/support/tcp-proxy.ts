import net from "node:net";

/**
 * A way to a server that misbehaves on command: it cuts connections (also in the middle of an answer), stalls (nothing gets
 * through, and comes later), swallows (nothing comes back, ever), and refuses.
 */
export class TcpProxy {
  readonly #pairs = new Set<Pair>();
  #server: net.Server | undefined;
  #port = 0;
  #mode: "forward" | "stall" | "swallow" = "forward";
  /** Connections accepted so far. */
  accepted = 0;

  constructor(private readonly targetPort: number) {}

  get port(): number {
    return this.#port;
  }

  /** As it stands in a connect string. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Accepts connections, again on the port it had before. */
  async listen(): Promise<this> {
    const server = net.createServer((client) => this.#accept(client));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(this.#port, "127.0.0.1", resolve);
    });
    this.#server = server;
    this.#port = (server.address() as net.AddressInfo).port;
    return this;
  }

  /** Refuses further connections and ends the open ones. `listen` takes it back. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.cut();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  /** Ends all open connections at once. */
  cut(): void {
    for (const pair of this.#pairs) pair.destroy();
  }

  /** Ends each open connection once so many more bytes of answers have passed: most often within one. */
  cutAfter(answerBytes: number): void {
    for (const pair of this.#pairs) pair.answerBytesLeft = answerBytes;
  }

  /** Holds everything back, in both directions, until `forward`. New connections are accepted and silent. */
  stall(): void {
    this.#setMode("stall");
  }

  /** Requests get through, answers vanish. */
  swallow(): void {
    this.#setMode("swallow");
  }

  forward(): void {
    this.#setMode("forward");
  }

  #setMode(mode: "forward" | "stall" | "swallow"): void {
    this.#mode = mode;
    for (const pair of this.#pairs) pair.setMode(mode);
  }

  #accept(client: net.Socket): void {
    this.accepted += 1;
    const pair = new Pair(client, this.targetPort, () => this.#pairs.delete(pair));
    this.#pairs.add(pair);
    pair.setMode(this.#mode);
  }
}

class Pair {
  answerBytesLeft = Number.POSITIVE_INFINITY;
  readonly #upstream: net.Socket;
  #swallowing = false;

  constructor(
    private readonly client: net.Socket,
    targetPort: number,
    private readonly onGone: () => void,
  ) {
    this.#upstream = net.connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
    client.setNoDelay(true);
    client.on("data", (chunk) => this.#upstream.write(chunk));
    this.#upstream.on("data", (chunk) => this.#answer(chunk));
    for (const socket of [client, this.#upstream]) {
      socket.on("error", () => this.destroy());
      socket.on("close", () => this.destroy());
    }
  }

  setMode(mode: "forward" | "stall" | "swallow"): void {
    this.#swallowing = mode === "swallow";
    for (const socket of [this.client, this.#upstream]) {
      if (mode === "stall") socket.pause();
      else socket.resume();
    }
  }

  destroy(): void {
    this.client.destroy();
    this.#upstream.destroy();
    this.onGone();
  }

  #answer(chunk: Buffer): void {
    if (this.#swallowing) return;
    const passed = chunk.subarray(0, this.answerBytesLeft);
    this.answerBytesLeft -= passed.length;
    this.client.write(passed);
    if (this.answerBytesLeft > 0) return;
    // What passed arrives before the end does.
    this.#upstream.destroy();
    this.client.end();
  }
}
