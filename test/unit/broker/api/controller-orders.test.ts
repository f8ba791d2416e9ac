import { ControllerOrders } from "../../../../broker/api/controller-orders.js";
import { BrokerConfig } from "../../../../broker/config.js";
import { MetadataCache } from "../../../../broker/metadata/metadata-cache.js";
import type { RequestContext } from "../../../../broker/net/request-context.js";
import type { PartitionTable } from "../../../../broker/partition/partition-table.js";
import { silentLogger } from "../../../../common/logger.js";
import type { ControllerOrdersRequest } from "../../../../protocol/messages.js";

const CONTROLLER = 7;

/** Orders without content: whether they are obeyed shows in the controller epoch that is remembered. */
function order(of: { readonly controllerEpoch: number; readonly brokerEpoch: string }): ControllerOrdersRequest {
  return {
    ...of,
    controllerId: CONTROLLER,
    chunk: 0,
    chunks: 0,
    topics: [],
    deletedTopicIds: [],
    brokers: [],
    brokerConfig: [],
    incomplete: false,
    brokerConfigUnreadable: false,
  };
}

function setUp(): {
  readonly metadata: MetadataCache;
  readonly registered: { epoch: string | undefined };
  readonly receive: (orders: ControllerOrdersRequest, from?: number) => void;
} {
  const metadata = new MetadataCache();
  const registered: { epoch: string | undefined } = { epoch: "20" };
  const partitions = {} as PartitionTable;
  const config = new BrokerConfig({});
  const orders = new ControllerOrders(silentLogger, () => registered.epoch, config, metadata, partitions);
  const receive = (request: ControllerOrdersRequest, from = CONTROLLER): void => {
    void orders.handle(request, { broker: { brokerId: from } } as RequestContext, []);
  };
  return { metadata, registered, receive };
}

describe("a broker that is given orders", () => {
  it("obeys no controller that was replaced, and its successors only", () => {
    const { metadata, receive } = setUp();
    receive(order({ controllerEpoch: 5, brokerEpoch: "20" }));
    expect(() => receive(order({ controllerEpoch: 4, brokerEpoch: "20" }))).toThrow(/controller epoch 4 is over/);
    expect(metadata.controllerEpoch).toBe(5);
    receive(order({ controllerEpoch: 5, brokerEpoch: "20" }));
    receive(order({ controllerEpoch: 6, brokerEpoch: "20" }));
    expect(metadata.controllerEpoch).toBe(6);
  });

  it("obeys nothing that was meant for another registration than the one it has now", () => {
    const { metadata, registered, receive } = setUp();
    expect(() => receive(order({ controllerEpoch: 5, brokerEpoch: "19" }))).toThrow(/are for registration 19/);
    expect(() => receive(order({ controllerEpoch: 5, brokerEpoch: "21" }))).toThrow(/are for registration 21/);
    registered.epoch = undefined;
    expect(() => receive(order({ controllerEpoch: 5, brokerEpoch: "20" }))).toThrow(/registered as nothing/);
    expect(metadata.controllerEpoch).toBe(0);
  });

  it("obeys nobody but the controller itself", () => {
    const { metadata, receive } = setUp();
    expect(() => receive(order({ controllerEpoch: 5, brokerEpoch: "20" }), 3)).toThrow(/are accepted from that broker/);
    expect(metadata.controllerEpoch).toBe(0);
  });
});
