// Says whether libraries of Node take signatures for genuine:
//
//     node oracles.mjs <folder with node_modules> < questions.json
//
// A question is {by, secret, headers, body}, the body in base64; the answers are printed as a list.

import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const load = createRequire(join(resolve(process.argv[2]), "package.json"));

function genuineByLibrary(name) {
  const { Webhook, WebhookVerificationError } = load(name);
  return ({ secret, headers }, body) => {
    try {
      new Webhook(secret).verify(body.toString("utf8"), headers);
      return true;
    } catch (error) {
      if (error instanceof WebhookVerificationError) return false;
      throw error;
    }
  };
}

// What the specification says of v1a, with nothing but Node.
function genuineByEd25519({ secret, headers }, body) {
  const raw = Buffer.from(secret.replace(/^whpk_/, ""), "base64");
  const header = Buffer.from("302a300506032b6570032100", "hex"); // of a key in DER, RFC 8410
  const key = createPublicKey({ key: Buffer.concat([header, raw]), format: "der", type: "spki" });
  const { "webhook-id": id, "webhook-timestamp": timestamp } = headers;
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return headers["webhook-signature"]
    .split(" ")
    .filter((each) => each.startsWith("v1a,"))
    .some((each) => verify(null, signed, key, Buffer.from(each.slice(4), "base64")));
}

// The source requirement's `generateSignature`, as a receiver would check it.
function genuineByXSignature({ secret, headers }, body) {
  const expected = createHmac("sha256", secret).update(body).digest();
  const given = Buffer.from(headers["x-signature"] ?? "", "hex");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const JUDGES = {
  standardwebhooks: genuineByLibrary("standardwebhooks"),
  svix: genuineByLibrary("svix"),
  ed25519: genuineByEd25519,
  "x-signature": genuineByXSignature,
};

const questions = JSON.parse(readFileSync(0, "utf8"));
const answers = questions.map((each) => JUDGES[each.by](each, Buffer.from(each.body, "base64")));
console.log(JSON.stringify(answers));
