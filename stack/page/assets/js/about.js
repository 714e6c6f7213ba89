// What a panel means: a button in its head, and a box that opens on hover, on
// focus and on a click, and stays while the pointer is in it.
import { el } from './dom.js';
import { markdown } from './markdown.js';

let open = null;
let n = 0;

export function about(title, description, queries) {
  const id = 'about-' + ++n;
  const button = el('button', { type: 'button', class: 'info', 'aria-label': `About “${title}”`, 'aria-expanded': 'false', 'aria-controls': id }, 'i');
  const box = el('div', { class: 'about', id, role: 'note', hidden: true });
  const root = el('div', { class: 'about-root' }, button, box);
  let pinned = false;
  let timer;

  const show = () => {
    clearTimeout(timer);
    if (!box.hidden) return;
    open?.();
    open = hide;
    const asked = queries();
    box.replaceChildren(...markdown(description || 'No description.'),
      asked.length ? el('details', {}, el('summary', { text: asked.length > 1 ? 'Queries' : 'Query' }), ...asked.map((q) => el('pre', {}, el('code', { text: q })))) : '');
    box.hidden = false;
    button.setAttribute('aria-expanded', 'true');
    const b = button.getBoundingClientRect();
    const { width, height } = box.getBoundingClientRect();
    const [w, h] = [document.documentElement.clientWidth, innerHeight];
    box.style.left = Math.max(8, Math.min(b.right - width, w - width - 8)) + 'px';
    box.style.top = (b.bottom + 6 + height < h || b.top < height ? b.bottom + 6 : b.top - height - 6) + 'px';
    addEventListener('scroll', hide, { passive: true, once: true });
  };
  const hide = () => {
    clearTimeout(timer);
    box.hidden = true;
    pinned = false;
    button.setAttribute('aria-expanded', 'false');
    removeEventListener('scroll', hide);
    if (open === hide) open = null;
  };
  const leave = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (!pinned && !root.contains(document.activeElement)) hide(); }, 250);
  };
  root.addEventListener('pointerenter', (e) => {
    if (e.pointerType !== 'mouse') return;
    clearTimeout(timer);
    timer = setTimeout(show, box.hidden ? 150 : 0);
  });
  root.addEventListener('pointerleave', leave);
  button.addEventListener('focus', show);
  root.addEventListener('focusout', (e) => { if (!root.contains(e.relatedTarget) && !root.matches(':hover')) hide(); });
  // Focus opens it before a click gets here; a second click closes.
  button.addEventListener('click', () => {
    if (pinned) hide();
    else {
      show();
      pinned = true;
    }
  });
  root.addEventListener('keydown', (e) => {
    if (e.key === 'Escape' && !box.hidden) {
      hide();
      button.focus();
      hide();
    }
  });
  return root;
}

document.addEventListener('pointerdown', (e) => { if (!e.target.closest?.('.about-root')) open?.(); });
