// One panel: its frame, its questions, and what it says while there is
// nothing to draw. What is inside the frame is up to the panel's type.
//
// For tests, and for whoever scripts the page, a panel's <section> carries
//   data-panel-id     the id in the dashboard's JSON
//   data-panel-type   its type there
//   data-state        loading     no answer yet
//                     collecting  no series in this range
//                     empty       series, but none has a value (a quantile of no requests)
//                     data        drawn
//                     error       a query failed; what others gave is drawn
//   data-values       {"name of series": its last value that is a number or null}
//   data-texts        {"name of series": the same as people read it}
//   data-queries      [the queries as they were sent]
//   data-step         the step of its first query in seconds, if it has one
//   data-answered     counts up with each set of answers
// The page's <body> carries data-window "from to" in seconds, data-marks, the
// number of marks drawn over the charts, and data-away while Prometheus is.
import { about } from './about.js';
import { el, setText } from './dom.js';
import { displayText, toFields } from './fields.js';
import { align, builtins, intervals, parseDuration } from './interval.js';
import { interpolateQuery, interpolateText, metricNames } from './interpolate.js';
import { markdown } from './markdown.js';
import { BarGauge, Gauge } from './panel-gauge.js';
import { StateTimeline } from './panel-state.js';
import { calcOf, Stat } from './panel-stat.js';
import { Timeseries } from './panel-timeseries.js';
import { Away } from './prom.js';
import { reduce } from './reduce.js';

const kinds = new Map(Object.entries({ timeseries: Timeseries, stat: Stat, gauge: Gauge, bargauge: BarGauge, 'state-timeline': StateTimeline }));
const charts = new Set(['timeseries', 'state-timeline']);
let n = 0;

export class Panel {
  constructor(spec, env) {
    this.spec = spec;
    this.env = env;
    this.inView = false;
    this.open = true;
    this.queries = [];
    this.turn = 0; // counts the questions; an answer to an older one is dropped
    this.targets = (spec.targets ?? []).filter((t) => !t.hide && t.expr);
    const id = 'panel-' + ++n;
    this.title = el('h3', { id, text: env.title(spec) });
    this.failed = el('p', { class: 'failed', hidden: true });
    this.message = el('div', { class: 'message' }, el('p', { text: 'Loading …' }));
    this.body = el('div', { class: 'body', hidden: true });
    this.root = el('section', { class: 'panel', 'aria-labelledby': id, 'data-panel-id': spec.id, 'data-panel-type': spec.type, 'data-state': 'loading', 'data-answered': 0 },
      el('header', {}, this.title, about(env.title(spec), spec.description, () => this.queries)), this.failed, this.message, this.body);
    if (spec.type === 'text') {
      this.body.hidden = false;
      this.message.hidden = true;
      this.body.append(el('div', { class: 'prose' }, ...markdown(interpolateText(spec.options?.content, env.values()))));
      this.root.dataset.state = 'data';
    } else if (!kinds.has(spec.type)) {
      this.#say(`This page does not draw panels of the type “${spec.type}”.`, 'Grafana does, from the same file.');
      this.targets = [];
    }
  }

  get wanted() {
    return this.open && this.inView && this.targets.length > 0;
  }

  // refresh asks what is to be asked now, unless that has been answered, or
  // is still being asked.
  async refresh() {
    const plan = this.#plan();
    const key = JSON.stringify(plan.map((q) => [q.expr, q.start, q.end, q.step, q.time]));
    if (key === this.asking) return;
    // The next refresh must not overtake a slow answer for ever, or a slow
    // Prometheus would never be seen: only another question may.
    if (this.asking && this.about === this.#about(plan)) return;
    const turn = ++this.turn;
    this.asking = null;
    if (key === this.done) return;
    this.asking = key;
    this.about = this.#about(plan);
    const answers = await Promise.allSettled(plan.map((q) => q.step
      ? this.env.prom.range(q.expr, q.start, q.end, q.step)
      : this.env.prom.instant(q.expr, q.time)));
    if (turn !== this.turn) return;
    this.asking = null;
    const failures = answers.filter((a) => a.status === 'rejected').map((a) => a.reason);
    if (failures.some((f) => f instanceof Away)) {
      // The banner says so once; what was drawn stays.
      this.done = null;
      return;
    }
    this.done = failures.length ? null : key;
    this.queries = plan.map((q) => q.expr);
    this.root.dataset.queries = JSON.stringify(this.queries);
    if (plan[0]?.step) this.root.dataset.step = plan[0].step / 1000;
    this.#show(plan.map((q, i) => ({ ...q, series: answers[i].value ?? [] })), failures);
    this.root.dataset.answered = Number(this.root.dataset.answered) + 1;
  }

  #about(plan) {
    return JSON.stringify([plan.map((q) => [q.expr, q.step]), this.env.rangeKey()]);
  }

  #plan() {
    const { from, to, scrape, chosen } = this.env.span();
    const values = this.env.values();
    const width = this.root.clientWidth || 600;
    const points = this.spec.maxDataPoints ?? Math.max(100, Math.floor(width));
    return this.targets.map((target) => {
      const own = interpolateQuery(target.interval || this.spec.interval || '', values,
        builtins({ step: scrape, rate: 4 * scrape, range: chosen, scrape }));
      const iv = intervals({ from, to, points, scrape, min: parseDuration(own) });
      iv.step *= target.intervalFactor || 1;
      const expr = interpolateQuery(target.expr, values, builtins({ ...iv, range: chosen, scrape }));
      if (target.instant && !target.range) return { target, expr, time: to };
      return { target, expr, ...align(from, to, iv.step), step: iv.step };
    });
  }

  #show(answers, failures) {
    const { times, fields } = toFields(this.spec, answers, this.env.values());
    const has = fields.some((f) => f.values.some((v) => v !== null && v !== undefined));
    const state = failures.length ? 'error' : !fields.length ? 'collecting' : has ? 'data' : 'empty';
    this.root.dataset.state = state;
    const last = fields.map((f) => [f, reduce(f.values, charts.has(this.spec.type) ? 'lastNotNull' : calcOf(this.spec))]);
    this.root.dataset.values = JSON.stringify(Object.fromEntries(last.map(([f, v]) => [f.name, v])));
    this.root.dataset.texts = JSON.stringify(Object.fromEntries(last.map(([f, v]) => [f.name, displayText(f, v)])));
    this.failed.hidden = !failures.length;
    setText(this.failed, [...new Set(failures.map((f) => f.message))].join('; '));
    if (has) {
      this.message.hidden = true;
      this.body.hidden = false;
      this.view ??= new (kinds.get(this.spec.type))(this.body, this.spec, this.env);
      this.view.draw(times, fields);
      return;
    }
    if (failures.length && this.view) return; // what was drawn stays, under the message
    if (failures.length) this.#say('', '');
    else if (state === 'empty') this.#nothing('No traffic', fields.map((f) => f.config.noValue).find(Boolean));
    else this.#wait();
  }

  #nothing(fallback, text) {
    const t = text || this.spec.fieldConfig?.defaults?.noValue || fallback;
    this.#say(t[0].toUpperCase() + t.slice(1), 'in this range of time');
  }

  // With a young history the box is empty because nothing has been scraped
  // twice; later it is because there is no such thing to be scraped.
  #wait() {
    const names = [...new Set(this.queries.flatMap(metricNames))];
    const detail = names.length ? 'waiting for ' + names.slice(0, 3).join(', ') + (names.length > 3 ? ' …' : '') : '';
    if (this.env.young()) this.#say('Collecting …', detail);
    else {
      const t = this.spec.fieldConfig?.defaults?.noValue;
      this.#say(t ? t[0].toUpperCase() + t.slice(1) : 'Nothing in this range yet', detail);
    }
  }

  #say(title, detail) {
    this.body.hidden = true;
    this.message.hidden = false;
    this.message.replaceChildren(el('p', { text: title }), detail ? el('p', { class: 'detail', text: detail }) : '');
  }

  // forget makes the next refresh ask, whatever was answered.
  forget() {
    this.done = null;
  }

  retitle() {
    setText(this.title, this.env.title(this.spec));
  }

  rebuild() {
    this.view?.rebuild();
  }

  marks() {
    this.view?.marks();
  }
}
