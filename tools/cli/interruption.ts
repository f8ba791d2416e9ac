import { onAbort } from "../../common/on-abort.js";

/** Resolves when the promise does or the signal aborts, whichever is first; what it was for no longer matters then. */
export async function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return void promise.catch(() => undefined);
  await new Promise<void>((resolve, reject) => {
    const stopListening = onAbort(signal, resolve);
    promise.then(resolve, reject).finally(stopListening);
  });
}
