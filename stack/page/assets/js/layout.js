// Grafana's grid: 24 columns, rows that open and close, one column on a phone
// (style.css). Each row has a grid of its own, so that one that is closed
// leaves no hole.
import { el } from './dom.js';

// sections cuts the list of panels at its rows. A closed row holds its panels
// itself, an open one is followed by them.
export function sections(panels) {
  const out = [{ row: null, panels: [] }];
  for (const p of [...panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x)) {
    if (p.type === 'row') out.push({ row: p, panels: [...(p.panels ?? [])] });
    else out.at(-1).panels.push(p);
  }
  return out.filter((s) => s.row || s.panels.length);
}

function place(node, { x, y, w, h }) {
  node.style.setProperty('--x', x + 1);
  node.style.setProperty('--y', y + 1);
  node.style.setProperty('--w', w);
  node.style.setProperty('--h', h);
}

// settled gives each panel the highest place that is free above it, as Grafana
// does: a file may leave holes, or have panels lie on each other. In order of
// the file's own rows, so that none changes places.
export function settled(panels) {
  const floor = new Array(24).fill(0);
  return [...panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x).map((panel) => {
    const w = Math.min(Math.max(panel.gridPos.w, 1), 24);
    const x = Math.min(Math.max(panel.gridPos.x, 0), 24 - w);
    const y = Math.max(...floor.slice(x, x + w));
    floor.fill(y + panel.gridPos.h, x, x + w);
    return { panel, at: { x, y, w, h: panel.gridPos.h } };
  });
}

// build returns the sections as nodes. make(spec) gives the node of a panel.
export function build(host, list, { isOpen, onToggle, title, make }) {
  for (const { row, panels } of list) {
    const grid = el('div', { class: 'grid' });
    for (const { panel, at } of settled(panels)) {
      const node = make(panel);
      place(node, at);
      grid.append(node);
    }
    if (!row) {
      host.append(el('section', {}, el('h2', { class: 'unseen', text: 'Overview' }), grid));
      continue;
    }
    grid.id = 'row-' + row.id;
    grid.hidden = !isOpen(row);
    const button = el('button', { type: 'button', 'aria-expanded': String(!grid.hidden), 'aria-controls': grid.id }, el('span', { text: title(row) }),
      el('small', { text: `${panels.length} panel${panels.length === 1 ? '' : 's'}` }));
    button.addEventListener('click', () => {
      grid.hidden = !grid.hidden;
      button.setAttribute('aria-expanded', String(!grid.hidden));
      onToggle(row, !grid.hidden);
    });
    host.append(el('section', { 'data-row-id': row.id }, el('h2', {}, button), grid));
  }
}
