/**
 * Runs tasks one at a time, in the order they were added. A failed task fails only itself. `close` refuses further tasks
 * and resolves when the last accepted one has ended.
 */
export class SerialQueue {
  #tail: Promise<unknown> = Promise.resolve();
  #length = 0;
  #closed = false;

  constructor(
    private readonly name: string,
    private readonly lengthMax = Number.POSITIVE_INFINITY,
  ) {}

  /** Tasks that wait or run. */
  get length(): number {
    return this.#length;
  }

  /** Rejects with QueueClosed after `close`, with QueueFull at the limit, else as the task does. */
  run<T>(task: () => Promise<T> | T): Promise<T> {
    if (this.#closed) return Promise.reject(new QueueClosed(this.name));
    if (this.#length >= this.lengthMax) return Promise.reject(new QueueFull(this.name, this.lengthMax));
    this.#length += 1;
    const result = this.#tail.then(task);
    this.#tail = result.then(
      () => this.#ended(),
      () => this.#ended(),
    );
    return result;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#tail;
  }

  #ended(): void {
    this.#length -= 1;
  }
}

export class QueueClosed extends Error {
  override readonly name = "QueueClosed";
  constructor(queue: string) {
    super(`${queue} is closed`);
  }
}

export class QueueFull extends Error {
  override readonly name = "QueueFull";
  constructor(queue: string, limit: number) {
    super(`${queue} holds its limit of ${limit} tasks`);
  }
}
