import type { Random } from "../../common/env/time.js";

/**
 * Seeded chance (xoshiro128**, seeded by splitmix32), in plain number arithmetic. `stream(name)` derives an independent
 * generator from seed and name: a draw more in one stream shifts no other, so a change to one part of a run leaves the
 * rest as it was.
 */
export class SimRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(
    private readonly seed: number,
    private readonly name = "",
  ) {
    let state = hashText(name, (seed ^ Math.floor(seed / 2 ** 32)) >>> 0);
    const next = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let mixed = state ^ (state >>> 16);
      mixed = Math.imul(mixed, 0x21f0aaad);
      mixed ^= mixed >>> 15;
      mixed = Math.imul(mixed, 0x735a2d97);
      return (mixed ^ (mixed >>> 15)) >>> 0;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    // All four zero is the one state the generator never leaves.
    this.#d = next() | 1;
  }

  /** The generator of this name below this one. Asked twice, it begins anew: keep it. */
  stream(name: string): SimRandom {
    return new SimRandom(this.seed, `${this.name}/${name}`);
  }

  /** Uniform in [0, 2^32). */
  word(): number {
    const scrambled = Math.imul(this.#b, 5);
    const result = Math.imul((scrambled << 7) | (scrambled >>> 25), 9) >>> 0;
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = (this.#d << 11) | (this.#d >>> 21);
    return result;
  }

  float(): number {
    return ((this.word() >>> 5) * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53;
  }

  below(bound: number): number {
    return Math.floor(this.float() * bound);
  }

  /** True in `share` (0 to 1) of all draws. */
  chance(share: number): boolean {
    return this.float() < share;
  }

  /** Exponentially distributed, cut at ten times the mean: mostly short, sometimes long. */
  delayMs(meanMs: number): number {
    return meanMs * Math.min(10, -Math.log(1 - this.float()));
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.word() >>> 24);
  }

  uuid(): string {
    const bytes = this.bytes(16);
    bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }
}

/** FNV-1a over UTF-16 units, going on from `hash`. */
export function hashText(text: string, hash: number): number {
  let mixed = hash ^ 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) mixed = Math.imul(mixed ^ text.charCodeAt(index), 0x01000193);
  return mixed >>> 0;
}
