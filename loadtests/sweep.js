// Sweep: how many requests a second can it take? Requests come at a rate, whatever
// becomes of those before them; the rate is doubled until the objective breaks, then
// halved in on until the limit is known to a tenth. Run: k6 run loadtests/sweep.js
//
// The objective holds in a step when nineteen in twenty requests have their first
// token within TTFT_P95_MS, and fail in no other way. A step ends early when it can
// no longer hold, and the next begins when the last request has ended. What a queue
// can swallow within a step passes: longer steps are stricter.
//
// RATE (1) is the first rate, MAX_RATE (512) the last, STEP (30s) the length of a
// step. The run passes if the limit is at least AT_LEAST (RATE) requests a second.
// ARRIVALS: poisson (as of many people), bursts or steady. SEED makes others.

import { announce, arrivalKinds, arrivals, choice, duration, gap, gracefulStop, number, objective, openLoop, pause, plan, preflight, promptOf, random, scaled, seconds, send } from './streams.js';
import { Gauge } from 'k6/metrics';

const first = number('RATE', 1);
const last = number('MAX_RATE', 512);
const atLeast = number('AT_LEAST', first);
const step = scaled(seconds('STEP', 30));
const kind = choice('ARRIVALS', arrivalKinds);
const fewest = 20; // requests in a step, to speak of nineteen in twenty
if (first * seconds('STEP', 30) < fewest) throw new Error(`RATE=${first} for STEP=${__ENV.STEP || '30s'} is fewer than ${fewest} requests, which say nothing: set STEP=${Math.ceil(fewest / first)}s`);
if (last < first) throw new Error(`MAX_RATE=${last} is below RATE=${first}: the sweep goes up`);

// More at once than any objective can hold with; k6 gives each a goroutine or two.
const mostOpen = 5000;
const missesAllowed = 0.05;

const limit = new Gauge('limit_rps');

const doublings = Math.ceil(Math.log2(last / first)) + 1;
const halvings = 3; // 2 / 2^3: the limit to an eighth of what was good

export const options = plan('sweep', {
  scenarios: { sweep: openLoop((doublings + halvings) * (step + gracefulStop)) },
  thresholds: {
    limit_rps: [`value>=${atLeast}`],
    'http_reqs{scenario:sweep}': ['count>0'],
    // Late arrivals are load that was not there.
    arrival_lateness_ms: ['p(99)<200'],
    ttft_ms: [],
    tokens_per_second: [],
    failed_requests: [],
  },
});

export const setup = () => preflight();

/** @param {import('./streams.js').Target} target */
export default async function (target) {
  let good = 0;
  let bad = Infinity;
  for (let rate = first, tries = 0; tries < doublings + halvings; tries++) {
    if (await holds(target, rate)) good = rate;
    else bad = rate;
    limit.add(good);
    if (good === 0 || good >= last || bad / good < 1.1) break;
    rate = bad === Infinity ? Math.min(2 * good, last) : round((good + bad) / 2);
    if (rate <= good || rate >= bad) break;
  }
  const above = bad === Infinity ? ', the highest it was to try: set MAX_RATE' : `, and not at ${bad}`;
  console.log(good ? `the objective holds at ${good} requests a second${above}` : `the objective does not even hold at ${first} requests a second: see what fails, or set RATE lower`);
}

/**
 * One step: whether the objective holds at the rate.
 * @param {import('./streams.js').Target} target
 * @param {number} rate per second
 */
async function holds(target, rate) {
  const tags = { stage: `rate_${rate}` };
  const allowed = missesAllowed * rate * step;
  /** @type {number[]} */
  const times = [];
  let [sent, open, failed, missed] = [0, 0, 0, 0];
  const began = Date.now();
  announce(step, { ...tags, at_least: String(atLeast) });
  let early = 0;
  await arrivals(
    schedule(rate),
    async (_, late) => {
      open++;
      const res = await send(target, { prompt: promptOf(sent++), tags, late });
      open--;
      if (res.good) times.push(res.ttft);
      else failed++;
      if (!res.good || res.ttft > objective.ttftP95) missed++;
    },
    () => {
      if (missed <= allowed && open < mostOpen) return false;
      early = (Date.now() - began) / 1000;
      return true;
    },
  );
  if (early) announce(early, { ...tags, at_least: String(atLeast) });
  else await pause(began + 1000 * step - Date.now());
  const held = !early && sent > 0 && missed <= missesAllowed * sent;
  times.sort((a, b) => a - b);
  const p95 = times.length ? `TTFT p95 ${Math.round(times[Math.ceil(0.95 * times.length) - 1])} ms` : 'no first token';
  console.log(`${rate}/s ${held ? 'holds' : 'does not hold'}: ${p95}, ${failed} of ${sent} requests failed`);
  return held;
}

/** @param {number} rate per second */
function* schedule(rate) {
  const chance = random(rate);
  for (let at = gap(kind, rate, chance); at < step; at += gap(kind, rate, chance)) yield { at };
}

/**
 * To two digits: a limit is not known better.
 * @param {number} rate
 */
const round = (rate) => Number(rate.toPrecision(2));
