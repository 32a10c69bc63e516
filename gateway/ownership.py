"""Whether those who are called back want to be: a challenge to answer before the first callback.

A URL says nothing about who has it. Where the settings ask for it, an endpoint is therefore sent
the event `endpoint.verification` with a random text, signed as callbacks are, and is verified when
its receiver gives that text back. Delivery sends it and judges the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from config import ids
from config.clock import Clock, rfc3339
from config.sections import DeliverySettings
from config.values import VerifyEndpoints
from delivery.egress import Destination
from delivery.endpoints import Endpoint, url_hash
from delivery.models import Message
from delivery.sealing import KeyRing
from delivery.store import DeliveryStore
from gateway.faults import Fault
from gateway.models import compact
from gateway.problems import Problem

VERIFICATION = "endpoint.verification"
"""The event that is a challenge."""

_CHALLENGE_LENGTH = 32


def mode_of(limits: DeliverySettings, tenant: str) -> VerifyEndpoints:
    """Return what is done about a tenant's endpoints that are not verified."""
    return limits.verify_endpoints_of.get(tenant, limits.verify_endpoints)


def unverified_rate(limits: DeliverySettings, tenant: str) -> float:
    """Return how many attempts a second those get; 0 for any number."""
    is_held = mode_of(limits, tenant) == "low_rate"
    return limits.unverified_rate_per_second if is_held else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Asks endpoints, and refuses those that did not answer.

    Attributes:
        deliveries: where endpoints are.
        ring: seals the URLs that are asked.
        clock: the store's time.
        limits: whom the settings want to be asked.
    """

    deliveries: DeliveryStore
    ring: KeyRing
    clock: Clock
    limits: DeliverySettings

    def mode(self, tenant: str) -> VerifyEndpoints:
        """Return what is done about a tenant's endpoints that are not verified."""
        return mode_of(self.limits, tenant)

    async def require(self, tenant: str, endpoint_id: str | None, pointer: str) -> None:
        """Return when the tenant's jobs may call this endpoint; None stands for none.

        Args:
            tenant: whose jobs.
            endpoint_id: what they call.
            pointer: the member of the request that leads there.

        Raises:
            Problem: `endpoint_unverified`.
            StoreUnavailable: nobody could be asked.
        """
        if endpoint_id is None or self.mode(tenant) != "refuse":
            return
        endpoint = await self.deliveries.read_endpoint(endpoint_id)
        if endpoint is None or endpoint.verified_at is None:
            detail = "the endpoint of the callback URL has not answered a challenge"
            raise Problem("endpoint_unverified", detail, faults=[Fault(pointer, detail)])

    async def ask(self, endpoint: Endpoint, destination: Destination) -> Message:
        """Have a challenge sent to a URL of the endpoint, once, before all that waits for it.

        Raises:
            KeyError: the endpoint is gone.
            StoreUnavailable: it may be sent; asking again sends another.
        """
        message = self.challenge(endpoint, destination)
        await self.deliveries.enqueue(message)
        return message

    def challenge(self, endpoint: Endpoint, destination: Destination) -> Message:
        """Return a fresh challenge to a URL of the endpoint."""
        now = self.clock.now()
        text = ids.random_text(_CHALLENGE_LENGTH)
        message_id = ids.new_id("msg", ids.partition_of(endpoint.id), now)
        return Message(
            id=message_id,
            endpoint=endpoint.id,
            tenant=endpoint.tenant,
            url=self.ring.seal(destination.url.encode(), row=message_id),
            url_hash=url_hash(destination.url),
            tags=compact({"event": VERIFICATION}),
            trigger="test",
            challenge=text,
            body=challenge_body(endpoint.id, text, at=now),
        )


def challenge_body(endpoint_id: str, challenge: str, *, at: int) -> bytes:
    """Return the body of a challenge, compact UTF-8 JSON; `at` in µs."""
    data = {"endpointId": endpoint_id, "challenge": challenge}
    return compact({"type": VERIFICATION, "timestamp": rfc3339(at), "data": data}).encode()
