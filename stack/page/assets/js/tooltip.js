// One box that says what is under the pointer, for all charts; and one line
// that screen readers read while a chart is walked through by keyboard.
import { el, setText } from './dom.js';

const box = el('div', { class: 'tip', hidden: true, 'aria-hidden': 'true' });
const spoken = el('div', { class: 'unseen', role: 'status' });
document.body.append(box, spoken);

export function show(x, y, title, rows, notes) {
  box.replaceChildren(
    el('p', { class: 'when', text: title }),
    ...notes.map((n) => el('p', { class: 'note' }, el('i', { css: { background: n.color } }), el('b', { text: n.title }), n.text ? ' ' + n.text : '')),
    rows.length ? el('table', {}, ...rows.map((r) => el('tr', { class: r.near ? 'near' : undefined },
      el('td', {}, el('i', { css: { background: r.color } })), el('th', { text: r.name }), el('td', { text: r.text })))) : null,
  );
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const [w, h] = [document.documentElement.clientWidth, innerHeight];
  const left = x + 16 + width > w - 8 ? x - 16 - width : x + 16;
  box.style.left = Math.max(8, Math.min(left, w - width - 8)) + 'px';
  box.style.top = Math.max(8, Math.min(y - height / 2, h - height - 8)) + 'px';
}

export function hide() {
  box.hidden = true;
}

export function say(text) {
  setText(spoken, text);
}
