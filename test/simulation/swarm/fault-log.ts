/** What a run met: how often each thing happened, by kind and by the role of whom it hit. */
export class FaultLog {
  readonly #counts = new Map<string, Map<string, number>>();

  count(kind: string, role = ""): void {
    const roles = this.#counts.get(kind) ?? new Map<string, number>();
    this.#counts.set(kind, roles);
    roles.set(role, (roles.get(role) ?? 0) + 1);
  }

  add(other: FaultTable): void {
    for (const [kind, roles] of Object.entries(other)) {
      for (const [role, count] of Object.entries(roles)) {
        const mine = this.#counts.get(kind) ?? new Map<string, number>();
        this.#counts.set(kind, mine);
        mine.set(role, (mine.get(role) ?? 0) + count);
      }
    }
  }

  of(kind: string): number {
    let sum = 0;
    for (const count of this.#counts.get(kind)?.values() ?? []) sum += count;
    return sum;
  }

  get table(): FaultTable {
    return Object.fromEntries(
      [...this.#counts]
        .sort(([left], [right]) => (left < right ? -1 : 1))
        .map(([kind, roles]) => [kind, Object.fromEntries(roles)]),
    );
  }
}

/** By kind, then by role. */
export type FaultTable = Readonly<Record<string, Readonly<Record<string, number>>>>;
