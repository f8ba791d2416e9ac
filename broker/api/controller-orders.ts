import { reasonOf } from "../../common/logger.js";
import type { Logger } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { ControllerOrdersRequest } from "../../protocol/messages.js";
import type { BrokerEpoch, TopicId } from "../../protocol/types.js";
import type { BrokerConfig } from "../config.js";
import type { MetadataCache } from "../metadata/metadata-cache.js";
import type { Handler } from "../net/request-context.js";
import type { PartitionTable } from "../partition/partition-table.js";

/** A whole image while its parts arrive. */
interface ImageInProgress {
  readonly controllerEpoch: number;
  readonly topicIds: Set<TopicId>;
  isIncomplete: boolean;
  nextChunk: number;
}

/**
 * The receiving end of the controller's orders, and the only way in which this broker's replicas get their roles. Orders of
 * an older controller, or for an older registration of this broker, change nothing.
 */
export class ControllerOrders {
  #image: ImageInProgress | undefined;

  constructor(
    private readonly logger: Logger,
    private readonly brokerEpoch: () => BrokerEpoch | undefined,
    private readonly config: BrokerConfig,
    private readonly metadata: MetadataCache,
    private readonly partitions: PartitionTable,
  ) {}

  readonly handle: Handler<"controllerOrders"> = (orders, context) => {
    const { metadata } = this;
    if (context.broker?.brokerId !== orders.controllerId) {
      throw new ApiError(
        "CLUSTER_AUTHORIZATION_FAILED",
        `orders of controller ${orders.controllerId} are accepted from that broker only`,
      );
    }
    if (orders.brokerEpoch !== this.brokerEpoch()) {
      throw new ApiError(
        "STALE_BROKER_EPOCH",
        `the orders are for registration ${orders.brokerEpoch}, this broker is registered as ${this.brokerEpoch() ?? "nothing"}`,
      );
    }
    if (orders.controllerEpoch < metadata.controllerEpoch) {
      throw new ApiError(
        "NOT_CONTROLLER",
        `controller epoch ${orders.controllerEpoch} is over; the newest is ${metadata.controllerEpoch}`,
      );
    }
    metadata.controllerEpoch = orders.controllerEpoch;
    this.#apply(orders);
    return { body: {} };
  };

  #apply(orders: ControllerOrdersRequest): void {
    if (!orders.brokerConfigUnreadable && this.config.applyChanges(orders.brokerConfig)) this.partitions.reconfigure();
    this.metadata.apply(orders);
    for (const topicId of orders.deletedTopicIds) this.#delete(topicId);
    for (const topic of orders.topics) this.partitions.applyTopic(topic);
    if (orders.chunks > 0) this.#onImageChunk(orders);
  }

  /**
   * Once an image is complete, what it does not name is not ours: roles end, logs are set aside. Nothing is deleted on the
   * word of an image; a topic that was deleted while this broker was away leaves its renamed logs to the operator. An image
   * that lacks what the controller could not read says nothing about what it does not name.
   */
  #onImageChunk(orders: ControllerOrdersRequest): void {
    if (orders.chunk === 1)
      this.#image = { controllerEpoch: orders.controllerEpoch, topicIds: new Set(), isIncomplete: false, nextChunk: 1 };
    const image = this.#image;
    if (image === undefined || image.controllerEpoch !== orders.controllerEpoch || image.nextChunk !== orders.chunk) {
      this.#image = undefined;
      return;
    }
    for (const topic of orders.topics) image.topicIds.add(topic.topicId);
    image.isIncomplete ||= orders.incomplete;
    image.nextChunk += 1;
    if (orders.chunk < orders.chunks) return;
    this.#image = undefined;
    this.metadata.isComplete = true;
    this.metadata.lacksUnreadable = image.isIncomplete;
    if (image.isIncomplete) {
      this.logger.warn(
        "the controller cannot read all topics in ZooKeeper; those that it does not name stay as they are",
      );
      return;
    }
    for (const topic of [...this.metadata.topics()]) {
      if (image.topicIds.has(topic.topicId)) continue;
      this.metadata.forget(topic.topicId);
      this.partitions.forgetTopic(topic.topicId, "the controller's image does not name the topic");
    }
    this.partitions
      .setStraysAside()
      .catch((error: unknown) =>
        this.logger.error(`logs that are not this broker's could not be set aside: ${reasonOf(error)}`),
      );
  }

  #delete(topicId: TopicId): void {
    this.partitions
      .deleteTopic(topicId)
      .catch((error: unknown) =>
        this.logger.error(`the logs of deleted topic ${topicId} could not be removed: ${reasonOf(error)}`),
      );
  }
}
