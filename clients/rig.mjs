// What the tests share: the servers, named by the environment, and ways to ask
// them. Every server here is on the loopback interface.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

export const model = 'tiny';
export const sim = server('SIM_URL');
export const gateway = server('GATEWAY_URL');
// A gateway whose backend does not listen.
export const orphan = server('ORPHAN_URL');

function server(name) {
  const url = process.env[name];
  assert.ok(url, `${name} is not set: run the tests with go test`);
  return url;
}

export function client(url, options = {}) {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 30_000, ...options });
}

// What differs from one time to the next, whoever is asked.
const fleeting = new Set(['created', 'created_at', 'cached_tokens']);

// plain is what an SDK's object says.
export function plain(value) {
  return JSON.parse(JSON.stringify(value), (key, v) => (fleeting.has(key) ? undefined : v));
}

// same asks the simulator, then the gateway, and wants the same of both. Both
// get the same X-Request-Id, of which the server makes the ids in its answers.
// It gives what the gateway answered.
export async function same(id, ask, options) {
  const named = { ...options, defaultHeaders: { 'X-Request-Id': id } };
  const direct = await ask(client(sim, named), sim);
  const through = await ask(client(gateway, named), gateway);
  assert.deepEqual(plain(through), plain(direct));
  return through;
}

// unnamed: vLLM names itself on the last chunk of a stream. Where that is a usage
// chunk that only the gateway asked for, the name goes with it
// (docs/configuration.md).
export function unnamed(chunk) {
  if (!chunk.usage) delete chunk.system_fingerprint;
  return chunk;
}

// drain reads a stream to its end, whichever it is.
export async function drain(stream) {
  const chunks = [];
  try {
    for await (const chunk of stream) chunks.push(unnamed(chunk));
  } catch (err) {
    return { chunks, error: failure(err) };
  }
  return { chunks };
}

// refusal is the error that a request ends with.
export async function refusal(promise) {
  try {
    await promise;
  } catch (err) {
    return failure(err);
  }
  assert.fail('the request succeeded');
}

function failure(err) {
  const { status, code, type, param, message } = err;
  return { class: err.constructor.name, api: err instanceof OpenAI.APIError, status, code, type, param, message };
}

// withFaults lets the simulator fail while body runs.
export async function withFaults(faults, body) {
  await put(faults);
  try {
    return await body();
  } finally {
    await put([]);
  }
}

export async function put(faults) {
  const res = await fetch(`${sim}/sim/faults`, { method: 'PUT', body: JSON.stringify(faults) });
  assert.equal(res.status, 200, await res.text());
}

// metric is the sum of a metric's series that have the label.
export async function metric(url, name, label = '') {
  const text = await (await fetch(`${url}/metrics`)).text();
  return text
    .split('\n')
    .filter((line) => line.startsWith(name) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

export const cancelled = () => metric(gateway, 'gateway_requests_total', 'outcome="cancelled"');

// until polls for a value, for ten seconds at most.
export async function until(what, get, want) {
  const deadline = Date.now() + 10_000;
  let got = await get();
  while (got !== want) {
    assert.ok(Date.now() < deadline, `${what} is ${got}, not ${want}, after 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
    got = await get();
  }
}
