// One big number for each series, with the colour of its threshold.
import { alpha, css, on } from './colors.js';
import { el, setText, svg } from './dom.js';
import { display } from './fields.js';
import { reduce } from './reduce.js';

export const calcOf = (panel) => panel.options?.reduceOptions?.calcs?.[0] ?? 'lastNotNull';

export class Stat {
  constructor(body, panel) {
    this.panel = panel;
    this.root = el('div', { class: 'stats' + (panel.options?.orientation === 'horizontal' ? ' rows' : '') });
    body.append(this.root);
  }

  draw(times, fields) {
    this.times = times;
    this.fields = fields;
    if (this.items?.length !== fields.length) {
      this.items = fields.map(() => {
        const item = { name: el('p', { class: 'name' }), text: el('span'), unit: el('small'), line: el('div', { class: 'spark', 'aria-hidden': 'true' }) };
        item.value = el('p', { class: 'big' }, item.text, item.unit);
        item.root = el('div', { class: 'stat' }, item.name, item.value, item.line);
        return item;
      });
      this.root.replaceChildren(...this.items.map((i) => i.root));
    }
    const { textMode = 'auto', colorMode = 'value', graphMode = 'area' } = this.panel.options ?? {};
    fields.forEach((f, i) => {
      const item = this.items[i];
      const v = reduce(f.values, calcOf(this.panel));
      const d = display(f, v);
      const name = textMode === 'name' || textMode === 'value_and_name' || (textMode === 'auto' && fields.length > 1);
      item.name.hidden = !name;
      setText(item.name, f.name);
      item.value.hidden = textMode === 'name' || textMode === 'none';
      setText(item.text, d.text);
      setText(item.unit, d.unit ? (d.unit.startsWith('%') || d.unit.startsWith('°') ? '' : '\u202f') + d.unit : '');
      item.value.classList.toggle('words', v === null);
      const ground = colorMode.startsWith('background');
      item.root.classList.toggle('ground', ground);
      item.root.style.backgroundColor = ground && v !== null ? d.color : '';
      item.value.style.color = v === null ? '' : ground ? on(d.color) : colorMode === 'none' ? '' : d.color;
      item.name.style.color = ground && v !== null ? on(d.color) : '';
      item.line.hidden = graphMode === 'none' || f.values.filter((x) => Number.isFinite(x)).length < 2;
      if (!item.line.hidden) item.line.replaceChildren(sparkline(times, f.values, ground ? on(d.color) : d.color));
    });
  }

  rebuild() {
    if (this.fields) this.draw(this.times, this.fields);
  }

  marks() {}
  destroy() {}
}

function sparkline(times, values, c) {
  const known = times.map((t, i) => [t, values[i]]).filter(([, v]) => Number.isFinite(v));
  const [t0, t1] = [known[0][0], known.at(-1)[0]];
  const low = Math.min(...known.map(([, v]) => v));
  const span = Math.max(...known.map(([, v]) => v)) - low || 1;
  const at = known.map(([t, v]) => `${(((t - t0) / (t1 - t0 || 1)) * 100).toFixed(2)} ${(38 - ((v - low) / span) * 34).toFixed(2)}`);
  return svg('svg', { viewBox: '0 0 100 40', preserveAspectRatio: 'none' },
    svg('path', { d: `M${at[0].split(' ')[0]} 40L${at.join('L')}L100 40Z`, fill: alpha(c === 'transparent' ? css('muted') : c, 0.14) }),
    svg('path', { d: 'M' + at.join('L'), fill: 'none', stroke: c, 'stroke-width': 1.5, 'vector-effect': 'non-scaling-stroke' }));
}
