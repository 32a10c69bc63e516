"""What is sent to an endpoint because somebody asked for it: where to, and the answer."""

from __future__ import annotations

from starlette.responses import Response

from delivery.egress import Destination, Policy
from delivery.endpoints import Endpoint, Registration, register
from delivery.models import Message, Scheme
from gateway.api.deliveries import delivery_document
from gateway.drafts import destination_of
from gateway.faults import Fault
from gateway.problems import Problem
from gateway.reading import unknown_endpoint
from gateway.resource import json_response
from gateway.services import Services
from gateway.urls import Urls


def place_at(
    endpoint: Endpoint, url: str | None, policy: Policy, services: Services, scheme: Scheme = "v1"
) -> tuple[Destination, Registration]:
    """Return where `url` leads to, the endpoint's root for None, and what registers it there.

    Raises:
        Problem: `invalid_callback_url`, also for a URL of another origin.
    """
    destination = destination_of(f"{endpoint.origin}/" if url is None else url, policy, "/url")
    partitions = services.settings.store.partitions
    registration = register(endpoint.tenant, destination, services.ring, partitions, scheme)
    if registration.id != endpoint.id:
        detail = f"must be a URL of {endpoint.origin}"
        raise Problem("invalid_callback_url", detail, faults=[Fault("/url", detail)])
    return destination, registration


async def is_sent(message: Message, services: Services, urls: Urls) -> Response:
    """Return 202 with the delivery that `message` was made.

    Raises:
        Problem: `not_found`: its endpoint is gone.
    """
    delivery = await services.deliveries.read(message.id)
    if delivery is None:
        raise unknown_endpoint()
    document = delivery_document(delivery, ring=services.ring, urls=urls, with_answers=True)
    headers = {"Cache-Control": "no-store", "Location": urls.delivery(message.id)}
    return json_response(document, 202, headers)
