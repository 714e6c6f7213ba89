// What k6 has of a browser's globals and @types/k6 does not declare. The whole
// "dom" library would also let through what k6 has not, such as fetch.
declare const console: Record<'debug' | 'info' | 'log' | 'warn' | 'error', (...args: unknown[]) => void>;
