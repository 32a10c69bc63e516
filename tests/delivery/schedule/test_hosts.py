"""Slots that the endpoints of a host share, and in what order they get them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from config.store import Store
from delivery.models import Claimed
from delivery.store import DeliveryStore
from tests.delivery.schedule.conftest import (
    SHARED,
    deliver,
    end_wait,
    enqueue_shared,
    key,
    with_host_limit,
)
from tests.delivery.test_store import (
    claim,
    claim_all,
    enqueue,
    lapse,
    registration,
    wanted,
)


async def test_a_host_takes_so_many_whoever_they_are_for(deliveries: DeliveryStore) -> None:
    await enqueue_shared(deliveries, 20, "t1", "t2", "t3")
    under_way = await claim(deliveries, wanted(1, limit=100))
    assert len(under_way) == 4
    assert await claim(deliveries, wanted(2, limit=100)) == []
    for sequence in range(3, 20):
        number = sequence % 3 + 1
        await deliver(deliveries, under_way[:number])
        given = await claim(deliveries, wanted(sequence, limit=100))
        assert len(given) == number
        under_way = [*under_way[number:], *given]


async def test_a_full_host_holds_up_no_other(deliveries: DeliveryStore) -> None:
    await enqueue_shared(deliveries, 10, "t1", "t2")
    assert len(await claim(deliveries, wanted(1, limit=4))) == 4
    await enqueue_shared(deliveries, 1, "t1", "t2", "t3")
    [other] = await enqueue(deliveries, "other.example", tenant="t1")
    assert [each.id for each in await claim(deliveries, wanted(2))] == [other]


async def test_tenants_take_turns_at_their_host(store: Store, partitions: int) -> None:
    """A long backlog of one tenant does not keep the others from the host they share."""
    deliveries = with_host_limit(store, partitions, 1)
    await enqueue_shared(deliveries, 30, "bulk")
    await enqueue_shared(deliveries, 5, "t1", "t2", "t3")
    served: list[str] = []
    for sequence in range(1, 21):
        [given] = await claim(deliveries, wanted(sequence))
        served.append(given.tenant)
        await deliver(deliveries, [given])
    for first in range(0, 20, 4):
        assert len(set(served[first : first + 4])) == 4, served


async def test_several_slots_are_shared_evenly(deliveries: DeliveryStore) -> None:
    await enqueue_shared(deliveries, 60, "bulk")
    await enqueue_shared(deliveries, 20, "t1", "t2")
    served: Counter[str] = Counter()
    under_way: list[Claimed] = []
    for sequence in range(1, 60):
        under_way += await claim(deliveries, replace(wanted(sequence), per_turn=1))
        [over_now, *under_way] = under_way
        served[over_now.tenant] += 1
        await deliver(deliveries, [over_now])
    assert max(served.values()) - min(served.values()) <= 4, served


async def test_a_host_is_free_again_when_leases_run_out(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue_shared(deliveries, 4, "t1")
    lost = await claim(deliveries, wanted(1))
    assert len(lost) == 4
    await enqueue_shared(deliveries, 4, "t2")
    assert await claim(deliveries, wanted(2)) == []
    await lapse(store, deliveries)
    given = await claim(deliveries, wanted(3))
    assert len(given) == 4
    assert "t2" in {each.tenant for each in given}


async def test_whoever_waits_for_a_host_is_looked_at_again_in_any_case(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue_shared(deliveries, 4, "t1")
    await claim(deliveries, wanted(1))
    waiting = (await enqueue_shared(deliveries, 1, "t2"))["t2"]
    assert await claim(deliveries, wanted(2)) == []
    # As if slots came free and nobody said so.
    holder = registration(SHARED, deliveries.partitions, tenant="t1")
    await store.client.delete(key(holder.id, "ep", holder.id, "inflight"))
    await store.client.hdel(key(holder.id, f"host:{SHARED}"), holder.id)
    assert await claim(deliveries, wanted(3)) == []
    await end_wait(store, waiting.id)
    assert [each.tenant for each in await claim(deliveries, wanted(4))] == ["t2"]


async def test_one_that_waits_for_a_host_gives_way_when_it_is_paused(
    deliveries: DeliveryStore,
) -> None:
    await enqueue_shared(deliveries, 4, "t1")
    under_way = await claim(deliveries, wanted(1))
    endpoints = await enqueue_shared(deliveries, 1, "t2", "t3")
    assert await claim(deliveries, wanted(2)) == []
    await deliveries.pause_endpoint(endpoints["t2"].id)
    await deliver(deliveries, under_way[:1])
    assert [each.tenant for each in await claim(deliveries, wanted(3))] == ["t3"]
    await deliveries.resume_endpoint(endpoints["t2"].id)
    assert await claim(deliveries, wanted(4)) == []
    await deliver(deliveries, under_way[1:])
    assert [each.tenant for each in await claim(deliveries, wanted(5))] == ["t2"]


async def test_hundreds_of_tenants_of_a_full_host_keep_nobody_waiting(
    deliveries: DeliveryStore,
) -> None:
    await enqueue_shared(deliveries, 4, "first")
    tenants = [f"t{number}" for number in range(600)]
    await enqueue_shared(deliveries, 1, *tenants)
    [healthy] = await enqueue(deliveries, "healthy.example", tenant="last")
    # More than one claim may look at: it says then that the rest is due at once.
    given: list[Claimed] = []
    for sequence in range(1, 4):
        batches = await claim_all(deliveries, wanted(sequence))
        given += [each for batch in batches.values() for each in batch.deliveries]
        if healthy in {each.id for each in given}:
            break
        assert any(batch.next_at == batch.now for batch in batches.values())
    assert healthy in {each.id for each in given}
