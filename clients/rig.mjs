// What the tests share: the servers, named by the environment, and ways to ask
// them. Every server here is on the loopback interface.
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import OpenAI from 'openai';

export const model = 'tiny';
// The backend is the simulator, or a real vLLM.
export const real = Boolean(process.env.VLLM_URL);
export const backend = server('BACKEND_URL');
export const gateway = server('GATEWAY_URL');
// A gateway whose backend does not listen.
export const orphan = server('ORPHAN_URL');

function server(name) {
  const url = process.env[name];
  assert.ok(url, `${name} is not set: run the tests with go test`);
  return url;
}

// onlySimulated is the options of a test of what a real vLLM cannot be made to do.
export const onlySimulated = (why) => ({ skip: real && `not before a real vLLM: ${why}` });
export const noFaults = onlySimulated('it does not fail on request');

export function client(url, options = {}) {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 30_000, ...options });
}

// What differs from one time to the next, whoever is asked.
const fleeting = new Set(['created', 'created_at', 'cached_tokens']);

// plain is what an SDK's object says.
export function plain(value) {
  return JSON.parse(JSON.stringify(value), (key, v) => (fleeting.has(key) ? undefined : v));
}

// vLLM differs from itself in two ways: it draws some ids by lot, and where the
// events of a real one's stream end is a matter of luck (fold_test.go says why).
// What is comparable has ids numbered in the order in which they come, and a real
// vLLM's chunks put together.
const byLot = /"(resp_|msg_|rs_|chatcmpl-tool-|modelperm-)[0-9a-f]{16,32}"/g;

export function comparable(value) {
  const ids = new Map();
  const number = (id) => ids.get(id) ?? ids.set(id, `"id ${ids.size}"`).get(id);
  return JSON.parse(JSON.stringify(plain(value)).replace(byLot, number), (key, v) => (real && key === 'chunks' ? folded(v) : v));
}

function folded(chunks) {
  const all = [];
  for (const { sequence_number, ...chunk } of chunks) {
    const last = all.at(-1);
    if (last && last.id === chunk.id && last.type === chunk.type) fold('', last, chunk);
    else all.push(chunk);
  }
  return all;
}

// fold puts the next chunk's value of a key behind the value so far. Nothing is
// lost: text is put together, lists too, and of other values each that is new is
// kept.
function fold(key, so, next) {
  if (so == null) return next;
  if (next == null) return so;
  if (Array.isArray(so) && Array.isArray(next)) return next.reduce(foldInto, so);
  if (typeof so === 'object' && typeof next === 'object') {
    for (const k of Object.keys(next)) so[k] = fold(k, so[k], next[k]);
    return so;
  }
  if (typeof so === 'string' && ['content', 'text', 'delta', 'arguments'].includes(key)) return so + next;
  return isDeepStrictEqual(so, next) ? so : [so, next];
}

// foldInto puts an element of a list in its place: what has an index is a piece
// of the element with the same index.
function foldInto(list, next) {
  const i = list.findIndex((have) => next?.index !== undefined && have.index === next.index);
  if (i < 0) return [...list, next];
  return list.with(i, fold('', list[i], next));
}

// same asks the backend, then the gateway, and wants the same of both. Both
// get the same X-Request-Id, of which the server makes the ids in its answers.
// It gives what the gateway answered.
export async function same(id, ask, options) {
  const named = { ...options, defaultHeaders: { 'X-Request-Id': id } };
  const direct = await ask(client(backend, named));
  const through = await ask(client(gateway, named));
  assert.deepEqual(comparable(through), comparable(direct));
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
  const res = await fetch(`${backend}/sim/faults`, { method: 'PUT', body: JSON.stringify(faults) });
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

export const running = () => metric(backend, 'vllm:num_requests_running');
export const generated = () => metric(backend, 'vllm:generation_tokens_total');
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
