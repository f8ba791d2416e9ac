import { getEventListeners } from "node:events";
import { onAbort } from "../../../common/on-abort.js";

/** Goal: any number may listen to one signal, and Node sees one. */
describe("onAbort", () => {
  it("calls each that listens once, and none that has stopped", () => {
    const controller = new AbortController();
    const called: number[] = [];
    const stops = Array.from({ length: 40 }, (_, index) => onAbort(controller.signal, () => called.push(index)));
    expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
    for (const stop of stops.slice(0, 38)) stop();
    stops[0]!();
    controller.abort();
    expect(called).toEqual([38, 39]);
  });

  it("leaves no listener behind when the last has stopped, and begins anew", () => {
    const { signal } = new AbortController();
    onAbort(signal, () => undefined)();
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
    const stop = onAbort(signal, () => undefined);
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    stop();
  });

  it("does not call what an earlier listener has stopped", () => {
    const controller = new AbortController();
    let calls = 0;
    onAbort(controller.signal, () => stop());
    const stop = onAbort(controller.signal, () => (calls += 1));
    controller.abort();
    expect(calls).toBe(0);
  });

  it("keeps two that are the same function apart", () => {
    const controller = new AbortController();
    let calls = 0;
    const listener = (): void => void (calls += 1);
    onAbort(controller.signal, listener)();
    onAbort(controller.signal, listener);
    onAbort(controller.signal, listener);
    controller.abort();
    expect(calls).toBe(2);
  });

  it("never calls for a signal that is aborted already, or for none", () => {
    const listener = (): void => {
      throw new Error("called");
    };
    onAbort(AbortSignal.abort(), listener)();
    onAbort(undefined, listener)();
  });
});
