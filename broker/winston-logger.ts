import winston from "winston";
import type { LogFields, Logger } from "../common/logger.js";

export interface WinstonLoggerOptions {
  /** `human`: time, level, sentence, fields as name=value. `json`: the same as one object. */
  readonly format: "human" | "json";
  readonly level: "debug" | "info" | "warn" | "error";
}

/**
 * The real logger: one event a line on stderr, because stdout belongs to what scripts read. Whatever a sentence or a field
 * holds, a line stays one line.
 */
export function createWinstonLogger(options: WinstonLoggerOptions): Logger {
  const levels = winston.config.npm.levels;
  const logger = winston.createLogger({
    levels,
    level: options.level,
    format: winston.format.combine(
      winston.format.timestamp(),
      winston.format.printf(options.format === "json" ? jsonLine : humanLine),
    ),
    transports: [new winston.transports.Console({ stderrLevels: Object.keys(levels) })],
  });
  return loggerOf(logger, {});
}

function loggerOf(logger: winston.Logger, fields: LogFields): Logger {
  const at =
    (level: WinstonLoggerOptions["level"]) =>
    (sentence: string, more?: LogFields): void => {
      // One argument: winston would append the `message` of a second one to the sentence.
      logger.log({ level, message: sentence, fields: more === undefined ? fields : { ...fields, ...more } });
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (more) => loggerOf(logger, { ...fields, ...more }),
  };
}

function jsonLine(info: winston.Logform.TransformableInfo): string {
  return JSON.stringify({ time: info["timestamp"], level: info.level, message: info.message, ...fieldsOf(info) });
}

function humanLine(info: winston.Logform.TransformableInfo): string {
  const fields = Object.entries(fieldsOf(info))
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}=${plain(value)}`);
  const level = info.level.toUpperCase().padEnd(5);
  return `${String(info["timestamp"])} ${level} ${oneLine(String(info.message))}${fields.join("")}`;
}

const fieldsOf = (info: winston.Logform.TransformableInfo): LogFields => (info["fields"] ?? {}) as LogFields;

function plain(value: LogFields[string]): string {
  const text = Array.isArray(value) ? value.join(",") : String(value);
  return /^[^\s"=\\\p{C}]+$/u.test(text) ? text : oneLine(JSON.stringify(text));
}

/** Control characters could break a line, or a terminal. */
function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, (character) =>
    character === "\n" ? "\\n" : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
