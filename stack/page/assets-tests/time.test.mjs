import assert from 'node:assert/strict';
import test from 'node:test';
import { parseRange, timeSteps } from '../assets/js/time.js';

test('ranges in the address', () => {
  const fallback = { last: '15m' };
  for (const [from, to, want] of [
    ['now-1h', 'now', { last: '1h' }], ['now-7d', null, { last: '7d' }], ['1700000000000', '1700003600000', { from: 1700000000000, to: 1700003600000 }],
    ['now-99999d', 'now', fallback], ['now-1h', 'now-30m', fallback], ['1500000000000', '1700000000000', fallback], ['2', '1', fallback], ['x', 'y', fallback], [null, null, fallback],
  ]) assert.deepEqual(parseRange(from, to, fallback), want, `${from} ${to}`);
});

test('no range is left with one label for want of a step', () => {
  timeSteps.forEach((step, i) => {
    assert.ok(i === 0 || (step > timeSteps[i - 1] && step <= 2.5 * timeSteps[i - 1]), `${step} after ${timeSteps[i - 1]}`);
    assert.ok(step > 86400 || 86400 % step === 0, `${step} does not part a day`);
  });
});
