// Grafana's names of colours, in hues of our own: one set for each theme,
// each of which can be read as text on the theme's panels.

const hues = {
  dark: { green: '#63c58a', yellow: '#e3c25b', red: '#f27b78', blue: '#6eaaf5', orange: '#f2a05f', purple: '#b99aec' },
  light: { green: '#1f7a4a', yellow: '#8a6500', red: '#c4322f', blue: '#1f66c7', orange: '#b0520a', purple: '#7546bb' },
};
const palette = {
  dark: ['#6eaaf5', '#63c58a', '#f2a05f', '#b99aec', '#e3c25b', '#5cc8c8', '#f27b9b', '#a6c95a', '#8f9cf2', '#d7a58a'],
  light: ['#1f66c7', '#1f7a4a', '#b0520a', '#7546bb', '#8a6500', '#0f7b80', '#b83266', '#567a12', '#4a56c2', '#8a5a3c'],
};

export const theme = () => (document.documentElement.dataset.theme === 'light' ? 'light' : 'dark');

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

function channels(hex) {
  const h = hex.slice(1);
  const long = h.length < 6 ? [...h].map((c) => c + c).join('') : h;
  return [0, 2, 4].map((i) => parseInt(long.slice(i, i + 2), 16));
}

function mix(hex, other, share) {
  const [a, b] = [channels(hex), channels(other)];
  return '#' + a.map((x, i) => Math.round(x + (b[i] - x) * share).toString(16).padStart(2, '0')).join('');
}

export function alpha(hex, a) {
  if (!/^#[0-9a-f]{3,8}$/i.test(hex)) return hex;
  return `rgba(${channels(hex).join(',')},${a})`;
}

// Nothing but a name that is known or a plain colour comes out, so that a
// dashboard cannot smuggle url() into a style.
export function color(name, t = theme()) {
  if (typeof name !== 'string') return palette[t][0];
  if (/^#([0-9a-f]{3}|[0-9a-f]{6})$/i.test(name)) return name;
  const long = /^#([0-9a-f]{6})[0-9a-f]{2}$/i.exec(name);
  if (long) return '#' + long[1];
  const rgb = /^rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)/.exec(name);
  if (rgb) return '#' + rgb.slice(1, 4).map((c) => Math.min(255, Number(c)).toString(16).padStart(2, '0')).join('');
  const [, shade, hue] = /^(super-light|light|semi-dark|dark)?-?(\w+)$/.exec(name) ?? [];
  if (hue === 'text' || hue === 'white' || hue === 'black') return t === 'dark' ? '#e4e8ee' : '#1b222c';
  if (hue === 'transparent') return 'transparent';
  if (hue === 'gray' || hue === 'grey') return t === 'dark' ? '#8d97a5' : '#66707e';
  const base = Object.hasOwn(hues[t], hue ?? '') ? hues[t][hue] : palette[t][0];
  const toward = { 'super-light': ['#ffffff', 0.45], light: ['#ffffff', 0.25], 'semi-dark': ['#000000', 0.15], dark: ['#000000', 0.3] }[shade];
  return toward ? mix(base, ...toward) : base;
}

export const series = (i, t = theme()) => palette[t][i % palette[t].length];

// Text on a coloured ground.
export function on(hex) {
  if (!hex.startsWith('#')) return css('text');
  const [r, g, b] = channels(hex).map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? '#10141a' : '#ffffff';
}
