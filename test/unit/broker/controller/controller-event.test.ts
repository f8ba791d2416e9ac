import { ControllerQueue } from "../../../../broker/controller/controller-event.js";

const administration = (): { kind: "Administration"; run: () => Promise<void> } => ({
  kind: "Administration",
  run: () => Promise.resolve(),
});

describe("ControllerQueue", () => {
  it("gives what happened to the cluster before what somebody wants of it", async () => {
    const queue = new ControllerQueue();
    queue.add(administration());
    queue.add({ kind: "IsrProposed" });
    queue.add({ kind: "BrokersChanged" });
    queue.add({ kind: "BrokersDead", suspects: [] });
    const kinds = [];
    for (let count = 0; count < 4; count++) kinds.push((await queue.next())?.kind);
    expect(kinds).toEqual(["BrokersChanged", "BrokersDead", "Administration", "IsrProposed"]);
  });

  it("keeps one of each kind that says nothing more when said twice", async () => {
    const queue = new ControllerQueue();
    for (let times = 0; times < 3; times++) {
      queue.add({ kind: "BrokersChanged" });
      queue.add(administration());
    }
    const kinds = [];
    for (let count = 0; count < 4; count++) kinds.push((await queue.next())?.kind);
    expect(kinds).toEqual(["BrokersChanged", "Administration", "Administration", "Administration"]);
  });

  it("holds nothing of an event that was taken back, and goes on with the next", async () => {
    const queue = new ControllerQueue();
    const first = administration();
    const second = administration();
    queue.add(first);
    queue.add(second);
    expect(queue.length).toBe(2);
    queue.remove(first);
    expect(queue.length).toBe(1);
    expect(await queue.next()).toBe(second);
    // Taken back too late: somebody works on it already.
    queue.remove(second);
    expect(queue.length).toBe(0);
  });

  it("lets a waiting reader go when it is woken for nothing", async () => {
    const queue = new ControllerQueue();
    const next = queue.next();
    queue.wake();
    expect(await next).toBeUndefined();
  });
});
