// What happened when: marks over all charts, from the dashboard's annotations.
import { color } from './colors.js';
import { el } from './dom.js';
import { legend } from './fields.js';
import { align, builtins, intervals, parseDuration } from './interval.js';
import { interpolateQuery } from './interpolate.js';

export class Annotations {
  constructor(list, prom, chosen, onChange) {
    this.prom = prom;
    this.specs = (list ?? []).filter((a) => !a.builtIn && (a.target?.expr || a.expr));
    this.on = new Set(chosen ?? this.specs.filter((a) => a.enable).map((a) => a.name));
    this.asked = chosen !== null;
    this.onChange = onChange;
    this.events = [];
    this.turn = 0;
  }

  controls(place) {
    place.append(...this.specs.filter((a) => !a.hide).map((a) => el('label', { class: 'tick' },
      el('input', { type: 'checkbox', checked: this.on.has(a.name), on: { change: (e) => this.#toggle(a.name, e.target.checked) } }),
      el('i', { css: { background: color(a.iconColor) } }), el('span', { text: a.name }))));
  }

  chosen() {
    return this.asked ? [...this.on] : null;
  }

  #toggle(name, on) {
    if (on) this.on.add(name);
    else this.on.delete(name);
    this.asked = true;
    this.onChange();
  }

  async load({ from, to, scrape, values }) {
    const turn = ++this.turn;
    const parts = await Promise.all(this.specs.filter((a) => this.on.has(a.name)).map((a) => this.#ask(a, from, to, scrape, values)));
    if (turn !== this.turn) return false; // another range was chosen meanwhile
    const events = parts.flat().sort((a, b) => a.from - b.from);
    const changed = JSON.stringify(events) !== JSON.stringify(this.events);
    this.events = events;
    return changed;
  }

  async #ask(spec, from, to, scrape, values) {
    // A minute is what Grafana takes where no step is given.
    const min = parseDuration(spec.target?.interval || spec.step) ?? 60000;
    const iv = intervals({ from, to, points: 11000, scrape, min });
    const { start, end } = align(from, to, iv.step);
    const expr = interpolateQuery(spec.target?.expr || spec.expr, values, builtins({ ...iv, scrape }));
    const series = await this.prom.range(expr, start, end, iv.step);
    return series.flatMap((s) => regions(s.points, iv.step / 1000).map(([a, b]) => ({
      from: a, to: b, color: color(spec.iconColor), name: spec.name,
      title: legend(spec.titleFormat || spec.name, s.labels), text: legend(spec.textFormat || '', s.labels),
    })));
  }
}

// Points above zero are events; those that are no more than a step apart are
// one, which lasts.
export function regions(points, step) {
  const out = [];
  for (const [t, v] of points) {
    if (v === null || !(v > 0)) continue;
    const last = out.at(-1);
    if (last && t - last[1] <= step * 1.001) last[1] = t;
    else out.push([t, t]);
  }
  return out;
}
