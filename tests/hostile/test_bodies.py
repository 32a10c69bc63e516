"""The rows of JSON bodies, sizes and custom headers: refused at every address that takes a body."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from gateway.app import create_app
from tests.gateway.conftest import Gateway, MakeServices
from tests.gateway.jobs import ECHO, assert_problem

LABELLED = {"Content-Type": "application/json"}

JSON_BODIES: dict[str, bytes] = {
    "duplicate key": b'{"a":1,"a":2}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate key, deep": b'{"type":"demo.echo","input":{"payload":[{"x":1,"x":1}]}}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "1e-400": b'{"a":1e-400}',
    "65 bits": b'{"a":18446744073709551616}',
    "a million digits": b'{"a":' + b"9" * 1_000_000 + b"}",
    "depth 33": b'{"a":' * 33 + b"1" + b"}" * 33,
    "depth 33, arrays": b"[" * 33 + b"]" * 33,
    "100,000 [": b"[" * 100_000,
    "100,000 {": b'{"a":' * 100_000,
    "a million [": b"[" * 1_000_000,
    "brackets in a string, unterminated": b'{"a":"' + b"[" * 1_000_000,
    "backslashes": b'{"a":"' + b"\\" * 999_999,
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone surrogate in a name": b'{"\\udfff":1}',
    "raw surrogate": b'{"a":"\xed\xa0\x80"}',
    "invalid UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xae"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-be"),
    "UTF-32": '{"a":1}'.encode("utf-32"),
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "trailing text": b'{"a":1}x',
    "trailing value": b'{"a":1}{"a":1}',
    "trailing NUL": b'{"a":1}\x00',
    "trailing comma": b'{"a":1,}',
    "comment": b'{"a":1/**/}',
    "single quotes": b"{'a':1}",
    "no quotes": b"{a:1}",
    "line end in a string": b'{"a":"\n"}',
    "leading zero": b'{"a":01}',
    "plus sign": b'{"a":+1}',
    "vertical tab": b'{"a":\x0b1}',
    "nothing": b"",
    "white space": b" \n\t",
    "half": b'{"a"',
}


async def taking_json(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Return method and path of every operation that takes JSON."""
    made = (await client.post("/v1/endpoints", json={"url": "https://h.example/"})).json()
    described = (await client.get("/openapi.json")).json()["paths"]
    return [
        (method, path.format(endpointId=made["id"]))
        for path, item in described.items()
        for method, operation in item.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


@pytest.mark.parametrize("body", JSON_BODIES.values(), ids=JSON_BODIES)
async def test_json_body_is_refused_everywhere(client: httpx.AsyncClient, body: bytes) -> None:
    addresses = await taking_json(client)
    assert len(addresses) > 10
    for method, path in addresses:
        if path.endswith(("/rotate", "/test", "/verify")) and not body:
            continue  # where all of it has a default, nothing is a body too
        answer = await client.request(method, path, content=body, headers=LABELLED)
        assert_problem(answer, "malformed_json")
        assert len(answer.content) < 2_000
    answer = await client.post(
        "/api/documents", content=body, headers={"Content-Type": "text/plain"}
    )
    assert_problem(answer, "malformed_json")
    answer = await client.post("/v1/jobs", files={"job": ("j", body, "application/json")})
    assert_problem(answer, "malformed_json")


async def test_json_body_of_depth_32_is_taken(client: httpx.AsyncClient) -> None:
    payload: object = 1
    for _ in range(30):
        payload = [payload]
    answer = await client.post(
        "/v1/jobs", json={"type": "demo.echo", "input": {"payload": payload}}
    )
    assert answer.status_code == 202


HEAVY: dict[str, bytes] = {
    "a long member": b'{"' + b"x" * 1_000_000 + b'":1}',
    "many members of the input": b'{"type":"demo.echo","input":{'
    + b",".join(b'"%d":0' % n for n in range(70_000))
    + b"}}",
    "many headers": b'{"type":"demo.echo","input":{"payload":1},"callbackUrl":"https://h.example/",'
    b'"callback":{"headers":{' + b",".join(b'"%d":0' % n for n in range(70_000)) + b"}}}",
    "many members": b"{" + b",".join(b'"%d":0' % n for n in range(70_000)) + b"}",
    "many empty arrays": b"[" + b"[]," * 300_000 + b"[]]",
    "many brackets": b"[" * 1_000_000,
    "many short strings": b"[" + b'"",' * 300_000 + b'""]',
    "many escapes": b'"' + b"\\u0041" * 170_000 + b'"',
    "many numbers": b"[" + b"1e1," * 250_000 + b"1]",
    "many digits": b"9" * 1_000_000,
}


@contextmanager
def less_memory_than(limit: int) -> Iterator[None]:
    """See to it that what is done within never holds `limit` bytes more."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
async def test_json_body_costs_no_more_than_so_much_memory(
    client: httpx.AsyncClient, body: bytes
) -> None:
    assert len(body) <= 1_048_576
    await client.post("/v1/jobs", content=b"{}", headers=LABELLED)
    with less_memory_than(64 * 2**20):
        answer = await client.post("/v1/jobs", content=body, headers=LABELLED)
    assert answer.status_code in {400, 422}
    assert len(answer.content) < 2_000


BOMB = gzip.compress(bytes(10_000_000))


def _endless(piece: bytes, told: list[int]) -> AsyncIterator[bytes]:
    async def generate() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            told.append(len(piece))
            yield piece

    return generate()


async def test_body_size_without_a_length_is_cut_off_mid_stream(
    client: httpx.AsyncClient,
) -> None:
    for method, path in await taking_json(client):
        told: list[int] = []
        body = _endless(b" " * 65_536, told)
        answer = await client.request(method, path, content=body, headers=LABELLED)
        assert_problem(answer, "body_too_large")
        assert sum(told) <= 1_048_576 + 2 * 65_536


@pytest.mark.parametrize("more", [0, 1])
async def test_body_size_has_a_limit_to_the_byte(client: httpx.AsyncClient, more: int) -> None:
    body = json.dumps(ECHO).encode().ljust(1_048_576 + more)
    whole = await client.post("/v1/jobs", content=body, headers=LABELLED)
    pieces = await client.post("/v1/jobs", content=_once(body), headers=LABELLED)
    assert "content-length" not in pieces.request.headers
    for answer in (whole, pieces):
        assert answer.status_code == (413 if more else 202)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n'


@pytest.mark.parametrize(
    ("start", "piece", "code"),
    [
        pytest.param(FORM_HEAD, b" " * 65_536, "body_too_large", id="the job part"),
        pytest.param(b"", b"x" * 65_536, "malformed_body", id="before the first boundary"),
        pytest.param(
            b"--b\r\nContent-Disposition: form-data; x=",
            b"y" * 65_536,
            "malformed_body",
            id="a part's header",
        ),
        pytest.param(b"--b\r\n", b"x: y\r\n" * 9_999, "malformed_body", id="a part's headers"),
        pytest.param(
            FORM_HEAD + b"{}\r\n",
            b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 999,
            "malformed_body",
            id="many parts",
        ),
    ],
)
async def test_body_size_of_a_form_is_bounded_wherever_it_grows(
    client: httpx.AsyncClient, start: bytes, piece: bytes, code: str
) -> None:
    told: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        yield start
        async for each in _endless(piece, told):
            yield each

    with less_memory_than(16 * 2**20):
        answer = await client.post(
            "/v1/jobs",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
    assert answer.json()["code"] in {code, "invalid_request"}
    assert sum(told) <= 1_048_576 + 2 * 65_536


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x", ""])
async def test_body_size_content_encoding_is_refused(
    client: httpx.AsyncClient, coding: str
) -> None:
    headers = {"Content-Encoding": coding}
    answer = await client.post("/v1/files", content=BOMB, headers=headers)
    assert_problem(answer, "unsupported_media_type")
    headers |= LABELLED
    for method, path in await taking_json(client):
        answer = await client.request(method, path, content=BOMB, headers=headers)
        assert_problem(answer, "unsupported_media_type")


async def test_body_size_of_a_packed_body_is_that_of_what_came(client: httpx.AsyncClient) -> None:
    headers = LABELLED | {"Content-Encoding": "gzip"}
    await client.post("/v1/jobs", content=b"{}", headers=headers)
    with less_memory_than(2**20):
        answer = await client.post("/v1/jobs", content=BOMB, headers=headers)
    assert_problem(answer, "unsupported_media_type")


async def test_body_size_metadata_has_a_limit_of_its_own(client: httpx.AsyncClient) -> None:
    for size, is_taken in ((4_000, True), (4_200, False)):
        answer = await client.post("/v1/jobs", json={**ECHO, "metadata": {"a": "x" * size}})
        assert answer.status_code == (202 if is_taken else 422)


CUSTOM_HEADERS: dict[str, Mapping[str, str]] = {
    **{name: {name: "x"} for name in ("Host", "host", "Content-Length", "Content-Type")},
    **{name: {name: "x"} for name in ("webhook-id", "Webhook-Signature", "webhook-x")},
    **{name: {name: "x"} for name in ("webhook-timestamp", "WEBHOOK-", "X-Signature", "Date")},
    **{name: {name: "x"} for name in ("Connection", "Keep-Alive", "TE", "Trailer", "Upgrade")},
    **{name: {name: "x"} for name in ("Transfer-Encoding", "Proxy-Authorization", "Expect")},
    **{name: {name: "x"} for name in ("Proxy-Authenticate", "HTTP2-Settings", "proxy-x")},
    **{name: {name: "x"} for name in ("Proxy-Connection", "User-Agent", "gateway-attempt")},
    **{name: {name: "x"} for name in ("Content-Encoding", "Accept-Encoding", "traceparent")},
    **{name: {name: "x"} for name in ("Via", "Forwarded", "X-Forwarded-For", "X-Real-IP")},
    **{name: {name: "x"} for name in ("X-HTTP-Method-Override", "X-Original-URL")},
    "CR LF": {"x": "a\r\nwebhook-id: b"},
    "LF": {"x": "a\nb"},
    "CR": {"x": "a\rb"},
    "NUL": {"x": "a\x00"},
    "tab": {"x": "a\tb"},
    "outer space": {"x": " a"},
    "not ASCII": {"x": "é"},
    "line separator": {"x": "a\u2028b"},
    "colon in the name": {"x:y": "a"},
    "space in the name": {"x y": "a"},
    "CR LF in the name": {"x\r\ny": "a"},
    "no name": {"": "a"},
    "not ASCII in the name": {"é": "a"},
    "twice": {"x-a": "1", "X-A": "2"},
    "a long name": {"x" * 129: "a"},
    "a long value": {"x": "a" * 4_097},
    "many": {f"x-{number}": "a" for number in range(21)},
    "much in all": {f"x-{number}": "a" * 4_000 for number in range(3)},
}
SECRET = "pssst-do-not-tell"


@pytest.mark.parametrize("headers", CUSTOM_HEADERS.values(), ids=CUSTOM_HEADERS)
async def test_custom_headers_are_refused_at_submit(
    client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    told = {
        name: value.replace("a", SECRET) if len(value) < 100 else value
        for name, value in headers.items()
    }
    job = {**ECHO, "callbackUrl": "https://h.example/", "callback": {"headers": told}}
    answer = await client.post("/v1/jobs", json=job)
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    name = next(iter(headers))
    if len(headers) == 1 and name:
        assert fault["pointer"] == f"/callback/headers/{name[:128]}"
    assert fault["pointer"].startswith("/callback/headers")
    assert SECRET not in answer.text
    route = {"text": "a", "callbackUrl": "https://h.example/", "callback": {"headers": told}}
    assert (await client.post("/api/documents", json=route)).status_code == 422


async def test_custom_headers_of_others_are_taken(client: httpx.AsyncClient) -> None:
    told = {"Authorization": f"Bearer {SECRET}", "X-Host": "x", "x-webhook-id": "x", "Hosts": "x"}
    job = {**ECHO, "callbackUrl": "https://h.example/", "callback": {"headers": told}}
    assert (await client.post("/v1/jobs", json=job)).status_code == 202


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("timeoutSeconds", 1e300),
        ("timeoutSeconds", -1),
        ("timeoutSeconds", 0),
        ("queueTimeoutSeconds", 1e308),
        ("resultTtlSeconds", 2**64 - 1),
        ("resultTtlSeconds", -(2**63)),
        ("maxAttempts", 2**63),
        ("maxAttempts", 1.5),
        ("runAt", "9999-12-31T23:59:59.999999999Z1"),
        ("runAt", "-0001-01-01T00:00:00Z"),
        ("runAt", 1e18),
        ("priority", "highest"),
        ("type", "x" * 1_000_000),
        ("type", "demo.echo\n"),
        ("metadata", [1]),
        ("callback", {"events": ["job.completed"] * 1_000}),
        ("onComplete", "explode"),
    ],
)
async def test_numbers_and_words_have_bounds(
    client: httpx.AsyncClient, member: str, value: object
) -> None:
    answer = await client.post("/v1/jobs", json={**ECHO, member: value})
    assert answer.status_code == 422
    assert len(answer.content) < 2_000


async def test_uploads_have_a_limit(make_services: MakeServices) -> None:
    services = make_services(GATEWAY_API_UPLOAD_LIMIT_BYTES="1000")
    gateway = Gateway(services, create_app(services))
    async with await gateway.client() as client:
        told: list[int] = []
        answer = await client.post("/v1/files", content=_endless(b"x" * 500, told))
        assert_problem(answer, "body_too_large")
        assert sum(told) <= 2_000
        job = {"type": "document.analyze", "input": {"document": {"part": "f"}}}
        answer = await client.post(
            "/v1/jobs",
            files=[("job", ("j", json.dumps(job), "application/json")), ("f", ("f", b"x" * 1_001))],
        )
        assert_problem(answer, "body_too_large")
