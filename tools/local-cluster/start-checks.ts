import { parseConnectString } from "../../broker/zookeeper/server-list.js";
import { reasonOf } from "../../common/logger.js";
import { ApiError } from "../../protocol/error-codes.js";
import { CliError, usageError } from "../cli/cli-error.js";
import { SETTINGS_HINT, told } from "../cli/in-flags.js";
import { plural } from "../cli/quantities.js";

/** What a cluster was asked for and cannot be given is told before anything is made for it. All of these throw CliError. */

const PORT_MAX = 65_535;

/** What `ottla up` gives each broker itself. */
const ownSettings: Readonly<Record<string, string>> = {
  "broker.id": "brokers are numbered from 1 on",
  "log.dir": "use --data",
  "log.dirs": "use --data",
  "zookeeper.connect": "use --zookeeper",
  listeners: "use --port",
  "advertised.listeners": "use --port",
  "inter.broker.listener.name": "leave it out",
};

/** `source` says where the text stands. */
export function checkConnectString(text: string, source: string): void {
  try {
    parseConnectString(text);
  } catch (error) {
    const [what = "", hint] = reasonOf(error).split("; ");
    throw new CliError("INVALID_CONFIG", `${source}: ${what}`, {
      ...(hint === undefined ? {} : { hint }),
      exitCode: 2,
    });
  }
}

/** Settings of all brokers: every name and value, before the first broker finds out. */
export async function checkSettings(settings: Readonly<Record<string, string>>): Promise<void> {
  const own = Object.keys(settings).find((name) => Object.hasOwn(ownSettings, name));
  if (own !== undefined)
    throw usageError(`--set ${own} is not for ottla up, which gives each broker its own`, ownSettings[own]);
  const { BrokerConfig } = await import("../../broker/config.js");
  try {
    new BrokerConfig(settings);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const { message, hint } = told({
      code: error.errorName,
      what: error.message,
      hint: SETTINGS_HINT,
    });
    throw new CliError(error.errorName, `--set: ${message}`, { hint, exitCode: 2, cause: error });
  }
}

/** Whether all ports that were asked for are ports, and none of them is asked for twice. */
export function checkPorts(
  { port, zookeeperPort }: { readonly port?: number | undefined; readonly zookeeperPort?: number | undefined },
  ofBrokers: readonly (number | undefined)[],
  zookeepers: number,
): void {
  const { length: count } = ofBrokers;
  const tooHigh = ofBrokers.find((one) => one !== undefined && one > PORT_MAX);
  if (tooHigh !== undefined) {
    const what = port === undefined ? "--brokers" : "--port";
    throw usageError(
      `${what} ${port ?? count} would give broker ${ofBrokers.indexOf(tooHigh) + 1} port ${tooHigh}, and ${PORT_MAX} is the last`,
      port === undefined
        ? `ask for ${ofBrokers.indexOf(tooHigh)} at most`
        : `give ${PORT_MAX - count + 1} at most to ${plural(count, "broker")}`,
    );
  }
  if (zookeeperPort === undefined) return;
  if (zookeepers === 0)
    throw usageError("--zookeeper-port is for servers that ottla up starts", "leave it out, or leave out --zookeeper");
  if (zookeeperPort + zookeepers - 1 > PORT_MAX)
    throw usageError(
      `--zookeeper-port ${zookeeperPort} has no room for ${plural(zookeepers, "server")}: ${PORT_MAX} is the last port`,
      `give ${PORT_MAX - zookeepers + 1} at most`,
    );
  for (let id = 1; id <= zookeepers; id += 1) {
    const broker = ofBrokers.indexOf(zookeeperPort + id - 1);
    if (broker >= 0)
      throw usageError(
        `--zookeeper-port ${zookeeperPort} would give ZooKeeper server ${id} the port of broker ${broker + 1}, ${zookeeperPort + id - 1}`,
        "choose another one, or another --port",
      );
  }
}
