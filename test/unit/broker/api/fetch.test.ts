import { FetchApi } from "../../../../broker/api/fetch.js";
import type { MetadataCache } from "../../../../broker/metadata/metadata-cache.js";
import type { Answer, RequestContext } from "../../../../broker/net/request-context.js";
import { ResponseBudget } from "../../../../broker/net/response-budget.js";
import { DeadlineWheel } from "../../../../broker/partition/deadline-wheel.js";
import type { PartitionTable } from "../../../../broker/partition/partition-table.js";
import type { LogRead } from "../../../../broker/log/log.js";
import type { FetchRequest, Init } from "../../../../protocol/messages.js";
import { codecs } from "../../../../protocol/messages.js";
import { ManualTime } from "../../../support/manual-time.js";

const TOPIC = "0f8fad5b-d9cb-469f-a165-70867728950e";
const MIB = 1024 * 1024;

/** Goal: what consumers can make a broker hold is bounded over all connections, and whoever gets nothing is told. */
describe("FetchApi", () => {
  const time = new ManualTime();

  /** Every partition from 0 to 999 has as many bytes as are asked for; from 1000 on none is here. */
  function setUp(options: { bytesMax?: number; partitionsMax?: number } = {}) {
    const held = { reads: 0 };
    const read = (bytes: number): LogRead => {
      held.reads += 1;
      return { pieces: [Buffer.alloc(bytes)], bytes, release: () => void (held.reads -= 1) };
    };
    const disk: { finish: () => void }[] = [];
    const partition = (isOnDisk: boolean) => ({
      highWatermark: 1000,
      log: { logStartOffset: 0, settings: { maxMessageBytes: MIB } },
      observe: () => undefined,
      unobserve: () => undefined,
      readCommitted: (offset: number, _epoch: unknown, maxBytes: number) => {
        if (offset >= 1000) return undefined;
        if (!isOnDisk) return read(maxBytes);
        return new Promise<LogRead>((resolve) => disk.push({ finish: () => resolve(read(100)) }));
      },
    });
    const all = Array.from({ length: 1000 }, (_, index) => partition(index >= 500));
    const responses = new ResponseBudget(options.bytesMax ?? 16 * MIB);
    const api = new FetchApi({
      wheel: new DeadlineWheel(time, time),
      partitions: { get: (_id: string, index: number) => all[index] } as unknown as PartitionTable,
      metadata: {
        topic: () => undefined,
        refusal: (report: unknown) => report,
        leaderHint: () => undefined,
      } as unknown as MetadataCache,
      activity: { onFetch: () => undefined } as never,
      responses,
      sessionsMax: () => 10_000,
      partitionsMax: () => options.partitionsMax ?? 200_000,
      brokerEpochOf: () => undefined,
    });
    const connection = (connectionId: number) => {
      const listeners = new Set<() => void>();
      const context = {
        connectionId,
        listenerName: "CLIENT",
        whenClosed: (listener: () => void) => {
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      } as unknown as RequestContext;
      return {
        listeners,
        fetch: async (request: Init<FetchRequest>): Promise<Answer<"fetch">> => {
          const decoded = codecs.FetchRequest.decode(codecs.FetchRequest.encode(request).finish());
          return (await api.handle(decoded, context, [])) as Answer<"fetch">;
        },
        close: () => {
          for (const listener of [...listeners]) listener();
        },
      };
    };
    return { responses, connection, held, disk };
  }
  const named = (first: number, count: number, maxBytes = MIB) =>
    Array.from({ length: count }, (_, index) => ({ topicId: TOPIC, partition: first + index, maxBytes }));
  const settledWith = async (answer: Promise<unknown>): Promise<string> => {
    const outcome = answer.then(
      () => "answered",
      (error: { errorName: string }) => error.errorName,
    );
    return Promise.race([outcome, new Promise<string>((resolve) => setImmediate(() => resolve("waits")))]);
  };

  it("refuses what is no topic id, however long, and keeps nothing of the request", async () => {
    const { connection } = setUp();
    const { fetch, listeners } = connection(1);
    for (const topicId of ["", "orders", TOPIC.toUpperCase(), "x".repeat(100_000)]) {
      const refused = fetch({ sessionEpoch: 1, partitions: [{ topicId, partition: 0 }] });
      await expect(refused).rejects.toMatchObject({ errorName: "INVALID_REQUEST" });
      await refused.catch((error: Error) => expect(error.message.length).toBeLessThan(200));
    }
    expect(listeners.size).toBe(0);
  });

  it("refuses an offset that no record can have for its partition alone, and until it is asked again", async () => {
    const { connection } = setUp();
    const { fetch } = connection(1);
    const [good, bad] = [
      { topicId: TOPIC, partition: 0, maxBytes: 100 },
      { topicId: TOPIC, partition: 1, maxBytes: 100, fetchOffset: 2 ** 60 },
    ];
    const first = await fetch({ sessionEpoch: 1, minBytes: 1, maxBytes: MIB, partitions: [good, bad] });
    expect(first.body.partitions).toMatchObject([{ recordBytes: 100 }, { error: { code: 1 } }]);
    const again = { ...bad, fetchOffset: 0 };
    const { sessionId } = first.body as { sessionId: number };
    const second = await fetch({ sessionId, sessionEpoch: 2, minBytes: 1, maxBytes: MIB, partitions: [again] });
    expect(second.body.partitions).toMatchObject([{ partition: 1, recordBytes: 100 }]);
    expect(second.body.partitions?.[0]?.error ?? undefined).toBeUndefined();
  });

  it("lets a session of a consumer hold 10,000 partitions, counted after what it forgets", async () => {
    const { connection } = setUp();
    const { fetch } = connection(1);
    const first = await fetch({ sessionEpoch: 1, partitions: named(1000, 6000) });
    const sessionId = first.body.sessionId ?? 0;
    const more = { sessionId, sessionEpoch: 2, partitions: named(8000, 6000) };
    await expect(fetch(more)).rejects.toMatchObject({ errorName: "TOO_MANY_ELEMENTS" });
    // What was refused does not count in the session.
    await fetch({ ...more, forgotten: named(1000, 3000) });
    await fetch({ sessionId, sessionEpoch: 3, partitions: named(8000, 6000) });
  });

  it("keeps the youngest eight sessions of a connection, and those of other connections", async () => {
    const { connection } = setUp();
    const [one, two] = [connection(1), connection(2)];
    const begin = async ({ fetch }: typeof one): Promise<number> => {
      const { body } = await fetch({ sessionEpoch: 1, partitions: named(1000, 1) });
      return body.sessionId ?? 0;
    };
    const goOn = ({ fetch }: typeof one, sessionId: number): Promise<string> =>
      settledWith(fetch({ sessionId, sessionEpoch: 2, partitions: named(1001, 1) }));
    const other = await begin(two);
    const sessions: number[] = [];
    for (let count = 0; count < 9; count += 1) sessions.push(await begin(one));
    const outcomes = await Promise.all(sessions.map((sessionId) => goOn(one, sessionId)));
    expect(outcomes).toEqual(["FETCH_SESSION_ID_NOT_FOUND", ...Array.from({ length: 8 }, () => "answered")]);
    expect(await goOn(two, other)).toBe("answered");
  });

  it("bounds the partitions that all consumers name together, until some of them go", async () => {
    const { connection } = setUp({ partitionsMax: 1000 });
    const [one, two] = [connection(1), connection(2)];
    await one.fetch({ sessionEpoch: 1, partitions: named(1000, 900) });
    const refused = two.fetch({ sessionEpoch: 1, partitions: named(1000, 101) });
    await expect(refused).rejects.toMatchObject({ errorName: "BROKER_OVERLOADED", message: /fetch\.partitions\.max/ });
    await two.fetch({ sessionEpoch: 1, partitions: named(1000, 100) });
    one.close();
    await two.fetch({ partitions: named(1000, 101) });
    // One without a session counts while it waits, and no longer.
    for (let count = 0; count < 20; count += 1) await two.fetch({ partitions: named(1000, 101) });
  });

  it("gives less while there is little memory for responses, and none while there is none", async () => {
    const { connection, responses, held } = setUp();
    const { fetch } = connection(1);
    const ask = { maxBytes: 10 * MIB, partitions: named(0, 20) };
    const answers = [await fetch(ask), await fetch(ask)];
    expect(answers.map(({ records = [] }) => records.length)).toEqual([10, 6]);
    await expect(fetch(ask)).rejects.toMatchObject({ errorName: "BROKER_OVERLOADED", message: /response\.bytes\.max/ });
    const waiting = fetch({ ...ask, maxWaitMs: 1000 });
    time.advance(500);
    expect(await settledWith(waiting)).toBe("waits");
    answers[0]?.onSent?.();
    time.advance(50);
    const last = await waiting;
    expect(last.records).toHaveLength(10);
    for (const answer of [answers[1], last]) answer?.onSent?.();
    expect(responses.used).toBe(0);
    expect(held.reads).toBe(0);
  });

  it("refuses a fetch that has waited for memory as long as it may, and ends its session", async () => {
    const { connection, responses } = setUp();
    const { fetch } = connection(1);
    const { body } = await fetch({ sessionEpoch: 1, maxBytes: 1, partitions: named(1000, 1) });
    responses.take(16 * MIB);
    const inSession = { sessionId: body.sessionId ?? 0, sessionEpoch: 2, partitions: named(0, 1), maxWaitMs: 300 };
    const waiting = fetch(inSession);
    time.advance(250);
    expect(await settledWith(waiting)).toBe("waits");
    time.advance(100);
    expect(await settledWith(waiting)).toBe("BROKER_OVERLOADED");
    responses.release(16 * MIB);
    expect(await settledWith(fetch({ ...inSession, sessionEpoch: 3 }))).toBe("FETCH_SESSION_ID_NOT_FOUND");
  });

  it("counts a whole buffer for what is read from the disk, from before that begins until it is sent", async () => {
    const { connection, responses, disk } = setUp();
    const { fetch } = connection(1);
    const answer = fetch({ maxBytes: 4 * MIB, partitions: named(500, 4) });
    expect(responses.used).toBe(4 * MIB);
    for (const { finish } of disk) finish();
    const { onSent } = await answer;
    expect(responses.used).toBeGreaterThanOrEqual(4 * MIB);
    onSent?.();
    expect(responses.used).toBe(0);
  });
});
