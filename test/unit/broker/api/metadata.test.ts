import { metadataHandler } from "../../../../broker/api/metadata.js";
import { BrokerConfig } from "../../../../broker/config.js";
import { MetadataCache } from "../../../../broker/metadata/metadata-cache.js";
import type { RequestContext } from "../../../../broker/net/request-context.js";
import { errorCodes } from "../../../../protocol/error-codes.js";
import type { ControllerOrdersRequest, MetadataRequest, MetadataResponse } from "../../../../protocol/messages.js";

/** Goal: keys are placed by the number of partitions, so a client hears of a topic's new ones together. */
describe("what a broker tells clients of a topic whose partitions it hears of in pieces", () => {
  const setUp = () => {
    const metadata = new MetadataCache();
    metadata.isComplete = true;
    const handle = metadataHandler("cluster", new BrokerConfig({}), metadata, () => 1);
    return {
      /** The controller tells of partitions `from` to `to`, of so many. */
      tell: (from: number, to: number, partitionCount: number, growsFrom = 0): void => {
        const partitions = Array.from({ length: to - from }, (_, index) => ({
          partition: from + index,
          leaderId: 1,
          leaderEpoch: 0,
          partitionEpoch: 0,
          replicas: [1],
          isr: [1],
          elr: [],
        }));
        const topic = { topicId: "id", name: "t", config: [], durability: "", partitionCount, growsFrom, partitions };
        metadata.apply({ brokers: [], deletedTopicIds: [], topics: [topic] } as unknown as ControllerOrdersRequest);
      },
      /** How many partitions it names, or its error, by each way of asking. */
      told: (): (number | undefined)[] =>
        [{ topics: ["t"] }, { topicIds: ["id"] }, {}].map((asked) => {
          const request = { noTopics: false, topics: [], topicIds: [], ...asked } as unknown as MetadataRequest;
          const { body } = handle(request, { listenerName: "x" } as RequestContext, []) as { body: MetadataResponse };
          const [topic] = body.topics;
          return topic?.error ? topic.error.code : topic?.partitions?.length;
        }),
    };
  };
  const notYet = errorCodes.LEADER_NOT_AVAILABLE.code;

  it("is nothing until all are told, and no denial either", () => {
    const { tell, told } = setUp();
    tell(0, 2, 5);
    expect(told()).toEqual([notYet, notYet, undefined]);
    tell(3, 5, 5);
    expect(told()).toEqual([notYet, notYet, undefined]);
    tell(2, 3, 5);
    expect(told()).toEqual([5, 5, 5]);
  });

  it("is the former ones as long as it grows", () => {
    const { tell, told } = setUp();
    tell(0, 2, 2);
    expect(told()).toEqual([2, 2, 2]);
    tell(2, 4, 5);
    expect(told()).toEqual([2, 2, 2]);
    tell(0, 1, 5);
    expect(told()).toEqual([2, 2, 2]);
    tell(4, 5, 5);
    expect(told()).toEqual([5, 5, 5]);
  });

  it("is the former ones while it grows also at a broker that has started meanwhile, once it knows all of them", () => {
    const { tell, told } = setUp();
    tell(2, 3, 5, 2);
    expect(told()).toEqual([notYet, notYet, undefined]);
    tell(0, 1, 5, 2);
    expect(told()).toEqual([notYet, notYet, undefined]);
    tell(1, 2, 5, 2);
    expect(told()).toEqual([2, 2, 2]);
    tell(3, 5, 5, 2);
    expect(told()).toEqual([5, 5, 5]);
  });

  it("is what there is where the rest cannot be made, and where the controller does not say how many there are", () => {
    const { tell, told } = setUp();
    tell(0, 2, 5);
    tell(0, 2, 0);
    expect(told()).toEqual([2, 2, 2]);
    tell(2, 3, 0);
    expect(told()).toEqual([3, 3, 3]);
  });
});
