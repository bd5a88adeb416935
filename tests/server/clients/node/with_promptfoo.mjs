// promptfoo's command line: evaluations with its OpenAI providers, and its assertions on calls, JSON and meaning.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { BOTH, HELLO, MODEL, PERSON, TOOL, WEATHER, FUNCTION, report } from "./features.mjs";

const entry = fileURLToPath(new URL("node_modules/promptfoo/dist/src/entrypoint.js", import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "ftbridge-promptfoo-"));
const environment = {
  ...process.env,
  PROMPTFOO_CONFIG_DIR: folder,
  PROMPTFOO_DISABLE_TELEMETRY: "1",
  PROMPTFOO_DISABLE_UPDATE: "1",
  PROMPTFOO_DISABLE_REMOTE_GENERATION: "true",
  PROMPTFOO_CACHE_ENABLED: "false",
};

const schema = { type: "json_schema", json_schema: { name: "person", strict: true, schema: PERSON } };
const looksLike = (text) => `JSON.stringify(output).includes(${JSON.stringify(text)})`;
const asks = {
  chat: [`openai:chat:${MODEL}`, HELLO, { temperature: 0 }, { type: "equals", value: HELLO }],
  call_auto: [`openai:chat:${MODEL}`, WEATHER, { tools: [TOOL] }, { type: "is-valid-openai-tools-call" }],
  call_required: [`openai:chat:${MODEL}`, HELLO, { tools: [TOOL], tool_choice: "required" }, { type: "javascript", value: looksLike("get_weather") }],
  call_parallel: [`openai:chat:${MODEL}`, BOTH, { tools: [TOOL] }, { type: "javascript", value: looksLike("Lima") }],
  schema: [`openai:chat:${MODEL}`, HELLO, { response_format: schema }, { type: "is-json", value: PERSON }],
  responses: [`openai:responses:${MODEL}`, HELLO, {}, { type: "contains", value: HELLO }],
  responses_call: [`openai:responses:${MODEL}`, WEATHER, { tools: [{ type: "function", ...FUNCTION }] }, { type: "javascript", value: looksLike("get_weather") }],
  responses_schema: [`openai:responses:${MODEL}`, HELLO, { response_format: schema }, { type: "is-json", value: PERSON }],
  completions: [`openai:completion:${MODEL}`, HELLO, {}, { type: "contains", value: HELLO }],
  embeddings: [`openai:chat:${MODEL}`, HELLO, {}, { type: "similar", value: HELLO, threshold: 0.9, provider: `openai:embedding:${MODEL}` }],
  logprobs: [`openai:chat:${MODEL}`, HELLO, { passthrough: { logprobs: true, top_logprobs: 1 } }, { type: "perplexity", threshold: 2 }],
};

/** The rows of one evaluation: all features at once, since each start of the command takes seconds. */
async function evaluated() {
  const tests = Object.entries(asks).map(([name, [, question, , assertion]]) => ({
    description: name, vars: { question }, providers: [name], assert: [assertion],
  }));
  const providers = Object.entries(asks).map(([name, [id, , config]]) => ({ id, label: name, config }));
  const config = path.join(folder, "promptfooconfig.json");
  const output = path.join(folder, "results.json");
  fs.writeFileSync(config, JSON.stringify({ prompts: ["{{question}}"], providers, tests }));
  const command = [entry, "eval", "-c", config, "-o", output, "--no-cache", "--no-progress-bar", "--no-table", "--no-write"];
  const done = await promisify(execFile)(process.execPath, command, { env: environment, timeout: 240_000 }).catch((error) => error);
  if (!fs.existsSync(output)) throw new Error(`${done.stdout}\n${done.stderr}`.slice(-600));
  return JSON.parse(fs.readFileSync(output)).results.results;
}

const rows = evaluated();
const features = Object.fromEntries(
  Object.keys(asks).map((name) => [
    name,
    async () => {
      const row = (await rows).find((found) => found.testCase.description === name && found.provider.label === name);
      assert.ok(row, "it was not evaluated");
      assert.ok(row.success, row.error ?? row.gradingResult?.reason ?? JSON.stringify(row.response).slice(0, 400));
    },
  ]),
);

await report("promptfoo", features);
