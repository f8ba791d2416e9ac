import type { Clock } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { errorNameOf } from "../../protocol/error-codes.js";
import type { IsrAnswer } from "../../protocol/messages.js";
import type { BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, TopicId } from "../../protocol/types.js";
import type { Log } from "../log/index.js";
import type { DeadlineWheel } from "./deadline-wheel.js";
import type { Followers } from "./followers.js";
import type { IsrState } from "./isr.js";
import { laggingMembers, maximalIsr, mayJoin, sameMembers } from "./isr.js";
import type { IsrProposals, ProposalListener } from "./isr-proposals.js";
import type { CommittedState } from "./partition-state.js";
import { committedState } from "./partition-state.js";
import type { ReplicaActivity } from "./replica-activity.js";

/** What the leader of a partition needs of its broker to look after the ISR. */
export interface IsrMembershipParts {
  readonly brokerId: BrokerId;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly wheel: DeadlineWheel;
  readonly proposals: IsrProposals;
  readonly activity: ReplicaActivity;
  /** The epoch under which this broker is registered now; undefined: it is not. */
  readonly brokerEpoch: () => BrokerEpoch | undefined;
  /** The epoch under which a broker is registered, as the controller said last. */
  readonly registeredEpochOf: (brokerId: BrokerId) => BrokerEpoch | undefined;
  /** Of the controller that this broker heard of last. */
  readonly controllerEpoch: () => ControllerEpoch;
  readonly replicaLagTimeMaxMs: () => number;
}

/** The partition whose ISR it is, and the leadership during which it is looked after. */
export interface LedPartition {
  readonly name: string;
  readonly topicId: TopicId;
  readonly partition: number;
  readonly log: Log;
  readonly epoch: LeaderEpoch;
  /** Where the first record of the epoch goes. */
  readonly epochStart: Offset;
  readonly followers: Followers;
  /** As the controller committed it last. */
  readonly committed: CommittedState;
  /** False once the leadership is over: nothing is done any more then. */
  readonly isCurrent: boolean;
  /** Takes over a newer state; may end the leadership. */
  applyState(state: CommittedState): void;
  /** The replicas to wait for are others now. */
  onMembersChanged(): void;
}

/** How often a leader looks whether what a refusal rests on has changed. It only looks: nothing is sent or logged. */
const LOOK_AGAIN_MS = 200;
/**
 * After so long it asks once more though nothing has changed that it knows of: who is about to stop, or cannot be reached,
 * the controller alone knows.
 */
const ASK_AGAIN_MS = 5_000;

/**
 * Who is in the ISR, from its leader's side: followers that caught up are proposed to join, those that lag, cannot write or
 * have lost records are proposed to leave, and a leader that cannot go on itself proposes an ISR without itself. One
 * proposal at a time; it is pending until the partition epoch grows.
 */
export class IsrMembership {
  readonly #parts: IsrMembershipParts;
  readonly #led: LedPartition;
  #state: IsrState;
  /** What the controller refused, by the facts it rests on, and when: it would refuse the same again. */
  readonly #refused = new Map<string, number>();
  #looksAgain = false;
  /** Older copies of a refused proposal are not void yet, and that can be asked for again. */
  #mayVoidCopies = false;

  constructor(parts: IsrMembershipParts, led: LedPartition, isr: readonly BrokerId[]) {
    this.#parts = parts;
    this.#led = led;
    this.#state = { kind: "committed", isr: new Set(isr) };
  }

  get state(): IsrState {
    return this.#state;
  }

  /** As the controller committed it. */
  get members(): ReadonlySet<BrokerId> {
    return this.#state.isr;
  }

  /** The committed members beside this broker. */
  get otherMembers(): BrokerId[] {
    return [...this.members].filter((id) => id !== this.#parts.brokerId);
  }

  /** A follower that lags for too long is proposed to leave; nobody is accused of a silence before `judgeAwakeSinceMs`. */
  maybeShrink(judgeAwakeSinceMs: number): void {
    if (this.#state.kind === "pending") return;
    const lagMaxMs = this.#parts.replicaLagTimeMaxMs();
    const lagging = laggingMembers({
      isr: this.members,
      self: this.#parts.brokerId,
      nowMs: this.#parts.clock.monotonicMs(),
      judgeAwakeSinceMs,
      lagMaxMs,
      caughtUpMs: (id) => this.#caughtUpMs(id),
    });
    if (lagging.length === 0) return;
    const proposed = new Set([...this.members].filter((id) => !lagging.includes(id)));
    this.#propose(proposed, `${lagging.join(",")} did not catch up for ${lagMaxMs} ms`);
  }

  /** A follower that has caught up is proposed to join. */
  maybeExpand(brokerId: BrokerId): void {
    if (this.#state.kind === "pending" || this.members.has(brokerId)) return;
    const { followers, log, epochStart } = this.#led;
    const follower = followers.get(brokerId);
    // Its position may be one of long ago: only who keeps up joins.
    const nowMs = this.#parts.clock.monotonicMs();
    if (follower === undefined || follower.damaged || follower.diskFull) return;
    if (nowMs - this.#caughtUpMs(brokerId) > this.#parts.replicaLagTimeMaxMs()) return;
    const { logStartOffset, highWatermark } = log;
    const leader = { logStartOffset, highWatermark, epochStart, durability: log.settings.durability };
    if (!mayJoin(follower, leader)) return;
    this.#propose(new Set([...this.members, brokerId]), `${brokerId} has caught up`);
  }

  /** A leader that cannot write, or has lost records, lets another one lead that is in sync. */
  maybeResign(): void {
    const { log, followers } = this.#led;
    const isDamaged = log.damage.length > 0;
    if (this.#state.kind === "pending" || (!isDamaged && !log.isFull)) return;
    const others = this.otherMembers.filter((id) => {
      const follower = followers.get(id);
      return follower === undefined || !(follower.damaged || follower.diskFull);
    });
    if (others.length === 0) return;
    const why = isDamaged ? "records are damaged on its disk" : "its disk is full";
    this.#propose(new Set(others), `${why}, and another replica is to lead`);
  }

  /** A follower whose disk is full is not to be waited for. */
  maybeExpel(brokerId: BrokerId): void {
    if (this.#state.kind === "committed" && this.members.has(brokerId))
      this.#propose(this.#membersWithout(brokerId), `the disk of ${brokerId} is full`);
  }

  /** Every member has synced what may have been acknowledged before it was: the controller may rely on it from now on. */
  maybeConfirmSync(): void {
    // Who is eligible and no member does not say what it has synced.
    if (this.#state.kind === "pending" || this.#led.committed.elr.length > 0) return;
    this.#propose(this.members, "they have synced all that was acknowledged before", true);
  }

  /**
   * Whether a follower that has lost records may cut them off from there on and fetch them again: only once it counts
   * neither as in sync nor as eligible, and nothing is on its way that would change that. Until then this asks for it.
   */
  mayRepair(brokerId: BrokerId, damagedFrom: Offset): boolean {
    if (this.#state.kind === "pending") return false;
    const isCounted = this.members.has(brokerId) || this.#led.committed.elr.includes(brokerId);
    // What it would cut off may be all that is left of what is damaged here.
    if (!isCounted) return this.#led.log.damage.every((range) => range.to <= damagedFrom);
    this.#propose(this.#membersWithout(brokerId), `records are damaged on the disk of ${brokerId}`);
    return false;
  }

  /** The controller has committed another state in this leader epoch. */
  onCommitted(state: CommittedState): void {
    const isr = new Set(state.isr);
    if (this.#state.kind === "committed" && sameMembers(isr, this.members)) return;
    const before = maximalIsr(this.#state);
    this.#state = { kind: "committed", isr };
    this.#mayVoidCopies = false;
    this.#parts.proposals.withdraw(this.#led);
    if (!sameMembers(before, isr)) {
      this.#parts.logger.info(`${this.#led.name}: in-sync replicas are ${state.isr.join(",")}`, {
        leaderEpoch: this.#led.epoch,
        partitionEpoch: state.partitionEpoch,
      });
    }
    this.#led.onMembersChanged();
    this.maybeExpandAny();
  }

  /** The leadership is over. */
  end(): void {
    this.#parts.proposals.withdraw(this.#led);
  }

  /**
   * Whoever may join is proposed. An idle partition does not travel in fetches, so a follower that was silent for too long and
   * fetches again may say nothing of it; it is found by looking.
   */
  maybeExpandAny(): void {
    for (const id of this.#led.followers.ids) this.maybeExpand(id);
  }

  #membersWithout(brokerId: BrokerId): ReadonlySet<BrokerId> {
    return new Set([...this.members].filter((id) => id !== brokerId));
  }

  #caughtUpMs(brokerId: BrokerId): number {
    const { followers, log } = this.#led;
    return followers.caughtUpMs(brokerId, log.logEndOffset, this.#parts.activity.lastFetchMs(brokerId));
  }

  // -- Proposals ------------------------------------------------------------------------------------------------------

  #propose(proposed: ReadonlySet<BrokerId>, why: string, synced = false): void {
    const { name, epoch, committed } = this.#led;
    const isr = this.members;
    const facts = this.#factsOf(proposed, synced);
    if (this.#isRefused(facts)) return;
    this.#state = { kind: "pending", isr, proposed };
    this.#parts.logger.info(
      `${name}: proposes in-sync replicas ${[...proposed].join(",")} instead of ${[...isr].join(",")}, because ${why}`,
      { leaderEpoch: epoch, partitionEpoch: committed.partitionEpoch },
    );
    this.#send(proposed, (answer, onlyCopy) => this.#onAnswer(answer, onlyCopy, facts), synced);
  }

  /** What the controller's answer to these members rests on, as far as it is known here. */
  #factsOf(members: ReadonlySet<BrokerId>, synced = false): string {
    const { committed } = this.#led;
    const processes = [...members].map((id) => [id, this.#memberEpoch(id), this.#parts.registeredEpochOf(id)]);
    return JSON.stringify([
      this.#parts.controllerEpoch(),
      committed.partitionEpoch,
      processes,
      this.#damagedIds,
      synced,
    ]);
  }

  #isRefused(facts: string): boolean {
    const refusedMs = this.#refused.get(facts);
    return refusedMs !== undefined && this.#parts.clock.monotonicMs() - refusedMs < ASK_AGAIN_MS;
  }

  #send(members: ReadonlySet<BrokerId>, onAnswer: ProposalListener, synced = false): void {
    const { topicId, partition, epoch, committed } = this.#led;
    this.#parts.proposals.propose(
      {
        topicId,
        partition,
        leaderEpoch: epoch,
        partitionEpoch: committed.partitionEpoch,
        isr: [...members].map((brokerId) => ({ brokerId, brokerEpoch: this.#memberEpoch(brokerId) })),
        damaged: this.#damagedIds,
        synced,
      },
      onAnswer,
    );
  }

  /** Replicas that have lost records. */
  get #damagedIds(): BrokerId[] {
    const { followers, log } = this.#led;
    return [...followers.damagedIds, ...(log.damage.length > 0 ? [this.#parts.brokerId] : [])];
  }

  /**
   * The process that is meant by a member. One that never fetched under this leader has its seat from the leader before; it
   * is named as it is registered. "0" is nobody.
   */
  #memberEpoch(brokerId: BrokerId): BrokerEpoch {
    if (brokerId === this.#parts.brokerId) return this.#parts.brokerEpoch() ?? "0";
    const seen = this.#led.followers.get(brokerId)?.brokerEpoch;
    return seen ?? this.#parts.registeredEpochOf(brokerId) ?? "0";
  }

  #onAnswer(answer: IsrAnswer, onlyCopy: boolean, facts: string): void {
    if (!this.#led.isCurrent || this.#tookOver(answer)) return;
    if (answer.error !== null) {
      this.#parts.logger.info(
        `${this.#led.name}: the controller refused the proposed in-sync replicas: ${errorNameOf(answer.error.code)}: ${answer.error.message}`,
      );
      if (!onlyCopy) {
        this.#noteRefused(facts);
        this.#voidCopies();
        return;
      }
    }
    // Refused, or equal to what the controller has: it would say the same again.
    this.#noteRefused(facts);
    this.#state = { kind: "committed", isr: this.members };
    this.#led.onMembersChanged();
  }

  /**
   * An earlier copy of a refused proposal may still be on its way and be granted when it arrives, so the proposal keeps
   * counting. Proposing what is committed makes the controller begin a new partition epoch, and older copies void.
   */
  #voidCopies(): void {
    const facts = this.#factsOf(this.members);
    this.#mayVoidCopies = false;
    this.#send(this.members, (answer) => {
      if (!this.#led.isCurrent || this.#tookOver(answer)) return;
      this.#mayVoidCopies = true;
      this.#noteRefused(facts);
    });
  }

  /** Whether the answer brought a newer state. */
  #tookOver(answer: IsrAnswer): boolean {
    if (answer.state === null || answer.state.partitionEpoch <= this.#led.committed.partitionEpoch) return false;
    this.#led.applyState(committedState(answer.state));
    return true;
  }

  #noteRefused(facts: string): void {
    this.#refused.set(facts, this.#parts.clock.monotonicMs());
    this.#lookAgainLater();
  }

  #lookAgainLater(): void {
    if (this.#looksAgain) return;
    this.#looksAgain = true;
    this.#parts.wheel.after(LOOK_AGAIN_MS, () => {
      this.#looksAgain = false;
      if (this.#led.isCurrent) this.#lookAgain();
    });
  }

  /** Proposes once more what was refused and may be granted now. */
  #lookAgain(): void {
    for (const facts of [...this.#refused.keys()]) if (!this.#isRefused(facts)) this.#refused.delete(facts);
    if (this.#state.kind === "committed") {
      this.maybeExpandAny();
      this.maybeResign();
      this.#led.onMembersChanged();
    } else if (this.#mayVoidCopies && !this.#isRefused(this.#factsOf(this.members))) {
      this.#voidCopies();
    }
    if (this.#refused.size > 0) this.#lookAgainLater();
  }
}
