"""Callback endpoints over HTTP: the tenant's origins, their health."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.clock import rfc3339
from delivery.configure import policy_of
from delivery.endpoints import Endpoint, register
from gateway.access import Access
from gateway.bodies import read_json
from gateway.documents import instant
from gateway.drafts import destination_of
from gateway.reading import read_endpoint
from gateway.resource import json_response, resource
from gateway.schemas import parse_endpoint
from gateway.services import Services
from gateway.urls import Urls

_NO_STORE = {"Cache-Control": "no-store"}


class EndpointsApi:
    """The addresses under `/v1/endpoints`."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._policy = policy_of(services.settings.delivery)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/endpoints", GET=self.list, POST=self.register),
            resource("/v1/endpoints/{endpoint_id}", GET=self.show),
        ]

    async def register(self, request: Request) -> Response:
        """`POST /v1/endpoints`: 201 with the endpoint of a URL, 200 when it existed."""
        principal = await self._access.principal(request, "submit")
        services = self._services
        limits = services.settings.api
        value = await read_json(request, limit=limits.body_limit_bytes, depth=limits.json_depth)
        destination = destination_of(parse_endpoint(value).url, self._policy, "/url")
        registration = register(
            principal.tenant, destination, services.ring, services.settings.store.partitions
        )
        endpoint, created = await services.deliveries.register_endpoint(registration)
        headers = {**_NO_STORE, "Location": self._urls.endpoint(endpoint.id)}
        return json_response(self._document(endpoint), 201 if created else 200, headers)

    async def list(self, request: Request) -> Response:
        """`GET /v1/endpoints`: the tenant's endpoints, oldest first."""
        principal = await self._access.principal(request, "read")
        found = await self._services.deliveries.list_endpoints(principal.tenant)
        return json_response({"items": [self._document(each) for each in found]}, 200, _NO_STORE)

    async def show(self, request: Request) -> Response:
        """`GET /v1/endpoints/{id}`: one endpoint and how it does."""
        principal = await self._access.principal(request, "read")
        endpoint = await read_endpoint(
            self._services.deliveries, request.path_params["endpoint_id"], tenant=principal.tenant
        )
        return json_response(self._document(endpoint), 200, _NO_STORE)

    def _document(self, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "id": endpoint.id,
            "origin": endpoint.origin,
            "createdAt": rfc3339(endpoint.created_at),
            "paused": endpoint.paused,
            "limit": endpoint.limit,
            "inflight": endpoint.inflight,
            "waiting": endpoint.waiting,
            "consecutiveFailures": endpoint.consecutive_failures,
            "openUntil": instant(endpoint.open_until),
            "succeededAt": instant(endpoint.succeeded_at),
            "_links": {"self": self._urls.endpoint(endpoint.id)},
        }
