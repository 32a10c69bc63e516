"""The audit log over HTTP: what admins and operators did, for scope `admin`."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from config.clock import rfc3339
from gateway.access import Access
from gateway.audit import Record
from gateway.listing import make_cursor, parse_cursor, parse_limit, parse_parameters
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.urls import Urls

_AUDIT = "/v1/admin/audit"


class AuditApi:
    """The address of the audit log."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._audit = services.audit
        self._access = access
        self._urls = urls

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [resource(_AUDIT, GET=self.list)]

    async def list(self, request: Request) -> Response:
        """`GET /v1/admin/audit`: the records of the key's tenant, newest first."""
        principal = await self._access.principal(request, "admin")
        given = parse_parameters(request.query_params.multi_items(), "limit", "cursor")
        found, place = await self._audit.read(
            principal.tenant,
            after=parse_cursor(given.get("cursor"), partial(ids.is_id, "aud")),
            limit=parse_limit(given.get("limit")),
        )
        cursor = make_cursor(place) if place else None
        headers = {"Cache-Control": "no-store"}
        if cursor:
            query = urlencode({**given, "cursor": cursor})
            headers["Link"] = f'<{self._urls.instance(_AUDIT)}?{query}>; rel="next"'
        items = [record_document(each) for each in found]
        return json_response({"items": items, "nextCursor": cursor}, 200, headers)


def record_document(record: Record) -> dict[str, Any]:
    """Return a record as people see it."""
    return {
        "id": record.id,
        "at": rfc3339(record.at),
        "action": record.action,
        "target": record.target,
        "tenant": record.tenant,
        "keyId": record.key_id,
        "keyTenant": record.key_tenant,
        "client": record.client,
        "requestId": record.request_id,
        "details": record.details,
    }
