import type { BrokerId } from "../protocol/types.js";

/** What records for one leader take of their producer's memory; -1 stands for partitions that have no leader. */
export class MemoryShare {
  takenBytes = 0;
  /** Something of it was given back since it was last looked whether anything is. */
  givesBack = false;
  /** Records wait for room in it: one that comes now must stand behind them. */
  isShort = false;

  constructor(readonly brokerId: BrokerId) {}
}

/** What one partition takes, and in whose share that counts: its leader's, which may change. */
export class MemoryAccount {
  #takenBytes = 0;

  constructor(private current: MemoryShare) {}

  get share(): MemoryShare {
    return this.current;
  }

  add(bytes: number): void {
    this.#takenBytes += bytes;
    this.current.takenBytes += bytes;
  }

  /** From now on all that it takes counts in this share. */
  moveTo(share: MemoryShare): void {
    this.current.takenBytes -= this.#takenBytes;
    this.current = share;
    share.takenBytes += this.#takenBytes;
  }
}

/** The smallest buffer: the heads of a request and of a batch, and a few short records. */
const BUFFER_BYTES_MIN = 512;
/** A share may be so many times as large as what it leaves to the others. */
const SHARE_TO_FREE_MAX = 7;
/** So often something is given back before it is looked anew who does. */
const GIVES_LATELY = 256;
/** A batch begins with more than it needs as long as open ones take no more than one part in so many of the memory. */
const LARGE_BEGINNINGS_PART = 8;

/**
 * The memory of a producer: buffers of powers of two up to the size of a batch, handed out until the limit is reached, and
 * used again. A record that is larger than a batch gets a buffer of its own, which counts too. A buffer that may still be
 * read by a socket is not given back but abandoned: its bytes count as free, and the garbage collector decides.
 *
 * The limit holds for what is out together with what is kept for later.
 *
 * Of several leaders none can take everything: each may take seven times what it leaves free. One that answers no more
 * holds seven eighths of the memory in the end; the others go on with the rest, among whom it is divided in the same way.
 *
 * A large record does not wait for ever behind small ones for other leaders: as long as only these are in its way, they
 * leave free what it needs, except that one that has nothing out may take one ordinary buffer. So it has its memory when what
 * was out at its coming is back, if it takes no more than the limit less a buffer for each of them. Nothing is left free for it
 * where that cannot be enough, because a leader that gives nothing back holds too much.
 */
export class BufferPool {
  readonly #idle = new Map<number, Buffer[]>();
  #idleBytes = 0;
  #takenBytes = 0;
  /** Of what is taken, how much lies in batches that take more records. Whoever opens and closes these keeps it. */
  openBytes = 0;
  readonly #shares = new Map<BrokerId, MemoryShare>();
  /** Since it was last forgotten who gives back. */
  #gives = 0;
  /** What was refused first of that which others hold up. It counts as long as records wait in the share. */
  #reserved: { readonly share: MemoryShare; readonly bytes: number } | undefined;

  constructor(
    /** Of the largest ordinary buffer. */
    readonly bufferBytes: number,
    private readonly limitBytes: number,
  ) {}

  /** More than half is taken. */
  get isTight(): boolean {
    return this.#takenBytes > this.limitBytes / 2;
  }

  /** Of what was given back, how much is kept for later. */
  get keptBytes(): number {
    return this.#idleBytes;
  }

  /** Whether records for some leader need not wait. */
  get hasRoom(): boolean {
    for (const share of this.#shares.values()) if (!share.isShort) return true;
    return false;
  }

  shareOf(brokerId: BrokerId): MemoryShare {
    let share = this.#shares.get(brokerId);
    if (share === undefined) this.#shares.set(brokerId, (share = new MemoryShare(brokerId)));
    return share;
  }

  /** Whether a batch may begin with so much though it is not needed yet. */
  isGenerous(bytes: number): boolean {
    return this.openBytes + bytes <= this.limitBytes / LARGE_BEGINNINGS_PART;
  }

  /**
   * A buffer of at least so many bytes; undefined when the limit is reached. One is always to be had when nothing is
   * out.
   */
  take(account: MemoryAccount, bytes: number): Buffer | undefined {
    const wantedBytes = this.#sizeFor(bytes);
    const { share } = account;
    if (!this.#isRoom(share, wantedBytes)) {
      this.#reserve(share, wantedBytes);
      return undefined;
    }
    if (this.#reserved?.share === share) this.#reserved = undefined;
    this.#takenBytes += wantedBytes;
    account.add(wantedBytes);
    const idle = this.#idle.get(wantedBytes)?.pop();
    if (idle === undefined) {
      this.#dropIdle(this.#takenBytes + this.#idleBytes - this.limitBytes);
      return Buffer.allocUnsafeSlow(wantedBytes);
    }
    this.#idleBytes -= wantedBytes;
    return idle;
  }

  /** A buffer beyond the limit, for what is in memory already and must be laid out anew. */
  force(account: MemoryAccount, bytes: number): Buffer {
    this.#takenBytes += bytes;
    account.add(bytes);
    return Buffer.allocUnsafeSlow(bytes);
  }

  /** `reusable`: nobody reads the buffer any more. */
  give(account: MemoryAccount, buffer: Buffer, reusable: boolean): void {
    const { length } = buffer;
    this.#takenBytes -= length;
    account.add(-length);
    this.#noteGiven(account.share);
    if (!reusable || length !== this.#sizeFor(length) || length > this.bufferBytes) return;
    if (this.#takenBytes + this.#idleBytes + length > this.limitBytes) return;
    let idle = this.#idle.get(length);
    if (idle === undefined) this.#idle.set(length, (idle = []));
    idle.push(buffer);
    this.#idleBytes += length;
  }

  #noteGiven(share: MemoryShare): void {
    share.givesBack = true;
    this.#gives += 1;
    if (this.#gives < GIVES_LATELY) return;
    this.#gives = 0;
    for (const one of this.#shares.values()) one.givesBack = false;
  }

  #isRoom(share: MemoryShare, wantedBytes: number): boolean {
    if (this.#takenBytes === 0) return true;
    const freeBytes = this.limitBytes - this.#takenBytes - wantedBytes;
    if (freeBytes < 0) return false;
    const shareBytes = share.takenBytes;
    if (this.#shares.size === 1) return true;
    const isOneBuffer = shareBytes === 0 && wantedBytes <= this.bufferBytes;
    if (!isOneBuffer && freeBytes < this.#reservedBytes(share)) return false;
    if (shareBytes === 0) return true;
    return shareBytes + wantedBytes <= SHARE_TO_FREE_MAX * freeBytes;
  }

  /** What must be left free for the sake of another share. */
  #reservedBytes(share: MemoryShare): number {
    const reserved = this.#reserved;
    if (reserved === undefined || reserved.share === share || !reserved.share.isShort) return 0;
    return this.#canHave(reserved.share, reserved.bytes) ? reserved.bytes : 0;
  }

  /** Whether it is enough that those give back what they have who have lately given back anything. */
  #canHave(share: MemoryShare, bytes: number): boolean {
    let freeBytes = this.limitBytes;
    for (const other of this.#shares.values()) if (other !== share && !other.givesBack) freeBytes -= other.takenBytes;
    return bytes <= freeBytes;
  }

  #reserve(share: MemoryShare, wantedBytes: number): void {
    if (this.#reservedBytes(share) > 0) return;
    const { takenBytes } = share;
    const freeBytes = this.limitBytes - takenBytes - wantedBytes;
    // What its own leader has not acknowledged yet is in its way, and the others could do nothing about that.
    const isOwnFault = takenBytes > 0 && takenBytes + wantedBytes > SHARE_TO_FREE_MAX * freeBytes;
    this.#reserved = isOwnFault ? undefined : { share, bytes: wantedBytes };
  }

  #sizeFor(bytes: number): number {
    if (bytes > this.bufferBytes) return bytes;
    return Math.min(this.bufferBytes, Math.max(BUFFER_BYTES_MIN, 2 ** (32 - Math.clz32(bytes - 1))));
  }

  /** Leaves so many bytes of what is kept for later to the garbage collector. */
  #dropIdle(bytes: number): void {
    let leftBytes = bytes;
    for (const [size, buffers] of this.#idle) {
      if (leftBytes <= 0) return;
      const count = Math.min(buffers.length, Math.ceil(leftBytes / size));
      buffers.length -= count;
      this.#idleBytes -= count * size;
      leftBytes -= count * size;
    }
  }
}
