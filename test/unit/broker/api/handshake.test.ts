import { handshakeHandler } from "../../../../broker/api/handshake.js";
import type { RequestContext } from "../../../../broker/net/request-context.js";
import type { SocketEnd } from "../../../../common/env/network.js";
import type { BrokerIdentity, HandshakeRequest } from "../../../../protocol/messages.js";

const sender: BrokerIdentity = { brokerId: 2, incarnation: "two", brokerEpoch: "20", toBrokerId: 1, control: true };
const request: HandshakeRequest = {
  clientId: "ottla-broker-2",
  clientSoftware: "ottla-broker",
  clientVersion: "",
  features: [],
  clusterId: "c",
  broker: sender,
};

class Connection implements Partial<RequestContext> {
  readonly isInterBroker = true;
  constructor(readonly connectionId: number) {}
  broker: BrokerIdentity | undefined;
  isClosed = false;
  readonly #listeners = new Set<(end: SocketEnd) => void>();

  get context(): RequestContext {
    return this as unknown as RequestContext;
  }
  identify(broker: BrokerIdentity): void {
    this.broker = broker;
  }
  whenClosed(listener: (end: SocketEnd) => void): () => void {
    if (this.isClosed) listener("closed-here");
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  close(end: SocketEnd): void {
    this.isClosed = true;
    for (const listener of this.#listeners) listener(end);
    this.#listeners.clear();
  }
  disconnect(): void {
    this.close("closed-here");
  }
}

describe("a control connection", () => {
  /** Two of one sender; neither is proved yet. */
  function setUp() {
    const proofs: ((registered: { incarnation: string; epoch: string }) => void)[] = [];
    const ended: number[] = [];
    const handle = handshakeHandler({
      clusterId: "c",
      brokerId: 1,
      incarnation: "one",
      brokerEpoch: () => "10",
      knownBroker: () => undefined,
      readRegistration: () => new Promise((resolve) => proofs.push(resolve)),
      onControlConnectionEnded: (id) => ended.push(id),
    });
    const connections = [new Connection(1), new Connection(2)] as const;
    const answers = connections.map(async ({ context }) => handle(request, context, []));
    const prove = async (which: 0 | 1): Promise<void> => {
      proofs[which]?.({ incarnation: "two", epoch: "20" });
      await answers[which];
    };
    return { older: connections[0], newer: connections[1], ended, prove };
  }

  it("is not ended by an older one whose sender is proved when it has gone", async () => {
    const { older, newer, ended, prove } = setUp();
    older.close("ended");
    await prove(1);
    await prove(0);
    expect([newer.isClosed, newer.broker, ended]).toEqual([false, sender, []]);
    newer.close("reset");
    expect(ended).toEqual([2]);
  });

  it("is not ended by an older one of which it is not known yet that it has gone", async () => {
    const { older, newer, ended, prove } = setUp();
    await prove(1);
    await prove(0);
    expect([older.isClosed, newer.isClosed, ended]).toEqual([true, false, []]);
    newer.close("reset");
    expect(ended).toEqual([2]);
  });

  it("ends an older one", async () => {
    const { older, newer, ended, prove } = setUp();
    await prove(0);
    await prove(1);
    expect([older.isClosed, newer.isClosed, ended]).toEqual([true, false, []]);
  });
});
