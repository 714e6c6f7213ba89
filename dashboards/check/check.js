// Checks ../vllm-gateway.json against Grafana's types, and then the check
// itself: each of a list of mistakes must be found.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { mistakes } from './mistakes.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const file = path.join(here, '..', 'vllm-gateway.json');
// The dashboard as a source file that exists in memory only: the text of the
// JSON begins on the first line, so that the lines of errors are its own.
const source = path.join(here, 'vllm-gateway.ts');

/** @type {ts.CompilerOptions} */
const options = {
  strict: true,
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  skipLibCheck: true,
  types: [],
};
const host = ts.createCompilerHost(options);
const readSource = host.getSourceFile;
const parsed = new Map();
let text = '';
host.getSourceFile = (name, ...rest) => {
  if (path.resolve(name) === source) return ts.createSourceFile(name, text, options.target ?? ts.ScriptTarget.ES2022);
  if (!parsed.has(name)) parsed.set(name, readSource.call(host, name, ...rest));
  return parsed.get(name);
};
const exists = host.fileExists;
host.fileExists = (name) => path.resolve(name) === source || exists.call(host, name);

/** @type {ts.Program | undefined} */
let program;

/** @param {string} json */
function errorsIn(json) {
  text = `import type { Dashboard } from './dashboard'; export default ${json} satisfies Dashboard;\n`;
  program = ts.createProgram({ rootNames: [source], options, host, oldProgram: program });
  return ts.getPreEmitDiagnostics(program);
}

const json = readFileSync(file, 'utf8').trimEnd(); // satisfies must follow on the same line
const found = errorsIn(json);
if (found.length > 0) {
  process.stderr.write(ts.formatDiagnostics(found, {
    getCanonicalFileName: (name) => name.replace(/\.ts$/, '.json'),
    getCurrentDirectory: () => here,
    getNewLine: () => '\n',
  }));
  process.exit(1);
}
console.log(`${path.basename(file)}: as Grafana's types want it`);

let missed = 0;
for (const [what, spoil] of Object.entries(mistakes)) {
  const dashboard = JSON.parse(json);
  spoil(dashboard);
  const spoilt = JSON.stringify(dashboard);
  if (spoilt === JSON.stringify(JSON.parse(json))) {
    console.error(`the mistake "${what}" changes nothing`);
    missed++;
  } else if (errorsIn(spoilt).length === 0) {
    console.error(`not found: ${what}`);
    missed++;
  }
}
if (missed > 0) process.exit(1);
console.log(`${Object.keys(mistakes).length} mistakes made, all found`);
