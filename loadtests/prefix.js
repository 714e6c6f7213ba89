// Prefix: what it buys that requests begin alike. Run: k6 run loadtests/prefix.js
//
// USERS (10) send prompts behind a system prompt of PREFIX_TOKENS (1000): in two turns
// each its own, that nobody has sent before, and in the two between them all the same.
// Where vLLM caches prefixes, and the gateway sends those that are alike to the same
// backend, the time to first token of side `shared` is that much shorter than of `own`;
// the verdict has both, and how much of the prompts the cache knew. A turn lasts
// DURATION (1m). Words are new in each run, since the cache knows those of the last.

import exec from 'k6/execution';
import { sleep } from 'k6';
import { gates, gracefulStop, longest, maxTokens, number, plan, preflight, prose, random, request, rows, scaled, scenarioNow, seconds, users } from './streams.js';

const prefixTokens = number('PREFIX_TOKENS', 1000, { whole: true });
const many = number('USERS', 10, { whole: true });
const turn = scaled(seconds('DURATION', 60));

const turns = ['own_1', 'shared_1', 'own_2', 'shared_2'];
const sideOf = (/** @type {string} */ stage) => stage.split('_')[0];

export const options = plan('prefix', {
  scenarios: Object.fromEntries(turns.map((stage, i) => [stage, users(many, i * (turn + gracefulStop), turn, { side: sideOf(stage) })])),
  thresholds: { ...gates, ...rows('scenario', turns), ...rows('side', ['own', 'shared']) },
});

export function setup() {
  const target = preflight();
  const most = longest(target);
  const rest = 250 + maxTokens; // question and chat template, and the answer
  if (prefixTokens + rest > most) {
    exec.test.abort(`PREFIX_TOKENS=${prefixTokens} leaves no room: ${target.model} holds ${most} tokens; set it to ${most - rest} or less`);
  }
  return { ...target, run: Date.now() };
}

const text = prose(prefixTokens, random());

/** @param {import('./streams.js').Target & { run: number }} target */
export default function ({ run, ...target }) {
  const { name, iterationInTest } = scenarioNow();
  // The cache knows whole blocks, from the beginning: there they differ or not.
  const mine = sideOf(name) === 'own' ? `${name} ${iterationInTest}` : '';
  request(target, { system: `${run} ${mine} ${text}` });
  sleep(1); // time to think; after a failure, time to back off
}
