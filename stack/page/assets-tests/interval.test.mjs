import assert from 'node:assert/strict';
import test from 'node:test';
import { align, builtins, formatDuration, intervals, parseDuration, roundInterval } from '../assets/js/interval.js';

const minutes = 60000;

test('durations', () => {
  for (const [text, ms] of [['5s', 5000], ['1m30s', 90000], ['1h', 3600000], ['250ms', 250], ['7d', 604800000], ['>10s', 10000], ['', null], ['x', null], ['5', null]]) {
    assert.equal(parseDuration(text), ms, text);
  }
  for (const [ms, text] of [[5000, '5s'], [90000, '90s'], [3600000, '1h'], [250, '250ms'], [20000, '20s']]) assert.equal(formatDuration(ms), text);
});

test('steps as Grafana rounds them', () => {
  assert.deepEqual([1499, 1500, 12499, 44999, 45000, 3e5].map(roundInterval), [1000, 2000, 10000, 30000, 60000, 300000]);
});

test('rate interval: a window never holds fewer than four scrapes', () => {
  const at = (span, points, scrape, min) => intervals({ from: 0, to: span, points, scrape, min });
  assert.deepEqual(at(15 * minutes, 600, 5000), { step: 5000, rate: 20000, range: 15 * minutes });
  // 24 h on 600 points: 144 s, rounded to 2 min; and one scrape more.
  assert.deepEqual(at(24 * 60 * minutes, 600, 5000), { step: 120000, rate: 125000, range: 24 * 60 * minutes });
  // Not five seconds everywhere: the scrape interval is Prometheus's to say.
  assert.equal(at(15 * minutes, 600, 30000).rate, 120000);
  assert.equal(at(15 * minutes, 600, 5000, 60000).step, 60000);
  // Prometheus refuses more than 11000 points.
  assert.ok((7 * 24 * 60 * minutes) / at(7 * 24 * 60 * minutes, 11000, 5000).step <= 11000);
});

test('starts and ends are multiples of the step', () => {
  assert.deepEqual(align(12345, 67890, 5000), { start: 10000, end: 65000 });
});

test('variables of time', () => {
  const b = builtins({ step: 5000, rate: 20000, range: 15 * minutes, scrape: 5000 });
  assert.deepEqual([b.__interval, b.__rate_interval, b.__range, b.__range_s, b.__interval_ms], ['5s', '20s', '900s', '900', '5000']);
});
