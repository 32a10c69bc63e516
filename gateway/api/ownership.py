"""Asking an endpoint over HTTP whether it wants to be called back."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from delivery.configure import policy_of
from gateway.access import Access
from gateway.api.sending import is_sent, place_at
from gateway.bodies import read_optional_json
from gateway.reading import read_endpoint, unknown_endpoint
from gateway.resource import resource
from gateway.schemas.body import parse
from gateway.schemas.endpoints import VerifyRequest
from gateway.services import Services
from gateway.urls import Urls


class OwnershipApi:
    """The address that sends a challenge."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._policy = policy_of(services.settings)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [resource("/v1/endpoints/{endpoint_id}/verify", POST=self.verify)]

    async def verify(self, request: Request) -> Response:
        """`POST /v1/endpoints/{id}/verify`: 202 with the challenge, which gets one attempt."""
        principal = await self._access.principal(request, "operate")
        services = self._services
        limits = services.settings.api
        wanted = parse(
            VerifyRequest,
            await read_optional_json(request, limits),
        )
        endpoint = await read_endpoint(
            services.deliveries, request.path_params["endpoint_id"], tenant=principal.tenant
        )
        destination, _ = place_at(endpoint, wanted.url, self._policy, services)
        await services.audit.record(request, principal, "endpoint.verify", endpoint.id)
        try:
            message = await services.ownership.ask(endpoint, destination)
        except KeyError:
            raise unknown_endpoint() from None
        return await is_sent(message, services, self._urls)
