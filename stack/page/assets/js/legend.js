// The names, colours and figures of a chart's series. A click shows one
// alone, with Ctrl or Shift it adds or takes one away, as in Grafana.
import { el, setText } from './dom.js';
import { displayText } from './fields.js';
import { calcName, reduce } from './reduce.js';

export class Legend {
  constructor(place, options, onToggle) {
    this.place = place;
    this.onToggle = onToggle;
    this.shown = null; // the names of those that are shown, null for all
    const calcs = options?.calcs?.length ? options.calcs : ['lastNotNull'];
    this.calcs = calcs;
    this.table = options?.displayMode === 'table';
    this.hidden = options?.showLegend === false || options?.displayMode === 'hidden';
    this.sortBy = options?.sortBy;
    this.sortDesc = options?.sortDesc;
    place.hidden = this.hidden;
  }

  visible(name) {
    return this.shown === null || this.shown.has(name);
  }

  draw(fields, colors) {
    this.fields = fields.filter((f) => !f.config.custom?.hideFrom?.legend);
    // Of those with one name, the first.
    this.named = new Map(this.fields.toReversed().map((f) => [f.name, f]));
    if (this.hidden) return;
    if (this.shown && ![...this.shown].some((n) => this.named.has(n))) this.shown = null;
    const by = this.calcs.find((c) => this.sortBy && (calcName(c) === this.sortBy.toLowerCase().replace(' *', '') || c === this.sortBy));
    const order = [...this.fields];
    if (by) order.sort((a, b) => ((reduce(a.values, by) ?? -Infinity) - (reduce(b.values, by) ?? -Infinity)) * (this.sortDesc ? -1 : 1));
    const names = JSON.stringify([order.map((f) => f.name), order.map((f) => colors.get(f))]);
    if (names !== this.names) {
      this.names = names;
      this.#build(order, colors);
    }
    this.#marks();
    this.values(null);
  }

  #build(order, colors) {
    this.lines = order.map((field) => {
      const swatch = el('i', { class: field.config.custom?.lineStyle?.fill === 'dash' ? 'dash' : undefined, css: { color: colors.get(field), 'border-top-width': thickness(field) } });
      const button = el('button', { type: 'button', title: field.name, on: { click: (e) => this.#toggle(field.name, e.ctrlKey || e.metaKey || e.shiftKey) } },
        swatch, el('span', { text: field.name }));
      const cells = this.calcs.map(() => el(this.table ? 'td' : 'span', { class: 'value' }));
      return { name: field.name, button, cells };
    });
    if (this.table) {
      this.place.replaceChildren(el('table', {},
        el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, el('span', { class: 'unseen', text: 'Series' })), ...this.calcs.map((c) => el('th', { scope: 'col', text: calcName(c) })))),
        el('tbody', {}, ...this.lines.map((l) => el('tr', {}, el('th', { scope: 'row' }, l.button), ...l.cells)))));
    } else {
      this.place.replaceChildren(el('ul', {}, ...this.lines.map((l) => el('li', {}, l.button, ...l.cells))));
    }
  }

  // values shows what is under the cursor, or with null the calculations.
  values(index) {
    if (this.hidden || !this.lines) return;
    for (const line of this.lines) {
      const field = this.named.get(line.name);
      if (!field) continue;
      line.cells.forEach((cell, i) => {
        const calc = this.calcs[i];
        const live = index !== null && (calc === 'lastNotNull' || calc === 'last');
        cell.classList.toggle('at-cursor', live);
        const v = live ? field.values[index] ?? null : reduce(field.values, calc);
        const name = !this.table && this.calcs.length > 1 ? calcName(calc) + '\u00a0' : '';
        setText(cell, name + (v === null ? '–' : displayText(field, v)));
      });
    }
  }

  #toggle(name, add) {
    const all = this.fields.map((f) => f.name);
    if (add) {
      const next = new Set(this.shown ?? all);
      if (!next.delete(name)) next.add(name);
      this.shown = next.size === 0 || next.size === all.length ? null : next;
    } else {
      this.shown = this.shown?.size === 1 && this.shown.has(name) ? null : new Set([name]);
    }
    this.#marks();
    this.onToggle();
  }

  #marks() {
    for (const l of this.lines ?? []) l.button.setAttribute('aria-pressed', String(this.visible(l.name)));
  }
}

// A swatch is as thick as its line; bars and points have none. Dashes thicker
// than 3 px would not fit into it twice.
function thickness(field) {
  const { drawStyle, lineStyle, lineWidth } = field.config.custom ?? {};
  if (drawStyle === 'bars' || drawStyle === 'points') return '3px';
  return Math.min(Math.max(lineWidth ?? 1, 1), lineStyle?.fill === 'dash' ? 3 : 4) + 'px';
}
