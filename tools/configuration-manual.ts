import type { SettingEntry } from "../broker/config.js";
import { brokerSettings, topicSettings } from "../broker/config.js";

/** docs/configuration.md, printed from the tables of settings. `npm run docs` writes it; a test compares. */
export function configurationManual(): string {
  return [
    "# Configuration",
    "",
    "<!-- Printed from broker/config.ts by `npm run docs`; edit the table there. -->",
    "",
    "A broker is given settings with `--set NAME=VALUE` or `--config FILE` (lines of `NAME=VALUE`). Names are Kafka's where Kafka",
    "has the setting. An unknown name is an error that names the nearest one. Settings marked *at run time* can also be changed",
    "while brokers run, for all of them or for one: `ottla config set broker ID NAME=VALUE`, or `default` in place of the id.",
    "`min.insync.replicas` and `log.durability` are changed for all of them or for a topic, never for one.",
    "",
    "## Settings of a broker",
    "",
    ...table(brokerSettings),
    "",
    "## Settings of a topic",
    "",
    "Given at creation (`ottla topic create NAME --config NAME=VALUE`) or later (`ottla config set topic NAME NAME=VALUE`), always at",
    "run time. What a topic does not set, it has from the broker's setting named in the last column.",
    "",
    ...table(topicSettings),
    "",
  ].join("\n");
}

function table(settings: Readonly<Record<string, SettingEntry>>): string[] {
  const rows = Object.entries(settings).map(([name, entry]) => {
    const remark = entry.brokerDefault ?? (entry.dynamic ? "at run time" : "");
    return `| \`${name}\` | ${typeOf(entry)} | ${shown(entry.default)} | ${rangeOf(entry)} | ${entry.doc} | ${remark} |`;
  });
  return ["| Name | Type | Default | Range | What it does | |", "| --- | --- | --- | --- | --- | --- |", ...rows];
}

const typeOf = (entry: SettingEntry): string =>
  entry.unit === undefined ? entry.type : `${entry.type} (${entry.unit})`;
const shown = (value: SettingEntry["default"]): string => (value === "" ? "*none*" : `\`${value}\``);

function rangeOf(entry: SettingEntry): string {
  if (entry.choices !== undefined) return entry.choices.map((choice) => `\`${choice}\``).join(", ");
  if (entry.least === undefined && entry.most === undefined) return "";
  return entry.most === undefined ? `from ${entry.least}` : `${entry.least} to ${entry.most}`;
}
