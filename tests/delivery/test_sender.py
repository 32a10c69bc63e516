"""The sender: what each answer comes to, what is kept of it, and real TLS."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from config.clock import SECOND, SystemClock
from delivery.egress import Destination, Policy, parse_destination
from delivery.outcomes import (
    MAX_ANSWER_KEPT,
    MAX_RETRY_AFTER,
    Delivered,
    Denied,
    Gone,
    Outcome,
    Rejected,
    Throttled,
    Unreachable,
    classify,
    parse_retry_after,
)
from delivery.resolver import PolicyResolver
from delivery.sender import Sender, redact
from delivery.transport import AiohttpTransport, Gate
from tests.delivery.authority import Authority

if TYPE_CHECKING:
    import asyncio

    from tests.delivery.conftest import StartReceiver

# Sun, 06 Nov 1994 08:49:37 GMT: RFC 9110's own example
NOW = 784_111_777 * SECOND


# Which answer is which outcome


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome"),
    [
        (200, None, Delivered(status=200)),
        (204, "60", Delivered(status=204)),
        (299, None, Delivered(status=299)),
        (301, None, Rejected(status=301)),
        (307, "60", Rejected(status=307)),
        (101, None, Rejected(status=101)),
        (400, None, Rejected(status=400)),
        (404, "soon", Rejected(status=404)),
        (404, "-1", Rejected(status=404)),
        (404, "60", Throttled(status=404, retry_after=60 * SECOND)),
        (410, None, Gone(status=410)),
        (410, "60", Gone(status=410)),
        (429, None, Throttled(status=429, retry_after=None)),
        (429, "nan", Throttled(status=429, retry_after=None)),
        (429, "120", Throttled(status=429, retry_after=120 * SECOND)),
        (500, None, Rejected(status=500)),
        (500, "1", Throttled(status=500, retry_after=SECOND)),
        (500, "0", Throttled(status=500, retry_after=None)),
        (501, None, Rejected(status=501)),
        (502, None, Throttled(status=502, retry_after=None)),
        (503, "99999999", Throttled(status=503, retry_after=MAX_RETRY_AFTER)),
        (504, "Sun, 06 Nov 1994 08:49:00 GMT", Throttled(status=504, retry_after=None)),
        (999, None, Rejected(status=999)),
    ],
)
def test_outcomes(status: int, retry_after: str | None, outcome: Outcome) -> None:
    assert classify(status, retry_after, NOW) == outcome


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("nan", None),
        ("inf", None),
        ("1, 2", None),
        ("٣", None),
        ("0x10", None),
        ("0", 0),
        ("007", 7),
        (" 30 ", 30),
        ("86400", 86_400),
        ("86401", 86_400),
        ("99999999", 86_400),
        ("9" * 5_000, 86_400),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 22),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Sunday, 06-Nov-60 08:49:37 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:00:00 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None),
        ("06 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else seconds * SECOND
    assert parse_retry_after(value, NOW) == expected


@given(value=st.text(max_size=60), now=st.integers(0, 4 * 10**15))
def test_retry_after_is_in_bounds_whatever_it_says(value: str, now: int) -> None:
    wait = parse_retry_after(value, now)
    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


# What is kept of an answer


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"", b""),
        ("naïve ✓".encode(), "naïve ✓".encode()),
        (b"a\r\nb\tc\n", b"a\r\nb\tc\n"),
        (b"a\x1b[31mb\x00\x7f", b"a\\x1b[31mb\\x00\\x7f"),
        (b"a\rb", b"a\\x0db"),
        ("a\u2028b\u0085".encode(), b"a\\u2028b\\x85"),
        (b"\xff\xfe", "\ufffd\ufffd".encode()),
        (b"Authorization: Bearer abc.def", b"Authorization: Bearer ***"),
        (b'{"authorization": "Basic dTpw"}', b'{"authorization": "Basic ***"}'),
        (b"got bearer 1234abcd ok", b"got bearer *** ok"),
        (b"password=hunter2&x=1", b"password=***&x=1"),
        (b'{"api_key":"k1","client-secret":"s"}', b'{"api_key":"***","client-secret":"***"}'),
        (b'{"password": "two words", "a": 1}', b'{"password": "***", "a": 1}'),
        (b"Cookie: sid=1; b=2\r\nx: y", b"Cookie: ***\r\nx: y"),
        ("a\u202eb".encode(), b"a\\u202eb"),
        (b"key whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw!", b"key ***!"),
        (b"key gwk_0123456789abcdef", b"key ***"),
        (b"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_1", b"jwt ***"),
        (b"your tokens are fine", b"your tokens are fine"),
    ],
)
def test_redaction(body: bytes, kept: bytes) -> None:
    assert redact(body, {}) == (kept, False)


def test_an_echo_of_a_private_header_is_masked() -> None:
    headers = {"x-tenant-key": "sesame-open", "webhook-id": "msg_1", "x-short": "ok"}
    assert redact(b"you sent sesame-open in msg_1, ok", headers) == (
        b"you sent *** in msg_1, ok",
        False,
    )


def test_an_echo_of_the_query_is_masked() -> None:
    query = "key=sesame%20open&a=1&long-token-alone"
    body = b"you asked /hook?key=sesame%20open&a=1&long-token-alone: sesame open, a=1"
    assert redact(body, {}, query) == (b"you asked /hook?***: ***, a=1", False)
    assert redact(b"a=1 and long-token-alone", {}, query) == (b"a=1 and ***", False)
    assert redact(b"", {}, query) == (b"", False)


def test_a_secret_over_the_edge_of_what_is_kept_is_masked() -> None:
    body = b"." * (MAX_ANSWER_KEPT - 20) + b" password=" + b"s" * 3_000
    kept, cut = redact(body, {})
    assert kept.endswith(b". password=***")
    assert cut


@pytest.mark.parametrize(
    ("size", "cut"), [(MAX_ANSWER_KEPT, False), (MAX_ANSWER_KEPT + 1, True), (16_384, True)]
)
def test_one_kibibyte_is_kept(size: int, cut: bool) -> None:
    kept, was_cut = redact(b"x" * size, {})
    assert (kept, was_cut) == (b"x" * MAX_ANSWER_KEPT, cut)


@given(st.binary(max_size=3_000))
def test_what_is_kept_is_short_printable_utf_8(body: bytes) -> None:
    kept, _ = redact(body, {"x-secret": "0123456789"})
    assert len(kept) <= MAX_ANSWER_KEPT
    text = kept.decode()
    assert all(char.isprintable() or char in "\t\r\n" or char > "\x9f" for char in text)


# Real exchanges


@asynccontextmanager
async def sender_for(
    policy: Policy, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Sender]:
    async def lookup(host: str) -> list[str]:
        raise OSError(None, "no such name")

    async with AiohttpTransport(
        gate=Gate.under(policy, PolicyResolver(lookup, policy)),
        ssl_context=ssl_context,
    ) as transport:
        yield Sender(transport, SystemClock())


def literal(url: str, host: str, scheme: str = "http", port: int = 80) -> Destination:
    """A destination that the first gate never saw."""
    return Destination(url=url, scheme=scheme, host=host, port=port, target="/", origin=url)


async def test_a_delivery_as_an_independent_server_sees_it(
    httpserver: HTTPServer, loopback: Policy
) -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    def handle(request: Request) -> Response:
        seen.append((request.full_path, dict(request.headers), request.get_data()))
        return Response(b"thanks", status=202)

    httpserver.expect_request("/hook", method="POST").respond_with_handler(handle)
    destination = parse_destination(httpserver.url_for("/hook") + "?a=%0d%0a", loopback)
    headers = {"webhook-id": "msg_1", "content-type": "application/json", "user-agent": "g/1"}
    async with sender_for(loopback) as sender:
        exchange = await sender.send(destination, headers, b'{"a":1}')
    assert exchange.outcome == Delivered(status=202)
    assert (exchange.answer, exchange.answer_truncated) == (b"thanks", False)
    assert exchange.connect is not None
    assert exchange.first_byte is not None
    assert 0 < exchange.connect <= exchange.first_byte
    [(path, received, body)] = seen
    assert path == "/hook?a=%0d%0a"
    assert body == b'{"a":1}'
    assert {name.lower(): value for name, value in received.items()} == {
        **headers,
        "host": f"{destination.host}:{destination.port}",
        "content-length": "7",
    }


async def test_an_empty_body_has_a_length(start_receiver: StartReceiver, loopback: Policy) -> None:
    receiver = await start_receiver(answers(b"HTTP/1.1 204 No Content\r\n\r\n"))
    destination = parse_destination(f"http://127.0.0.1:{receiver.port}/", loopback)
    async with sender_for(loopback) as sender:
        exchange = await sender.send(destination, {}, b"")
    assert exchange.outcome == Delivered(status=204)
    assert b"content-length: 0" in receiver.requests[0][0].lower()


def answers(reply: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(reply)

    return script


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", Gone(status=410)),
        (
            b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
            Throttled(status=429, retry_after=7 * SECOND),
        ),
        (
            b"HTTP/1.1 503 X\r\nretry-after: 7\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n",
            Throttled(status=503, retry_after=None),
        ),
        (
            b"HTTP/1.1 307 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
            Rejected(status=307),
        ),
        (b"HTTP/0.9\r\n\r\n", Unreachable(code="malformed")),
    ],
)
async def test_an_answer_becomes_its_outcome(
    reply: bytes, outcome: Outcome, start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(answers(reply))
    destination = parse_destination(f"http://127.0.0.1:{receiver.port}/", loopback)
    async with sender_for(loopback) as sender:
        exchange = await sender.send(destination, {"x": "1"}, b"{}")
    assert exchange.outcome == outcome


async def test_a_long_answer_is_flagged(start_receiver: StartReceiver, loopback: Policy) -> None:
    receiver = await start_receiver(
        answers(b"HTTP/1.1 500 Oops\r\ncontent-length: 99999\r\n\r\n" + b"x" * 99_999)
    )
    destination = parse_destination(f"http://127.0.0.1:{receiver.port}/", loopback)
    async with sender_for(loopback) as sender:
        exchange = await sender.send(destination, {}, b"{}")
    assert exchange.outcome == Rejected(status=500)
    assert (exchange.answer, exchange.answer_truncated) == (b"x" * MAX_ANSWER_KEPT, True)


async def test_a_denied_address_and_an_unknown_name() -> None:
    async with sender_for(Policy()) as sender:
        denied = await sender.send(literal("http://10.0.0.1", "10.0.0.1"), {}, b"{}")
        unknown = await sender.send(literal("http://h.example", "h.example"), {}, b"{}")
    assert denied.outcome == Denied()
    assert unknown.outcome == Unreachable(code="dns")
    assert (unknown.answer, unknown.connect, unknown.first_byte) == (b"", None, None)


# TLS, with certificates made here


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
LOCALHOST = x509.DNSName("localhost")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        pytest.param(LOCALHOST, "localhost", id="name"),
        pytest.param(x509.IPAddress(ipaddress.ip_address("127.0.0.1")), "127.0.0.1", id="address"),
    ],
)
async def test_a_good_certificate(
    name: x509.GeneralName,
    host: str,
    start_receiver: StartReceiver,
    authority: Authority,
    loopback: Policy,
) -> None:
    receiver = await start_receiver(answers(OK), authority.server(name))
    destination = parse_destination(f"https://{host}:{receiver.port}/", loopback)
    async with sender_for(loopback, authority.client()) as sender:
        outcomes = [(await sender.send(destination, {}, b"{}")).outcome for _ in range(2)]
    assert outcomes == [Delivered(status=200)] * 2
    assert receiver.connections == 1


@pytest.mark.parametrize("flaw", ["another name", "expired", "self-signed", "unknown authority"])
async def test_a_bad_certificate(
    flaw: str,
    start_receiver: StartReceiver,
    authority: Authority,
    loopback: Policy,
) -> None:
    name = x509.DNSName("other.example") if flaw == "another name" else LOCALHOST
    server = authority.server(
        name, days=-1 if flaw == "expired" else 30, self_signed=flaw == "self-signed"
    )
    client = None if flaw == "unknown authority" else authority.client()
    receiver = await start_receiver(answers(OK), server)
    destination = parse_destination(f"https://localhost:{receiver.port}/", loopback)
    async with sender_for(loopback, client) as sender:
        exchange = await sender.send(destination, {}, b"{}")
    assert exchange.outcome == Unreachable(code="tls")
    assert receiver.requests == []
