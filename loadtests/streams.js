// streams: one streamed chat completion as a load test sees it – the request,
// the checks, the metrics, and a preflight that makes sure they can be
// believed. Scripts import it and add only their scenarios and thresholds.
//
// Time to first token is sending + waiting: the time until the first byte of
// the answer. That is true because vllm-gateway sends nothing at all before the
// first token, and of a server that sends its headers at once it is a lie; so
// preflight() insists on the Server-Timing header which only held headers can
// carry.

import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Rate, Trend } from 'k6/metrics';

const gateway = (__ENV.GATEWAY_URL || 'http://localhost:9000').replace(/\/+$/, '');
const completions = `${gateway}/v1/chat/completions`;
const maxTokens = Math.ceil(positive('MAX_TOKENS', 50));
const timeScale = positive('TIME_SCALE', 1, 1);

/** @type {Record<string, string>} */
const headers = { 'Content-Type': 'application/json', Accept: 'text/event-stream' };
if (__ENV.API_KEY) headers.Authorization = `Bearer ${__ENV.API_KEY}`;

const ttft = new Trend('ttft_ms', true);
const tokensPerSecond = new Trend('tokens_per_second');
const failedRequests = new Rate('failed_requests');

/**
 * Seconds of a scenario under TIME_SCALE, at least one.
 * @param {number} seconds
 */
export const scaled = (seconds) => Math.max(1, seconds * timeScale);

/** @param {number} seconds */
export const duration = (seconds) => `${Math.round(seconds * 1000)}ms`;

/** Seconds that a scenario leaves to its last requests. */
export const gracefulStop = Math.max(5, 30 * timeScale);

// A request still open when gracefulStop ends is cut off and counted nowhere,
// so each one must have failed by then.
const timeout = duration(gracefulStop - 1);

/**
 * Options that every script starts from.
 * @type {import('k6/options').Options}
 */
export const common = {
  // Without throw, k6 prints a line for each request that gets no answer.
  throw: true,
  // Three streams that time out fit in.
  setupTimeout: '2m',
  // A smoke run must not be taken for a baseline later.
  tags: timeScale === 1 ? {} : { run: 'smoke' },
  summaryTrendStats: ['avg', 'min', 'med', 'max', 'p(90)', 'p(95)', 'p(99)'],
};

// Long and short ones, as users send them.
const prompts = [
  'Name three rivers that cross a border.',
  'What is a semaphore?',
  'Give me a title for a talk about bread.',
  'A train leaves at 9:40 and needs 2 hours and 35 minutes, with a stop of 12 minutes on the way. When does it arrive, and how would you explain the sum to a child?',
  'Explain in plain words why the sky is red in the evening.',
  'We keep 40 services in one repository. Builds take 25 minutes, most of it in tests that the change cannot have touched, and people have begun to merge without waiting. List what you would look at first, what you would measure before you change anything, and which of the usual remedies you would leave alone.',
  'Translate to French: the shop opens at eight.',
  'Write a short letter to a neighbour whose tree has grown over the fence. It should be friendly, say what would help, offer to share the work on a Saturday in spring, and leave the choice to them.',
  'Which is heavier, a litre of oil or a litre of water?',
  'Summarise: the harbour was built for sailing ships, widened for steam, and is too shallow for what sails today; the town has voted twice on a new one outside the bay, once for it, when the money was missing, and once against it, when the money was there. Since then the old quay has become a market.',
];

/**
 * Checks that the gateway is there and that its time to first token can be
 * seen from here, or aborts the run with one sentence. For setup(); what it
 * returns goes to request().
 * @returns {{ model: string }}
 */
export function preflight() {
  if (timeScale !== 1) console.log(`smoke run (TIME_SCALE=${timeScale}), not a baseline`);

  const health = get('/health');
  if (health.status === 0) {
    exec.test.abort(`no gateway at ${gateway} (${health.error}): start vllm-gateway, or set GATEWAY_URL`);
  }
  if (health.status !== 200) refuse('/health', health, 'set GATEWAY_URL to that of vllm-gateway');

  const model = __ENV.MODEL || firstModel();
  const res = tryThrice(() => post(model, prompts[0]));
  if (res.status !== 200) refuse(`a chat completion of model ${model}`, res, 'set MODEL to one that /v1/models lists');
  const held = heldFor(res);
  if (held === undefined) {
    exec.test.abort(
      `no "Server-Timing: ttft" header comes from ${gateway}: something in front of vllm-gateway, or in its place, sends headers before the first token, so k6 cannot see the time to first token; point GATEWAY_URL at vllm-gateway itself`,
    );
  } else if (firstByte(res) < 0.9 * held - 5) {
    exec.test.abort(
      `the gateway says that its first token took ${held} ms, but the first byte was here after ${Math.round(firstByte(res))} ms: something in front of ${gateway} answers before the first token, so k6 cannot see the time to first token; point GATEWAY_URL at vllm-gateway itself`,
    );
  }
  return { model };
}

/**
 * Sends one streamed chat completion, checks it and counts it.
 * @param {{ model: string }} run
 */
export function request(run) {
  const { idInTest, iterationInScenario } = exec.vu;
  const res = post(run.model, prompts[(7 * idInTest + iterationInScenario) % prompts.length]);
  check(res, {
    'status is 200': (r) => r.status === 200,
    'response has content': (r) => hasContent(r.body),
    'content-type is SSE': isSSE,
  });

  const fault = faultOf(res);
  failedRequests.add(fault !== '');
  if (fault !== '') {
    report(fault);
    return;
  }
  ttft.add(firstByte(res));
  const tokens = completionTokens(res.body);
  // The first token is in the first byte; without a second, or when all came
  // at once, there is no rate to speak of.
  if (tokens >= 2 && res.timings.receiving >= 1) {
    tokensPerSecond.add((tokens - 1) / (res.timings.receiving / 1000));
  }
}

/**
 * What of k6's response is used here; of a request that got none, status 0.
 * @typedef {{ status: number, error: string, body: string, headers: Record<string, string>, timings: { sending: number, waiting: number, receiving: number } }} Answer
 */

/**
 * @param {string} model
 * @param {string} prompt
 */
function post(model, prompt) {
  const body = {
    model,
    messages: [{ role: 'user', content: prompt }],
    max_tokens: maxTokens,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  };
  return answer(() => http.post(completions, JSON.stringify(body), { headers, timeout, responseType: 'text' }));
}

/** @param {string} path */
function get(path) {
  return answer(() => http.get(gateway + path, { headers, timeout: '5s', responseType: 'text' }));
}

/**
 * The answer to a request, or what stands for none.
 * @param {() => import('k6/http').Response} send
 * @returns {Answer}
 */
function answer(send) {
  try {
    return /** @type {any} */ (send());
  } catch (err) {
    const error = err instanceof Error ? err.message : String(err);
    return { status: 0, error, body: '', headers: {}, timings: { sending: 0, waiting: 0, receiving: 0 } };
  }
}

/**
 * A backend that fails now and then is for the run to measure, not for the
 * preflight to trip over.
 * @param {() => Answer} send
 */
function tryThrice(send) {
  let res = send();
  for (let i = 1; i < 3 && res.status !== 200; i++) res = send();
  return res;
}

function firstModel() {
  const res = get('/v1/models');
  if (res.status !== 200) refuse('/v1/models', res, 'set MODEL');
  const id = field(res.body, (list) => list.data[0].id);
  if (!id) exec.test.abort(`the gateway at ${gateway} lists no model at /v1/models: see whether its backends are up, or set MODEL`);
  return id;
}

/**
 * Aborts the run over an answer that is not 200.
 * @param {string} what
 * @param {Answer} res
 * @param {string} missing what to do about a 404
 */
function refuse(what, res, missing) {
  /** @type {Record<number, string>} */
  const remedies = { 401: 'set API_KEY', 403: 'set API_KEY', 404: missing };
  const remedy = remedies[res.status] || 'see its log, and whether its backends are up';
  exec.test.abort(`the gateway at ${gateway} answers ${what} with ${told(res)}: ${remedy}`);
}

/** @param {Answer} res */
function faultOf(res) {
  if (res.status !== 200) return told(res);
  if (!isSSE(res)) return `content-type ${res.headers['Content-Type']}`;
  if (res.body.includes('data: {"error"')) return 'an error event in the stream';
  if (!hasContent(res.body)) return 'a stream without content';
  if (!res.body.slice(-32).trimEnd().endsWith('data: [DONE]')) return 'a stream that ends without [DONE]';
  return '';
}

/** @param {Answer} res */
const isSSE = (res) => /^text\/event-stream\b/i.test(res.headers['Content-Type'] || '');

/** @param {string} body */
const hasContent = (body) => /"(content|reasoning|reasoning_content|arguments)": ?"[^"]/.test(body);

/**
 * completion_tokens of the usage at the stream's end; 0 if there is none.
 * Parsing every event would cost k6 three times the CPU.
 * @param {string} body
 */
function completionTokens(body) {
  const at = body.lastIndexOf('"completion_tokens"');
  const found = at < 0 ? null : /: ?(\d+)/.exec(body.slice(at, at + 40));
  return found ? Number(found[1]) : 0;
}

/** @param {Answer} res */
const firstByte = (res) => res.timings.sending + res.timings.waiting;

/**
 * Milliseconds for which the gateway held its headers back for the first token.
 * @param {Answer} res
 */
function heldFor(res) {
  const found = /\bttft;dur=([\d.]+)/.exec(res.headers['Server-Timing'] || '');
  return found ? Number(found[1]) : undefined;
}

/**
 * An answer that is no success, in words.
 * @param {Answer} res
 */
function told(res) {
  if (res.status === 0) return res.error;
  const message = field(res.body, (body) => body.error.message);
  return message ? `status ${res.status} (${message})` : `status ${res.status}`;
}

/**
 * A string inside a JSON text; empty if it is not there.
 * @param {string} text
 * @param {(parsed: any) => unknown} pick
 */
function field(text, pick) {
  try {
    return String(pick(JSON.parse(text)) || '');
  } catch {
    return '';
  }
}

let reported = false;

/**
 * Prints the first failure of five users; a line for each would drown the log,
 * and users share no memory in which to count the lines.
 * @param {string} fault
 */
function report(fault) {
  if (reported || exec.vu.idInTest > 5) return;
  reported = true;
  console.warn(`request failed: ${fault} (users 1 to 5 print their first failure; all are counted)`);
}

/**
 * A number above 0 from the environment.
 * @param {string} name
 * @param {number} preset
 */
function positive(name, preset, most = Number.MAX_VALUE) {
  const value = Number(__ENV[name] || preset);
  if (value > 0 && value <= most) return value;
  const upTo = most < Number.MAX_VALUE ? ` and at most ${most}` : '';
  throw new Error(`${name}=${__ENV[name]}: use a number above 0${upTo}`);
}
