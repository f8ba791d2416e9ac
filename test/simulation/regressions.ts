/**
 * Seeds that failed once, and what they showed. They are run with the fixed ones. A change to the workload or to the code
 * makes another run of a seed, so what matters was made a named scenario too; this list remembers how it was found.
 */
export const regressions: readonly { readonly seed: number; readonly showed: string; readonly scenario: string }[] = [
  {
    seed: 25,
    showed: "after a power cut a replica with a cut log was elected while an eligible one was only restarting",
    scenario: "last-replica-standing",
  },
  {
    seed: 27,
    showed: "followers of a topic that syncs were not told of a record that nothing came behind",
    scenario: "in-sync-replicas",
  },
  {
    seed: 30,
    showed: "a broker that had just started said that a topic does not exist",
    scenario: "topics",
  },
  {
    seed: 70,
    showed: "the client library called a record refused that a deposed leader had passed on",
    scenario: "producers",
  },
  {
    seed: 97,
    showed: "a follower that had led without a record and its leader never agreed where their logs part",
    scenario: "in-sync-replicas",
  },
  {
    seed: 138,
    showed: "a proposal of in-sync replicas that was sent twice and refused stayed pending for ever",
    scenario: "in-sync-replicas",
  },
  {
    seed: 1256,
    showed: "a hint made the client library forget which partition it was about, and believe a leader of the past",
    scenario: "consumers",
  },
];
