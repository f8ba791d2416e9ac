import type { Handlers, RequestContext } from "../../../../broker/net/request-context.js";
import { RequestRouter } from "../../../../broker/net/request-router.js";
import { silentLogger } from "../../../../common/logger.js";
import type { DecodedRequest } from "../../../../protocol/message-codec.js";

describe("RequestRouter", () => {
  it("tells its log once of an unexpected failure that comes again and again, until such a request succeeds", async () => {
    const lines: unknown[] = [];
    let failure: Error | undefined;
    const handlers = {
      initProducerId: () => (failure === undefined ? { body: {} } : Promise.reject(failure)),
    } as unknown as Handlers;
    const logger = { ...silentLogger, error: (sentence: string) => void lines.push(sentence) };
    const router = new RequestRouter(logger, handlers, () => undefined);
    const request: DecodedRequest = { correlationId: 1, kind: "initProducerId", body: {}, records: [] };
    const ask = (error: Error | undefined): Promise<void> => {
      failure = error;
      return new Promise((resolve) => router.route(request, {} as RequestContext, () => resolve()));
    };
    for (let count = 0; count < 10; count += 1) await ask(new Error("it is damaged"));
    expect(lines).toEqual(["initProducerId failed in an unexpected way"]);
    await ask(new Error("it is damaged otherwise"));
    expect(lines).toHaveLength(2);
    await ask(undefined);
    await ask(new Error("it is damaged otherwise"));
    expect(lines).toHaveLength(3);
  });
});
