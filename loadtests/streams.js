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
import { Gauge, Rate, Trend } from 'k6/metrics';
import { setTimeout } from 'k6/timers';

/** @param {string} url */
export const trimmed = (url) => url.trim().replace(/\/+$/, '');
export const gatewayURL = trimmed(__ENV.GATEWAY_URL || 'http://localhost:9000');
const timeScale = number('TIME_SCALE', 1, { most: 1 });
export const maxTokens = number('MAX_TOKENS', 50, { whole: true });
const promptTokens = __ENV.PROMPT_TOKENS ? number('PROMPT_TOKENS', 0, { whole: true }) : 0;
const seed = number('SEED', 1, { whole: true });

/** @type {Record<string, string>} */
const headers = { 'Content-Type': 'application/json', Accept: 'text/event-stream' };
if (__ENV.API_KEY) headers.Authorization = `Bearer ${__ENV.API_KEY}`;

const ttft = new Trend('ttft_ms', true);
const tokensPerSecond = new Trend('tokens_per_second');
const failedRequests = new Rate('failed_requests');
const lateness = new Trend('arrival_lateness_ms', true);

// One sample as a stage begins, with its planned length: whoever reads the samples
// later divides by it, and asks Prometheus about those minutes.
const stageSeconds = new Gauge('stage_seconds');

/**
 * Seconds of a scenario under TIME_SCALE, at least one.
 * @param {number} seconds
 */
export const scaled = (seconds) => Math.max(1, seconds * timeScale);

/** @param {number} seconds */
export const duration = (seconds) => `${Math.round(seconds * 1000)}ms`;

/**
 * Seconds that a stream may take before it counts as failed, and one more in which a
 * scenario leaves its last requests to their end: k6 cuts off what is still open
 * then, and counts it nowhere.
 */
export const gracefulStop = __ENV.TIMEOUT ? seconds('TIMEOUT', 29) + 1 : Math.max(5, 30 * timeScale);

/**
 * So many users at once, each sending its next request when the last has ended.
 * @param {number} vus
 * @param {number} begins seconds into the run
 * @param {number} lasts seconds
 * @param {Record<string, string>} [tags]
 * @returns {import('k6/options').Scenario}
 */
export const users = (vus, begins, lasts, tags = {}) => ({
  executor: 'constant-vus',
  vus,
  startTime: duration(begins),
  duration: duration(lasts),
  gracefulStop: duration(gracefulStop),
  tags,
});

/** What the thresholds of every script but the baseline's go by. */
export const objective = {
  ttftP95: number('TTFT_P95_MS', 2000),
  tokensPerSecond: number('MIN_TOKENS_PER_SECOND', 30),
};

// Where it is not the usual one, stages bear it: those who judge a run from Prometheus
// have nothing else to know it by.
/** @type {Record<string, string>} */
const own = {};
if (objective.ttftP95 !== 2000) own.ttft_p95_ms = String(objective.ttftP95);
if (objective.tokensPerSecond !== 30) own.min_tokens_per_second = String(objective.tokensPerSecond);

/**
 * The objective as thresholds over the whole run. k6 passes a threshold that got no
 * samples; avg>0 and count>0 do not.
 */
export const gates = {
  ttft_ms: [`p(95)<${objective.ttftP95}`, 'avg>0'],
  tokens_per_second: [`avg>${objective.tokensPerSecond}`],
  failed_requests: ['rate<0.05'],
};

/**
 * Rows in the summary for each stage, no gates but one: it must have had requests.
 * @param {string} tag
 * @param {string[]} stages
 */
export function rows(tag, stages) {
  /** @type {Record<string, string[]>} */
  const thresholds = {};
  for (const stage of stages) {
    const of = `{${tag}:${stage}}`;
    thresholds[`http_reqs${of}`] = ['count>0'];
    for (const metric of ['http_req_duration', 'ttft_ms', 'tokens_per_second', 'failed_requests']) thresholds[metric + of] = [];
  }
  return thresholds;
}

// A smoke run must not be taken for a real one later. Stages bear it, too: k6-operator
// puts its own tags in the place of the options'.
/** @type {Record<string, string>} */
const smoke = timeScale === 1 ? {} : { run: 'smoke' };

/**
 * For preflights in which three streams time out.
 * @param {number} gateways
 */
export const setupTimeout = (gateways) => duration(gateways * (3 * gracefulStop + 15));

let script = '';
/** @type {{ stage: string, begins: number, seconds: number }[] | undefined} */
let parts;

/**
 * Options of a script. Its stages are its scenarios, unless it names parts of one:
 * those tag their requests with the stage.
 * @param {string} name
 * @param {import('k6/options').Options} own
 * @param {typeof parts} [stages]
 * @returns {import('k6/options').Options}
 */
export function plan(name, own, stages) {
  script = name;
  parts = stages;
  return {
    // Without throw, k6 prints a line for each request that gets no answer.
    throw: true,
    setupTimeout: setupTimeout(1),
    tags: smoke,
    summaryTrendStats: ['avg', 'min', 'med', 'max', 'p(90)', 'p(95)', 'p(99)'],
    ...own,
  };
}

/**
 * Says that a stage begins.
 * @param {number} lasts seconds
 * @param {Record<string, string>} [tags]
 */
export const announce = (lasts, tags = {}) => stageSeconds.add(lasts, { script, ...smoke, ...own, ...tags });

/** @type {typeof exec.scenario | undefined} */
let scenario;

/**
 * exec.scenario, whose values are always those of now. k6 makes it anew each time that
 * it is asked for, which costs a tenth of what a request does.
 */
export const scenarioNow = () => scenario || (scenario = exec.scenario);

let announced = '';

/** By the first request of a scenario, whichever user sends it. */
function announceScenario() {
  if (scenarioNow().iterationInInstance !== 0) return;
  const { name } = scenarioNow();
  if (announced === name) return;
  announced = name;
  if (parts) {
    for (const { stage, begins, seconds } of parts) announce(seconds, { stage, begins: String(begins) });
    return;
  }
  const planned = /** @type {any} */ (exec.test.options.scenarios)[name];
  announce(toSeconds(planned.duration) || 0);
}

/** The part of its only scenario in which a script is now, as plan() was told. */
export function stageNow() {
  const elapsed = (Date.now() - scenarioNow().startTime) / 1000;
  let now = '';
  for (const { stage, begins } of parts || []) if (begins <= elapsed || now === '') now = stage;
  return now;
}

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
 * A gateway and a model there, which preflight() has found to be usable.
 * @typedef {{ gateway: string, model: string }} Target
 */

/**
 * Checks that the gateway is there and that its time to first token can be
 * seen from here, or aborts the run with one sentence. For setup(), which k6 calls
 * with null; what it
 * returns goes to request().
 * @returns {Target}
 */
export function preflight(gateway = gatewayURL, model = __ENV.MODEL) {
  if (timeScale !== 1 && !warned) console.log(`smoke run (TIME_SCALE=${timeScale}), not a ${script === 'baseline' ? 'baseline' : 'measurement'}`);
  warned = true;

  const health = get(gateway, '/health');
  if (health.status === 0) {
    exec.test.abort(`no gateway at ${gateway} (${health.error}): start vllm-gateway, or set GATEWAY_URL`);
  }
  if (health.status !== 200) refuse(gateway, '/health', health, 'set GATEWAY_URL to that of vllm-gateway');

  const target = { gateway, model: model || firstModel(gateway) };
  const res = tryThrice(() => answer(() => http.post(...post(target, {}))));
  if (res.status !== 200) refuse(gateway, `a chat completion of model ${target.model}`, res, 'set MODEL to one that /v1/models lists');
  const held = heldFor(res);
  if (held === undefined) {
    exec.test.abort(
      `no "Server-Timing: ttft" header comes from ${gateway}: something in front of vllm-gateway, or in its place, sends headers before the first token, so k6 cannot see the time to first token; point GATEWAY_URL at vllm-gateway itself`,
    );
  } else if (res.firstByte < 0.9 * held - 5) {
    exec.test.abort(
      `the gateway says that its first token took ${held} ms, but the first byte was here after ${Math.round(res.firstByte)} ms: something in front of ${gateway} answers before the first token, so k6 cannot see the time to first token; point GATEWAY_URL at vllm-gateway itself`,
    );
  }
  return target;
}

let warned = false;

/**
 * What to ask, where it is not the next of the built-in prompts.
 * @typedef {object} Question
 * @property {string} [prompt]
 * @property {string} [system] a system prompt before it
 * @property {object} [body] fields of the request: messages, max_tokens, …
 * @property {Record<string, string>} [tags] of all samples of the request
 * @property {string} [timeout] instead of the scenario's
 * @property {number} [late] milliseconds between when it was due and when it is sent
 */

/**
 * Sends one streamed chat completion, checks it and counts it.
 * @param {Target} target
 * @param {Question} [question]
 */
export function request(target, question = {}) {
  announceScenario();
  return count(answer(() => http.post(...post(target, question))), question);
}

/**
 * The same without waiting for it: many from one user at once, for open loops.
 * @param {Target} target
 * @param {Question} question
 */
export async function send(target, question) {
  const [url, body, params] = post(target, question);
  let res;
  try {
    res = seen(await http.asyncRequest('POST', url, body, params));
  } catch (err) {
    res = noAnswer(err);
  }
  return count(res, question);
}

/**
 * Sends at the times of a schedule, in seconds from now, whatever has become of the
 * requests before; ends when the last has ended. What came late is counted as late,
 * and its time to first token from when it was due. A single user does this: users
 * share no memory, and hundreds of them take more of the machine.
 * @template {{ at: number }} T
 * @param {Iterable<T>} schedule in order
 * @param {(item: T, late: number) => Promise<void>} sendOne
 * @param {() => boolean} [stop] asked before each; true ends the schedule
 */
export async function arrivals(schedule, sendOne, stop = () => false) {
  const began = Date.now();
  const open = new Set();
  for (const item of schedule) {
    const due = began + 1000 * item.at;
    const early = due - Date.now();
    if (early > 0) await pause(early);
    if (stop()) break;
    const late = Math.max(0, Date.now() - due);
    lateness.add(late);
    const one = sendOne(item, late);
    open.add(one);
    one.then(() => open.delete(one));
  }
  await Promise.all(open);
}

/** @param {number} ms */
export const pause = (ms) => new Promise((on) => setTimeout(() => on(undefined), ms));

/**
 * Options of a script that sends by arrivals().
 * @param {number} longest seconds after which k6 gives up
 * @returns {import('k6/options').Scenario}
 */
export const openLoop = (longest) => ({
  executor: 'per-vu-iterations',
  vus: 1,
  iterations: 1,
  maxDuration: duration(longest),
  gracefulStop: '0s',
});

/**
 * @param {Answer} res
 * @param {Question} question
 * @returns {{ good: boolean, ttft: number, speed: number, body: string }} milliseconds,
 *   and tokens a second; 0 where there is none
 */
function count(res, { tags = {}, late = 0 }) {
  check(res, checks, tags);
  const fault = faultOf(res);
  failedRequests.add(fault !== '', tags);
  if (fault !== '') {
    report(fault);
    return { good: false, ttft: 0, speed: 0, body: res.body };
  }
  const first = res.firstByte + late;
  ttft.add(first, tags);
  const tokens = completionTokens(res.body);
  // The first token is in the first byte; without a second, or when all came
  // at once, there is no rate to speak of.
  const speed = tokens >= 2 && res.receiving >= 1 ? (tokens - 1) / (res.receiving / 1000) : 0;
  if (speed) tokensPerSecond.add(speed, tags);
  return { good: true, ttft: first, speed, body: res.body };
}

/** @type {Record<string, (res: any) => boolean>} */
const checks = {
  'status is 200': (/** @type {Answer} */ res) => res.status === 200,
  'response has content': (/** @type {Answer} */ res) => res.content,
  'content-type is SSE': (/** @type {Answer} */ res) => res.stream,
};

/**
 * What of k6's response is used here; of a request that got none, status 0. Times are in
 * milliseconds: until the first byte, and from there to the last.
 * @typedef {object} Answer
 * @property {number} status
 * @property {string} error
 * @property {string} body
 * @property {string} type
 * @property {string} serverTiming
 * @property {boolean} stream
 * @property {boolean} content
 * @property {number} firstByte
 * @property {number} receiving
 */

/**
 * Each look into k6's response makes its values anew, a body of 10 kB too: one look each.
 * @param {import('k6/http').Response} res
 * @returns {Answer}
 */
function seen(res) {
  const { timings, headers } = res;
  const body = /** @type {string} */ (res.body) || '';
  const type = headers['Content-Type'] || '';
  return {
    status: res.status,
    error: res.error,
    body,
    type,
    serverTiming: headers['Server-Timing'] || '',
    stream: type.startsWith('text/event-stream'),
    content: /"(content|reasoning|reasoning_content|arguments)": ?"[^"]/.test(body),
    firstByte: timings.sending + timings.waiting,
    receiving: timings.receiving,
  };
}

/**
 * @param {unknown} err
 * @returns {Answer}
 */
function noAnswer(err) {
  const error = err instanceof Error ? err.message : String(err);
  return { status: 0, error, body: '', type: '', serverTiming: '', stream: false, content: false, firstByte: 0, receiving: 0 };
}

/**
 * @param {Target} target
 * @param {Question} question
 * @returns {[string, string, import('k6/http').RefinedParams<'text'>]}
 */
function post(target, { prompt, system, body, tags, timeout = duration(gracefulStop - 1) }) {
  /** @type {{ messages?: object[], [field: string]: unknown }} */
  const asked = {
    model: target.model,
    max_tokens: maxTokens,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
    ...body,
  };
  if (!asked.messages) {
    asked.messages = [{ role: 'user', content: prompt || nextPrompt() }];
    if (system) asked.messages.unshift({ role: 'system', content: system });
  }
  return [`${target.gateway}/v1/chat/completions`, JSON.stringify(asked), { headers, timeout, tags, responseType: 'text' }];
}

function nextPrompt() {
  const { idInTest, iterationInScenario } = exec.vu;
  return promptOf(7 * idInTest + iterationInScenario);
}

/**
 * The same one for the same number, in every run: two runs compare.
 * @param {number} i
 */
export const promptOf = (i) => (promptTokens ? prose(promptTokens, random(i)) : prompts[i % prompts.length]);

/**
 * @param {string} gateway
 * @param {string} path
 */
function get(gateway, path) {
  return answer(() => http.get(gateway + path, { headers, timeout: '5s', responseType: 'text' }));
}

/**
 * The answer to a request, or what stands for none.
 * @param {() => import('k6/http').Response} ask
 * @returns {Answer}
 */
function answer(ask) {
  try {
    return seen(ask());
  } catch (err) {
    return noAnswer(err);
  }
}

/**
 * A backend that fails now and then is for the run to measure, not for the
 * preflight to trip over.
 * @param {() => Answer} ask
 */
function tryThrice(ask) {
  let res = ask();
  for (let i = 1; i < 3 && res.status !== 200; i++) res = ask();
  return res;
}

/**
 * Tokens of prompt and answer together that the model holds, as vLLM lists it;
 * Infinity if the gateway's list does not say.
 * @param {Target} target
 */
export function longest(target) {
  const res = get(target.gateway, '/v1/models');
  return Number(field(res.body, (list) => list.data.find((/** @type {any} */ m) => m.id === target.model).max_model_len)) || Infinity;
}

/** @param {string} gateway */
function firstModel(gateway) {
  const res = get(gateway, '/v1/models');
  if (res.status !== 200) refuse(gateway, '/v1/models', res, 'set MODEL');
  const id = field(res.body, (list) => list.data[0].id);
  if (!id) exec.test.abort(`the gateway at ${gateway} lists no model at /v1/models: see whether its backends are up, or set MODEL`);
  return id;
}

/**
 * Aborts the run over an answer that is not 200.
 * @param {string} gateway
 * @param {string} what
 * @param {Answer} res
 * @param {string} missing what to do about a 404
 */
function refuse(gateway, what, res, missing) {
  /** @type {Record<number, string>} */
  const remedies = { 401: 'set API_KEY', 403: 'set API_KEY', 404: missing };
  const remedy = remedies[res.status] || 'see its log, and whether its backends are up';
  exec.test.abort(`the gateway at ${gateway} answers ${what} with ${told(res)}: ${remedy}`);
}

/** @param {Answer} res */
function faultOf(res) {
  if (res.status !== 200) return told(res);
  if (!res.stream) return `content-type ${res.type}`;
  if (res.body.includes('data: {"error"')) return 'an error event in the stream';
  if (!res.content) return 'a stream without content';
  if (!res.body.slice(-32).trimEnd().endsWith('data: [DONE]')) return 'a stream that ends without [DONE]';
  return '';
}

/**
 * The text of a streamed answer, for a talk that goes on. It parses what it finds, so
 * only scripts that need it pay for it.
 * @param {string} body
 */
export function textOf(body) {
  const pieces = body.match(/"content": ?"(?:[^"\\]|\\.)*"/g) || [];
  return pieces.map((piece) => JSON.parse(piece.slice(piece.indexOf(':') + 1))).join('');
}

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

/**
 * Milliseconds for which the gateway held its headers back for the first token.
 * @param {Answer} res
 */
function heldFor(res) {
  const found = /\bttft;dur=([\d.]+)/.exec(res.serverTiming);
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

let reported = 0;

/**
 * Prints the first failures: a line for each would drown the log. Users share no
 * memory in which to count the lines, so eight of them at most, from all over, print
 * one each. In an open loop there is one user, for five lines.
 * @param {string} fault
 */
function report(fault) {
  const among = exec.instance.vusInitialized;
  const id = exec.vu.idInInstance;
  if (reported >= (among === 1 ? 5 : 1) || (id > 4 && id % Math.ceil(among / 4) !== 0)) return;
  reported++;
  console.warn(`request failed: ${fault} (only the first failures are printed; all are counted)`);
}

/**
 * Numbers from 0 to 1 that are the same in each run; SEED makes others.
 * @param {number} [stream] for several that do not depend on each other
 */
export function random(stream = 0) {
  let a = (seed * 2654435761 + stream * 40503) >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Seconds between arrivals, 1/rate on average. Steady ones are all alike; Poisson's
 * are those of many people who do not know of each other; bursts (gamma, its shape a
 * quarter) are twice as uneven: most come in clusters, with long pauses between.
 * @param {string} kind
 * @param {number} rate per second
 * @param {() => number} chance
 */
export function gap(kind, rate, chance) {
  if (kind === 'steady') return 1 / rate;
  if (kind === 'bursts') return (4 / rate) * quarterGamma(chance);
  return -Math.log(1 - chance()) / rate;
}

export const arrivalKinds = ['poisson', 'bursts', 'steady'];

/**
 * A gamma variate of shape 1/4 and scale 1, by Marsaglia and Tsang (2000): one of
 * shape 5/4, times a fourth power of chance.
 * @param {() => number} chance
 */
function quarterGamma(chance) {
  const d = 1.25 - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = Math.sqrt(-2 * Math.log(1 - chance())) * Math.cos(2 * Math.PI * chance());
    const v = (1 + c * normal) ** 3;
    if (v > 0 && Math.log(1 - chance()) < 0.5 * normal * normal + d - d * v + d * Math.log(v)) {
      return d * v * (1 - chance()) ** 4;
    }
  }
}

// Short words that tokenizers of most models have as one token each.
const words = 'the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our man me even most made after also did many off before must well back years much where your way down should long each just state people those too good very make world still see own work here life both being under never day same know year while last might great old come since go right came take used few house use during again place around home small found part once'.split(' ');

/** @type {number[]} where each word of text begins */
const starts = [];
let text = '';

/**
 * Text of about so many tokens, and no sense. It is cut out of a longer one, since
 * to put words together for each request would make k6 late.
 * @param {number} tokens
 * @param {() => number} chance says where
 */
export function prose(tokens, chance) {
  const size = 1 << 14;
  if (starts.length === 0) {
    const any = random();
    const chosen = Array.from({ length: size }, () => words[Math.floor(any() * words.length)]);
    for (let i = 0, at = 0; i < size; at += chosen[i++].length + 1) starts.push(at);
    text = chosen.join(' ') + ' ';
  }
  let cut = '';
  for (let at = Math.floor(chance() * size); tokens > 0; at = 0) {
    const end = Math.min(size, at + tokens);
    cut += text.substring(starts[at], starts[end] || text.length);
    tokens -= end - at;
  }
  return cut.trimEnd();
}

/**
 * A number above 0 from the environment.
 * @param {string} name
 * @param {number} preset
 * @param {{ most?: number, whole?: boolean }} [within]
 */
export function number(name, preset, { most = Number.MAX_VALUE, whole = false } = {}) {
  const value = Number(__ENV[name] || preset);
  if (value > 0 && value <= most && !(whole && value % 1)) return value;
  const upTo = most < Number.MAX_VALUE ? ` and at most ${most}` : '';
  throw new Error(`${name}=${__ENV[name]}: use a ${whole ? 'whole ' : ''}number above 0${upTo}`);
}

/**
 * A time from the environment, in seconds or with a unit: 90, 90s, 30m, 1h30m.
 * @param {string} name
 * @param {number} preset seconds
 */
export function seconds(name, preset) {
  if (!__ENV[name]) return preset;
  const value = toSeconds(__ENV[name]);
  if (value) return value;
  throw new Error(`${name}=${__ENV[name]}: use a time such as 90s, 30m or 1h30m`);
}

/**
 * One of a few words from the environment; the first is the default.
 * @param {string} name
 * @param {string[]} allowed
 */
export function choice(name, allowed) {
  const value = __ENV[name] || allowed[0];
  if (allowed.includes(value)) return value;
  throw new Error(`${name}=${value}: use ${allowed.slice(0, -1).join(', ')} or ${allowed[allowed.length - 1]}`);
}

/**
 * Seconds of a time as k6 writes them ("1m30.5s"), or undefined.
 * @param {string} text
 */
function toSeconds(text) {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  const found = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$/.exec(text);
  if (!found || text === '') return undefined;
  const [h, m, s, ms] = found.slice(1).map((part) => Number(part || 0));
  return 3600 * h + 60 * m + s + ms / 1000;
}

/**
 * The lines of a file that the environment names, from where k6 was started (or from
 * the script's folder, where k6 does not know: as in an archive). For the init stage.
 * @param {string} name
 */
export function linesOf(name) {
  const here = __ENV.PWD && !__ENV[name].startsWith('/') ? `${__ENV.PWD}/` : '';
  const path = here + __ENV[name];
  let text;
  try {
    text = open(path);
  } catch (err) {
    throw new Error(`${name}=${__ENV[name]}: ${err instanceof Error ? err.message : err}`);
  }
  return text.replace(/^\ufeff/, '').split(/\r?\n/).filter((line) => line.trim() !== '');
}
