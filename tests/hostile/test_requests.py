"""Requests that no library would send: smuggled, ambiguous, out of every bound, or nonsense.

All of them go to one api process over sockets of their own. Each gets the answer it must, one and
no more, and the process lives and has nothing of it in its log but lines of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from config.ids import derived_id
from tests.conftest import RunningStores
from tests.hostile.served import BEARER, HOST, Api, api_process

JOB = b'{"type":"demo.echo","input":{"payload":1}}'
LENGTH = b"Content-Length: %d" % len(JOB)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB)
CLOSE = b"Connection: close"
JSON = b"Content-Type: application/json"
UNKNOWN = derived_id("job", 0, "smuggled").encode()
ABSENT = derived_id("job", 0, "absent").encode()


def asks(target: bytes, *fields: bytes, method: bytes = b"GET", by: bytes = BEARER) -> bytes:
    """Return a request without a body, after which the connection is to be closed."""
    head = [method + b" " + target + b" HTTP/1.1", HOST, by, CLOSE, *fields]
    return b"\r\n".join([each for each in head if each] + [b"", b""])


def tells(
    *fields: bytes,
    body: bytes = JOB,
    label: bytes = JSON,
    version: bytes = b"HTTP/1.1",
    path: bytes = b"/v1/jobs",
) -> bytes:
    """Return a submission with `fields` besides what it needs, but for its length."""
    head = [b"POST " + path + b" " + version, HOST, BEARER, label, *fields]
    return b"\r\n".join([each for each in head if each] + [b"", body])


def opens(
    *fields: bytes,
    target: bytes = b"/v1/jobs/ENDED",
    method: bytes = b"GET",
    by: bytes = BEARER,
    version: bytes = b"13",
    key: bytes = b"dGhlIHNhbXBsZSBub25jZQ==",
) -> bytes:
    """Return the handshake of a WebSocket."""
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: " + version)
    keyed = (b"Sec-WebSocket-Key: " + key,) if key else ()
    asked = asks(target, *upgrade, *keyed, *fields, method=method, by=by)
    return asked.replace(CLOSE + b"\r\n", b"")


# What another server would take for a second request, which must not be served.
HIDDEN = asks(b"/v1/jobs/" + UNKNOWN)

# By name: what is sent, and the status of the one answer.
CASES: dict[str, tuple[bytes, int]] = {
    # Where a body ends
    "a length": (tells(LENGTH, CLOSE), 202),
    "length and chunked": (tells(LENGTH, CHUNKED, body=CHUNKS + HIDDEN), 400),
    "chunked and length": (tells(CHUNKED, b"Content-Length: 4", body=CHUNKS + HIDDEN), 400),
    "two lengths alike": (tells(LENGTH, LENGTH), 400),
    "two lengths": (tells(LENGTH, b"Content-Length: 3", body=JOB + HIDDEN), 400),
    "a list of lengths": (tells(LENGTH + b", 3"), 400),
    **{
        f"length {text!r}": (tells(b"Content-Length: " + text, body=JOB + HIDDEN), 400)
        for text in (b"+42", b"-1", b"0x2a", b"4 2", b"1e3", b"", b"42,", b"4_2", b"4.2", b"\xb2")
    },
    "a length over 64 bits": (tells(b"Content-Length: 18446744073709551616"), 400),
    "a length of many zeros": (
        tells(b"Content-Length: " + b"0" * 5_000 + b"42", CLOSE),
        202,
    ),
    "a length of many zeros, too long": (
        tells(b"Content-Length: " + b"0" * 5_000 + b"9999999", CLOSE),
        413,
    ),
    "a length of nineteen digits": (tells(b"Content-Length: " + b"9" * 19, CLOSE), 413),
    "a length of nineteen digits, no body wanted": (
        asks(b"/v1/jobs", b"Content-Length: " + b"9" * 19),
        200,
    ),
    **{
        f"coding {text!r}": (
            tells(b"Transfer-Encoding: " + text, body=CHUNKS + HIDDEN),
            400,
        )
        for text in (
            *(b"xchunked", b"chunked, gzip", b"gzip, chunked", b"\x0bchunked", b'"chunked"'),
            *(b"identity", b"chunked, chunked", b"chunked;q=1", b"", b"gzip", b"chunked\x00"),
        )
    },
    "coding in capitals": (tells(b"Transfer-Encoding: CHUNKED", CLOSE, body=CHUNKS), 202),
    "two codings": (tells(CHUNKED, b"Transfer-Encoding: identity", body=CHUNKS + HIDDEN), 400),
    "coding, a space before the colon": (
        tells(b"Transfer-Encoding : chunked", body=CHUNKS + HIDDEN),
        400,
    ),
    "coding in HTTP/1.0": (tells(CHUNKED, body=CHUNKS + HIDDEN, version=b"HTTP/1.0"), 400),
    **{
        f"chunk size {text!r}": (
            tells(CHUNKED, body=text + b"\r\n" + JOB + b"\r\n0\r\n\r\n" + HIDDEN),
            400,
        )
        for text in (b"+2a", b"-2a", b"0x2a", b"2a 2a", b"", b"ffffffffffffffffff", b"2a\x00", b"g")
    },
    "chunks with line feeds": (tells(CHUNKED, body=b"2a\n" + JOB + b"\n0\n\n" + HIDDEN), 400),
    "a chunk longer than it says": (
        tells(CHUNKED, body=b"29\r\n" + JOB + b"\r\n0\r\n\r\n" + HIDDEN),
        400,
    ),
    "an extension": (tells(CHUNKED, CLOSE, body=b"2a;x=y\r\n" + JOB + b"\r\n0\r\n\r\n"), 202),
    "an extension with a line feed": (
        tells(CHUNKED, body=b"2a;x\n" + JOB + b"\r\n0\r\n\r\n" + HIDDEN),
        400,
    ),
    "a trailer": (tells(CHUNKED, CLOSE, body=CHUNKS[:-2] + b"X: y\r\n\r\n"), 202),
    "a trailer that is a length": (
        tells(CHUNKED, body=CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n" + HIDDEN),
        400,
    ),
    # Fields
    **{
        f"field {text!r}": (asks(b"/v1/jobs", text), 400)
        for text in (
            *(b"X: a\rY: b", b"X: a\nY: b", b"X: a\x00b", b"X\x00: a", b"X: a\r\n b", b"X Y: a"),
            *(b"XY", b": x", b"X : a", b" X: a", b"\x7f: a", b"X\xe9: a", b"X: a\x1b[31m"),
        )
    },
    "credentials on a folded line": (
        b"GET /v1/jobs HTTP/1.1\r\n"
        + HOST
        + b"\r\n"
        + BEARER.replace(b": ", b":\r\n ")
        + b"\r\n\r\n",
        400,
    ),
    "two hosts": (asks(b"/v1/jobs", b"Host: other.example"), 400),
    "no host": (b"GET /livez HTTP/1.1\r\n" + CLOSE + b"\r\n\r\n", 400),
    "no host in HTTP/1.0": (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    **{
        f"host {text!r}": (b"GET /livez HTTP/1.1\r\nHost: " + text + b"\r\n\r\n", 400)
        for text in (
            b"",
            b'h"><script>',
            b"h/",
            b"u@h",
            b"h h",
            b"h\\",
            b"\xe9.example",
            b"a" * 256,
        )
    },
    "two credentials": (asks(b"/v1/jobs", b"Authorization: Bearer another-key-of-somebody"), 400),
    "credentials twice": (asks(b"/v1/jobs", BEARER), 400),
    "two content types": (tells(LENGTH, b"Content-Type: text/plain"), 400),
    "bytes that are no text": (asks(b"/v1/jobs", b"X-Request-Id: \xc3\xa9\xff"), 200),
    "an expectation nobody knows": (tells(LENGTH, CLOSE, b"Expect: 200-ok"), 202),
    "many cookies": (asks(b"/v1/jobs", b"Cookie: " + b"a=b;" * 10_000), 200),
    "another version of HTTP": (b"GET /v1/jobs HTTP/3.7\r\n" + HOST + b"\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /v1/jobs\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    # Methods
    "method in lower case": (asks(b"/v1/jobs", method=b"get"), 400),
    "TRACE": (asks(b"/v1/jobs", method=b"TRACE"), 405),
    "TRACK": (asks(b"/v1/jobs", method=b"TRACK"), 400),
    "CONNECT": (asks(b"169.254.169.254:80", method=b"CONNECT"), 400),
    "PUT": (asks(b"/v1/jobs", method=b"PUT"), 405),
    "a method of 1,000 letters": (asks(b"/v1/jobs", method=b"A" * 1_000), 400),
    "another method in a field": (
        asks(b"/v1/jobs", b"X-HTTP-Method-Override: POST", b"X-HTTP-Method: POST"),
        200,
    ),
    "another method in the query": (asks(b"/v1/jobs?_method=POST"), 400),
    "another path in a field": (
        asks(b"/livez", b"X-Original-URL: /v1/admin/keys", b"X-Rewrite-URL: /v1/jobs", by=b""),
        200,
    ),
    "upgrade to nothing": (asks(b"/v1/jobs", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), 200),
    # Paths
    "absolute, another host": (asks(b"http://169.254.169.254/latest/meta-data"), 404),
    "absolute, no path": (asks(b"http://h"), 400),
    "no slash": (asks(b"v1/jobs"), 400),
    "an asterisk": (asks(b"*", method=b"OPTIONS"), 404),
    **{
        f"path {text!r}": (asks(text), 404)
        for text in (
            *(b"/v1/jobs/../admin/keys", b"/v1/jobs/%2e%2e/admin/keys", b"/v1/jobs/..;/admin/keys"),
            *(b"/v1%2fjobs", b"/v1%2Fjobs", b"/v1/admin%2fkeys", b"/v1/jobs%2F", b"//v1/jobs"),
            *(
                b"//other.example/v1/jobs",
                b"/v1/jobs/",
                b"/v1/jobs;x=y",
                b"/V1/jobs",
                b"/v1/jobs%00",
            ),
            *(b"/v1/jobs/%0d%0aSet-Cookie:%20x=y", b"/v1/files/a%00b", b"/v1/files/%c0%ae%c0%ae"),
            *(b"/v1/files/..%2f..%2fetc%2fpasswd", b"/v1/files/..%5c..%5cetc", b"/v1/files/%zz"),
            *(b"/v1/files/%252e%252e%252fetc", b"/v1/files/%ed%a0%80", b"/docs/..%2f..%2fapp.py"),
            *(b"/problems/..%2f..%2fx", b"/problems/%3Cscript%3E", b"/v1/files/file_%F0%9D%9F%98"),
        )
    },
    **{
        f"path {text!r}": (asks(text), 400)
        for text in (b"/v1/files/\x00", b"/v1/files/\xc3\xa9", b"/v1/files/\xff", b"/v1 /jobs")
    },
    "an artifact elsewhere": (asks(b"/v1/jobs/ENDED/artifacts/..%2f..%2fetc%2fpasswd"), 404),
    # Queries
    **{
        f"query {text[:40]!r}": (asks(b"/v1/jobs?" + text), 400)
        for text in (
            *(b"&".join(b"a%d=1" % n for n in range(5_000)), b";" * 5_000, b"=&=&=", b"%00=1"),
            *(b"limit=" + b"9" * 5_000, b"limit=%D9%A3", b"limit=-1", b"limit=1e1", b"limit=0x1"),
            *(b"limit=1&limit=2", b"limit=", b"limit=%201", b"status=pending%00", b"type="),
            *(b"cursor=AAAA", b"cursor=" + b"A" * 20_000, b"cursor=%3D%3D%3D%3D", b"cursor=%C3%A9"),
            *(b"cursor=", b"cursor=MS5qb2I", b"cursor=LTEuam9iXzAw", b"cursor=../../x"),
            *(b"createdAfter=" + b"9" * 4_000, b"createdAfter=0000-00-00T00:00:00Z"),
            *(b"createdAfter=2026-02-30T00:00:00Z", b"createdBefore=now", b"createdBefore=%00"),
        )
    },
    "a query of raw bytes": (asks(b"/v1/jobs?type=\xff"), 400),
    "a type that is nothing": (asks(b"/v1/jobs?type=%00%ed%a0%80"), 200),
    "an instant before all others": (
        asks(b"/v1/jobs?createdAfter=0001-01-01T00:00:00%2B23:59"),
        200,
    ),
    "dead letters of no kind": (asks(b"/v1/dead-letters?kind=x"), 400),
    "dead letters after nothing": (asks(b"/v1/dead-letters?cursor=" + b"_" * 999), 400),
    "dead letters of a broken origin": (asks(b"/v1/dead-letters?endpoint=https://%5B::1"), 200),
    # Idempotency keys
    **{
        f"idempotency key {text[:20]!r}": (tells(LENGTH, CLOSE, b"Idempotency-Key: " + text), 400)
        for text in (
            *("é".encode(), b"\xff", b"", b'""', b"a" * 256, b'"' + b"\\" * 20_000, b'"a\tb"'),
            *(b"a\x7f", b"a\x00"),
        )
    },
    "two idempotency keys": (
        tells(LENGTH, CLOSE, b"Idempotency-Key: a", b"Idempotency-Key: a"),
        400,
    ),
    **{
        f"idempotency key {text!r}": (tells(LENGTH, CLOSE, b"Idempotency-Key: " + text), 202)
        for text in (b'"half', b"*?[a]{p01}:", b"gw:{p00}:j:x", b"../../x", b'"a\\"b"', b"a" * 255)
    },
    # Wishes and traces
    **{
        f"preference {text[:20]!r}": (tells(LENGTH, CLOSE, b"Prefer: " + text), 202)
        for text in (b"a;" * 5_000, b"wait=" + b"9" * 500, b'"' + b"\\" * 9_999, b"wait=-1", b"=,=")
    },
    **{
        f"trace {text[:20]!r}": (tells(LENGTH, CLOSE, b"Traceparent: " + text), 202)
        for text in (
            b"00-" + b"f" * 5_000,
            b"ff-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
            b"\t",
            b"-",
        )
    },
    "a long trace state": (
        tells(
            *(LENGTH, CLOSE, b"Tracestate: " + b"a=b," * 5_000),
            b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        202,
    ),
    # Labels
    **{
        f"label {text[:60]!r}": (
            tells(LENGTH, CLOSE, label=b"Content-Type: " + text if text else b""),
            status,
        )
        for text, status in (
            (b"", 415),
            (b"text/html", 415),
            (b"application/json; charset=utf-7", 415),
            (b"application/json; charset=utf-16", 415),
            (b"application/x-www-form-urlencoded", 415),
            (b"application/json, text/plain", 415),
            (b"application/json;" + b"a=b;" * 5_000, 202),
            (b"application/json; charset*=bogus''%ff", 202),
            (b"multipart/form-data", 400),
            (b'multipart/form-data; boundary="', 400),
            (b"multipart/form-data; boundary=" + b"b" * 71, 400),
            (b"multipart/form-data; boundary=\xff\xfe", 400),
            (b"multipart/form-data; boundary=b", 400),
        )
    },
    # Versions and ranges
    "many versions": (asks(b"/v1/jobs/ENDED", b"If-None-Match: " + b'W/"a",' * 5_000), 200),
    "any version": (asks(b"/v1/jobs/ENDED", b"If-None-Match: *"), 304),
    "a version of raw bytes": (asks(b"/v1/jobs/ENDED", b'If-None-Match: \xff""'), 200),
    **{
        f"range {text[:30]!r}": (asks(b"/v1/files/FILE", b"Range: " + text), status)
        for text, status in (
            (b"bytes=" + b"0-," * 5_000 + b"0-", 200),
            (b"bytes=999999999999999999-", 416),
            (b"bytes=9999999999999999999-", 200),
            (b"bytes=-0", 416),
            (b"bytes=-999999999999999999", 206),
            (b"bytes=5-2", 200),
            (b"bytes=--1", 200),
            (b"bytes=0x1-", 200),
            (b"bytes=\xd9\xa3-", 200),
            (b"lines=0-1", 200),
            (b"bytes=0-0", 206),
        )
    },
    "a range of a long version": (
        asks(b"/v1/files/FILE", b"Range: bytes=0-1", b"If-Range: " + b"x" * 5_000),
        200,
    ),
    # Streams
    **{
        f"after the event {text[:20]!r}": (
            asks(b"/v1/jobs/ENDED/events", b"Last-Event-ID: " + text),
            status,
        )
        for text, status in (
            (b"\xff\xfe", 200),
            (b"-1", 200),
            (b"1.5", 200),
            (b"9" * 5_000, 200),
            (b"\xd9\xa3", 200),
            (b"999999999999999", 204),
        )
    },
    # Tickets
    **{
        f"ticket {text[:20]!r}": (asks(b"/v1/jobs/ENDED?ticket=" + text, by=b""), 401)
        for text in (
            *(
                b"1." * 5_000,
                b"a&ticket=b",
                b"1.%C3%A9.%FF",
                b"1." + b"f" * 500 + b".x",
                b"",
                b"%00",
            ),
            *(b"1..", b"...", b"1.-1.x", b"1.ffffffff."),
        )
    },
    # WebSockets
    "socket without a key": (opens(key=b""), 400),
    "socket with a short key": (opens(key=b"dGhl"), 400),
    "socket with two keys": (opens(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    "socket of another version": (opens(version=b"7"), 400),
    "socket by POST": (opens(b"Content-Length: 0", method=b"POST"), 400),
    "socket, a long field": (opens(b"X-Long: " + b"x" * 9_000), 400),
    "socket, many fields": (opens(*[b"X: y"] * 200), 400),
    "socket, nobody": (opens(by=b""), 401),
    "socket behind a slash that is none": (opens(target=b"/v1%2fjobs/ENDED"), 404),
    "socket at no job": (opens(target=b"/v1/jobs/" + ABSENT), 404),
    **{
        f"socket at {text!r}": (opens(target=text), 404)
        for text in (
            *(b"/v1/jobs/../jobs/ENDED", b"/", b"/nowhere", b"/v1/jobs/ENDED/", b"//v1/jobs/ENDED"),
            *(b"/v1/jobs/ENDED/x", b"/V1/jobs/ENDED", b"/v1/jobs/%00", b"/jobs/nothing"),
            # What is there for requests, is not for sockets.
            *(b"/v1/jobs", b"/livez", b"/v1/jobs/ENDED/events", b"/openapi.json"),
        )
    },
    "socket at nothing, nobody": (opens(target=b"/nowhere", by=b""), 404),
}


STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)


@pytest.fixture(scope="module")
def answers(stores: RunningStores, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return all that comes back, by case; one process for all of them, many at a time."""
    return asyncio.run(ask_all(stores, tmp_path_factory.mktemp("requests")))


async def ask_all(stores: RunningStores, folder: Path) -> dict[str, bytes]:
    async with api_process(stores, folder) as api:
        names = await made(api)
        at_once = asyncio.Semaphore(16)

        async def ask(sent: bytes) -> bytes:
            for name, identifier in names.items():
                sent = sent.replace(b"/" + name, b"/" + identifier)
            async with at_once:
                return await api.exchange(sent)

        answered = await asyncio.gather(*(ask(sent) for sent, _ in CASES.values()))
        return dict(zip(CASES, answered, strict=True))


async def made(api: Api) -> dict[bytes, bytes]:
    """Make a job that has ended and a file; return their identifiers by what stands for them."""
    job = (await api.client.post("/v1/jobs", json=json.loads(JOB))).json()["jobId"]
    assert (await api.client.post(f"/v1/jobs/{job}/cancel")).status_code == 200
    file = (await api.client.post("/v1/files", content=b"0123456789")).json()["fileId"]
    return {b"ENDED": job.encode(), b"FILE": file.encode()}


@pytest.mark.parametrize("case", CASES)
def test_request_gets_one_answer(case: str, answers: dict[str, bytes]) -> None:
    answer, status = answers[case], CASES[case][1]
    assert [int(each) for each in STATUS.findall(answer)] == [status]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"set-cookie" not in head.lower()
    assert b"Traceback" not in answer
    # A handshake that is none is refused by the library, in its own words.
    if status >= 400 and not (case.startswith("socket") and status == 400):
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == status
        assert len(body) < 2_000
    # The answer may quote what was asked, and then so that no browser takes it for more.
    assert b"<script" not in answer
    assert UNKNOWN not in answer
