// What is chosen, in the page's address, so that a link shows another the
// same. Names are those of Grafana's links where it has them.
import { parseRange, refreshes } from './time.js';

export function readState(search, dashboard) {
  const q = new URLSearchParams(search);
  const d = dashboard.time ?? {};
  const range = parseRange(q.get('from'), q.get('to'), parseRange(d.from, d.to, { last: '15m' }));
  const refresh = [q.get('refresh'), dashboard.refresh].find((r) => refreshes.includes(r)) ?? '10s';
  const chosen = new Map();
  for (const key of new Set(q.keys())) if (key.startsWith('var-')) chosen.set(key.slice(4), q.getAll(key));
  const ids = (name) => new Set((q.get(name) ?? '').split(',').filter(Boolean));
  const marks = q.has('marks') ? q.getAll('marks').filter(Boolean) : null;
  return { range, refresh, chosen, opened: ids('open'), closed: ids('closed'), marks };
}

export function writeState({ range, refresh, chosen, opened, closed, marks }) {
  const q = new URLSearchParams();
  q.set('from', range.last ? 'now-' + range.last : range.from);
  q.set('to', range.last ? 'now' : range.to);
  q.set('refresh', refresh);
  for (const [name, values] of chosen) for (const v of values) q.append('var-' + name, v);
  if (opened.size) q.set('open', [...opened].join(','));
  if (closed.size) q.set('closed', [...closed].join(','));
  if (marks) for (const m of marks.length ? marks : ['']) q.append('marks', m);
  return '?' + q;
}
