// AI SDK with its providers `openai` (Responses by default, and chat), `openai-compatible` and `azure`.

import assert from "node:assert/strict";
import { createAzure } from "@ai-sdk/azure";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { BASE_URL, BOTH, HELLO, MODEL, WEATHER, report, weather } from "./features.mjs";

const openai = createOpenAI({ baseURL: BASE_URL, apiKey: "any" });
const compatible = createOpenAICompatible({
  name: "ftbridge", baseURL: BASE_URL, apiKey: "any", supportsStructuredOutputs: true, includeUsage: true,
});
const azure = createAzure({ baseURL: BASE_URL.replace(/\/v1$/, "/openai"), apiKey: "any" });
const chat = openai.chat(MODEL);
const responding = openai(MODEL);
const Person = z.object({ name: z.string(), age: z.number().int() });
const get_weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async (input) => weather(input),
});
const common = { maxRetries: 0 };
const ask = (model, prompt, more = {}) => generateText({ model, prompt, ...common, ...more });
const withTools = { tools: { get_weather }, stopWhen: isStepCount(2) };
const lookedUp = (result) => result.steps.flatMap((step) => step.toolResults).map((found) => found.output);

async function streamed(model, prompt, more = {}) {
  let failed;
  const result = streamText({ model, prompt, ...common, ...more, onError: ({ error }) => (failed = error) });
  const text = await Array.fromAsync(result.textStream);
  if (failed) throw failed;
  return { text: text.join(""), result };
}

const features = {
  async chat() {
    const { text, usage, finishReason } = await ask(chat, HELLO, { temperature: 0, maxOutputTokens: 20 });
    assert.equal(text, HELLO);
    assert.equal(finishReason, "stop");
    assert.ok(usage.totalTokens > 0);
  },
  async chat_compatible() {
    assert.equal((await ask(compatible(MODEL), HELLO)).text, HELLO);
  },
  async chat_azure() {
    assert.equal((await ask(azure.chat(MODEL), HELLO)).text, HELLO);
  },
  async stream() {
    const { text, result } = await streamed(chat, HELLO);
    assert.equal(text, HELLO);
    assert.ok((await result.usage).totalTokens > 0);
  },
  async stream_compatible() {
    assert.equal((await streamed(compatible(MODEL), HELLO)).text, HELLO);
  },
  async call_auto() {
    const result = await ask(chat, WEATHER, withTools);
    assert.equal(result.text, "sunny in Oslo");
  },
  async call_required() {
    const result = await ask(chat, HELLO, { tools: { get_weather }, toolChoice: "required" });
    assert.equal(result.toolCalls[0].toolName, "get_weather");
  },
  async call_named() {
    const result = await ask(chat, HELLO, { tools: { get_weather }, toolChoice: { type: "tool", toolName: "get_weather" } });
    assert.equal(result.toolCalls[0].toolName, "get_weather");
  },
  async call_parallel() {
    assert.deepEqual(lookedUp(await ask(chat, BOTH, withTools)), ["sunny in Oslo", "sunny in Lima"]);
  },
  async call_streamed() {
    const { result } = await streamed(chat, BOTH, withTools);
    assert.deepEqual(lookedUp({ steps: await result.steps }), ["sunny in Oslo", "sunny in Lima"]);
  },
  async call_compatible() {
    assert.equal((await ask(compatible(MODEL), WEATHER, withTools)).text, "sunny in Oslo");
  },
  async schema() {
    const { output } = await ask(chat, HELLO, { output: Output.object({ schema: Person }) });
    assert.equal(typeof output.name, "string");
  },
  async schema_streamed() {
    const { result } = await streamed(chat, HELLO, { output: Output.object({ schema: Person }) });
    assert.equal(typeof (await result.output).name, "string");
  },
  async schema_compatible() {
    const { output } = await ask(compatible(MODEL), HELLO, { output: Output.object({ schema: Person }) });
    assert.equal(typeof output.name, "string");
  },
  async responses() {
    assert.equal((await ask(responding, HELLO, { system: "Repeat it." })).text, HELLO);
  },
  async responses_streamed() {
    assert.equal((await streamed(responding, HELLO)).text, HELLO);
  },
  async responses_call() {
    assert.equal((await ask(responding, WEATHER, withTools)).text, "sunny in Oslo");
    assert.deepEqual(lookedUp(await ask(responding, BOTH, withTools)), ["sunny in Oslo", "sunny in Lima"]);
  },
  async responses_call_streamed() {
    assert.equal((await streamed(responding, WEATHER, withTools)).text, "sunny in Oslo");
  },
  async responses_schema() {
    const { output } = await ask(responding, HELLO, { output: Output.object({ schema: Person }) });
    assert.equal(typeof output.name, "string");
  },
  async responses_continued() {
    const first = await ask(responding, HELLO);
    const id = first.providerMetadata.openai.responseId;
    assert.equal((await ask(responding, "again", { providerOptions: { openai: { previousResponseId: id } } })).text, "again");
  },
  async responses_azure() {
    assert.equal((await ask(azure(MODEL), HELLO)).text, HELLO);
  },
  async logprobs() {
    const { providerMetadata } = await ask(chat, HELLO, { providerOptions: { openai: { logprobs: 1 } } });
    assert.equal(providerMetadata.openai.logprobs.map((token) => token.token).join(""), HELLO);
  },
  async completions() {
    assert.match((await ask(openai.completion(MODEL), HELLO)).text, /hello there/);
  },
  async embeddings() {
    const { embeddings } = await embedMany({ model: openai.embedding(MODEL), values: [HELLO, "other"], ...common });
    assert.equal(embeddings.length, 2);
  },
};

await report("ai", features);
