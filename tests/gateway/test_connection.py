"""Clients that send too much, too slowly, or never read: over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.connection import HeadAmbiguous, PatientProtocol, bounded, check_head
from gateway.urls import Urls
from tests.gateway.conftest import PUBLIC_URL, MakeServices

ANSWER = 64 * 2**20
PIECE = 2**20
PATIENCE = 20


@dataclass(slots=True)
class Application:
    """Answers with a few bytes, or with very many; counts what it was asked."""

    asked: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        self.asked += 1
        size = ANSWER if scope["path"] == "/much" else 2
        length = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        while size > PIECE:
            await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
            size -= PIECE
        await send({"type": "http.response.body", "body": bytes(size)})
        self.over.set()


class Server(uvicorn.Server):
    """A server that leaves the signals of the tests alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@dataclass(slots=True)
class Served:
    """An application on a port."""

    app: Application
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection to it."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, sent: bytes) -> bytes:
        """Send so much on a connection of its own; return all that comes until it is closed."""
        reader, writer = await self.connect()
        writer.write(sent)
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def serve(make_services: MakeServices) -> AsyncIterator[Callable[..., Served]]:
    """Return what serves an application with other settings; it ends with the test."""
    running: list[tuple[Server, asyncio.Task[None]]] = []

    def start(**environ: str) -> Served:
        app = Application()
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            http=bounded(PatientProtocol, make_services(**environ).settings.api, Urls(PUBLIC_URL)),
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        server = Server(config)
        running.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        return Served(app, listener.getsockname()[1])

    yield start
    for server, task in running:
        server.should_exit = server.force_exit = True
        await task


def refusal(answer: bytes) -> tuple[int, str]:
    """Return the status and the code of a refusal, whose every part must be there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    problem = json.loads(body)
    assert problem["type"] == f"{PUBLIC_URL}/problems/{problem['code']}"
    assert lines[0].split()[1] == str(problem["status"])
    return problem["status"], problem["code"]


async def test_a_request_is_served(serve: Callable[..., Served]) -> None:
    served = serve()
    head = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Long: " + b"x" * 30_000
    answer = await served.exchange(head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"GET / HTTP/1.1\r\nX-Endless: " + b"x" * 9000,
    ],
    ids=["one long field", "a long address", "many fields", "no end"],
)
async def test_a_head_that_is_too_large(serve: Callable[..., Served], head: bytes) -> None:
    served = serve(GATEWAY_API_HEAD_LIMIT_BYTES="8192")
    assert refusal(await served.exchange(head)) == (431, "head_too_large")
    assert served.app.asked == 0


async def test_a_large_body_is_no_head(serve: Callable[..., Served]) -> None:
    served = serve(GATEWAY_API_HEAD_LIMIT_BYTES="4096")
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n"
    assert (await served.exchange(head + bytes(60_000))).startswith(b"HTTP/1.1 200 OK")


async def test_what_is_not_http(serve: Callable[..., Served]) -> None:
    served = serve()
    assert refusal(await served.exchange(b"HELO gateway\r\n\r\n")) == (400, "malformed_request")


async def test_so_many_connections_are_open(serve: Callable[..., Served]) -> None:
    served = serve(GATEWAY_API_MAX_CONNECTIONS="3")
    idle = [await served.connect() for _ in range(3)]
    for reader, writer in idle:  # all of them are known to the server
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    answer = await served.exchange(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert refusal(answer) == (503, "overloaded")
    idle[0][1].close()
    await idle[0][1].wait_closed()
    async with asyncio.timeout(PATIENCE):
        while True:  # until the server knows that it is gone
            answer = await served.exchange(
                b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            )
            if answer.startswith(b"HTTP/1.1 200"):
                break
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: h\r\nX: "])
async def test_a_head_that_does_not_come(serve: Callable[..., Served], begun: bytes) -> None:
    served = serve(GATEWAY_API_HEAD_TIMEOUT_SECONDS="0.1")
    assert await served.exchange(begun) == b""
    assert served.app.asked == 0


async def test_a_second_head_that_does_not_come(serve: Callable[..., Served]) -> None:
    served = serve(GATEWAY_API_HEAD_TIMEOUT_SECONDS="0.1")
    answer = await served.exchange(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHo")
    assert answer.count(b"HTTP/1.1 200 OK") == served.app.asked == 1


async def test_an_answer_that_nobody_reads(serve: Callable[..., Served]) -> None:
    served = serve(GATEWAY_API_WRITE_TIMEOUT_SECONDS="0.1")
    reader, writer = await served.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(b"GET /much HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await served.app.over.wait()
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await reader.readexactly(ANSWER)
    writer.close()


async def test_an_answer_that_is_read_slowly_arrives(serve: Callable[..., Served]) -> None:
    served = serve(GATEWAY_API_WRITE_TIMEOUT_SECONDS="5")
    reader, writer = await served.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(ANSWER)) == ANSWER
    writer.close()


MALFORMED = b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"


async def test_nothing_is_said_in_the_middle_of_an_answer(serve: Callable[..., Served]) -> None:
    served = serve()
    reader, writer = await served.connect()
    writer.write(b"GET /much HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    writer.write(MALFORMED)
    with suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(PIECE):
                assert not piece.strip(b"\0")
    writer.close()


async def test_nothing_is_said_that_would_be_the_answer_to_another(
    serve: Callable[..., Served],
) -> None:
    answer = await serve().exchange(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + MALFORMED)
    assert b"malformed" not in answer


@pytest.mark.parametrize(
    ("method", "version", "fields", "is_clear"),
    [
        (b"GET", "1.1", {b"host": [b"h.example:8080"]}, True),
        (b"GET", "1.1", {b"host": [b"[::1]:8080"], b"x": [b"1", b"2"]}, True),
        (b"GET", "1.0", {}, True),
        (b"POST", "1.1", {b"host": [b"h"], b"transfer-encoding": [b"Chunked"]}, True),
        (b"GET", "1.1", {b"host": [b"h"], b"upgrade": [b"WebSocket"]}, True),
        (b"POST", "1.1", {b"host": [b"h"], b"upgrade": [b"h2c"]}, True),
        (b"GET", "1.1", {}, False),
        (b"GET", "0.9", {b"host": [b"h"]}, False),
        (b"GET", "2.0", {b"host": [b"h"]}, False),
        (b"GET", "1.1", {b"host": [b"h", b"h"]}, False),
        (b"GET", "1.1", {b"host": [b"h/"]}, False),
        (b"GET", "1.1", {b"host": [b"h"], b"authorization": [b"a", b"b"]}, False),
        (b"POST", "1.1", {b"host": [b"h"], b"content-type": [b"a", b"b"]}, False),
        (b"POST", "1.1", {b"host": [b"h"], b"transfer-encoding": [b"gzip, chunked"]}, False),
        (b"POST", "1.0", {b"transfer-encoding": [b"chunked"]}, False),
        (b"POST", "1.1", {b"host": [b"h"], b"upgrade": [b"websocket"]}, False),
    ],
)
def test_heads_that_can_be_read_in_one_way_only(
    method: bytes, version: str, fields: dict[bytes, list[bytes]], is_clear: bool
) -> None:
    headers = [(name, value) for name, values in fields.items() for value in values]
    with nullcontext() if is_clear else pytest.raises(HeadAmbiguous):
        check_head(method, version, headers)
