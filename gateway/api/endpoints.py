"""Callback endpoints over HTTP: the tenant's origins, their health, what operators do to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config.clock import rfc3339
from delivery.configure import policy_of
from delivery.endpoints import (
    UNSET,
    Change,
    DisabledUrl,
    Endpoint,
    Failure,
    disabled_url,
    register,
)
from delivery.errors import TooManyEndpoints
from delivery.mirrors import delete_with_mirrors, refresh_mirrors
from gateway.access import Access
from gateway.auth import Principal
from gateway.bodies import read_json
from gateway.documents import instant
from gateway.drafts import destination_of, too_many_endpoints
from gateway.faults import Fault
from gateway.ownership import unverified_rate
from gateway.problems import Problem
from gateway.reading import read_endpoint, unknown_endpoint
from gateway.resource import json_response, resource
from gateway.schemas.body import parse
from gateway.schemas.endpoints import EndpointChange, EndpointRequest
from gateway.services import Services
from gateway.urls import Urls

_NO_STORE = {"Cache-Control": "no-store"}


class EndpointsApi:
    """The addresses under `/v1/endpoints`."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._policy = policy_of(services.settings)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [
            resource("/v1/endpoints", GET=self.list, POST=self.register),
            resource(
                "/v1/endpoints/{endpoint_id}", GET=self.show, PATCH=self.change, DELETE=self.delete
            ),
            resource("/v1/endpoints/{endpoint_id}/pause", POST=self.pause),
            resource("/v1/endpoints/{endpoint_id}/resume", POST=self.resume),
        ]

    async def register(self, request: Request) -> Response:
        """`POST /v1/endpoints`: 201 with the endpoint of a URL, 200 when it existed."""
        principal = await self._access.principal(request, "submit")
        services = self._services
        limits = services.settings.api
        value = await read_json(request, limits)
        destination = destination_of(parse(EndpointRequest, value).url, self._policy, "/url")
        registration = register(
            principal.tenant,
            destination,
            services.ring,
            services.settings.store.partitions,
            unverified_rate=unverified_rate(services.settings.delivery, principal.tenant),
        )
        try:
            endpoint, created = await services.deliveries.register_endpoint(registration)
        except TooManyEndpoints as error:
            raise too_many_endpoints() from error
        if created and services.ownership.mode(principal.tenant) != "off":
            await services.ownership.ask(endpoint, destination)
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
        return json_response(self._document(await self._find(request, principal)), 200, _NO_STORE)

    async def pause(self, request: Request) -> Response:
        """`POST /v1/endpoints/{id}/pause`: nothing more is sent to it until it is resumed."""
        principal = await self._access.principal(request, "operate")
        endpoint = await self._find(request, principal)
        await self._services.audit.record(request, principal, "endpoint.pause", endpoint.id)
        return await self._done(await self._services.deliveries.pause_endpoint(endpoint.id))

    async def resume(self, request: Request) -> Response:
        """`POST /v1/endpoints/{id}/resume`: what waits is sent again."""
        principal = await self._access.principal(request, "operate")
        endpoint = await self._find(request, principal)
        await self._services.audit.record(request, principal, "endpoint.resume", endpoint.id)
        return await self._done(await self._services.deliveries.resume_endpoint(endpoint.id))

    async def change(self, request: Request) -> Response:
        """`PATCH /v1/endpoints/{id}`: its rate, its bound, the URLs that are disabled."""
        principal = await self._access.principal(request, "operate")
        limits = self._services.settings.api
        value = await read_json(request, limits)
        wish = parse(EndpointChange, value)
        endpoint = await self._find(request, principal)
        change = self._change(endpoint, wish)
        await self._services.audit.record(
            request, principal, "endpoint.update", endpoint.id, **_changed(wish)
        )
        return await self._done(
            await self._services.deliveries.change_endpoint(endpoint.id, change)
        )

    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/endpoints/{id}`: 204; 409 while deliveries to it wait."""
        principal = await self._access.principal(request, "operate")
        endpoint = await self._find(request, principal)
        await self._services.audit.record(
            request, principal, "endpoint.delete", endpoint.id, origin=endpoint.origin
        )
        if not await delete_with_mirrors(self._services.deliveries, endpoint):
            raise Problem("endpoint_in_use", "deliveries to it wait or are being attempted")
        return Response(status_code=204, headers=_NO_STORE)

    def _change(self, endpoint: Endpoint, wish: EndpointChange) -> Change:
        given = wish.model_fields_set
        return Change(
            rate=wish.rate_per_second if "rate_per_second" in given else UNSET,
            max_limit=wish.max_concurrency if "max_concurrency" in given else UNSET,
            disabled=self._disabled(endpoint, wish) if "disabled_urls" in given else UNSET,
        )

    def _disabled(
        self, endpoint: Endpoint, wish: EndpointChange
    ) -> Sequence[tuple[str, str, bytes]]:
        """Return what names the URLs that are to be disabled.

        Raises:
            Problem: `invalid_callback_url`, naming the first that is none of this endpoint's.
        """
        urls = []
        for number, url in enumerate(wish.disabled_urls):
            member = f"/disabledUrls/{number}"
            destination = destination_of(url, self._policy, member)
            if destination.origin != endpoint.origin:
                detail = f"must begin with {endpoint.origin}"
                raise Problem("invalid_callback_url", detail, faults=[Fault(member, detail)])
            urls.append(disabled_url(endpoint.id, destination.url, self._services.ring))
        return urls

    async def _done(self, endpoint: Endpoint | None) -> Response:
        if endpoint is None:
            raise unknown_endpoint()  # deleted meanwhile
        await refresh_mirrors(self._services.deliveries, endpoint, self._services.ring)
        return json_response(self._document(endpoint), 200, _NO_STORE)

    async def _find(self, request: Request, principal: Principal) -> Endpoint:
        endpoint_id = request.path_params["endpoint_id"]
        return await read_endpoint(self._services.deliveries, endpoint_id, tenant=principal.tenant)

    def _document(self, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "id": endpoint.id,
            "origin": endpoint.origin,
            "createdAt": rfc3339(endpoint.created_at),
            "paused": endpoint.paused_since is not None,
            "pausedSince": instant(endpoint.paused_since),
            "limit": endpoint.limit,
            "maxConcurrency": endpoint.max_limit,
            "ratePerSecond": endpoint.rate,
            "inflight": endpoint.inflight,
            "waiting": endpoint.waiting,
            "breaker": endpoint.breaker,
            "consecutiveFailures": endpoint.consecutive_failures,
            "openUntil": instant(endpoint.open_until),
            "lastFailure": _failure_document(endpoint.last_failure),
            "succeededAt": instant(endpoint.succeeded_at),
            "verified": endpoint.verified_at is not None,
            "verifiedAt": instant(endpoint.verified_at),
            "disabledUrls": [self._disabled_document(each) for each in endpoint.disabled],
            "_links": {"self": self._urls.endpoint(endpoint.id)},
        }

    def _disabled_document(self, disabled: DisabledUrl) -> dict[str, Any]:
        return {
            "url": self._services.ring.open(disabled.url, row=disabled.row).decode(),
            "since": rfc3339(disabled.since),
            "reason": disabled.reason,
        }


def _changed(wish: EndpointChange) -> dict[str, Any]:
    """Return what a change is recorded with; of URLs, which may hold secrets, only how many."""
    given: dict[str, Any] = wish.model_dump(by_alias=True, exclude_unset=True)
    if "disabledUrls" in given:
        given["disabledUrls"] = len(given["disabledUrls"])
    return given


def _failure_document(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {
        "at": rfc3339(failure.at),
        "outcome": failure.outcome,
        "statusCode": failure.status,
    }
