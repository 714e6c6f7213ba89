// What servers answer when all is well.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { client, drain, gateway, model, onlySimulated, plain, real, same, unnamed } from './rig.mjs';

const messages = [{ role: 'user', content: 'What is the weather in Oslo?' }];
const usual = { model, messages, seed: 7, max_tokens: 40 };

const counts = ({ usage }) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];

const tool = (name, properties) => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties, required: Object.keys(properties) } },
});
// Short words: a model of random weights finds no end by itself.
const word = { type: 'string', maxLength: 8 };
const tools = [
  tool('get_weather', { city: word, unit: { enum: ['celsius', 'fahrenheit'] } }),
  tool('get_time', { zone: word, seconds: { type: 'integer' } }),
];
// Else a real vLLM lets the arguments be any JSON.
const strict = tools.map(({ type, function: f }) => ({ type, function: { ...f, strict: true } }));

const schema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };

// callOf is for a call of one of the named tools; the simulator calls the first.
function callOf(...names) {
  return ({ message }) => {
    assert.equal(message.tool_calls.length, 1);
    const { name, arguments: given } = message.tool_calls[0].function;
    assert.ok((real ? names : names.slice(0, 1)).includes(name), name);
    const { properties } = tools.find((t) => t.function.name === name).function.parameters;
    assert.deepEqual(Object.keys(JSON.parse(given)).sort(), Object.keys(properties).sort());
  };
}

const talks = ({ message }) => assert.ok(message.content);

// Each is asked whole, chunk by chunk, and through the SDK's own assembling
// helper. check gets a choice.
const chats = {
  plain: { check: talks },
  'two answers with logprobs': { n: 2, logprobs: true, top_logprobs: 2, check: ({ logprobs }) => assert.ok(logprobs.content.length > 1) },
  'required tool': {
    tools: strict,
    tool_choice: 'required',
    parallel_tool_calls: false,
    max_tokens: 400,
    check: callOf('get_weather', 'get_time'),
  },
  'named tool': {
    tools: strict,
    tool_choice: { type: 'function', function: { name: 'get_time' } },
    max_tokens: 400,
    check: callOf('get_time'),
  },
  // A model of random weights, if left the choice, calls nothing.
  'tool of its own choice': { tools, check: real ? talks : callOf('get_weather') },
  'JSON by schema': {
    response_format: { type: 'json_schema', json_schema: { name: 'n', schema } },
    max_tokens: 100,
    check: ({ message }) => assert.ok(Number.isInteger(JSON.parse(message.content).n)),
  },
};

for (const [name, { check, ...params }] of Object.entries(chats)) {
  test(`chat: ${name}`, async () => {
    const request = { ...usual, ...params };
    const whole = await same('whole', (c) => c.chat.completions.create(request));
    whole.choices.forEach(check);

    const { chunks, error } = await same('chunks', async (c) => drain(await c.chat.completions.create({ ...request, stream: true })));
    assert.equal(error, undefined);
    assert.ok(chunks.length > (real ? 1 : 3)); // at the least the role, and all tokens together
    assert.ok(chunks.every((chunk) => !chunk.usage && chunk.choices.length > 0), 'usage that nobody asked for');

    const assembled = await same('whole', async (c) => unnamed(await c.chat.completions.stream(request).finalChatCompletion()));
    assembled.choices.forEach(check);
    // A real vLLM writes arguments anew where it gives them whole.
    const said = (call) => (real ? JSON.parse(call.function.arguments) : call.function.arguments);
    const gist = ({ message, finish_reason }) => [finish_reason, message.content || null, message.tool_calls?.map(said)];
    assert.deepEqual(plain(assembled.choices.map(gist)), plain(whole.choices.map(gist)));
  });
}

test('chat: usage where it is asked for', async () => {
  const whole = await same('usage', (c) => c.chat.completions.create(usual));
  const asked = { ...usual, stream: true, stream_options: { include_usage: true } };
  const { chunks } = await same('usage', async (c) => drain(await c.chat.completions.create(asked)));
  const told = chunks.filter((chunk) => chunk.usage);
  assert.equal(told.length, 1);
  assert.equal(told[0], chunks.at(-1));
  assert.deepEqual(counts(told[0]), counts(whole));
  assert.equal(told[0].system_fingerprint, whole.system_fingerprint);
});

test('chat: reasoning', onlySimulated('the tiny model does not reason'), async () => {
  const request = { ...usual, chat_template_kwargs: { enable_thinking: true } };
  const whole = await same('reasoning', (c) => c.chat.completions.create(request));
  const { chunks } = await same('reasoning', async (c) => drain(await c.chat.completions.create({ ...request, stream: true })));
  const said = (key) => chunks.map((chunk) => chunk.choices[0].delta[key] ?? '').join('');
  const { reasoning, content } = whole.choices[0].message;
  assert.ok(reasoning && content);
  assert.deepEqual([said('reasoning'), said('content')], [reasoning, content]);
});

test('chat: a conversation with a tool that runs', onlySimulated('a model of random weights calls no tool of its own choice'), async () => {
  const cities = [];
  const runnable = {
    type: 'function',
    function: { ...tools[0].function, parse: JSON.parse, function: ({ city }) => (cities.push(city), 'It rains.') },
  };
  const turns = await same('run', async (c) => {
    const runner = c.chat.completions.runTools({ ...usual, max_tokens: 200, tools: [runnable], stream: true });
    await runner.done();
    return runner.messages;
  });
  assert.deepEqual(turns.map((turn) => turn.role), ['user', 'assistant', 'tool', 'assistant']);
  assert.ok(turns.at(-1).content);
  assert.equal(cities.length, 2, 'once for each server');
});

test('completions', async () => {
  const request = { model, prompt: 'Once upon a time', seed: 7, max_tokens: 40 };
  const whole = await same('text', (c) => c.completions.create(request));
  const { chunks, error } = await same('text', async (c) => drain(await c.completions.create({ ...request, stream: true })));
  assert.equal(error, undefined);
  assert.ok(chunks.every((chunk) => !chunk.usage && chunk.choices.length > 0), 'usage that nobody asked for');
  assert.ok(whole.choices[0].text);
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), whole.choices[0].text);

  const asked = { ...request, stream: true, stream_options: { include_usage: true } };
  const counted = await same('text', async (c) => drain(await c.completions.create(asked)));
  assert.deepEqual(counts(counted.chunks.at(-1)), counts(whole));
});

test('responses', async () => {
  // Responses take no seed: without a temperature the text is the prompt's.
  const request = { model, input: 'Tell me a story.', temperature: 0, max_output_tokens: 40 };
  const whole = await same('story', (c) => c.responses.create(request));
  assert.ok(whole.output_text);
  const { chunks, error } = await same('story', async (c) => drain(await c.responses.create({ ...request, stream: true })));
  assert.equal(error, undefined);
  const deltas = chunks.filter((event) => event.type === 'response.output_text.delta');
  assert.ok(deltas.length > (real ? 0 : 3));
  assert.deepEqual(chunks.map((event) => event.sequence_number), [...chunks.keys()]);
  assert.equal(deltas.map((event) => event.delta).join(''), whole.output_text);
  const assembled = await same('story', (c) => c.responses.stream(request).finalResponse());
  assert.equal(assembled.output_text, whole.output_text);
});

test('embeddings', onlySimulated('a model that writes has no embeddings'), async () => {
  for (const encoding_format of [undefined, 'float', 'base64']) {
    const got = await same('vectors', (c) => c.embeddings.create({ model, input: ['one', 'two words'], encoding_format }));
    assert.equal(got.data.length, 2);
    assert.ok(got.usage.total_tokens > 0);
  }
});

test('models', async () => {
  const list = await same('models', async (c) => {
    const models = [];
    for await (const m of c.models.list()) models.push(m);
    return models;
  });
  assert.deepEqual(list.map((m) => m.id), [model]);
});

test('20 streams at once', async () => {
  const streams = await same('crowd', (c) =>
    Promise.all(Array.from({ length: 20 }, async (_, i) =>
      drain(await c.chat.completions.create({ ...usual, seed: i, stream: true }, { headers: { 'X-Request-Id': `crowd-${i}` } })))));
  assert.equal(streams.length, 20);
  for (const { chunks, error } of streams) {
    assert.equal(error, undefined);
    assert.ok(chunks.at(-1).choices[0].finish_reason);
  }
});

test('request ids', async () => {
  const c = client(gateway);
  const headers = { 'X-Request-Id': 'my-own-id' };
  const fresh = await c.chat.completions.create(usual);
  assert.match(fresh._request_id, /^[\w-]+$/);
  assert.equal(fresh.id, `chatcmpl-${fresh._request_id}`, 'the server has got another id');
  assert.notEqual((await c.chat.completions.create(usual))._request_id, fresh._request_id);

  assert.equal((await c.chat.completions.create(usual, { headers }))._request_id, 'my-own-id');
  const { data, request_id } = await c.chat.completions.create({ ...usual, stream: true }, { headers }).withResponse();
  await drain(data);
  assert.equal(request_id, 'my-own-id');
  await assert.rejects(c.chat.completions.create({ ...usual, model: 'none' }, { headers }), { status: 404, requestID: 'my-own-id' });
});
