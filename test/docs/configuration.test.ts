import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { brokerSettings, topicSettings } from "../../broker/config.js";
import type { SettingEntry } from "../../broker/config.js";
import { configurationManual } from "../../tools/configuration-manual.js";

describe("docs/configuration.md", () => {
  it("says what the tables of settings say", () => {
    expect(readFileSync("docs/configuration.md", "utf8")).toBe(configurationManual());
  });

  it("names no setting that nobody reads", () => {
    const sources = (readdirSync("broker", { recursive: true }) as string[])
      .filter((name) => name.endsWith(".ts"))
      .map((name) => readFileSync(join("broker", name), "utf8"))
      .join("\n");
    const isRead = (name: string): boolean => new RegExp(`(get|startedWith)\\("${name}"\\)`).test(sources);
    const topics = Object.entries<SettingEntry>(topicSettings);
    const isInherited = (name: string): boolean =>
      topics.some(([own, entry]) => entry.brokerDefault === name && isRead(own));
    const unread = Object.keys(brokerSettings).filter((name) => !isRead(name) && !isInherited(name));
    expect([...unread, ...topics.filter(([name]) => !isRead(name)).map(([name]) => name)]).toEqual(["cleanup.policy"]);
  });
});
