"""One request of any method, its answer streamed: for what the gateway fetches itself.

The rules are those of callbacks: no redirect is followed, no cookie or credential of the
environment is sent, every address is checked where its socket is made, every part has a deadline.
What differs is that the body is streamed, up to a limit, and that an origin which the operator
named in the settings is dialled wherever it is.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from aiohttp import AsyncResolver
from yarl import URL

from delivery.connections import Connections, Gate, SocketFactory, open_socket
from delivery.deadlines import Deadlines, Progress
from delivery.egress import Policy
from delivery.engine import Header, Reply, ask, encode, within
from delivery.errors import DeliveryError
from delivery.guard import anywhere
from delivery.proxy import Proxy, Via
from delivery.resolver import AresLookup, Lookup, PolicyResolver

_METHOD = re.compile(r"[A-Z]{3,20}", re.ASCII)
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_DIGITS = re.compile(r"\d{1,20}", re.ASCII)

Sink = Callable[[bytes], object]
"""Takes the body block by block."""

OnHead = Callable[[int, Mapping[str, str]], object]
"""Told the status and the headers before the first block."""


class AnswerTooLarge(DeliveryError):
    """The answer's body is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is larger than {limit} bytes")
        self.limit = limit


class SinkFailed(DeliveryError):
    """The sink, or who was told of the head, raised; the cause says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """Dial what `policy` allows: for URLs that clients choose.

    Attributes:
        policy: asked for every address.
        lookup: asked for every name; None asks the system's name servers.
        proxy: what the connection leads through, if there is one.
    """

    policy: Policy
    lookup: Lookup | None = None
    proxy: Proxy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Dial whatever the name stands for: for origins that the operator named in the settings.

    No proxy is used: where these are, the operator knows. Names are looked up as the system does,
    with its hosts file and search list, so that a service beside the gateway can be called by its
    short name.
    """


Reach = Guarded | Trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent.

    Attributes:
        method: upper case.
        url: absolute, with a scheme and host that the caller has vetted, no fragment; its path and
            query are sent byte for byte.
        headers: vetted by the caller; `host` and `content-length` are added.
        body: nothing is sent when empty.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came back; the body went to the sink.

    Attributes:
        status: 200 to 999; informational answers are passed over.
        headers: in the order they came, names in lower case, repeated ones joined by a comma.
        size: bytes of the body, content codings still on.
    """

    status: int
    headers: Mapping[str, str]
    size: int


async def fetch(
    request: Request,
    sink: Sink,
    *,
    limit: int,
    reach: Reach,
    deadlines: Deadlines,
    on_head: OnHead | None = None,
    ssl_context: ssl.SSLContext | None = None,
    socket_factory: SocketFactory = open_socket,
) -> Fetched:
    """Send `request` over a connection of its own, and give the answer's body to `sink`.

    Args:
        request: what is sent.
        sink: called on the event loop; it may block, the deadlines stand still meanwhile.
        limit: bytes of the body; a longer one is not read to its end.
        reach: which addresses are dialled.
        deadlines: of every part.
        on_head: told the status and the headers.
        ssl_context: None verifies against the system's authorities.
        socket_factory: makes the sockets for addresses that passed.

    Raises:
        TransportFailed: no complete answer; the code says why.
        DestinationDenied: the address may not be dialled; no socket was made for it.
        AnswerTooLarge: the body is longer than `limit`.
        SinkFailed: the sink or `on_head` raised.
    """
    if not _METHOD.fullmatch(request.method):
        raise ValueError(f"{request.method!r} is not a method")
    async with _gate(reach, deadlines) as gate:
        connections = Connections(
            gate=gate,
            fill=limit,
            connections=1,
            per_endpoint=1,
            ssl_context=ssl_context,
            socket_factory=socket_factory,
        )
        async with aclosing(connections):
            exchange = partial(_exchange, connections, request, sink, limit, on_head)
            return await within(deadlines, exchange)


@asynccontextmanager
async def _gate(reach: Reach, deadlines: Deadlines) -> AsyncIterator[Gate]:
    async with AsyncExitStack() as stack:
        match reach:
            case Guarded(policy=policy, lookup=lookup, proxy=proxy):
                resolver = PolicyResolver(lookup or _ares(stack), policy, deadline=deadlines.dns)
                stack.push_async_callback(resolver.close)
                via = None
                if proxy is not None:
                    via = Via(proxy=proxy, lookup=_ares(stack, search=True))
                yield Gate.under(policy, resolver, via)
            case Trusted():
                system = AsyncResolver(timeout=1.0, tries=2)
                stack.push_async_callback(system.close)
                yield Gate(check=anywhere, resolver=system)
            case _:
                assert_never(reach)


def _ares(stack: AsyncExitStack, *, search: bool = False) -> AresLookup:
    lookup = AresLookup(search=search)
    stack.push_async_callback(lookup.close)
    return lookup


async def _exchange(
    connections: Connections,
    request: Request,
    sink: Sink,
    limit: int,
    on_head: OnHead | None,
    progress: Progress,
) -> Fetched:
    url = URL(request.url, encoded=True)  # keeps yarl from re-quoting anything
    sent = encode(
        request.method.encode("ascii"),
        url.raw_path_qs.encode("ascii"),
        _framed(request, url),
        request.body,
    )
    is_head = request.method == "HEAD"
    reply = await ask(
        connections, f"{url.scheme}://{url.raw_authority}", sent, progress, no_body=is_head
    )
    try:
        headers = _headers(reply)
        if not is_head and _announced(headers) > limit:  # HEAD's speaks of another body
            raise AnswerTooLarge(limit)
        if on_head is not None:
            _guard(on_head, reply.status, headers)
        size = 0
        async for block in reply.body.iter_any():
            size += len(block)
            if size > limit:
                raise AnswerTooLarge(limit)
            _guard(sink, block)
    finally:
        reply.close()
    return Fetched(status=reply.status, headers=headers, size=size)


def _framed(request: Request, url: URL) -> list[Header]:
    framed = {"host": url.host_port_subcomponent or ""}
    framed |= {name.lower(): value for name, value in request.headers.items()}
    framed.pop("content-length", None)
    if request.body or request.method not in _BODILESS:
        framed["content-length"] = str(len(request.body))
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in framed.items()]


def _announced(headers: Mapping[str, str]) -> int:
    """Return how long the body says it is; 0 when it does not."""
    length = headers.get("content-length", "")
    return int(length) if _DIGITS.fullmatch(length) else 0


def _headers(reply: Reply) -> Mapping[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in reply.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _guard(call: Callable[..., object], *args: object) -> None:
    try:
        call(*args)
    except Exception as error:
        raise SinkFailed(type(error).__name__) from error
