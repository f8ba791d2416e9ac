const inSingular = { are: "is", have: "has", need: "needs", were: "was" } as const;

/** `1 replica`, `2 replicas`; with a verb `1 replica is`, `2 replicas are`. */
export function counted(count: number, noun: string, verb?: keyof typeof inSingular): string {
  const isOne = count === 1;
  const plural = /(?:ch|s|x)$/.test(noun) ? `${noun}es` : `${noun}s`;
  return `${count} ${isOne ? noun : plural}${verb === undefined ? "" : ` ${isOne ? inSingular[verb] : verb}`}`;
}
