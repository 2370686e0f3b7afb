// Every method of the official TypeScript SDK that the simulator's surface offers.
// The SDK checks each answer against its own schemas and throws where one does not fit; what it
// read goes to standard output as one line of JSON, for the test in Python to judge.

import { Mistral } from "@mistralai/mistralai";

const [serverURL, apiKey, model] = process.argv.slice(2);
const client = new Mistral({ apiKey, serverURL, retryConfig: { strategy: "none" } });
const user = (content) => [{ role: "user", content }];
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather of a city.",
      parameters: {
        type: "object",
        properties: { location: { type: "string", description: "A city." } },
        required: ["location"],
      },
    },
  },
];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};
const question = "What is the weather in Paris and Rome?";

async function collect(stream) {
  const chunks = [];
  for await (const event of stream) chunks.push(event.data);
  return chunks;
}

const textOf = (chunks) =>
  chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");

async function statusOf(promise) {
  try {
    await promise;
    return 200;
  } catch (error) {
    return error.statusCode ?? String(error);
  }
}

const story = { model, messages: user("Tell me a story") };
const plain = await client.chat.complete(story);
const streamed = await collect(await client.chat.stream(story));

const weather = { model, messages: user(question), tools };
const asked = await client.chat.complete(weather);
const turn = asked.choices[0].message;
const results = turn.toolCalls.map((call) => ({
  role: "tool",
  toolCallId: call.id,
  name: call.function.name,
  content: '{"temperature": 21, "sky": "clear"}',
}));
const told = await client.chat.complete({
  ...weather,
  messages: [...user(question), turn, ...results],
});
const streamedCalls = (await collect(await client.chat.stream(weather))).at(-1);

const responseFormat = {
  type: "json_schema",
  jsonSchema: { name: "person", schemaDefinition: schema },
};
const person = await client.chat.complete({
  model,
  messages: user("Anna is 33."),
  responseFormat,
});
const two = await client.chat.complete({ ...story, n: 2 });
const thought = { model, messages: user("Why?"), reasoningEffort: "high" };
const thinking = await client.chat.complete(thought);
const streamedThinking = await collect(await client.chat.stream(thought));

const gap = { model: "codestral-latest", prompt: "def add(a, b):\n", suffix: "\n    return c" };
const infill = await client.fim.complete(gap);
const streamedInfill = await collect(await client.fim.stream(gap));

const embedded = await client.embeddings.create({
  model: "mistral-embed",
  inputs: ["a loom", "the looms", "quarterly tax"],
});

const listed = await client.models.list();
const card = await client.models.retrieve({ modelId: model });

const stranger = new Mistral({ apiKey: "wrong", serverURL, retryConfig: { strategy: "none" } });

console.log(
  JSON.stringify({
    text: plain.choices[0].message.content,
    finish: plain.choices[0].finishReason,
    usage: plain.usage,
    streamedText: textOf(streamed),
    streamedUsage: streamed.at(-1).usage,
    calls: turn.toolCalls.map((call) => JSON.parse(call.function.arguments)),
    told: told.choices[0].message.content,
    streamedCalls: streamedCalls.choices[0].delta.toolCalls.map((call) => call.function.name),
    streamedFinish: streamedCalls.choices[0].finishReason,
    person: JSON.parse(person.choices[0].message.content),
    choices: two.choices.length,
    thinking: thinking.choices[0].message.content.map((part) => part.type),
    streamedThinking: streamedThinking.some((chunk) =>
      Array.isArray(chunk.choices[0].delta.content),
    ),
    infill: infill.choices[0].message.content,
    streamedInfill: textOf(streamedInfill),
    vectors: embedded.data.map((row) => row.embedding),
    listed: listed.data.some((row) => row.id === model),
    card: card.id,
    errors: [
      await statusOf(stranger.chat.complete(story)),
      await statusOf(client.chat.complete({ ...story, model: "nope" })),
      await statusOf(client.chat.complete({ ...story, temperature: 9 })),
    ],
  }),
);
