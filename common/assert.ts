/** A broken invariant: our bug, never the caller's or the network's. Never caught; the process stops. */
export class InvariantViolation extends Error {
  override readonly name = "InvariantViolation";
}

/**
 * States what must be true whatever clients, disks and networks do. On in production.
 * The message is a function, so a passing assertion on a hot path formats nothing.
 */
export function invariant(condition: boolean, message: () => string): asserts condition {
  if (!condition) throw new InvariantViolation(message());
}

/** For the end of an exhaustive `switch`: compiles only when every case is handled. */
export function unreachable(value: never): never {
  throw new InvariantViolation(`unreachable: ${JSON.stringify(value)}`);
}
