// Where a value stands between its limits: on an arc, or along a bar.
import { color, css } from './colors.js';
import { el, setText, svg } from './dom.js';
import { display, limits, steps } from './fields.js';
import { reduce } from './reduce.js';
import { calcOf } from './panel-stat.js';

const clamp = (x) => Math.min(1, Math.max(0, x));
const percent = { percent: [0, 100], percentunit: [0, 1] };

// What has no limits of its own has those of all together, so that bars can be
// compared.
export function limitsOf(f, fields) {
  const [a, b] = percent[f.config.unit] ?? [];
  const config = { ...f.config, min: f.config.min ?? a ?? 0, max: f.config.max ?? b };
  const [min, max] = limits({ config, values: fields.flatMap((o) => o.values) });
  return [min, max > min ? max : min + 1];
}

function arc(from, to, r) {
  const at = (s) => {
    const a = Math.PI * (0.8 + 1.4 * s);
    return `${(50 + r * Math.cos(a)).toFixed(2)} ${(50 + r * Math.sin(a)).toFixed(2)}`;
  };
  return `M${at(from)}A${r} ${r} 0 ${(to - from) * 1.4 > 1 ? 1 : 0} 1 ${at(to)}`;
}

export class Gauge {
  constructor(body, panel) {
    this.panel = panel;
    this.root = el('div', { class: 'gauges' });
    body.append(this.root);
  }

  draw(times, fields) {
    this.fields = fields;
    this.times = times;
    this.root.replaceChildren(...fields.map((f) => {
      const v = reduce(f.values, calcOf(this.panel));
      const d = display(f, v);
      const [min, max] = limitsOf(f, fields);
      const share = (x) => clamp((x - min) / (max - min));
      const s = steps(f);
      const rim = this.panel.options?.showThresholdMarkers === false ? [] : s.map((x, i) => {
        const [a, b] = [share(Math.max(x.value, min)), share(s[i + 1]?.value ?? max)];
        return b > a ? svg('path', { d: arc(a, b, 47), fill: 'none', stroke: color(x.color), 'stroke-width': 2.5 }) : null;
      });
      return el('div', { class: 'gauge' },
        svg('svg', { viewBox: '0 0 100 82', role: 'img', 'aria-label': `${f.name}: ${d.text} ${d.unit}` },
          ...rim,
          svg('path', { d: arc(0, 1, 39), fill: 'none', stroke: css('grid'), 'stroke-width': 10 }),
          v === null ? null : svg('path', { d: arc(0, Math.max(share(v), 0.002), 39), fill: 'none', stroke: d.color, 'stroke-width': 10 }),
          svg('text', { x: 50, y: 56, 'text-anchor': 'middle', class: 'reading', fill: v === null ? css('muted') : d.color, text: d.unit ? `${d.text} ${d.unit}` : d.text })),
        fields.length > 1 ? el('p', { class: 'name', text: f.name }) : null);
    }));
  }

  rebuild() {
    if (this.fields) this.draw(this.times, this.fields);
  }

  marks() {}
  destroy() {}
}

export class BarGauge extends Gauge {
  draw(times, fields) {
    this.fields = fields;
    this.times = times;
    this.root.className = 'bargauges' + (this.panel.options?.namePlacement === 'left' ? ' lines' : '');
    this.root.replaceChildren(...fields.map((f) => {
      const v = reduce(f.values, calcOf(this.panel));
      const d = display(f, v);
      const [min, max] = limitsOf(f, fields);
      const value = el('span', { class: 'value' });
      setText(value, d.unit ? d.text + '\u00a0' + d.unit : d.text);
      return el('div', { class: 'bargauge' }, el('span', { class: 'name', title: f.name, text: f.name }), value,
        el('div', { class: 'track' }, el('div', { css: { width: (v === null ? 0 : clamp((v - min) / (max - min)) * 100) + '%', background: d.color } })));
    }));
  }
}
