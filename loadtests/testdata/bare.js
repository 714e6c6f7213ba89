// What any k6 script costs that posts and waits: a hundred users, as long as the bench's.
import http from 'k6/http';
import { sleep } from 'k6';

export const options = { scenarios: { users: { executor: 'constant-vus', vus: 100, duration: '30s' } } };

const asked = { model: __ENV.MODEL, messages: [{ role: 'user', content: 'Count to fifty.' }], max_tokens: 50, ignore_eos: true, stream: true };
const params = { headers: { 'Content-Type': 'application/json' } };

export default function () {
  http.post(`${__ENV.GATEWAY_URL}/v1/chat/completions`, JSON.stringify(asked), params);
  sleep(1);
}
