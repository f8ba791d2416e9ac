/**
 * Seeds of the swarm that failed once, and what they showed. A change to a world or to the code makes another run of a seed,
 * so what matters was made a named test too; this list remembers how it was found. What was wrong in the swarm alone has the
 * seed only.
 */
export const regressions: readonly { readonly seed: number; readonly showed: string; readonly test: string }[] = [
  {
    seed: 2,
    showed: "a start that was killed while it copied a segment left the same batches in two files",
    test: "test/unit/broker/log/copied-segments.test.ts",
  },
  {
    seed: 6,
    showed: "zeros stood in front of the log start after unsynced records were deleted and the power failed",
    test: "test/unit/broker/log/deleted-unsynced.test.ts",
  },
  {
    seed: 12,
    showed: "a broker that was killed in its start after a power cut was preferred to one with a longer log",
    test: "test/unit/broker/controller/partition-state-machine.test.ts",
  },
  {
    seed: 29,
    showed: "a follower that stopped lost its seat for the sake of a leader that had died without a word",
    test: "test/simulation/controller-evidence.test.ts",
  },
  {
    seed: 39,
    showed: "a broker that lost synced records in a crash counted as certain",
    test: "test/unit/broker/log/log-recovery.test.ts",
  },
  {
    seed: 40,
    showed: "a follower of an idle partition was never in sync again",
    test: "test/simulation/scenarios/in-sync-replicas.test.ts",
  },
  {
    seed: 44,
    showed: "a follower cut its log before what was committed when its leader had deleted all that they had in common",
    test: "test/simulation/scenarios/delete-records.test.ts",
  },
  {
    seed: 7007,
    showed: "two faults that slowed one disk down ended in the wrong order, and the disk was slow in the calm",
    test: "the seed itself",
  },
  {
    seed: 7048,
    showed: "clients served a topic twice that had partitions added, or was met by a new client, before all knew of it",
    test: "the seed itself",
  },
  {
    seed: 7075,
    showed: "what a cut whose sync had failed took off a file stood in it again after a power cut",
    test: "test/unit/broker/log/copied-segments.test.ts",
  },
  {
    seed: 7081,
    showed: "a reader of the least kind did not ask again for a batch that was damaged",
    test: "the seed itself",
  },
  {
    seed: 7139,
    showed: "nobody looked again for rot when the first look was cut short by a crash",
    test: "the seed itself",
  },
  {
    seed: 7175,
    showed: "a record that had waited for its topic was given all of its time anew",
    test: "test/unit/client/waiting-records.test.ts",
  },
  {
    seed: 7114,
    showed:
      "a start that could not end the former process's session made it live longer, and its broker was not waited for",
    test: "test/simulation/scenarios/fencing.test.ts",
  },
  {
    seed: 7240,
    showed:
      "when the last member had lost its disk, one from outside the ISR that had kept all was elected, and was not to be",
    test: "the seed itself",
  },
  {
    seed: 8126,
    showed: "a log whose first write was torn by a crash was synced from then on, and its directory was not",
    test: "test/unit/broker/log/log-recovery.test.ts",
  },
  {
    seed: 202120324,
    showed:
      "a state that was on its way when its leader lost its power took the seat of one that had more, a known gap",
    test: "the seed itself",
  },
  {
    seed: 287782523,
    showed: "a reader of sessions waited for records of one partition before it asked for those of another",
    test: "the seed itself",
  },
  {
    seed: 287782583,
    showed:
      "the files of a segment were closed while a flush wrote its indexes, and nobody could read it until the next start",
    test: "test/unit/broker/log/log-manager.test.ts",
  },
  {
    seed: 1898531880,
    showed: "what was on its way to ZooKeeper in a cut of all power was forgotten with the next cut",
    test: "the seed itself",
  },
  {
    seed: 452560217,
    showed: "a follower that cut its log came upon rot in front of the cut, and cut there, below what was committed",
    test: "test/unit/broker/log/log-faults.test.ts",
  },
  {
    seed: 452560222,
    showed: "a broker that was killed as it put a stray log aside counted as one that had lost its disk",
    test: "test/unit/broker/log/log-manager.test.ts",
  },
  {
    seed: 41387,
    showed:
      "what a read found damaged was noted when its replica had been cut and held nothing any more: it was cut for ever",
    test: "test/unit/broker/log/log-faults.test.ts",
  },
  {
    seed: 60747,
    showed:
      "a segment that was damaged from end to end counted as older than anything, and all replicas deleted its records",
    test: "test/unit/broker/log/log-faults.test.ts",
  },
  {
    seed: 801118548,
    showed:
      "a leader counted what a member had told before its machine lost power, though it knew of its new registration",
    test: "test/unit/broker/partition/followers.test.ts",
  },
  {
    seed: 898087156,
    showed: "a fetch that arrived on a connection which its replica had given up put that replica out of sync",
    test: "test/simulation/scenarios/replica-fetches.test.ts",
  },
  {
    seed: 1459257354,
    showed:
      "the file of epochs was of a later log start than became durable, and a follower cut off what was committed",
    test: "test/unit/broker/log/what-was-cut.test.ts",
  },
  {
    seed: 1508841704,
    showed:
      "retention removed batches whose producers stood in no durable snapshot: one was appended twice after a power cut",
    test: "test/unit/broker/log/log-producers.test.ts",
  },
  {
    seed: 1695276074,
    showed:
      "a log of which all records were deleted forgot its epoch at a start, and a replica that held less was elected",
    test: "test/unit/broker/log/what-was-cut.test.ts",
  },
  {
    seed: 1879394848,
    showed: "a start found that something was lost, cut the log and was killed before it had told anybody",
    test: "test/unit/broker/log/log-recovery.test.ts",
  },
];
