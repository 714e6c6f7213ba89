// As much of Markdown as descriptions use, made into nodes: paragraphs,
// lists, headings, **strong**, *emphasis*, `code`, and links that say https.
import { el } from './dom.js';

export function markdown(text) {
  const out = [];
  for (const block of String(text).replaceAll('\r', '').split(/\n{2,}/)) {
    let list = null;
    let lines = [];
    const flush = () => {
      if (lines.length) out.push(el('p', {}, ...inline(lines.join(' '))));
      lines = [];
    };
    for (const line of block.split('\n')) {
      const item = /^\s*(?:([-*+])|\d+[.)])\s+(.*)$/.exec(line);
      const head = /^#{1,6}\s+(.*)$/.exec(line);
      if (item) {
        flush();
        if (!list) out.push(list = el(item[1] ? 'ul' : 'ol', {}));
        list.append(el('li', {}, ...inline(item[2])));
      } else if (head) {
        flush();
        out.push(el('p', {}, el('strong', { text: head[1] })));
      } else if (line.trim()) {
        if (list && /^\s+/.test(line)) list.lastChild.append(' ', ...inline(line.trim()));
        else lines.push(line.trim());
      }
    }
    flush();
  }
  return out;
}

function inline(text) {
  const out = [];
  let at = 0;
  for (const m of text.matchAll(/`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https:\/\/[^\s)]+)\)/g)) {
    out.push(text.slice(at, m.index));
    at = m.index + m[0].length;
    if (m[1]) out.push(el('code', { text: m[1] }));
    else if (m[2]) out.push(el('strong', { text: m[2] }));
    else if (m[3]) out.push(el('em', { text: m[3] }));
    else out.push(el('a', { href: m[5], rel: 'noreferrer', text: m[4] }));
  }
  out.push(text.slice(at));
  return out.filter((x) => x !== '');
}
