/**
 * What clients saw, and what follows from it. A `History` is filled in by one control thread, so its times have one order;
 * the checkers below it are pure functions from a history to the promises it breaks. They know nothing of the code under
 * test: no message, no role, no offset arithmetic is shared with it.
 *
 * Every value is written once, so a value names the operation that wrote it. `partition` is the partition's key, which
 * holds the topic's id: a topic that was created again under the same name is another one.
 */

/** `ok`: success was reported. `fail`: it surely did not happen. `info`: nobody knows. */
export type Outcome =
  | { readonly kind: "ok"; readonly atMs: number; readonly baseOffset: number; readonly brokerId: number }
  | { readonly kind: "fail" | "info"; readonly atMs: number; readonly reason: string };

/** One batch, from the moment it was handed over until its fate was told. */
export interface ProduceOperation {
  /** Who wrote it under which producer id: order and uniqueness are promised within one. */
  readonly producer: string;
  readonly partition: string;
  readonly values: readonly string[];
  readonly acks: "all" | "leader";
  readonly idempotent: boolean;
  /** Order is promised only among what was acknowledged: after an unknown outcome the producer went on under another id. */
  readonly orderedIfOk?: boolean;
  readonly invokedMs: number;
  /** The leader epoch that the accepting broker had to agree with; undefined: the client does not say. */
  leaderEpoch: number | undefined;
  /** Undefined: it never came back, which is as good as `info`. */
  outcome: Outcome | undefined;
}

/** A record that an application was given. */
export interface Delivery {
  readonly consumer: string;
  readonly partition: string;
  readonly offset: number;
  readonly value: string;
  readonly atMs: number;
  /** The greatest high watermark that any leader had by then; undefined: nobody looked. */
  readonly highWatermark?: number | undefined;
}

/** A consumer went on somewhere else, and its application was told so. */
export interface LoudMove {
  readonly consumer: string;
  readonly partition: string;
  readonly atMs: number;
}

/** Everything between log start and high watermark, as read by a client without a past. */
export interface FinalRead {
  /** The broker that the client knew at first. */
  readonly via: string;
  readonly partition: string;
  readonly logStartOffset: number;
  readonly highWatermark: number;
  readonly records: readonly { readonly offset: number; readonly value: string; readonly leaderEpoch: number }[];
}

/** A leader did not know what it had acknowledged, or its predecessor, of an idempotent producer. */
export interface Ignorance {
  readonly producer: string;
  readonly partition: string;
  readonly brokerId: number;
  readonly sequence: number;
  readonly error: string;
}

/** Where a log began, as somebody was told at some time. */
interface LogStart {
  readonly partition: string;
  readonly offset: number;
  readonly atMs: number;
}

/** Records that nothing could keep: every replica that counted lost them with its power before they were synced. */
export interface PermittedLoss {
  readonly partition: string;
  readonly fromOffset: number;
  /** When they were lost: readers may be sent back from then on. */
  readonly sinceMs: number;
  /** What was acknowledged or delivered later is of the time after. */
  readonly untilMs: number;
}

/** Records below the offset were deleted on demand, and that was acknowledged. */
export interface AnsweredDeletion {
  readonly partition: string;
  readonly before: number;
  readonly atMs: number;
}

/** The batches of one replica after everything has calmed down. */
export interface ReplicaImage {
  readonly brokerId: number;
  readonly partition: string;
  readonly highWatermark: number;
  /** Replicas delete old records each in its own time. */
  readonly logStartOffset: number;
  readonly batches: readonly { readonly baseOffset: number; readonly leaderEpoch: number; readonly crc: number }[];
}

/** What one broker says of the cluster, or what ZooKeeper does: the same shape, so that they can be compared. */
export interface ClusterImage {
  readonly of: string;
  readonly partitions: ReadonlyMap<
    string,
    { readonly leaderId: number; readonly leaderEpoch: number; readonly isr: readonly number[] }
  >;
}

/** A promise that was not kept. `id` is the promise, `sentence` says what happened. */
export interface Violation {
  readonly id: string;
  readonly sentence: string;
}

export class History {
  readonly produces: ProduceOperation[] = [];
  readonly deliveries: (Delivery | LoudMove)[] = [];
  readonly finalReads: FinalRead[] = [];
  readonly logStarts: LogStart[] = [];
  readonly losses: PermittedLoss[] = [];
  readonly deletions: AnsweredDeletion[] = [];
  readonly ignorances: (Ignorance & { readonly atMs: number })[] = [];
  /** In the order in which they were written to ZooKeeper. */
  readonly controllerEpochs: number[] = [];
  #okCount = 0;
  readonly #homes = new Map<string, string>();

  /** `highWatermarkOf`: the greatest high watermark that any leader of the partition had so far, if somebody looks. */
  constructor(
    private readonly nowMs: () => number,
    private readonly highWatermarkOf: (partition: string) => number | undefined = () => undefined,
  ) {}

  invoke(
    operation: Pick<ProduceOperation, "producer" | "partition" | "values" | "acks" | "idempotent" | "orderedIfOk">,
  ): ProduceOperation {
    const begun = { ...operation, invokedMs: this.nowMs(), leaderEpoch: undefined, outcome: undefined };
    this.produces.push(begun);
    for (const value of operation.values) this.#homes.set(value, operation.partition);
    return begun;
  }

  ok(operation: ProduceOperation, at: { readonly baseOffset: number; readonly brokerId: number }): void {
    this.#okCount += 1;
    operation.outcome = { kind: "ok", atMs: this.nowMs(), ...at };
  }

  fail(operation: ProduceOperation, reason: string): void {
    operation.outcome = { kind: "fail", atMs: this.nowMs(), reason };
  }

  info(operation: ProduceOperation, reason: string): void {
    operation.outcome = { kind: "info", atMs: this.nowMs(), reason };
  }

  deliver(delivery: Omit<Delivery, "atMs">): void {
    const { consumer, partition, offset, value } = delivery;
    const highWatermark = this.highWatermarkOf(partition);
    this.deliveries.push({ consumer, partition, offset, value, atMs: this.nowMs(), highWatermark });
  }

  moved(move: Omit<LoudMove, "atMs">): void {
    this.deliveries.push({ ...move, atMs: this.nowMs() });
  }

  finalRead(read: FinalRead): void {
    this.finalReads.push(read);
    this.logStart(read.partition, read.logStartOffset);
  }

  logStart(partition: string, offset: number): void {
    this.logStarts.push({ partition, offset, atMs: this.nowMs() });
  }

  permitLoss(loss: PermittedLoss): void {
    this.losses.push(loss);
  }

  deleted(deletion: Omit<AnsweredDeletion, "atMs">): void {
    this.deletions.push({ ...deletion, atMs: this.nowMs() });
  }

  ignorant(ignorance: Ignorance): void {
    this.ignorances.push({ ...ignorance, atMs: this.nowMs() });
  }

  /** The partition to which the value was handed over. */
  homeOf(value: string): string | undefined {
    return this.#homes.get(value);
  }

  /** How many produces were acknowledged so far. */
  get okCount(): number {
    return this.#okCount;
  }

  /** How many produces ended in which way. */
  counts(): { ok: number; fail: number; info: number; delivered: number } {
    const counts = { ok: 0, fail: 0, info: 0, delivered: 0 };
    for (const { outcome } of this.produces) counts[outcome?.kind ?? "info"] += 1;
    for (const entry of this.deliveries) if ("offset" in entry) counts.delivered += 1;
    return counts;
  }
}

/** An acknowledged record of `acks=all`, with its own offset. */
interface Acknowledged {
  readonly operation: ProduceOperation;
  readonly outcome: Extract<Outcome, { kind: "ok" }>;
  readonly value: string;
  readonly offset: number;
}

/**
 * The same without what was lost with permission: it was never acknowledged nor delivered then, and consumers were told that
 * they go on elsewhere.
 */
export function withoutPermittedLosses(history: History): History {
  if (history.losses.length === 0) return history;
  const losses = groupBy(history.losses, ({ partition }) => partition);
  const isLost = (partition: string, endOffset: number, atMs: number): boolean =>
    losses.get(partition)?.some((loss) => endOffset > loss.fromOffset && atMs <= loss.untilMs) ?? false;
  const kept = new History(() => 0);
  for (const operation of history.produces) {
    const { outcome, partition, values } = operation;
    const lost = outcome?.kind === "ok" && isLost(partition, outcome.baseOffset + values.length, outcome.atMs);
    kept.produces.push(
      lost
        ? { ...operation, outcome: { kind: "info", atMs: outcome.atMs, reason: "lost with permission" } }
        : operation,
    );
  }
  const moves = [...history.losses].sort((left, right) => left.untilMs - right.untilMs);
  const consumers = groupBy(history.deliveries, ({ partition }) => partition);
  let next = 0;
  for (const entry of history.deliveries) {
    for (let loss = moves[next]; loss !== undefined && loss.untilMs < entry.atMs; loss = moves[(next += 1)]) {
      const { partition, untilMs } = loss;
      const names = new Set((consumers.get(partition) ?? []).map(({ consumer }) => consumer));
      for (const consumer of names) kept.deliveries.push({ consumer, partition, atMs: untilMs });
    }
    const isUnsettled = losses
      .get(entry.partition)
      ?.some(({ sinceMs, untilMs }) => entry.atMs >= sinceMs && entry.atMs <= untilMs);
    if (!("offset" in entry) || (isUnsettled !== true && !isLost(entry.partition, entry.offset + 1, entry.atMs)))
      kept.deliveries.push(entry);
  }
  kept.finalReads.push(...history.finalReads);
  kept.logStarts.push(...history.logStarts);
  kept.deletions.push(...history.deletions);
  kept.controllerEpochs.push(...history.controllerEpochs);
  return kept;
}

/** L11: nobody is given what was not replicated yet. */
export function readsAboveHighWatermark(history: History): Violation[] {
  return history.deliveries.flatMap((entry) => {
    if (!("offset" in entry) || entry.highWatermark === undefined || entry.offset < entry.highWatermark) return [];
    const { consumer, highWatermark, value } = entry;
    const sentence = `${consumer} was given ${value} from ${place(entry)} when no leader had a high watermark above ${highWatermark}`;
    return [{ id: "L11", sentence }];
  });
}

/** An acknowledgement says where the record is; one without an offset proves nothing. */
export function acknowledgementsWithoutOffset(history: History): Violation[] {
  return history.produces.flatMap(({ producer, partition, values, outcome }) =>
    outcome?.kind === "ok" && outcome.baseOffset < 0
      ? [{ id: "L1", sentence: `${producer} was told that ${values[0] ?? "?"} is in ${partition}, and not where` }]
      : [],
  );
}

/** L20: what was deleted on demand is not there at the end. */
export function returnedRecords(history: History): Violation[] {
  return history.finalReads.flatMap((read) =>
    history.deletions
      .filter(({ partition, before }) => partition === read.partition && read.logStartOffset < before)
      .map(({ before }) => ({
        id: "L20",
        sentence: `${read.partition} begins at ${read.logStartOffset} by way of ${read.via}; what is below ${before} was deleted`,
      })),
  );
}

/** L1: what was acknowledged with acks=all is there at the end, below the high watermark, at its offset. */
export function lostAcknowledgements(history: History): Violation[] {
  const violations: Violation[] = [];
  const reads = groupBy(history.finalReads, ({ partition }) => partition);
  const present = new Map(
    history.finalReads.map((read) => [read, new Map(read.records.map(({ offset, value }) => [offset, value]))]),
  );
  for (const { operation, value, offset } of acknowledged(history)) {
    for (const read of reads.get(operation.partition) ?? []) {
      // Without an offset it is no acknowledgement, and nothing that was deleted.
      if (offset >= 0 && offset < read.logStartOffset) continue;
      if (offset < read.highWatermark && present.get(read)?.get(offset) === value) continue;
      violations.push({
        id: "L1",
        sentence: `${value} was acknowledged at offset ${offset} of ${operation.partition}; by way of ${read.via} that offset holds ${
          present.get(read)?.get(offset) ?? `nothing (high watermark ${read.highWatermark})`
        }`,
      });
    }
  }
  return violations;
}

/** L2: what was refused is never read. */
export function refusedYetRead(history: History): Violation[] {
  const refusals = new Map(
    history.produces.flatMap(({ values, producer, outcome }) =>
      outcome?.kind === "fail" ? values.map((value) => [value, `${producer}: ${outcome.reason}`] as const) : [],
    ),
  );
  return observations(history)
    .filter(({ value }) => refusals.has(value))
    .map((seen) => ({
      id: "L2",
      sentence: `${seen.value} was refused (${refusals.get(seen.value) ?? ""}), and ${seen.by} read it at ${place(seen)}`,
    }));
}

/** L3: what is read was written. */
export function phantoms(history: History): Violation[] {
  const written = new Set(history.produces.flatMap(({ values }) => values));
  return observations(history)
    .filter(({ value }) => !written.has(value))
    .map((seen) => ({ id: "L3", sentence: `${seen.by} read ${seen.value} at ${place(seen)}, which nobody wrote` }));
}

/** L18: what is read from a topic was written to that topic, not to another one of the same name. */
export function wrongIncarnations(history: History): Violation[] {
  const homes = new Map(
    history.produces.flatMap(({ values, partition }) => values.map((value) => [value, partition] as const)),
  );
  return observations(history)
    .filter(({ value, partition }) => (homes.get(value) ?? partition) !== partition)
    .map((seen) => ({
      id: "L18",
      sentence: `${seen.by} read ${seen.value} at ${place(seen)}; it was written to ${homes.get(seen.value) ?? "?"}`,
    }));
}

/** L4: nobody ever sees two values at one offset. An acknowledgement by the leader alone promises no offset. */
export function differentValues(history: History): Violation[] {
  const values = new Map<string, string>();
  const violations: Violation[] = [];
  const acks = acknowledged(history).map(({ operation, value, offset }) => ({
    by: operation.producer,
    partition: operation.partition,
    offset,
    value,
  }));
  const look = (seen: Omit<Observation, "at">, at: string): void => {
    const before = values.get(at);
    if (before === undefined) values.set(at, seen.value);
    else if (before !== seen.value)
      violations.push({ id: "L4", sentence: `${at} held ${before}, and for ${seen.by} ${seen.value}` });
  };
  for (const ack of acks) look(ack, place(ack));
  for (const seen of observations(history)) look(seen, seen.at);
  return violations;
}

/** L5: what an idempotent producer wrote stands at one offset only. */
export function duplicates(history: History): Violation[] {
  const unique = new Set(history.produces.filter(({ idempotent }) => idempotent).flatMap(({ values }) => values));
  const places = new Map<string, string>();
  const violations: Violation[] = [];
  for (const seen of observations(history)) {
    if (!unique.has(seen.value)) continue;
    const before = places.get(seen.value);
    if (before === undefined) places.set(seen.value, seen.at);
    else if (before !== seen.at)
      violations.push({ id: "L5", sentence: `${seen.value} stands at ${before} and at ${seen.at}` });
  }
  return violations;
}

/** L6: what one idempotent producer wrote to one partition stands in the order of writing. */
export function reorderings(history: History): Violation[] {
  const violations: Violation[] = [];
  const produces = groupBy(history.produces, ({ partition }) => partition);
  for (const read of history.finalReads) {
    const offsets = new Map(read.records.map(({ value, offset }) => [value, offset]));
    const last = new Map<string, { value: string; offset: number }>();
    for (const { producer, partition, values, idempotent, orderedIfOk, outcome } of produces.get(read.partition) ??
      []) {
      if (!idempotent || (orderedIfOk && outcome?.kind !== "ok")) continue;
      for (const value of values) {
        const offset = offsets.get(value);
        if (offset === undefined) continue;
        const before = last.get(producer);
        if (before !== undefined && before.offset >= offset) {
          violations.push({
            id: "L6",
            sentence: `${producer} wrote ${before.value} before ${value}; ${partition} has them at ${before.offset} and ${offset}`,
          });
        }
        last.set(producer, { value, offset });
      }
    }
  }
  return violations;
}

/** L7: what was handed over after something else was acknowledged stands behind it. */
export function realTimeDisorder(history: History): Violation[] {
  const violations: Violation[] = [];
  for (const [partition, acks] of groupBy(acknowledged(history), ({ operation }) => operation.partition)) {
    const byAck = [...acks].sort((left, right) => left.outcome.atMs - right.outcome.atMs);
    const byInvoke = [...acks].sort((left, right) => left.operation.invokedMs - right.operation.invokedMs);
    let next = 0;
    let greatest: Acknowledged | undefined;
    for (const later of byInvoke) {
      for (; next < byAck.length; next += 1) {
        const earlier = byAck[next];
        if (earlier === undefined || earlier.outcome.atMs >= later.operation.invokedMs) break;
        if (greatest === undefined || earlier.offset > greatest.offset) greatest = earlier;
      }
      if (greatest !== undefined && later.offset <= greatest.offset) {
        violations.push({
          id: "L7",
          sentence: `${greatest.value} was acknowledged at ${partition}@${greatest.offset} before ${later.value} was handed over, which stands at ${later.offset}`,
        });
      }
    }
  }
  return violations;
}

/** L8 and L9: a consumer goes forward, and passes over no committed record, unless it was told. */
export function consumerSteps(history: History): Violation[] {
  const violations: Violation[] = [];
  const committed = new Map(
    history.finalReads.map((read) => [read.partition, [...read.records].sort((a, b) => a.offset - b.offset)]),
  );
  const positions = new Map<string, number | undefined>();
  for (const entry of history.deliveries) {
    const key = `${entry.consumer} ${entry.partition}`;
    if (!("offset" in entry)) {
      positions.set(key, undefined);
      continue;
    }
    const before = positions.get(key);
    positions.set(key, entry.offset);
    if (before === undefined) continue;
    if (entry.offset <= before)
      violations.push({ id: "L8", sentence: `${key} went back from offset ${before} to ${entry.offset}` });
    const skipped =
      entry.offset > before + 1 ? firstBetween(committed.get(entry.partition), before, entry.offset) : undefined;
    if (skipped !== undefined)
      violations.push({
        id: "L9",
        sentence: `${key} went from offset ${before} to ${entry.offset} and passed over ${skipped.value} at ${skipped.offset}`,
      });
  }
  return violations;
}

function firstBetween(
  records: FinalRead["records"] | undefined,
  before: number,
  end: number,
): FinalRead["records"][number] | undefined {
  return records?.find(({ offset }) => offset > before && offset < end);
}

/** L10: what was delivered once stays where it was. */
export function unstableReads(history: History): Violation[] {
  const violations: Violation[] = [];
  const deliveries = groupBy(history.deliveries, ({ partition }) => partition);
  for (const read of history.finalReads) {
    const values = new Map(read.records.map(({ offset, value }) => [offset, value]));
    for (const entry of deliveries.get(read.partition) ?? []) {
      if (!("offset" in entry) || entry.offset < read.logStartOffset) continue;
      if (values.get(entry.offset) === entry.value) continue;
      violations.push({
        id: "L10",
        sentence: `${entry.consumer} was given ${entry.value} from ${place(entry)}; by way of ${read.via} there is ${values.get(entry.offset) ?? "nothing"} at the end`,
      });
    }
  }
  return violations;
}

/** L12: in one leader epoch one broker acknowledges. */
export function twoLeaders(history: History): Violation[] {
  const leaders = new Map<string, number>();
  const violations: Violation[] = [];
  for (const { operation, outcome } of acknowledged(history)) {
    if (operation.leaderEpoch === undefined) continue;
    const term = `${operation.partition} at epoch ${operation.leaderEpoch}`;
    const before = leaders.get(term);
    if (before === undefined) leaders.set(term, outcome.brokerId);
    else if (before !== outcome.brokerId)
      violations.push({
        id: "L12",
        sentence: `brokers ${before} and ${outcome.brokerId} both acknowledged for ${term}`,
      });
  }
  return violations;
}

/** L13: leader epochs never fall along a log. */
export function epochDisorder(history: History): Violation[] {
  const violations: Violation[] = [];
  for (const read of history.finalReads) {
    let before = -1;
    for (const { offset, leaderEpoch } of read.records) {
      if (leaderEpoch < before)
        violations.push({
          id: "L13",
          sentence: `${read.partition}@${offset} has epoch ${leaderEpoch}, the record before it ${before}`,
        });
      before = leaderEpoch;
    }
  }
  return violations;
}

/** L20: a log never begins earlier than it did. */
export function logStartSteps(history: History): Violation[] {
  const starts = new Map<string, number>();
  const violations: Violation[] = [];
  for (const { partition, offset, atMs } of history.logStarts) {
    const before = starts.get(partition) ?? 0;
    if (offset < before)
      violations.push({
        id: "L20",
        sentence: `${partition} began at ${before}, and at ${atMs.toFixed(0)} ms it began at ${offset}`,
      });
    starts.set(partition, Math.max(before, offset));
  }
  return violations;
}

/**
 * L21: a broker that was replaced acknowledges nothing that is lost. With `acks=leader` it may for a while, because it
 * cannot know at once; `zombieLimitMs` after its successor's first acknowledgement it must not any more.
 */
export function ghostAcknowledgements(history: History, zombieLimitMs: number): Violation[] {
  const violations: Violation[] = [];
  const kept = new Set(history.finalReads.flatMap((read) => read.records.map(({ value }) => value)));
  const starts = new Map(history.finalReads.map(({ partition, logStartOffset }) => [partition, logStartOffset]));
  const firsts = new Map<string, Map<number, number>>();
  for (const { operation, outcome } of acknowledged(history)) {
    if (operation.leaderEpoch === undefined) continue;
    const epochs = firsts.get(operation.partition) ?? new Map<number, number>();
    firsts.set(operation.partition, epochs);
    epochs.set(operation.leaderEpoch, Math.min(epochs.get(operation.leaderEpoch) ?? Infinity, outcome.atMs));
  }
  for (const operation of history.produces) {
    const { outcome, leaderEpoch, partition, acks } = operation;
    const start = starts.get(partition);
    if (outcome?.kind !== "ok" || leaderEpoch === undefined || start === undefined || outcome.baseOffset < start)
      continue;
    const succeededMs = Math.min(
      Infinity,
      ...[...(firsts.get(partition) ?? [])].filter(([epoch]) => epoch > leaderEpoch).map(([, atMs]) => atMs),
    );
    const allowedUntilMs = succeededMs + (acks === "leader" ? zombieLimitMs : 0);
    const lost = operation.values.find((value) => !kept.has(value));
    if (outcome.atMs <= allowedUntilMs || lost === undefined) continue;
    violations.push({
      id: "L21",
      sentence: `broker ${outcome.brokerId} acknowledged ${lost} for ${partition} at epoch ${leaderEpoch}, ${(outcome.atMs - succeededMs).toFixed(0)} ms after a later epoch had begun; it is lost`,
    });
  }
  return violations;
}

/** C1: the controller epoch grows with every controller. */
export function controllerEpochSteps(history: History): Violation[] {
  return history.controllerEpochs.flatMap((epoch, index) => {
    const before = history.controllerEpochs[index - 1];
    return before === undefined || epoch > before
      ? []
      : [{ id: "C1", sentence: `controller epoch ${epoch} came after ${before}` }];
  });
}

/** L16: replicas hold the same batches below the high watermark that both know. */
export function replicaDifferences(images: readonly ReplicaImage[]): Violation[] {
  const violations: Violation[] = [];
  for (const [partition, replicas] of groupBy(images, (image) => image.partition)) {
    const [first, ...others] = replicas;
    if (first === undefined) continue;
    for (const other of others) {
      const end = Math.min(first.highWatermark, other.highWatermark);
      const from = Math.max(first.logStartOffset, other.logStartOffset);
      const one = batchLines(first, from, end);
      const two = batchLines(other, from, end);
      const at = one.findIndex((line, index) => line !== two[index]);
      if (at < 0 && one.length === two.length) continue;
      const index = at < 0 ? one.length : at;
      violations.push({
        id: "L16",
        sentence: `${partition}: brokers ${first.brokerId} and ${other.brokerId} differ below offset ${end}: ${one[index] ?? "nothing"} and ${two[index] ?? "nothing"}`,
      });
    }
  }
  return violations;
}

/** C4: after a calm while every broker says what ZooKeeper says, leaders live, and who lives is in sync. */
export function unconverged(
  images: readonly ClusterImage[],
  expected: {
    readonly liveBrokers: ReadonlySet<number>;
    readonly replicas: ReadonlyMap<string, readonly number[]>;
    readonly minInsyncReplicas: number;
  },
): Violation[] {
  const violations: Violation[] = [];
  const complain = (sentence: string): void => void violations.push({ id: "C4", sentence });
  const [reference, ...others] = images;
  if (reference === undefined) return violations;
  for (const [partition, replicas] of expected.replicas) {
    const state = reference.partitions.get(partition);
    if (state === undefined) {
      complain(`${reference.of} does not know ${partition}`);
      continue;
    }
    const live = replicas.filter((id) => expected.liveBrokers.has(id));
    if (!expected.liveBrokers.has(state.leaderId)) complain(`${partition} is led by ${state.leaderId}, which is dead`);
    if (sorted(state.isr) !== sorted(live))
      complain(`${partition}: in sync are ${sorted(state.isr)}, alive are ${sorted(live)}`);
    if (live.length >= expected.minInsyncReplicas && state.isr.length < expected.minInsyncReplicas)
      complain(`${partition} has ${state.isr.length} in-sync replicas`);
    for (const other of others) {
      const seen = other.partitions.get(partition);
      if (describe(seen) !== describe(state))
        complain(`${partition}: ${reference.of} says ${describe(state)}, ${other.of} says ${describe(seen)}`);
    }
  }
  return violations;
}

/** Every promise that a history alone can decide. */
export function brokenPromises(history: History, zombieLimitMs: number): Violation[] {
  const kept = withoutPermittedLosses(history);
  return [
    acknowledgementsWithoutOffset,
    lostAcknowledgements,
    readsAboveHighWatermark,
    returnedRecords,
    refusedYetRead,
    phantoms,
    wrongIncarnations,
    differentValues,
    duplicates,
    reorderings,
    realTimeDisorder,
    consumerSteps,
    unstableReads,
    twoLeaders,
    epochDisorder,
    logStartSteps,
    controllerEpochSteps,
    (all: History) => ghostAcknowledgements(all, zombieLimitMs),
  ].flatMap((check) => check(kept));
}

interface Observation {
  readonly by: string;
  readonly partition: string;
  readonly offset: number;
  readonly value: string;
  readonly at: string;
}

/** What was read in a history of so many entries. Several checkers ask for it. */
const known = new WeakMap<
  History,
  { readonly deliveries: number; readonly reads: number; readonly seen: Observation[] }
>();

/** Everything that anybody has read. */
function observations(history: History): readonly Observation[] {
  const { deliveries, finalReads } = history;
  const before = known.get(history);
  if (before?.deliveries === deliveries.length && before.reads === finalReads.length) return before.seen;
  const seen: Observation[] = [];
  const add = (by: string, partition: string, offset: number, value: string): void =>
    void seen.push({ by, partition, offset, value, at: `${partition}@${offset}` });
  for (const entry of deliveries)
    if ("offset" in entry) add(entry.consumer, entry.partition, entry.offset, entry.value);
  for (const { via, partition, records } of finalReads) {
    const by = `the final read by way of ${via}`;
    for (const { offset, value } of records) add(by, partition, offset, value);
  }
  known.set(history, { deliveries: deliveries.length, reads: finalReads.length, seen });
  return seen;
}

function acknowledged(history: History): Acknowledged[] {
  return history.produces.flatMap((operation) => {
    const { outcome, acks, values } = operation;
    if (outcome?.kind !== "ok" || acks !== "all") return [];
    return values.map((value, index) => ({ operation, outcome, value, offset: outcome.baseOffset + index }));
  });
}

const place = ({ partition, offset }: { readonly partition: string; readonly offset: number }): string =>
  `${partition}@${offset}`;

const sorted = (ids: readonly number[]): string => [...ids].sort((left, right) => left - right).join(",");

const describe = (state: { leaderId: number; leaderEpoch: number; isr: readonly number[] } | undefined): string =>
  state === undefined ? "nothing" : `leader ${state.leaderId}@${state.leaderEpoch}, in sync ${sorted(state.isr)}`;

function batchLines(image: ReplicaImage, from: number, end: number): string[] {
  return image.batches
    .filter(({ baseOffset }) => baseOffset >= from && baseOffset < end)
    .map(({ baseOffset, leaderEpoch, crc }) => `batch at ${baseOffset}, epoch ${leaderEpoch}, crc ${crc}`);
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group === undefined) groups.set(key(item), [item]);
    else group.push(item);
  }
  return groups;
}
