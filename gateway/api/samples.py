"""Sending a sample to an endpoint: its receiver can be tried out before anything is owed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from config import ids
from config.clock import SECOND
from delivery.configure import policy_of
from delivery.egress import Destination
from delivery.endpoints import Endpoint, url_hash
from delivery.models import Message
from gateway.access import Access
from gateway.api.sending import is_sent, place_at
from gateway.bodies import read_optional_json
from gateway.documents import event_body
from gateway.models import compact
from gateway.reading import read_endpoint, unknown_endpoint
from gateway.resource import resource
from gateway.samples import Samples
from gateway.schemas.body import parse
from gateway.schemas.endpoints import SampleRequest
from gateway.services import Services
from gateway.urls import Urls

_NO_STORE = {"Cache-Control": "no-store"}
_LIFE = 12 * SECOND
"""How long ago the sample's job was submitted."""


class SamplesApi:
    """The address that sends a sample."""

    def __init__(self, services: Services, access: Access, urls: Urls) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._policy = policy_of(services.settings)

    def routes(self) -> list[Route]:
        """Return what is answered where."""
        return [resource("/v1/endpoints/{endpoint_id}/test", POST=self.send)]

    async def send(self, request: Request) -> Response:
        """`POST /v1/endpoints/{id}/test`: 202 with the delivery, which gets one attempt."""
        principal = await self._access.principal(request, "operate")
        limits, deliveries = self._services.settings.api, self._services.deliveries
        wanted = parse(
            SampleRequest,
            await read_optional_json(request, limits),
        )
        endpoint = await read_endpoint(
            deliveries, request.path_params["endpoint_id"], tenant=principal.tenant
        )
        destination, registration = place_at(
            endpoint, wanted.url, self._policy, self._services, wanted.signature
        )
        # The endpoint may have no secret for this scheme yet.
        await deliveries.register_endpoint(registration)
        message = self._message(endpoint, destination, wanted)
        await self._services.audit.record(
            request, principal, "endpoint.test", endpoint.id, delivery=message.id
        )
        try:
            await deliveries.enqueue(message)
        except KeyError:
            raise unknown_endpoint() from None
        return await is_sent(message, self._services, self._urls)

    def _message(
        self, endpoint: Endpoint, destination: Destination, wanted: SampleRequest
    ) -> Message:
        now = self._services.clock.now()
        message_id = ids.new_id("msg", ids.partition_of(endpoint.id), now)
        job = Samples(at=now - _LIFE, metadata={"sample": True}).of(wanted.event)
        body = event_body(
            job,
            event=wanted.event,
            urls=self._urls,
            sequence=job.rev,
            ticket=None,
            at=job.updated_at,
            payload=wanted.layout,
        )
        return Message(
            id=message_id,
            endpoint=endpoint.id,
            tenant=endpoint.tenant,
            url=self._services.ring.seal(destination.url.encode(), row=message_id),
            url_hash=url_hash(destination.url),
            tags=compact({"event": wanted.event}),
            scheme=wanted.signature,
            trigger="test",
            body=body,
        )
