"""What every request passes through, whatever its address: who sent it, its identifier, how many
are in hand, what browsers may do with the answer.

Pure ASGI, so that streams pass through unbuffered. `Edge` is the outermost layer: what it adds is
on every answer, those to unforeseen errors included.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.ids import random_text
from config.log import about, subject
from config.sections import ApiSettings
from gateway.problems import Problem

REQUEST_ID = "X-Request-Id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}", re.ASCII)
_PROBES = frozenset({"/livez", "/readyz"})
_HSTS = "max-age=31536000"
_PREFLIGHT_SECONDS = 600

METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
ALLOWED = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, If-Range, Last-Event-ID, Prefer,"
    " Range, Traceparent, Tracestate, X-Request-Id"
)
EXPOSED = (
    "Location, Retry-After, ETag, Link, RateLimit, RateLimit-Policy, Preference-Applied,"
    " Idempotent-Replayed, Content-Range, X-Request-Id"
)

Network = IPv4Network | IPv6Network
Refuse = Callable[[Scope, Problem], Response]


def current_request_id() -> str | None:
    """Return the identifier of the request under way; None outside of any."""
    return subject("request")


def request_id(given: str | None) -> str:
    """Return the identifier of a request: the client's if it is well-formed, else a fresh one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{random_text(22)}"


def client_of(peer: str, forwarded: Sequence[str], trusted: Iterable[Network]) -> str:
    """Return who sent a request: the last address that no trusted proxy vouches for.

    Args:
        peer: the address of the connection.
        forwarded: the `X-Forwarded-For` headers, in order.
        trusted: networks of the proxies that are believed.
    """
    networks = tuple(trusted)
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    client = peer
    while hops and _is_in(client, networks):
        hop = hops.pop()
        if not _is_address(hop):
            break
        client = hop
    return client


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    if not _is_address(address):
        return False
    parsed = ip_address(address)
    return any(parsed.version == each.version and parsed in each for each in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Edge:
    """The outermost layer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        api: ApiSettings,
        public_url: str,
        refuse: Refuse,
        answered: Callable[[str, int], None] = lambda _method, _status: None,
    ) -> None:
        """Stand before `app`.

        Args:
            app: answers.
            api: the limits.
            public_url: says whether it is https outside.
            refuse: writes the answer to a problem.
            answered: hears the method and the status of each answer to a request.
        """
        self._app = app
        self._refuse = refuse
        self._answered = answered
        self._is_https = public_url.startswith("https://")
        self._origins = frozenset(api.cors_origins)
        self._proxies = tuple(ip_network(each) for each in api.trusted_proxies)
        self._most = api.max_concurrent_requests
        self._patience = api.read_timeout_seconds
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identifier = request_id(headers.get(REQUEST_ID))
        self._believe_proxies(scope, headers)
        with about(request=identifier):
            await self._answer(scope, receive, send, headers, identifier)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, identifier: str
    ) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(scope["method"], message["status"])
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                self._add_headers(MutableHeaders(scope=message), headers, identifier)
            await send(message)

        if b"%2f" in scope.get("raw_path", b"").lower():
            # Data and no delimiter (RFC 3986, section 2.2), but decoded by now: whoever keeps
            # others from an address before the gateway may have read it so.
            problem = Problem("not_found", "there is nothing at this address")
            await self._refuse(scope, problem)(scope, receive, tell)
        elif scope["type"] == "http":
            await self._serve(scope, headers, _patient(receive, self._patience), tell)
        else:
            await self._app(scope, receive, tell)

    def _believe_proxies(self, scope: Scope, headers: Headers) -> None:
        peer = scope.get("client")
        if not self._proxies or peer is None or not _is_in(peer[0], self._proxies):
            return
        client = client_of(peer[0], headers.getlist("x-forwarded-for"), self._proxies)
        if client != peer[0]:
            scope["client"] = (client, 0)
        scheme = headers.get("x-forwarded-proto", "").strip().lower()
        if scheme in {"http", "https"}:
            is_socket = scope["type"] == "websocket"
            scope["scheme"] = scheme.replace("http", "ws") if is_socket else scheme

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if self._is_preflight(scope, headers):
            answer = Response(status_code=204, headers=_preflight_headers())
            await answer(scope, receive, send)
            return
        if self._in_hand >= self._most and scope["path"] not in _PROBES:
            problem = Problem("overloaded", "too many requests are in hand", retry_after=1)
            await self._refuse(scope, problem)(scope, receive, send)
            return
        await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, which is in hand until its answer begins or it is over."""
        is_in_hand = True
        self._in_hand += 1

        def done() -> None:
            nonlocal is_in_hand
            self._in_hand -= is_in_hand
            is_in_hand = False

        async def tell(message: Message) -> None:
            done()
            await send(message)

        try:
            await self._app(scope, receive, tell)
        finally:
            done()

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        return (
            scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
            and self._allows(headers.get("origin"))
        )

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and ("*" in self._origins or origin in self._origins)

    def _add_headers(self, answer: MutableHeaders, asked: Headers, identifier: str) -> None:
        answer[REQUEST_ID] = identifier
        answer["X-Content-Type-Options"] = "nosniff"
        answer["Referrer-Policy"] = "no-referrer"
        if self._is_https:
            answer["Strict-Transport-Security"] = _HSTS
        if answer.get("content-type", "").startswith("text/html"):
            answer["X-Frame-Options"] = "DENY"
            # Beside the policy of the page, whatever that is: both are in force.
            answer.append("Content-Security-Policy", "frame-ancestors 'none'")
        if not self._origins:
            return
        answer.add_vary_header("Origin")
        origin = asked.get("origin")
        if origin is not None and self._allows(origin):
            answer["Access-Control-Allow-Origin"] = "*" if "*" in self._origins else origin
            answer["Access-Control-Expose-Headers"] = EXPOSED


def _preflight_headers() -> dict[str, str]:
    return {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": ALLOWED,
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }


def _patient(receive: Receive, seconds: float) -> Callable[[], Awaitable[Message]]:
    """Return `receive`, giving up on a body of which nothing comes for so long."""
    has_more = True

    async def receive_patiently() -> Message:
        nonlocal has_more
        if not has_more:
            return await receive()
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError:
            message = {"type": "http.disconnect"}
        has_more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    return receive_patiently
