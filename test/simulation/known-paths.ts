import { paths } from "../../broker/zookeeper/znodes.js";

/**
 * Paths that are asked for after each event. A text that is built anew must be hashed anew wherever something is looked up
 * by it, which costs more than the look.
 */
export const logDirectory = builtOnce((topic, partition) => `/data/logs/${topic}-${partition}`);
export const statePath = builtOnce(paths.partitionState);

type PathOf = (topic: string, partition: number) => string;

function builtOnce(build: PathOf): PathOf {
  const known = new Map<string, string[]>();
  return (topic, partition) => {
    let ofTopic = known.get(topic);
    if (ofTopic === undefined) known.set(topic, (ofTopic = []));
    return (ofTopic[partition] ??= build(topic, partition));
  };
}
