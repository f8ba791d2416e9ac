/**
 * When an append counts as written.
 * `page-cache`: once the operating system has it; it survives the process, and replication is what survives the machine.
 * `fsync`: once the disk has it.
 */
export type Durability = "page-cache" | "fsync";

/** Settings of one log, with Kafka's names. Replaced as a whole while the log runs. */
export interface LogSettings {
  /** The active segment is closed before it would grow over this. */
  readonly segmentBytes: number;
  /** The active segment is closed once its records span more than this. */
  readonly segmentMs: number;
  /** Segments whose newest record is older than this are deleted; -1 keeps them for ever. */
  readonly retentionMs: number;
  /** Oldest segments are deleted while the log is larger than this without them; -1 is no limit. */
  readonly retentionBytes: number;
  readonly durability: Durability;
  /** With `page-cache`: the longest that written bytes wait for a sync in the background. */
  readonly flushMs: number;
  /** Bytes of log between two entries of its indexes. */
  readonly indexIntervalBytes: number;
  /** The largest batch that a leader accepts. */
  readonly maxMessageBytes: number;
  /** How long the files of a deleted segment stay, so that readers who just found them can finish. */
  readonly fileDeleteDelayMs: number;
  /** An idempotent producer that was silent for this long is forgotten. */
  readonly producerIdExpirationMs: number;
  /** More idempotent producers than this are not remembered; the one that was silent longest goes first. */
  readonly producersMax: number;
}
