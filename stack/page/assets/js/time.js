// The range of time that is shown.
import { parseDuration } from './interval.js';

export const ranges = ['5m', '15m', '30m', '1h', '3h', '6h', '12h', '24h', '7d'];
export const refreshes = ['5s', '10s', '30s', '1m', 'off'];

const names = { m: 'minutes', h: 'hours', d: 'days' };

export function rangeName(range) {
  const [, n, u] = /^(\d+)([mhd])$/.exec(range) ?? [];
  return n ? `Last ${n} ${n === '1' ? names[u].slice(0, -1) : names[u]}` : 'Last ' + range;
}

// No database of ours goes back further, in milliseconds.
export const longest = 366 * 86400000;

// A range is {last: "15m"} or {from, to} in milliseconds.
export function parseRange(from, to, fallback) {
  const [, last] = /^now-(\w+)$/.exec(from ?? '') ?? [];
  if (last && (to ?? 'now') === 'now' && parseDuration(last) && parseDuration(last) <= longest) return { last };
  if (/^\d{10,15}$/.test(from ?? '') && /^\d{10,15}$/.test(to ?? '') && Number(to) > Number(from) && Number(to) - Number(from) <= longest) {
    return { from: Number(from), to: Number(to) };
  }
  return fallback;
}

export function resolve(range, now) {
  return range.last ? { from: now - parseDuration(range.last), to: now } : { from: range.from, to: range.to };
}

const two = (n) => String(n).padStart(2, '0');
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

export function clock(ms, seconds = true) {
  const d = new Date(ms);
  return two(d.getHours()) + ':' + two(d.getMinutes()) + (seconds ? ':' + two(d.getSeconds()) : '');
}

export const day = (ms) => new Date(ms).getDate() + ' ' + months[new Date(ms).getMonth()];

export function moment(ms, now = Date.now()) {
  return (day(ms) === day(now) ? '' : day(ms) + ' ') + clock(ms);
}

// The time axis goes by one of these, in seconds. None is far from the next: between one
// minute and five an axis of seven would have a single label.
export const timeSteps = [
  1, 2, 5, 10, 15, 30, ...[1, 2, 5, 10, 15, 30].map((m) => m * 60), ...[1, 2, 3, 6, 12].map((h) => h * 3600),
  ...[1, 2, 5, 10, 15, 30, 60, 120, 180, 365].map((d) => d * 86400),
];

// Labels of the time axis: no more of a time than tells it from the next.
export function timeTicks(ticks, increment) {
  let before = null;
  return ticks.map((t) => {
    const ms = t * 1000;
    const midnight = clock(ms) === '00:00:00';
    const text = increment >= 86400 || (midnight && before !== null) ? day(ms) : clock(ms, increment < 60);
    before = ms;
    return text;
  });
}
