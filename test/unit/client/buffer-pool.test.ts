import { BufferPool, MemoryAccount } from "../../../client/buffer-pool.js";

const KIB = 1024;

/** Goal: the limit holds for all that is out or kept, and no leader's records can take everything. */
describe("BufferPool", () => {
  const takeAll = (pool: BufferPool, account: MemoryAccount, bytes: number): Buffer[] => {
    const buffers: Buffer[] = [];
    for (let buffer = pool.take(account, bytes); buffer !== undefined; buffer = pool.take(account, bytes)) {
      buffers.push(buffer);
    }
    return buffers;
  };
  const total = (buffers: readonly Buffer[]): number => buffers.reduce((sum, { length }) => sum + length, 0);

  it("hands out powers of two up to the size of a batch, and what is larger as it is", () => {
    const pool = new BufferPool(5000, 64 * KIB);
    const account = new MemoryAccount(pool.shareOf(1));
    const sizes = [1, 512, 513, 4096, 4097, 5000, 5001].map((bytes) => pool.take(account, bytes)!.length);
    expect(sizes).toEqual([512, 512, 1024, 4096, 5000, 5000, 5001]);
  });

  it("gives one leader everything as long as there is no other", () => {
    const pool = new BufferPool(8 * KIB, 64 * KIB);
    const account = new MemoryAccount(pool.shareOf(1));
    expect(total(takeAll(pool, account, 1024))).toBe(64 * KIB);
  });

  it("leaves an eighth to the others, of that an eighth to the next, and one buffer in any case", () => {
    const pool = new BufferPool(8 * KIB, 64 * KIB);
    const [first, second, third] = [1, 2, 3].map((id) => new MemoryAccount(pool.shareOf(id)));
    const hoarded = takeAll(pool, first!, 512);
    expect(total(hoarded)).toBe(56 * KIB);
    expect(total(takeAll(pool, second!, 512))).toBe(7 * KIB);
    expect(total(takeAll(pool, third!, 512))).toBeGreaterThanOrEqual(512);
    for (const buffer of hoarded) pool.give(first!, buffer, true);
    expect(total(takeAll(pool, second!, 512))).toBeGreaterThan(40 * KIB);
  });

  it("counts what a partition takes in the share of the leader that it has now", () => {
    const pool = new BufferPool(8 * KIB, 64 * KIB);
    const account = new MemoryAccount(pool.shareOf(1));
    const buffer = pool.take(account, 4096)!;
    account.moveTo(pool.shareOf(2));
    expect([pool.shareOf(1).takenBytes, pool.shareOf(2).takenBytes]).toEqual([0, 4096]);
    pool.give(account, buffer, true);
    expect(pool.shareOf(2).takenBytes).toBe(0);
  });

  it("uses again what was given back, and keeps no more of it than fits beside what is out", () => {
    const pool = new BufferPool(8 * KIB, 16 * KIB);
    const account = new MemoryAccount(pool.shareOf(1));
    const small = takeAll(pool, account, 512);
    for (const buffer of small) pool.give(account, buffer, true);
    expect(pool.keptBytes).toBe(16 * KIB);
    const large = pool.take(account, 8 * KIB)!;
    expect(pool.keptBytes).toBe(8 * KIB);
    expect(small).toContain(pool.take(account, 512));
    pool.give(account, large, false);
    expect(pool.keptBytes).toBe(7.5 * KIB);
  });

  it("keeps no more than its limit of what was forced beyond that", () => {
    const pool = new BufferPool(8 * KIB, 16 * KIB);
    const account = new MemoryAccount(pool.shareOf(1));
    const forced = Array.from({ length: 5 }, () => pool.force(account, 8 * KIB));
    for (const buffer of forced) pool.give(account, buffer, true);
    expect(pool.keptBytes).toBe(16 * KIB);
  });

  it("leaves free what a large record waits for that others hold up, until it has it", () => {
    const pool = new BufferPool(1024, 64 * 1024);
    const [large, busy, idle] = [1, 2, 3].map((id) => new MemoryAccount(pool.shareOf(id)));
    const out: Buffer[] = [];
    for (let count = 0; count < 40; count += 1) out.push(pool.take(busy!, 1024)!);
    expect(pool.take(large!, 30 * 1024)).toBeUndefined();
    // Nobody waits yet: the record may have gone elsewhere.
    pool.give(busy!, out.pop()!, true);
    out.push(pool.take(busy!, 1024)!);
    large!.share.isShort = true;
    // As fast as the others are, it has its memory when what was out at its coming is back.
    let turns = 0;
    let got: Buffer | undefined;
    for (; got === undefined && turns <= 40; turns += 1) {
      pool.give(busy!, out.pop()!, true);
      expect(pool.take(busy!, 1024)).toBeUndefined();
      got = pool.take(large!, 30 * 1024);
    }
    expect(turns).toBe(6);
    large!.share.isShort = false;
    expect(pool.take(busy!, 1024)).toBeUndefined();
    pool.give(large!, got!, true);
    expect(pool.take(busy!, 1024)).toBeDefined();
    // A leader that has nothing out is not what it waits for.
    for (let count = 0; count < 10; count += 1) pool.take(busy!, 1024);
    expect(pool.take(large!, 40 * 1024)).toBeUndefined();
    large!.share.isShort = true;
    expect(pool.take(idle!, 1024)).toBeDefined();
    expect(pool.take(idle!, 1024)).toBeUndefined();
  });

  it("reserves nothing for a leader that holds itself up", () => {
    const pool = new BufferPool(1024, 64 * 1024);
    const [stopped, busy] = [1, 2].map((id) => new MemoryAccount(pool.shareOf(id)));
    while (pool.take(stopped!, 1024) !== undefined);
    stopped!.share.isShort = true;
    expect(pool.take(stopped!, 4 * 1024)).toBeUndefined();
    expect(pool.take(busy!, 1024)).toBeDefined();
    expect(pool.take(busy!, 1024)).toBeDefined();
  });

  it("lets a large record in before others that came later and take turns, though these are large too", () => {
    const pool = new BufferPool(1024, 8192);
    const [first, second, third] = [1, 2, 3].map((id) => new MemoryAccount(pool.shareOf(id))) as [
      MemoryAccount,
      MemoryAccount,
      MemoryAccount,
    ];
    const out = [second, third].map((account) => ({ account, buffer: pool.take(account, 4000) as Buffer }));
    const takeLarge = (): Buffer | undefined => pool.take(first, 5000);
    expect(takeLarge()).toBeUndefined();
    first.share.isShort = true;
    // As with `WaitingRecords.admit`: with all that comes back the large one is asked first.
    const turns: (Buffer | undefined)[] = [];
    for (let turn = 0; turn < 20 && turns.at(-1) === undefined; turn += 1) {
      const { account, buffer } = out.shift() as (typeof out)[number];
      pool.give(account, buffer, true);
      turns.push(takeLarge());
      const next = pool.take(account, 4000);
      if (next !== undefined) out.push({ account, buffer: next });
      if (out.length === 0) break;
    }
    expect(turns.at(-1)).toBeDefined();
  });

  it("does not hold a leader that answers to one buffer, for a large record that a silent leader has no room for anyway", () => {
    const pool = new BufferPool(1024, 64 * KIB);
    const [silent, large, busy] = [1, 2, 3].map((id) => new MemoryAccount(pool.shareOf(id))) as [
      MemoryAccount,
      MemoryAccount,
      MemoryAccount,
    ];
    // Its machine is gone: nothing of this comes back before deliveryTimeoutMs.
    for (let count = 0; count < 40; count += 1) expect(pool.take(silent, 1024)).toBeDefined();
    silent.share.isShort = true;
    // 24 KiB are left for all others, whatever they do.
    expect(pool.take(large, 30 * KIB)).toBeUndefined();
    large.share.isShort = true;
    let taken = 0;
    while (taken < 10 && pool.take(busy, 1024) !== undefined) taken += 1;
    expect(taken).toBe(10);
  });
});
