// Answers of Prometheus as fields: a name, values, and how to show them,
// after the panel's defaults and overrides.
import { format } from './format.js';
import { color, series as paletteColor } from './colors.js';
import { interpolateText } from './interpolate.js';

const template = /\{\{\s*(.+?)\s*\}\}/g;

export function legend(text, labels) {
  return text.replace(template, (_, label) => (Object.hasOwn(labels, label) ? labels[label] : ''));
}

// Without a legend of its own a series is called by the labels that tell it
// from its neighbours.
function autoName(labels, all, expr) {
  const telling = Object.keys(labels).filter((k) => k !== '__name__' && all.some((o) => o[k] !== labels[k]));
  if (telling.length) return telling.map((k) => labels[k]).join(' · ');
  if (all.length > 1 || labels.__name__) {
    const rest = Object.entries(labels).filter(([k]) => k !== '__name__').map(([k, v]) => `${k}="${v}"`);
    return (labels.__name__ ?? '') + (rest.length ? '{' + rest.join(', ') + '}' : '') || expr;
  }
  return expr;
}

function regexp(text) {
  const [, body, flags] = /^\/(.*)\/([a-z]*)$/s.exec(text) ?? [null, text, ''];
  try {
    return new RegExp(body, flags);
  } catch {
    return /(?!)/;
  }
}

function matches({ id, options }, field) {
  switch (id) {
    case 'byName': return field.name === options;
    case 'byNames': return (options?.names ?? []).includes(field.name) !== (options?.mode === 'exclude');
    case 'byRegexp': return regexp(options ?? '').test(field.name);
    case 'byFrameRefID': return field.refId === options;
    case 'byType': return options === 'number';
    default: return false;
  }
}

const owned = new Set(['__proto__', 'constructor', 'prototype']);

function setPath(object, path, value) {
  const keys = path.split('.');
  if (keys.some((k) => owned.has(k))) return;
  let at = object;
  for (const k of keys.slice(0, -1)) at = at[k] = { ...at[k] };
  at[keys.at(-1)] = value;
}

// apply returns the field's own configuration.
export function configOf(fieldConfig, field) {
  const config = { ...fieldConfig?.defaults, custom: { ...fieldConfig?.defaults?.custom } };
  for (const o of fieldConfig?.overrides ?? []) {
    if (matches(o.matcher ?? {}, field)) for (const p of o.properties ?? []) setPath(config, p.id, p.value);
  }
  return config;
}

// toFields takes [{target, series: [{labels, points: [[seconds, number|null]]}], start, end, step}]
// (start, end and step in ms, absent for a question about one moment) and
// returns {times, fields} with one value for each time; undefined where a
// query had no point to give, null where it gave none.
export function toFields(panel, answers, variables = new Map()) {
  const times = grid(answers);
  const index = new Map(times.map((t, i) => [t, i]));
  const fields = [];
  for (const { target, series, start, end, step } of answers) {
    const all = series.map((s) => s.labels);
    const part = series.map(({ labels, points }) => {
      const text = interpolateText(target.legendFormat ?? '', variables);
      const name = text && text !== '__auto' ? legend(text, labels) : autoName(labels, all, target.expr);
      const values = new Array(times.length).fill(undefined);
      if (step) for (let t = start; t <= end; t += step) values[index.get(t / 1000)] = null;
      for (const [t, v] of points) {
        const i = index.get(t);
        if (i !== undefined) values[i] = v;
      }
      return { name, labels, refId: target.refId, values };
    });
    // Lines keep their colours from answer to answer; of one moment Prometheus
    // gives what it is asked for in the order that it is asked for.
    if (step) part.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
    fields.push(...part);
  }
  const seen = new Map();
  fields.forEach((f, i) => {
    const config = configOf(panel.fieldConfig, f);
    if (config.displayName) f.name = displayName(config.displayName, f, variables);
    const n = (seen.get(f.name) ?? 0) + 1;
    seen.set(f.name, n);
    if (n > 1) f.name += ' ' + n;
    f.config = config;
    f.index = i;
    f.step = answers.find((a) => a.target.refId === f.refId)?.step;
  });
  return { times, fields };
}

function displayName(text, field, variables) {
  const named = text
    .replace(/\$\{__field\.labels\.([\w]+)\}|\$\{__field\.labels\["?([^\]"]+)"?\]\}/g, (_, a, b) => {
      const k = a ?? b;
      return Object.hasOwn(field.labels, k) ? field.labels[k] : '';
    })
    .replace(/\$\{__(?:field\.(?:displayName|name)|series\.name)\}/g, () => field.name);
  return interpolateText(named, variables);
}

function grid(answers) {
  const all = new Set();
  for (const { series, start, end, step } of answers) {
    if (step) for (let t = start; t <= end; t += step) all.add(t / 1000);
    else for (const s of series) for (const [t] of s.points) all.add(t);
  }
  return [...all].sort((a, b) => a - b);
}

// ---- values

export function limits(field) {
  let { min, max } = field.config;
  if (min === undefined || min === null || max === undefined || max === null) {
    const known = field.values.filter((v) => Number.isFinite(v));
    min ??= known.length ? Math.min(...known) : 0;
    max ??= known.length ? Math.max(...known) : 100;
  }
  return [Number(min), Number(max)];
}

// steps returns [{value, color}] in ascending order, the first from −∞, in
// the field's own numbers.
export function steps(field) {
  const t = field.config.thresholds;
  if (!t?.steps?.length) return [{ value: -Infinity, color: 'green' }];
  const [min, max] = t.mode === 'percentage' ? limits(field) : [0, 0];
  return t.steps
    .map((s) => {
      if (s.value === null || s.value === undefined) return { value: -Infinity, color: s.color };
      return { value: t.mode === 'percentage' ? min + ((max - min) * s.value) / 100 : s.value, color: s.color };
    })
    .sort((a, b) => a.value - b.value);
}

export function thresholdColor(field, value) {
  let name;
  for (const s of steps(field)) if (value !== null && value !== undefined && value >= s.value) name = s.color;
  return color(name ?? 'text');
}

export function mapping(field, value) {
  for (const m of field.config.mappings ?? []) {
    const o = m.options ?? {};
    if (m.type === 'value' && value !== null && Object.hasOwn(o, String(value))) return o[String(value)];
    if (m.type === 'range' && value !== null && value >= (o.from ?? -Infinity) && value <= (o.to ?? Infinity)) return o.result;
    if (m.type === 'regex' && value !== null && regexp(o.pattern ?? '(?!)').test(String(value))) return o.result;
    if (m.type === 'special' && (value === null || value === undefined) && ['null', 'nan', 'null+nan', 'empty'].includes(o.match)) return o.result;
  }
  return null;
}

// display is how one value of a field is shown.
export function display(field, value) {
  const v = value ?? null;
  const m = mapping(field, v);
  const shown = m?.text ? { text: m.text, unit: '' }
    : v === null ? { text: field.config.noValue ?? '–', unit: '' }
    : format(v, field.config.unit, field.config.decimals);
  return { ...shown, color: m?.color ? color(m.color) : valueColor(field, v), mapped: Boolean(m) };
}

export function displayText(field, value) {
  const { text, unit } = display(field, value);
  return unit ? text + '\u00a0' + unit : text;
}

function valueColor(field, value) {
  const mode = field.config.color?.mode;
  return mode === 'thresholds' || !mode ? thresholdColor(field, value) : lineColor(field, value);
}

// lineColor is the colour of a whole series.
export function lineColor(field, last = null) {
  const c = field.config.color ?? {};
  if ((c.mode === 'fixed' || c.mode === 'shades') && c.fixedColor) return color(c.fixedColor);
  if (c.mode === 'thresholds') return thresholdColor(field, last ?? field.values.findLast((v) => Number.isFinite(v)) ?? null);
  if (c.mode === 'palette-classic-by-name') {
    let h = 7;
    for (const ch of field.name) h = (h * 31 + ch.codePointAt(0)) >>> 0;
    return paletteColor(h);
  }
  return paletteColor(field.index);
}
