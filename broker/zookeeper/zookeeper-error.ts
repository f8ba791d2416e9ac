import { unreachable } from "../../common/assert.js";
import type { ZooKeeperRequest, ZooKeeperResultCode } from "../../common/env/zookeeper-connection.js";

/**
 * What can become of an operation. Two of them decide whether it may be tried again:
 * - `NotConnected`: it was never sent, so it had no effect.
 * - `OutcomeUnknown`: it was sent and not answered (or with a code nobody knows). Read again before trying again.
 */
export type ZooKeeperErrorKind =
  | "NoNode"
  | "NodeExists"
  | "BadVersion"
  | "NotEmpty"
  | "NoAuth"
  | "BadArguments"
  | "TooLarge"
  | "NotConnected"
  | "OutcomeUnknown"
  | "SessionExpired";

export interface ZooKeeperErrorDetails {
  /** The node it was about, as the ensemble knows it: with the chroot in front. */
  readonly path?: string;
  /** Of a multi: which operation failed, from 0. */
  readonly failedIndex?: number;
}

/** An operation that did not succeed; `kind` says how, `message` with what and what to do. */
export class ZooKeeperError extends Error {
  override readonly name = "ZooKeeperError";
  readonly path: string | undefined;
  readonly failedIndex: number | undefined;

  constructor(
    readonly kind: ZooKeeperErrorKind,
    sentence: string,
    details: ZooKeeperErrorDetails = {},
  ) {
    super(`${kind}: ${sentence}`);
    this.path = details.path;
    this.failedIndex = details.failedIndex;
  }
}

/** The error that a result code other than `ok` means. */
export function errorOfCode(
  code: Exclude<ZooKeeperResultCode, "ok">,
  what: string,
  details: ZooKeeperErrorDetails,
): ZooKeeperError {
  const [kind, sentence] = meaningOf(code);
  return new ZooKeeperError(kind, `${what}: ${sentence}`, details);
}

/** A request in words, for messages. */
export function describeRequest(request: ZooKeeperRequest): string {
  if (request.kind !== "multi") return `${request.kind} ${request.path}`;
  const first = request.operations[0];
  return `multi of ${request.operations.length}${first === undefined ? "" : `, first ${first.kind} ${first.path}`}`;
}

function meaningOf(code: Exclude<ZooKeeperResultCode, "ok">): readonly [ZooKeeperErrorKind, string] {
  switch (code) {
    case "no-node":
      return ["NoNode", "the node, or the parent of one to create, does not exist"];
    case "node-exists":
      return ["NodeExists", "the node exists already"];
    case "bad-version":
      return ["BadVersion", "the node has changed since it was read; read it again"];
    case "not-empty":
      return ["NotEmpty", "the node has children; remove them first"];
    case "no-auth":
      return ["NoAuth", "the node's access list does not let this session do that"];
    case "bad-arguments":
      return ["BadArguments", "the server does not accept the arguments"];
    case "no-children-for-ephemerals":
      return ["BadArguments", "an ephemeral node cannot have children"];
    case "invalid-acl":
      return ["BadArguments", "the server does not accept the access list"];
    case "session-expired":
      return ["SessionExpired", "the session is over; its ephemeral nodes are gone"];
    case "connection-loss":
      return ["OutcomeUnknown", "the connection ended before the answer; read again before trying again"];
    case "runtime-inconsistency":
    case "unknown":
      return ["OutcomeUnknown", "the server answered with a code nobody knows; read again before trying again"];
    default:
      return unreachable(code);
  }
}
