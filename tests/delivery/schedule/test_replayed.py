"""What is replayed goes behind what is live."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from config.store import Store
from delivery.endpoints import Change
from delivery.models import Bury, Retry
from delivery.store import DeliveryStore
from tests.delivery.replaying import replay
from tests.delivery.schedule.conftest import (
    HOUR,
    SHARED,
    deliver,
    end_wait,
    enqueue_shared,
    key,
    with_host_limit,
)
from tests.delivery.test_store import (
    claim,
    over,
    registration,
    wanted,
)


async def replay_shared(
    deliveries: DeliveryStore, store: Store, number: int, *tenants: str
) -> None:
    """Let deliveries of each tenant to one host die, and replay them."""
    await enqueue_shared(deliveries, number, *tenants)
    unbounded = with_host_limit(store, deliveries.partitions, 1_000)
    want = wanted(1, limit=number * len(tenants), process="dp-before")
    dying = await claim(unbounded, want)
    assert len(dying) == want.limit
    await deliveries.record([over(each, Bury(reason="exhausted")) for each in dying])
    before = await replay(deliveries, [each.id for each in dying])
    assert set(before.values()) == {"dead"}


async def test_whatever_is_live_goes_before_whatever_is_replayed(
    store: Store, partitions: int
) -> None:
    deliveries = with_host_limit(store, partitions, 1_000)
    await replay_shared(deliveries, store, 4, "t1", "t2", "t3")
    await enqueue_shared(deliveries, 2, "t3", "t4")
    first = await claim(deliveries, wanted(1, limit=4))
    assert Counter((each.tenant, each.trigger) for each in first) == {
        ("t3", "schedule"): 2,
        ("t4", "schedule"): 2,
    }
    behind = await claim(deliveries, wanted(2, limit=20))
    assert Counter((each.tenant, each.trigger) for each in behind) == {
        ("t1", "replay"): 4,
        ("t2", "replay"): 4,
        ("t3", "replay"): 4,
    }


async def test_no_more_is_replayed_at_a_time_than_is_asked_for(
    store: Store, partitions: int
) -> None:
    deliveries = with_host_limit(store, partitions, 1_000)
    await replay_shared(deliveries, store, 4, "t1", "t2")
    given = []
    for sequence, replays in enumerate((0, 3, 0, 2, 100), 1):
        want = replace(wanted(sequence, limit=20), replays=replays)
        given.append(len(await claim(deliveries, want)))
    assert given == [0, 3, 0, 2, 3]


@pytest.mark.parametrize(("limit", "replays"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6)])
async def test_a_replay_leaves_a_quarter_of_what_an_endpoint_takes_at_once(
    store: Store, partitions: int, limit: int, replays: int
) -> None:
    deliveries = with_host_limit(store, partitions, 1_000)
    await replay_shared(deliveries, store, 8, "t1")
    endpoint = registration(SHARED, deliveries.partitions, tenant="t1")
    assert await deliveries.change_endpoint(endpoint.id, Change(max_limit=limit)) is not None
    replayed = await claim(deliveries, wanted(1, limit=20))
    assert len(replayed) == replays
    await enqueue_shared(deliveries, 8, "t1")
    live = await claim(deliveries, wanted(2, limit=20))
    assert [each.trigger for each in live] == ["schedule"] * (limit - replays)
    # What is live takes what comes free, and what is replayed again what then is left.
    await deliver(deliveries, [*replayed, *live])
    again = await claim(deliveries, wanted(3, limit=20))
    waited = 8 - (limit - replays)
    assert [each.trigger for each in again] == ["schedule"] * min(limit, waited)


async def test_what_falls_due_goes_before_the_replays_of_its_own_endpoint(
    store: Store, partitions: int
) -> None:
    deliveries = with_host_limit(store, partitions, 1_000)
    await replay_shared(deliveries, store, 4, "t1")
    await enqueue_shared(deliveries, 1, "t1")
    [live] = await claim(deliveries, wanted(1, limit=1))
    await deliveries.record([over(live, Retry(delay=HOUR))])
    no_replays = replace(wanted(2), replays=0)
    assert await claim(deliveries, no_replays) == []
    # Its time has come.
    await store.client.zadd(key(live.id, "ep", live.endpoint, "live"), {live.id: 1}, xx=True)
    await end_wait(store, live.endpoint)
    [again] = await claim(deliveries, replace(no_replays, sequence=3))
    assert again.id == live.id


async def test_replays_that_wait_for_a_host_keep_nothing_live_from_it(
    store: Store, partitions: int
) -> None:
    deliveries = with_host_limit(store, partitions, 1)
    await replay_shared(deliveries, store, 4, "t1", "t2")
    await enqueue_shared(deliveries, 1, "t3")
    first = await claim(deliveries, wanted(1))
    assert [each.tenant for each in first] == ["t3"]
    await enqueue_shared(deliveries, 1, "t4")
    assert await claim(deliveries, wanted(2)) == []
    await deliver(deliveries, first)
    # Whoever claims may take no replay now.
    second = await claim(deliveries, replace(wanted(3), replays=0))
    assert [each.tenant for each in second] == ["t4"]
    await deliver(deliveries, second)
    for sequence in range(4, 12):
        [replayed] = await claim(deliveries, wanted(sequence))
        assert replayed.trigger == "replay"
        await deliver(deliveries, [replayed])
    assert await claim(deliveries, wanted(12)) == []
