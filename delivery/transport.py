"""httpx's transport interface over one pool of connections, for callbacks.

httpx is the interface, `delivery.engine` what is beneath it (httpx's own pool is quadratic in open
connections). At most `MAX_ANSWER` bytes of a body are read.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType

import httpx
from aiohttp.streams import StreamReader

from delivery.connections import (
    KEEP_ALIVE,
    Connections,
    Gate,
    SocketFactory,
    open_socket,
)
from delivery.deadlines import Deadlines, Progress
from delivery.engine import TransportFailed, ask, encode, within
from delivery.guard import AddressInfo

__all__ = [
    "KEEP_ALIVE",
    "MAX_ANSWER",
    "AddressInfo",
    "AiohttpTransport",
    "Answer",
    "Deadlines",
    "Gate",
    "SocketFactory",
    "TransportFailed",
    "open_socket",
]

MAX_ANSWER = 16 * 1024
"""How much of a body is read, in bytes; the connection is closed when there is more."""


class Answer(httpx.AsyncByteStream):
    """A body that has been read already: raw, with content codings still on.

    Attributes:
        body: at most `MAX_ANSWER` bytes.
        truncated: whether there was more.
    """

    def __init__(self, body: bytes, *, truncated: bool) -> None:
        self.body = body
        self.truncated = truncated

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in one piece."""
        yield self.body


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One pool of connections under one egress policy.

    `handle_async_request` returns when the answer is complete: the response's stream is an
    `Answer`, and its extensions hold `connect` and `first_byte` (µs from the start, or None). A
    `target` extension (bytes) is sent in place of the URL's path and query, byte for byte.

    Callers keep to `connections` requests at once, `per_endpoint` to one host and port: one more
    waits for a free connection within its own deadlines, and fails as `connect` without one.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        deadlines: Deadlines | None = None,
        connections: int = 512,
        keep: int | None = None,
        per_endpoint: int = 64,
        ssl_context: ssl.SSLContext | None = None,
        socket_factory: SocketFactory = open_socket,
    ) -> None:
        """Open the pool; needs a running event loop.

        Args:
            gate: says what may be dialled, and how.
            deadlines: of every exchange.
            connections: in use at once.
            keep: beyond this many open, idle ones are not kept; None for as many as may be in use.
            per_endpoint: in use at once to one host and port.
            ssl_context: None verifies against the system's authorities.
            socket_factory: makes the sockets for addresses that passed, or for the proxy.
        """
        self._deadlines = deadlines or Deadlines()
        self._connections = Connections(
            gate=gate,
            fill=MAX_ANSWER,
            connections=connections,
            keep=keep,
            per_endpoint=per_endpoint,
            ssl_context=ssl_context,
            socket_factory=socket_factory,
        )

    async def __aenter__(self) -> AiohttpTransport:
        """Return the transport, to be closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Close the transport."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the complete answer.

        Raises:
            TransportFailed: no complete answer; the code says why.
            DestinationDenied: the address may not be dialled; no socket was made for it.
        """
        if self._connections.closed:
            raise RuntimeError("the transport is closed")
        return await within(self._deadlines, partial(self._exchange, request))

    async def _exchange(self, request: httpx.Request, progress: Progress) -> httpx.Response:
        url = request.url
        target = request.extensions.get("target", url.raw_path)
        sent = encode(
            request.method.encode("ascii"), target, request.headers.raw, await _body(request)
        )
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        reply = await ask(self._connections, origin, sent, progress)
        try:
            answer = await _read_answer(reply.body)
        finally:
            reply.close()
        return httpx.Response(
            reply.status,
            headers=reply.headers,
            stream=answer,
            extensions=progress.extensions(),
        )


async def _body(request: httpx.Request) -> bytes:
    if isinstance(request.stream, httpx.ByteStream):
        return b"".join(request.stream)
    return await request.aread()


async def _read_answer(content: StreamReader) -> Answer:
    body = bytearray()
    while len(body) <= MAX_ANSWER and not content.at_eof():
        body += await content.readany()
    return Answer(bytes(body[:MAX_ANSWER]), truncated=len(body) > MAX_ANSWER)
