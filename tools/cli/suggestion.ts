import { nearestName } from "../../common/nearest-name.js";

/** `did you mean X?`, or undefined when nothing known is near. Of one or two letters anything would be. */
export function didYouMean(given: string, known: Iterable<string>): string | undefined {
  const isShort = given.replace(/^-+/, "").length < 3;
  const begun = [...known].filter((name) => given !== "" && name.startsWith(given));
  const nearest = isShort ? begun[0] : nearestName(given, known);
  return nearest === undefined ? undefined : `did you mean ${nearest}?`;
}
