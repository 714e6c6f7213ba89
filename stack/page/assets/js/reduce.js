// Many values to one: Grafana's calculations, by its names.

const known = (v) => v.filter((x) => x !== null && x !== undefined);
const sum = (v) => v.reduce((a, b) => a + b, 0);

const calcs = {
  lastNotNull: (v) => known(v).at(-1) ?? null,
  last: (v) => v.at(-1) ?? null,
  firstNotNull: (v) => known(v)[0] ?? null,
  first: (v) => v[0] ?? null,
  min: (v) => known(v).reduce((a, b) => (a === null || b < a ? b : a), null),
  max: (v) => known(v).reduce((a, b) => (a === null || b > a ? b : a), null),
  mean: (v) => (known(v).length ? sum(known(v)) / known(v).length : null),
  sum: (v) => (known(v).length ? sum(known(v)) : null),
  count: (v) => v.length,
  range: (v) => (known(v).length ? calcs.max(v) - calcs.min(v) : null),
  diff: (v) => (known(v).length ? known(v).at(-1) - known(v)[0] : null),
  delta: (v) => known(v).reduce((d, x, i, a) => (i === 0 ? 0 : d + (x >= a[i - 1] ? x - a[i - 1] : x)), null),
  median: (v) => quantile(v, 0.5),
};

function quantile(v, q) {
  const s = known(v).sort((a, b) => a - b);
  if (!s.length) return null;
  const at = q * (s.length - 1);
  const low = Math.floor(at);
  return s[low] + (s[Math.ceil(at)] - s[low]) * (at - low);
}

export function reduce(values, calc) {
  const p = /^p(\d{1,2})$/.exec(calc);
  if (p) return quantile(values, Number(p[1]) / 100);
  return (Object.hasOwn(calcs, calc) ? calcs[calc] : calcs.lastNotNull)(values);
}

const names = new Map(Object.entries({ lastNotNull: 'last', firstNotNull: 'first', sum: 'total' }));
export const calcName = (calc) => names.get(calc) ?? calc;
