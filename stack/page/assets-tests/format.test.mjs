import assert from 'node:assert/strict';
import test from 'node:test';
import { ago, format, formatText, formatTicks, increments } from '../assets/js/format.js';

const says = (value, unit, decimals) => formatText(value, unit, decimals).replaceAll('\u00a0', ' ').replaceAll('\u202f', '_');

test('numbers as people read them', () => {
  for (const [value, unit, want, decimals] of [
    [1.2, 's', '1.20 s'], [0.0113, 's', '11.3 ms'], [0, 's', '0 s'], [0.3, 's', '300 ms'], [90, 's', '1.50 min'], [0.99996, 's', '1.00 s'],
    [1e-7, 's', '100 ns'], [3600, 's', '1 h'], [250, 'ms', '250 ms'], [0, 'ms', '0 s'],
    [25018184499, 'bytes', '23.3 GiB'], [25769803776, 'bytes', '24 GiB'], [0, 'bytes', '0 B'], [1023, 'bytes', '1023 B'], [1e9, 'decbytes', '1 GB'],
    [41.8, 'reqps', '41.8 req/s'], [0, 'reqps', '0 req/s'], [1234, 'reqps', '1.23 k req/s'],
    [42, 'short', '42'], [12345, 'short', '12.3 k'], [7.5, 'short', '7.50'], [0.00012345, 'short', '0.000123'], [0.00008, 'percentunit', '0.008 %'], [0.8, 'reqps', '0.800 req/s'], [0.0000001, 'short', '0'], [3, undefined, '3'],
    [93, 'percent', '93 %'], [0.0512, 'percentunit', '5.12 %'], [1, 'percentunit', '100 %'], [0.1 + 0.2, 'percentunit', '30 %'],
    [350000, 'mwatt', '350 W'], [57, 'celsius', '57 °C'], [4.93, 'joule', '4.93 J'],
    [118.4, 'suffix: tokens/s', '118 tokens/s'], [118.4, 'suffix: tokens/s', '118.4 tokens/s', 1], [5, 'things', '5 things'],
    [123456, 'none', '123_456'], [1.26, 'none', '1.3', 1], [-1.5, 'short', '\u22121.50'], [-0.0001, 'none', '0', 0],
    [null, 's', '–'], [NaN, 's', '–'], [Infinity, 's', '∞'], [-Infinity, 's', '\u2212∞'], [1, 'bool_yes_no', 'Yes'],
    [999999, 'short', '1.00 M'], [1e21, 'short', '1_000_000 P'], [100, '__proto__', '100 __proto__'],
  ]) assert.equal(says(value, unit, decimals), want, `${value} ${unit}`);
  assert.deepEqual(format(1.2, 's'), { text: '1.20', unit: 's' });
});

test('ticks of an axis have one unit and the decimals that they need', () => {
  const ticks = (list, unit) => formatTicks(list, unit).map((t) => t.replaceAll('\u00a0', ' '));
  assert.deepEqual(ticks([0, 0.5, 1, 1.5], 's'), ['0.0 s', '0.5 s', '1.0 s', '1.5 s']);
  assert.deepEqual(ticks([0, 0.1, 0.2], 's'), ['0 ms', '100 ms', '200 ms']);
  assert.deepEqual(ticks([0, 8 * 2 ** 30, 16 * 2 ** 30], 'bytes'), ['0 GiB', '8 GiB', '16 GiB']);
  assert.deepEqual(ticks([0, 0.25, 0.5], 'percentunit'), ['0 %', '25 %', '50 %']);
  assert.deepEqual(ticks([0], 's'), ['0 s']);
});

test('distances between ticks are round in the unit', () => {
  assert.ok(increments('bytes').includes(4 * 2 ** 30) && !increments('bytes').includes(5e9));
  assert.ok(increments('s').includes(300) && !increments('s').includes(500));
  assert.ok(increments('ms').includes(300000));
  assert.ok(increments('short').includes(0.5) && !increments('short', true).includes(0.5));
});

test('ago', () => {
  assert.deepEqual([0, 59e3, 61e3, 3.7e6, 9e7].map(ago), ['0 s', '59 s', '1 min', '1 h 1 min', '1 d 1 h']);
});
