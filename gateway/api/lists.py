"""`GET /v1/jobs`: the tenant's jobs, newest first, page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gateway.access import Access
from gateway.documents import document
from gateway.listing import join, make_cursor, parse_query
from gateway.models import View
from gateway.resource import json_response
from gateway.services import Services
from gateway.urls import Urls


class JobLists:
    """Answers for lists of jobs."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls

    async def list(self, request: Request) -> Response:
        """`GET /v1/jobs`: one page, and where the next one is."""
        principal = await self._access.principal(request, "read")
        query = parse_query(request.query_params.multi_items())
        parts = await self._services.jobs.list_jobs(principal.tenant, query)
        page, place = join(parts, query.limit)
        cursor = make_cursor(place) if place else None
        headers = {"Cache-Control": "no-store"}
        if cursor:
            headers["Link"] = f'<{self._next(request, cursor)}>; rel="next"'
        items = [self._item(view) for view in page]
        return json_response({"items": items, "nextCursor": cursor}, 200, headers)

    def _item(self, view: View) -> dict[str, Any]:
        item = document(view, urls=self._urls, ring=self._services.ring)
        del item["results"]
        return item

    def _next(self, request: Request, cursor: str) -> str:
        kept = [each for each in request.query_params.multi_items() if each[0] != "cursor"]
        return f"{self._urls.instance('/v1/jobs')}?{urlencode([*kept, ('cursor', cursor)])}"
