import { onAbort } from "../../common/on-abort.js";
import { ConnectFailure, ListenFailure } from "../../common/env/network.js";
import type {
  ConnectFailureReason,
  ConnectOptions,
  Listener,
  ListenOptions,
  Network,
  Socket,
  SocketEnd,
  SocketHandler,
} from "../../common/env/network.js";
import { Label } from "./scheduler.js";
import type { Scheduler } from "./scheduler.js";
import type { Death, SimProcess } from "./sim-process.js";
import type { SimRandom } from "./sim-random.js";

/**
 * The simulated network: hosts, the kernels' side of TCP, and the links between them.
 *
 * As in TCP, the bytes of one connection arrive in order and once, split anywhere; only time and the end of a connection
 * are uncertain. A kernel outlives its processes: it accepts and buffers for a paused one, and closes (FIN, or RST where
 * bytes were unread or a connection was never accepted) for a dead one. A host without power or cable is silent: what is
 * sent to it waits, as retransmission does, until the way is free again; if the connection is unknown there by then, the
 * answer is RST.
 */
export class SimNetwork {
  /** Bytes of one direction of a connection that kernels and wire hold; more waits in the sender (`unsentBytes`). */
  windowBytes = 256 * 1024;
  /** How long a packet travels, on the average, where `setLink` says nothing else. */
  delayMeanMs = 0.2;
  /** The share of reads that return less than there is, at a random place, beside the receiver's own buffer ends. */
  splitShare = 0.25;
  readonly random: SimRandom;
  readonly #hosts = new Map<string, Kernel>();
  readonly #blocked = new Map<string, Set<string>>();
  readonly #links = new Map<string, Link>();
  readonly #stalledPipes = new Set<Pipe>();
  readonly #labels = new Map<string, Readonly<Record<Packet["kind"], Label>>>();

  constructor(readonly scheduler: Scheduler) {
    this.random = scheduler.random.stream("network");
  }

  /** Makes the host known by name and by address. */
  addHost(name: string): void {
    const number = this.#hosts.size + 1;
    this.#hosts.set(name, new Kernel(name, `10.0.${number >> 8}.${number & 255}`));
  }

  /** The address by which peers see the host. */
  addressOf(hostName: string): string {
    return this.#kernel(hostName).address;
  }

  /** TCP as this process has it. */
  networkOf(process: SimProcess): Network {
    const kernel = this.#kernel(process.hostName);
    process.onDeath((death) => kernel.processDied(process, death));
    return {
      connect: (options) => this.#connect(process, kernel, options),
      listen: (options, onConnection) => this.#listen(process, kernel, options, onConnection),
    };
  }

  /** Whether a packet sent now would arrive. For other simulated services that speak over this network. */
  reaches(from: string, to: string): boolean {
    return !this.isDown(from) && this.carries(from, to);
  }

  isDown(host: string): boolean {
    return this.#hosts.get(host)?.down === true;
  }

  /** Whether a packet that is on its way now arrives, whatever became of its sender. */
  carries(from: string, to: string): boolean {
    if (this.isDown(to)) return false;
    return from === to || !this.#blocked.get(from)?.has(to);
  }

  /** How long a packet sent now would travel. */
  drawDelayMs(from: string, to: string): number {
    return this.random.delayMs(
      from === to ? this.delayMeanMs / 10 : (this.#link(from, to)?.delayMeanMs ?? this.delayMeanMs),
    );
  }

  #link(from: string, to: string): Link | undefined {
    return this.#links.size === 0 ? undefined : this.#links.get(linkKey(from, to));
  }

  /** From now on nothing gets from one to the other, nor back unless `oneWay`. */
  partition(from: string, to: string, options: { readonly oneWay?: boolean } = {}): void {
    this.scheduler.note(`partition ${from} ${options.oneWay ? "->" : "<->"} ${to}`);
    this.#block(from, to);
    if (!options.oneWay) this.#block(to, from);
  }

  /** Pulls the host's cable: partitions it from all others. */
  isolate(host: string): void {
    for (const other of this.#hosts.keys()) if (other !== host) this.partition(host, other);
  }

  /** Ends the partition between two hosts, or all of one, or all. What was held travels on, later than the heal. */
  heal(one?: string, other?: string): void {
    this.scheduler.note(`heal ${one ?? "all"} ${other ?? ""}`);
    for (const [from, targets] of this.#blocked) {
      for (const to of targets) {
        const meant =
          one === undefined ||
          (other === undefined
            ? from === one || to === one
            : (from === one && to === other) || (from === other && to === one));
        if (meant) targets.delete(to);
      }
    }
    this.#wakePipes();
  }

  /** What the way from one host to another is like; `bytesPerMs` is shared by all connections on it. */
  setLink(from: string, to: string, link: { readonly delayMeanMs?: number; readonly bytesPerMs?: number }): void {
    this.#links.set(linkKey(from, to), {
      delayMeanMs: link.delayMeanMs ?? this.delayMeanMs,
      bytesPerMs: link.bytesPerMs ?? Number.POSITIVE_INFINITY,
      freeAtMs: 0,
    });
  }

  /** Every connection of the host is reset at both ends, as when an address vanishes for a moment. */
  resetAll(host: string): void {
    this.scheduler.note(`reset all of ${host}`);
    for (const endpoint of this.#kernel(host).endpoints()) {
      endpoint.peer.abort();
      endpoint.abort();
    }
  }

  /** The host has no power: it neither sends nor receives. Its processes are the simulation's to end. */
  setDown(host: string, down: boolean): void {
    this.#kernel(host).down = down;
    if (!down) this.#wakePipes();
    else for (const pipe of this.#stalledPipes) if (pipe.from === host) pipe.senderLost();
  }

  /** Called by a pipe whose way is blocked. */
  stalled(pipe: Pipe): void {
    this.#stalledPipes.add(pipe);
  }

  /** When `bytes` sent now arrive. */
  arrivalMs(from: string, to: string, bytes: number): number {
    let sentMs = this.scheduler.nowMs;
    const link = this.#link(from, to);
    if (link !== undefined && link.bytesPerMs < Number.POSITIVE_INFINITY) {
      sentMs = Math.max(sentMs, link.freeAtMs) + bytes / link.bytesPerMs;
      link.freeAtMs = sentMs;
    }
    return sentMs + this.drawDelayMs(from, to);
  }

  /** What packets from one host to the other are called in the trace. */
  labelsOf(from: string, to: string): Readonly<Record<Packet["kind"], Label>> {
    const key = linkKey(from, to);
    let labels = this.#labels.get(key);
    if (labels === undefined) {
      const label = (what: string): Label => new Label(`${from}->${to} ${what}`);
      labels = {
        connected: label("connected"),
        data: label("bytes"),
        fin: label("fin"),
        reset: label("reset"),
        acknowledged: label("acknowledged"),
      };
      this.#labels.set(key, labels);
    }
    return labels;
  }

  #block(from: string, to: string): void {
    const targets = this.#blocked.get(from) ?? new Set();
    this.#blocked.set(from, targets.add(to));
  }

  #wakePipes(): void {
    const pipes = [...this.#stalledPipes];
    this.#stalledPipes.clear();
    for (const pipe of pipes) pipe.wake();
  }

  #kernel(host: string): Kernel {
    const kernel = this.#hosts.get(host);
    if (kernel === undefined) throw new Error(`There is no simulated host ${host}.`);
    return kernel;
  }

  #resolve(name: string, asker: Kernel): Kernel | undefined {
    if (isLoopback(name)) return asker;
    for (const kernel of this.#hosts.values()) if (kernel.name === name || kernel.address === name) return kernel;
    return undefined;
  }

  #connect(process: SimProcess, client: Kernel, options: ConnectOptions): Promise<Socket> {
    const address = `${options.host}:${options.port}`;
    return new Promise((resolve, reject) => {
      let settled = false;
      let answered = false;
      const fail = (reason: ConnectFailureReason): void => {
        if (settled) return;
        settled = true;
        deadline.cancel();
        stopListening();
        reject(new ConnectFailure(reason, address));
      };
      const stopListening = onAbort(options.signal, () => fail("given-up"));
      const deadline = process.timers.after(options.timeoutMs, () => fail("timed-out"));
      if (options.signal?.aborted === true) {
        fail("given-up");
        return;
      }
      const server = this.#resolve(options.host, client);
      if (server === undefined) {
        process.schedule(this.random.delayMs(1), `does not find ${options.host}`, () => fail("name-not-found"));
        return;
      }
      const wire = (from: Kernel, to: Kernel, what: string, arrived: () => void): void => {
        this.scheduler.after(
          this.drawDelayMs(from.name, to.name),
          `${from.name}->${to.name} ${what} ${options.port}`,
          () => {
            if (this.reaches(from.name, to.name)) arrived();
          },
        );
      };
      const sendSyn = (retryMs: number): void => {
        if (settled || process.dead) return;
        wire(client, server, "SYN", () => {
          const listener = server.listenerAt(options.port, isLoopback(options.host) || client === server);
          wire(server, client, listener === undefined ? "RST" : "SYN-ACK", () => {
            // An answer to a SYN that was taken for lost answers nothing any more.
            if (answered || settled || process.dead) return;
            answered = true;
            if (listener === undefined) {
              process.arrive("io", () => fail("refused"));
              return;
            }
            const socket = this.#establish(process, client, listener, server, options.port, isLoopback(options.host));
            process.arrive("io", () => {
              if (settled) {
                socket.destroy();
                return;
              }
              settled = true;
              deadline.cancel();
              stopListening();
              resolve(socket);
            });
          });
        });
        this.scheduler.after(retryMs, `${process.name} SYN again`, () => {
          if (!answered) sendSyn(retryMs * 2);
        });
      };
      sendSyn(1000);
    });
  }

  #establish(
    process: SimProcess,
    client: Kernel,
    listener: SimListener,
    server: Kernel,
    port: number,
    loopback: boolean,
  ): Endpoint {
    const clientPort = client.freePort();
    const near = new Endpoint(this, process, client, loopback ? "127.0.0.1" : server.address, port, clientPort);
    const far = new Endpoint(this, listener.process, server, loopback ? "127.0.0.1" : client.address, clientPort, port);
    near.join(far);
    far.join(near);
    client.add(near);
    server.add(far);
    near.announce(listener);
    return near;
  }

  #listen(
    process: SimProcess,
    kernel: Kernel,
    options: ListenOptions,
    onConnection: (socket: Socket) => void,
  ): Promise<Listener> {
    const address = `${options.host}:${options.port}`;
    const everywhere = options.host === "0.0.0.0" || options.host === "::";
    if (!everywhere && this.#resolve(options.host, kernel) !== kernel) {
      return process.result(turnMs, `cannot listen on ${address}`, () => {
        throw new ListenFailure("no-such-address", address);
      });
    }
    const port = options.port === 0 ? kernel.freePort() : options.port;
    const listener = new SimListener(process, kernel, port, isLoopback(options.host), onConnection);
    const taken = process.dead || !kernel.bind(listener);
    return process.result(turnMs, `listens on ${address}`, () => {
      if (taken) throw new ListenFailure("port-taken", address);
      return listener;
    });
  }
}

interface Link {
  readonly delayMeanMs: number;
  readonly bytesPerMs: number;
  /** When the last byte sent so far will have left. */
  freeAtMs: number;
}

const turnMs = 0.01;

function linkKey(from: string, to: string): string {
  return `${from}>${to}`;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

/** One host's ports and connections. */
class Kernel {
  down = false;
  readonly #listeners = new Map<number, SimListener>();
  readonly #endpoints = new Set<Endpoint>();
  #lastPort = 32_767;

  constructor(
    readonly name: string,
    readonly address: string,
  ) {}

  freePort(): number {
    do this.#lastPort = this.#lastPort >= 60_999 ? 32_768 : this.#lastPort + 1;
    while (this.#listeners.has(this.#lastPort));
    return this.#lastPort;
  }

  bind(listener: SimListener): boolean {
    if (this.#listeners.has(listener.port)) return false;
    this.#listeners.set(listener.port, listener);
    return true;
  }

  unbind(listener: SimListener): void {
    if (this.#listeners.get(listener.port) === listener) this.#listeners.delete(listener.port);
  }

  listenerAt(port: number, fromHere: boolean): SimListener | undefined {
    const listener = this.#listeners.get(port);
    return listener?.loopbackOnly && !fromHere ? undefined : listener;
  }

  add(endpoint: Endpoint): void {
    this.#endpoints.add(endpoint);
  }

  remove(endpoint: Endpoint): void {
    this.#endpoints.delete(endpoint);
  }

  endpoints(): readonly Endpoint[] {
    return [...this.#endpoints];
  }

  processDied(process: SimProcess, death: Death): void {
    for (const listener of [...this.#listeners.values()]) if (listener.process === process) this.unbind(listener);
    for (const endpoint of this.endpoints()) if (endpoint.process === process) endpoint.ownerDied(death);
  }
}

class SimListener implements Listener {
  #closed = false;

  constructor(
    readonly process: SimProcess,
    private readonly kernel: Kernel,
    readonly port: number,
    readonly loopbackOnly: boolean,
    private readonly onConnection: (socket: Socket) => void,
  ) {}

  /** The handshake is complete; the process learns of it when it runs. */
  connected(endpoint: Endpoint): void {
    if (this.process.dead) {
      endpoint.refuse();
      return;
    }
    this.process.arrive("io", () => {
      if (this.#closed) {
        endpoint.refuse();
        return;
      }
      endpoint.accepted = true;
      this.onConnection(endpoint);
    });
  }

  close(): Promise<void> {
    this.#closed = true;
    this.kernel.unbind(this);
    return this.process.result(turnMs, `closes port ${this.port}`, () => undefined);
  }
}

/** What travels on a connection. `acknowledged` gives the sender room for so many bytes. */
type Packet =
  | { readonly kind: "connected"; readonly listener: SimListener }
  | { readonly kind: "data"; readonly bytes: Uint8Array }
  | { readonly kind: "fin" }
  | { readonly kind: "reset" }
  | { readonly kind: "acknowledged"; readonly count: number };

/** One direction of a connection: packets in order, each with its own delay, the whole held up by its first. */
class Pipe {
  readonly #packets: { readonly packet: Packet; readonly arrivalMs: number }[] = [];
  #lastArrivalMs = 0;
  #moving = false;
  #isStalled = false;
  #stalledAtMs = 0;
  #isSenderLost = false;
  readonly #labels: Readonly<Record<Packet["kind"], Label>>;

  constructor(
    private readonly network: SimNetwork,
    readonly from: string,
    private readonly to: string,
    private readonly receiver: Endpoint,
  ) {
    this.#labels = network.labelsOf(from, to);
  }

  push(packet: Packet): void {
    const bytes = packet.kind === "data" ? packet.bytes.length : 0;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, this.network.arrivalMs(this.from, this.to, bytes));
    this.#packets.push({ packet, arrivalMs: this.#lastArrivalMs });
    this.#move(0);
  }

  /** The way is free again: the sender's kernel finds out at its next retransmission, and those grow rarer with time. */
  wake(): void {
    this.#isStalled = false;
    this.#moving = false;
    this.#move(this.network.random.float() * Math.min(60_000, this.network.scheduler.nowMs - this.#stalledAtMs));
  }

  /** The sender's kernel has lost its power: what is on its way may arrive, and nothing is sent again. */
  senderLost(): void {
    this.#isSenderLost = true;
    if (this.#isStalled) this.#packets.length = 0;
  }

  #move(extraMs: number): void {
    const first = this.#packets[0];
    if (this.#moving || first === undefined) return;
    this.#moving = true;
    const { scheduler } = this.network;
    const delayMs = Math.max(0, first.arrivalMs - scheduler.nowMs) + extraMs;
    const { packet } = first;
    scheduler.after(
      delayMs,
      this.#labels[packet.kind],
      this.#onArrival,
      packet.kind === "data" ? packet.bytes.length : 0,
    );
  }

  readonly #onArrival = (): void => {
    const { scheduler } = this.network;
    const arrives = this.#isSenderLost
      ? this.network.carries(this.from, this.to)
      : this.network.reaches(this.from, this.to);
    if (!arrives && (this.#isSenderLost || this.network.isDown(this.from))) {
      this.#packets.length = 0;
      this.#moving = false;
      return;
    }
    if (!arrives) {
      this.#isStalled = true;
      this.#stalledAtMs = scheduler.nowMs;
      this.network.stalled(this);
      return;
    }
    this.#moving = false;
    const first = this.#packets.shift();
    if (first === undefined) return;
    this.receiver.arrived(first.packet);
    this.#move(0);
  };
}

interface PendingSend {
  readonly pieces: readonly Uint8Array[];
  readonly onSent: (() => void) | undefined;
  /** The next byte to go: piece and place in it. */
  piece: number;
  offset: number;
}

/** One end of a connection: what the kernel knows of it, and the process's socket. */
class Endpoint implements Socket {
  peer!: Endpoint;
  /** Whether the process has been told of it; always so on the connecting side. */
  accepted = true;
  #out!: Pipe;
  #handler: SocketHandler | undefined;
  #receivePaused = false;

  // Sending.
  readonly #pending: PendingSend[] = [];
  #unsentBytes = 0;
  /** Bytes that the wire and the receiver's kernel hold. */
  #heldBytes = 0;
  #drainOwed = false;
  #ending = false;
  #finSent = false;

  // Receiving.
  readonly #received: Uint8Array[] = [];
  #receivedBytes = 0;
  #unacknowledged = 0;
  #finReceived = false;
  #resetReceived = false;
  #readScheduled = false;
  #nextBuffer: Uint8Array | undefined;

  #end: SocketEnd | undefined;
  /** The kernel has forgotten the connection: whatever still arrives is answered by RST. */
  #gone = false;
  #closedTold = false;

  constructor(
    private readonly network: SimNetwork,
    readonly process: SimProcess,
    private readonly kernel: Kernel,
    readonly remoteAddress: string,
    readonly remotePort: number,
    readonly localPort: number,
  ) {}

  join(peer: Endpoint): void {
    this.peer = peer;
    this.#out = new Pipe(this.network, this.kernel.name, peer.kernel.name, peer);
  }

  /** Tells the listening side, as the first thing on the wire. */
  announce(listener: SimListener): void {
    this.peer.accepted = false;
    this.#out.push({ kind: "connected", listener });
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  start(handler: SocketHandler): void {
    this.#handler = handler;
    if (this.#end !== undefined && this.#gone) this.#tellClosed();
    else this.#readLater();
  }

  send(pieces: readonly Uint8Array[], onSent?: () => void): void {
    if (this.process.dead) return;
    if (this.#ending || this.#end !== undefined) {
      if (onSent !== undefined) this.process.timers.afterThisTurn(onSent);
      return;
    }
    for (const piece of pieces) this.#unsentBytes += piece.length;
    this.#pending.push({ pieces, onSent, piece: 0, offset: 0 });
    this.#transmit();
    if (this.#unsentBytes > 0) this.#drainOwed = true;
  }

  pause(): void {
    this.#receivePaused = true;
  }

  resume(): void {
    this.#receivePaused = false;
    this.#readLater();
  }

  end(): void {
    if (this.process.dead || this.#ending || this.#end !== undefined) return;
    this.#ending = true;
    this.#sendFinWhenSent();
  }

  destroy(): void {
    if (this.process.dead) return;
    this.#close("closed-here");
  }

  /** Called by the listener that closed before it could accept this. */
  refuse(): void {
    this.#out.push({ kind: "reset" });
    this.#forget();
  }

  /** The kernel is told that the connection is no more (a network that lost its address). */
  abort(): void {
    if (!this.#gone) this.arrived({ kind: "reset" });
  }

  ownerDied(death: Death): void {
    if (this.#gone) return;
    if (death === "crash") {
      if (this.#receivedBytes > 0 || !this.accepted) this.#out.push({ kind: "reset" });
      else if (!this.#finSent) this.#out.push({ kind: "fin" });
    } else {
      this.#out.senderLost();
    }
    this.#forget();
  }

  /** A packet is here. This is the kernel's work and happens whatever the process does. */
  arrived(packet: Packet): void {
    if (packet.kind === "acknowledged") {
      this.#heldBytes -= packet.count;
      if (this.#pending.length > 0) this.process.arrive("io", () => this.#onRoom());
      return;
    }
    if (this.#gone) {
      if (packet.kind === "data" || packet.kind === "connected") this.#out.push({ kind: "reset" });
      return;
    }
    switch (packet.kind) {
      case "connected":
        packet.listener.connected(this);
        return;
      case "data":
        this.#received.push(packet.bytes);
        this.#receivedBytes += packet.bytes.length;
        break;
      case "fin":
        this.#finReceived = true;
        break;
      case "reset":
        this.#resetReceived = true;
        this.#received.length = 0;
        this.#receivedBytes = 0;
        // A write finds out even where nobody reads.
        if (this.#pending.length > 0) this.process.arrive("io", () => this.#close("reset"));
        break;
    }
    // The process may be called within this event: it is the only call in it.
    if (!this.#mayRead()) return;
    this.#readScheduled = true;
    this.process.arrive("io", this.#onReadable);
  }

  // The process's side: everything below runs in one of its turns.

  #mayRead(): boolean {
    const something = this.#receivedBytes > 0 || this.#finReceived || this.#resetReceived;
    return (
      something &&
      !this.#readScheduled &&
      this.#handler !== undefined &&
      !this.#receivePaused &&
      this.#end === undefined
    );
  }

  #readLater(): void {
    if (!this.#mayRead()) return;
    this.#readScheduled = true;
    this.process.schedule(0, "reads", this.#onReadable, "io", this.localPort);
  }

  readonly #onReadable = (): void => {
    this.#readScheduled = false;
    if (!this.#receivePaused && this.#end === undefined) this.#read();
  };

  #read(): void {
    const handler = this.#handler;
    if (handler === undefined) return;
    if (this.#receivedBytes > 0) {
      const buffer = this.#nextBuffer ?? handler.receiveBuffer();
      handler.onReceived(this.#take(buffer));
      // `onReceived` may have ended the connection.
      if (this.#ended()) return;
      this.#nextBuffer = handler.receiveBuffer();
      this.#readLater();
    } else if (this.#resetReceived) {
      this.#close("reset");
    } else {
      this.#onPeerEnded();
    }
  }

  #take(buffer: Uint8Array): number {
    let limit = Math.min(buffer.length, this.#receivedBytes);
    if (limit > 1 && this.network.random.chance(this.network.splitShare)) limit = 1 + this.network.random.below(limit);
    let count = 0;
    while (count < limit) {
      const chunk = this.#received[0] as Uint8Array;
      if (chunk.length <= limit - count) {
        buffer.set(chunk, count);
        count += chunk.length;
        this.#received.shift();
      } else {
        const part = chunk.subarray(0, limit - count);
        buffer.set(part, count);
        count += part.length;
        this.#received[0] = chunk.subarray(part.length);
      }
    }
    this.#receivedBytes -= count;
    this.#acknowledge(count);
    return count;
  }

  #acknowledge(count: number): void {
    this.#unacknowledged += count;
    // Small ones would make the sender's packets small, and those the next acknowledgements, for ever. A sender that waits
    // has the whole window out, so enough will be read.
    if (this.#unacknowledged < this.network.windowBytes / 8) return;
    this.#out.push({ kind: "acknowledged", count: this.#unacknowledged });
    this.#unacknowledged = 0;
  }

  #onPeerEnded(): void {
    if (this.#pending.length === 0) this.#close(this.#ending ? "closed-here" : "ended");
    else this.#end = this.#ending ? "closed-here" : "ended";
  }

  #onRoom(): void {
    if (this.#gone) return;
    this.#transmit();
    // The peer ended before; what it was still owed has been sent now.
    if (this.#end !== undefined && this.#pending.length === 0) this.#close(this.#end);
  }

  /** Gives the kernel what it has room for. Bytes are copied when the kernel takes them, not when they are handed in. */
  #transmit(): void {
    let sent: (() => void)[] | undefined;
    let room = this.network.windowBytes - this.#heldBytes;
    for (let first = this.#pending[0]; first !== undefined; first = this.#pending[0]) {
      const count = Math.min(room, remainingBytes(first));
      if (count > 0) {
        this.#out.push({ kind: "data", bytes: takeBytes(first, count) });
        room -= count;
        this.#heldBytes += count;
        this.#unsentBytes -= count;
      }
      if (remainingBytes(first) > 0) break;
      this.#pending.shift();
      if (first.onSent !== undefined) (sent ??= []).push(first.onSent);
    }
    this.#sendFinWhenSent();
    if (sent === undefined && !this.#drainOwed) return;
    this.process.timers.afterThisTurn(() => {
      for (const onSent of sent ?? []) onSent();
      if (this.#drainOwed && this.#unsentBytes === 0 && this.#end === undefined) {
        this.#drainOwed = false;
        this.#handler?.onDrained();
      }
    });
  }

  #sendFinWhenSent(): void {
    if (!this.#ending || this.#finSent || this.#pending.length > 0) return;
    this.#finSent = true;
    this.#out.push({ kind: "fin" });
  }

  #ended(): boolean {
    return this.#end !== undefined;
  }

  #close(how: SocketEnd): void {
    if (this.#gone) return;
    this.#end ??= how;
    if (!this.#resetReceived) {
      if (this.#receivedBytes > 0) this.#out.push({ kind: "reset" });
      else if (!this.#finSent) this.#out.push({ kind: "fin" });
    }
    const pending = this.#pending.splice(0);
    this.#unsentBytes = 0;
    this.#forget();
    this.process.timers.afterThisTurn(() => {
      for (const { onSent } of pending) onSent?.();
    });
    this.#tellClosed();
  }

  #forget(): void {
    this.#gone = true;
    this.#received.length = 0;
    this.#receivedBytes = 0;
    this.kernel.remove(this);
  }

  #tellClosed(): void {
    const handler = this.#handler;
    const end = this.#end;
    if (handler === undefined || end === undefined || this.#closedTold) return;
    this.#closedTold = true;
    this.process.schedule(0, `closed :${this.localPort} ${end}`, () => handler.onClosed(end));
  }
}

function remainingBytes(send: PendingSend): number {
  let count = -send.offset;
  for (let index = send.piece; index < send.pieces.length; index += 1)
    count += (send.pieces[index] as Uint8Array).length;
  return count;
}

/** Copies the next `count` bytes out of a send. */
function takeBytes(send: PendingSend, count: number): Uint8Array {
  // Of Node's pool: an array of its own costs several times as much.
  const bytes = Buffer.allocUnsafe(count);
  let filled = 0;
  while (filled < count) {
    const piece = send.pieces[send.piece] as Uint8Array;
    const isWhole = send.offset === 0 && piece.length <= count - filled;
    const part = isWhole ? piece : piece.subarray(send.offset, send.offset + count - filled);
    bytes.set(part, filled);
    filled += part.length;
    send.offset += part.length;
    if (send.offset === piece.length) {
      send.piece += 1;
      send.offset = 0;
    }
  }
  return bytes;
}
