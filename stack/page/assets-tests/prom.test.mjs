import assert from 'node:assert/strict';
import test from 'node:test';
import { Away, Prometheus } from '../assets/js/prom.js';

const answer = (data, status = 200) => ({ ok: status < 400, status, text: async () => (typeof data === 'string' ? data : JSON.stringify(data)) });
const tick = () => new Promise((r) => setTimeout(r));

test('few at a time, the same question once', async () => {
  const waiting = [];
  globalThis.fetch = (url) => new Promise((done) => waiting.push(() => done(answer({ status: 'success', data: url }))));
  const p = new Prometheus({ atOnce: 2 });
  const all = ['a', 'b', 'a', 'c', 'd'].map((x) => p.ask(x));
  for (const want of [2, 2]) {
    await tick();
    assert.equal(waiting.length, want);
    waiting.splice(0).forEach((f) => f());
    await tick();
  }
  assert.deepEqual(await Promise.all(all), ['/api/v1/a', '/api/v1/b', '/api/v1/a', '/api/v1/c', '/api/v1/d']);
  assert.equal(p.asked, 4);
});

test('numbers that are none', async () => {
  globalThis.fetch = async () => answer({ status: 'success', data: { resultType: 'matrix', result: [{ metric: { a: 'b' }, values: [[1, '2.5'], [2, 'NaN'], [3, '+Inf'], [4, '-Inf'], [5, '1e3']] }] } });
  assert.deepEqual(await new Prometheus().range('x', 0, 1, 1), [{ labels: { a: 'b' }, points: [[1, 2.5], [2, null], [3, Infinity], [4, -Infinity], [5, 1000]] }]);
});

test('a refusal is not an absence', async () => {
  const seen = [];
  const p = new Prometheus({ onAway: () => seen.push('away'), onBack: () => seen.push('back') });
  globalThis.fetch = async () => answer({ status: 'error', error: 'parse error at char 3' }, 400);
  await assert.rejects(p.ask('query'), { message: 'parse error at char 3' });
  assert.deepEqual(seen, []);
  globalThis.fetch = async () => { throw new TypeError('Failed to fetch'); };
  await assert.rejects(p.ask('query'), Away);
  await assert.rejects(p.ask('query'), Away);
  globalThis.fetch = async () => answer('bad gateway', 502);
  await assert.rejects(p.ask('query'), Away);
  globalThis.fetch = async () => answer({ status: 'success', data: 1 });
  await p.ask('query');
  assert.deepEqual(seen, ['away', 'back']);
});

test('a long question is posted', async () => {
  let how;
  globalThis.fetch = async (url, options) => { how = options.method ?? 'GET'; return answer({ status: 'success', data: [] }); };
  await new Prometheus().ask('query', { query: 'x'.repeat(3000) });
  assert.equal(how, 'POST');
});

test('one that takes a question and says nothing is away', async () => {
  const seen = [];
  const alive = setTimeout(() => {}, 5000); // node does not wait for the signal's own timer
  globalThis.fetch = (url, { signal }) => new Promise((done, fail) => {
    if (url.endsWith('up')) done(answer({ status: 'success', data: 1 }));
    else signal.addEventListener('abort', () => fail(signal.reason));
  });
  const p = new Prometheus({ timeout: 5, onAway: () => seen.push('away'), onBack: () => seen.push('back'), onAnswer: () => seen.push('answer') });
  await assert.rejects(p.ask('silent'), (e) => e instanceof Away && /no answer within/.test(e.message));
  assert.equal(await p.ask('up'), 1);
  assert.deepEqual(seen, ['away', 'answer', 'back']);
  clearTimeout(alive);
});

test('what is urgent does not stand in line', async () => {
  const asked = [];
  globalThis.fetch = (url) => new Promise((done) => {
    asked.push(url);
    if (url.endsWith('alerts')) done(answer({ status: 'success', data: [] }));
  });
  const p = new Prometheus({ atOnce: 1 });
  p.ask('slow');
  p.ask('next');
  assert.deepEqual(await p.ask('alerts', {}, true), []);
  assert.deepEqual(asked, ['/api/v1/slow', '/api/v1/alerts']);
});
