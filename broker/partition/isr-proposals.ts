import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { Logger } from "../../common/logger.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError, errorNameOf } from "../../protocol/error-codes.js";
import type { AlterPartitionsRequest, AlterPartitionsResponse, Init, IsrAnswer } from "../../protocol/messages.js";
import type {
  BrokerEpoch,
  BrokerId,
  LeaderEpoch,
  PartitionEpoch,
  PartitionKey,
  TopicPartition,
} from "../../protocol/types.js";
import { partitionKey } from "../../protocol/types.js";

export interface IsrProposal extends TopicPartition {
  readonly leaderEpoch: LeaderEpoch;
  /** The state that the proposal builds on. */
  readonly partitionEpoch: PartitionEpoch;
  /** Without the proposing leader: it gives its leadership up. */
  readonly isr: readonly { readonly brokerId: BrokerId; readonly brokerEpoch: BrokerEpoch }[];
  /** Replicas that have lost records. */
  readonly damaged: readonly BrokerId[];
  /** The members have synced what may have been acknowledged before it was. */
  readonly synced: boolean;
}

/**
 * How a proposal ended. `onlyCopy`: it was sent once, so a refusal is the whole truth; when an earlier copy may still be on
 * its way the proposal stays pending until the partition epoch grows.
 */
export type ProposalListener = (answer: IsrAnswer, onlyCopy: boolean) => void;

/** Sends to the controller, wherever it is; rejects with ApiError or TransportError. */
export type SendProposals = (request: Init<AlterPartitionsRequest>) => Promise<AlterPartitionsResponse>;

interface Waiting {
  readonly proposal: IsrProposal;
  readonly listener: ProposalListener;
  copies: number;
}

const PROPOSALS_PER_REQUEST_MAX = 1000;
const RETRY_MS = 50;

/**
 * The ISR proposals of all partitions this broker leads: one request in flight, many proposals in each, retried until the
 * controller has answered or the proposal is withdrawn.
 */
export class IsrProposals {
  readonly #waiting = new Map<PartitionKey, Waiting>();
  #inFlight = false;
  #retry: Timer | undefined;
  #closed = false;

  constructor(
    private readonly env: Env,
    private readonly logger: Logger,
    private readonly identity: () => { readonly brokerId: BrokerId; readonly brokerEpoch: BrokerEpoch } | undefined,
    private readonly send: SendProposals,
  ) {}

  /** Replaces an earlier proposal for the same partition. */
  propose(proposal: IsrProposal, listener: ProposalListener): void {
    this.#waiting.set(partitionKey(proposal.topicId, proposal.partition), { proposal, listener, copies: 0 });
    this.env.timers.afterThisTurn(() => this.#pump());
  }

  withdraw(partition: TopicPartition): void {
    this.#waiting.delete(partitionKey(partition.topicId, partition.partition));
  }

  close(): void {
    this.#closed = true;
    this.#waiting.clear();
    this.#retry?.cancel();
  }

  #pump(): void {
    const identity = this.identity();
    if (this.#inFlight || this.#closed || this.#waiting.size === 0) return;
    if (identity === undefined) {
      this.#retryLater();
      return;
    }
    const batch = [...this.#waiting.entries()].slice(0, PROPOSALS_PER_REQUEST_MAX);
    for (const [, waiting] of batch) waiting.copies += 1;
    this.#inFlight = true;
    const partitions = batch.map(([, waiting]) => waiting.proposal);
    this.send({ ...identity, partitions }).then(
      (response) => this.#onAnswers(batch, response.partitions),
      (error: unknown) => this.#onFailure(error),
    );
  }

  #onAnswers(batch: readonly (readonly [PartitionKey, Waiting])[], answers: readonly IsrAnswer[]): void {
    this.#inFlight = false;
    const byKey = new Map(answers.map((answer) => [partitionKey(answer.topicId, answer.partition), answer]));
    for (const [key, waiting] of batch) {
      const answer = byKey.get(key);
      // Withdrawn or replaced while it was on its way.
      if (answer === undefined || this.#waiting.get(key) !== waiting) continue;
      const name = answer.error === null ? undefined : errorNameOf(answer.error.code);
      if (name === "NOT_CONTROLLER" || name === "ZOOKEEPER_UNAVAILABLE") continue;
      this.#waiting.delete(key);
      waiting.listener(answer, waiting.copies === 1);
    }
    if (this.#waiting.size > 0) this.#retryLater();
  }

  #onFailure(error: unknown): void {
    this.#inFlight = false;
    const expected = error instanceof ApiError && error.retriable;
    if (!expected)
      this.logger.debug(`proposals of in-sync replicas were not answered and are sent again: ${reasonOf(error)}`);
    this.#retryLater();
  }

  #retryLater(): void {
    this.#retry?.cancel();
    this.#retry = this.env.timers.after(RETRY_MS, () => this.#pump());
  }
}
