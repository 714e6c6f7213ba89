// Puts the values of variables into queries and titles.

const reference = /\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?:\.[^:^}]+)?(?::([^}]+))?\}/g;

const regexEscape = (v) => v.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

// A value goes into a string of PromQL, between quotes that it must not be
// able to close.
function quoted(v, quote) {
  if (quote === '`') return v.replaceAll('`', '.');
  return v.replaceAll('\\', '\\\\').replaceAll(quote, '\\' + quote).replaceAll('\n', '\\n').replaceAll('\r', '\\r');
}

// values is a Map of name → {value: [string], multi, all: string|null}; all
// is what stands for every value, put in as it is.
export function interpolateQuery(expr, values, builtin = {}) {
  const quotes = quotesAt(expr);
  return expr.replace(reference, (match, a, b, bf, c, cf, offset) => {
    const name = a ?? b ?? c;
    const how = bf ?? cf;
    if (Object.hasOwn(builtin, name)) return builtin[name];
    const v = values.get(name);
    if (!v) return match;
    const quote = quotes(offset);
    const put = (s) => (quote ? quoted(s, quote) : s);
    if (v.all !== null && v.all !== undefined) return v.all;
    if (how === 'raw') return v.value.map(put).join(',');
    if (how === 'csv') return v.value.map(put).join(',');
    if (how === 'pipe') return v.value.map(put).join('|');
    if (!v.multi && how !== 'regex') return put(v.value[0] ?? '');
    const parts = v.value.map((s) => put(regexEscape(s)));
    return parts.length === 1 ? parts[0] : '(' + parts.join('|') + ')';
  });
}

// quotesAt tells which quote is open at an offset, '' if none.
function quotesAt(expr) {
  const spans = [];
  for (let i = 0; i < expr.length; i++) {
    const q = expr[i];
    if (q === '#') {
      while (i < expr.length && expr[i] !== '\n') i++;
    } else if (q === '"' || q === "'" || q === '`') {
      const start = i++;
      while (i < expr.length && expr[i] !== q) i += q !== '`' && expr[i] === '\\' ? 2 : 1;
      spans.push([start, i, q]);
    }
  }
  return (at) => spans.find(([from, to]) => at > from && at <= to)?.[2] ?? '';
}

export function interpolateText(text, values, builtin = {}) {
  return String(text ?? '').replace(reference, (match, a, b, bf, c) => {
    const name = a ?? b ?? c;
    if (Object.hasOwn(builtin, name)) return builtin[name];
    const v = values.get(name);
    return v ? v.text ?? v.value.join(' + ') : match;
  });
}

// What a query waits for: the names of the metrics in it.
const words = new Set(['by', 'without', 'on', 'ignoring', 'group_left', 'group_right', 'offset', 'bool', 'and', 'or',
  'unless', 'atan2', 'inf', 'nan', 'start', 'end', 'limitk', 'fill', 'fill_left', 'fill_right']);

export function metricNames(expr) {
  const bare = expr
    .replace(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`/g, '""')
    .replace(/#[^\n]*/g, '')
    .replace(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/gi, ' ')
    .replace(/\{[^}]*\}|\[[^\]]*\]/g, ' ')
    .replace(/\$\{[^}]*\}|\$\w+/g, ' ');
  const names = new Set();
  for (const m of bare.matchAll(/(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?!\s*\()/g)) {
    if (!words.has(m[1].toLowerCase()) && !/^\d/.test(m[1]) && m[1] !== 'e') names.add(m[1]);
  }
  return [...names];
}
