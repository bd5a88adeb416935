// OpenAI's Node SDK, and its AzureOpenAI (with the argument `azure`): every part of the interface that ftbridge serves.

import assert from "node:assert/strict";
import fs from "node:fs";
import { z } from "zod";
import OpenAI, { AzureOpenAI } from "openai";
import { zodResponseFormat, zodTextFormat, zodFunction } from "openai/helpers/zod";
import {
  BASE_URL, BOTH, FUNCTION, HELLO, JOB_MODEL, MODEL, TOOL, WEATHER, ask, batchFile, report, trainingFile, until, weather,
} from "./features.mjs";

const azure = process.argv[2] === "azure";
if (azure) delete process.env.OPENAI_BASE_URL; // AzureOpenAI refuses an endpoint beside it
const client = azure
  ? new AzureOpenAI({ endpoint: BASE_URL.replace(/\/v1$/, ""), apiVersion: "2025-03-01-preview", apiKey: "any", maxRetries: 0 })
  : new OpenAI({ maxRetries: 0 });
const chats = client.chat.completions;
const Person = z.object({ name: z.string(), age: z.number().int() });
const joined = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
const all = (pages) => Array.fromAsync(pages);

async function calls(question, more = {}) {
  const completion = await chats.create({ model: MODEL, messages: ask(question), tools: [TOOL], ...more });
  return completion.choices[0].message.tool_calls ?? [];
}

async function job(more = {}) {
  const file = await client.files.create({ file: fs.createReadStream(trainingFile()), purpose: "fine-tune" });
  return client.fineTuning.jobs.create({ model: JOB_MODEL, training_file: file.id, suffix: "triage", ...more });
}

const ended = ({ id }) =>
  until(async () => {
    const found = await client.fineTuning.jobs.retrieve(id);
    return ["succeeded", "failed", "cancelled"].includes(found.status) && found;
  });

const features = {
  async chat() {
    const completion = await chats.create({ model: MODEL, messages: ask(HELLO), temperature: 0, seed: 1 });
    assert.equal(completion.choices[0].message.content, HELLO);
    assert.ok(completion.usage.total_tokens > 0);
  },
  async chat_choices() {
    const completion = await chats.create({ model: MODEL, messages: ask(HELLO), n: 2, stop: ["there"] });
    assert.deepEqual(completion.choices.map((choice) => choice.message.content), ["hello ", "hello "]);
  },
  async stream() {
    const stream = await chats.create({ model: MODEL, messages: ask(HELLO), stream: true });
    assert.equal(joined(await all(stream)), HELLO);
  },
  async stream_usage() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await all(await chats.create({ model: MODEL, messages: ask(HELLO), ...options }));
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
  },
  async stream_helper() {
    assert.equal(await chats.stream({ model: MODEL, messages: ask(HELLO) }).finalContent(), HELLO);
  },
  async logprobs() {
    const completion = await chats.create({ model: MODEL, messages: ask(HELLO), logprobs: true, top_logprobs: 1 });
    assert.equal(completion.choices[0].logprobs.content.map((token) => token.token).join(""), HELLO);
  },
  async call_auto() {
    assert.deepEqual(JSON.parse((await calls(WEATHER))[0].function.arguments), { city: "Oslo" });
  },
  async call_required() {
    assert.equal((await calls(HELLO, { tool_choice: "required" }))[0].function.name, "get_weather");
  },
  async call_named() {
    const named = { type: "function", function: { name: "get_weather" } };
    assert.equal((await calls(HELLO, { tool_choice: named }))[0].function.name, "get_weather");
  },
  async call_parallel() {
    assert.equal((await calls(BOTH)).length, 2);
    assert.equal((await calls(BOTH, { parallel_tool_calls: false })).length, 1);
  },
  async call_streamed() {
    const tools = [zodFunction({ name: "get_weather", parameters: z.object({ city: z.string() }) })];
    const { choices } = await chats.stream({ model: MODEL, messages: ask(BOTH), tools }).finalChatCompletion();
    assert.deepEqual(choices[0].message.tool_calls.map((call) => call.function.parsed_arguments.city), ["Oslo", "Lima"]);
  },
  async call_result() {
    const tool = { type: "function", function: { ...FUNCTION, function: weather, parse: JSON.parse } };
    const runner = chats.runTools({ model: MODEL, messages: ask(WEATHER), tools: [tool] });
    assert.equal(await runner.finalContent(), "sunny in Oslo");
  },
  async schema() {
    const format = zodResponseFormat(Person, "person");
    const completion = await chats.parse({ model: MODEL, messages: ask(HELLO), response_format: format });
    assert.equal(typeof completion.choices[0].message.parsed.name, "string");
  },
  async schema_streamed() {
    const format = zodResponseFormat(Person, "person");
    const stream = chats.stream({ model: MODEL, messages: ask(HELLO), response_format: format });
    assert.equal(typeof (await stream.finalChatCompletion()).choices[0].message.parsed.name, "string");
  },
  async responses() {
    const response = await client.responses.create({ model: MODEL, input: HELLO, instructions: "Repeat it." });
    assert.equal(response.output_text, HELLO);
  },
  async responses_streamed() {
    const stream = client.responses.stream({ model: MODEL, input: HELLO });
    const events = await all(stream);
    assert.ok(events.some((event) => event.type === "response.output_text.delta"));
    assert.equal((await stream.finalResponse()).output_text, HELLO);
  },
  async responses_call() {
    const tools = [{ type: "function", strict: true, ...FUNCTION }];
    const first = await client.responses.create({ model: MODEL, input: ask(WEATHER), tools });
    const result = { type: "function_call_output", call_id: first.output[0].call_id, output: weather({ city: "Oslo" }) };
    const input = [...ask(WEATHER), ...first.output, result];
    assert.equal((await client.responses.create({ model: MODEL, input, tools })).output_text, "sunny in Oslo");
  },
  async responses_schema() {
    const text = { format: zodTextFormat(Person, "person") };
    const response = await client.responses.parse({ model: MODEL, input: HELLO, text });
    assert.equal(typeof response.output_parsed.name, "string");
  },
  async responses_logprobs() {
    const include = ["message.output_text.logprobs"];
    const { output } = await client.responses.create({ model: MODEL, input: HELLO, include });
    assert.equal(output[0].content[0].logprobs.map((token) => token.token).join(""), HELLO);
  },
  async responses_continued() {
    const first = await client.responses.create({ model: MODEL, input: HELLO });
    const again = await client.responses.create({ model: MODEL, input: "again", previous_response_id: first.id });
    assert.equal(again.output_text, "again");
    assert.equal((await client.responses.retrieve(first.id)).output_text, HELLO);
    await client.responses.delete(first.id);
  },
  async completions() {
    assert.equal((await client.completions.create({ model: MODEL, prompt: HELLO })).choices[0].text, HELLO);
    const stream = await client.completions.create({ model: MODEL, prompt: HELLO, stream: true });
    assert.equal((await all(stream)).map((piece) => piece.choices[0].text).join(""), HELLO);
  },
  async completions_logprobs() {
    const scored = await client.completions.create({ model: MODEL, prompt: HELLO, echo: true, logprobs: 1, max_tokens: 0 });
    assert.equal(scored.choices[0].logprobs.tokens.length, 2);
  },
  async embeddings() {
    const { data } = await client.embeddings.create({ model: MODEL, input: [HELLO, "other"] });
    assert.equal(data.length, 2);
    assert.ok(Math.abs(Math.hypot(...data[0].embedding) - 1) < 1e-4);
  },
  async models() {
    const names = (await all(client.models.list())).map((model) => model.id);
    assert.ok(names.includes((await client.models.retrieve(JOB_MODEL)).id));
  },
  async files() {
    const content = fs.readFileSync(trainingFile(), "utf-8");
    const file = await client.files.create({ file: fs.createReadStream(trainingFile()), purpose: "fine-tune" });
    assert.equal((await client.files.waitForProcessing(file.id, { pollInterval: 50 })).status, "processed");
    assert.equal(await (await client.files.content(file.id)).text(), content);
    assert.ok((await all(client.files.list())).some((listed) => listed.id === file.id));
    assert.ok((await client.files.delete(file.id)).deleted);
  },
  async jobs() {
    const method = { type: "supervised", supervised: { hyperparameters: { n_epochs: 2 } } };
    const done = await ended(await job({ method, metadata: { team: "support" } }));
    assert.equal(done.status, "succeeded");
    assert.ok((await all(client.fineTuning.jobs.list())).some((listed) => listed.id === done.id));
    assert.match(await (await client.files.content(done.result_files[0])).text(), /^step,/);
    const completion = await chats.create({ model: done.fine_tuned_model, messages: ask(HELLO) });
    assert.equal(completion.choices[0].message.content, HELLO);
  },
  async jobs_cancelled() {
    assert.equal((await client.fineTuning.jobs.cancel((await job()).id)).status, "cancelled");
  },
  async events() {
    const done = await ended(await job());
    const events = await all(client.fineTuning.jobs.listEvents(done.id, { limit: 10 }));
    assert.ok(events.length > 10);
  },
  async checkpoints() {
    const done = await ended(await job());
    const points = await all(client.fineTuning.jobs.checkpoints.list(done.id));
    const completion = await chats.create({ model: points[0].fine_tuned_model_checkpoint, messages: ask(HELLO) });
    assert.equal(completion.choices[0].message.content, HELLO);
  },
  async batches() {
    const file = await client.files.create({ file: fs.createReadStream(batchFile()), purpose: "batch" });
    const where = { endpoint: "/v1/chat/completions", completion_window: "24h" };
    const { id } = await client.batches.create({ input_file_id: file.id, ...where });
    const done = await until(async () => {
      const found = await client.batches.retrieve(id);
      return found.status === "completed" && found;
    });
    assert.equal((await (await client.files.content(done.output_file_id)).text()).trim().split("\n").length, 3);
  },
};

await report("openai", features);
