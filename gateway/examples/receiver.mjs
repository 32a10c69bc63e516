// A receiver of callbacks with Node 18 or newer, and nothing else.
//
//     WEBHOOK_SECRET=whsec_… PORT=9000 node receiver.mjs
//
// Callbacks come to /callbacks.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

// Several, with spaces between, while one takes the place of another.
const KEYS = (process.env.WEBHOOK_SECRET ?? "").split(" ").filter(Boolean).map(keyOf);
const RETIRED = new Set(["/callbacks/retired"]);
const TOLERANCE_SECONDS = 300;
const MAX_BODY = 1_048_576;
const REMEMBERED = 10_000;
const WAITING = 1_000;

if (KEYS.length === 0) throw new Error("WEBHOOK_SECRET is not set");

function keyOf(secret) {
  const found = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret);
  const key = Buffer.from(found?.[1] ?? "", "base64");
  if (key.length < 24 || key.length > 64) throw new Error("WEBHOOK_SECRET is not whsec_ and base64");
  return key;
}

// Returns what is wrong with a request; nothing when it is genuine and recent.
function faultOf(headers, body, nowSeconds = Date.now() / 1000) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const signatures = headers["webhook-signature"];
  if (!id) return "webhook-id is missing";
  if (!/^\d{1,12}$/.test(timestamp ?? "")) return "webhook-timestamp is missing or malformed";
  if (Math.abs(nowSeconds - Number(timestamp)) > TOLERANCE_SECONDS) {
    return "webhook-timestamp is too far from now";
  }
  if (!signatures) return "webhook-signature is missing";
  // Header values are Latin-1 to Node; what was signed are their bytes.
  const signed = Buffer.concat([Buffer.from(`${id}.${Number(timestamp)}.`, "latin1"), body]);
  const expected = KEYS.map((key) => createHmac("sha256", key).update(signed).digest());
  let genuine = false;
  for (const entry of signatures.split(" ")) {
    if (!entry.startsWith("v1,")) continue;
    const given = Buffer.from(entry.slice(3), "base64");
    for (const each of expected) {
      // No short cut on success: the time taken says nothing about which pair matched.
      const matches = given.length === each.length && timingSafeEqual(given, each);
      genuine = matches || genuine;
    }
  }
  return genuine ? undefined : "webhook-signature matches none of the secrets";
}

// One process, until it ends. In earnest: `SET id 1 NX EX 2592000` in Redis, or a table with a
// unique column, written in the same transaction as what the event changes.
const seen = new Set();
const work = [];

// Answers for a genuine request: 204 once it is taken in, or was before.
function take(id, event) {
  if (seen.has(id)) return 204;
  if (work.length >= WAITING) return 503;
  seen.add(id);
  if (seen.size > REMEMBERED) seen.delete(seen.values().next().value);
  work.push({ id, event });
  setImmediate(doTheWork);
  return 204;
}

// In earnest, events are in a queue or a table that outlives this process.
function doTheWork() {
  for (const { id, event } of work.splice(0)) {
    // The job is the member `data`, or with `payload: flat` beside `type`.
    console.log("took", event.type, (event.data ?? event).jobId, id);
  }
}

const server = createServer((request, response) => {
  const answer = (status, body) => {
    const headers = status === 503 ? { "Retry-After": "30" } : {};
    response.writeHead(status, headers).end(body);
  };
  const path = request.url.split("?")[0];
  if (path !== "/callbacks" && !RETIRED.has(path)) return answer(404);
  if (request.method !== "POST") return answer(405);
  // The bytes as they came: JSON that was parsed and written again has another signature.
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size <= MAX_BODY) chunks.push(chunk);
    else if (!response.headersSent) answer(413);
  });
  request.on("end", () => {
    if (response.headersSent) return;
    const body = Buffer.concat(chunks);
    const fault = faultOf(request.headers, body);
    if (fault) {
      console.log("refused:", fault);
      answer(401);
    } else if (RETIRED.has(path)) {
      answer(410); // Nothing is sent to this URL again.
    } else {
      let event;
      try {
        event = JSON.parse(body.toString("utf8"));
      } catch {
        return answer(400);
      }
      if (event?.type === "endpoint.verification") {
        // Callbacks are wanted here.
        answer(200, JSON.stringify({ challenge: event.data?.challenge }));
      } else {
        answer(take(request.headers["webhook-id"], event));
      }
    }
  });
});
server.requestTimeout = 20_000;
server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1");
