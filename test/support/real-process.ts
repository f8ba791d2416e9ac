/**
 * The process itself. The one that jest shows to tests is a copy, which hears neither of warnings nor of what nobody
 * catches; this reaches behind it by a function that was made outside.
 */
export const realProcess = (Buffer.constructor as FunctionConstructor)("return process")() as NodeJS.Process;

/** What Node warns of from now on, by name; `stop` ends that. */
export function warnings(): { readonly names: string[]; stop(): void } {
  const names: string[] = [];
  const onWarning = ({ name }: Error): void => {
    // Of the modules that jest itself uses.
    if (name !== "ExperimentalWarning") names.push(name);
  };
  realProcess.on("warning", onWarning);
  return { names, stop: () => void realProcess.off("warning", onWarning) };
}
