// What every Node driver shares: the questions, the tool, the data, and how features are run and reported; as ../features.py.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";

export const BASE_URL = process.env.FTBRIDGE_BASE_URL;
export const MODEL = "gpt-4.1-mini";
export const JOB_MODEL = "gpt-4.1-mini-2025-04-14";
export const HELLO = "hello there";
export const WEATHER = "What is the weather in Oslo?";
export const BOTH = "Compare the weather in Oslo and Lima.";
export const ask = (content) => [{ role: "user", content }];
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const FUNCTION = { name: "get_weather", description: "The weather of a city.", parameters: CITY };
export const TOOL = { type: "function", function: FUNCTION };
export const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
export const weather = ({ city }) => `sunny in ${city}`;

process.env.OPENAI_API_KEY = "any";
process.env.OPENAI_BASE_URL = BASE_URL;

function written(name, lines) {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "ftbridge-client-")), name);
  fs.writeFileSync(file, lines.map((line) => JSON.stringify(line) + "\n").join(""));
  return file;
}

/** A file of twelve examples that a service trains on. */
export function trainingFile() {
  const example = (number) => ({
    messages: [
      { role: "user", content: `What does ticket number ${number} want?` },
      { role: "assistant", content: `Ticket ${number} wants a refund of ${7 * number} euros.` },
    ],
  });
  return written("train.jsonl", Array.from({ length: 12 }, (_, number) => example(number)));
}

/** A file of three chats for a batch. */
export function batchFile() {
  const body = { model: MODEL, messages: ask(HELLO) };
  const line = (number) => ({ custom_id: `line-${number}`, method: "POST", url: "/v1/chat/completions", body });
  return written("requests.jsonl", [0, 1, 2].map(line));
}

/** Call `look` until what it returns is true; fails after a minute. */
export async function until(look) {
  const end = Date.now() + 60_000;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error("a minute was not enough");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Run the features, an object of asynchronous functions by name, and print what came of them. */
export async function report(packageName, features, known = {}) {
  const results = {};
  for (const [name, feature] of Object.entries(features)) {
    try {
      await feature();
      results[name] = "ok";
    } catch (error) {
      results[name] = `${error?.name}: ${error?.message}`.slice(0, 600);
    }
  }
  const found = new URL(`node_modules/${packageName}/package.json`, import.meta.url);
  const { version } = JSON.parse(fs.readFileSync(found));
  process.stdout.write("\n" + JSON.stringify({ version, features: results, known }) + "\n", () => process.exit(0));
}
