// Soak: the same users for half an hour, and whether its end is like its beginning.
// Run: k6 run loadtests/soak.js
//
// USERS (20) send, read, think for a second and send again, for DURATION (30m). Each
// holds its last third against its own first: the time to first token may grow by a
// quarter, and the tokens a second shrink by a fifth. Where more than one request in
// twenty fails the run ends early.

import { sleep } from 'k6';
import { Trend } from 'k6/metrics';
import { duration, gates, number, plan, preflight, request, rows, scaled, seconds, stageNow, users } from './streams.js';

const lasts = scaled(seconds('DURATION', 1800));
const thirds = ['first_third', 'middle_third', 'last_third'];

const ttftDrift = new Trend('ttft_drift');
const speedDrift = new Trend('speed_drift');

export const options = plan(
  'soak',
  {
    scenarios: { soak: users(number('USERS', 20, { whole: true }), 0, lasts) },
    thresholds: {
      ...gates,
      failed_requests: [{ threshold: 'rate<0.05', abortOnFail: true, delayAbortEval: duration(scaled(60)) }],
      ttft_drift: ['med<1.25', 'avg>0'],
      speed_drift: ['med>0.8'],
      ...rows('stage', thirds),
    },
  },
  thirds.map((stage, i) => ({ stage, begins: (i * lasts) / 3, seconds: lasts / 3 })),
);

export const setup = () => preflight();

// A first token that comes 5 ms later than after 10 ms is half as late again, and
// nobody minds: below this a difference is none.
const noticed = 50; // ms

/** @type {{ ttft: number[], speed: number[] }} of this user's first third */
const first = { ttft: [], speed: [] };
/** @type {{ ttft: number, speed: number } | undefined} their medians; 0 of none */
let usual;

/** @param {import('./streams.js').Target} target */
export default function (target) {
  const stage = stageNow();
  const { good, ttft, speed } = request(target, { tags: { stage } });
  if (good && stage === 'first_third') {
    first.ttft.push(ttft);
    if (speed) first.speed.push(speed);
  }
  if (good && stage === 'last_third') {
    const tags = { stage };
    if (!usual) usual = { ttft: median(first.ttft), speed: median(first.speed) };
    if (usual.ttft) ttftDrift.add(Math.max(ttft, noticed) / Math.max(usual.ttft, noticed), tags);
    if (usual.speed && speed) speedDrift.add(speed / usual.speed, tags);
  }
  sleep(1); // time to think; after a failure, time to back off
}

/** @param {number[]} values */
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1] || 0;
