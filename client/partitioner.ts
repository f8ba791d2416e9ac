import { checkCount, checkNumber, INT32_MAX, shown } from "./arguments.js";
import { InvalidArgumentError } from "./errors.js";

/**
 * Which partition a record with a key belongs to: 32-bit MurmurHash2 with Kafka's seed, as Java's clients have it, so that
 * the same key lands in the same partition whichever of them wrote it.
 */

const SEED = 0x9747b28c;
const MULTIPLIER = 0x5bd1e995;
const SHIFT = 24;

/** The hash of the first `length` bytes (all of them by default), as a signed 32-bit number. Throws InvalidArgumentError. */
export function murmur2(data: Uint8Array, length: number = data?.length): number {
  checkCount("murmur2", arguments.length, 2);
  if (!(data instanceof Uint8Array)) throw new InvalidArgumentError(`data is ${shown(data)}`, "give a Uint8Array");
  checkNumber("length", length, { min: 0, max: data.length });
  let hash = SEED ^ length;
  const wordsEnd = length & ~3;
  for (let at = 0; at < wordsEnd; at += 4) {
    let word =
      (data[at] as number) |
      ((data[at + 1] as number) << 8) |
      ((data[at + 2] as number) << 16) |
      ((data[at + 3] as number) << 24);
    word = Math.imul(word, MULTIPLIER);
    word ^= word >>> SHIFT;
    hash = Math.imul(hash, MULTIPLIER) ^ Math.imul(word, MULTIPLIER);
  }
  const rest = length - wordsEnd;
  if (rest === 3) hash ^= (data[wordsEnd + 2] as number) << 16;
  if (rest >= 2) hash ^= (data[wordsEnd + 1] as number) << 8;
  if (rest >= 1) hash = Math.imul(hash ^ (data[wordsEnd] as number), MULTIPLIER);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, MULTIPLIER);
  return hash ^ (hash >>> 15);
}

/** A text key of up to this many code units is hashed without allocating. */
const SCRATCH_UNITS = 256;
const scratch = Buffer.alloc(SCRATCH_UNITS * 3);

/** The partition of a key among `partitionCount`. Text is hashed as UTF-8. Throws InvalidArgumentError. */
export function partitionOfKey(key: Uint8Array | string, partitionCount: number): number {
  checkCount("partitionOfKey", arguments.length, 2);
  if (typeof key !== "string" && !(key instanceof Uint8Array)) {
    throw new InvalidArgumentError(`a key is ${shown(key)}`, "give text or a Uint8Array");
  }
  checkNumber("partitionCount", partitionCount, { min: 1, max: INT32_MAX });
  let hash: number;
  if (typeof key !== "string") hash = murmur2(key);
  else if (key.length <= SCRATCH_UNITS) hash = murmur2(scratch, scratch.write(key));
  else hash = murmur2(Buffer.from(key));
  return (hash & 0x7fffffff) % partitionCount;
}
