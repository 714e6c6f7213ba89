import assert from 'node:assert/strict';
import test from 'node:test';
import './dom.mjs';
import { interpolateQuery, interpolateText, metricNames } from '../assets/js/interpolate.js';
import { filtered } from '../assets/js/variables.js';

const values = (v) => new Map(Object.entries({ m: v }));
const put = (expr, ...v) => interpolateQuery(expr, values({ value: v, multi: true, all: null }));

test('values of variables in queries', () => {
  assert.equal(put('x{m=~"$m"}', 'a'), 'x{m=~"a"}');
  assert.equal(put('x{m=~"$m"}', 'a', 'b'), 'x{m=~"(a|b)"}');
  assert.equal(put('x{m=~"${m}_y"} + x{m=~"[[m]]"}', 'a'), 'x{m=~"a_y"} + x{m=~"a"}');
  assert.equal(put('x{m=~"${m:pipe}"}', 'a', 'b'), 'x{m=~"a|b"}');
  assert.equal(interpolateQuery('x{m=~"$m"}', values({ value: ['a', 'b'], multi: true, all: '.*' })), 'x{m=~".*"}');
  assert.equal(interpolateQuery('x{m="$m"}', values({ value: ['a.b'], multi: false, all: null })), 'x{m="a.b"}');
  assert.equal(interpolateQuery('rate(x[$__rate_interval]) $unknown', new Map(), { __rate_interval: '20s' }), 'rate(x[20s]) $unknown');
  assert.equal(put('x{m=~"$mm"}', 'a'), 'x{m=~"$mm"}');
});

test('no value gets out of its quotes, or means anything to the regular expression', () => {
  assert.equal(put('x{m=~"$m"}', '127.0.0.1:8000'), 'x{m=~"127\\\\.0\\\\.0\\\\.1:8000"}');
  assert.equal(put('x{m=~"$m"}', '"} or y{z="'), 'x{m=~"\\"\\\\} or y\\\\{z=\\""}');
  assert.equal(put("x{m=~'$m'}", `it's "so"`), `x{m=~'it\\'s "so"'}`);
  assert.equal(put('x{m=~"$m"}', 'two\nlines \\ '), 'x{m=~"two\\nlines \\\\\\\\ "}');
  assert.equal(put('x{m=~`$m`}', 'a`b'), 'x{m=~`a.b`}');
  assert.equal(put('x{a="\\"",m=~"$m"}', 'q"'), 'x{a="\\"",m=~"q\\""}');
});

test('values in texts', () => {
  assert.equal(interpolateText('Of $m', values({ value: ['a', 'b'], multi: true, all: null })), 'Of a + b');
  assert.equal(interpolateText('$1 $m', values({ value: ['$1 $&'], all: null })), '$1 $1 $&');
});

test('what a query waits for', () => {
  const of = (expr) => metricNames(expr).sort();
  assert.deepEqual(of('histogram_quantile(0.95, sum by (le) (rate(gateway_time_to_first_token_seconds_bucket{model=~"$model"}[$__rate_interval])))'), ['gateway_time_to_first_token_seconds_bucket']);
  assert.deepEqual(of('sum(a_total{x="b_total"}) / on (instance) group_left c:d or vector(0)'), ['a_total', 'c:d']);
  assert.deepEqual(of('sum(rate(k6_http_reqs_total[5m])) * 1e3 offset 5m # and z_total'), ['k6_http_reqs_total']);
});

test('regex of a variable', () => {
  assert.deepEqual(filtered(['ab', 'cd'], '/^a/'), ['a']);
  assert.deepEqual(filtered(['x-1', 'x-2', 'y'], '/x-(\\d)/'), ['1', '2']);
  assert.deepEqual(filtered(['a', 'b'], ''), ['a', 'b']);
});
