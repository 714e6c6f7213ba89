// Prompts: what your own users send, or something like it. Run:
// PROMPTS=prompts.jsonl k6 run loadtests/prompts.js
//
// PROMPTS is a file with a JSON object in each line: {"prompt": "…"} or {"messages":
// […]}, with whatever else a chat completion takes (max_tokens, temperature, …). The
// lines are sent in order, each once before any is sent again; `model` and `stream`
// are the test's. Where a line has no max_tokens it is MAX_TOKENS (50).
//
// Without it there are talks: a user asks, reads, thinks, and asks again with all that
// was said before, once to six times. Questions have PROMPT_TOKENS (200) and answers
// MAX_TOKENS on average, most of them fewer, some many more (log-normal, as in the
// public traces); the engine is told to go on until then (ignore_eos). SEED makes
// others. USERS (10) do this for DURATION (2m).

import { sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { gates, linesOf, longest, number, plan, preflight, prose, random, request, rows, scaled, scenarioNow, seconds, textOf, users } from './streams.js';

const [promptTokens, answerTokens] = [number('PROMPT_TOKENS', 200), number('MAX_TOKENS', 50)];

/** @type {object[]} */
const own = new SharedArray('prompts', () => (__ENV.PROMPTS ? linesOf('PROMPTS').map(bodyOf) : []));
if (__ENV.PROMPTS && own.length === 0) throw new Error(`PROMPTS=${__ENV.PROMPTS}: there is no prompt in it`);

export const options = plan('prompts', {
  scenarios: { prompts: users(number('USERS', 10, { whole: true }), 0, scaled(seconds('DURATION', 120))) },
  thresholds: { ...gates, ...rows('scenario', ['prompts']) },
});

export function setup() {
  const target = preflight();
  return { ...target, most: longest(target) };
}

/** @param {import('./streams.js').Target & { most: number | null }} target */
export default function ({ most, ...target }) {
  const { iterationInTest } = scenarioNow();
  if (own.length) {
    request(target, { body: own[iterationInTest % own.length] });
    sleep(1); // time to think; after a failure, time to back off
    return;
  }
  talk(target, most || Infinity, random(iterationInTest)); // null: what JSON makes of Infinity
}

const mostTurns = 6;
const template = 16; // tokens that a chat template puts around a message, or somewhat more

/**
 * Ends when all is said, when no more has room in what the model holds, or at a failure.
 * @param {import('./streams.js').Target} target
 * @param {number} most tokens that the model holds
 * @param {() => number} chance
 */
function talk(target, most, chance) {
  /** @type {{ role: string, content: string }[]} */
  const messages = [];
  let said = 0;
  do {
    const answer = Math.min(length(answerTokens, chance), Math.floor(most / 4));
    const room = Math.floor(0.9 * (most - said - answer - template)); // words are not quite tokens
    if (room < 1) break;
    const question = Math.min(length(promptTokens, chance), room);
    messages.push({ role: 'user', content: prose(question, chance) });
    const { good, body } = request(target, { body: { messages, max_tokens: answer, ignore_eos: true } });
    sleep(1);
    if (!good) break;
    messages.push({ role: 'assistant', content: textOf(body) });
    said += question + answer + 2 * template;
  } while (messages.length < 2 * mostTurns && chance() < 0.5);
}

/**
 * Log-normal, as wide as its mean is large (sigma 1).
 * @param {number} mean
 * @param {() => number} chance
 */
function length(mean, chance) {
  const normal = Math.sqrt(-2 * Math.log(1 - chance())) * Math.cos(2 * Math.PI * chance());
  return Math.ceil(mean * Math.exp(normal - 0.5));
}

/**
 * @param {string} line
 * @param {number} i
 */
function bodyOf(line, i) {
  const wrong = (/** @type {string} */ what) => new Error(`PROMPTS=${__ENV.PROMPTS}, line ${i + 1}: ${what}: "${line.slice(0, 80)}"`);
  let asked;
  try {
    asked = JSON.parse(line);
  } catch {
    throw wrong('this is no JSON object');
  }
  const { prompt, messages, model, stream, stream_options, ...rest } = Object(asked);
  if (typeof prompt === 'string' && prompt) return { messages: [{ role: 'user', content: prompt }], ...rest };
  if (Array.isArray(messages) && messages.length) return { messages, ...rest };
  throw wrong('there is neither a "prompt" nor "messages"');
}
