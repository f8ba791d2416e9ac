import type { Request } from "./messages.js";

/** The kinds of request: the names of the fields of `Request.body`. */
export type RequestKind = Exclude<keyof Request, "correlationId" | "records">;

export interface ApiKeyEntry {
  /** Field number of the body in Request and Response. */
  readonly key: number;
  /** Answered on every listener, or only to brokers on the inter-broker listener. */
  readonly audience: "everyone" | "brokers";
  /** A larger request frame is refused before it is allocated. */
  readonly frameBytesMax: number;
  /** More messages and strings than this anywhere in the body are refused before they are decoded. */
  readonly elementsMax: number;
}

const KIB = 1024;
const MIB = 1024 * KIB;

const control = (key: number): ApiKeyEntry => ({ key, audience: "everyone", frameBytesMax: MIB, elementsMax: 50_000 });
const data = (key: number): ApiKeyEntry => ({ key, audience: "everyone", frameBytesMax: 8 * MIB, elementsMax: 50_000 });
const brokers = (key: number): ApiKeyEntry => ({ key, audience: "brokers", frameBytesMax: MIB, elementsMax: 100_000 });

/** Every request there is. */
export const apiKeys: Readonly<Record<RequestKind, ApiKeyEntry>> = {
  handshake: { key: 2, audience: "everyone", frameBytesMax: 8 * KIB, elementsMax: 100 },
  metadata: control(3),
  produce: data(4),
  fetch: data(5),
  listOffsets: control(6),
  initProducerId: control(7),
  createTopics: control(16),
  deleteTopics: control(17),
  createPartitions: control(18),
  describeConfigs: control(19),
  alterConfigs: control(20),
  electLeaders: control(21),
  deleteRecords: control(22),
  controllerOrders: brokers(40),
  alterPartitions: brokers(41),
  controlledShutdown: brokers(42),
  describeReplicas: brokers(43),
};

/** What an unknown or not yet handshaken sender may send at most. */
export const UNTRUSTED_FRAME_BYTES_MAX = 8 * KIB;
/** A response is as large as its asker allowed, and a first batch over that limit is sent whole; this bounds it all. */
export const RESPONSE_FRAME_BYTES_MAX = 64 * MIB;

const kindsByKey = new Map<number, RequestKind>(
  (Object.keys(apiKeys) as RequestKind[]).map((kind) => [apiKeys[kind].key, kind]),
);

export function requestKindOf(key: number): RequestKind | undefined {
  return kindsByKey.get(key);
}
