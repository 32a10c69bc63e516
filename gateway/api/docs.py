"""The OpenAPI document over HTTP, and the page that shows it: everything the gateway's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.release import release
from gateway.models import compact
from gateway.openapi.document import openapi
from gateway.problems import Problem
from gateway.resource import matches, resource
from gateway.routes import job_routes
from gateway.services import Services
from gateway.urls import Urls

_PAGES: Final = Path(__file__).parents[1] / "pages"
_ASSETS: Final = {"docs.css": "text/css", "docs.js": "text/javascript"}
_CACHE: Final = {"Cache-Control": "public, no-cache"}
_PAGE_HEADERS: Final = {
    **_CACHE,
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class DocsApi:
    """The addresses of the documentation; they need no credentials.

    Raises:
        DefinitionError: a configured route cannot be had.
    """

    def __init__(self, services: Services, urls: Urls) -> None:
        types = services.registry.types()
        routes = job_routes(services.settings, services.registry)
        self._document = compact(openapi(urls, types, routes, release())).encode()
        self._files = {name: (_PAGES / name).read_bytes() for name in ("docs.html", *_ASSETS)}

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/openapi.json", GET=self.document),
            resource("/docs", GET=self.page),
            resource("/docs/{asset}", GET=self.asset),
        ]

    async def document(self, request: Request) -> Response:
        """`GET /openapi.json`: the document."""
        return _kept(request, self._document, "application/json", _CACHE)

    async def page(self, request: Request) -> Response:
        """`GET /docs`: the document as a page to read and to try."""
        return _kept(request, self._files["docs.html"], "text/html", _PAGE_HEADERS)

    async def asset(self, request: Request) -> Response:
        """`GET /docs/{asset}`: what the page is made of."""
        name = request.path_params["asset"]
        if name not in _ASSETS:
            raise Problem("not_found", "the page has no such part")
        return _kept(request, self._files[name], _ASSETS[name], _PAGE_HEADERS)


def _kept(request: Request, body: bytes, media_type: str, headers: dict[str, str]) -> Response:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**headers, "ETag": etag}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)
