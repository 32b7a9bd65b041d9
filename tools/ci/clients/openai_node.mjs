// OpenAI's own client for Node.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.env.ORCD_CLIENTS_NODE_MODULES + "/");
const { OpenAI } = require("openai");

const base = process.env.ORCD_CLIENTS_URL;
const options = { baseURL: `${base}/v1`, apiKey: process.env.ORCD_CLIENTS_KEY, maxRetries: 0 };
const client = new OpenAI(options);
const messages = [{ role: "user", content: "Write a haiku about rain" }];
const model = (await client.models.list()).data[0].id;
const chat = (more) => client.chat.completions.create({ model, messages, max_tokens: 24, seed: 5, ...more });

const tests = {
  async "a stream says what the whole answer says"() {
    const whole = await chat({});
    assert.ok(whole.choices[0].message.content);
    let text = "";
    let usage = null;
    for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(usage, whole.usage);
  },
  async "a forced call has arguments that fit"() {
    const parameters = { type: "object", properties: { sea: { enum: ["north", "baltic"] } }, required: ["sea"], additionalProperties: false };
    const tools = [{ type: "function", function: { name: "tides", parameters } }];
    const whole = await chat({ tools, tool_choice: "required", max_tokens: 400 });
    const [call] = whole.choices[0].message.tool_calls;
    assert.equal(call.function.name, "tides");
    assert.ok(["north", "baltic"].includes(JSON.parse(call.function.arguments).sea));
  },
  async "errors are of the client's own kinds"() {
    await assert.rejects(chat({ model: "another" }), OpenAI.NotFoundError);
    await assert.rejects(chat({ temperature: 9 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, "temperature");
      return true;
    });
    const stranger = new OpenAI({ ...options, apiKey: "wrong" });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  },
  async "a stream that is left is cancelled"() {
    const stream = await chat({ stream: true, max_tokens: 100000, ignore_eos: true });
    for await (const _ of stream) break;
    const end = Date.now() + 20000;
    for (;;) {
      const { jobs } = await (await fetch(`${base}/health`)).json();
      if (jobs.running === 0 && jobs.queued === 0) break;
      assert.ok(Date.now() < end, "the job goes on");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
  async "a schema gives what it describes"() {
    const schema = {
      type: "object",
      properties: { mood: { enum: ["calm", "stormy"] }, beats: { type: "integer", minimum: 5, maximum: 7 } },
      required: ["mood", "beats"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "verse", strict: true, schema } };
    const { choices } = await client.chat.completions.parse({ model, messages, max_tokens: 400, response_format, seed: 5 });
    const verse = choices[0].message.parsed ?? JSON.parse(choices[0].message.content);
    assert.ok(["calm", "stormy"].includes(verse.mood) && verse.beats >= 5 && verse.beats <= 7, verse);
  },
  async "choices and logprobs"() {
    const { choices } = await chat({ n: 2, logprobs: true, top_logprobs: 2 });
    for (const { message, logprobs } of choices) {
      // A token may be a part of a character.
      assert.equal(Buffer.from(logprobs.content.flatMap((token) => token.bytes)).toString(), message.content);
      assert.equal(logprobs.content[0].top_logprobs.length, 2);
    }
  },
};

for (const [name, test] of Object.entries(tests)) {
  await test();
  console.log(`  ${name}`);
}
