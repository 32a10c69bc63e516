"""One HTTP/1.1 exchange under deadlines: request bytes out, the final answer's head and body in.

aiohttp's client, stripped: its connections and its parser (`delivery.connections`), without
cookies, redirects, proxies or credentials from the environment, decompression, or headers of its
own. `delivery.transport` sends callbacks over it, `delivery.fetch` streams bodies. Every failure
leaves as `TransportFailed`, so that errors are translated once, here. Only `DestinationDenied` and
cancellation pass beside it.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import aiohttp
import httpx
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import EofStream, StreamReader

from delivery.connections import Connections, ReceiverProtocol
from delivery.deadlines import PROGRESS, Deadlines, Progress
from delivery.errors import DeliveryError, DestinationDenied
from delivery.outcomes import UnreachableCode

CROSSING = 1.0
"""Seconds in which a hang-up on a kept connection counts as having crossed the request. It shows
within a round trip; what comes later is what the receiver made of the request."""

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

T = TypeVar("T")


class TransportFailed(httpx.TransportError, DeliveryError):
    """No complete answer came; `code` names the step that failed."""

    def __init__(self, code: UnreachableCode, reason: str) -> None:
        super().__init__(reason)
        self.code: UnreachableCode = code


async def within(deadlines: Deadlines, exchange: Callable[[Progress], Awaitable[T]]) -> T:
    """Run `exchange`, all that may wait in it, under `deadlines`.

    Raises:
        TransportFailed: no complete answer; the code says why.
        DestinationDenied: the address may not be dialled; no socket was made for it.
        DeliveryError: as `exchange` raised it.
    """
    progress = Progress.begin(deadlines)
    token = PROGRESS.set(progress)
    try:
        with progress.alarm:
            return await exchange(progress)
    except DeliveryError:
        raise
    except Exception as error:
        if progress.denied:
            raise DestinationDenied from error
        raise _translate(error, progress) from error
    finally:
        PROGRESS.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The final answer's head, and its body as it comes: raw, with content codings still on."""

    status: int
    headers: Sequence[Header]
    body: StreamReader
    connection: Connection

    def close(self) -> None:
        """Keep the connection after a complete body; otherwise it is of no further use."""
        if self.body.is_eof():
            self.connection.release()
        else:
            self.connection.close()


def encode(method: bytes, target: bytes, headers: Sequence[Header], body: bytes) -> bytes:
    """Return the request as it is sent; `headers` hold `host` and frame the body.

    Raises:
        ValueError: a line end or NUL where none may be.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    lines += [b"%b: %b\r\n" % header for header in headers]
    head = b"".join(lines)
    # Whoever called has vetted all of it; a request that splits in two must not depend on that.
    if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
        raise ValueError("a header holds a line end")
    return head + b"\r\n" + body


async def ask(
    connections: Connections,
    origin: str,
    request: bytes,
    progress: Progress,
    *,
    no_body: bool = False,
) -> Reply:
    """Send `request` to `origin` and return the answer, which is to be closed.

    A kept connection that the receiver closed while it was idle is noticed too late when that
    crosses the request. Then it is sent once more, over a new connection.

    Args:
        connections: where one is taken from.
        origin: `scheme://host[:port]`.
        request: from `encode`.
        progress: of this exchange.
        no_body: the request is HEAD.
    """
    loop = asyncio.get_running_loop()
    while True:
        connection = await connections.to(origin, no_body=no_body)
        protocol = cast(ReceiverProtocol, connection.protocol)
        sent = loop.time()
        try:
            message, body = await _converse(protocol, request)
        except BaseException as error:
            connection.close()
            was_kept = not progress.dialled
            if not (was_kept and _crossed(error, protocol, loop.time() - sent)):
                raise
            progress.on_hung_up(loop.time())
            continue
        progress.on_answered(loop.time())
        return Reply(
            status=message.code, headers=message.raw_headers, body=body, connection=connection
        )


def _crossed(error: BaseException, protocol: ReceiverProtocol, after: float) -> bool:
    """Tell whether the receiver hung up without having seen the request that was just sent."""
    hung_up = isinstance(error, aiohttp.ClientConnectionError | ConnectionError)
    return hung_up and protocol.is_silent and after < CROSSING


async def _converse(
    protocol: ReceiverProtocol, request: bytes
) -> tuple[RawResponseMessage, StreamReader]:
    if protocol.transport is None:
        raise aiohttp.ServerDisconnectedError
    protocol.transport.write(request)
    while True:
        message, body = await protocol.read()
        if message.code >= http.HTTPStatus.OK or message.code == _SWITCHING:
            return message, body


_SWITCHING = http.HTTPStatus.SWITCHING_PROTOCOLS

_FAULTS: tuple[tuple[type[Exception], UnreachableCode, str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns", "the name has no address"),
    (aiohttp.ClientSSLError, "tls", "the TLS handshake failed"),
    (aiohttp.ClientConnectorError, "connect", "no connection could be made"),
    (aiohttp.ClientPayloadError, "reset", "the answer's body broke off"),
    (aiohttp.ClientConnectionError, "reset", "the connection ended before the answer"),
    (ConnectionError, "reset", "the connection ended before the answer"),
    (EofStream, "reset", "the connection ended before the answer"),
    (aiohttp.ClientError, "malformed", "the answer is not HTTP"),
    (HttpProcessingError, "malformed", "the answer is not HTTP"),
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
