"""API keys and tenants over HTTP, for operators: scope `admin`, over all tenants.

Whatever is changed is in the audit log; a key itself is in no log and in one answer only.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from config.clock import Clock, rfc3339
from gateway.access import Access
from gateway.auth import TENANT, ApiKey, make_key
from gateway.bodies import read_json
from gateway.documents import instant
from gateway.faults import Fault
from gateway.keys import START, KeyStore, Place, Tenant
from gateway.listing import make_cursor, parse_cursor, parse_limit, parse_parameters
from gateway.problems import Problem
from gateway.resource import json_response, resource
from gateway.schemas.body import parse
from gateway.schemas.keys import KeyRequest, TenantRequest
from gateway.services import Services
from gateway.urls import Urls

_NO_STORE = {"Cache-Control": "no-store"}
_KEYS, _TENANTS = "/v1/admin/keys", "/v1/admin/tenants"


class KeysApi:
    """The addresses under `/v1/admin`."""

    def __init__(self, services: Services, access: Access, urls: Urls, keys: KeyStore) -> None:
        self._access = access
        self._urls = urls
        self._keys = keys
        self._audit = services.audit
        self._limits = services.settings.api
        self._clock: Clock = services.clock

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource(_KEYS, GET=self.list_keys, POST=self.create_key),
            resource(f"{_KEYS}/{{key_id}}", GET=self.show_key, DELETE=self.revoke_key),
            resource(_TENANTS, GET=self.list_tenants, POST=self.create_tenant),
        ]

    async def create_key(self, request: Request) -> Response:
        """`POST /v1/admin/keys`: 201 with a fresh key, which is shown this once."""
        principal = await self._access.principal(request, "admin")
        wanted = parse(KeyRequest, await self._body(request))
        now = self._clock.now()
        if wanted.expires_at is not None and wanted.expires_at <= now:
            fault = Fault("/expiresAt", "must lie in the future")
            raise Problem("invalid_request", "/expiresAt must lie in the future", faults=[fault])
        token, key = make_key(
            wanted.tenant or principal.tenant,
            wanted.scopes,
            now,
            name=wanted.name or "",
            expires_at=wanted.expires_at,
        )
        await self._audit.record(
            request,
            principal,
            "key.create",
            key.id,
            tenant=key.tenant,
            scopes=sorted(key.scopes),
            name=key.name or None,
            expiresAt=instant(key.expires_at),
        )
        await self._keys.put(key)
        document = self._key(key)
        headers = {**_NO_STORE, "Location": document["_links"]["self"]}
        return json_response({**document, "key": token}, 201, headers)

    async def list_keys(self, request: Request) -> Response:
        """`GET /v1/admin/keys`: everybody's keys, or one tenant's, oldest first."""
        await self._access.principal(request, "admin")
        given = parse_parameters(request.query_params.multi_items(), "tenant", "limit", "cursor")
        tenant = given.get("tenant")
        if tenant is not None and TENANT.fullmatch(tenant) is None:
            raise Problem("invalid_parameter", "tenant is none that can be")
        after = parse_cursor(given.get("cursor"), _is_key) or START
        found, place = await self._keys.list_keys(
            tenant, after=after, limit=parse_limit(given.get("limit"))
        )
        return self._page(_KEYS, given, [self._key(key) for key in found], place)

    async def show_key(self, request: Request) -> Response:
        """`GET /v1/admin/keys/{id}`: all about a key but the key."""
        await self._access.principal(request, "admin")
        return json_response(self._key(await self._find(request)), 200, _NO_STORE)

    async def revoke_key(self, request: Request) -> Response:
        """`DELETE /v1/admin/keys/{id}`: 204; within a second no process takes it any more."""
        principal = await self._access.principal(request, "admin")
        key = await self._find(request)
        await self._audit.record(request, principal, "key.revoke", key.id, tenant=key.tenant)
        if not await self._keys.revoke(key.id):
            raise _unknown()
        return Response(status_code=204, headers=_NO_STORE)

    async def create_tenant(self, request: Request) -> Response:
        """`POST /v1/admin/tenants`: 201 with the tenant, 200 when it existed."""
        principal = await self._access.principal(request, "admin")
        wanted = parse(TenantRequest, await self._body(request))
        await self._audit.record(
            request, principal, "tenant.create", wanted.id, tenant=wanted.id, name=wanted.name
        )
        tenant, made = await self._keys.put_tenant(wanted.id, wanted.name or "")
        return json_response(self._tenant(tenant), 201 if made else 200, _NO_STORE)

    async def list_tenants(self, request: Request) -> Response:
        """`GET /v1/admin/tenants`: who was made or has a key, oldest first."""
        await self._access.principal(request, "admin")
        given = parse_parameters(request.query_params.multi_items(), "limit", "cursor")
        after = parse_cursor(given.get("cursor"), _is_tenant) or START
        found, place = await self._keys.list_tenants(
            after=after, limit=parse_limit(given.get("limit"))
        )
        return self._page(_TENANTS, given, [self._tenant(each) for each in found], place)

    async def _find(self, request: Request) -> ApiKey:
        key_id = request.path_params["key_id"]
        key = await self._keys.read(key_id) if _is_key(key_id) else None
        if key is None:
            raise _unknown()
        return key

    async def _body(self, request: Request) -> Any:
        limits = self._limits
        return await read_json(request, limits)

    def _page(
        self, path: str, given: dict[str, str], items: list[dict[str, Any]], place: Place | None
    ) -> Response:
        cursor = make_cursor(place) if place else None
        headers = dict(_NO_STORE)
        if cursor:
            query = urlencode({**given, "cursor": cursor})
            headers["Link"] = f'<{self._urls.instance(path)}?{query}>; rel="next"'
        return json_response({"items": items, "nextCursor": cursor}, 200, headers)

    def _key(self, key: ApiKey) -> dict[str, Any]:
        return {
            "id": key.id,
            "name": key.name or None,
            "tenant": key.tenant,
            "scopes": sorted(key.scopes),
            "createdAt": rfc3339(key.created_at),
            "expiresAt": instant(key.expires_at),
            "_links": {"self": self._urls.instance(f"{_KEYS}/{key.id}")},
        }

    def _tenant(self, tenant: Tenant) -> dict[str, Any]:
        keys = f"{self._urls.instance(_KEYS)}?{urlencode({'tenant': tenant.id})}"
        return {
            "id": tenant.id,
            "name": tenant.name or None,
            "createdAt": rfc3339(tenant.created_at),
            "_links": {"keys": keys},
        }


def _is_key(text: str) -> bool:
    return ids.is_id("key", text)


def _is_tenant(text: str) -> bool:
    return TENANT.fullmatch(text) is not None


def _unknown() -> Problem:
    return Problem("not_found", "no API key of this identifier is known")
