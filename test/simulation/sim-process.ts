import type { Env } from "../../common/env/env.js";
import type { Timer, Timers } from "../../common/env/time.js";
import { Label } from "./scheduler.js";
import type { Scheduler, SimEvent } from "./scheduler.js";

/** Timers run before everything else after a pause, as in Node's event loop (a stalled judge). */
export type CallbackKind = "timer" | "io";

/** `crash`: kill -9, the kernel lives on and closes what the process had. `power-cut`: the kernel is gone too. */
export type Death = "crash" | "power-cut";

/**
 * One incarnation of a simulated program: the unit that dies. Whatever may call into its code, be it a timer, a socket,
 * a file or ZooKeeper, comes through `guard`, `schedule` or `arrive`, and each such call is one turn of its event loop:
 * - dead: the call is cut. Promises it waits for stay pending for ever.
 * - paused or busy: the calls pile up, and afterwards run one a turn, overdue timers first.
 */
export class SimProcess {
  /** What the program is given. Set once by `Simulation.startProcess`, before any code of the program runs. */
  env!: Env;
  readonly name: string;
  readonly timers: Timers;
  #state: "running" | "paused" | "dead" = "running";
  #busyUntilMs = 0;
  readonly #overdueTimers: (() => void)[] = [];
  readonly #otherCalls: (() => void)[] = [];
  #catchingUp = false;
  readonly #deathHooks = new Set<(death: Death) => void>();
  readonly #labels = new Map<string, Label>();
  /** By path, then by what is done. */
  readonly #pathLabels = new Map<string, Map<string, Label>>();

  constructor(
    readonly scheduler: Scheduler,
    readonly hostName: string,
    readonly pid: number,
    /** For how long the machine was suspended so far: its monotonic clock and its timers stood still. */
    private readonly suspendedMs: () => number = () => 0,
  ) {
    this.name = `${hostName}#${pid}`;
    this.timers = {
      after: (delayMs, callback) => this.#timer(delayMs, callback),
      // A turn takes a little time; without that, code that polls with `soon` would stop the clock.
      soon: (callback) => void this.schedule(turnMs, "soon", callback),
      afterThisTurn: (callback) =>
        this.scheduler.afterThisTurn(() => {
          if (!this.dead) callback();
        }),
    };
  }

  get dead(): boolean {
    return this.#state === "dead";
  }

  /** It is paused: nothing that it should do in time can be expected. */
  get standsStill(): boolean {
    return this.#state === "paused";
  }

  /** This process's own time: later than the scheduler's while a call it made keeps it busy. */
  get nowMs(): number {
    return Math.max(this.scheduler.nowMs, this.#busyUntilMs);
  }

  /** Ends it as kill -9 does. */
  crash(): void {
    this.die("crash");
  }

  die(death: Death): void {
    if (this.dead) return;
    this.scheduler.note(`${this.name} dies: ${death}`);
    this.#state = "dead";
    this.#overdueTimers.length = 0;
    this.#otherCalls.length = 0;
    const hooks = [...this.#deathHooks];
    this.#deathHooks.clear();
    for (const hook of hooks) hook(death);
  }

  /** SIGSTOP: no callback runs until `resume`; clocks go on. */
  pause(): void {
    if (this.dead) return;
    this.scheduler.note(`${this.name} pauses`);
    this.#state = "paused";
  }

  /** SIGCONT. */
  resume(): void {
    if (this.#state !== "paused") return;
    this.scheduler.note(`${this.name} resumes`);
    this.#state = "running";
    this.#catchUpLater();
  }

  /** Blocks the event loop for so long, counted from the end of what blocks it now. */
  stall(durationMs: number): void {
    if (!this.dead) this.#busyUntilMs = this.nowMs + durationMs;
  }

  /** `callback`, bound to this incarnation. To be called from events of others (a simulated server, a device). */
  guard<Arguments extends unknown[]>(callback: (...args: Arguments) => void): (...args: Arguments) => void {
    return (...args) => this.arrive("io", () => callback(...args));
  }

  /** Calls into the program `delayMs` from now. Cancelling works until the event fires, not while the call is piled up. */
  schedule(delayMs: number, label: string, callback: () => void, kind: CallbackKind = "io", detail = 0): SimEvent {
    return this.scheduler.after(delayMs, this.labelled(label), () => this.arrive(kind, callback), detail);
  }

  /** A label that says whose the event is. Most are asked for again and again. */
  labelled(label: string): Label {
    return this.#labels.get(label) ?? kept(this.#labels, label, new Label(`${this.name} ${label}`));
  }

  /** The same of what is done with a file. */
  labelledPath(operation: string, path: string): Label {
    const labels = this.#pathLabels.get(path) ?? kept(this.#pathLabels, path, new Map<string, Label>());
    return labels.get(operation) ?? kept(labels, operation, new Label(`${this.name} ${operation} ${path}`));
  }

  /** Calls into the program now, or when it can. The caller is an event of its own. */
  arrive(kind: CallbackKind, callback: () => void): void {
    if (this.dead) return;
    this.scheduler.touch(this);
    const mustWait = this.#state === "paused" || this.nowMs > this.scheduler.nowMs || this.#hasPile();
    if (!mustWait) {
      callback();
      return;
    }
    (kind === "timer" ? this.#overdueTimers : this.#otherCalls).push(callback);
    this.#catchUpLater();
  }

  /** A promise that `callback` settles with its result, `delayMs` from now; never, if the process dies before. */
  result<T>(delayMs: number, label: string, callback: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.schedule(delayMs, label, () => {
        try {
          resolve(callback());
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }

  /** Calls `hook` when the process dies, in the same turn. Returns its removal. */
  onDeath(hook: (death: Death) => void): () => void {
    this.#deathHooks.add(hook);
    return () => this.#deathHooks.delete(hook);
  }

  #timer(delayMs: number, callback: () => void): Timer {
    return new SimTimer(this, this.suspendedMs, delayMs, callback);
  }

  #hasPile(): boolean {
    return this.#overdueTimers.length > 0 || this.#otherCalls.length > 0;
  }

  #catchUpLater(): void {
    if (this.#catchingUp || this.#state !== "running" || !this.#hasPile()) return;
    this.#catchingUp = true;
    this.scheduler.after(this.nowMs - this.scheduler.nowMs, `${this.name} catches up`, () => {
      this.#catchingUp = false;
      if (this.#state !== "running") return;
      this.scheduler.touch(this);
      // It may have become busy in the meantime.
      if (this.nowMs <= this.scheduler.nowMs) (this.#overdueTimers.shift() ?? this.#otherCalls.shift())?.();
      this.#catchUpLater();
    });
  }
}

class SimTimer implements Timer {
  #cancelled = false;
  #dueMs: number;
  #suspendedMs: number;
  #event: SimEvent;

  constructor(
    private readonly process: SimProcess,
    private readonly suspendedMs: () => number,
    delayMs: number,
    private readonly callback: () => void,
  ) {
    // Node has no shorter timeout than a millisecond.
    this.#dueMs = Math.max(1, delayMs) + process.nowMs;
    this.#suspendedMs = suspendedMs();
    this.#event = this.#wait();
  }

  cancel(): void {
    this.#cancelled = true;
    this.#event.cancel();
  }

  #wait(): SimEvent {
    const { process } = this;
    return process.schedule(this.#dueMs - process.scheduler.nowMs, "timer", this.#onDue, "timer");
  }

  readonly #onDue = (): void => {
    if (this.#cancelled) return;
    // What was left of it when the machine was suspended is left of it now.
    const stoodStillMs = this.suspendedMs() - this.#suspendedMs;
    if (stoodStillMs > 0) {
      this.#dueMs += stoodStillMs;
      this.#suspendedMs += stoodStillMs;
      this.#event = this.#wait();
    } else {
      this.callback();
    }
  };
}

/** Puts the value into a map that forgets all when it holds too much. */
function kept<T>(map: Map<string, T>, key: string, value: T): T {
  if (map.size >= KNOWN_MAX) map.clear();
  map.set(key, value);
  return value;
}

const KNOWN_MAX = 1000;

/** What one turn of an event loop takes at least. */
const turnMs = 0.001;
