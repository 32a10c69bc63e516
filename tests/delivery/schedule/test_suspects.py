"""Deliveries that processes died of: one at a time, and nobody waits for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from config.scripts import partition_prefix
from config.store import Store
from delivery.endpoints import Change, Registration
from delivery.models import Retry
from delivery.store import DeliveryStore
from tests.delivery.schedule.conftest import (
    HOUR,
    enqueue_shared,
    key,
)
from tests.delivery.test_store import (
    claim,
    enqueue,
    lapse,
    message,
    over,
    registration,
    wanted,
)


async def make_suspect(store: Store, deliveries: DeliveryStore, host: str) -> str:
    """Return a delivery that two processes died of."""
    [identifier] = await enqueue(deliveries, host)
    for life in range(2):
        process = f"dp-{host}-{life}"
        taken = await claim(deliveries, wanted(1, process=process))
        assert identifier in {each.id for each in taken}
        for partition in range(deliveries.partitions):
            await store.client.zrem(f"{partition_prefix(partition)}procs", process)
        await lapse(store, deliveries)
    # Whoever looks next brings it back, and may not take it.
    await claim(deliveries, replace(wanted(1, process=f"dp-{host}-x", limit=0), suspect=False))
    return identifier


async def paused(store: Store, deliveries: DeliveryStore, endpoint: Registration) -> None:
    await deliveries.pause_endpoint(endpoint.id)


async def broken(store: Store, deliveries: DeliveryStore, endpoint: Registration) -> None:
    await store.client.hset(
        key(endpoint.id, "ep", endpoint.id),
        mapping={"failures": "5", "opens": "1", "openUntil": str(2**60)},
    )


async def at_its_rate(store: Store, deliveries: DeliveryStore, endpoint: Registration) -> None:
    await deliveries.change_endpoint(endpoint.id, Change(rate=0.001))
    await store.client.hset(key(endpoint.id, "ep", endpoint.id), "tat", str(2**60))


async def full(store: Store, deliveries: DeliveryStore, endpoint: Registration) -> None:
    await deliveries.change_endpoint(endpoint.id, Change(max_limit=1))
    await deliveries.enqueue(message(endpoint))
    taken = await claim(deliveries, replace(wanted(1, process="dp-fills"), suspect=False))
    assert len(taken) == 1


async def host_full(store: Store, deliveries: DeliveryStore, endpoint: Registration) -> None:
    host = endpoint.origin.removeprefix("https://")
    await enqueue(deliveries, host, 4, tenant="other")
    taken = await claim(deliveries, replace(wanted(1, process="dp-fills"), suspect=False))
    assert len(taken) == 4


Hold = Callable[[Store, DeliveryStore, Registration], Awaitable[None]]


@pytest.mark.parametrize("hold", [paused, broken, at_its_rate, full, host_full])
async def test_a_suspect_waits_for_its_endpoint_and_holds_up_no_other(
    store: Store, deliveries: DeliveryStore, hold: Hold
) -> None:
    held = await make_suspect(store, deliveries, "a.example")
    free = await make_suspect(store, deliveries, "b.example")
    endpoint = registration("a.example", deliveries.partitions)
    await hold(store, deliveries, endpoint)
    given = await claim(deliveries, wanted(1, process="dp-1"))
    assert [(each.id, each.suspect) for each in given] == [(free, True)]
    assert held not in {each.id for each in await claim(deliveries, wanted(2, process="dp-1"))}
    seen = await deliveries.read_endpoint(endpoint.id)
    assert seen is not None
    assert seen.waiting >= 1


async def test_a_suspect_goes_out_when_its_endpoint_is_resumed(
    store: Store, deliveries: DeliveryStore
) -> None:
    held = await make_suspect(store, deliveries, "a.example")
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.pause_endpoint(endpoint.id)
    assert await claim(deliveries, wanted(1, process="dp-1")) == []
    await deliveries.resume_endpoint(endpoint.id)
    assert [each.id for each in await claim(deliveries, wanted(2, process="dp-1"))] == [held]


async def test_more_suspects_that_wait_than_are_looked_at(
    store: Store, deliveries: DeliveryStore
) -> None:
    for number in range(20):
        host = f"held-{number}.example"
        await make_suspect(store, deliveries, host)
        await deliveries.pause_endpoint(registration(host, deliveries.partitions).id)
    free = await make_suspect(store, deliveries, "free.example")
    given = [
        each.id for turn in (1, 2) for each in await claim(deliveries, wanted(turn, process="dp-1"))
    ]
    assert given == [free]


async def test_the_retry_of_one_endpoint_is_not_told_by_anothers_rate(
    deliveries: DeliveryStore,
) -> None:
    """Bounds are an endpoint's own: two of one host, one of them slow."""
    endpoints = await enqueue_shared(deliveries, 3, "slow", "fast")
    await deliveries.change_endpoint(endpoints["slow"].id, Change(rate=0.001))
    given = Counter(each.tenant for each in await claim(deliveries, wanted(1, limit=4)))
    assert given == {"slow": 1, "fast": 3}
    assert await claim(deliveries, wanted(2)) == []


async def test_a_retry_waits_for_its_own_instant_on_a_busy_host(
    deliveries: DeliveryStore,
) -> None:
    await enqueue_shared(deliveries, 4, "t1")
    under_way = await claim(deliveries, wanted(1))
    await enqueue_shared(deliveries, 1, "t2")
    assert await claim(deliveries, wanted(2)) == []
    await deliveries.record([over(each, Retry(delay=HOUR)) for each in under_way])
    assert [each.tenant for each in await claim(deliveries, wanted(3))] == ["t2"]
