import type { Env } from "../../common/env/env.js";
import { sleep } from "../../common/env/time.js";
import { ApiError } from "../../protocol/error-codes.js";
import type { ZooKeeper } from "../zookeeper/zookeeper.js";
import { ZooKeeperError } from "../zookeeper/zookeeper-error.js";
import type { Administration } from "./administration.js";
import type { ControllerApi } from "./controller-api.js";
import type { ControllerEvent, ControllerQueue } from "./controller-event.js";
import { ControllerFenced, StoreDiffers, isInDoubt } from "./controller-store.js";
import type { ControllerStore } from "./controller-store.js";

/** A request fails after this time when ZooKeeper is away. */
const ZOOKEEPER_PATIENCE_MS = 4000;
/** Of requests that name none. */
const TIMEOUT_MS = 30_000;
/** How long an answer waits for the brokers to have heard what was done. */
const SPREAD_MS_MAX = 3000;
const WAITING_MAX = 1000;

interface AdministrationRequestsParts {
  readonly zookeeper: ZooKeeper;
  readonly store: ControllerStore;
  readonly queue: ControllerQueue;
  readonly administration: Administration;
  /** Resolves when the brokers that can be reached have heard of all that is committed. */
  readonly heard: () => Promise<unknown>;
  readonly notController: () => ApiError;
}

/**
 * Requests of operators, and of brokers that stop. Each waits for its turn as an event, is answered when the brokers that can
 * be reached have heard of what was done, and fails typed and in time: when ZooKeeper is away, when its time is up, when the
 * controllership is lost.
 */
export class AdministrationRequests implements Omit<ControllerApi, "alterPartitions"> {
  /** Rejections of requests that wait. */
  readonly #waiting = new Set<(error: ApiError) => void>();
  #hasEnded = false;

  constructor(
    private readonly env: Env,
    private readonly parts: AdministrationRequestsParts,
  ) {}

  /** Whoever waits, and whoever comes, is told NOT_CONTROLLER. */
  end(): void {
    this.#hasEnded = true;
    for (const reject of [...this.#waiting]) reject(this.parts.notController());
  }

  readonly createTopics: ControllerApi["createTopics"] = async (request) => {
    const topics = await this.#run("createTopics", request.timeoutMs, () =>
      this.parts.administration.createTopics(request),
    );
    if (!request.validateOnly) await this.#spread(request.timeoutMs);
    return { topics };
  };

  readonly deleteTopics: ControllerApi["deleteTopics"] = async (request) => {
    const topics = await this.#run("deleteTopics", request.timeoutMs, () =>
      this.parts.administration.deleteTopics(request),
    );
    await this.#spread(request.timeoutMs);
    return { topics };
  };

  readonly createPartitions: ControllerApi["createPartitions"] = async (request) => {
    const topic = await this.#run("createPartitions", request.timeoutMs, () =>
      this.parts.administration.createPartitions(request),
    );
    await this.#spread(request.timeoutMs);
    return { topic };
  };

  readonly alterConfigs: ControllerApi["alterConfigs"] = async (request) => {
    await this.#run("alterConfigs", 0, () => this.parts.administration.alterConfigs(request));
    if (!request.validateOnly) await this.#spread(0);
    return {};
  };

  readonly electLeaders: ControllerApi["electLeaders"] = async (request) => {
    const partitions = await this.#run("electLeaders", 0, () => this.parts.administration.electLeaders(request));
    await this.#spread(0);
    return { partitions };
  };

  readonly controlledShutdown: ControllerApi["controlledShutdown"] = async (request) => ({
    remaining: await this.#run("controlledShutdown", 0, () => this.parts.administration.controlledShutdown(request)),
  });

  /** Runs `work` as an event. */
  async #run<T>(what: string, requestTimeoutMs: number, work: () => Promise<T>): Promise<T> {
    const timeoutMs = requestTimeoutMs > 0 ? requestTimeoutMs : TIMEOUT_MS;
    const { zookeeper, store, queue } = this.parts;
    if (this.#hasEnded) throw this.parts.notController();
    if (this.#waiting.size >= WAITING_MAX) {
      throw new ApiError(
        "BROKER_OVERLOADED",
        `${this.#waiting.size} administration requests wait at the controller; ask later`,
      );
    }
    return new Promise<T>((resolve, reject) => {
      let hasBegun = false;
      const event: ControllerEvent = {
        kind: "Administration",
        run: async () => {
          hasBegun = true;
          const { writeCount } = store;
          try {
            const result = await work();
            end();
            resolve(result);
          } catch (error) {
            hasBegun = isInDoubt(error) || store.writeCount > writeCount;
            fail(refusalOf(what, error, this.parts.notController));
            throw error;
          }
        },
      };
      const end = (): void => {
        patience.cancel();
        limit.cancel();
        this.#waiting.delete(fail);
        // Its sender was told that it failed: it must not happen after all.
        queue.remove(event);
      };
      const fail = (error: ApiError): void => {
        end();
        // What has begun may be done, or may be done yet: to say that it failed would be a guess.
        const mayPass = error.retriable && error.errorName !== "REQUEST_TIMED_OUT";
        reject(
          hasBegun && mayPass ? new ApiError("REQUEST_TIMED_OUT", `${what} may be done: ${error.message}`) : error,
        );
      };
      const patience = this.env.timers.after(ZOOKEEPER_PATIENCE_MS, () => {
        if (zookeeper.state !== "connected") fail(zookeeperUnavailable(what, "it has not answered for some seconds"));
      });
      const limit = this.env.timers.after(timeoutMs, () => {
        fail(
          new ApiError("REQUEST_TIMED_OUT", `${what} was not done within ${timeoutMs} ms; look before you repeat it`),
        );
      });
      this.#waiting.add(fail);
      queue.add(event);
    });
  }

  /** So that whoever asked finds it done wherever it looks. */
  async #spread(timeoutMs: number): Promise<void> {
    const limitMs = Math.min(SPREAD_MS_MAX, timeoutMs > 0 ? timeoutMs : SPREAD_MS_MAX);
    const limit = new AbortController();
    await Promise.race([this.parts.heard(), sleep(this.env.timers, limitMs, limit.signal).catch(() => undefined)]);
    limit.abort(new Error("heard"));
  }
}

/** What the sender of a request is told when its event failed. */
export function refusalOf(what: string, error: unknown, notController: () => ApiError): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof ControllerFenced) return notController();
  if (error instanceof StoreDiffers || error instanceof ZooKeeperError)
    return zookeeperUnavailable(what, error.message);
  return new ApiError("UNKNOWN_SERVER_ERROR", undefined, { cause: error });
}

function zookeeperUnavailable(what: string, why: string): ApiError {
  return new ApiError("ZOOKEEPER_UNAVAILABLE", `${what}: ZooKeeper does not answer as it should (${why})`);
}
