// The dashboard's variables: what there is to choose, and the controls.
import { el, setText } from './dom.js';
import { interpolateQuery } from './interpolate.js';

export const ALL = '$__all';

const text = (q) => (typeof q === 'string' ? q : q?.query ?? '');

export class Variables {
  constructor(list, prom, chosen, onChange) {
    this.prom = prom;
    this.onChange = onChange;
    this.vars = (list ?? []).filter((v) => v.type !== 'datasource' && v.type !== 'adhoc').map((spec) => {
      const asked = chosen.get(spec.name);
      const current = [spec.current?.value ?? []].flat().map(String).filter((v) => v !== '');
      return { spec, options: [], value: asked ?? (current.length ? current : spec.includeAll ? [ALL] : []), asked: Boolean(asked) };
    });
  }

  // values is what queries are filled with.
  values() {
    const map = new Map();
    for (const { spec, value, options } of this.vars) {
      const all = value.includes(ALL);
      map.set(spec.name, {
        value: all ? options.map((o) => o.value) : value,
        all: all ? spec.allValue || null : null,
        multi: Boolean(spec.multi || spec.includeAll),
        text: all ? 'All' : value.join(' + '),
      });
    }
    return map;
  }

  // chosen is what belongs into the page's address.
  chosen() {
    return new Map(this.vars.filter((v) => v.asked && v.spec.type !== 'constant').map((v) => [v.spec.name, v.value]));
  }

  // load asks one after the other: a variable may stand in the next one's
  // query. What cannot be asked keeps what it had.
  async load(from, to) {
    let changed = false;
    for (const v of this.vars) {
      const before = JSON.stringify([v.options, v.value]);
      try {
        v.options = await this.#options(v, from, to);
      } catch {
        continue;
      }
      this.#settle(v);
      changed ||= before !== JSON.stringify([v.options, v.value]);
    }
    if (changed) this.render?.();
    return changed;
  }

  #settle(v) {
    const { spec, options } = v;
    if (spec.type === 'constant' || spec.type === 'textbox') return;
    // What somebody chose stays chosen though it has no series just now.
    if (v.asked && v.value.length) return;
    const known = v.value.filter((x) => x === ALL || options.some((o) => o.value === x));
    if (known.length) v.value = known;
    else if (spec.includeAll) v.value = [ALL];
    else if (options.length) v.value = [options[0].value];
  }

  async #options({ spec }, from, to) {
    if (spec.type === 'constant' || spec.type === 'textbox') {
      return [{ text: text(spec.query), value: text(spec.query) }];
    }
    if (spec.type === 'custom' || spec.type === 'interval') {
      return (text(spec.query).match(/(?:\\,|[^,])+/g) ?? []).map((part) => {
        const [, name, value] = /^(.+?)\s+:\s+(.+)$/.exec(part.trim()) ?? [];
        const plain = part.trim().replaceAll('\\,', ',');
        return { text: name ?? plain, value: value ?? plain };
      });
    }
    const query = interpolateQuery(text(spec.query) || spec.definition || '', this.values());
    const found = await this.#ask(query.trim(), { start: Math.floor(from / 1000), end: Math.ceil(to / 1000) });
    return sorted(filtered(found, spec.regex), spec.sort).map((value) => ({ text: value, value }));
  }

  async #ask(query, window) {
    const [metric, label] = /^label_values\(.+\)$/s.test(query) ? parts(query) : [];
    if (label) return this.prom.ask(`label/${encodeURIComponent(label)}/values`, { 'match[]': metric, ...window });
    const names = /^label_names\(\s*(.*?)\s*\)$/s.exec(query);
    if (names) return this.prom.ask('labels', { 'match[]': names[1] || undefined, ...window });
    const metrics = /^metrics\(\s*(.*?)\s*\)$/s.exec(query);
    if (metrics) {
      const re = new RegExp(metrics[1]);
      return (await this.prom.ask('label/__name__/values', window)).filter((n) => re.test(n));
    }
    const result = /^query_result\((.+)\)$/s.exec(query);
    const series = await this.prom.instant(result ? result[1] : query, window.end * 1000);
    return series.map(({ labels, points }) => {
      const { __name__ = '', ...rest } = labels;
      return `${__name__}{${Object.entries(rest).map(([k, v]) => `${k}="${v}"`).join(',')}} ${points[0]?.[1] ?? ''}`;
    });
  }

  // controls fills a place with one control for each variable.
  controls(place) {
    this.render = () => {
      if (place.contains(document.activeElement) && this.open) {
        this.open();
        return;
      }
      place.replaceChildren(...this.vars.filter((v) => v.spec.hide !== 2 && v.spec.type !== 'constant').map((v) => this.#control(v)));
    };
    this.render();
  }

  #set(v, value) {
    v.value = value;
    v.asked = true;
    this.onChange(v.spec.name);
  }

  #control(v) {
    const { spec } = v;
    const id = 'var-' + spec.name;
    const label = spec.label || spec.name;
    if (spec.type === 'textbox') {
      return el('label', { class: 'control' }, el('span', { text: label }),
        el('input', { id, value: v.value[0] ?? '', on: { change: (e) => this.#set(v, [e.target.value]) } }));
    }
    if (!spec.multi) {
      const select = el('select', { id, title: spec.description, on: { change: () => this.#set(v, [select.value]) } });
      const options = [...(spec.includeAll ? [{ text: 'All', value: ALL }] : []), ...v.options];
      for (const x of v.value) if (!options.some((o) => o.value === x)) options.push({ text: x, value: x });
      select.append(...options.map((o) => el('option', { value: o.value, text: o.text, selected: v.value.includes(o.value) })));
      return el('label', { class: 'control' }, el('span', { text: label }), select);
    }
    return this.#many(v, id, label);
  }

  // Several may be chosen: a button that opens a list of boxes to tick.
  #many(v, id, label) {
    const { spec } = v;
    const shown = el('span', { class: 'chosen' });
    const list = el('div', { class: 'boxes' });
    const drop = el('fieldset', { class: 'drop', id: id + '-list', hidden: true }, el('legend', { class: 'unseen', text: label }),
      spec.description ? el('p', { class: 'hint', text: spec.description }) : null, list);
    const button = el('button', { type: 'button', id, 'aria-expanded': 'false', 'aria-controls': drop.id }, shown);
    const root = el('div', { class: 'control many' }, el('span', { id: id + '-label', text: label }), button, drop);
    button.setAttribute('aria-labelledby', id + '-label ' + id);

    const tick = (value, on) => {
      let next = v.value.filter((x) => x !== value);
      if (value === ALL) next = on || !v.options.length ? [ALL] : [v.options[0].value];
      else if (on) next = [...next.filter((x) => x !== ALL), value];
      if (!next.length) next = spec.includeAll ? [ALL] : [value];
      this.#set(v, next);
      draw();
    };
    const draw = () => {
      setText(shown, v.value.includes(ALL) ? 'All' : v.value.length > 2 ? v.value.length + ' chosen' : v.value.join(', '));
      const options = [...(spec.includeAll ? [{ text: 'All', value: ALL }] : []), ...v.options];
      for (const x of v.value) if (!options.some((o) => o.value === x)) options.push({ text: x, value: x });
      const focused = list.contains(document.activeElement) ? document.activeElement.value : null;
      list.replaceChildren(...options.map((o) => el('label', {},
        el('input', { type: 'checkbox', value: o.value, checked: v.value.includes(o.value), on: { change: (e) => tick(o.value, e.target.checked) } }),
        el('span', { text: o.text }))));
      if (focused !== null) [...list.querySelectorAll('input')].find((i) => i.value === focused)?.focus();
    };
    const close = (e) => {
      if (e.type === 'pointerdown' && root.contains(e.target)) return;
      if (e.type === 'focusout' && (!e.relatedTarget || root.contains(e.relatedTarget))) return;
      if (e.type === 'keydown' && e.key !== 'Escape') return;
      if (e.type === 'keydown') button.focus();
      show(false);
    };
    const show = (on) => {
      drop.hidden = !on;
      button.setAttribute('aria-expanded', String(on));
      this.open = on ? draw : null;
      document[on ? 'addEventListener' : 'removeEventListener']('pointerdown', close);
      root[on ? 'addEventListener' : 'removeEventListener']('keydown', close);
      root[on ? 'addEventListener' : 'removeEventListener']('focusout', close);
      if (!on) return;
      draw();
      drop.style.left = '0';
      drop.style.left = Math.min(0, document.documentElement.clientWidth - 8 - drop.getBoundingClientRect().right) + 'px';
    };
    button.addEventListener('click', () => show(drop.hidden));
    draw();
    return root;
  }
}

// label_values(metric{a="b,c"}, label): the label is behind the last comma.
function parts(query) {
  const inside = query.slice(query.indexOf('(') + 1, query.lastIndexOf(')'));
  const comma = inside.lastIndexOf(',');
  const metric = comma < 0 ? undefined : inside.slice(0, comma).trim();
  return [metric, inside.slice(comma + 1).trim()];
}

export function filtered(values, regex) {
  const [, body, flags] = /^\/(.*)\/([a-z]*)$/s.exec(regex ?? '') ?? [];
  let re = null;
  try {
    re = regex ? new RegExp(body ?? `^(?:${regex})$`, flags?.replace('g', '')) : null;
  } catch {
    re = null;
  }
  const out = [];
  for (const v of values) {
    const m = re ? re.exec(v) : [v];
    if (m) out.push(m.groups?.value ?? m[1] ?? m[0]);
  }
  return [...new Set(out)];
}

function sorted(values, how) {
  const options = { numeric: how === 3 || how === 4, sensitivity: how >= 5 ? 'base' : 'variant' };
  if (!how) return values;
  const s = [...values].sort((a, b) => a.localeCompare(b, 'en', options));
  return how % 2 === 0 ? s.reverse() : s;
}
