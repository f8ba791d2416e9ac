import { connect } from "../../../client/index.js";
import type { Cluster } from "../../../client/index.js";
import { SILENCE_MS } from "../../../client/metadata.js";
import { nodeEnv } from "../../../common/env/node-env.js";
import type { Timer, Timers } from "../../../common/env/time.js";
import { errorReport } from "../../../protocol/error-codes.js";
import type { FakeAnswer } from "../../support/fake-broker.js";
import { FakeCluster, until } from "../../support/fake-broker.js";
import { ClockAhead } from "../../support/manual-time.js";

/** Goal: what the admin promises, against brokers that a test can bend. */
describe("Admin", () => {
  let fake: FakeCluster;
  let cluster: Cluster;

  const start = async (brokers: number, controllerId = 1, unknownTopicTimeoutMs = 100): Promise<void> => {
    fake = await FakeCluster.start(brokers);
    fake.controllerId = controllerId;
    const { bootstrapBrokers } = fake;
    cluster = await connect({ bootstrapBrokers, unknownTopicTimeoutMs, deadlineMs: 3000 });
  };

  afterEach(async () => {
    await cluster?.close();
    await fake?.[Symbol.asyncDispose]();
  });

  it("makes, lists, describes, widens and deletes topics, at the controller wherever it is", async () => {
    await start(3);
    fake.controllerId = 3;
    const admin = cluster.admin();
    expect(await admin.createTopics([{ name: "b", partitions: 2 }, { name: "a" }])).toMatchObject([
      { name: "b", partitions: 2 },
      { name: "a", partitions: 1 },
    ]);
    expect((await admin.listTopics()).map(({ name }) => name)).toEqual(["a", "b"]);
    await cluster.producer().send("b", { value: "x", partition: 1 });
    const [described] = await admin.describeTopics(["b"]);
    expect(described?.partitions).toMatchObject([
      { partition: 0, leader: 1, leaderEpoch: 1, isr: [1, 2, 3], startOffset: 0, highWatermark: 0, endOffset: 0 },
      { partition: 1, leader: 2, startOffset: 0, highWatermark: 1, endOffset: 1 },
    ]);
    await admin.createPartitions("b", 4);
    expect((await admin.describeTopics(["b"]))[0]?.partitions).toHaveLength(4);
    await admin.deleteTopics(["b"]);
    await expect(admin.describeTopics(["b"])).rejects.toMatchObject({ code: "UNKNOWN_TOPIC_OR_PARTITION", topic: "b" });
  });

  describe.each(["listOffsets", "deleteRecords"] as const)("in %s", (method) => {
    const ask = (partition: number) => {
      const place = { topic: "t", partition };
      return method === "listOffsets"
        ? cluster.admin().listOffsets([{ ...place, query: "latest" }])
        : cluster.admin().deleteRecords([{ ...place, before: 0 }]);
    };

    it("asks again for a partition of which the broker has not heard yet", async () => {
      await start(1, 1, 3000);
      fake.createTopic("t", 1);
      let questions = 0;
      fake.broker(1).answer = ({ kind }) => {
        if (kind === "metadata") questions += 1;
        // As brokers learn of new partitions at different times.
        if (kind === "metadata" && questions === 2) fake.addPartitions("t", 2);
        return undefined;
      };
      expect(await ask(1)).toMatchObject([{ topic: "t", partition: 1, offset: 0 }]);
      expect(questions).toBeGreaterThan(1);
    });

    it("refuses a partition of which nothing is heard for a while", async () => {
      await start(1);
      fake.createTopic("t", 1);
      const code = "UNKNOWN_TOPIC_OR_PARTITION";
      await expect(ask(1)).rejects.toMatchObject({ code, topic: "t", partition: 1 });
    });
  });

  it("says which topic was refused and why", async () => {
    await start(1);
    const admin = cluster.admin();
    await admin.createTopics([{ name: "t" }]);
    await expect(admin.createTopics([{ name: "t" }])).rejects.toMatchObject({
      code: "TOPIC_ALREADY_EXISTS",
      topic: "t",
    });
    await expect(admin.deleteTopics(["nope"])).rejects.toMatchObject({
      code: "UNKNOWN_TOPIC_OR_PARTITION",
      topic: "nope",
    });
  });

  it("waits until there is a controller, and follows it when it moves", async () => {
    await start(2);
    fake.controllerId = -1;
    const created = cluster.admin().createTopics([{ name: "t" }]);
    await until(() => fake.brokers.some((broker) => broker.bodies("metadata").length > 2), "the client asks who it is");
    fake.controllerId = 2;
    await created;
    fake.controllerId = 1;
    await cluster.admin().createTopics([{ name: "u" }]);
    expect([...fake.topics.keys()]).toEqual(["t", "u"]);
  });

  it("takes a topic that an unanswered attempt has made for made, and one that it has deleted for deleted", async () => {
    await start(1);
    const lostAnswers = new Set(["createTopics", "deleteTopics"]);
    fake.broker(1).answer = ({ kind }) => {
      if (!lostAnswers.delete(kind)) return undefined;
      if (kind === "createTopics") fake.createTopic("t");
      else fake.topics.delete("t");
      return "hang-up";
    };
    expect(await cluster.admin().createTopics([{ name: "t" }])).toEqual([
      { name: "t", topicId: expect.stringMatching(/0001$/), partitions: 1, replicationFactor: 1 },
    ]);
    await cluster.admin().deleteTopics(["t"]);
    expect(lostAnswers.size).toBe(0);
  });

  it("does not take a topic that exists for its own when it only asked whether it could make it", async () => {
    await start(1);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind, count }) => (kind === "createTopics" && count === 1 ? "hang-up" : undefined);
    await expect(cluster.admin().createTopics([{ name: "t" }], { validateOnly: true })).rejects.toMatchObject({
      code: "TOPIC_ALREADY_EXISTS",
    });
  });

  it("takes what the controller did not finish in time for done when it is found so, and else for unknown", async () => {
    await start(1);
    const admin = cluster.admin();
    const late = { body: { topics: [{ name: "t", error: errorReport("REQUEST_TIMED_OUT") }] } };
    fake.broker(1).answer = ({ kind, count }) => {
      if (kind !== "createTopics" || count > 1) return undefined;
      fake.createTopic("t");
      return late;
    };
    expect(await admin.createTopics([{ name: "t" }])).toMatchObject([{ name: "t", partitions: 1 }]);
    for (const answer of [late, { refuse: "REQUEST_TIMED_OUT" } as const]) {
      fake.broker(1).answer = ({ kind }) => (kind === "createTopics" ? answer : undefined);
      await expect(admin.createTopics([{ name: "u" }], { deadlineMs: 1000 })).rejects.toMatchObject({
        code: "OUTCOME_UNKNOWN",
        // The last attempt may have been given up at the deadline.
        cause: expect.objectContaining({ message: expect.stringMatching(/in the time|did not answer/) }),
      });
    }
  });

  it("goes on asking who is right while it waits, and leaves a silent leader whose successor comes late", async () => {
    await start(2);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind }) => (kind === "listOffsets" ? "silence" : undefined);
    const asked = cluster.admin().listOffsets([{ topic: "t", partition: 0, query: "latest" }]);
    await until(() => fake.broker(1).bodies("listOffsets").length > 0, "the leader is asked");
    const questions = (): number => fake.brokers.reduce((sum, one) => sum + one.bodies("metadata").length, 0);
    const before = questions();
    await until(() => questions() > before, "the cluster is asked, which knows no other leader yet");
    fake.moveLeader("t", 0, 2);
    const handed = questions();
    await until(() => questions() > handed, "the cluster is asked again", 2000);
    expect(await asked).toMatchObject([{ topic: "t", partition: 0, offset: 0 }]);
  });

  it("leaves a controller that stays silent as soon as there is another", async () => {
    await start(2);
    const begun = Date.now();
    fake.broker(1).answer = ({ kind }) => {
      if (kind !== "createTopics") return undefined;
      fake.controllerId = 2;
      return "silence";
    };
    await cluster.admin().createTopics([{ name: "t" }]);
    expect(Date.now() - begun).toBeLessThan(2000);
  });

  describe("while ZooKeeper is away", () => {
    const away = errorReport("ZOOKEEPER_UNAVAILABLE");
    const answers = [
      ["the whole request", { refuse: "ZOOKEEPER_UNAVAILABLE" }],
      ["one topic of it", { body: { topics: [{ name: "t", error: away }] } }],
    ] as const;
    let clock: ClockAhead;

    /** Each answer of the controller takes three seconds. */
    const startSlow = async (answer: (count: number) => FakeAnswer): Promise<void> => {
      clock = new ClockAhead(nodeEnv().clock);
      fake = await FakeCluster.start();
      cluster = await connect({ env: nodeEnv({ clock }), bootstrapBrokers: fake.bootstrapBrokers });
      fake.broker(1).answer = ({ kind, count }) => {
        if (kind !== "createTopics") return undefined;
        clock.aheadMs += 3000;
        return answer(count);
      };
    };
    const create = () => cluster.admin().createTopics([{ name: "t" }]);

    it.each(answers)("goes on for some seconds when %s is refused, and then tells", async (_, answer) => {
      await startSlow(() => answer);
      await expect(create()).rejects.toMatchObject({
        code: "ZOOKEEPER_UNAVAILABLE",
        hint: expect.stringContaining("check that the ZooKeeper servers run"),
      });
      expect(fake.broker(1).bodies("createTopics")).toHaveLength(3);
    });

    it.each(answers)("finds it back when %s was refused only once", async (_, answer) => {
      await startSlow((count) => (count === 1 ? answer : undefined));
      expect(await create()).toMatchObject([{ name: "t" }]);
    });

    it.each(answers)(
      "does not say that nothing was done when it may have been before %s is refused",
      async (_, answer) => {
        await startSlow((count) => (count === 1 ? { refuse: "REQUEST_TIMED_OUT" } : answer));
        await expect(create()).rejects.toMatchObject({
          code: "OUTCOME_UNKNOWN",
          cause: expect.objectContaining({ errorName: "ZOOKEEPER_UNAVAILABLE" }),
        });
      },
    );
  });

  it("deletes topics by their ids, so that a late repetition does not touch others of the same name", async () => {
    await start(1);
    const { id } = fake.createTopic("t");
    fake.broker(1).answer = ({ kind, count }) => {
      if (kind !== "deleteTopics" || count > 1) return undefined;
      // It is done, and the topic is made again, but the answer is lost.
      fake.topics.delete("t");
      fake.createTopic("t");
      return "hang-up";
    };
    await cluster.admin().deleteTopics(["t"]);
    expect([...fake.topics.keys()]).toEqual(["t"]);
    const asked = fake.broker(1).bodies("deleteTopics");
    expect(asked.map(({ names, topicIds }) => [[...names], [...topicIds]])).toEqual([
      [[], [id]],
      [[], [id]],
    ]);
  });

  const changes = [
    ["createPartitions", () => cluster.admin().createPartitions("t", 3)],
    ["alterConfigs", () => cluster.admin().alterConfigs({ topic: "t" }, { "retention.ms": 1 })],
  ] as const;

  describe.each(changes)("in %s", (kind, change) => {
    it("spares a topic that was made under the name before the request was repeated, and says so", async () => {
      await start(1);
      const { id } = fake.createTopic("t");
      fake.broker(1).answer = (request) => {
        if (request.kind !== kind || request.count > 1) return undefined;
        fake.topics.delete("t");
        fake.createTopic("t");
        return "hang-up";
      };
      await expect(change()).rejects.toMatchObject({
        code: "OUTCOME_UNKNOWN",
        what: expect.stringMatching(/refused.*id/),
      });
      const asked = fake.broker(1).bodies(kind);
      expect(new Set(asked.map(({ topicId }) => topicId))).toEqual(new Set([id]));
      expect(asked.length).toBeLessThan(4);
      expect(fake.topics.get("t")?.partitions).toHaveLength(1);
      expect(fake.topics.get("t")?.config.size).toBe(0);
    });

    it("is refused when the topic was made anew before it arrived", async () => {
      await start(1);
      fake.createTopic("t");
      fake.broker(1).answer = (request) => {
        if (request.kind !== kind || request.count > 1) return undefined;
        fake.topics.delete("t");
        fake.createTopic("t");
        return undefined;
      };
      await expect(change()).rejects.toMatchObject({ code: "UNKNOWN_TOPIC_ID" });
      expect(fake.topics.get("t")?.partitions).toHaveLength(1);
      expect(fake.topics.get("t")?.config.size).toBe(0);
    });

    it("is done to a topic that the controller knows and the brokers have not heard of yet", async () => {
      await start(1, 1, 3000);
      const { id } = fake.createTopic("t");
      let questions = 0;
      fake.broker(1).answer = (request) => {
        if (request.kind !== "metadata" || !(request.body as { topics: string[] }).topics.includes("t"))
          return undefined;
        questions += 1;
        const error = errorReport("UNKNOWN_TOPIC_OR_PARTITION");
        return questions > 2 ? undefined : { body: { controllerId: 1, topics: [{ name: "t", error }] } };
      };
      await change();
      expect(questions).toBeGreaterThan(2);
      expect(fake.broker(1).bodies(kind).at(-1)).toMatchObject({ topicId: id });
    });

    it("is refused at once when the controller knows no such topic", async () => {
      await start(1, 1, 100_000);
      await expect(change()).rejects.toMatchObject({ code: "UNKNOWN_TOPIC_OR_PARTITION" });
      expect(fake.topics.size).toBe(0);
    });
  });

  it("only asks about the topic that it found first when settings are to be checked", async () => {
    await start(1);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind, count }) => {
      if (kind !== "alterConfigs" || count > 1) return undefined;
      fake.topics.delete("t");
      fake.createTopic("t");
      return "hang-up";
    };
    await expect(
      cluster.admin().alterConfigs({ topic: "t" }, { "retention.ms": 1 }, { validateOnly: true }),
    ).rejects.toMatchObject({ code: "UNKNOWN_TOPIC_ID" });
  });

  it("takes a topic for deleted that a controller has deleted which was deposed before it could say so", async () => {
    await start(1);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind, count }) => {
      if (kind !== "deleteTopics" || count > 1) return undefined;
      fake.topics.delete("t");
      return { refuse: "NOT_CONTROLLER" };
    };
    await cluster.admin().deleteTopics(["t"]);
  });

  it("refuses to change settings of a topic that there is not, when the controller has said so twice", async () => {
    await start(1);
    let count = 0;
    fake.broker(1).answer = ({ kind }) => {
      if (kind !== "alterConfigs") return undefined;
      count += 1;
      return { refuse: "UNKNOWN_TOPIC_OR_PARTITION" };
    };
    await expect(cluster.admin().alterConfigs({ topic: "nosuch" }, { "retention.ms": 1 })).rejects.toMatchObject({
      code: "UNKNOWN_TOPIC_OR_PARTITION",
    });
    expect(count).toBe(2);
  });

  it("gives up at its deadline and says what it could not reach", async () => {
    await start(1, -1);
    await expect(cluster.admin().createTopics([{ name: "t" }], { deadlineMs: 100 })).rejects.toMatchObject({
      code: "DEADLINE_EXCEEDED",
      what: expect.stringContaining("the controller did not answer createTopics within 100 ms"),
    });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(cluster.admin().listTopics({ signal })).rejects.toThrow("enough");
  });

  it("says that records may have been deleted when the leader was asked and did not answer", async () => {
    await start(1);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind }) => (kind === "deleteRecords" || kind === "listOffsets" ? "hang-up" : undefined);
    const admin = cluster.admin();
    const place = { topic: "t", partition: 0 };
    await expect(admin.deleteRecords([{ ...place, before: 0 }], { deadlineMs: 1000 })).rejects.toMatchObject({
      code: "OUTCOME_UNKNOWN",
      ...place,
      cause: expect.anything(),
    });
    await expect(admin.listOffsets([{ ...place, query: "latest" }], { deadlineMs: 1000 })).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      cause: expect.anything(),
    });
  });

  it("asks again to delete records that not all replicas have deleted yet, and says so when the time is over", async () => {
    await start(1);
    fake.createTopic("t");
    const place = { topic: "t", partition: 0 };
    let refusals = 2;
    const refusal = { error: errorReport("REQUEST_TIMED_OUT", "in-sync replicas 2 have not confirmed it") };
    fake.broker(1).answer = ({ kind }) =>
      kind === "deleteRecords" && (refusals -= 1) >= 0 ? { body: { partitions: [refusal] } } : undefined;
    const admin = cluster.admin();
    expect(await admin.deleteRecords([{ ...place, before: 0 }])).toEqual([{ ...place, offset: 0 }]);
    const asked = fake.broker(1).bodies("deleteRecords");
    expect(asked).toHaveLength(3);
    for (const { timeoutMs } of asked) expect(timeoutMs).toBeGreaterThan(1000);
    refusals = 1000;
    await expect(admin.deleteRecords([{ ...place, before: 0 }], { deadlineMs: 500 })).rejects.toMatchObject({
      code: "OUTCOME_UNKNOWN",
      what: expect.stringContaining("in-sync replicas 2 have not confirmed it"),
      ...place,
    });
  });

  it("leaves no timer behind a question that cannot be put", async () => {
    const { timers } = nodeEnv();
    const running = new Map<Timer, number>();
    const after: Timers["after"] = (delayMs, callback) => {
      const timer = timers.after(delayMs, () => {
        running.delete(kept);
        callback();
      });
      const kept: Timer = {
        cancel: () => {
          running.delete(kept);
          timer.cancel();
        },
      };
      running.set(kept, delayMs);
      return kept;
    };
    const env = nodeEnv({
      timers: {
        after,
        soon: (callback) => timers.soon(callback),
        afterThisTurn: (callback) => timers.afterThisTurn(callback),
      },
    });
    fake = await FakeCluster.start();
    cluster = await connect({ env, bootstrapBrokers: fake.bootstrapBrokers });
    fake.createTopic("t");
    const query = { timestamp: Number.NaN };
    await expect(cluster.admin().listOffsets([{ topic: "t", partition: 0, query }])).rejects.toThrow(
      /timestamp is NaN/,
    );
    expect([...running.values()].filter((delayMs) => delayMs === SILENCE_MS)).toEqual([]);
  });

  it("ends at its deadline, or by its signal, while a connection is being made that may take longer", async () => {
    fake = await FakeCluster.start(1);
    fake.createTopic("t");
    cluster = await connect({ bootstrapBrokers: fake.bootstrapBrokers, connectTimeoutMs: 10_000 });
    fake.broker(1).isSilent = true;
    fake.broker(1).hangUp();
    const controller = new AbortController();
    const admin = cluster.admin();
    const begun = performance.now();
    const limited = admin.listTopics({ deadlineMs: 100 });
    const aborted = admin.createTopics([{ name: "u" }], { signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    await expect(limited).rejects.toMatchObject({
      name: expect.stringMatching(/^(DeadlineExceeded|OutcomeUnknown)Error$/),
    });
    expect(performance.now() - begun).toBeLessThan(8000);
    // So that nothing is left of the attempt.
    fake.broker(1).isSilent = false;
    fake.broker(1).hangUp();
  });

  it("has one deadline for all that a call asks, and refuses one that is none", async () => {
    const clock = new ClockAhead(nodeEnv().clock);
    fake = await FakeCluster.start();
    cluster = await connect({ env: nodeEnv({ clock }), bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 3000 });
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind, body }) => {
      // Looking the topic up takes all the time there is.
      if (kind === "metadata" && (body as { topics: string[] }).topics.includes("t")) clock.aheadMs += 3000;
      return undefined;
    };
    const admin = cluster.admin();
    const place = { topic: "t", partition: 0 };
    for (const call of [
      () => admin.describeConfigs({ topic: "t" }),
      () => admin.deleteTopics(["t"]),
      () => admin.createPartitions("t", 2),
      () => admin.alterConfigs({ topic: "t" }, { "retention.ms": 1 }),
      () => admin.electLeaders([place]),
      () => admin.deleteRecords([{ ...place, before: 0 }]),
      () => admin.listOffsets([{ ...place, query: "latest" }]),
    ]) {
      await expect(call()).rejects.toMatchObject({
        code: "DEADLINE_EXCEEDED",
        what: expect.stringMatching(/within 3000 ms/),
      });
    }
    const asked = fake.broker(1).requests.map(({ kind }) => kind);
    // Nothing is asked after the deadline.
    expect(asked.filter((kind) => kind !== "handshake" && kind !== "metadata")).toEqual([]);
    await expect(cluster.admin().listTopics({ deadlineMs: Number.NaN })).rejects.toThrow(/deadlineMs is NaN/);
  });

  it("asks no other broker when the deadline is over that it is sent on to", async () => {
    const clock = new ClockAhead(nodeEnv().clock);
    fake = await FakeCluster.start(2);
    cluster = await connect({ env: nodeEnv({ clock }), bootstrapBrokers: fake.bootstrapBrokers, deadlineMs: 3000 });
    // Of one partition broker 2 is the leader, so there is a connection to it.
    fake.createTopic("t", 2);
    const admin = cluster.admin();
    const place = { topic: "t", partition: 0 };
    for (const kind of ["listOffsets", "deleteRecords"] as const) {
      fake.moveLeader("t", 0, 1);
      fake.broker(1).answer = () => undefined;
      await admin.describeTopics(["t"]);
      fake.broker(2).requests.length = 0;
      fake.broker(1).answer = (request) => {
        if (request.kind !== kind) return undefined;
        fake.moveLeader("t", 0, 2);
        clock.aheadMs += 3000;
        const leader = fake.hintOf(fake.partition("t"));
        return { body: { partitions: [{ error: errorReport("NOT_LEADER_OR_FOLLOWER"), leader }] } };
      };
      const call =
        kind === "listOffsets"
          ? admin.listOffsets([{ ...place, query: "latest" }])
          : admin.deleteRecords([{ ...place, before: 0 }]);
      await expect(call).rejects.toMatchObject({ name: expect.stringMatching(/Error$/) });
      expect(fake.broker(2).bodies(kind)).toEqual([]);
    }
    // While it waited for word of another controller the time ran out.
    fake.controllerId = 2;
    fake.broker(1).answer = ({ kind }) => {
      if (kind === "createTopics") fake.controllerId = 2;
      return undefined;
    };
    let isAsked = false;
    for (const broker of fake.brokers) {
      const { answer } = broker;
      broker.answer = (request) => {
        if (request.kind === "createTopics") isAsked = true;
        else if (request.kind === "metadata" && isAsked) clock.aheadMs += 3000;
        return request.kind === "createTopics" ? { refuse: "NOT_CONTROLLER" } : answer(request);
      };
    }
    await expect(admin.createTopics([{ name: "u" }])).rejects.toMatchObject({ code: "NOT_CONTROLLER" });
    const asked = fake.brokers.reduce((sum, broker) => sum + broker.bodies("createTopics").length, 0);
    expect(asked).toBe(1);
  });

  it("says of a question that it was not answered in time, and why, and never that something may be done", async () => {
    await start(1);
    fake.createTopic("t");
    const admin = cluster.admin();
    const limits = { deadlineMs: 300 };
    const silent = new Set<string>();
    fake.broker(1).answer = ({ kind }) => (silent.has(kind) ? "silence" : undefined);
    for (const [kind, call] of [
      ["metadata", () => admin.listTopics(limits)],
      ["metadata", () => admin.describeCluster(limits)],
      ["metadata", () => admin.describeTopics(["t"], limits)],
      ["metadata", () => admin.describeConfigs({ topic: "t" }, limits)],
      ["metadata", () => admin.listOffsets([{ topic: "t", partition: 0, query: "latest" }], limits)],
      ["metadata", () => admin.electLeaders([{ topic: "t", partition: 0 }], limits)],
      ["metadata", () => admin.electLeaders("all", { ...limits, unclean: true })],
      ["metadata", () => admin.deleteTopics(["t"], limits)],
      ["describeConfigs", () => admin.describeConfigs({ broker: "" }, limits)],
      ["createTopics", () => admin.createTopics([{ name: "u" }], { ...limits, validateOnly: true })],
      [
        "alterConfigs",
        () => admin.alterConfigs({ broker: "" }, { "retention.ms": 1 }, { ...limits, validateOnly: true }),
      ],
    ] as const) {
      silent.add(kind);
      await expect(call()).rejects.toMatchObject({
        code: "DEADLINE_EXCEEDED",
        what: expect.stringContaining(`did not answer ${kind} within 300 ms`),
        cause: expect.objectContaining({ message: expect.stringContaining("did not answer") }),
      });
      silent.delete(kind);
    }
    silent.add("listOffsets");
    await expect(admin.listOffsets([{ topic: "t", partition: 0, query: "latest" }], limits)).rejects.toMatchObject({
      code: "CONNECTION_FAILED",
      what: expect.stringContaining("did not answer listOffsets"),
    });
    silent.add("createTopics");
    await expect(admin.createTopics([{ name: "u" }], limits)).rejects.toMatchObject({ code: "OUTCOME_UNKNOWN" });
  });

  it("describes a partition without leader without waiting for one", async () => {
    await start(2);
    fake.createTopic("t", 2);
    await fake.broker(2).kill();
    const begun = Date.now();
    const [described] = await cluster.admin().describeTopics(["t"]);
    expect(described?.partitions).toMatchObject([
      { leader: 1, endOffset: 0 },
      { leader: -1, startOffset: null, highWatermark: null, endOffset: null },
    ]);
    expect(Date.now() - begun).toBeLessThan(1000);
  });

  it("asks leaders for offsets again that do not know them yet", async () => {
    await start(1);
    fake.createTopic("t");
    fake.broker(1).answer = ({ kind, count }) =>
      kind === "listOffsets" && count < 3
        ? { body: { partitions: [{ error: errorReport("OFFSET_NOT_AVAILABLE") }] } }
        : undefined;
    const lookups = [{ topic: "t", partition: 0, query: "latest" as const }];
    expect(await cluster.admin().listOffsets(lookups)).toEqual([
      { topic: "t", partition: 0, offset: 0, timestamp: null },
    ]);
  });

  it("asks each leader once for all offsets of its partitions", async () => {
    await start(1);
    fake.createTopic("t", 2);
    await cluster.producer().send("t", { partition: 1, value: "a" });
    const [topic] = await cluster.admin().describeTopics(["t"]);
    expect(topic?.partitions.map(({ endOffset, highWatermark }) => [highWatermark, endOffset])).toEqual([
      [0, 0],
      [1, 1],
    ]);
    const asked = fake.broker(1).bodies("listOffsets");
    expect(asked).toHaveLength(1);
    expect(asked[0]?.partitions).toHaveLength(6);
    const place = { topic: "t", partition: 1 };
    const offsets = await cluster.admin().listOffsets([
      { ...place, query: "earliest" },
      { ...place, query: "latest" },
    ]);
    expect(offsets.map(({ offset }) => offset)).toEqual([0, 1]);
  });

  it("asks a broker itself for its settings", async () => {
    await start(2);
    const admin = cluster.admin();
    for (const id of [1, 2]) {
      await admin.describeConfigs({ broker: id });
      expect(fake.broker(id).bodies("describeConfigs")).toMatchObject([{ name: String(id) }]);
    }
    await expect(admin.describeConfigs({ broker: 9 })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("deletes records at the leaders, and tells settings and elections as the brokers tell them", async () => {
    await start(1);
    fake.createTopic("t");
    for (const value of ["a", "b", "c"]) await cluster.producer().send("t", { value });
    const admin = cluster.admin();
    const place = { topic: "t", partition: 0 };
    expect(await admin.deleteRecords([{ ...place, before: 2 }])).toEqual([{ ...place, offset: 2 }]);
    expect(await admin.deleteRecords([{ ...place, before: "all" }])).toEqual([{ ...place, offset: 3 }]);
    await expect(admin.deleteRecords([{ topic: "t", partition: 9, before: 1 }])).rejects.toMatchObject({
      partition: 9,
    });
    expect(await admin.describeConfigs({ topic: "t" })).toMatchObject([{ name: "retention.ms", value: "1" }]);
    await admin.alterConfigs({ topic: "t" }, { "retention.ms": 5, "cleanup.policy": null });
    expect(fake.broker(1).bodies("alterConfigs")[0]?.config).toMatchObject([
      { name: "retention.ms", value: "5" },
      { name: "cleanup.policy" },
    ]);
    expect(await admin.electLeaders([place])).toMatchObject([
      { ...place, leader: 1, error: { code: "ELECTION_NOT_NEEDED" } },
    ]);
    expect(await admin.describeCluster()).toMatchObject({ controllerId: 1, brokers: [{ id: 1, host: "127.0.0.1" }] });
  });

  it("does nothing, and describes nothing, for a list without entries", async () => {
    await start(1);
    fake.createTopic("t");
    const admin = cluster.admin();
    expect(await admin.electLeaders([])).toEqual([]);
    expect(await admin.electLeaders([], { unclean: true })).toEqual([]);
    expect(await admin.deleteTopics([])).toBeUndefined();
    expect([...fake.topics.keys()]).toEqual(["t"]);
    expect(await admin.createTopics([])).toEqual([]);
    expect(await admin.deleteRecords([])).toEqual([]);
    expect(await admin.listOffsets([])).toEqual([]);
    expect(await admin.describeTopics([])).toEqual([]);
    const asked = fake.broker(1).requests.map(({ kind }) => kind);
    expect(asked.filter((kind) => kind !== "handshake" && kind !== "metadata")).toEqual([]);
    expect(await admin.describeTopics()).toMatchObject([{ name: "t" }]);
    // What is wrong beside an empty list is refused all the same.
    await expect(admin.createTopics([], { validateonly: true } as never)).rejects.toThrow(
      /did you mean "validateOnly"/,
    );
  });

  it.each([
    ["PREFERRED_LEADER_NOT_AVAILABLE", "broker 2 is not alive and in sync", /start that broker/],
    ["ELIGIBLE_LEADERS_NOT_AVAILABLE", "none of 2,3 is alive", /start the brokers/],
  ] as const)(
    "says what to do when nobody can be elected (%s), and names the partition once",
    async (code, why, hint) => {
      await start(1);
      const { id: topicId } = fake.createTopic("t");
      const error = errorReport(code, `t-0: ${why}`);
      fake.broker(1).answer = ({ kind }) =>
        kind === "electLeaders"
          ? { body: { partitions: [{ topicId, partition: 0, leaderId: -1, error }] } }
          : undefined;
      const [result] = await cluster.admin().electLeaders([{ topic: "t", partition: 0 }]);
      expect(result?.error).toMatchObject({ code, what: `t-0: ${why}`, hint: expect.stringMatching(hint) });
    },
  );

  it("elects leaders for every partition when that is said, and unclean ones only when it is said in a word", async () => {
    await start(1);
    fake.createTopic("t", 2);
    const admin = cluster.admin();
    // Of all partitions, those that are led as asked are not worth a word.
    expect(await admin.electLeaders()).toEqual([]);
    expect(await admin.electLeaders("all", { unclean: true })).toEqual([]);
    expect(fake.broker(1).bodies("electLeaders")).toMatchObject([
      { partitions: [], allPartitions: true, unclean: false },
      { partitions: [], allPartitions: true, unclean: true },
    ]);
    await expect(admin.electLeaders(undefined, { unclean: true })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining('"all"'),
    });
    await expect(admin.electLeaders("everything" as never)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});
