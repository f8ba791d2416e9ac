import { InvalidArgumentError } from "./errors.js";
import type { Acks, Partitioner, ProducerOptions } from "./options.js";
import { numberOption, refuseUnknownOptions, wordOption } from "./options.js";
import { partitionOfKey } from "./partitioner.js";

/** The options of a producer, checked and complete. */
export interface ProducerSettings {
  readonly acks: Acks;
  readonly idempotent: boolean;
  readonly lingerMs: number;
  readonly batchBytes: number;
  readonly bufferBytes: number;
  readonly deliveryTimeoutMs: number;
  readonly maxInFlight: number;
  readonly requestTimeoutMs: number;
  readonly partitioner: Partitioner;
}

const BATCH_BYTES = 128 * 1024;
const BUFFER_BYTES = 32 * 1024 * 1024;
const DELIVERY_TIMEOUT_MS = 120_000;
const IN_FLIGHT_MAX = 5;

const optionNames = [
  "acks",
  "idempotent",
  "lingerMs",
  "batchBytes",
  "bufferBytes",
  "deliveryTimeoutMs",
  "maxInFlight",
  "partitioner",
];

/** Throws InvalidArgumentError for what cannot work. */
export function producerSettings(options: ProducerOptions, requestTimeoutMs: number): ProducerSettings {
  refuseUnknownOptions("a producer", options, optionNames);
  const acks = wordOption("acks", options.acks, ["all", "leader", "none"], "all");
  const idempotent = options.idempotent ?? acks === "all";
  if (idempotent && acks !== "all") {
    throw new InvalidArgumentError(
      `idempotent is true with acks "${acks}"`,
      'use acks "all", or switch idempotent off and accept duplicates',
    );
  }
  return {
    acks,
    idempotent,
    lingerMs: numberOption("lingerMs", options.lingerMs, { min: 0, max: 60_000, defaultValue: 0 }),
    batchBytes: numberOption("batchBytes", options.batchBytes, {
      min: 1024,
      max: 8 * 1024 * 1024,
      defaultValue: BATCH_BYTES,
    }),
    bufferBytes: numberOption("bufferBytes", options.bufferBytes, { min: 1024, defaultValue: BUFFER_BYTES }),
    deliveryTimeoutMs: numberOption("deliveryTimeoutMs", options.deliveryTimeoutMs, {
      min: 1,
      defaultValue: DELIVERY_TIMEOUT_MS,
    }),
    maxInFlight: numberOption("maxInFlight", options.maxInFlight, {
      min: 1,
      max: idempotent ? IN_FLIGHT_MAX : 1000,
      defaultValue: IN_FLIGHT_MAX,
    }),
    requestTimeoutMs,
    partitioner: options.partitioner ?? partitionOfKey,
  };
}
