import { TransportError } from "../protocol/rpc-error.js";
import type { BrokerCaller } from "./broker-caller.js";
import type { ClientError } from "./errors.js";
import { ConnectionError, ProtocolError, toClientError } from "./errors.js";
import type { IdentitySource, ProducerIdentity } from "./producer-sequence.js";

/** Told how asking for an id has ended. Whoever needs one asks again after a failure, until the records' own deadline. */
export interface ProducerIdEvents {
  onFetched(): void;
  onFailed(): void;
}

/** The producer id that new sequences begin under: asked of the cluster when it is wanted and there is none, once. */
export class ProducerIds implements IdentitySource {
  #current: ProducerIdentity | undefined;
  #isFetching = false;
  #failure: ClientError | undefined;

  constructor(
    private readonly caller: BrokerCaller,
    private readonly requestTimeoutMs: number,
    /** Nothing is asked any more. */
    private readonly stopped: AbortSignal,
    private readonly events: ProducerIdEvents,
  ) {}

  identity(): ProducerIdentity | undefined {
    if (this.#current === undefined) this.#fetch();
    return this.#current;
  }

  get identityFailure(): ClientError | undefined {
    return this.#failure;
  }

  discardIdentity(identity: ProducerIdentity): void {
    if (this.#current === identity) this.#current = undefined;
  }

  #fetch(): void {
    const { caller, stopped } = this;
    if (this.#isFetching || stopped.aborted) return;
    this.#isFetching = true;
    caller
      .call({
        kind: "initProducerId",
        body: () => ({}),
        target: caller.anyBroker,
        targetName: "any broker",
        deadline: caller.deadline(this.requestTimeoutMs),
        signal: stopped,
        onAttemptFailed: (error) => {
          // That an id may have been given out in vain is nobody's concern.
          this.#failure =
            error instanceof TransportError
              ? new ConnectionError(error.message, { cause: error })
              : toClientError(error);
        },
      })
      .then(
        ({ body }) => {
          this.#isFetching = false;
          this.#failure = undefined;
          this.#current = { producerId: body.producerId, producerEpoch: body.producerEpoch };
          this.events.onFetched();
        },
        (error: unknown) => {
          this.#isFetching = false;
          if (error instanceof ProtocolError) this.#failure = error;
          this.events.onFailed();
        },
      );
  }
}
