"""Connections to receivers: where sockets are made, kept while idle, and bounded.

aiohttp's connector and parser, guarded: each address is checked where its socket is made, and what
an answer's framing may cost is limited.
"""

from __future__ import annotations

import asyncio
import http
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Self, cast

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from delivery.deadlines import PROGRESS
from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.guard import AddressInfo, Guard
from delivery.proxy import Tunnels, Via

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which common servers hang up, since a
request that crosses a hang-up is sent twice."""

_MAX_LINE = 8_190
_MAX_HEADERS = 128
_MAX_HEAD = 32 * 1024  # of an answer, informational ones before it included
_MAX_FRAMING = 256 * 1024  # chunk framing and trailers, beyond as much again as the body
_PIECE = 8 * 1024  # what is parsed at once
_READ_AHEAD = 64 * 1024  # what waits for a slow reader; aiohttp lets it double

SocketFactory = Callable[[AddressInfo], socket.socket]

AddressCheck = Callable[[str, str, int], None]
"""Takes a host, an address it stands for, and a port; raises `DestinationDenied` unless the address
may be dialled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What stands between a URL and a connection.

    Attributes:
        check: asked for every address that is dialled.
        resolver: asked for every name; whoever made it closes it.
        via: the proxy that all connections lead through, if there is one.
    """

    check: AddressCheck
    resolver: AbstractResolver
    via: Via | None = None

    @classmethod
    def under(cls, policy: Policy, resolver: AbstractResolver, via: Via | None = None) -> Self:
        """Return the gate that lets through what `policy` allows."""
        return cls(check=Guard(policy=policy), resolver=resolver, via=via)


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
        self.vet(address)
        return self.make(address)

    def vet(self, address: AddressInfo) -> None:
        """Return when `address` may be dialled for the exchange under way.

        Raises:
            DestinationDenied: it may not.
        """
        progress = PROGRESS.get()
        try:
            self.check(progress.host, address[4][0], address[4][1])
        except DestinationDenied:
            # aiohttp may lose the error in a race between addresses; the mark stays.
            progress.denied = True
            raise

    def make(self, address: AddressInfo) -> socket.socket:
        """Return a socket for `address`, which is dialled next."""
        made = self.factory(address)
        PROGRESS.get().on_dial(asyncio.get_running_loop().time())
        if isinstance(made, _Socket):
            self.open += 1
            made.on_close = self._closed
        return made

    def _closed(self) -> None:
        self.open -= 1


class ReceiverProtocol(ResponseHandler):
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

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come since the exchange began."""
        return self._received == 0

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


class Origin(aiohttp.ClientRequest):
    """A scheme, host and port, in the shape in which aiohttp's connector wants to be asked."""

    def __init__(self, origin: str, loop: asyncio.AbstractEventLoop) -> None:
        """Name the origin `scheme://host[:port]`."""
        # `encoded` keeps yarl from reading, folding or re-quoting anything.
        super().__init__("POST", URL(origin, encoded=True), loop=loop)
        self._key = super().connection_key

    @property
    def connection_key(self) -> ConnectionKey:
        """What connections are kept under."""
        return self._key


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector, telling the exchange when its connection is there."""

    def __init__(
        self,
        dialler: _Dialler,
        *,
        keep: int,
        fill: int,
        tunnels: Tunnels | None,
        **options: Any,
    ) -> None:
        super().__init__(socket_factory=dialler, **options)
        self._factory = cast(
            "partial[ResponseHandler]", partial(ReceiverProtocol, loop=self._loop, fill=fill)
        )
        self._dialler = dialler
        self._keep = keep
        self._tunnels = tunnels

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's signature
    ) -> Connection:
        progress = PROGRESS.get()
        progress.host = (req.url.raw_host or "").lower()
        connection = await super().connect(req, traces, timeout)
        progress.on_connected(self._loop.time())
        if self._dialler.open > self._keep and connection.protocol is not None:
            # Idle connections are not counted by aiohttp's limit, but use up file descriptors.
            connection.protocol.force_close()
        return connection

    async def _get(self, key: ConnectionKey, traces: list[Any]) -> Connection | None:
        return None if PROGRESS.get().anew else await super()._get(key, traces)

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[AddressInfo], req: aiohttp.ClientRequest, **options: Any
    ) -> Any:
        """Make a connection to one of `addr_infos`, through the proxy where there is one."""
        if self._tunnels is None:
            return await super()._wrap_create_connection(
                *args, addr_infos=addr_infos, req=req, **options
            )
        for address in addr_infos:
            self._dialler.vet(address)
        try:
            tunnel = await self._tunnels.open(addr_infos)
        except OSError as error:
            addr_infos.clear()  # all of them were tried
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        try:
            return await self._wrap_existing_connection(*args, sock=tunnel, req=req, **options)
        except BaseException:
            tunnel.close()
            raise


_ORIGINS = 4_096
_NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_read=None, sock_connect=None)


class Connections:
    """A pool of connections, for exchanges that each run under a `Progress`."""

    def __init__(
        self,
        *,
        gate: Gate,
        fill: int,
        connections: int,
        per_endpoint: int,
        keep: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        socket_factory: SocketFactory = open_socket,
    ) -> None:
        """Open the pool; needs a running loop.

        Args:
            gate: says what may be dialled, and how.
            fill: bytes of a body that are parsed; the reader stops there.
            connections: in use at once.
            per_endpoint: in use at once to one host and port.
            keep: beyond this many open, idle ones are not kept; None for as many as may be in use.
            ssl_context: None verifies against the system's authorities.
            socket_factory: makes the sockets for addresses that passed, or for the proxy.
        """
        dialler = _Dialler(gate.check, socket_factory)
        self._loop = asyncio.get_running_loop()
        self._read_ahead = min(fill, _READ_AHEAD)
        self._origin = lru_cache(maxsize=_ORIGINS)(partial(Origin, loop=self._loop))
        self._connector = _Connector(
            dialler,
            tunnels=Tunnels(via=gate.via, make_socket=dialler.make) if gate.via else None,
            keep=connections if keep is None else keep,
            fill=fill,
            resolver=gate.resolver,
            use_dns_cache=False,
            limit=connections,
            limit_per_host=per_endpoint,
            keepalive_timeout=KEEP_ALIVE,
            ssl=ssl_context or True,
        )

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._connector.closed

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connector.close()

    async def to(self, origin: str, *, no_body: bool) -> Connection:
        """Return a connection to `origin`, ready for one request; it is to be released or closed.

        Args:
            origin: `scheme://host[:port]`.
            no_body: the answer will have none, whatever its head says: it is HEAD's.
        """
        connection = await self._connector.connect(self._origin(origin), [], _NO_TIMEOUTS)
        cast(ReceiverProtocol, connection.protocol).set_response_params(
            skip_payload=no_body,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=self._read_ahead,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )
        return connection
