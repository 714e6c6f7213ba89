// Numbers as people read them: 1.20 s, 23.3 GiB, 41.8 req/s. Units have
// Grafana's names.

const si = [['', 1], ['k', 1e3], ['M', 1e6], ['G', 1e9], ['T', 1e12], ['P', 1e15]];
const small = [['n', 1e-9], ['µ', 1e-6], ['m', 1e-3]];
const times = [['ns', 1e-9], ['µs', 1e-6], ['ms', 1e-3], ['s', 1], ['min', 60], ['h', 3600], ['d', 86400]];

const scale = (steps, unit, factor = 1) => ({ steps: steps.map(([p, f]) => [p + unit, f]), factor });
const base2 = (unit, factor = 1) => ({
  steps: ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi'].map((p, i) => [p + unit, 1024 ** i]), factor, binary: true,
});
const time = (factor) => ({ steps: times, factor, time: true, zero: 's' });
const plain = (unit = '', factor = 1) => ({ steps: [[unit, 1]], factor });
const counted = (unit) => ({ steps: si.map(([p, f]) => [(p + ' ' + unit).trim(), f]), factor: 1 });
const metric = (unit, factor = 1) => ({ steps: [...small, ...si].map(([p, f]) => [p + unit, f]), factor, zero: unit });

const units = new Map(Object.entries({
  none: plain(), string: plain(), short: counted(''), sishort: counted(''), locale: { ...plain(), grouped: true },
  percent: plain('%'), percentunit: plain('%', 100),
  ns: time(1e-9), 'µs': time(1e-6), us: time(1e-6), ms: time(1e-3), s: time(1), m: time(60), h: time(3600), d: time(86400),
  dtdurations: time(1), dtdurationms: time(1e-3), clocks: time(1), clockms: time(1e-3), dthms: time(1),
  bytes: base2('B'), kbytes: base2('B', 1024), mbytes: base2('B', 1024 ** 2), gbytes: base2('B', 1024 ** 3),
  bits: base2('b'), decbytes: scale(si, 'B'), deckbytes: scale(si, 'B', 1e3), decmbytes: scale(si, 'B', 1e6),
  decgbytes: scale(si, 'B', 1e9), decbits: scale(si, 'b'),
  binBps: base2('B/s'), Bps: scale(si, 'B/s'), binbps: base2('b/s'), bps: scale(si, 'b/s'),
  reqps: counted('req/s'), rps: counted('req/s'), ops: counted('ops/s'), opsps: counted('ops/s'), cps: counted('/s'),
  wps: counted('writes/s'), iops: counted('IO/s'), eps: counted('events/s'), mps: counted('msg/s'), recps: counted('rec/s'),
  reqpm: counted('req/min'), opm: counted('ops/min'), cpm: counted('/min'),
  mwatt: metric('W', 1e-3), watt: metric('W'), kwatt: metric('W', 1e3), joule: metric('J'),
  watth: metric('Wh'), kwatth: metric('Wh', 1e3), hertz: scale(si, 'Hz'), rothz: scale(si, 'Hz'),
  celsius: plain('°C'), fahrenheit: plain('°F'), kelvin: plain('K'), humidity: plain('% rH'), degree: plain('°'),
  volt: metric('V'), amp: metric('A'), bool: plain(), bool_yes_no: plain(), bool_on_off: plain(),
}));
const bools = new Map(Object.entries({ bool: ['False', 'True'], bool_yes_no: ['No', 'Yes'], bool_on_off: ['Off', 'On'] }));

// A unit that Grafana has no name for is shown behind the value, as there.
export function unitOf(id) {
  if (!id) return units.get('short');
  if (units.has(id)) return units.get(id);
  const [, kind, rest] = /^(suffix|prefix|si|count|currency|time|bool):(.*)$/s.exec(id) ?? [];
  if (kind === 'si' || kind === 'count') return counted(rest.trim());
  if (kind === 'prefix' || kind === 'currency') return { ...plain(), prefix: rest };
  return plain((kind ? rest : id).trim());
}

const minus = (text) => text.replace(/^-/, '\u2212');
const group = (text) => text.replace(/^(-?\d+)/, (d) => d.replace(/\B(?=(\d{3})+$)/g, '\u202f'));

function step(unit, magnitude) {
  if (magnitude === 0) {
    const i = unit.zero ? unit.steps.findIndex(([name]) => name === unit.zero) : unit.steps.findIndex(([, f]) => f === 1);
    return unit.steps[Math.max(i, 0)];
  }
  let best = unit.steps[0];
  // Rounded first, so that 999.96 ms is 1.00 s and not 1000 ms.
  for (const s of unit.steps) if (Number((magnitude / s[1]).toPrecision(3)) >= 1) best = s;
  return best;
}

// Three digits that mean something; a whole number stays whole.
function digits(value) {
  const a = Math.abs(Number(value.toPrecision(3)));
  if (Number.isInteger(value) || a >= 100) return 0;
  if (a >= 10) return 1;
  if (a >= 1) return 2;
  return a === 0 ? 0 : Math.min(6, 2 - Math.floor(Math.log10(a)));
}

// format returns the number and its unit apart, so that they can be set in
// two sizes.
export function format(value, unitId, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return { text: '–', unit: '' };
  if (!Number.isFinite(value)) return { text: value > 0 ? '∞' : '\u2212∞', unit: '' };
  if (bools.has(unitId)) return { text: bools.get(unitId)[value ? 1 : 0], unit: '' };
  if (unitId === 'dateTimeAsIso') return { text: new Date(value).toISOString().slice(0, 19).replace('T', ' '), unit: '' };
  if (unitId === 'dateTimeFromNow') return { text: ago(Date.now() - value), unit: '' };
  const unit = unitOf(unitId);
  let v = value * unit.factor;
  const [name, f] = step(unit, Math.abs(v));
  v /= f;
  const places = decimals ?? digits(unit.factor === 1 ? v : Number(v.toPrecision(12)));
  let text = v.toFixed(Math.min(places, 20));
  if ((decimals ?? null) === null && Math.abs(v) < 0.1) text = String(Number(text)); // 0.008, not 0.00800
  if (Number(text) === 0) text = text.replace('-', '');
  if (unit.grouped || Math.abs(v) >= 1e4) text = group(text);
  return { text: (unit.prefix ?? '') + minus(text), unit: name };
}

export function formatText(value, unitId, decimals) {
  const { text, unit } = format(value, unitId, decimals);
  return unit ? text + '\u00a0' + unit : text;
}

// All ticks of an axis have one unit and as many decimals as their distance
// needs: 0, 0.5, 1.0 and not 0, 500 m, 1.
export function formatTicks(ticks, unitId, decimals) {
  if (bools.has(unitId) || unitId?.startsWith('dateTime')) return ticks.map((t) => formatText(t, unitId));
  const unit = unitOf(unitId);
  const top = Math.max(...ticks.map(Math.abs), 0) * unit.factor;
  const [name, f] = step(unit, top);
  const scaled = ticks.map((t) => (t * unit.factor) / f);
  let places = 0;
  for (const t of scaled) {
    while (places < 6 && Math.abs(t - Number(t.toFixed(places))) > Math.abs(top / f || 1) * 1e-6) places++;
  }
  if (decimals !== undefined && decimals !== null && places < decimals && decimals < 3 && unit.steps.length === 1) places = decimals;
  return scaled.map((t) => {
    let text = t.toFixed(places);
    if (Number(text) === 0) text = text.replace('-', '');
    if (Math.abs(t) >= 1e4) text = group(text);
    return (unit.prefix ?? '') + minus(text) + (name ? '\u00a0' + name : '');
  });
}

// Distances between ticks that are round in the unit: 4 GiB and not 4 GB,
// 5 min and not 500 s.
export function increments(unitId, wholeNumbers) {
  const unit = unitOf(unitId);
  const list = [];
  if (unit.binary) {
    for (let e = -10; e < 60; e++) list.push(2 ** e / unit.factor);
    return wholeNumbers ? list.filter((i) => i >= 1) : list;
  }
  const decimal = (from, to) => {
    for (let e = from; e <= to; e++) for (const m of [1, 2, 2.5, 5]) list.push(Number((m * 10 ** e).toPrecision(3)));
  };
  if (unit.time) {
    decimal(-9, 0);
    list.push(10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400);
    for (let days = 2; days < 1e5; days *= 2) list.push(days * 86400);
    return list.map((i) => i / unit.factor);
  }
  decimal(-9, 15);
  return wholeNumbers ? list.filter((i) => Number.isInteger(i)) : list;
}

export function ago(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min';
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + Math.floor((s % 3600) / 60) + ' min';
  return Math.floor(s / 86400) + ' d ' + Math.floor((s % 86400) / 3600) + ' h';
}
