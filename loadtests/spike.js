// Spike: ten users, of a sudden a hundred, and ten again. Run: k6 run loadtests/spike.js
//
// USERS (10) for a minute, SPIKE_USERS (100) for a minute, USERS for two. Under the
// spike answers may be slow; what must not be is that they fail, or that the spike is
// still felt when it is over: before it and after it the time to first token is held
// to its objective. Requests belong to the stage in which they were sent.

import { sleep } from 'k6';
import { duration, gates, gracefulStop, number, objective, plan, preflight, request, rows, scaled, stageNow } from './streams.js';

const [few, many] = [number('USERS', 10, { whole: true }), number('SPIKE_USERS', 100, { whole: true })];
const [calm, spike, after] = [scaled(60), scaled(60), scaled(120)];

export const options = plan(
  'spike',
  {
    scenarios: {
      spike: {
        executor: 'ramping-vus',
        startVUs: few,
        stages: [
          { duration: duration(calm), target: few },
          { duration: '0s', target: many },
          { duration: duration(spike), target: many },
          { duration: '0s', target: few },
          { duration: duration(after), target: few },
        ],
        gracefulRampDown: duration(gracefulStop),
        gracefulStop: duration(gracefulStop),
      },
    },
    thresholds: {
      ...gates,
      ttft_ms: [],
      ...rows('stage', ['calm', 'spike', 'after']),
      'ttft_ms{stage:calm}': [`p(95)<${objective.ttftP95}`, 'avg>0'],
      'ttft_ms{stage:after}': [`p(95)<${objective.ttftP95}`, 'avg>0'],
    },
  },
  [
    { stage: 'calm', begins: 0, seconds: calm },
    { stage: 'spike', begins: calm, seconds: spike },
    { stage: 'after', begins: calm + spike, seconds: after },
  ],
);

export const setup = () => preflight();

/** @param {import('./streams.js').Target} target */
export default function (target) {
  request(target, { tags: { stage: stageNow() } });
  sleep(1); // time to think; after a failure, time to back off
}
