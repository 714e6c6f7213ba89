// Trace: requests at the times, and of the lengths, that somebody once had. Run:
// TRACE=trace.csv k6 run loadtests/trace.js
//
// TRACE is a file in one of the public forms, told by its first line:
//   Azure     TIMESTAMP,ContextTokens,GeneratedTokens     2023-11-16 18:17:03.9799600,374,44
//   BurstGPT  Timestamp,…,Request tokens,Response tokens  5,ChatGPT,472,18,490,Conversation log
//   Mooncake  a JSON object in each line                  {"timestamp": 27482, "input_length": 6955, "output_length": 52}
// Without it times and lengths are drawn: RATE (10) a second for DURATION (2m), as
// ARRIVALS says (poisson, bursts or steady), prompts of PROMPT_TOKENS (200) and answers
// of MAX_TOKENS (50) on average, exponentially; SEED draws others.
//
// SPEED (1) replays faster or slower, FIRST (all) only so many. Answers get their length
// because the engine is told to go on (ignore_eos); what the model cannot hold is made
// shorter, and the log says how often. A time to first token counts from when the
// request was due.

import { SharedArray } from 'k6/data';
import { announce, arrivalKinds, arrivals, choice, duration, gap, gates, linesOf, longest, number, openLoop, plan, preflight, prose, random, rows, scaled, seconds, send } from './streams.js';

/** @typedef {{ at: number, prompt: number, answer: number, blocks?: number[] }} Arrival at: seconds from the begin; the others: tokens */

const speed = number('SPEED', 1);
const only = __ENV.FIRST ? number('FIRST', 0, { whole: true }) : Infinity;

/** @type {Arrival[]} */
const schedule = new SharedArray('schedule', () => {
  const all = __ENV.TRACE ? replayed(linesOf('TRACE')) : drawn();
  const [begin, end] = [all[0].at, all[all.length - 1].at];
  const until = scaled((end - begin) / speed);
  return all
    .slice(0, only)
    .map((a) => ({ ...a, at: (a.at - begin) / speed }))
    .filter((a) => a.at <= until);
});
const lasts = schedule[schedule.length - 1].at;

// Long answers take their time, and nothing cuts them off here.
const timeout = scaled(300) + 5;

export const options = plan('trace', {
  scenarios: { trace: openLoop(lasts + timeout + 5) },
  thresholds: {
    ...gates,
    ...rows('scenario', ['trace']),
    // Late arrivals are load that was not there.
    arrival_lateness_ms: ['p(99)<200'],
  },
});

export function setup() {
  const target = preflight();
  const most = longest(target);
  const cut = schedule.filter((a) => fit(a, most).shorter).length;
  if (cut) console.warn(`${cut} of ${schedule.length} requests are too long for the ${most} tokens that ${target.model} holds, and were made shorter`);
  return { ...target, most };
}

/** @param {import('./streams.js').Target & { most: number | null }} target */
export default async function ({ most, ...target }) {
  announce(lasts);
  const chance = random(1);
  await arrivals(schedule, async (a, late) => {
    const { prompt, answer } = fit(a, most || Infinity); // null: what JSON makes of Infinity
    const body = { max_tokens: answer, ignore_eos: true };
    await send(target, { prompt: question(a, prompt, chance), body, timeout: duration(timeout), late });
  });
}

/**
 * A request's lengths within what the model holds.
 * @param {Arrival} a
 * @param {number} most tokens
 */
function fit(a, most) {
  const answer = Math.min(a.answer, Math.ceil(most / 2));
  const prompt = Math.min(a.prompt, Math.floor(0.95 * (most - answer - template))); // words are not quite tokens
  return { prompt, answer, shorter: prompt < a.prompt || answer < a.answer };
}

// Tokens that a chat template puts around a prompt, or somewhat more.
const template = 32;

// Mooncake's hash_ids are of blocks so long.
const blockTokens = 512;

/**
 * A prompt of so many tokens. Where the trace says which blocks prompts have in
 * common, they have: a prefix cache sees what it saw then.
 * @param {Arrival} a
 * @param {number} tokens
 * @param {() => number} chance
 */
function question(a, tokens, chance) {
  if (!a.blocks) return prose(tokens, chance);
  const blocks = a.blocks.map((id, i) => prose(Math.max(0, Math.min(blockTokens, tokens - i * blockTokens)), random(id)));
  return blocks.join(' ').trimEnd();
}

function drawn() {
  const [rate, until, kind] = [number('RATE', 10), seconds('DURATION', 120), choice('ARRIVALS', arrivalKinds)];
  const [prompt, answer] = [number('PROMPT_TOKENS', 200), number('MAX_TOKENS', 50)];
  const chance = random();
  /** @param {number} mean */
  const length = (mean) => Math.ceil(-mean * Math.log(1 - chance()));
  const all = [];
  for (let at = 0; at < until; at += gap(kind, rate, chance)) all.push({ at, prompt: length(prompt), answer: length(answer) });
  return all;
}

/**
 * @param {string[]} lines
 * @returns {Arrival[]} in order
 */
function replayed(lines) {
  const read = reader(lines[0] || '');
  const all = (read.header ? lines.slice(1) : lines).map((line, i) => {
    const a = read.line(line);
    if (a && a.at >= 0 && a.prompt >= 0 && a.answer >= 0) return { ...a, prompt: Math.max(1, a.prompt), answer: Math.max(1, a.answer) };
    throw new Error(`TRACE=${__ENV.TRACE}, line ${i + (read.header ? 2 : 1)}: no time and lengths in "${line.slice(0, 80)}"`);
  });
  if (all.length === 0) throw new Error(`TRACE=${__ENV.TRACE}: there is no request in it`);
  return all.sort((a, b) => a.at - b.at);
}

/**
 * How to read a file, by its first line.
 * @param {string} first
 * @returns {{ header: boolean, line: (line: string) => Arrival | undefined }}
 */
function reader(first) {
  if (first.startsWith('{')) return { header: false, line: mooncake };
  const columns = first.split(',').map((name) => name.trim().toLowerCase());
  /** @param {string[]} names */
  const at = (...names) => columns.findIndex((name) => names.includes(name));
  const [time, prompt, answer] = [at('timestamp'), at('contexttokens', 'request tokens'), at('generatedtokens', 'response tokens')];
  if (Math.min(time, prompt, answer) < 0) {
    throw new Error(`TRACE=${__ENV.TRACE}: its first line is "${first.slice(0, 80)}", and should be TIMESTAMP,ContextTokens,GeneratedTokens (Azure), Timestamp,…,Request tokens,Response tokens (BurstGPT), or a JSON object with timestamp, input_length and output_length (Mooncake)`);
  }
  return {
    header: true,
    line: (line) => {
      const cells = line.split(',');
      return { at: secondsOf(cells[time]), prompt: tokensOf(cells[prompt]), answer: tokensOf(cells[answer]) };
    },
  };
}

/**
 * @param {string} line
 * @returns {Arrival | undefined}
 */
function mooncake(line) {
  try {
    const { timestamp, input_length, output_length, hash_ids } = JSON.parse(line);
    return { at: Number(timestamp) / 1000, prompt: Number(input_length), answer: Number(output_length), blocks: hash_ids };
  } catch {
    return undefined;
  }
}

/** @param {string | undefined} cell */
function tokensOf(cell = '') {
  return /^ *\d+(\.0*)? *$/.test(cell) ? Math.trunc(Number(cell)) : NaN;
}

/**
 * BurstGPT counts seconds, Azure writes dates, in UTC and to a ten-millionth of a second.
 * @param {string | undefined} cell
 */
function secondsOf(cell = '') {
  if (/^ *\d+(\.\d*)? *$/.test(cell)) return Number(cell);
  const found = /^ *(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?(?:Z|\+00:?00)? *$/.exec(cell);
  return found ? Date.parse(`${found[1]}T${found[2]}Z`) / 1000 + Number(found[3] || 0) : NaN;
}
