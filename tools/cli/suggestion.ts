import { nearestName } from "../../common/nearest-name.js";

/** `did you mean X?`, or undefined when nothing known is near. */
export function didYouMean(given: string, known: Iterable<string>): string | undefined {
  const nearest = nearestName(given, known);
  return nearest === undefined ? undefined : `did you mean ${nearest}?`;
}
