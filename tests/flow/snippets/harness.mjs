// node --experimental-websocket harness.mjs SNIPPET ORIGIN [JOB_ID]: runs one of the page's snippets and prints, as one
// JSON document, what it exports, the answers it got, what it logged, and how its WebSocket was closed.
// CLIENT_API_KEY is the API key.
//
// The snippet's surroundings differ from a web page's in two things: the origin that addresses are resolved against,
// and the credentials. Neither a content type nor anything else is added to what it sends.

const [snippet, origin, jobId] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${process.env.CLIENT_API_KEY}` };
const answers = [];
const logged = [];

const plainFetch = globalThis.fetch;
globalThis.fetch = async (address, options = {}) => {
  const answer = await plainFetch(new URL(address, origin), { ...options, headers: { ...options.headers, ...headers } });
  answers.push({ status: answer.status, body: await answer.clone().json() });
  return answer;
};

const PlainSocket = globalThis.WebSocket;
globalThis.WebSocket = class extends PlainSocket {
  constructor(address) {
    super(new URL(new URL(address).pathname, origin.replace(/^http/, 'ws')), { headers });
  }
};

globalThis.jobId = jobId;
const print = console.log;
console.log = (...words) => logged.push(words);

const { ws, ...exported } = await import(`./${snippet}.mjs`);
const closed = ws && await new Promise((resolve) => {
  ws.addEventListener('close', ({ code, wasClean }) => resolve({ code, wasClean }));
});
print(JSON.stringify({ exported, answers, logged, closed }));
