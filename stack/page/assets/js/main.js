// The page: what is chosen, the beat of refreshes, and who is told.
import { Alerts } from './alerts.js';
import { Annotations } from './annotations.js';
import { el, setText } from './dom.js';
import { interpolateText } from './interpolate.js';
import { parseDuration } from './interval.js';
import { build, sections } from './layout.js';
import { Panel } from './panel.js';
import { Away, Prometheus } from './prom.js';
import { readState, writeState } from './state.js';
import { clock, longest, moment, rangeName, ranges, refreshes, resolve } from './time.js';
import { Variables } from './variables.js';

const byId = (id) => document.getElementById(id);
const json = async (url) => {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: status ${answer.status}`);
  return answer.json();
};

async function start() {
  const [dashboard, about] = await Promise.all([json('/dashboard.json'), json('/about.json')]);
  document.title = dashboard.title;
  byId('title').textContent = dashboard.title;
  if (dashboard.description) byId('title').title = dashboard.description;
  byId('version').textContent = about.version;
  byId('notice').hidden = !about.notice;
  // The word stands before it, set off.
  byId('notice-text').textContent = about.simulated ? about.notice.replace(/^simulated:\s*./i, (start) => start.at(-1).toUpperCase()) : about.notice;
  byId('simulated').hidden = !about.simulated;
  if (/^\d+$/.test(about.prometheus)) {
    byId('prometheus').href = `${location.protocol}//${location.hostname}:${about.prometheus}/`;
    byId('prometheus').hidden = false;
  }
  new Page(dashboard).run();
}

class Page {
  constructor(dashboard) {
    this.dashboard = dashboard;
    this.state = readState(location.search, dashboard);
    this.backs = []; // ranges to go back to, from those zoomed into
    this.scrape = 15000; // Grafana's assumption, until Prometheus has said
    this.history = null; // when the first sample was taken, in ms
    this.window = { min: 0, max: 1 };
    this.turn = 0;
    this.prom = new Prometheus({ onAway: () => this.away(true), onBack: () => this.away(false), onAnswer: () => setText(byId('updated'), clock(Date.now())) });
    this.variables = new Variables(dashboard.templating?.list, this.prom, this.state.chosen, () => this.changed());
    this.annotations = new Annotations(dashboard.annotations?.list, this.prom, this.state.marks, () => this.changed());
    this.alerts = new Alerts(byId('alerts'), this.prom);
    this.env = {
      prom: this.prom,
      window: this.window,
      span: () => this.span,
      values: () => this.variables.values(),
      marks: () => this.annotations.events,
      title: (p) => interpolateText(p.title ?? '', this.variables.values()),
      rangeKey: () => JSON.stringify(this.state.range),
      // Long enough for a rate to have its window filled, twice over.
      // A range of the past gets no younger.
      young: () => (Boolean(this.state.range.last) || this.state.range.to > Date.now() - 60000)
        && (this.history === null || Date.now() - this.history < Math.max(60000, 8 * this.scrape)),
      zoom: (from, to) => this.zoom(from, to),
      back: () => this.back(),
    };
    this.panels = [];
  }

  async run() {
    this.controls();
    this.layout();
    addEventListener('theme', () => {
      this.annotations.events = [];
      for (const p of this.panels) p.rebuild();
      this.beat(true);
    });
    document.addEventListener('visibilitychange', () => this.schedule());
    addEventListener('popstate', () => {
      // Only ranges make entries in the browser's history; the rest stays as
      // it is.
      this.backs = [];
      this.state.range = readState(location.search, this.dashboard).range;
      this.setRange(this.state.range, false);
    });
    addEventListener('online', () => this.beat(true));
    addEventListener('keydown', (e) => {
      if (e.key === 'Escape' && e.target === document.body) this.back();
    });
    await this.prepare();
    this.schedule();
  }

  // prepare asks what all panels need to know, until it has been answered.
  async prepare() {
    const { from, to } = resolve(this.state.range, Date.now());
    const [scrape] = await Promise.allSettled([this.askScrape(), this.variables.load(from, to)]);
    this.prepared = scrape.status === 'fulfilled';
    this.variablesAt = Date.now();
    for (const p of this.panels) p.retitle();
  }

  // The step at which most targets are scraped: shorter steps than that have
  // nothing to show.
  async askScrape() {
    const { activeTargets } = await this.prom.ask('targets', { state: 'active' });
    const counts = new Map();
    for (const t of activeTargets ?? []) {
      const ms = parseDuration(t.scrapeInterval);
      if (ms) counts.set(ms, (counts.get(ms) ?? 0) + 1);
    }
    if (!counts.size) throw new Error('no targets yet'); // it has only just started: ask again
    const [most] = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    if (most) this.scrape = most[0];
  }

  // askHistory finds the first sample of the range, so that charts do not
  // begin with a stretch of nothing. It is looked for coarsely, then finely.
  async askHistory(from, to) {
    const of = JSON.stringify(this.state.range);
    if (this.history !== null && this.historyOf === of && Date.now() - this.historyAt < 60000) return;
    const step = Math.max(this.scrape, Math.ceil((to - from) / 200 / 1000) * 1000);
    let first;
    try {
      [first] = (await this.prom.range('count(up)', from, to, step))[0]?.points ?? [];
      if (first && step > this.scrape && first[0] * 1000 > from) {
        const fine = Math.max(this.scrape, Math.ceil(step / 5000 / 1000) * 1000); // 11000 points are what Prometheus gives
        const points = (await this.prom.range('count(up)', first[0] * 1000 - step, first[0] * 1000, fine))[0]?.points;
        first = points?.[0] ?? first;
      }
    } catch (e) {
      if (e instanceof Away) throw e;
      first = [from / 1000]; // the whole range, then; the panels will tell what is wrong
    }
    if (of !== JSON.stringify(this.state.range)) return;
    this.history = first ? first[0] * 1000 : null;
    this.historyOf = of;
    this.historyAt = Date.now();
  }

  async beat(force = false) {
    if (this.beating && !force) return;
    this.beating = true;
    const turn = ++this.turn;
    try {
      this.alerts.load();
      if (!this.prepared) await this.prepare();
      if (turn !== this.turn) return; // another range was chosen meanwhile
      const now = Date.now();
      const chosen = resolve(this.state.range, now);
      await this.askHistory(chosen.from, chosen.to);
      if (turn !== this.turn) return;
      if (force || now - (this.variablesAt ?? 0) > 30000) {
        this.variablesAt = now;
        this.variables.load(chosen.from, chosen.to).then((changed) => {
          if (changed) this.askPanels();
        });
      }
      let { from } = chosen;
      const { to } = chosen;
      // At least a few scrapes, or the first points would race across the page.
      const least = to - 4 * this.scrape;
      if (this.history !== null && this.history > from) from = Math.max(from, Math.min(this.history, least));
      else if (this.history === null && this.state.range.last) from = Math.max(from, least);
      this.span = { from, to, chosen: chosen.to - chosen.from, scrape: this.scrape };
      this.window.min = from / 1000;
      this.window.max = to / 1000;
      document.body.dataset.window = `${this.window.min} ${this.window.max}`;
      if (force) for (const p of this.panels) p.forget();
      this.askPanels();
      this.annotations.load({ from, to, scrape: this.scrape, values: this.variables.values() }).then((changed) => {
        document.body.dataset.marks = this.annotations.events.length;
        if (changed) for (const p of this.panels) p.marks();
      }).catch(() => {});
    } catch {
      // Whoever is away has been named by the banner; the next beat asks again.
    } finally {
      if (turn === this.turn) this.beating = false;
    }
  }

  askPanels() {
    if (!this.span) return;
    for (const p of this.panels) if (p.wanted) p.refresh();
  }

  // schedule beats at once, and then as often as chosen. A page that nobody
  // sees asks nothing. While Prometheus is away it is asked every few
  // seconds, so that the page recovers by itself even with refresh off.
  schedule() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    this.beat();
    const next = () => {
      const ms = parseDuration(this.state.refresh);
      const wait = this.prom.away ? Math.min(ms ?? 5000, 5000) : ms;
      clearTimeout(this.timer);
      if (wait && !document.hidden) this.timer = setTimeout(() => { this.beat(); next(); }, wait);
    };
    next();
    this.next = next;
  }

  away(is) {
    byId('away').hidden = !is;
    document.body.toggleAttribute('data-away', is);
    this.next?.();
    if (!is && this.state.refresh === 'off') setTimeout(() => this.beat(true));
  }

  // ---- what can be chosen

  controls() {
    this.variables.controls(byId('variables'));
    this.annotations.controls(byId('marks'));
    const range = byId('range');
    range.addEventListener('change', () => {
      if (range.value === 'zoom') return;
      this.backs = [];
      this.setRange({ last: range.value });
    });
    const refresh = byId('refresh');
    refresh.append(...refreshes.map((r) => el('option', { value: r, text: r === 'off' ? 'Off' : 'Every ' + r })));
    refresh.value = this.state.refresh;
    refresh.addEventListener('change', () => {
      this.state.refresh = refresh.value;
      this.write();
      this.schedule();
    });
    byId('now').addEventListener('click', () => this.beat(true));
    byId('back').addEventListener('click', () => this.back());
    byId('wider').addEventListener('click', () => this.wider());
    byId('theme').addEventListener('click', () => dispatchEvent(new Event('toggletheme')));
    this.showRange();
  }

  showRange() {
    const range = byId('range');
    const { last, from, to } = this.state.range;
    const options = [...ranges];
    if (last && !options.includes(last)) options.push(last);
    range.replaceChildren(...options.map((r) => el('option', { value: r, text: rangeName(r) })));
    if (!last) range.prepend(el('option', { value: 'zoom', text: `${moment(from)} – ${moment(to)}` }));
    range.value = last ?? 'zoom';
    byId('back').hidden = Boolean(last);
  }

  setRange(range, keep = true) {
    this.state.range = range;
    this.history = null;
    this.showRange();
    this.write(keep);
    this.beat(true);
  }

  zoom(from, to) {
    const middle = (from + to) / 2;
    const half = Math.max((to - from) / 2, 2 * this.scrape);
    this.backs.push(this.state.range);
    this.setRange({ from: Math.round(middle - half), to: Math.round(middle + half) });
  }

  back() {
    if (this.state.range.last) return;
    const d = this.dashboard.time ?? {};
    this.setRange(this.backs.pop() ?? readState('', { time: d }).range);
  }

  // wider shows twice as much.
  wider() {
    const { from, to } = resolve(this.state.range, Date.now());
    if (this.state.range.last) {
      const next = ranges.find((r) => parseDuration(r) > to - from);
      if (next) this.setRange({ last: next });
      return;
    }
    const half = (to - from) / 2;
    this.setRange({ from: Math.max(Math.round(from - half), Date.now() - longest), to: Math.min(Math.round(to + half), Date.now()) });
  }

  changed() {
    this.write();
    for (const p of this.panels) p.retitle();
    this.beat(true);
  }

  // write puts what is chosen into the address; a new entry for what Back
  // should undo.
  write(entry = false) {
    this.state.chosen = this.variables.chosen();
    this.state.marks = this.annotations.chosen();
    const url = writeState(this.state);
    if (url === location.search) return;
    history[entry ? 'pushState' : 'replaceState'](null, '', url);
  }

  // ---- panels

  layout() {
    const seen = new IntersectionObserver((entries) => {
      for (const e of entries) {
        const p = this.panels.find((q) => q.root === e.target);
        p.inView = e.isIntersecting;
        if (p.wanted && this.span) p.refresh();
      }
    }, { rootMargin: '150px' });
    const isOpen = (row) => {
      const id = String(row.id);
      return this.state.opened.has(id) || (!row.collapsed && !this.state.closed.has(id));
    };
    build(byId('panels'), sections(this.dashboard.panels ?? []), {
      isOpen,
      title: this.env.title,
      onToggle: (row, open) => {
        const id = String(row.id);
        this.state.opened.delete(id);
        this.state.closed.delete(id);
        if (open && row.collapsed) this.state.opened.add(id);
        if (!open && !row.collapsed) this.state.closed.add(id);
        this.write();
      },
      make: (spec) => {
        const p = new Panel(spec, this.env);
        this.panels.push(p);
        seen.observe(p.root);
        return p.root;
      },
    });
  }
}

start().catch((e) => {
  byId('broken').hidden = false;
  byId('broken').textContent = `The page could not start: ${e.message}. Is the program that serves it still running? Reload to try again.`;
});
