"""Fetching: what streams through, what stops it, and what may be dialled."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from delivery.deadlines import Deadlines
from delivery.egress import Policy
from delivery.engine import TransportFailed
from delivery.errors import DestinationDenied
from delivery.fetch import (
    AnswerTooLarge,
    Fetched,
    Guarded,
    Reach,
    Request,
    SinkFailed,
    Trusted,
    fetch,
)
from delivery.guard import AddressInfo
from tests.delivery.authority import Authority

if TYPE_CHECKING:
    from tests.delivery.conftest import Receiver, Script, StartReceiver

LIMIT = 1024 * 1024
PATIENT = Deadlines(dns=10, connect=10, first_byte=10, total=60)
PUBLIC = "93.184.215.14"
LOCALHOST = x509.DNSName("localhost")


def request(receiver: Receiver, target: str = "/", method: str = "GET", **rest: Any) -> Request:
    url = f"http://127.0.0.1:{receiver.port}{target}"
    return Request(method=method, url=url, headers=rest.pop("headers", {}), **rest)


async def fetched(
    sent: Request, *, limit: int = LIMIT, reach: Reach | None = None, deadlines: Deadlines = PATIENT
) -> tuple[Fetched, bytes]:
    body = bytearray()
    answer = await fetch(
        sent, body.extend, limit=limit, reach=reach or Trusted(), deadlines=deadlines
    )
    return answer, bytes(body)


def answers(head: bytes, *blocks: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n")
        for block in blocks:
            writer.write(block)
            await writer.drain()

    return script


def with_length(body: bytes) -> Script:
    return answers(b"200 OK\r\ncontent-length: %d" % len(body), body)


def chunked(body: bytes, size: int) -> Script:
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return answers(b"200 OK\r\ntransfer-encoding: chunked", framed, b"0\r\n\r\n")


async def never_answers(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def refuses_lookups(host: str) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


class Sockets:
    """A socket factory that notes each address it was asked for, and makes none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, address: AddressInfo) -> socket.socket:
        self.asked.append(address[4][0])
        raise OSError(errno.ENETUNREACH, "no network in this test")


# What streams through


@pytest.mark.parametrize("size", [0, 1, 8 * 1024, 5 * 1024 * 1024])
@pytest.mark.parametrize("chunk", [None, 64 * 1024])
async def test_a_body_arrives_whole(
    start_receiver: StartReceiver, size: int, chunk: int | None
) -> None:
    body = (hashlib.sha256(b"seed").digest() * (size // 32 + 1))[:size]
    receiver = await start_receiver(with_length(body) if chunk is None else chunked(body, chunk))
    answer, got = await fetched(request(receiver), limit=max(size, 1))
    assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()
    assert answer.status == 200
    assert answer.size == size


async def test_small_chunks_are_fine_as_long_as_they_are_mostly_body(
    start_receiver: StartReceiver,
) -> None:
    body = bytes(LIMIT)
    receiver = await start_receiver(chunked(body, 32))
    assert (await fetched(request(receiver)))[1] == body


async def test_a_request_is_sent_as_it_is(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(with_length(b"ok"))
    target = "/a%2Fb/%0d%0a/;x?q=~!$&'()*+,;=&q=2"
    await fetched(
        request(receiver, target, "PUT", headers={"x-one": "1", "accept": "*/*"}, body=b"body")
    )
    (head, body), *more = receiver.requests
    assert more == []
    lines = head.decode().split("\r\n")
    assert lines[0] == f"PUT {target} HTTP/1.1"
    assert sorted(line.partition(":")[0].lower() for line in lines[1:] if line) == [
        "accept", "content-length", "host", "x-one",
    ]  # fmt: skip
    assert body == b"body"


@pytest.mark.parametrize("status", [204, 301, 307, 404, 503])
async def test_every_status_is_an_answer_and_no_redirect_is_followed(
    start_receiver: StartReceiver, status: int
) -> None:
    receiver = await start_receiver(
        answers(b"%d X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0" % status)
    )
    answer, body = await fetched(request(receiver))
    assert (answer.status, body) == (status, b"")
    assert len(receiver.requests) == 1


async def test_headers_are_named_in_lower_case_and_joined(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(
        answers(b"200 OK\r\nX-A: 1\r\nx-a: 2\r\nSet-Cookie: a=b\r\ncontent-length: 0")
    )
    answer, _ = await fetched(request(receiver))
    assert answer.headers == {"x-a": "1, 2", "set-cookie": "a=b", "content-length": "0"}


async def test_a_content_coding_stays_on(start_receiver: StartReceiver) -> None:
    bomb = gzip.compress(bytes(50 * LIMIT))
    head = b"200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d" % len(bomb)
    receiver = await start_receiver(answers(head, bomb))
    assert (await fetched(request(receiver)))[1] == bomb


async def test_the_answer_to_head_has_no_body_whatever_its_length_says(
    start_receiver: StartReceiver,
) -> None:
    receiver = await start_receiver(answers(b"200 OK\r\ncontent-length: 99999999999"))
    answer, body = await fetched(request(receiver, method="HEAD"))
    assert (answer.size, body) == (0, b"")
    assert answer.headers["content-length"] == "99999999999"


async def test_the_head_is_told_before_the_body(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(with_length(b"body"))
    told: list[object] = []

    def on_head(status: int, headers: Mapping[str, str]) -> None:
        told.append((status, headers["content-length"]))

    await fetch(
        request(receiver),
        told.append,
        limit=LIMIT,
        reach=Trusted(),
        deadlines=PATIENT,
        on_head=on_head,
    )
    assert told == [(200, "4"), b"body"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_environments_proxies_are_ignored(
    scheme: str,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
    loopback: Policy,
    tmp_path: Path,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    authority = Authority(tmp_path)
    tls = authority.server(LOCALHOST) if scheme == "https" else None
    receiver = await start_receiver(with_length(b"direct"), tls)
    url = f"{scheme}://localhost:{receiver.port}/"
    for reach in (Trusted(), Guarded(policy=loopback, lookup=refuses_lookups)):
        got = bytearray()
        await fetch(
            Request(method="GET", url=url, headers={}),
            got.extend,
            limit=LIMIT,
            reach=reach,
            deadlines=PATIENT,
            ssl_context=authority.client(),
        )
        assert got == b"direct"


@pytest.mark.parametrize("flaw", ["another name", "expired", "self-signed", "unknown authority"])
async def test_a_bad_certificate_is_a_failure(
    flaw: str, start_receiver: StartReceiver, loopback: Policy, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    name = x509.DNSName("other.example") if flaw == "another name" else LOCALHOST
    tls = authority.server(
        name, days=-1 if flaw == "expired" else 30, self_signed=flaw == "self-signed"
    )
    receiver = await start_receiver(with_length(b"never"), tls)
    url = f"https://localhost:{receiver.port}/"
    for reach in (Trusted(), Guarded(policy=loopback, lookup=refuses_lookups)):
        with pytest.raises(TransportFailed) as caught:
            await fetch(
                Request(method="GET", url=url, headers={}),
                bytearray().extend,
                limit=LIMIT,
                reach=reach,
                deadlines=PATIENT,
                ssl_context=None if flaw == "unknown authority" else authority.client(),
            )
        assert caught.value.code == "tls"
    assert receiver.requests == []


# What stops it


@pytest.mark.parametrize("chunk", [None, 1024])
async def test_a_longer_body_is_not_read_to_its_end(
    start_receiver: StartReceiver, chunk: int | None
) -> None:
    body = bytes(10 * LIMIT)
    receiver = await start_receiver(with_length(body) if chunk is None else chunked(body, chunk))
    got = bytearray()
    with pytest.raises(AnswerTooLarge) as caught:
        await fetch(request(receiver), got.extend, limit=LIMIT, reach=Trusted(), deadlines=PATIENT)
    assert caught.value.limit == LIMIT
    assert len(got) <= LIMIT
    await receiver.hung_up.wait()


async def test_a_flood_of_tiny_chunks_is_refused(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(chunked(bytes(LIMIT), 1))
    with pytest.raises(TransportFailed) as caught:
        await fetched(request(receiver))
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (never_answers, "timeout"),
        (drips, "timeout"),
        (answers(b"200 OK\r\ncontent-length: 10", b"half"), "timeout"),
        (answers(b"what?"), "malformed"),
    ],
    ids=["never", "drip", "stuck", "not HTTP"],
)
async def test_no_complete_answer_is_a_failure(
    start_receiver: StartReceiver, script: Script, code: str
) -> None:
    receiver = await start_receiver(script)
    with pytest.raises(TransportFailed) as caught:
        await fetched(
            request(receiver), deadlines=Deadlines(dns=1, connect=1, first_byte=0.3, total=0.5)
        )
    assert caught.value.code == code


async def test_a_body_that_breaks_off_is_a_failure(start_receiver: StartReceiver) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        await answers(b"200 OK\r\ncontent-length: 10", b"half")(writer)
        writer.close()

    receiver = await start_receiver(script)
    with pytest.raises(TransportFailed) as caught:
        await fetched(request(receiver))
    assert caught.value.code == "reset"


async def test_a_sink_that_fails_ends_the_exchange(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(with_length(bytes(LIMIT)))

    def full(block: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(SinkFailed) as caught:
        await fetch(request(receiver), full, limit=LIMIT, reach=Trusted(), deadlines=PATIENT)
    assert isinstance(caught.value.__cause__, OSError)
    await receiver.hung_up.wait()


async def test_cancelling_hangs_up(start_receiver: StartReceiver) -> None:
    asked = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await writer.wait_closed()

    receiver = await start_receiver(script)
    task = asyncio.create_task(fetched(request(receiver)))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("method", ["get", "", "GET /", "GET\r\n"])
async def test_a_method_is_a_word(start_receiver: StartReceiver, method: str) -> None:
    receiver = await start_receiver(with_length(b""))
    with pytest.raises(ValueError, match="not a method"):
        await fetched(request(receiver, method=method))
    assert receiver.connections == 0


# What may be dialled


@pytest.mark.parametrize(
    ("host", "records"),
    [
        ("127.0.0.1", []),
        ("[::1]", []),
        ("169.254.169.254", []),
        ("168.63.129.16", []),
        ("[::127.0.0.1]", []),
        ("[::ffff:7f00:1]", []),
        ("[64:ff9b::a9fe:a9fe]", []),
        ("[2002:7f00:1::]", []),
        ("[fd00:ec2::254]", []),
        ("[fec0::1]", []),
        ("h.example", ["10.0.0.1"]),
        ("h.example", [PUBLIC, "168.63.129.16"]),
        ("h.example", [PUBLIC, "224.0.0.1"]),
        ("h.example", [PUBLIC, "127.0.0.1"]),
        ("h.example", ["::ffff:8.8.8.8"]),
    ],
)
async def test_what_a_client_chose_is_checked_before_a_socket_is_made(
    host: str, records: list[str]
) -> None:
    async def lookup(asked: str) -> Sequence[str]:
        assert asked == host
        return records

    sockets = Sockets()
    with pytest.raises(DestinationDenied):
        await fetch(
            Request(method="GET", url=f"https://{host}/", headers={}),
            bytearray().extend,
            limit=LIMIT,
            reach=Guarded(policy=Policy(), lookup=lookup),
            deadlines=PATIENT,
            socket_factory=sockets,
        )
    assert sockets.asked == []


async def test_what_was_checked_is_what_is_dialled() -> None:
    async def lookup(_host: str) -> Sequence[str]:
        return [PUBLIC]

    sockets = Sockets()
    with pytest.raises(TransportFailed) as caught:
        await fetch(
            Request(method="GET", url="https://h.example/", headers={}),
            bytearray().extend,
            limit=LIMIT,
            reach=Guarded(policy=Policy(), lookup=lookup),
            deadlines=PATIENT,
            socket_factory=sockets,
        )
    assert caught.value.code == "connect"
    assert sockets.asked == [PUBLIC]


async def test_a_development_profile_reaches_loopback(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(with_length(b"ok"))
    reach = Guarded(policy=loopback, lookup=refuses_lookups)
    assert (await fetched(request(receiver), reach=reach))[1] == b"ok"


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.7.7", "[fd00::1]"])
async def test_what_the_operator_named_is_dialled_wherever_it_is(address: str) -> None:
    sockets = Sockets()
    with pytest.raises(TransportFailed):
        await fetch(
            Request(method="GET", url=f"http://{address}:9000/", headers={}),
            bytearray().extend,
            limit=LIMIT,
            reach=Trusted(),
            deadlines=PATIENT,
            socket_factory=sockets,
        )
    assert sockets.asked == [address.strip("[]")]


async def test_a_short_name_is_looked_up_as_the_system_does(start_receiver: StartReceiver) -> None:
    receiver = await start_receiver(with_length(b"ok"))
    url = f"http://localhost:{receiver.port}/"
    answer, body = await fetched(Request(method="GET", url=url, headers={}))
    assert (answer.status, body) == (200, b"ok")
