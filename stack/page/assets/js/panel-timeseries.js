// Lines, areas, bars and points over time.
/* global uPlot */
import { Chart, font, textWidth } from './chart.js';
import { alpha, color, css } from './colors.js';
import { el } from './dom.js';
import { display, lineColor, steps } from './fields.js';
import { formatTicks, increments } from './format.js';
import { Legend } from './legend.js';

export class Timeseries {
  constructor(body, panel, env) {
    this.panel = panel;
    const right = panel.options?.legend?.placement === 'right';
    const host = el('div', { class: 'plot' });
    const place = el('div', { class: 'legend' });
    this.root = el('div', { class: 'chart' + (right ? ' right' : '') }, host, place);
    body.append(this.root);
    this.legend = new Legend(place, panel.options?.legend, () => this.#draw());
    this.chart = new Chart(host, env, {
      title: env.title(panel),
      rows: (i, near) => this.#rows(i, near),
      follow: (i) => this.legend.values(i),
    });
  }

  draw(times, fields) {
    this.times = times;
    this.fields = fields;
    this.colors = new Map(fields.map((f) => [f, lineColor(f)]));
    this.legend.draw(fields, this.colors);
    this.#draw();
  }

  rebuild() {
    this.chart.clear();
    this.legend.names = null;
    if (this.fields) this.draw(this.times, this.fields);
  }

  marks() {
    this.chart.redraw();
  }

  destroy() {
    this.chart.destroy();
  }

  #draw() {
    const shown = this.fields.filter((f) => !f.config.custom?.hideFrom?.viz && this.legend.visible(f.name));
    this.shown = shown;
    const whole = new Map();
    for (const f of shown) {
      const key = scaleOf(f);
      // Counts have no halves. A ratio or a rate that is 0 is no count.
      const counts = !/^percent|ps$/.test(f.config.unit ?? '') && f.values.every((v) => v === null || v === undefined || Number.isInteger(v));
      whole.set(key, (whole.get(key) ?? true) && counts);
    }
    const { data, bands } = stack(shown, this.times);
    const signature = JSON.stringify([shown.map((f) => [f.name, f.config, this.colors.get(f)]), [...whole], bands, document.documentElement.dataset.theme]);
    this.chart.draw(signature, [this.times, ...data], () => this.#options(shown, whole, bands));
  }

  #options(shown, whole, bands) {
    const scales = {};
    const axes = [];
    for (const f of shown) {
      const key = scaleOf(f);
      if (scales[key]) continue;
      const c = f.config.custom ?? {};
      scales[key] = scale(f);
      if (c.axisPlacement === 'hidden') continue;
      const side = c.axisPlacement === 'right' || (c.axisPlacement !== 'left' && axes.length > 0) ? 1 : 3;
      axes.push({
        scale: key, side, stroke: css('muted'), font: font(), gap: 6, space: 26,
        grid: { show: axes.length === 0, stroke: css('grid'), width: 1 }, ticks: { show: false },
        incrs: increments(f.config.unit, whole.get(key)),
        values: (u, ticks) => formatTicks(ticks, f.config.unit, f.config.decimals),
        // As wide as its widest label, so that none is cut off.
        size: (u, values) => Math.ceil(Math.max(20, ...(values ?? []).map((v) => textWidth(v)))) + 12,
        ...(c.axisLabel ? { label: c.axisLabel, labelFont: font(), labelSize: 16, labelGap: 0 } : {}),
      });
    }
    return {
      scales, axes, bands,
      series: [{}, ...shown.map((f) => this.#series(f))],
      hooks: { drawClear: [(u) => this.#areas(u)], draw: [(u) => this.#lines(u)] },
    };
  }

  #series(field) {
    const c = field.config.custom ?? {};
    const line = this.colors.get(field);
    const scheme = c.gradientMode === 'scheme' && field.config.color?.mode === 'thresholds';
    const fill = (c.fillOpacity ?? 0) / 100;
    const bars = c.drawStyle === 'bars';
    const stroke = scheme ? (u) => bySteps(u, field, 1) : line;
    const width = c.drawStyle === 'points' ? 0 : Math.max(c.lineWidth ?? 1, bars ? 0 : 1.25);
    const dash = c.lineStyle?.fill === 'dash' ? c.lineStyle.dash ?? [10, 10] : c.lineStyle?.fill === 'dot' ? [0, ...(c.lineStyle.dash ?? [3, 3]).slice(1)] : undefined;
    const always = c.showPoints === 'always' || c.drawStyle === 'points';
    return {
      label: field.name, scale: scaleOf(field), stroke, width, dash, cap: c.lineStyle?.fill === 'dot' ? 'round' : undefined,
      fill: fill === 0 ? undefined : scheme ? (u) => bySteps(u, field, fill) : (u) => fade(u, line, fill, c.gradientMode === 'opacity'),
      paths: bars ? uPlot.paths.bars({ size: [0.8, 40] }) : c.drawStyle === 'points' ? () => null : paths(c.lineInterpolation),
      spanGaps: c.spanNulls === true,
      points: {
        show: always,
        size: Math.max(c.pointSize ?? 5, 4),
        // A lone point between gaps has no line to be seen by.
        filter: (u, si, show) => (show ? null : lone(u.data[si])),
        fill: line,
        stroke: line,
      },
    };
  }

  #rows(i, near) {
    const mode = this.panel.options?.tooltip?.mode;
    if (mode === 'none') return [];
    let rows = this.shown
      .map((f, si) => ({ field: f, value: f.values[i] ?? null, near: si + 1 === near }))
      .filter((r) => r.value !== null && !r.field.config.custom?.hideFrom?.tooltip);
    if (mode === 'single' && rows.some((r) => r.near)) rows = rows.filter((r) => r.near);
    const sort = this.panel.options?.tooltip?.sort;
    if (sort === 'desc') rows.sort((a, b) => b.value - a.value);
    if (sort === 'asc') rows.sort((a, b) => a.value - b.value);
    return rows.map((r) => {
      const d = display(r.field, r.value);
      return { name: r.field.name, text: d.unit ? d.text + '\u00a0' + d.unit : d.text, color: this.colors.get(r.field), near: r.near, value: r.value };
    });
  }

  // Thresholds belong to fields: two percentiles may have limits of their own.
  #thresholds(kind) {
    const seen = new Set();
    const out = [];
    for (const f of this.shown) {
      const mode = f.config.custom?.thresholdsStyle?.mode ?? 'off';
      if (!mode.includes(kind) && !(kind === 'line' && mode.includes('dashed'))) continue;
      const s = steps(f);
      const key = scaleOf(f) + JSON.stringify(s) + mode;
      if (!seen.has(key)) out.push({ key: scaleOf(f), steps: s, dashed: mode.includes('dashed') });
      seen.add(key);
    }
    return out;
  }

  #areas(u) {
    const { ctx, bbox } = u;
    for (const t of this.#thresholds('area')) {
      const { min, max } = u.scales[t.key];
      t.steps.forEach((s, i) => {
        const [low, high] = [Math.max(s.value, min), Math.min(t.steps[i + 1]?.value ?? Infinity, max)];
        if (high <= low || s.color === 'transparent') return;
        const [y0, y1] = [u.valToPos(high, t.key, true), u.valToPos(low, t.key, true)];
        ctx.fillStyle = alpha(color(s.color), 0.1);
        ctx.fillRect(bbox.left, y0, bbox.width, y1 - y0);
      });
    }
  }

  #lines(u) {
    const { ctx, bbox } = u;
    const r = devicePixelRatio || 1;
    for (const t of this.#thresholds('line')) {
      const { min, max } = u.scales[t.key];
      for (const s of t.steps) {
        if (!Number.isFinite(s.value) || s.value < min || s.value > max || s.color === 'transparent') continue;
        const y = Math.round(u.valToPos(s.value, t.key, true));
        ctx.save();
        ctx.globalAlpha = 0.85;
        ctx.strokeStyle = color(s.color);
        ctx.lineWidth = r;
        if (t.dashed) ctx.setLineDash([7 * r, 5 * r]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.restore();
      }
    }
  }
}

// Series of one unit share a scale.
function scaleOf(f) {
  const c = f.config.custom ?? {};
  return 'y' + JSON.stringify([f.config.unit ?? '', c.axisPlacement ?? 'auto', f.config.min ?? null, f.config.max ?? null, c.axisLabel ?? '']);
}

function scale(field) {
  const { min, max, custom = {} } = field.config;
  const log = custom.scaleDistribution?.type === 'log';
  const soft = [custom.axisSoftMin, custom.axisSoftMax];
  return {
    auto: true,
    ...(log ? { distr: 3, log: custom.scaleDistribution.log ?? 10 } : {}),
    range: (u, low, high) => {
      if (low === null || high === null || low === undefined) [low, high] = [0, 1];
      if (log) return uPlot.rangeLog(min ?? low, max ?? high, custom.scaleDistribution.log ?? 10, true);
      if (soft[0] !== undefined && soft[0] !== null) low = Math.min(low, soft[0]);
      if (soft[1] !== undefined && soft[1] !== null) high = Math.max(high, soft[1]);
      if (low === 0 && high === 0) return [min ?? 0, max ?? (field.config.unit === 'percentunit' ? 0.1 : 1)];
      let span = high - low;
      // From zero, unless that would press all that moves into a line.
      if (low >= 0 && (low < 0.7 * high || span === 0)) low = 0;
      else low -= span * 0.1;
      if (high <= 0 && span !== 0 && high > 0.7 * low) high = 0;
      span = high - low || Math.abs(high) || 1;
      high = high === 0 && low < 0 ? 0 : high + span * 0.08;
      const bottom = min ?? low;
      let top = max ?? high;
      if (top <= bottom) top = bottom + 1;
      return [bottom, top];
    },
  };
}

function paths(how) {
  if (how === 'smooth') return uPlot.paths.spline();
  if (how === 'stepBefore') return uPlot.paths.stepped({ align: -1 });
  if (how === 'stepAfter') return uPlot.paths.stepped({ align: 1 });
  return uPlot.paths.linear();
}

function lone(values) {
  const out = [];
  const gap = (v) => v === null || v === undefined;
  for (let i = 0; i < values.length; i++) {
    if (gap(values[i])) continue;
    let [a, b] = [i - 1, i + 1];
    while (a >= 0 && values[a] === undefined) a--;
    while (b < values.length && values[b] === undefined) b++;
    if (gap(values[a]) && gap(values[b])) out.push(i);
  }
  return out.length ? out : [];
}

// Stacked series lie on the sum of those before them. Gaps of a query that
// may be spanned are undefined, which uPlot draws through.
export function stack(fields, times) {
  const sums = new Map();
  const below = new Map();
  const bands = [];
  const totals = new Map();
  const kind = (f) => {
    const s = f.config.custom?.stacking;
    return s && s.mode && s.mode !== 'none' ? s.mode + ' ' + (s.group ?? 'A') + scaleOf(f) : null;
  };
  for (const f of fields) {
    const k = kind(f);
    if (!k?.startsWith('percent')) continue;
    const t = totals.get(k) ?? new Array(times.length).fill(0);
    f.values.forEach((v, i) => { t[i] += Math.abs(finite(v) ?? 0); });
    totals.set(k, t);
  }
  const data = fields.map((f, fi) => {
    const k = kind(f);
    const sign = f.config.custom?.transform === 'negative-Y' ? -1 : 1;
    let values = spanned(f, times).map((v) => (finite(v) === null ? v : sign * v));
    if (!k) return values;
    const sum = sums.get(k) ?? new Array(times.length).fill(0);
    values = values.map((v, i) => {
      if (v === null || v === undefined) return v;
      const total = totals.get(k)?.[i];
      sum[i] += totals.has(k) ? (total ? v / total : 0) : v;
      return sum[i];
    });
    sums.set(k, sum);
    if (below.has(k)) bands.push({ series: [fi + 1, below.get(k)] });
    below.set(k, fi + 1);
    return values;
  });
  fields.forEach((f, fi) => {
    const lower = fields.findIndex((o) => o.name === f.config.custom?.fillBelowTo);
    if (f.config.custom?.fillBelowTo && lower >= 0) bands.push({ series: [fi + 1, lower + 1] });
  });
  return { data, bands };
}

const finite = (v) => (v === null || v === undefined || !Number.isFinite(v) ? null : v);

function spanned(f, times) {
  const values = f.values.map((v) => (v === undefined ? undefined : finite(v)));
  const most = f.config.custom?.spanNulls;
  if (typeof most !== 'number') return values;
  let last = -1;
  for (let i = 0; i < values.length; i++) {
    if (values[i] === null || values[i] === undefined) continue;
    if (last >= 0 && (times[i] - times[last]) * 1000 <= most) values.fill(undefined, last + 1, i);
    last = i;
  }
  return values;
}

// A line that is coloured by where it is: hard stops at the thresholds.
function bySteps(u, field, opacity) {
  const key = scaleOf(field);
  const { min, max } = u.scales[key];
  const s = steps(field);
  const inside = s.filter((x, i) => (s[i + 1]?.value ?? Infinity) > min && x.value < max);
  if (inside.length < 2) return alpha(color((inside[0] ?? s[0]).color), opacity);
  const [bottom, top] = [u.valToPos(min, key, true), u.valToPos(max, key, true)];
  const g = u.ctx.createLinearGradient(0, bottom, 0, top);
  const at = (v) => Math.min(1, Math.max(0, (u.valToPos(v, key, true) - bottom) / (top - bottom)));
  inside.forEach((x, i) => {
    const c = alpha(color(x.color), opacity);
    g.addColorStop(at(Math.max(x.value, min)), c);
    g.addColorStop(i + 1 < inside.length ? at(inside[i + 1].value) : 1, c);
  });
  return g;
}

function fade(u, line, opacity, gradient) {
  if (!gradient || !u.bbox?.height) return alpha(line, opacity);
  const g = u.ctx.createLinearGradient(0, u.bbox.top, 0, u.bbox.top + u.bbox.height);
  g.addColorStop(0, alpha(line, opacity));
  g.addColorStop(1, alpha(line, 0.02));
  return g;
}
