// One box that says what is under the pointer, for all charts; and one line
// that screen readers read while a chart is walked through by keyboard.
import { el, setText } from './dom.js';

const box = el('div', { class: 'tip', hidden: true, 'aria-hidden': 'true' });
const spoken = el('div', { class: 'unseen', role: 'status' });
document.body.append(box, spoken);

const most = 15;

// largest keeps the rows with the largest values, in the order they came in.
function largest(rows) {
  if (rows.length <= most) return rows;
  const kept = new Set([...rows].sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity) || 0).slice(0, most));
  return rows.filter((r) => kept.has(r));
}

// show lists the rows {name, text, value, color, near}; of many, those with
// the largest values and how many more there are.
export function show(x, y, title, rows, notes) {
  const kept = largest(rows);
  box.replaceChildren(...[
    el('p', { class: 'when', text: title }),
    ...notes.map((n) => el('p', { class: 'note' }, el('i', { css: { background: n.color } }), el('b', { text: n.title }), n.text ? ' ' + n.text : '')),
    kept.length ? el('table', {}, ...kept.map((r) => el('tr', { class: r.near ? 'near' : undefined },
      el('td', {}, el('i', { css: { background: r.color } })), el('th', { text: r.name }), el('td', { text: r.text })))) : null,
    kept.length < rows.length ? el('p', { class: 'rest', text: `… and ${rows.length - kept.length} more` }) : null,
  ].filter(Boolean));
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
