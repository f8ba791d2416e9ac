import { RequestPipeline } from "../../../../broker/zookeeper/request-pipeline.js";
import { ZooKeeperError } from "../../../../broker/zookeeper/zookeeper-error.js";
import type { Clock, Timers } from "../../../../common/env/time.js";
import type { ZooKeeperConnection, ZooKeeperResult } from "../../../../common/env/zookeeper-connection.js";

const WINDOW = 256;

/** A connection that the test ends, as the real one tells it: first all that is unanswered, then, here, the test. */
class EndingConnection implements ZooKeeperConnection {
  sent = 0;
  #closed = false;
  readonly #unanswered: ((result: ZooKeeperResult) => void)[] = [];

  request(_request: unknown, onResult: (result: ZooKeeperResult) => void): void {
    this.sent += 1;
    if (this.#closed) onResult({ code: "connection-loss" });
    else this.#unanswered.push(onResult);
  }

  answerOne(): void {
    this.#unanswered.shift()?.({ code: "ok" });
  }

  end(): void {
    this.#closed = true;
    for (const onResult of this.#unanswered.splice(0)) onResult({ code: "connection-loss" });
  }

  closeSession(): void {
    this.end();
  }

  destroy(): void {
    this.end();
  }
}

const clock: Clock = { monotonicMs: () => 0, wallMs: () => 0 };
const timers: Timers = {
  after: () => ({ cancel: () => undefined }),
  soon: () => undefined,
  afterThisTurn: () => undefined,
};

function benchWith(requests: number): {
  readonly connection: EndingConnection;
  readonly pipeline: RequestPipeline;
  readonly outcomes: string[];
} {
  const connection = new EndingConnection();
  const pipeline = new RequestPipeline(clock, timers, () => undefined);
  const outcomes: string[] = [];
  pipeline.attach(connection, 1000);
  for (let count = 0; count < requests; count += 1) {
    pipeline.submit({ kind: "get", path: "/a", watch: false }, (result) =>
      outcomes.push(result instanceof ZooKeeperError ? result.kind : result.code),
    );
  }
  return { connection, pipeline, outcomes };
}

describe("RequestPipeline", () => {
  it("sends the next request when one was answered", () => {
    const { connection, outcomes } = benchWith(WINDOW + 2);
    expect(connection.sent).toBe(WINDOW);
    connection.answerOne();
    expect(connection.sent).toBe(WINDOW + 1);
    expect(outcomes).toEqual(["ok"]);
  });

  it("sends nothing more over a connection that has ended, however many requests wait", () => {
    const { connection, pipeline, outcomes } = benchWith(20_000);
    connection.end();
    expect(connection.sent).toBe(WINDOW);
    pipeline.detach("the connection ended");
    const count = (kind: string): number => outcomes.filter((outcome) => outcome === kind).length;
    expect([count("OutcomeUnknown"), count("NotConnected")]).toEqual([WINDOW, 20_000 - WINDOW]);
  });
});
