import js from "@eslint/js";
import tseslint from "typescript-eslint";

/** Code in these folders runs in two worlds; what differs between them comes through `Env` and through nothing else. */
const twoWorlds = ["broker/**/*.ts", "client/**/*.ts", "protocol/**/*.ts", "common/**/*.ts"];
/** The few files where the real world is bound. */
const realWorld = ["common/env/node-*.ts", "broker/main.ts"];

const onlyThroughEnv = "comes through Env, so that the simulator can stand in (docs/architecture.md).";
const forbiddenModules = [
  "net",
  "fs",
  "fs/promises",
  "timers",
  "timers/promises",
  "worker_threads",
  "os",
  "child_process",
]
  .flatMap((name) => [name, `node:${name}`])
  .map((name) => ({ name, message: `${name} ${onlyThroughEnv}` }));

export default tseslint.config(
  { ignores: ["dist/**", "protocol/generated/**", "node_modules/**", "coverage/**"] },
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [...tseslint.configs.recommended],
    languageOptions: { parserOptions: { project: "./tsconfig.test.json" } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "separate-type-imports" }],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "no-restricted-syntax": [
        "error",
        { selector: "ExportDefaultDeclaration", message: "No default exports: a thing has one name." },
        { selector: "ExportAllDeclaration", message: "List what is exported, name by name." },
      ],
      "no-empty": ["error", { allowEmptyCatch: false }],
      eqeqeq: "error",
    },
  },
  {
    files: twoWorlds,
    ignores: realWorld,
    rules: {
      "no-restricted-imports": ["error", { paths: forbiddenModules }],
      "no-restricted-globals": [
        "error",
        ...["setTimeout", "setInterval", "setImmediate", "performance", "fetch", "WeakRef", "FinalizationRegistry"].map(
          (name) => ({ name, message: `${name} ${onlyThroughEnv}` }),
        ),
      ],
      "no-restricted-properties": [
        "error",
        { object: "Date", property: "now", message: `The clock ${onlyThroughEnv}` },
        { object: "Math", property: "random", message: `Randomness ${onlyThroughEnv}` },
        { object: "crypto", property: "randomUUID", message: `Randomness ${onlyThroughEnv}` },
        { object: "process", property: "hrtime", message: `The clock ${onlyThroughEnv}` },
        { object: "process", property: "nextTick", message: `Turns of the loop: timers.soon(); it ${onlyThroughEnv}` },
        { object: "process", property: "memoryUsage", message: `Memory ${onlyThroughEnv}` },
        { object: "process", property: "env", message: "The environment is read in main.ts and tools/ only." },
        { object: "AbortSignal", property: "timeout", message: `Timers ${onlyThroughEnv}` },
      ],
    },
  },
  {
    // Test doubles and fixtures may assert what the compiler cannot know.
    files: ["test/**/*.ts"],
    rules: { "@typescript-eslint/no-non-null-assertion": "off" },
  },
  {
    files: ["**/*.mjs", "**/*.cjs"],
    languageOptions: { globals: { process: "readonly", console: "readonly", URL: "readonly", setTimeout: "readonly" } },
  },
);
