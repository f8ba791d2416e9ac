/** Tests run as ESM straight from TypeScript (swc strips the types; `npm run check` is what checks them). */
const shared = {
  testEnvironment: "node",
  extensionsToTreatAsEsm: [".ts"],
  moduleNameMapper: { "^(\\.{1,2}/.*)\\.js$": "$1" },
  moduleFileExtensions: ["ts", "js", "mjs", "json"],
  transform: {
    "^.+\\.ts$": [
      "@swc/jest",
      { jsc: { parser: { syntax: "typescript" }, target: "es2022" }, module: { type: "es6" }, sourceMaps: "inline" },
    ],
  },
};

const project = (displayName, folders) => ({
  ...shared,
  displayName,
  testMatch: folders.map((folder) => `<rootDir>/test/${folder}/**/*.test.ts`),
});

export default {
  // For tests that start processes on a busy machine; whoever waits inside a test names its own, shorter deadline.
  testTimeout: 30_000,
  projects: [
    project("unit", ["unit", "golden", "plants"]),
    project("simulation", ["simulation"]),
    project("contract", ["contract"]),
    project("integration", ["integration", "compose", "docs"]),
  ],
};
