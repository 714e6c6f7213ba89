// What all charts over time share: the axis of time, the cursor that moves in
// step, zooming, marks, and reading by keyboard. uPlot draws.
/* global uPlot */
import { alpha, css } from './colors.js';
import { clock, moment, timeSteps, timeTicks } from './time.js';
import * as tooltip from './tooltip.js';

export const font = (size = 11) => `${size}px ${css('font') || 'sans-serif'}`;

const measure = document.createElement('canvas').getContext('2d');
export function textWidth(text, f = font()) {
  measure.font = f;
  return measure.measureText(text).width;
}

// A text in the middle below its time; at an edge it would be cut off.
function fits(u, time, text) {
  const middle = u.bbox.left / uPlot.pxRatio + u.valToPos(time, 'x');
  const half = textWidth(text) / 2;
  return middle >= half && middle + half <= u.width;
}

// Which chart has the pointer or the keyboard; the others only follow.
let active = null;
globalThis.addEventListener?.('pointerdown', (e) => { if (active && !active.has(e.target)) active.release(); });

export class Chart {
  // rows(index) tells what the tooltip lists; follow(index) is called when
  // the cursor moves, here or elsewhere, with null when it leaves.
  constructor(host, env, { title, rows, follow }) {
    this.host = host;
    this.env = env;
    this.rows = rows;
    this.follow = follow;
    this.near = null;
    this.plot = null;
    host.tabIndex = 0;
    host.setAttribute('role', 'group');
    host.setAttribute('aria-roledescription', 'chart');
    host.setAttribute('aria-label', `${title}. Arrow keys read the values, Shift and arrow keys choose a part, Enter zooms into it.`);
    host.addEventListener('keydown', (e) => this.#key(e));
    host.addEventListener('focusout', () => this.#leave());
    this.resized = new ResizeObserver(() => this.#size());
    this.resized.observe(host);
  }

  // draw builds the chart anew only if it is made of something else.
  draw(signature, data, options) {
    if (this.plot && this.signature === signature) {
      this.plot.setData(data);
      return;
    }
    this.clear();
    this.signature = signature;
    const { width, height } = this.host.getBoundingClientRect();
    const muted = css('muted');
    const { hooks = {}, axes, scales, ...rest } = options();
    const marks = (u) => this.#marks(u);
    this.plot = new uPlot({
      width: Math.max(width, 50),
      height: Math.max(height, 50),
      padding: [8, 10, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        focus: { prox: 24 },
        points: { size: 7, width: 1.5, one: false },
        drag: { x: true, y: false, dist: 4, setScale: false },
        sync: { key: 'all', setSeries: false, filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave' } },
        bind: { dblclick: () => () => { this.env.back(); return null; } },
      },
      focus: { alpha: 1 },
      scales: { x: { range: () => [this.env.window.min, this.env.window.max] }, ...scales },
      axes: [{
        stroke: muted, font: font(), size: 20, gap: 5, space: 70, incrs: timeSteps,
        grid: { stroke: css('grid'), width: 1 }, ticks: { show: false },
        values: (u, ticks, i, space, increment) => timeTicks(ticks, increment).map((text, n) => (fits(u, ticks[n], text) ? text : null)),
      }, ...axes],
      hooks: {
        ...hooks,
        draw: [...(hooks.draw ?? []), marks],
        setCursor: [(u) => this.#moved(u)],
        setSeries: [(u, i) => { this.near = i; }],
        setSelect: [(u) => this.#selected(u)],
      },
      ...rest,
    }, data, this.host);
    this.plot.over.addEventListener('pointerenter', () => { active = this; this.byKeys = false; });
    this.plot.over.addEventListener('pointerleave', (e) => { if (e.pointerType === 'mouse' && !this.byKeys) this.#leave(false); });
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
    this.signature = null;
  }

  destroy() {
    if (active === this) this.#leave();
    this.resized.disconnect();
    this.clear();
  }

  // release is for a finger that touches something else.
  release() {
    this.#leave();
  }

  has(target) {
    return this.host.contains(target);
  }

  redraw() {
    this.plot?.redraw(false);
  }

  #size() {
    const { width, height } = this.host.getBoundingClientRect();
    if (this.plot && width > 0 && height > 0 && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    }
  }

  #moved(u) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.plot) return;
      const i = u.cursor.left < 0 ? null : u.cursor.idx;
      this.follow(i);
      if (active !== this || i === null || i === undefined) return;
      const { left, top } = u.over.getBoundingClientRect();
      const rows = this.rows(i, this.near);
      const time = u.data[0][i] * 1000;
      tooltip.show(left + u.valToPos(u.data[0][i], 'x'), top + Math.max(u.cursor.top, 0), moment(time), rows, this.#notes(u, u.cursor.left));
      if (this.byKeys) tooltip.say([clock(time), ...rows.slice(0, 15).map((r) => `${r.name} ${r.text}`)].join(', '));
    });
  }

  #leave(cursor = true) {
    if (active !== this) return;
    active = null;
    this.byKeys = false;
    tooltip.hide();
    if (cursor) this.plot?.setCursor({ left: -10, top: -10 }, true, true);
  }

  #selected(u) {
    const { left, width } = u.select;
    if (width < 4 || this.byKeys) return;
    const [from, to] = [u.posToVal(left, 'x'), u.posToVal(left + width, 'x')];
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.env.zoom(from * 1000, to * 1000);
  }

  #key(e) {
    const u = this.plot;
    if (!u || e.ctrlKey || e.altKey || e.metaKey) return;
    const times = u.data[0];
    const shown = [times.findIndex((t) => t >= this.env.window.min), times.findLastIndex((t) => t <= this.env.window.max)];
    if (shown[0] < 0 || shown[1] < shown[0]) return;
    const at = active === this && u.cursor.idx !== null && u.cursor.idx !== undefined ? u.cursor.idx : shown[1] + 1;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 10, PageDown: at + 10, Home: shown[0], End: shown[1] }[e.key];
    if (to !== undefined) {
      e.preventDefault();
      active = this;
      this.byKeys = true;
      const i = Math.min(Math.max(to, shown[0]), shown[1]);
      const left = u.valToPos(times[i], 'x');
      if (e.shiftKey) {
        this.anchor ??= u.valToPos(times[Math.min(at, shown[1])], 'x');
        const from = Math.min(left, this.anchor);
        u.setSelect({ left: from, width: Math.abs(left - this.anchor), top: 0, height: u.over.clientHeight }, false);
      } else {
        this.anchor = null;
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      }
      u.setCursor({ left, top: u.over.clientHeight / 2 }, true, true);
    } else if (e.key === 'Enter' && u.select.width > 4) {
      e.preventDefault();
      this.anchor = null;
      this.byKeys = false;
      this.#selected(u);
    } else if (e.key === 'Escape') {
      if (u.select.width === 0 && active !== this) this.env.back();
      this.anchor = null;
      u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      this.#leave();
    }
  }

  #marks(u) {
    const { ctx, bbox } = u;
    const r = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top - 6 * r, bbox.width, bbox.height + 6 * r);
    ctx.clip();
    for (const m of this.env.marks()) {
      const [from, to] = [u.valToPos(m.from, 'x', true), u.valToPos(m.to, 'x', true)];
      if (to < bbox.left || from > bbox.left + bbox.width) continue;
      if (to > from) {
        ctx.fillStyle = alpha(m.color, 0.12);
        ctx.fillRect(from, bbox.top, to - from, bbox.height);
      }
      ctx.strokeStyle = m.color;
      ctx.lineWidth = r;
      ctx.setLineDash([3 * r, 3 * r]);
      for (const x of to > from ? [from, to] : [from]) {
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.setLineDash([]);
      ctx.fillStyle = m.color;
      ctx.beginPath();
      ctx.moveTo(from - 4 * r, bbox.top - 6 * r);
      ctx.lineTo(from + 4 * r, bbox.top - 6 * r);
      ctx.lineTo(from, bbox.top);
      ctx.fill();
    }
    ctx.restore();
  }

  #notes(u, left) {
    return this.env.marks().filter((m) => left >= u.valToPos(m.from, 'x') - 6 && left <= u.valToPos(m.to, 'x') + 6);
  }
}
