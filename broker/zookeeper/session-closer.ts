import type { Env } from "../../common/env/env.js";
import type { Timer } from "../../common/env/time.js";
import type { ZooKeeperConnection, ZooKeeperSessionToken } from "../../common/env/zookeeper-connection.js";
import { ServerRotation } from "./server-list.js";
import type { ZooKeeperServer } from "./server-list.js";

/** How long one server may take before the next is asked. */
const attemptMaxMs = 1000;
const pauseMs = 50;
/**
 * Whoever takes a session up gives it another timeout. The least that the servers grant: if the end does not reach them, it is
 * over soon all the same, and its nodes do not stand for a process that is gone.
 */
const proposedTimeoutMs = 1;

/**
 * Takes up a session and ends it, asking one server after the other until one confirms that it is over, or says that it is
 * over already. Resolves with false when none did within `timeoutMs`.
 */
export function closeFormerSession(
  env: Env,
  servers: readonly ZooKeeperServer[],
  token: ZooKeeperSessionToken,
  timeoutMs: number,
): Promise<boolean> {
  const rotation = new ServerRotation(servers, env.random);
  return new Promise((resolve) => {
    let connection: ZooKeeperConnection | undefined;
    let pause: Timer | undefined;
    let isOver: boolean | undefined;

    const finish = (over: boolean): void => {
      if (isOver !== undefined) return;
      isOver = over;
      deadline.cancel();
      pause?.cancel();
      connection?.destroy();
      resolve(over);
    };
    const tryNext = (): void => {
      const attemptDeadline = env.timers.after(attemptMaxMs, () => opened.destroy());
      const opened = env.zookeeper.open(
        { ...rotation.next(), sessionTimeoutMs: proposedTimeoutMs, session: token },
        {
          onConnected: () => opened.closeSession(),
          onSessionExpired: () => finish(true),
          onWatch: () => undefined,
          onClosed: (error) => {
            attemptDeadline.cancel();
            if (isOver !== undefined) return;
            if (error === undefined) finish(true);
            else pause = env.timers.after(pauseMs, tryNext);
          },
        },
      );
      connection = opened;
    };
    const deadline = env.timers.after(timeoutMs, () => finish(false));
    tryNext();
  });
}
