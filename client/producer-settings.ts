import { reasonOf } from "../common/logger.js";
import { booleanOption, checkOptions, INT32_MAX, numberOption, shown, wordOption } from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";
import type { Acks, Partitioner, ProducerOptions } from "./options.js";
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
const LINGER_MS_MAX = 60_000;
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
  checkOptions("a producer", options, optionNames);
  const acks = wordOption("acks", options.acks, ["all", "leader", "none"], "all");
  const idempotent = booleanOption("idempotent", options.idempotent, acks === "all");
  if (idempotent && acks !== "all") {
    throw new InvalidArgumentError(
      `idempotent is true with acks "${acks}"`,
      'use acks "all", or switch idempotent off and accept duplicates',
    );
  }
  const lingerMs = numberOption("lingerMs", options.lingerMs, { min: 0, max: LINGER_MS_MAX, defaultValue: 0 });
  const deliveryTimeoutMs = numberOption("deliveryTimeoutMs", options.deliveryTimeoutMs, {
    min: 1,
    defaultValue: DELIVERY_TIMEOUT_MS,
  });
  if (deliveryTimeoutMs <= lingerMs) {
    throw new InvalidArgumentError(
      `deliveryTimeoutMs is ${deliveryTimeoutMs} with lingerMs ${lingerMs}: a record would be given up before it is sent`,
      "raise deliveryTimeoutMs, or lower lingerMs",
    );
  }
  return {
    acks,
    idempotent,
    lingerMs,
    batchBytes: numberOption("batchBytes", options.batchBytes, {
      min: 1024,
      max: 8 * 1024 * 1024,
      defaultValue: BATCH_BYTES,
    }),
    bufferBytes: numberOption("bufferBytes", options.bufferBytes, { min: 1024, defaultValue: BUFFER_BYTES }),
    deliveryTimeoutMs,
    maxInFlight: numberOption("maxInFlight", options.maxInFlight, {
      min: 1,
      max: idempotent ? IN_FLIGHT_MAX : 1000,
      defaultValue: IN_FLIGHT_MAX,
    }),
    // Brokers are told of it in 32 bits.
    requestTimeoutMs: Math.min(requestTimeoutMs, INT32_MAX),
    partitioner: checkedPartitioner(options.partitioner),
  };
}

/** One that chooses a partition that there is, or throws InvalidArgumentError. */
function checkedPartitioner(given: Partitioner | undefined): Partitioner {
  if (given === undefined) return partitionOfKey;
  if (typeof given !== "function") {
    throw new InvalidArgumentError(`partitioner is ${shown(given)}`, "give a function of key and partitionCount");
  }
  return (key, partitionCount) => {
    let partition: number;
    try {
      partition = given(key, partitionCount);
    } catch (cause) {
      throw new InvalidArgumentError(`the partitioner has thrown (${reasonOf(cause)})`, "correct the partitioner", {
        cause,
      });
    }
    if (Number.isSafeInteger(partition) && partition >= 0 && partition < partitionCount) return partition;
    throw new InvalidArgumentError(
      `the partitioner chose ${shown(partition)} of ${partitionCount} partitions`,
      `return a whole number from 0 to ${partitionCount - 1}`,
    );
  };
}
