// States over time: one row for each series, one block for as long as a
// state lasts.
import { Chart, font, textWidth } from './chart.js';
import { alpha, css, on } from './colors.js';
import { el } from './dom.js';
import { display } from './fields.js';

export class StateTimeline {
  constructor(body, panel, env) {
    this.panel = panel;
    const host = el('div', { class: 'plot' });
    this.place = el('div', { class: 'legend', hidden: panel.options?.legend?.showLegend === false });
    this.spoken = el('p', { class: 'unseen' });
    body.append(el('div', { class: 'chart' }, host, this.place, this.spoken));
    this.chart = new Chart(host, env, {
      title: env.title(panel),
      rows: (i) => this.#rows(i),
      follow: () => {},
    });
  }

  draw(times, fields) {
    this.times = times;
    this.fields = fields;
    // uPlot looks for the cursor's place among values; where they lie is of
    // no matter here.
    const data = [times, ...fields.map((f, row) => f.values.map((v) => (v === null || v === undefined ? v : row)))];
    const signature = JSON.stringify([fields.map((f) => [f.name, f.config]), document.documentElement.dataset.theme]);
    this.chart.draw(signature, data, () => this.#options());
    this.#legend();
    this.spoken.textContent = fields.map((f) => {
      const d = display(f, f.values.findLast((v) => v !== null && v !== undefined) ?? null);
      return `${f.name}: ${d.text}`;
    }).join('; ');
  }

  rebuild() {
    this.chart.clear();
    if (this.fields) this.draw(this.times, this.fields);
  }

  marks() {
    this.chart.redraw();
  }

  destroy() {
    this.chart.destroy();
  }

  #options() {
    const names = this.fields.map((f) => shorten(f.name, 130));
    return {
      scales: { y: { auto: false, range: [-0.5, this.fields.length - 0.5], dir: -1 } },
      axes: [{
        scale: 'y', side: 3, stroke: css('muted'), font: font(), gap: 6, grid: { show: false }, ticks: { show: false },
        splits: () => names.map((_, i) => i), values: () => names,
        size: Math.ceil(Math.max(20, ...names.map((n) => textWidth(n)))) + 12,
      }],
      series: [{}, ...this.fields.map((f) => ({ label: f.name, scale: 'y', paths: () => null, points: { show: false } }))],
      hooks: { draw: [(u) => this.#blocks(u)] },
    };
  }

  // blocks of one state: [from index, to time, value]
  #runs(field) {
    const { times } = this;
    const step = (field.step ?? 0) / 1000;
    const runs = [];
    const own = [];
    field.values.forEach((v, i) => { if (v !== undefined) own.push(i); });
    own.forEach((i, n) => {
      const v = field.values[i];
      if (v === null) return;
      const next = own[n + 1];
      const until = next === undefined ? times[i] + step : times[next];
      const last = runs.at(-1);
      if (last && last.value === v && last.until === times[i] && this.panel.options?.mergeValues !== false) last.until = until;
      else runs.push({ from: times[i], until, value: v });
    });
    return runs;
  }

  #blocks(u) {
    const { ctx, bbox } = u;
    const r = devicePixelRatio || 1;
    const share = this.panel.options?.rowHeight ?? 0.9;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.font = font(11 * r);
    ctx.textBaseline = 'middle';
    ctx.textAlign = 'left';
    const end = bbox.left + bbox.width;
    this.fields.forEach((f, row) => {
      const tall = (bbox.height / this.fields.length) * share;
      const y = u.valToPos(row, 'y', true) - tall / 2;
      for (const run of this.#runs(f)) {
        const x0 = Math.max(bbox.left, u.valToPos(run.from, 'x', true));
        const x1 = Math.min(end, u.valToPos(run.until, 'x', true));
        if (x1 <= x0) continue;
        const d = display(f, run.value);
        ctx.fillStyle = alpha(d.color, (f.config.custom?.fillOpacity ?? 70) / 100);
        ctx.fillRect(x0, y, Math.max(x1 - x0 - r, r), tall);
        const text = d.unit ? d.text + ' ' + d.unit : d.text;
        const wide = ctx.measureText(text).width;
        if (this.panel.options?.showValue === 'never' || wide + 12 * r > x1 - x0 || tall < 12 * r) continue;
        ctx.fillStyle = on(blend(d.color, css('panel'), (f.config.custom?.fillOpacity ?? 70) / 100));
        const align = this.panel.options?.alignValue;
        const x = align === 'center' ? (x0 + x1 - wide) / 2 : align === 'right' ? x1 - wide - 7 * r : x0 + 7 * r;
        ctx.fillText(text, x, y + tall / 2);
      }
    });
    ctx.restore();
  }

  #rows(i) {
    return this.fields.map((f) => {
      let v = f.values[i];
      for (let k = i; v === undefined && k >= 0; k--) v = f.values[k];
      if (v === undefined || v === null) return null;
      const d = display(f, v);
      return { name: f.name, text: d.unit ? d.text + '\u00a0' + d.unit : d.text, color: d.color };
    }).filter(Boolean);
  }

  #legend() {
    const states = new Map();
    for (const f of this.fields) for (const v of new Set(f.values)) {
      if (v === null || v === undefined) continue;
      const d = display(f, v);
      states.set(v, [d.text, d.color]);
    }
    const sorted = [...states].sort((a, b) => a[0] - b[0]).map(([, state]) => state);
    const key = JSON.stringify(sorted);
    if (key === this.states) return;
    this.states = key;
    this.place.replaceChildren(el('ul', {}, ...[...new Map(sorted)].map(([text, c]) => el('li', {}, el('i', { class: 'square', css: { background: c } }), el('span', { text })))));
  }
}

function shorten(text, width) {
  if (textWidth(text) <= width) return text;
  let t = text;
  while (t.length > 3 && textWidth(t + '…') > width) t = t.slice(0, -1);
  return t + '…';
}

function blend(top, ground, a) {
  const n = (h) => [1, 3, 5].map((i) => parseInt(h.slice(i, i + 2), 16));
  if (!/^#[0-9a-f]{6}$/i.test(top) || !/^#[0-9a-f]{6}$/i.test(ground)) return top;
  const [t, g] = [n(top), n(ground)];
  return '#' + t.map((x, i) => Math.round(x * a + g[i] * (1 - a)).toString(16).padStart(2, '0')).join('');
}
