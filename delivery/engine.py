"""aiohttp, stripped and bounded: the only place where sockets are made.

Stripped: no cookies, no redirects, no proxies or credentials from the environment, no
decompression, no headers of its own. Bounded: deadlines for every part of an exchange, and a limit
on what an answer's framing may cost. Guarded: each address is checked where its socket is made.

`delivery.transport` sends callbacks over it, `delivery.fetch` streams bodies. Every failure leaves
as `TransportFailed`, so that errors are translated once, here. Only `DestinationDenied` and
cancellation pass beside it.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from delivery.errors import DeliveryError, DestinationDenied
from delivery.outcomes import UnreachableCode

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers hang up, since a
request that crosses a hang-up is lost and a POST is not repeated behind the caller's back."""

_MICROSECONDS = 1_000_000
_MAX_LINE = 8_190
_MAX_HEADERS = 128
_MAX_HEAD = 32 * 1024  # of an answer, informational ones before it included
_MAX_FRAMING = 256 * 1024  # chunk framing and trailers, beyond as much again as the body
_PIECE = 8 * 1024  # what is parsed at once
_READ_AHEAD = 64 * 1024  # what waits for a slow reader; aiohttp lets it double

logger = logging.getLogger(__name__)

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""family, type, protocol, canonical name, socket address: as `socket.getaddrinfo` gives it."""

SocketFactory = Callable[[AddressInfo], socket.socket]

AddressCheck = Callable[[str], None]
"""Returns when the address may be dialled; raises `DestinationDenied`."""

T = TypeVar("T")


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


class TransportFailed(httpx.TransportError, DeliveryError):
    """No complete answer came; `code` names the step that failed."""

    def __init__(self, code: UnreachableCode, reason: str) -> None:
        super().__init__(reason)
        self.code: UnreachableCode = code


@dataclass(slots=True, kw_only=True)
class Progress:
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
        """Begin the deadline of the first byte."""
        self.connected = now
        self._allow(now + self.deadlines.first_byte)

    def on_answered(self, now: float) -> None:
        """Leave only the deadline of everything."""
        self.answered = now
        self._allow(now + self.deadlines.total)

    def _allow(self, until: float) -> None:
        if not self.timeout.expired():
            self.timeout.reschedule(min(until, self.started + self.deadlines.total))

    def extensions(self) -> dict[str, Any]:
        """Return the times for a response, in µs from the start."""
        return {
            "connect": self._since_start(self.connected) if self.dialled else None,
            "first_byte": self._since_start(self.answered),
        }

    def _since_start(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * _MICROSECONDS)


# Tasks that aiohttp starts for one connection inherit it, and so do the sockets they ask for.
_PROGRESS: ContextVar[Progress] = ContextVar("delivery_engine_progress")


async def within(deadlines: Deadlines, exchange: Callable[[Progress], Awaitable[T]]) -> T:
    """Run `exchange`, all that may wait in it, under `deadlines`.

    Raises:
        TransportFailed: no complete answer; the code says why.
        DestinationDenied: the address may not be dialled; no socket was made for it.
        DeliveryError: as `exchange` raised it.
    """
    now = asyncio.get_running_loop().time()
    timeout = asyncio.timeout_at(now + min(deadlines.dns + deadlines.connect, deadlines.total))
    progress = Progress(deadlines=deadlines, timeout=timeout, started=now)
    token = _PROGRESS.set(progress)
    try:
        async with timeout:
            return await exchange(progress)
    except DeliveryError:
        raise
    except Exception as error:
        if progress.denied:
            raise DestinationDenied from error
        raise _translate(error, progress) from error
    finally:
        _PROGRESS.reset(token)


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
    """Makes sockets, after the address to be dialled has passed the check."""

    check: AddressCheck
    factory: SocketFactory
    open: int = field(default=0, init=False)

    def __call__(self, address: AddressInfo) -> socket.socket:
        progress = _PROGRESS.get()
        try:
            self.check(address[4][0])
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

    def __init__(self, loop: asyncio.AbstractEventLoop, fill: int) -> None:
        """Parse at most `fill` bytes of a body, and what one piece holds beyond."""
        super().__init__(loop)
        self._fill = fill
        self._received = 0
        self._answered = False

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
        body = 0 if self._payload is None else self._payload.total_bytes
        if body > self._fill:
            return  # the reader has its fill and will close the connection
        self._received += len(piece)
        if self._received > (_MAX_FRAMING + 2 * body if self._answered else _MAX_HEAD):
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

    def __init__(self, dialler: _Dialler, *, keep: int, fill: int, **options: Any) -> None:
        super().__init__(socket_factory=dialler, **options)
        self._factory = cast(
            "partial[ResponseHandler]", partial(_Protocol, loop=self._loop, fill=fill)
        )
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


def open_session(
    *,
    check: AddressCheck,
    resolver: AbstractResolver,
    fill: int,
    connections: int,
    per_endpoint: int,
    keep: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    socket_factory: SocketFactory = open_socket,
) -> aiohttp.ClientSession:
    """Return a session whose exchanges must each run `within` deadlines; needs a running loop.

    Args:
        check: asked for every address that is dialled.
        resolver: asked for every name; it is not closed with the session.
        fill: bytes of a body that are parsed; the reader stops there.
        connections: in use at once; beyond `KEPT_PER_USED` times as many, idle ones are not kept.
        per_endpoint: in use at once to one host and port.
        ssl_context: None verifies against the system's authorities.
        socket_factory: makes the sockets for addresses that passed.
    """
    return aiohttp.ClientSession(
        connector=_Connector(
            _Dialler(check, socket_factory),
            keep=connections if keep is None else keep,
            fill=fill,
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
        read_bufsize=min(fill, _READ_AHEAD),
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
        max_headers=_MAX_HEADERS,
    )


_FAULTS: tuple[tuple[type[Exception], UnreachableCode, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the name has no address"),
    (aiohttp.ClientSSLError, "tls", "the TLS handshake failed"),
    (aiohttp.ClientConnectorError, "connect", "no connection could be made"),
    (aiohttp.ClientPayloadError, "reset", "the answer's body broke off"),
    (aiohttp.ClientConnectionError, "reset", "the connection ended before the answer"),
    (ConnectionError, "reset", "the connection ended before the answer"),
    (aiohttp.ClientError, "malformed", "the answer is not HTTP"),
)


def _translate(error: Exception, progress: Progress) -> TransportFailed:
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
