// Both official TypeScript SDKs through the gateway: the same questions, and every class of error.
// What they read goes to standard output as one line of JSON, for the test in Python to judge.

import { Mistral } from "@mistralai/mistralai";
import OpenAI from "openai";

const [address, broken, model, errors] = process.argv.slice(2);
const user = (content) => [{ role: "user", content }];
const byOpenAI = (apiKey, url = address) =>
  new OpenAI({ apiKey, baseURL: `${url}/v1`, maxRetries: 0 });
const byMistral = (apiKey, url = address) =>
  new Mistral({ apiKey, serverURL: url, retryConfig: { strategy: "none" } });
const parameters = {
  type: "object",
  properties: { location: { type: "string", description: "A city." } },
  required: ["location"],
};
const tool = {
  type: "function",
  function: { name: "get_weather", description: "The weather of a city.", parameters },
};
const schema = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
const story = { model, messages: user("Tell me a story") };
const weather = { model, messages: user("What is the weather in Paris and Rome?"), tools: [tool] };
const result = '{"temperature": 21, "sky": "clear"}';

async function openai() {
  const { chat, models, embeddings } = byOpenAI("good");
  const ask = chat.completions;
  const { data: plain, response } = await ask.create(story).withResponse();
  const chunks = [];
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await ask.create({ ...story, ...options })) chunks.push(chunk);
  const asked = (await ask.create(weather)).choices[0].message;
  const results = asked.tool_calls.map((call) => ({
    role: "tool",
    tool_call_id: call.id,
    content: result,
  }));
  const told = await ask.create({ ...weather, messages: [...weather.messages, asked, ...results] });
  const streamed = await ask.stream(weather).finalChatCompletion();
  const thought = await ask.create({ ...story, reasoning_effort: "high" });
  const json_schema = { name: "person", schema, strict: true };
  const person = await ask.create({
    model,
    messages: user("Anna is 33."),
    response_format: { type: "json_schema", json_schema },
  });
  const vectors = await embeddings.create({ model: "mistral-embed", input: ["a", "b"] });
  const listed = [];
  for await (const each of models.list()) listed.push(each.id);
  return {
    text: plain.choices[0].message.content,
    usage: plain.usage.total_tokens,
    cost: response.headers.get("x-loom-cost-usd"),
    streamedText: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    streamedUsage: chunks.at(-1).usage.total_tokens,
    calls: asked.tool_calls.map((call) => JSON.parse(call.function.arguments)),
    told: told.choices[0].message.content,
    streamedCalls: streamed.choices[0].message.tool_calls.map((call) =>
      JSON.parse(call.function.arguments),
    ),
    thought: typeof thought.choices[0].message.content,
    person: JSON.parse(person.choices[0].message.content),
    vectors: vectors.data.length,
    listed: listed.includes(model) && (await models.retrieve(model)).id === model,
  };
}

async function mistral() {
  const { chat, models, embeddings } = byMistral("good");
  const plain = await chat.complete(story);
  const chunks = [];
  for await (const event of await chat.stream(story)) chunks.push(event.data);
  const asked = (await chat.complete(weather)).choices[0].message;
  const results = asked.toolCalls.map((call) => ({
    role: "tool",
    toolCallId: call.id,
    content: result,
  }));
  const messages = [...weather.messages, asked, ...results];
  const told = await chat.complete({ ...weather, messages });
  const streamed = [];
  for await (const event of await chat.stream(weather)) streamed.push(event.data);
  const thought = await chat.complete({ ...story, reasoningEffort: "high" });
  const responseFormat = {
    type: "json_schema",
    jsonSchema: { name: "person", schemaDefinition: schema },
  };
  const person = await chat.complete({ model, messages: user("Anna is 33."), responseFormat });
  const vectors = await embeddings.create({ model: "mistral-embed", inputs: ["a", "b"] });
  const listed = (await models.list()).data.some((row) => row.id === model);
  return {
    text: plain.choices[0].message.content,
    usage: plain.usage.totalTokens,
    streamedText: chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""),
    streamedUsage: chunks.at(-1).usage.totalTokens,
    calls: asked.toolCalls.map((call) => JSON.parse(call.function.arguments)),
    told: told.choices[0].message.content,
    streamedCalls: streamed.at(-1).choices[0].delta.toolCalls.map((call) =>
      JSON.parse(call.function.arguments),
    ),
    thought: thought.choices[0].message.content.map((part) => part.type),
    person: JSON.parse(person.choices[0].message.content),
    vectors: vectors.data.length,
    listed: listed && (await models.retrieve({ modelId: model })).id === model,
  };
}

async function caught(promise) {
  try {
    const answer = await promise;
    for await (const _ of answer) {
      // A stream's error may come with its first piece.
    }
    return ["none", 200];
  } catch (error) {
    return [error.constructor.name, error.status ?? error.statusCode];
  }
}

// Whose key is refused, and why; then what the vendor answered.
const found = { openai: {}, mistral: {} };
for (const name of ["wrong", "narrow", "poor", "slow"]) {
  // One request a minute is what this key may send.
  if (name === "slow") await byOpenAI(name).chat.completions.create(story);
  found.openai[name] = await caught(byOpenAI(name).chat.completions.create(story));
  found.mistral[name] = await caught(byMistral(name).chat.complete(story));
}
for (const name of JSON.parse(errors)) {
  const ask = byOpenAI("any", broken).chat.completions;
  const { chat } = byMistral("any", broken);
  found.openai[name] = await caught(ask.create(story));
  found.openai[`${name} streamed`] = await caught(ask.create({ ...story, stream: true }));
  found.mistral[name] = await caught(chat.complete(story));
  found.mistral[`${name} streamed`] = await caught(chat.stream(story));
}

console.log(JSON.stringify({ openai: await openai(), mistral: await mistral(), errors: found }));
