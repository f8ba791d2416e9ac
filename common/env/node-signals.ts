/** A signal that comes again sooner than this is the same one: npm and npx hand on the Ctrl-C that the terminal sent too. */
const SAME_SIGNAL_MS = 300;
const EXIT_INTERRUPTED = 130;

/** Calls `stop` at the first of these signals; a later one is a person's impatience and ends the process at once. */
export function onStopSignal(signals: readonly NodeJS.Signals[], stop: (signal: NodeJS.Signals) => void): void {
  let firstMs: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (firstMs === undefined) {
      firstMs = performance.now();
      stop(signal);
    } else if (performance.now() - firstMs >= SAME_SIGNAL_MS) process.exit(EXIT_INTERRUPTED);
  };
  for (const signal of signals) process.on(signal, onSignal);
}
