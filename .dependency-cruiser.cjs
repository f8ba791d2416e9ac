/** Who may import whom; docs/architecture.md draws the same picture. */
const forbid = (name, from, to, comment) => ({ name, severity: "error", comment, from, to });

module.exports = {
  forbidden: [
    forbid(
      "no-cycles",
      {},
      { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
      "A cycle has no order to be read in.",
    ),
    forbid(
      "common-is-the-ground",
      { path: "^common/" },
      { path: "^(protocol|client|broker|tools|test)/" },
      "common/ imports nothing of ours.",
    ),
    forbid(
      "protocol-knows-neither-side",
      { path: "^protocol/" },
      { path: "^(client|broker|tools|test)/" },
      "protocol/ imports common/ only.",
    ),
    forbid(
      "client-and-broker-are-strangers",
      { path: "^client/" },
      { path: "^(broker|tools|test)/" },
      "The client is a package of its own.",
    ),
    forbid(
      "broker-is-not-a-client",
      { path: "^broker/" },
      { path: "^(client|tools|test)/" },
      "Brokers speak protocol/.",
    ),
    forbid(
      "tools-read-segments-only",
      { path: "^tools/" },
      { path: "^broker/", pathNot: "^broker/(log/|config\\.ts$|zookeeper/|main\\.ts$)" },
      "Tools start brokers as processes.",
    ),
    forbid("nothing-imports-test", { pathNot: "^(test|bench)/" }, { path: "^test/" }, "Tests are leaves."),
    forbid(
      "log-is-below-partition",
      { path: "^broker/log/" },
      { path: "^broker/(?!log/)" },
      "The data path never turns back.",
    ),
    forbid(
      "log-has-one-door",
      { path: "^(broker/(?!log/)|tools/)" },
      { path: "^broker/log/(?!index\\.ts$)" },
      "What others know of logs is named in broker/log/index.ts.",
    ),
    forbid(
      "log-has-no-circles",
      { path: "^broker/log/" },
      { circular: true },
      "Not even of types: each storey is understood with what is below it.",
    ),
    forbid(
      "log-files-are-the-ground",
      { path: "^broker/log/files/" },
      { path: "^broker/log/(?!files/)" },
      "Names and small files know nothing of what is kept in them.",
    ),
    forbid(
      "log-segments-are-above-files",
      { path: "^broker/log/segment/" },
      { path: "^broker/log/(?!files/|segment/|log-settings\\.ts$)" },
      "A segment does not know which log it belongs to.",
    ),
    forbid(
      "log-content-is-above-segments",
      { path: "^broker/log/content/" },
      { path: "^broker/log/(?!files/|segment/|content/|log-settings\\.ts$)" },
      "What a log holds does not know what is done to it.",
    ),
    forbid(
      "log-operations-are-above-content",
      { path: "^broker/log/operations/" },
      { path: "^broker/log/(?!files/|segment/|content/|operations/|log-settings\\.ts$)" },
      "An operation does not know the log that gives it its turn.",
    ),
    forbid(
      "partition-is-below-api",
      { path: "^broker/partition/" },
      { path: "^broker/(api|net|controller|zookeeper)/" },
      "The data path never turns back; Partition learns its role by being told.",
    ),
    forbid(
      "api-is-below-net",
      { path: "^broker/api/" },
      { path: "^broker/net/", dependencyTypesNot: ["type-only"] },
      "Handlers know sockets by type only.",
    ),
    forbid(
      "zookeeper-is-below-controller",
      { path: "^broker/zookeeper/" },
      { path: "^broker/(?!zookeeper/)" },
      "The control path never turns back.",
    ),
    forbid(
      "nothing-imports-broker-ts",
      { path: "^broker/", pathNot: "^broker/main\\.ts$" },
      { path: "^broker/broker\\.ts$" },
      "broker.ts knows every part; no part knows it.",
    ),
    forbid(
      "generated-code-has-one-door",
      { pathNot: "^protocol/" },
      { path: "^protocol/generated/" },
      "Messages are reached through protocol/messages.ts.",
    ),
    forbid(
      "not-to-dev-dependencies",
      { path: "^(broker|client|common|protocol|tools)/" },
      { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"] },
      "Shipped code uses run-time dependencies only.",
    ),
  ],
  options: {
    tsConfig: { fileName: "tsconfig.test.json" },
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    exclude: { path: "^dist/" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node", "default"] },
  },
};
