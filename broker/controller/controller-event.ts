import type { PartitionKey } from "../../protocol/types.js";
import type { ReplicaReport } from "./leader-election.js";
import type { Suspect } from "./fast-fencing.js";

/** Everything that can happen to the controller. One is worked on at a time, to its end. */
export type ControllerEvent =
  /** The list of registered brokers changed, or may have. */
  | { readonly kind: "BrokersChanged" }
  /** These do not answer any more and are to be fenced. */
  | { readonly kind: "BrokersDead"; readonly suspects: readonly Suspect[] }
  /** Somebody may be able to lead who was not before. */
  | { readonly kind: "LeadersWanted" }
  /** Replicas said what they hold; none of them is certain. */
  | { readonly kind: "ReplicasDescribed"; readonly reports: ReadonlyMap<PartitionKey, readonly ReplicaReport[]> }
  /** Somebody knows, or seems to know, a newer controller. */
  | { readonly kind: "OfficeDoubted" }
  /** Leaders proposed in-sync replicas. */
  | { readonly kind: "IsrProposed" }
  /** It is time to give leadership back to preferred replicas. */
  | { readonly kind: "RebalanceDue" }
  /** It is time to look whether nodes that could not be read were repaired. */
  | { readonly kind: "RepairDue" }
  /** A request of an operator or of a stopping broker. `run` rejects as its work does, after its sender was told. */
  | { readonly kind: "Administration"; readonly run: () => Promise<void> };

/** What happened to the cluster goes before what somebody wants of it: elections never wait behind a thousand creations. */
const isUrgent: Readonly<Record<ControllerEvent["kind"], boolean>> = {
  BrokersChanged: true,
  BrokersDead: true,
  LeadersWanted: true,
  ReplicasDescribed: true,
  OfficeDoubted: true,
  IsrProposed: false,
  RebalanceDue: false,
  RepairDue: false,
  Administration: false,
};

/** Events that carry nothing: one that waits says it all. */
const isOnceEnough: Readonly<Record<ControllerEvent["kind"], boolean>> = {
  BrokersChanged: true,
  BrokersDead: false,
  LeadersWanted: true,
  ReplicasDescribed: false,
  OfficeDoubted: true,
  IsrProposed: true,
  RebalanceDue: true,
  RepairDue: true,
  Administration: false,
};

/**
 * The controller's events in the order in which they are worked on. Bounded by what makes them: each kind that carries
 * nothing waits at most once, a broker is suspected once at a time, and administration is counted by who adds it, and
 * removed when nobody waits for it any more.
 */
export class ControllerQueue {
  readonly #urgent: ControllerEvent[] = [];
  readonly #others: ControllerEvent[] = [];
  #wake: (() => void) | undefined;

  add(event: ControllerEvent): void {
    const lane = isUrgent[event.kind] ? this.#urgent : this.#others;
    if (isOnceEnough[event.kind] && lane.some(({ kind }) => kind === event.kind)) return;
    lane.push(event);
    this.#wake?.();
  }

  get length(): number {
    return this.#urgent.length + this.#others.length;
  }

  /** Takes an event back that waits. One that is being worked on, or that was worked on, is not affected. */
  remove(event: ControllerEvent): void {
    const lane = isUrgent[event.kind] ? this.#urgent : this.#others;
    const index = lane.indexOf(event);
    if (index >= 0) lane.splice(index, 1);
  }

  /** Resolves with the next event; with undefined when `wake` was called and there is none. */
  async next(): Promise<ControllerEvent | undefined> {
    if (this.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    return this.#urgent.shift() ?? this.#others.shift();
  }

  /** Lets a waiting `next` resolve. */
  wake(): void {
    this.#wake?.();
  }
}
