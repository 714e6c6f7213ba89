// Alerts that are firing now.
import { el, setText } from './dom.js';
import { ago } from './format.js';

const rank = (s) => ['critical', 'error', 'page', 'warning', 'info', 'none'].indexOf(s) + 1 || 4;

export class Alerts {
  constructor(place, prom) {
    this.prom = prom;
    this.count = el('span', { role: 'status', text: 'Alerts: …' });
    this.first = el('span', { class: 'first' });
    this.list = el('ul', {});
    this.root = el('details', { class: 'alerts' }, el('summary', {}, el('i', { class: 'dot' }), this.count, this.first), this.list);
    this.root.dataset.state = 'loading';
    place.append(this.root);
  }

  async load() {
    let alerts;
    try {
      ({ alerts } = await this.prom.ask('alerts', {}, true));
    } catch {
      this.root.dataset.state = 'error';
      setText(this.count, 'Alerts: not known');
      setText(this.first, '');
      this.list.replaceChildren();
      return;
    }
    const firing = alerts.filter((a) => a.state === 'firing');
    const pending = alerts.filter((a) => a.state === 'pending');
    const sorted = [...firing, ...pending].sort((a, b) => (a.state === b.state ? 0 : a.state === 'firing' ? -1 : 1)
      || rank(a.labels.severity) - rank(b.labels.severity) || a.activeAt.localeCompare(b.activeAt));
    const worst = firing.reduce((w, a) => Math.min(w, rank(a.labels.severity)), 9);
    this.root.dataset.state = !firing.length ? 'quiet' : worst <= 3 ? 'critical' : worst === 4 ? 'warning' : 'info';
    this.root.dataset.firing = firing.length;
    setText(this.count, (firing.length === 0 ? 'No alerts firing' : firing.length === 1 ? '1 alert firing' : firing.length + ' alerts firing')
      + (pending.length ? `, ${pending.length} pending` : ''));
    setText(this.first, firing.length ? sorted[0].annotations?.summary || sorted[0].labels.alertname : '');
    this.list.replaceChildren(...(sorted.length ? sorted.map((a) => this.#item(a)) : [el('li', { class: 'none', text: 'Nothing fires and nothing is pending.' })]));
  }

  #item(a) {
    const severity = a.labels.severity || 'alert';
    const { summary, description } = a.annotations ?? {};
    const since = new Date(a.activeAt);
    return el('li', { class: a.state },
      el('span', { class: 'severity', 'data-severity': severity, text: a.state === 'pending' ? 'pending' : severity }),
      el('span', { class: 'what' }, el('b', { text: summary || a.labels.alertname }),
        description && description !== summary ? el('span', { class: 'more', text: description }) : null,
        el('span', { class: 'from', text: summary ? a.labels.alertname : '' })),
      el('time', { datetime: since.toISOString(), title: since.toString(), text: 'since ' + ago(Date.now() - since) }));
  }
}
