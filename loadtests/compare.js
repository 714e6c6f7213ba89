// Compare: two models, two gateways, or one gateway and several, side by side. Run:
// MODELS=one,two k6 run loadtests/compare.js
// GATEWAY_URLS=http://a:9000,http://b:9000 k6 run loadtests/compare.js
//
// Sides are apart by commas. Behind GATEWAY_URLS one side may be several gateways,
// joined by "+", over which its users are shared out: http://a:9000,http://a:9000+http://b:9000.
// The sides take turns, twice, with the same prompts, so that they do not share the
// GPUs and a drift meets both. USERS (10) at a time; a turn lasts DURATION (1m).

import exec from 'k6/execution';
import { sleep } from 'k6';
import { gatewayURL, gates, gracefulStop, number, plan, preflight, request, rows, scaled, scenarioNow, seconds, setupTimeout, trimmed, users } from './streams.js';

const sides = sidesOf();
const many = number('USERS', 10, { whole: true });
const turn = scaled(seconds('DURATION', 60));

const turns = [1, 2].flatMap((n) => sides.map((side, i) => ({ stage: `side_${i + 1}_turn_${n}`, side, i })));

export const options = plan('compare', {
  setupTimeout: setupTimeout(sides.flatMap(({ gateways }) => gateways).length),
  scenarios: Object.fromEntries(turns.map(({ stage, side }, at) => [stage, users(many, at * (turn + gracefulStop), turn, { side: side.name })])),
  thresholds: { ...gates, ...rows('scenario', turns.map(({ stage }) => stage)) },
});

export const setup = () => sides.map(({ model, gateways }) => gateways.map((gateway) => preflight(gateway, model)));

/** @param {import('./streams.js').Target[][]} targets of each side */
export default function (targets) {
  const at = turns.findIndex(({ stage }) => stage === scenarioNow().name);
  const side = targets[turns[at].i];
  request(side[exec.vu.idInTest % side.length]);
  sleep(1); // time to think; after a failure, time to back off
}

/** @returns {{ name: string, model?: string, gateways: string[] }[]} */
function sidesOf() {
  const { MODELS, GATEWAY_URLS } = __ENV;
  if (MODELS && GATEWAY_URLS) throw new Error('MODELS and GATEWAY_URLS are both set: compare one thing at a time');
  const names = (MODELS || GATEWAY_URLS || '').split(',').map((name) => name.trim()).filter((name) => name);
  if (new Set(names).size < 2) {
    throw new Error(`set MODELS=one,two or GATEWAY_URLS=http://a:9000,http://b:9000: to compare takes two, and there is ${names.length ? `only "${names[0]}"` : 'none'}`);
  }
  return names.map((name) => (MODELS ? { name, model: name, gateways: [gatewayURL] } : { name, model: __ENV.MODEL, gateways: name.split('+').map(trimmed) }));
}
