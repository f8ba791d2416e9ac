import {
  ClientError,
  ClosedError,
  ConnectionError,
  CorruptBatchError,
  DeadlineExceededError,
  InvalidArgumentError,
  OffsetOutOfRangeError,
  OutcomeUnknownError,
  ProtocolError,
  RecordTooLargeError,
  toClientError,
  UnreadableBatchError,
} from "../../../client/errors.js";
import { ApiError, errorCodes, mayRetry } from "../../../protocol/error-codes.js";
import type { ErrorName } from "../../../protocol/error-codes.js";
import { TransportError } from "../../../protocol/rpc-error.js";

const place = { topic: "orders", partition: 3, brokerId: 2 };

const all: readonly (readonly [new (...args: never[]) => ClientError, ClientError])[] = [
  [InvalidArgumentError, new InvalidArgumentError("what", "hint")],
  [ClosedError, new ClosedError("producer")],
  [ConnectionError, new ConnectionError("what", place)],
  [DeadlineExceededError, new DeadlineExceededError("what", "hint", place)],
  [OutcomeUnknownError, new OutcomeUnknownError("what", place)],
  [ProtocolError, new ProtocolError("NOT_CONTROLLER", undefined, place)],
  [RecordTooLargeError, new RecordTooLargeError(2, 1, "batchBytes", place)],
  [OffsetOutOfRangeError, new OffsetOutOfRangeError(1, 2, 3, place)],
  [CorruptBatchError, new CorruptBatchError(1, place)],
  [UnreadableBatchError, new UnreadableBatchError(1, 3, place)],
];

describe("ClientError", () => {
  it("says what can be made anew where something is closed", () => {
    expect(new ClosedError("producer").hint).toBe("make a new one from the cluster");
    expect(new ClosedError("cluster").hint).toBe("connect again");
  });

  it("has subclasses that are called what they are, each with a code of its own", () => {
    for (const [type, error] of all) {
      expect(error.name).toBe(type.name);
      expect(error).toBeInstanceOf(ClientError);
      expect(error.message).toBe(`${error.what}; ${error.hint}`);
    }
    expect(new Set(all.map(([, error]) => error.code)).size).toBe(all.length);
  });

  it("names topic and partition in its text, and has them as fields", () => {
    const error = new ProtocolError("NOT_ENOUGH_REPLICAS", "1 replica of 2 is in sync", place);
    expect(error.message).toBe(
      "orders-3: 1 replica of 2 is in sync; start the brokers that hold its replicas, or lower min.insync.replicas",
    );
    expect(error).toMatchObject(place);
  });

  it("says of every error of the protocol what it is and what to do", () => {
    for (const name of Object.keys(errorCodes) as ErrorName[]) {
      const error = toClientError(new ApiError(name));
      expect(error).toMatchObject({ code: name, retriable: mayRetry(name) });
      expect(error.hint.length).toBeGreaterThan(5);
      expect(error.what).not.toMatch(/[^.]\.$/);
    }
  });
});

describe("toClientError", () => {
  it("tells a request that was never sent from one whose outcome is unknown", () => {
    const unsent = new TransportError("connect", true, "refused", "refused");
    const sent = new TransportError("closed", false, "reset", "reset");
    expect(toClientError(unsent, place)).toMatchObject({ code: "CONNECTION_FAILED", retriable: true, cause: unsent });
    expect(toClientError(sent, place)).toMatchObject({ code: "OUTCOME_UNKNOWN", retriable: false, cause: sent });
  });

  it("passes on what is a ClientError already, and hides no fault of our own", () => {
    const error = new ClosedError("consumer");
    expect(toClientError(error)).toBe(error);
    expect(() => toClientError(new TypeError("a bug"))).toThrow(TypeError);
  });
});
