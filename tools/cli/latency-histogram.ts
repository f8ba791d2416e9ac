/** Buckets a factor of two: a quantile is off by less than one part in so many. */
const STEPS = 64;
const MICROSECONDS = 1000;
const BUCKETS = 40 * STEPS;

/** Counts durations in buckets that grow with them, so that any number of them takes the same little memory. */
export class LatencyHistogram {
  readonly #buckets = new Uint32Array(BUCKETS);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  add(ms: number): void {
    const microseconds = Math.max(1, ms * MICROSECONDS);
    const bucket = Math.min(BUCKETS - 1, Math.floor(Math.log2(microseconds) * STEPS));
    this.#buckets[bucket] = (this.#buckets[bucket] as number) + 1;
    this.#count += 1;
    this.#sumMs += ms;
    this.#maxMs = Math.max(this.#maxMs, ms);
  }

  get count(): number {
    return this.#count;
  }

  get mean(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count;
  }

  get max(): number {
    return this.#maxMs;
  }

  /** The duration, in ms, that this share of all does not exceed; 0 when there are none. */
  quantile(share: number): number {
    const rank = Math.ceil(share * this.#count);
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS && rank > 0; bucket += 1) {
      seen += this.#buckets[bucket] as number;
      if (seen >= rank) return Math.min(this.#maxMs, 2 ** ((bucket + 1) / STEPS) / MICROSECONDS);
    }
    return this.#maxMs;
  }
}
