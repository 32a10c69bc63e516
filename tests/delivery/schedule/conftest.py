"""What the tests of the schedule look at and bring about in the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import Registration
from delivery.models import Claimed, Deliver
from delivery.store import DeliveryStore
from tests.delivery.test_store import (
    enqueue,
    over,
    registration,
)

HOUR = 3600 * SECOND
SHARED = "shared.example"


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    """Return deliveries of which one host takes four at a time."""
    return with_host_limit(store, partitions, 4)


def with_host_limit(store: Store, partitions: int, host_limit: int) -> DeliveryStore:
    """Return deliveries of which a host takes as many as `host_limit`."""
    return DeliveryStore(store, partitions, replace(DEFAULT_RETENTION, host_limit=host_limit))


def key(identifier: str, *parts: str) -> str:
    """Return a key of the partition that `identifier` belongs to."""
    return partition_prefix(partition_of(identifier)) + ":".join(parts)


async def end_wait(store: Store, endpoint_id: str) -> None:
    """Let the instant come at which the endpoint is to be looked at again."""
    await store.client.zadd(key(endpoint_id, "agenda"), {endpoint_id: 1}, xx=True)


async def enqueue_shared(
    deliveries: DeliveryStore, number: int, *tenants: str
) -> dict[str, Registration]:
    """Enqueue `number` deliveries of each tenant to one host; return their endpoints."""
    for tenant in tenants:
        await enqueue(deliveries, SHARED, number, tenant=tenant)
    return {
        tenant: registration(SHARED, deliveries.partitions, tenant=tenant) for tenant in tenants
    }


async def deliver(deliveries: DeliveryStore, claimed: list[Claimed]) -> None:
    assert await deliveries.record([over(each, Deliver()) for each in claimed]) == []
