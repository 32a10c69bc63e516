"""Any bytes as an answer: the sender lives, keeps little, and reads a status as others do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.clock import SystemClock
from delivery.attempt import status_of
from delivery.egress import Destination, Policy, parse_destination
from delivery.guard import Guard
from delivery.outcomes import MAX_ANSWER_KEPT, Delivered, Exchange, Unreachable
from delivery.resolver import PolicyResolver
from delivery.sender import Sender
from delivery.transport import AiohttpTransport, Deadlines, Gate
from tests.delivery.conftest import Receiver, Script

LOOPBACK = Policy(allow_http=True, allow_loopback=True, ports=None)
BRIEF = Deadlines(dns=0.1, connect=0.5, first_byte=0.1, total=0.15)
_PATIENCE = 50
OK = b"HTTP/1.1 204 No Content\r\n\r\n"

PIECES = st.one_of(
    st.sampled_from(
        [
            *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.0 500 \r\n"),
            *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n", b"HTTP/0.9\r\n"),
            *(b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", b"HTTP/2 200\r\n", b"ICY 200\r\n"),
            *(b"HTTP/1.1 99 X\r\n", b"HTTP/1.1 1000 X\r\n", b"HTTP/1.1 -1 X\r\n", b"HTTP/1.1\r\n"),
            *(b"content-length: 5\r\n", b"content-length: 0\r\n\r\n", b"content-length: -1\r\n"),
            *(b"content-length: 5\r\ncontent-length: 6\r\n", b"content-length: 9" + b"9" * 30),
            *(b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n"),
            *(b"content-encoding: gzip\r\n", b"connection: close\r\n", b"upgrade: h2c\r\n"),
            *(b"retry-after: 5\r\n", b"retry-after: \xff\r\n", b"set-cookie: a=b\r\n"),
            *(b"location: http://169.254.169.254/\r\n", b"x: " + b"y" * 9_000 + b"\r\n"),
            *(b"\r\n", b"\n", b"\r", b"\0", b" ", b": ", b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello"),
            *(b"ffffffffffffffffff\r\n", b"-5\r\n", b"5;x=y\r\n", b"x: y\r\n" * 200, b"x" * 20_000),
        ]
    ),
    st.binary(max_size=20),
)
ANSWERS = st.lists(PIECES, max_size=8)
ENDS = st.sampled_from(["close", "reset", "hold"])


async def _exchanges(pieces: list[bytes], end: str) -> tuple[Exchange, Exchange]:
    """Return what comes of an attempt that is answered so, and of one after it that goes well."""

    async def hostile(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if end == "hold":
            await writer.wait_closed()
        if end == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        writer.close()

    async def healthy(writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async def lookup(host: str) -> list[str]:
        raise AssertionError(host)

    gate = Gate(check=Guard(policy=LOOPBACK), resolver=PolicyResolver(lookup, LOOPBACK))
    async with (
        _receiving(hostile) as first,
        _receiving(healthy) as second,
        AiohttpTransport(gate=gate, deadlines=BRIEF) as transport,
    ):
        sender = Sender(transport, SystemClock())
        answered = await sender.send(first, {}, b"{}")
        for _ in range(_PATIENCE):
            # The deadlines are short, for the sake of the first; a busy machine may miss them.
            after = await sender.send(second, {}, b"{}")
            if not isinstance(after.outcome, Unreachable):
                break
        return answered, after


@asynccontextmanager
async def _receiving(script: Script) -> AsyncIterator[Destination]:
    receiver = Receiver(script)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield parse_destination(f"http://127.0.0.1:{port}/", LOOPBACK)
        await receiver.end()


def _as_h11(data: bytes) -> int | Literal["unsure"] | None:
    """Return the status that h11 reads in a complete answer, None where it reads none.

    What it is stricter about than RFC 9112 demands is `unsure`.
    """
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "h"), ("te", "x")]))
    client.send(h11.EndOfMessage())
    status = None
    try:
        client.receive_data(data)
        client.receive_data(b"")
        while True:
            event = client.next_event()
            match event:
                case h11.Response(status_code=code):
                    status = code
                case h11.EndOfMessage():
                    return status
                case h11.NEED_DATA | h11.PAUSED | h11.ConnectionClosed():
                    return None
    except h11.RemoteProtocolError:
        return "unsure"


@given(ANSWERS, ENDS)
@settings(deadline=None)
@example([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"], "close")
@example(
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"], "hold"
)
async def test_any_bytes_are_an_outcome(pieces: list[bytes], end: str) -> None:
    first, second = await _exchanges(pieces, end)
    assert len(first.answer) <= MAX_ANSWER_KEPT
    first.answer.decode()
    assert second.outcome == Delivered(status=204)
    data = b"".join(pieces)
    other = _as_h11(data)
    if isinstance(other, int) and end == "close" and not isinstance(first.outcome, Unreachable):
        assert status_of(first.outcome) == other
