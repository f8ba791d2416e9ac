import { MemoryBudget } from "../../../../broker/net/memory-budget.js";

describe("MemoryBudget", () => {
  /** Takes memory when it gets it, in its turn. */
  function waiter(budget: MemoryBudget, bytes: number, served: number[]): () => void {
    const retry = (): void => {
      if (budget.tryReserve(bytes)) served.push(bytes);
      else budget.whenReleased(retry);
    };
    retry();
    return retry;
  }

  it("serves those who wait in the order in which they came, and nobody before them", () => {
    const budget = new MemoryBudget(100);
    const served: number[] = [];
    expect(budget.tryReserve(90)).toBe(true);
    for (const bytes of [50, 40, 5]) waiter(budget, bytes, served);
    // There would be room for it.
    expect(budget.tryReserve(1)).toBe(false);
    budget.release(30);
    expect(served).toEqual([]);
    budget.release(30);
    expect(served).toEqual([50]);
    budget.release(30);
    expect(served).toEqual([50, 40, 5]);
    expect(budget.tryReserve(5)).toBe(true);
  });

  it("goes on with the others when one of them has gone", () => {
    const budget = new MemoryBudget(100);
    const served: number[] = [];
    expect(budget.tryReserve(90)).toBe(true);
    const first = waiter(budget, 50, served);
    waiter(budget, 10, served);
    budget.forget(first);
    expect(served).toEqual([10]);
  });

  it("gives more than there is to one who is alone", () => {
    const budget = new MemoryBudget(100);
    expect(budget.tryReserve(200)).toBe(true);
    expect(budget.tryReserve(1)).toBe(false);
    budget.release(200);
    expect(budget.tryReserve(100)).toBe(true);
  });
});
