// Questions for Prometheus: few at a time, none twice at once, and a clear
// difference between a question that it refuses and one that it never got.

export class Away extends Error {}

export class Prometheus {
  constructor({ atOnce = 6, timeout = 20000, onAway = () => {}, onBack = () => {}, onAnswer = () => {} } = {}) {
    this.free = atOnce;
    this.timeout = timeout;
    this.queue = [];
    this.running = new Map();
    this.away = false;
    this.onAway = onAway;
    this.onBack = onBack;
    this.onAnswer = onAnswer;
    this.asked = 0;
  }

  range(expr, start, end, step) {
    return this.#series('query_range', { query: expr, start: start / 1000, end: end / 1000, step: step / 1000 });
  }

  instant(expr, time) {
    return this.#series('query', { query: expr, time: time / 1000 });
  }

  async #series(what, params) {
    const { result, resultType } = await this.ask(what, params);
    if (resultType === 'scalar') return [{ labels: {}, points: [point(result)] }];
    if (resultType === 'string') return [];
    return result.map((s) => ({
      labels: s.metric,
      points: (s.values ?? (s.value ? [s.value] : [])).map(point),
    }));
  }

  // ask resolves to the field "data" of the answer. What is urgent does not
  // stand in line.
  ask(what, params = {}, urgent = false) {
    const query = new URLSearchParams();
    for (const [k, v] of Object.entries(params)) {
      for (const one of Array.isArray(v) ? v : [v]) if (one !== undefined && one !== null) query.append(k, one);
    }
    const key = what + '?' + query;
    let p = this.running.get(key);
    if (!p) {
      p = (urgent ? Promise.resolve(this.free--) : this.#turn()).then(() => this.#fetch(what, query)).finally(() => {
        this.running.delete(key);
        if (++this.free > 0) this.queue.shift()?.();
      });
      this.running.set(key, p);
    }
    return p;
  }

  #turn() {
    const take = () => { this.free--; };
    if (this.free > 0 && !this.queue.length) return Promise.resolve(take());
    return new Promise((done) => this.queue.push(() => done(take())));
  }

  async #fetch(what, query) {
    this.asked++;
    const url = '/api/v1/' + what;
    const signal = AbortSignal.timeout(this.timeout);
    const long = query.toString().length > 1800;
    let body;
    try {
      const answer = long ? await fetch(url, { method: 'POST', body: query, signal }) : await fetch(query.size ? url + '?' + query : url, { signal });
      const text = await answer.text();
      try {
        body = JSON.parse(text);
      } catch {
        throw answer.status >= 500 || answer.ok ? new Away(`status ${answer.status}`) : new Error(`Prometheus answered ${answer.status}: ${text.slice(0, 200)}`);
      }
    } catch (e) {
      // One that takes a connection and says nothing is as good as away.
      const late = e.name === 'TimeoutError';
      if (late || e instanceof TypeError || e instanceof Away) {
        if (!this.away) this.onAway();
        this.away = true;
        throw e instanceof Away ? e : new Away(late ? `no answer within ${this.timeout / 1000} s` : 'no connection');
      }
      throw e;
    }
    this.onAnswer();
    if (this.away) {
      this.away = false;
      this.onBack();
    }
    if (body?.status !== 'success') throw new Error(body?.error ?? 'an answer that is none of Prometheus’s');
    return body.data;
  }
}

// Not a number means: nothing to say, as the quantile of no requests.
function point([time, text]) {
  const v = text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
  return [time, Number.isNaN(v) ? null : v];
}
