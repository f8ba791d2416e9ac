/** What is called when a signal is aborted. One that is not here has been called, or nobody listens any more. */
const listenersOf = new WeakMap<AbortSignal, Set<() => void>>();

/**
 * Calls `listener` once when the signal is aborted, unless the returned function was called before; never for a signal that
 * is aborted already. However many listen to a signal here, it gets one listener: Node warns of a leak when there are more
 * than ten, and a signal that is shared by many consumers or requests is none. Listeners must not throw.
 */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal === undefined || signal.aborted) return () => undefined;
  // Each call has its own entry, though the function may be the same.
  const entry = (): void => listener();
  let listeners = listenersOf.get(signal);
  if (listeners === undefined) {
    listenersOf.set(signal, (listeners = new Set()));
    signal.addEventListener("abort", onEvent, { once: true });
  }
  const all = listeners.add(entry);
  return () => {
    if (!all.delete(entry) || all.size > 0 || listenersOf.get(signal) !== all) return;
    listenersOf.delete(signal);
    signal.removeEventListener("abort", onEvent);
  };
}

function onEvent(this: AbortSignal): void {
  const listeners = listenersOf.get(this) ?? [];
  listenersOf.delete(this);
  for (const listener of listeners) listener();
}
