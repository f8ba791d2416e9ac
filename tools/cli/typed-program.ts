/** The commands as sentences name them. `an ottla broker` is a thing. */
const COMMAND =
  /(?<![\w./-])(?<!\ban )ottla (?=(?:broker|cluster|config|consume|down|elect-leaders|help|kill|log|pause|perf|produce|restart|resume|status|topic|up)\b|--(?:help|version)\b|\[)/g;

/**
 * A sentence with the commands in it as they work where this one was typed: the script of a checkout, which is on no path,
 * says in OTTLA_TYPED how it was called. Sentences are written with `ottla`.
 */
export function asTyped(sentence: string, program = process.env["OTTLA_TYPED"]): string {
  if (program === undefined || program === "" || program === "ottla") return sentence;
  const word = /^[\w./~+-]+$/.test(program) ? program : `'${program.replaceAll("'", "'\\''")}'`;
  return sentence.replace(COMMAND, () => `${word} `);
}
