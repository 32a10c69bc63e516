// node harness.mjs CLIENT ORIGIN STATUS_URL [ARGUMENT...]: runs one of the page's clients and prints, as one JSON
// document, what it returned or threw and what it waited for. CLIENT_API_KEY is the API key.
//
// The client's surroundings differ from a web page's in three things: the origin that addresses are resolved against,
// the credentials, and a `sleep` that waits a twentieth of what is asked.

import { pollWithBackoff, waitForCompletion } from './pattern.mjs';

const [client, origin, statusUrl, ...rest] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${process.env.CLIENT_API_KEY}` };
const slept = [];

const plainFetch = globalThis.fetch;
globalThis.fetch = (address) => plainFetch(new URL(address, origin), { headers });
globalThis.checkStatus = async (address) => (await fetch(address)).json();
globalThis.sleep = (milliseconds) => {
  slept.push(milliseconds);
  return new Promise((resolve) => setTimeout(resolve, milliseconds / 20));
};

const clients = { waitForCompletion, pollWithBackoff };
const outcome = await clients[client](statusUrl, ...rest.map(JSON.parse)).then(
  (returned) => ({ returned }),
  (error) => ({ thrown: error.message }),
);
console.log(JSON.stringify({ ...outcome, slept }));
