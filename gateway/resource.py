"""One address and the methods it takes, and the ways answers are written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.models import compact
from gateway.problems import Problem

Handler = Callable[[Request], Awaitable[Response]]


class Resource:
    """Answers an address by method: HEAD as GET, OPTIONS to anyone, the rest with 405 and Allow."""

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = dict(methods)
        allowed = {*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        self._allow = ", ".join(sorted(allowed))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        request = Request(scope, receive, send)
        response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": self._allow})
        handler = self._methods.get(method)
        if handler is None:
            raise Problem(
                "method_not_allowed",
                f"this address takes {self._allow}",
                headers={"Allow": self._allow},
            )
        return await handler(request)


def resource(path: str, **methods: Handler) -> Route:
    """Return the route of `path`, with a handler for each method it takes."""
    return Route(path, Resource(methods))


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer with `value` as compact JSON on a line of its own, for terminals."""
    return Response(compact(value).encode() + b"\n", status, headers, media_type="application/json")


def matches(header: str | None, etag: str) -> bool:
    """Tell whether an `If-None-Match` header names `etag`, compared weakly (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    wanted = etag.removeprefix("W/")
    names = {name.strip().removeprefix("W/") for name in header.split(",")}
    return header.strip() == "*" or wanted in names
