"""Connections through an egress proxy (CONNECT: RFC 9110, section 9.3.6).

The proxy is told an address, never a name: names were looked up and vetted here, and a proxy that
looked them up again might find others. TLS goes through the tunnel to the destination, and is
verified against the name. The proxy itself is the operator's, and is dialled wherever it is.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from delivery.guard import AddressInfo
from delivery.resolver import Lookup

_MAX_HEAD = 8_192
_BLOCK = 1_024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")
_END = b"\r\n\r\n"


class ProxyFailed(OSError):
    """The proxy made no tunnel."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ECONNREFUSED, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy that takes CONNECT.

    Attributes:
        host: a name or a literal address, without brackets.
        port: 1 to 65535.
        authorization: what `Proxy-Authorization` says; None sends none.
    """

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the proxy that `url` (`http://user:password@host:port`) names; None for none.

        The URL is well-formed: the settings saw to it.
        """
        if not url:
            return None
        parts = urlsplit(url)
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(pair.encode()).decode("ascii")
        return cls(host=parts.hostname or "", port=parts.port or 0, authorization=authorization)


MakeSocket = Callable[[AddressInfo], socket.socket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Via:
    """A proxy, and what finds its address."""

    proxy: Proxy
    lookup: Lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnels:
    """Makes connections that lead through a proxy.

    Attributes:
        via: which; its address is not looked up where it is a literal one.
        make_socket: makes a socket to the proxy.
    """

    via: Via
    make_socket: MakeSocket

    async def open(self, addresses: Sequence[AddressInfo]) -> socket.socket:
        """Return a socket that leads to the first of `addresses` that the proxy can reach.

        Args:
            addresses: vetted by the caller; one at least.

        Raises:
            OSError: there is no way to any of them.
        """
        failure = OSError(errno.EADDRNOTAVAIL, "no address")
        for _, _, _, _, target in addresses:
            try:
                return await self._open(target[0], target[1])
            except OSError as error:
                failure = error
        raise failure

    async def _open(self, address: str, port: int) -> socket.socket:
        connection = await self._connect()
        try:
            await self._ask(connection, address, port)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self) -> socket.socket:
        failure = OSError(errno.EADDRNOTAVAIL, "the proxy has no address")
        loop = asyncio.get_running_loop()
        for address in await self._addresses():
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            place = (address, self.via.proxy.port)
            connection = self.make_socket(
                (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", place)
            )
            try:
                connection.setblocking(False)
                await loop.sock_connect(connection, place)
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
            else:
                return connection
        raise failure

    async def _addresses(self) -> Sequence[str]:
        host = self.via.proxy.host
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except OSError:
                continue
            return [host]
        return await self.via.lookup(host)

    async def _ask(self, connection: socket.socket, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        fields = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.via.proxy.authorization is not None:
            fields.append(f"Proxy-Authorization: {self.via.proxy.authorization}")
        await loop.sock_sendall(connection, "\r\n".join([*fields, "", ""]).encode("ascii"))
        head = bytearray()
        while _END not in head:
            block = await loop.sock_recv(connection, _BLOCK)
            if not block:
                raise ProxyFailed("the proxy hung up")
            head += block
            if len(head) > _MAX_HEAD:
                raise ProxyFailed("the proxy's answer is too long")
        status = _STATUS.match(head)
        if status is None or not status[1].startswith(b"2"):
            raise ProxyFailed("the proxy refused")
        if head.index(_END) + len(_END) < len(head):
            # Nobody on the other side speaks first: this would be taken for the answer.
            raise ProxyFailed("the proxy said more than was asked")
