// Reads JSON strings, one a line, and answers each with what the WHATWG URL parser makes of it.
import { createInterface } from 'node:readline';

for await (const line of createInterface({ input: process.stdin })) {
  let seen = null;
  try {
    const { protocol, username, password, hostname, port, pathname, search, hash } = new URL(JSON.parse(line));
    seen = { protocol, username, password, hostname, port, pathname, search, hash };
  } catch {}
  process.stdout.write(JSON.stringify(seen) + '\n');
}
