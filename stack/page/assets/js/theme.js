// Before anything is drawn, so that a page in the dark does not flash.
// Not a module: those run when all has been read.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const stored = () => {
    try {
      return localStorage.getItem('theme');
    } catch {
      return null; // storage may be forbidden
    }
  };
  const set = () => {
    const t = stored();
    document.documentElement.dataset.theme = t === 'light' || t === 'dark' ? t : dark.matches ? 'dark' : 'light';
    dispatchEvent(new Event('theme'));
  };
  dark.addEventListener('change', set);
  addEventListener('storage', set);
  addEventListener('toggletheme', () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    try {
      if (next === (dark.matches ? 'dark' : 'light')) localStorage.removeItem('theme');
      else localStorage.setItem('theme', next);
    } catch {
      // as it is for this time
    }
    document.documentElement.dataset.theme = next;
    dispatchEvent(new Event('theme'));
  });
  set();
})();
