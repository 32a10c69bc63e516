"""One request of any method, its answer streamed: for what the gateway fetches itself.

The rules are those of callbacks: no redirect is followed, no cookie or credential of the
environment is sent, every address is checked where its socket is made, every part has a deadline.
What differs is that the body is streamed, up to a limit, and that an origin which the operator
named in the settings is dialled wherever it is.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from delivery.egress import Policy, check_address
from delivery.engine import (
    AddressCheck,
    Deadlines,
    Progress,
    SocketFactory,
    open_session,
    open_socket,
    within,
)
from delivery.errors import DeliveryError
from delivery.resolver import AresLookup, Lookup, PolicyResolver

_METHOD = re.compile(r"[A-Z]{3,20}", re.ASCII)

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
    """

    policy: Policy
    lookup: Lookup | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """Dial whatever the name stands for: for origins that the operator named in the settings.

    Names are looked up as the system does, with its hosts file and search list, so that a service
    beside the gateway can be called by its short name.
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
    async with (
        _gate(reach, deadlines) as (check, resolver),
        open_session(
            check=check,
            resolver=resolver,
            fill=limit,
            connections=1,
            per_endpoint=1,
            ssl_context=ssl_context,
            socket_factory=socket_factory,
        ) as session,
    ):
        return await within(deadlines, partial(_exchange, session, request, sink, limit, on_head))


@asynccontextmanager
async def _gate(
    reach: Reach, deadlines: Deadlines
) -> AsyncIterator[tuple[AddressCheck, AbstractResolver]]:
    async with AsyncExitStack() as stack:
        match reach:
            case Guarded(policy=policy, lookup=lookup):
                if lookup is None:
                    lookup = AresLookup()
                    stack.push_async_callback(lookup.close)
                resolver = PolicyResolver(lookup, policy, deadline=deadlines.dns)
                stack.push_async_callback(resolver.close)
                yield partial(check_address, policy=policy), resolver
            case Trusted():
                system = aiohttp.AsyncResolver(timeout=1.0, tries=2)
                stack.push_async_callback(system.close)
                yield _any_address, system
            case _:
                assert_never(reach)


def _any_address(_address: str) -> None:
    """Let every address pass."""


async def _exchange(
    session: aiohttp.ClientSession,
    request: Request,
    sink: Sink,
    limit: int,
    on_head: OnHead | None,
    progress: Progress,
) -> Fetched:
    response = await session.request(
        request.method,
        URL(request.url, encoded=True),  # keeps yarl from re-quoting anything
        headers=CIMultiDict(request.headers),
        data=request.body or None,
        allow_redirects=False,
    )
    progress.on_answered(asyncio.get_running_loop().time())
    try:
        headers = _headers(response)
        if _announced(request, response) > limit:
            raise AnswerTooLarge(limit)
        if on_head is not None:
            _guard(on_head, response.status, headers)
        size = 0
        async for block in response.content.iter_any():
            size += len(block)
            if size > limit:
                raise AnswerTooLarge(limit)
            _guard(sink, block)
    finally:
        # No-op after a complete body; otherwise the connection is of no further use.
        response.close()
    return Fetched(status=response.status, headers=headers, size=size)


def _announced(request: Request, response: aiohttp.ClientResponse) -> int:
    """Return how long the body says it is; the answer to HEAD speaks of another one."""
    return 0 if request.method == "HEAD" else response.content_length or 0


def _headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in response.raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _guard(call: Callable[..., object], *args: object) -> None:
    try:
        call(*args)
    except Exception as error:
        raise SinkFailed(type(error).__name__) from error
