// Steps of range queries and the variables that follow from them, computed
// as Grafana does, so that a panel shows the same figures here and there.

const ms = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, y: 31536e6 };

export function parseDuration(text) {
  if (typeof text !== 'string' || text === '') return null;
  let sum = 0;
  const rest = text.replace(/^>?=?/, '').replace(/(\d+(?:\.\d+)?)(ms|[smhdwy])/g, (_, n, u) => {
    sum += Number(n) * ms[u];
    return '';
  });
  return rest.trim() === '' && sum > 0 ? sum : null;
}

export function formatDuration(millis) {
  for (const u of ['d', 'h', 'm', 's']) if (millis >= ms[u] && millis % ms[u] === 0) return millis / ms[u] + u;
  return Math.round(millis) + 'ms';
}

// Grafana's table: below the first number of a pair, the second.
const rounded = [
  [10, 1], [15, 10], [35, 20], [75, 50], [150, 100], [350, 200], [750, 500], [1500, 1e3], [3500, 2e3], [7500, 5e3],
  [12500, 1e4], [17500, 15e3], [25e3, 2e4], [45e3, 3e4], [9e4, 6e4], [21e4, 12e4], [45e4, 3e5], [75e4, 6e5],
  [105e4, 9e5], [15e5, 12e5], [27e5, 18e5], [54e5, 36e5], [9e6, 72e5], [162e5, 108e5], [324e5, 216e5],
  [864e5, 432e5], [6048e5, 864e5], [18144e5, 6048e5],
];

export function roundInterval(millis) {
  for (const [below, value] of rounded) if (millis < below) return value;
  return 2592e6;
}

// Prometheus refuses more points than that for a series.
const most = 11000;

// intervals returns milliseconds. min is the panel's or the query's own
// lowest step, if it has one.
export function intervals({ from, to, points, scrape, min = null }) {
  const span = Math.max(to - from, 1);
  const low = min ?? scrape;
  let step = roundInterval(span / Math.max(points, 1));
  step = Math.max(step, low);
  const safe = span / most;
  if (step < safe) step = Math.ceil(safe / 1000) * 1000;
  return { step, rate: Math.max(step + scrape, 4 * scrape), range: span };
}

// Starts and ends are multiples of the step, or the same points in time
// would move from one refresh to the next.
export function align(from, to, step) {
  return { start: Math.floor(from / step) * step, end: Math.floor(to / step) * step };
}

export function builtins({ step, rate, range, scrape }) {
  const s = Math.max(1, Math.round(range / 1000));
  return {
    __interval: formatDuration(step), __interval_ms: String(step),
    __rate_interval: formatDuration(rate), __rate_interval_ms: String(rate),
    __range: s + 's', __range_s: String(s), __range_ms: String(Math.round(range)),
    __scrape_interval: formatDuration(scrape),
  };
}
