import assert from 'node:assert/strict';
import test from 'node:test';
import './dom.mjs';
import { regions } from '../assets/js/annotations.js';
import { color } from '../assets/js/colors.js';
import { configOf, display, displayText, legend, lineColor, steps, thresholdColor, toFields } from '../assets/js/fields.js';
import { sections, settled } from '../assets/js/layout.js';
import { limitsOf } from '../assets/js/panel-gauge.js';
import { stack } from '../assets/js/panel-timeseries.js';
import { reduce } from '../assets/js/reduce.js';
import { readState, writeState } from '../assets/js/state.js';

const answer = (refId, legendFormat, series, more = {}) => ({ target: { refId, legendFormat, expr: 'x' }, start: 0, end: 20000, step: 5000, series, ...more });

test('legends', () => {
  assert.equal(legend('GPU {{gpu}} · {{ instance }}{{no}}', { gpu: '0', instance: 'a:1' }), 'GPU 0 · a:1');
  assert.equal(legend('{{a}}', { a: '{{b}} $& <b>', b: '1' }), '{{b}} $& <b>');
  const { fields } = toFields({}, [answer('A', '__auto', [{ labels: { i: 'a', j: 'x' }, points: [] }, { labels: { i: 'b', j: 'x' }, points: [] }]), answer('B', '', [{ labels: {}, points: [] }])]);
  assert.deepEqual(fields.map((f) => f.name), ['a', 'b', 'x']);
});

test('series of one query are in order of their names, queries in their own', () => {
  const { fields } = toFields({}, [answer('B', '{{g}}', [10, 9, 1].map((g) => ({ labels: { g: String(g) }, points: [] }))), answer('A', 'p', [{ labels: {}, points: [] }, { labels: {}, points: [] }])]);
  assert.deepEqual(fields.map((f) => f.name), ['1', '9', '10', 'p', 'p 2']);
});

test('series of one moment are in the order of the answer', () => {
  const { fields } = toFields({}, [answer('A', '{{c}}', ['b', 'c', 'a'].map((c, i) => ({ labels: { c }, points: [[20, 9 - i]] })), { step: undefined })]);
  assert.deepEqual(fields.map((f) => f.name), ['b', 'c', 'a']);
});

test('bars without limits of their own have those of all', () => {
  const both = [field({}, [20]), field({}, [undefined, 80])];
  assert.deepEqual(both.map((f) => limitsOf(f, both)), [[0, 80], [0, 80]]);
  assert.deepEqual(limitsOf(field({ min: 10, max: 40 }, [20]), both), [10, 40]);
  assert.deepEqual(limitsOf(field({ unit: 'percent' }, [20]), both), [0, 100]);
  assert.deepEqual(limitsOf(field({}, [0]), [field({}, [0])]), [0, 1]);
});

test('a point that is missing is a gap, a time of another query is not', () => {
  const { times, fields } = toFields({}, [
    answer('A', 'a', [{ labels: {}, points: [[0, 1], [5, 2], [15, 4], [20, null]] }]),
    answer('B', 'b', [{ labels: {}, points: [[0, 1], [10, 2]] }], { step: 10000 }),
  ]);
  assert.deepEqual(times, [0, 5, 10, 15, 20]);
  assert.deepEqual(fields[0].values, [1, 2, null, 4, null]);
  assert.deepEqual(fields[1].values, [1, undefined, 2, undefined, null]);
});

test('overrides', () => {
  const fieldConfig = {
    defaults: { unit: 's', custom: { lineWidth: 1 } },
    overrides: [
      { matcher: { id: 'byName', options: 'p99' }, properties: [{ id: 'custom.lineStyle', value: { fill: 'dash', dash: [6, 4] } }, { id: 'color', value: { mode: 'fixed', fixedColor: 'red' } }] },
      { matcher: { id: 'byRegexp', options: '/^total/i' }, properties: [{ id: 'unit', value: 'bytes' }] },
      { matcher: { id: 'byFrameRefID', options: 'C' }, properties: [{ id: 'max', value: 9 }, { id: 'custom.fillOpacity', value: 20 }] },
      { matcher: { id: 'byRegexp', options: '/(/' }, properties: [{ id: 'unit', value: 'broken' }] },
      { matcher: { id: 'byName', options: 'p99' }, properties: [{ id: '__proto__.polluted', value: 1 }] },
    ],
  };
  assert.deepEqual(configOf(fieldConfig, { name: 'p99', refId: 'A' }).custom, { lineWidth: 1, lineStyle: { fill: 'dash', dash: [6, 4] } });
  assert.equal(configOf(fieldConfig, { name: 'Total 1', refId: 'A' }).unit, 'bytes');
  assert.deepEqual([configOf(fieldConfig, { name: 'x', refId: 'C' }).max, configOf(fieldConfig, { name: 'x', refId: 'C' }).custom.fillOpacity], [9, 20]);
  assert.equal(configOf(fieldConfig, { name: 'x', refId: 'A' }).unit, 's');
  assert.equal({}.polluted, undefined);
  assert.deepEqual(fieldConfig.defaults.custom, { lineWidth: 1 });
});

const field = (config, values = []) => ({ name: 'f', labels: {}, index: 0, values, config: { custom: {}, ...config } });

test('thresholds', () => {
  const t = { mode: 'absolute', steps: [{ color: 'green', value: null }, { color: 'yellow', value: 0.3 }, { color: 'red', value: 0.5 }] };
  const f = field({ thresholds: t, color: { mode: 'thresholds' } });
  assert.deepEqual([0, 0.3, 0.49, 0.5, 9, -1].map((v) => thresholdColor(f, v)), ['green', 'yellow', 'yellow', 'red', 'red', 'green'].map((c) => color(c)));
  assert.equal(lineColor(field({ thresholds: t, color: { mode: 'thresholds' } }, [1, 0.4, null])), color('yellow'));
  const p = field({ min: 0, max: 200, thresholds: { mode: 'percentage', steps: [{ color: 'green', value: null }, { color: 'red', value: 90 }] } });
  assert.deepEqual(steps(p).map((s) => s.value), [-Infinity, 180]);
});

test('mappings and values that are none', () => {
  const mappings = [
    { type: 'value', options: { 0: { text: 'idle', color: 'blue' }, 1: { text: 'busy', color: 'red' } } },
    { type: 'range', options: { from: 10, to: 20, result: { text: 'much' } } },
    { type: 'special', options: { match: 'null', result: { text: 'gone' } } },
  ];
  const f = field({ mappings, unit: 's' });
  assert.deepEqual([0, 1, 15, 2, null].map((v) => displayText(f, v)), ['idle', 'busy', 'much', '2\u00a0s', 'gone']);
  assert.equal(display(f, 1).color, color('red'));
  assert.equal(displayText(field({ noValue: 'no streams' }), null), 'no streams');
});

test('colours are names that are known, or plain', () => {
  assert.equal(color('#8e8e8e'), '#8e8e8e');
  assert.equal(color('rgba(0, 211, 255, 1)'), '#00d3ff');
  for (const bad of ['url(//evil)', 'red;background:url(x)', 'expression(1)', '__proto__', 'constructor', '', null]) assert.match(color(bad), /^#[0-9a-f]{6}$/);
  assert.notEqual(color('dark-red'), color('red'));
});

test('calculations', () => {
  const v = [1, null, 3, undefined, 2, null];
  assert.deepEqual(['lastNotNull', 'last', 'min', 'max', 'mean', 'sum', 'range', 'diff', 'firstNotNull', 'p50', 'nonsense', '__proto__'].map((c) => reduce(v, c)), [2, null, 1, 3, 2, 6, 2, 1, 1, 2, 2, 2]);
  assert.equal(reduce([null], 'mean'), null);
});

test('stacks', () => {
  const s = (mode, values) => field({ custom: { stacking: { mode, group: 'A' } } }, values);
  const { data, bands } = stack([s('normal', [1, null, 2]), s('normal', [10, 5, 20]), field({}, [7, 7, 7])], [0, 5, 10]);
  assert.deepEqual(data, [[1, null, 2], [11, 5, 22], [7, 7, 7]]);
  assert.deepEqual(bands, [{ series: [2, 1] }]);
  assert.deepEqual(stack([s('percent', [1, 0]), s('percent', [3, 0])], [0, 5]).data, [[0.25, 0], [1, 0]]);
});

test('gaps that are to be spanned', () => {
  const f = field({ custom: { spanNulls: 10000 } }, [1, null, 2, null, null, 3]);
  assert.deepEqual(stack([f], [0, 5, 10, 15, 20, 25]).data[0], [1, undefined, 2, null, null, 3]);
});

test('annotations: points above zero, those in a row are one', () => {
  assert.deepEqual(regions([[0, 1], [5, 1], [10, 0], [15, 1], [25, 1], [30, null]], 5), [[0, 5], [15, 15], [25, 25]]);
});

test('rows', () => {
  const at = (id, y, more) => ({ id, gridPos: { x: 0, y, w: 1, h: 1 }, ...more });
  const s = sections([at(3, 5), at(2, 4, { type: 'row' }), at(1, 0), at(4, 9, { type: 'row', collapsed: true, panels: [at(5, 10)] })]);
  assert.deepEqual(s.map((x) => [x.row?.id, x.panels.map((p) => p.id)]), [[undefined, [1]], [2, [3]], [4, [5]]]);
});

test('panels fall up to where there is room, and lie on no other', () => {
  const at = (id, x, y, w, h) => ({ id, gridPos: { x, y, w, h } });
  const places = settled([at(3, 0, 9, 24, 3), at(1, 0, 3, 12, 7), at(2, 12, 3, 12, 9), at(4, 20, 20, 12, 2)]).map(({ panel, at: p }) => [panel.id, p.x, p.y, p.w]);
  assert.deepEqual(places, [[1, 0, 0, 12], [2, 12, 0, 12], [3, 0, 9, 24], [4, 12, 12, 12]]);
});

test('the address holds what is chosen', () => {
  const d = { time: { from: 'now-15m', to: 'now' }, refresh: '5s' };
  const s = readState('', d);
  assert.deepEqual([s.range, s.refresh], [{ last: '15m' }, '5s']);
  s.range = { from: 1795460000000, to: 1795460100000 };
  s.refresh = 'off';
  s.chosen = new Map([['model', ['a&b', 'ü"']]]);
  s.opened.add('7');
  s.marks = [];
  assert.deepEqual(readState(writeState(s), d), s);
  assert.deepEqual(readState('?from=now-99x&to=3&refresh=0s', d).range, { last: '15m' });
  assert.equal(readState('?from=5&to=4&refresh=0s', d).refresh, '5s');
});
