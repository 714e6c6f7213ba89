// What little of a browser the modules need to be read and run without one.
const node = () => ({ append() {}, setAttribute() {}, getContext() {}, style: {} });
globalThis.document = { documentElement: { dataset: { theme: 'dark' } }, body: node(), createElement: node };
globalThis.getComputedStyle = () => ({ getPropertyValue: () => '' });
