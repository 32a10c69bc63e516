"""Dead letters: walked through whole and in order, and replayed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.ids import derived_id, partition_of
from config.store import Store, partition_prefix
from delivery.bounds import DEFAULT_RETENTION
from delivery.deadletters import PAGE, replay, walk
from delivery.models import Bury, Deliver
from delivery.store import DeliveryStore
from tests.delivery.test_store import claim, enqueue, over, wanted

LONG_AGO = 1_000


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    unlimited = replace(DEFAULT_RETENTION, initial_limit=2_000, max_limit=2_000)
    return DeliveryStore(store, partitions, unlimited)


async def bury(deliveries: DeliveryStore, host: str, number: int) -> list[str]:
    """Let `number` deliveries to one host die, all in one script: at one instant."""
    await enqueue(deliveries, host, number)
    want = replace(wanted(1, limit=number, process=f"dp-{host}"), per_turn=number)
    claimed = await claim(deliveries, want)
    assert len(claimed) == number
    assert not await deliveries.record([over(each, Bury(reason="exhausted")) for each in claimed])
    return [each.id for each in claimed]


async def walked(deliveries: DeliveryStore) -> list[str]:
    return [each.id async for each in walk(deliveries)]


@pytest.mark.parametrize("number", [PAGE - 1, PAGE, PAGE + 1, 256, 300, 2 * PAGE + 1])
async def test_any_number_that_died_at_one_instant_is_walked_through(
    deliveries: DeliveryStore, number: int
) -> None:
    dead = await bury(deliveries, "a.example", number)
    assert len({each.ended_at async for each in walk(deliveries)}) == 1
    assert await walked(deliveries) == sorted(dead)


async def test_the_walk_is_in_the_order_of_deaths_over_all_partitions(
    deliveries: DeliveryStore,
) -> None:
    dead = [await bury(deliveries, f"host-{number}.example", 130) for number in range(5)]
    assert await walked(deliveries) == [each for batch in dead for each in sorted(batch)]


async def test_what_dies_later_is_not_part_of_a_fixed_selection(
    deliveries: DeliveryStore,
) -> None:
    before = await bury(deliveries, "a.example", 3)
    [first_after, *_] = await bury(deliveries, "b.example", 3)
    kept = await deliveries.read(first_after)
    assert kept is not None
    found = [each.id async for each in walk(deliveries, died_before=kept.ended_at)]
    assert found == sorted(before)


async def test_expired_ones_in_the_index_hide_nobody(
    store: Store, deliveries: DeliveryStore
) -> None:
    """The index forgets them a few at a time, as others die."""
    expired = await bury(deliveries, "a.example", 390)
    prefix = partition_prefix(partition_of(expired[0]))
    await store.client.delete(*(f"{prefix}d:{each}" for each in expired))
    await store.client.zadd(f"{prefix}dead", dict.fromkeys(expired, LONG_AGO))
    dead = await bury(deliveries, "b.example", 2)
    assert await store.client.zcard(f"{prefix}dead") > PAGE + len(dead)
    assert await walked(deliveries) == sorted(dead)


async def test_a_replay_says_what_became_of_each(deliveries: DeliveryStore) -> None:
    dead = await bury(deliveries, "a.example", PAGE + 1)
    [waiting] = await enqueue(deliveries, "b.example")
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Deliver())])
    [pending] = await enqueue(deliveries, "c.example")
    unknown = [derived_id("msg", 0, "nothing"), "no identifier"]
    assert claimed.id == waiting

    done = await replay(deliveries, [*dead, *dead, waiting, pending, *unknown])
    assert sorted(done.pending) == sorted(dead)
    assert done.skipped == {waiting: "delivered", pending: "pending"}
    assert sorted(done.unknown) == sorted(unknown)
    assert not done.is_complete
    assert await walked(deliveries) == []

    again = await replay(deliveries, dead[:1])
    assert (again.pending, again.skipped) == ((), {dead[0]: "pending"})
