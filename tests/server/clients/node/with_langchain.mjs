// LangChain's ChatOpenAI, OpenAI and OpenAIEmbeddings for JavaScript.

import assert from "node:assert/strict";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import { BASE_URL, BOTH, HELLO, MODEL, WEATHER, report, weather } from "./features.mjs";

const settings = { model: MODEL, apiKey: "any", maxRetries: 0, configuration: { baseURL: BASE_URL } };
const model = new ChatOpenAI(settings);
const newer = new ChatOpenAI({ ...settings, useResponsesApi: true });
const Person = z.object({ name: z.string(), age: z.number().int() });
const getWeather = tool(weather, {
  name: "get_weather",
  description: "The weather of a city.",
  schema: z.object({ city: z.string() }),
});
const tools = (more) => model.bindTools([getWeather], more);

async function joined(stream) {
  let whole;
  for await (const chunk of stream) whole = whole === undefined ? chunk : whole.concat(chunk);
  return whole;
}

async function withResult(bound) {
  const reply = await bound.invoke(WEATHER);
  const result = new ToolMessage({ content: weather({ city: "Oslo" }), tool_call_id: reply.tool_calls[0].id });
  return (await bound.invoke([new HumanMessage(WEATHER), reply, result])).text;
}

const features = {
  async chat() {
    const reply = await model.invoke(HELLO);
    assert.equal(reply.content, HELLO);
    assert.ok(reply.usage_metadata.total_tokens > 0);
  },
  async stream() {
    const whole = await joined(await model.stream(HELLO));
    assert.equal(whole.content, HELLO);
    assert.ok(whole.usage_metadata.total_tokens > 0);
  },
  async logprobs() {
    const reply = await new ChatOpenAI({ ...settings, logprobs: true, topLogprobs: 1 }).invoke(HELLO);
    assert.ok(reply.response_metadata.logprobs.content.length > 0);
  },
  async call_auto() {
    assert.deepEqual((await tools().invoke(WEATHER)).tool_calls[0].args, { city: "Oslo" });
  },
  async call_required() {
    assert.equal((await tools({ tool_choice: "any" }).invoke(HELLO)).tool_calls[0].name, "get_weather");
  },
  async call_named() {
    assert.equal((await tools({ tool_choice: "get_weather" }).invoke(HELLO)).tool_calls[0].name, "get_weather");
  },
  async call_parallel() {
    assert.equal((await tools().invoke(BOTH)).tool_calls.length, 2);
  },
  async call_streamed() {
    const whole = await joined(await tools().stream(BOTH));
    assert.deepEqual(whole.tool_calls.map((call) => call.args.city), ["Oslo", "Lima"]);
  },
  async call_result() {
    assert.equal(await withResult(tools()), "sunny in Oslo");
  },
  async schema() {
    assert.equal(typeof (await model.withStructuredOutput(Person).invoke(HELLO)).name, "string");
  },
  async schema_by_call() {
    const shaped = model.withStructuredOutput(Person, { method: "functionCalling" });
    assert.equal(typeof (await shaped.invoke(HELLO)).name, "string");
  },
  async responses() {
    assert.equal((await newer.invoke(HELLO)).text, HELLO);
  },
  async responses_streamed() {
    assert.equal((await joined(await newer.stream(HELLO))).text, HELLO);
  },
  async responses_call() {
    assert.equal(await withResult(newer.bindTools([getWeather])), "sunny in Oslo");
  },
  async responses_schema() {
    assert.equal(typeof (await newer.withStructuredOutput(Person).invoke(HELLO)).name, "string");
  },
  async completions() {
    // It refuses names of chat models.
    assert.equal(await new OpenAI({ ...settings, model: "gpt-3.5-turbo-instruct" }).invoke(HELLO), HELLO);
  },
  async embeddings() {
    const found = await new OpenAIEmbeddings(settings).embedDocuments([HELLO, "other"]);
    assert.equal(found.length, 2);
  },
};

await report("@langchain/openai", features);
