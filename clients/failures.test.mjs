// What clients see when something is wrong.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { backend, cancelled, client, comparable, drain, gateway, generated, metric, model, noFaults, orphan, put, refusal, running, same, until, withFaults } from './rig.mjs';

const messages = [{ role: 'user', content: 'Hello' }];
const usual = { model, messages, seed: 7, max_tokens: 40 };
// More tokens than the tests wait for.
const tooMany = 1900;
const endless = { ...usual, max_tokens: tooMany, ignore_eos: true, stream: true };

const kinds = {
  chat: (c, more) => c.chat.completions.create({ ...usual, ...more }),
  completions: (c, more) => c.completions.create({ model, prompt: 'Once upon a time', seed: 7, max_tokens: 40, ...more }),
  responses: (c, more) => c.responses.create({ model, input: 'Hello', temperature: 0, ...more }),
};

for (const [kind, create] of Object.entries(kinds)) {
  test(`${kind}: a model that is not there`, async () => {
    for (const stream of [false, true]) {
      const err = await same('nobody', (c) => refusal(create(c, { model: 'nobody', stream })));
      assert.deepEqual([err.class, err.status, err.code, err.param], ['NotFoundError', 404, 404, 'model']);
    }
  });

  test(`${kind}: a bad request`, async () => {
    const err = await same('bad', (c) => refusal(create(c, { temperature: -1 })));
    assert.deepEqual([err.class, err.status], ['BadRequestError', 400]);
    assert.match(err.message, /temperature/);
  });

  test(`${kind}: a field of the wrong type`, async () => {
    const err = await same('type', (c) => refusal(create(c, { stream: 'perhaps' })));
    assert.deepEqual([err.class, err.status], ['BadRequestError', 400]);
    assert.match(err.message, /valid boolean/);
  });

  test(`${kind}: a body that is not JSON`, async () => {
    const broken = (url, init) => fetch(url, { ...init, body: '{' });
    const err = await same('broken', (c) => refusal(create(c)), { fetch: broken });
    assert.deepEqual([err.class, err.status], ['BadRequestError', 400]);
    assert.match(err.message, /JSON decode error/);
  });

  test(`${kind}: a server that is not there`, async () => {
    for (const stream of [false, true]) {
      const err = await refusal(create(client(orphan), { stream }));
      assert.deepEqual([err.api, err.status, err.code], [true, 502, 502]);
      assert.match(err.message, /model server could not be reached/);
    }
  });

  if (kind !== 'responses') { // there vLLM breaks off instead, which is a cut stream
    test(`${kind}: an error in the stream, after tokens`, noFaults, async () => {
      const { chunks, error } = await withFaults([{ kind: 'error', after: 6 }], () =>
        same('error', async (c) => drain(await create(c, { stream: true }))));
      assert.ok(chunks.length > 0);
      assert.deepEqual([error.class, error.code], ['APIError', 500]);
    });

    test(`${kind}: an error in the stream, before any token`, noFaults, async () => {
      const err = await withFaults([{ kind: 'error', after: 0 }], () => refusal(create(client(gateway), { stream: true })));
      assert.deepEqual([err.class, err.status], ['InternalServerError', 500]);
    });
  }

  test(`${kind}: a cut stream`, noFaults, async () => {
    const read = async (url) => drain(await create(client(url, { defaultHeaders: { 'X-Request-Id': 'cut' } }), { stream: true }));
    const [direct, through] = await withFaults([{ kind: 'cut', after: 6 }], async () => [await read(backend), await read(gateway)]);
    assert.ok(direct.error && !direct.error.api, 'the simulator did not cut');
    assert.equal(through.chunks.length, 6);
    // fetch may lose what it has not handed on when the connection breaks.
    assert.deepEqual(comparable(through.chunks.slice(0, direct.chunks.length)), comparable(direct.chunks));
    assert.deepEqual([through.error?.class, through.error?.code], ['APIError', 502]);
    assert.match(through.error.message, /ended early/);
  });

  test(`${kind}: a stream cut before any token`, noFaults, async () => {
    const err = await withFaults([{ kind: 'cut', after: 0 }], () => refusal(create(client(gateway), { stream: true })));
    assert.deepEqual([err.class, err.status], ['InternalServerError', 502]);
  });

  test(`${kind}: the SDK tries again`, noFaults, async () => {
    let attempts = 0;
    const counting = (url, init) => (attempts++, fetch(url, init));
    // Every second request is refused: the second here, and not its repetition.
    const twice = (c) => withFaults([{ kind: 'reject', status: 503, share: 0.5 }], async () => [
      await drain(await create(c, { stream: true })),
      await drain(await create(c, { stream: true })),
    ]);
    const streams = await same('again', twice, { maxRetries: 2, fetch: counting });
    assert.ok(streams.every(({ chunks, error }) => chunks.length > 0 && !error));
    assert.equal(attempts, 6, 'three for each server');
  });
}

test('a prompt that is too long', async () => {
  const long = [{ role: 'user', content: 'word '.repeat(5000) }];
  const err = await same('long', (c) => refusal(kinds.chat(c, { messages: long })));
  assert.deepEqual([err.class, err.status], ['BadRequestError', 400]);
  assert.match(err.message, /context length/);
});

test('a path that is not served', async () => {
  const err = await refusal(client(gateway).files.list());
  assert.deepEqual([err.class, err.status], ['NotFoundError', 404]);
});

test('a list of models from a server that is not there', async () => {
  const err = await refusal(client(orphan).models.list());
  assert.deepEqual([err.api, err.status], [true, 502]);
});

for (const how of ['aborts its signal', 'leaves the loop']) {
  test(`the client ${how}`, async () => {
    const [before, tokens] = [await cancelled(), await generated()];
    const controller = new AbortController();
    const stream = await client(gateway).chat.completions.create(endless, { signal: controller.signal });
    for await (const _ of stream) {
      await until('num_requests_running', running, 1);
      if (how === 'leaves the loop') break;
      controller.abort();
    }
    await stopped(before, tokens);
  });
}

// stopped wants the endless request to end before its time.
async function stopped(before, tokens) {
  await until('num_requests_running', running, 0);
  await until('cancelled', cancelled, before + 1);
  assert.ok((await generated()) - tokens < tooMany, 'the backend made all tokens');
}

test('the client cancels an answer in one piece', async () => {
  const [before, tokens] = [await cancelled(), await generated()];
  const controller = new AbortController();
  const whole = client(gateway).chat.completions.create({ ...endless, stream: false }, { signal: controller.signal });
  const rejected = assert.rejects(whole, OpenAI.APIUserAbortError);
  await until('num_requests_running', running, 1);
  controller.abort();
  await rejected;
  await stopped(before, tokens);
});

test('the client gives up before the first token', noFaults, async () => {
  await withFaults([{ kind: 'slow-first-token', delay: '60s' }], async () => {
    const load = async () => (await (await fetch(`${backend}/load`)).json()).server_load;
    const early = () => metric(gateway, 'gateway_cancelled_requests_total', 'before_first_byte');
    const before = await early();
    const controller = new AbortController();
    const rejected = assert.rejects(client(gateway).chat.completions.create(endless, { signal: controller.signal }), OpenAI.APIUserAbortError);
    await until('server_load', load, 1);
    controller.abort();
    await rejected;
    await until('server_load', load, 0);
    await until('cancelled before the first byte', early, before + 1);
  });
});

// The last test: there is no server after it.
test('the server dies in the middle', noFaults, async () => {
  const chunks = [];
  const stream = await client(gateway).chat.completions.create(endless);
  const read = async () => {
    for await (const chunk of stream) {
      chunks.push(chunk);
      if (chunks.length === 1) await assert.rejects(put([{ kind: 'crash' }]), 'the simulator did not crash');
    }
  };
  await assert.rejects(read, (err) => err instanceof OpenAI.APIError && err.code === 502 && /ended early/.test(err.message));
  const err = await refusal(kinds.chat(client(gateway)));
  assert.deepEqual([err.status, err.code], [502, 502]);
});
