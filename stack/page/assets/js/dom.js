// Elements made of text nodes and attributes, never of markup: whatever a
// label, a model or an annotation is called, it can only be read.

export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'text') node.textContent = value;
    else if (name === 'on') for (const [type, f] of Object.entries(value)) node.addEventListener(type, f);
    else if (name === 'css') for (const [p, v] of Object.entries(value)) node.style.setProperty(p, v);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

// setText leaves a node that says it already: screen readers announce what
// changes in a live region, and layout is not done again for nothing.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
