"""httpx's transport interface over one aiohttp session: the only place where sockets are made.

httpx is the interface, aiohttp the engine (httpx's own pool is quadratic in open connections). The
engine is stripped: no cookies, no redirects, no proxies or credentials from the environment, no
decompression, no headers of its own, at most `MAX_ANSWER` bytes of a body.

Every failure leaves as `TransportFailed`, an `httpx.TransportError` that carries the outcome's
code, so that errors are translated once, here. Only `DestinationDenied` and cancellation pass
beside it.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from delivery.egress import Policy, check_address
from delivery.errors import DestinationDenied
from delivery.outcomes import UnreachableCode

MAX_ANSWER = 16 * 1024
"""How much of a body is read, in bytes; the connection is closed when there is more."""

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers hang up, since a
request that crosses a hang-up is lost and a POST is not repeated behind the caller's back."""

_MICROSECONDS = 1_000_000
_MAX_LINE = 8_190
_MAX_HEADERS = 128
_MAX_HEAD = 32 * 1024  # of an answer, informational ones before it included
_MAX_RAW = 256 * 1024  # of an answer, chunk framing and trailers included
_PIECE = 8 * 1024  # what is parsed at once

logger = logging.getLogger(__name__)

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""family, type, protocol, canonical name, socket address: as `socket.getaddrinfo` gives it."""

SocketFactory = Callable[[AddressInfo], socket.socket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each part of an exchange may take.

    Attributes:
        dns: what the look-up may take; the resolver keeps to its own, this is added to the next for
            what comes before the first address is dialled.
        connect: from there until the connection, TLS included, over all addresses together.
        first_byte: from the connection until the final answer's head.
        total: everything, the body included.
    """

    dns: float = 3.0
    connect: float = 5.0
    first_byte: float = 15.0
    total: float = 20.0


class TransportFailed(httpx.TransportError):
    """No complete answer came; `code` names the step that failed."""

    def __init__(self, code: UnreachableCode, reason: str) -> None:
        super().__init__(reason)
        self.code: UnreachableCode = code


@dataclass(slots=True, kw_only=True)
class _Progress:
    """How far one exchange has come; times are the event loop's, in seconds."""

    deadlines: Deadlines
    timeout: asyncio.Timeout
    started: float
    dialled: bool = False
    denied: bool = False
    connected: float | None = None
    answered: float | None = None

    def on_dial(self, now: float) -> None:
        """Begin the connect deadline, at the first address only."""
        if not self.dialled:
            self.dialled = True
            self._allow(now + self.deadlines.connect)

    def on_connected(self, now: float) -> None:
        self.connected = now
        self._allow(now + self.deadlines.first_byte)

    def on_answered(self, now: float) -> None:
        self.answered = now
        self._allow(now + self.deadlines.total)

    def _allow(self, until: float) -> None:
        if not self.timeout.expired():
            self.timeout.reschedule(min(until, self.started + self.deadlines.total))

    def extensions(self) -> dict[str, Any]:
        """Return the times for the response, in µs from the start."""
        return {
            "connect": self._since_start(self.connected) if self.dialled else None,
            "first_byte": self._since_start(self.answered),
        }

    def _since_start(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * _MICROSECONDS)


# Tasks that aiohttp starts for one connection inherit it, and so do the sockets they ask for.
_PROGRESS: ContextVar[_Progress] = ContextVar("delivery_transport_progress")


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


class _Socket(socket.socket):
    """A socket that says when it is let go of, so that open ones can be counted."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close: what asyncio's own event loop does."""
        super().close()
        self._let_go()

    def detach(self) -> int:
        """Hand out the descriptor: what uvloop does, to close it by itself."""
        descriptor = super().detach()
        self._let_go()
        return descriptor

    def _let_go(self) -> None:
        if self.on_close is not None:
            self.on_close()
            self.on_close = None


def open_socket(address: AddressInfo) -> socket.socket:
    """Return a new socket of the address's family: the default `SocketFactory`."""
    family, kind, protocol, _, _ = address
    return _Socket(family, kind, protocol)


@dataclass(slots=True)
class _Dialler:
    """Makes sockets, after the address to be dialled has passed the policy."""

    policy: Policy
    factory: SocketFactory
    open: int = field(default=0, init=False)

    def __call__(self, address: AddressInfo) -> socket.socket:
        progress = _PROGRESS.get()
        try:
            check_address(address[4][0], self.policy)
        except DestinationDenied:
            # aiohttp may lose the error in a race between addresses; the mark stays.
            progress.denied = True
            raise
        made = self.factory(address)
        progress.on_dial(asyncio.get_running_loop().time())
        if isinstance(made, _Socket):
            self.open += 1
            made.on_close = self._closed
        return made

    def _closed(self) -> None:
        self.open -= 1


class _Protocol(ResponseHandler):
    """aiohttp's protocol, with bounds on what one exchange may make us parse.

    aiohttp parses all that arrived before the reader has its turn: a flood of informational
    answers, of tiny chunks, or of answers to nothing on an idle connection would hold up the event
    loop and fill the memory. Here bytes are parsed piece by piece, and no more than are needed.
    """

    _received = 0
    _answered = False

    def set_response_params(self, **params: Any) -> None:
        """Begin an exchange."""
        self._received = 0
        self._answered = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, until the exchange has all that it can use."""
        if len(data) <= _PIECE:
            self._parse(data)
            return
        for start in range(0, len(data), _PIECE):
            if not self.is_connected():
                return
            self._parse(data[start : start + _PIECE])

    def _parse(self, piece: bytes) -> None:
        if self._payload is not None and self._payload.total_bytes > MAX_ANSWER:
            return  # the reader has its fill and will close the connection
        self._received += len(piece)
        if self._received > (_MAX_RAW if self._answered else _MAX_HEAD):
            self._refuse("the answer is mostly framing")
            return
        super().data_received(piece)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Hand on one parsed head."""
        if data[0].code >= http.HTTPStatus.OK:
            if self._answered:
                self._refuse("an answer to nothing")
                return
            self._answered = True
        super().feed_data(data, size)

    def _refuse(self, reason: str) -> None:
        if self.transport is not None:
            self.transport.close()
        error = aiohttp.ClientError(reason)
        self.set_exception(error)
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(error)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector, telling the exchange when its connection is there."""

    def __init__(self, dialler: _Dialler, keep: int, **options: Any) -> None:
        super().__init__(socket_factory=dialler, **options)
        self._factory = cast("partial[ResponseHandler]", partial(_Protocol, loop=self._loop))
        self._dialler = dialler
        self._keep = keep

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's signature
    ) -> Any:
        connection = await super().connect(req, traces, timeout)
        _PROGRESS.get().on_connected(self._loop.time())
        if self._dialler.open > self._keep and connection.protocol is not None:
            # Idle connections are not counted by aiohttp's limit, but use up file descriptors.
            connection.protocol.force_close()
        return connection


_NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)
_NO_DEFAULT_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


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
        policy: Policy,
        resolver: AbstractResolver,
        deadlines: Deadlines | None = None,
        connections: int = 512,
        per_endpoint: int = 64,
        ssl_context: ssl.SSLContext | None = None,
        socket_factory: SocketFactory = open_socket,
    ) -> None:
        """Make the session; needs a running event loop.

        Args:
            policy: asked for every address that is dialled.
            resolver: asked for every name; it is not closed with the transport.
            deadlines: of every exchange.
            connections: in use at once; beyond this many open, idle ones are not kept.
            per_endpoint: in use at once to one host and port.
            ssl_context: None verifies against the system's authorities.
            socket_factory: makes the sockets for addresses that passed.
        """
        self._deadlines = deadlines or Deadlines()
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                _Dialler(policy, socket_factory),
                connections,
                resolver=resolver,
                use_dns_cache=False,
                limit=connections,
                limit_per_host=per_endpoint,
                keepalive_timeout=KEEP_ALIVE,
                ssl=ssl_context or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            requote_redirect_url=False,
            skip_auto_headers=_NO_DEFAULT_HEADERS,
            timeout=_NO_TIMEOUTS,
            read_bufsize=MAX_ANSWER,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
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
        await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return the complete answer.

        Raises:
            TransportFailed: no complete answer; the code says why.
            DestinationDenied: the address may not be dialled; no socket was made for it.
        """
        if self._session.closed:
            raise RuntimeError("the transport is closed")
        limits = self._deadlines
        now = asyncio.get_running_loop().time()
        timeout = asyncio.timeout_at(now + min(limits.dns + limits.connect, limits.total))
        progress = _Progress(deadlines=limits, timeout=timeout, started=now)
        token = _PROGRESS.set(progress)
        try:
            async with timeout:
                return await self._exchange(request, progress)
        except DestinationDenied:
            raise
        except Exception as error:
            if progress.denied:
                raise DestinationDenied from error
            raise _translate(error, progress) from error
        finally:
            _PROGRESS.reset(token)

    async def _exchange(self, request: httpx.Request, progress: _Progress) -> httpx.Response:
        response = await self._session.request(
            request.method,
            _engine_url(request),
            headers=CIMultiDict(
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw
            ),
            data=request.content or None,
            allow_redirects=False,
        )
        progress.on_answered(asyncio.get_running_loop().time())
        try:
            answer = await _read_answer(response)
        finally:
            # No-op after a complete body; otherwise the connection is of no further use.
            response.close()
        return httpx.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=answer,
            extensions=progress.extensions(),
        )


async def _read_answer(response: aiohttp.ClientResponse) -> Answer:
    content = response.content
    body = bytearray()
    while len(body) <= MAX_ANSWER and not content.at_eof():
        body += await content.readany()
    return Answer(bytes(body[:MAX_ANSWER]), truncated=len(body) > MAX_ANSWER)


def _engine_url(request: httpx.Request) -> URL:
    url = request.url
    target = request.extensions.get("target", url.raw_path)
    return _build_url(url.raw_scheme, url.netloc, target)


@lru_cache(maxsize=4_096)
def _build_url(scheme: bytes, netloc: bytes, target: bytes) -> URL:
    # `encoded` keeps yarl from reading, folding or re-quoting anything.
    return URL((b"%b://%b%b" % (scheme, netloc, target)).decode("ascii"), encoded=True)


_FAULTS: tuple[tuple[type[Exception], UnreachableCode, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the name has no address"),
    (aiohttp.ClientSSLError, "tls", "the TLS handshake failed"),
    (aiohttp.ClientConnectorError, "connect", "no connection could be made"),
    (aiohttp.ClientPayloadError, "reset", "the answer's body broke off"),
    (aiohttp.ClientConnectionError, "reset", "the connection ended before the answer"),
    (ConnectionError, "reset", "the connection ended before the answer"),
    (aiohttp.ClientError, "malformed", "the answer is not HTTP"),
)


def _translate(error: Exception, progress: _Progress) -> TransportFailed:
    """Return the one error for everything that aiohttp can raise; the first match counts."""
    if isinstance(error, TimeoutError):
        if progress.connected is None:
            return TransportFailed("connect", "no connection in time")
        return TransportFailed("timeout", "no complete answer in time")
    for kind, code, reason in _FAULTS:
        if isinstance(error, kind):
            return TransportFailed(code, reason)
    # Nothing a receiver sends may end the sender, not even through a fault of the engine.
    logger.error("delivery.transport_fault", exc_info=error)
    return TransportFailed("malformed", "the answer could not be read")
