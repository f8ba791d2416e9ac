import { hashText, SimRandom } from "./sim-random.js";

/**
 * Virtual time and everything that happens in it. One queue holds all events, ordered by time and then by the order in
 * which they were scheduled; `run` takes the first, sets the clock to its time, calls it, lets every promise it settled
 * run to the end, checks the invariants, and goes on. Nothing else moves a simulated world, so
 * the same seed gives the same run, event for event, which `traceHash` shows.
 *
 * Simulated code must not wait for anything real (files, sockets, the thread pool): its completion order is not ours.
 */
export class Scheduler {
  readonly seed: number;
  readonly random: SimRandom;
  readonly #events: SimEvent[] = [];
  readonly #checks: (() => void)[] = [];
  /** What is called when the event of now has returned. */
  readonly #turnCalls: (() => void)[] = [];
  readonly #lines: string[] | undefined;
  #nowMs = 0;
  #sequence = 0;
  #eventCount = 0;
  #sameInstant = 0;
  #hash = 0;
  #running = false;
  #rejection: { readonly reason: unknown } | undefined;
  readonly #touched: object[] = [];

  constructor(options: SchedulerOptions) {
    this.seed = options.seed;
    this.random = new SimRandom(options.seed);
    this.#lines = options.keepTrace ? [] : undefined;
  }

  /** Processes whose code has run since the last checks: what they hold may have changed, and nothing else. */
  get touched(): readonly object[] {
    return this.#touched;
  }

  /** Code of this process runs. */
  touch(process: object): void {
    // One event calls into one process, or two.
    if (!this.#touched.includes(process)) this.#touched.push(process);
  }

  /** Virtual milliseconds since the beginning, with a fraction. */
  get nowMs(): number {
    return this.#nowMs;
  }

  get eventCount(): number {
    return this.#eventCount;
  }

  /** Over the labels and times of all events so far. Two runs that differ in it did not do the same. */
  get traceHash(): number {
    return this.#hash >>> 0;
  }

  /** The events so far as readable lines; empty unless `keepTrace`. */
  get trace(): readonly string[] {
    return this.#lines ?? [];
  }

  /**
   * Calls `action` as an event of its own, `delayMs` from now. Label and detail name it in the trace: what often happens
   * has a `Label` that was made before, and what differs each time is a number beside it.
   */
  after(delayMs: number, label: string | Label, action: () => void, detail = 0): SimEvent {
    const event = new SimEvent(this.#nowMs + Math.max(0, delayMs), this.#sequence, label, detail, action);
    this.#sequence += 1;
    this.#push(event);
    return event;
  }

  /** Calls `callback` when the event of now has returned, before the promises that it settled: as `process.nextTick` does. */
  afterThisTurn(callback: () => void): void {
    this.#turnCalls.push(callback);
  }

  /** Adds a line to the trace without an event: a fault, a decision of the test. */
  note(label: string): void {
    this.#record(label, 0);
  }

  /** Calls `check` after every event; it throws when an invariant is broken, which ends the run. Returns its removal. */
  afterEachEvent(check: () => void): () => void {
    this.#checks.push(check);
    return () => {
      const index = this.#checks.indexOf(check);
      if (index >= 0) this.#checks.splice(index, 1);
    };
  }

  /** Runs all events of the next `durationMs` and sets the clock to the end of it. */
  async run(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    await this.#drive(
      () => false,
      endMs,
      () => undefined,
    );
    this.#nowMs = endMs;
  }

  /**
   * Runs until `condition` holds, which is asked after each event, or no more often than every `everyMs`; fails after
   * `limitMs` of virtual time.
   */
  async runUntil(condition: () => boolean, limitMs: number, what = "the condition", everyMs = 0): Promise<void> {
    let nextMs = this.#nowMs;
    const asked = (): boolean => {
      if (this.#nowMs < nextMs) return false;
      nextMs = this.#nowMs + everyMs;
      return condition();
    };
    await this.#drive(everyMs === 0 ? condition : asked, this.#nowMs + limitMs, () => {
      throw this.failure(`${what} did not come true within ${limitMs} ms`);
    });
  }

  /** Runs until `work` settles, and settles like it; fails after `limitMs` of virtual time. */
  async complete<T>(work: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    work.then(settle, settle);
    await this.runUntil(() => settled, limitMs, "the awaited promise");
    return work;
  }

  /** An error that says how to see this run again. */
  failure(sentence: string, cause?: unknown): SimulationFailure {
    return new SimulationFailure(
      `${sentence} [seed ${this.seed}, at ${this.#nowMs.toFixed(3)} ms, event ${this.#eventCount}]`,
      {
        cause,
      },
    );
  }

  async #drive(condition: () => boolean, endMs: number, onLimit: () => void): Promise<void> {
    if (this.#running)
      throw new Error("The scheduler is already running: drive it from the test only, one call at a time.");
    this.#running = true;
    realProcess.on("unhandledRejection", this.#onRejection);
    try {
      while (!(await inMacrotask(() => this.#runSome(condition, endMs, onLimit))));
    } finally {
      this.#running = false;
      realProcess.removeListener("unhandledRejection", this.#onRejection);
    }
  }

  /**
   * Runs some events, each to the end of all promises that it settles. Returns whether there is nothing more to do. To be
   * called outside of any promise's job, or the promises would wait for its end.
   */
  #runSome(condition: () => boolean, endMs: number, onLimit: () => void): boolean {
    // What the test itself started before this call may have promises to run.
    this.#settle();
    for (let count = 0; count < eventsInOneGo; count += 1) {
      if (this.#holds(condition)) return true;
      const event = this.#next(endMs);
      if (event === undefined) {
        this.#nowMs = endMs;
        onLimit();
        return true;
      }
      this.#step(event);
    }
    return false;
  }

  /** The next event that still is to happen, taken from the queue; undefined when there is none before the end. */
  #next(endMs: number): SimEvent | undefined {
    for (let event = this.#events[0]; event !== undefined; event = this.#events[0]) {
      if (event.timeMs > endMs && !event.cancelled) return undefined;
      this.#pop();
      if (!event.cancelled) return event;
    }
    return undefined;
  }

  #step(event: SimEvent): void {
    this.#sameInstant = event.timeMs === this.#nowMs ? this.#sameInstant + 1 : 0;
    if (this.#sameInstant > sameInstantMax)
      throw this.failure(`time stands still: ${event.label} and others repeat for ever`);
    this.#nowMs = event.timeMs;
    this.#eventCount += 1;
    this.#record(event.named, event.detail);
    try {
      event.fire();
      this.#settle();
    } catch (error) {
      throw this.failure(`${event.label} threw: ${String(error)}`, error);
    }
  }

  /** Runs what is to follow the turn, and all jobs of promises, to the end. Node's own queue costs several times as much. */
  #settle(): void {
    const calls = this.#turnCalls;
    do {
      for (let index = 0; index < calls.length; index += 1) (calls[index] as () => void)();
      calls.length = 0;
      settlePromises();
    } while (calls.length > 0);
  }

  /** Looks at what the last event left behind. */
  #holds(condition: () => boolean): boolean {
    if (this.#rejection !== undefined) {
      const { reason } = this.#rejection;
      this.#rejection = undefined;
      throw this.failure(`a promise was rejected and nobody looked: ${String(reason)}`, reason);
    }
    try {
      for (const check of this.#checks) check();
    } catch (error) {
      throw this.failure(`an invariant is broken: ${String(error)}`, error);
    }
    this.#touched.length = 0;
    return condition();
  }

  readonly #onRejection = (reason: unknown): void => {
    this.#rejection ??= { reason };
  };

  #record(label: string | Label, detail: number): void {
    const mixed = Math.imul(this.#hash, 31) + Math.floor(this.#nowMs * 1000) + Math.imul(detail, 0x9e3779b1);
    const hash = typeof label === "string" ? hashText(label, 0) : label.hash;
    // As a small integer: any other number would be an object made for each event.
    this.#hash = Math.imul(mixed ^ hash, 0x01000193);
    this.#lines?.push(`${this.#nowMs.toFixed(3)} ${String(label)}${detail === 0 ? "" : ` ${detail}`}`);
  }

  // A binary heap: the parent of the event at i stands at (i - 1) / 2 and comes before it.

  #push(event: SimEvent): void {
    this.#events.push(event);
    this.#rise(this.#events.length - 1, event);
  }

  #pop(): void {
    const heap = this.#events;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    // What stood last mostly belongs far down again: its place is looked for from below.
    let index = 0;
    for (let child = 1; child < heap.length; child = 2 * index + 1) {
      if (child + 1 < heap.length && (heap[child + 1] as SimEvent).isBefore(heap[child] as SimEvent)) child += 1;
      heap[index] = heap[child] as SimEvent;
      index = child;
    }
    this.#rise(index, last);
  }

  /** Puts the event at `index`, where there is room, or above. */
  #rise(index: number, event: SimEvent): void {
    const heap = this.#events;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent] as SimEvent;
      if (above.isBefore(event)) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = event;
  }
}

export interface SchedulerOptions {
  readonly seed: number;
  /** Keeps a readable line for each event; costs memory. */
  readonly keepTrace?: boolean;
}

/** What events of one kind are called in the trace. What happens often has one that is made once. */
export class Label {
  readonly hash: number;

  constructor(readonly text: string) {
    this.hash = hashText(text, 0);
  }

  toString(): string {
    return this.text;
  }
}

/** Something that will happen. */
export class SimEvent {
  #action: (() => void) | undefined;

  constructor(
    readonly timeMs: number,
    private readonly sequence: number,
    readonly named: string | Label,
    readonly detail: number,
    action: () => void,
  ) {
    this.#action = action;
  }

  /** What it is called in the trace. */
  get label(): string {
    return String(this.named);
  }

  /** Idempotent; does nothing once the event has happened. */
  cancel(): void {
    this.#action = undefined;
  }

  get cancelled(): boolean {
    return this.#action === undefined;
  }

  fire(): void {
    const action = this.#action;
    this.#action = undefined;
    action?.();
  }

  isBefore(other: SimEvent): boolean {
    return this.timeMs < other.timeMs || (this.timeMs === other.timeMs && this.sequence < other.sequence);
  }
}

/** The run broke a promise, or did not get where the test wanted it. Says the seed. */
export class SimulationFailure extends Error {
  override readonly name = "SimulationFailure";
}

/** Events at one instant before it is taken for an endless loop. */
const sameInstantMax = 100_000;

/**
 * Jest gives tests a copy of `process` that no event ever reaches. `setImmediate` is Node's own even there, and the
 * function constructor of the realm it comes from evaluates in that realm, where `process` is the real one.
 */
export const realProcess = (setImmediate.constructor as FunctionConstructor)("return process")() as NodeJS.Process;

/** Events before the real event loop has a turn: Jest's own timers live there. */
const eventsInOneGo = 5000;

/**
 * Runs all jobs of promises and `nextTick`, and those that they make, to the end. What Node itself does after each
 * callback of its event loop, without a turn of the loop, which costs more than most simulated events. Not documented, and
 * there since Node 0.x under this name; without it every event would have to wait for a `setImmediate`.
 */
const settlePromises = (realProcess as unknown as { readonly _tickCallback: () => void })._tickCallback.bind(
  realProcess,
);

/** Calls `work` from the event loop itself, outside of any promise's job. */
function inMacrotask<T>(work: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      try {
        resolve(work());
      } catch (error) {
        reject(error as Error);
      }
    });
  });
}
