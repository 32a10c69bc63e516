"""What holds an endpoint back, and whom it must not hold back with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.endpoints import Change
from delivery.models import Bury, Deliver, Retry
from delivery.store import DeliveryStore
from tests.delivery.replaying import replay
from tests.delivery.schedule.conftest import (
    HOUR,
    end_wait,
    key,
    with_host_limit,
)
from tests.delivery.test_store import (
    claim,
    claim_all,
    enqueue,
    lapse,
    over,
    registration,
    wanted,
)

# Time without sweeps


@pytest.mark.parametrize(("share", "is_lost"), [(0.1, True), (0.9, False)])
async def test_a_gap_of_a_third_of_a_lease_is_a_store_that_was_away(
    store: Store, deliveries: DeliveryStore, share: float, *, is_lost: bool
) -> None:
    await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await lapse(store, deliveries)
    seconds, micros = await store.client.time()
    swept = seconds * SECOND + micros - int(share * wanted(1).lease)
    for partition in range(deliveries.partitions):
        await store.client.set(f"{partition_prefix(partition)}swept:deliveries", swept)
    again = await claim(deliveries, wanted(2))
    assert [each.id for each in again] == [claimed.id] * is_lost


# Pauses


async def test_a_paused_endpoint_gets_nothing_until_it_is_resumed(
    deliveries: DeliveryStore,
) -> None:
    ids = await enqueue(deliveries, "a.example", 3)
    endpoint = registration("a.example", deliveries.partitions)
    [first] = await claim(deliveries, wanted(1, limit=1))
    for _ in range(2):
        paused = await deliveries.pause_endpoint(endpoint.id)
        assert paused is not None
        assert paused.paused_since is not None
    assert await claim(deliveries, wanted(2)) == []
    # What was under way goes on, and what comes waits.
    assert await deliveries.record([over(first, Deliver(), breaker="good")]) == []
    ids += await enqueue(deliveries, "a.example")
    assert await claim(deliveries, wanted(3)) == []
    resumed = await deliveries.resume_endpoint(endpoint.id)
    assert resumed is not None
    assert (resumed.paused_since, resumed.waiting) == (None, 3)
    given = await claim(deliveries, wanted(4))
    assert {each.id for each in given} == set(ids) - {first.id}


async def test_unknown_endpoints_are_not_paused(deliveries: DeliveryStore) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    assert await deliveries.pause_endpoint(endpoint.id) is None
    assert await deliveries.resume_endpoint(endpoint.id) is None
    assert await deliveries.change_endpoint(endpoint.id, Change(rate=1.0)) is None
    assert await deliveries.read_endpoint(endpoint.id) is None


async def pause_for_an_hour(store: Store, deliveries: DeliveryStore, endpoint_id: str) -> None:
    """Have the endpoint paused for an hour by now."""
    paused = await deliveries.pause_endpoint(endpoint_id)
    assert paused is not None
    assert paused.paused_since is not None
    since = paused.paused_since - HOUR
    await store.client.hset(key(endpoint_id, "ep", endpoint_id), "paused", str(since))


async def born(deliveries: DeliveryStore, store: Store, delivery_id: str) -> int:
    """Return since when the age of a delivery counts, as the store has it."""
    kept = await store.client.hget(key(delivery_id, "d", delivery_id), "bornAt")
    return int(kept or 0)


async def test_time_paused_does_not_count_towards_age(
    store: Store, deliveries: DeliveryStore
) -> None:
    [before] = await enqueue(deliveries, "a.example")
    endpoint = registration("a.example", deliveries.partitions)
    await pause_for_an_hour(store, deliveries, endpoint.id)
    [during] = await enqueue(deliveries, "a.example")
    await deliveries.resume_endpoint(endpoint.id)
    [after] = await enqueue(deliveries, "a.example")
    given = {each.id: each for each in await claim(deliveries, wanted(1))}
    aged = {
        each: given[each].born_at - await born(deliveries, store, each)
        for each in (before, during, after)
    }
    assert HOUR <= aged[before] < HOUR + 60 * SECOND
    assert 0 <= aged[during] < 60 * SECOND
    assert aged[after] == 0


async def test_a_replay_is_as_old_as_itself_whatever_was_paused_before(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    await pause_for_an_hour(store, deliveries, claimed.endpoint)
    await deliveries.resume_endpoint(claimed.endpoint)
    await replay(deliveries, [identifier])
    [again] = await claim(deliveries, wanted(2))
    assert again.born_at == await born(deliveries, store, identifier)


# Rates


@pytest.mark.parametrize(("rate", "at_once"), [(0.1, 1), (1.0, 1), (2.5, 2), (3.0, 3), (9.0, 8)])
async def test_a_rate_lets_a_seconds_worth_through_at_once(
    store: Store, deliveries: DeliveryStore, rate: float, at_once: int
) -> None:
    deliveries = with_host_limit(store, deliveries.partitions, 1_000)
    await enqueue(deliveries, "a.example", 10)
    endpoint = registration("a.example", deliveries.partitions)
    changed = await deliveries.change_endpoint(endpoint.id, Change(rate=rate))
    assert changed is not None
    assert changed.rate == rate
    # One script is one instant, and eight are what its limit begins with.
    batches = (await claim_all(deliveries, wanted(1))).values()
    given = [each for batch in batches for each in batch.deliveries]
    assert len(given) == at_once
    [now] = {batch.now for batch in batches if batch.deliveries}
    used_up = await store.client.hget(key(endpoint.id, "ep", endpoint.id), "tat")
    assert abs(int(used_up or 0) - now - at_once * SECOND / rate) <= 1


async def test_what_a_rate_allows_comes_when_it_is_allowed(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue(deliveries, "a.example", 4)
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.change_endpoint(endpoint.id, Change(rate=0.1))
    [first] = await claim(deliveries, wanted(1))
    assert await claim(deliveries, wanted(2)) == []
    used_up = await store.client.hget(key(endpoint.id, "ep", endpoint.id), "tat")
    due = await store.client.zscore(key(endpoint.id, "agenda"), endpoint.id)
    assert due == float(used_up or 0)
    # Ten seconds pass.
    await store.client.hincrby(key(endpoint.id, "ep", endpoint.id), "tat", -10 * SECOND)
    await end_wait(store, endpoint.id)
    [second] = await claim(deliveries, wanted(3))
    assert second.id != first.id
    assert await claim(deliveries, wanted(4)) == []
    unhurried = await deliveries.change_endpoint(endpoint.id, Change(rate=None))
    assert unhurried is not None
    assert unhurried.rate is None
    assert len(await claim(deliveries, wanted(5))) == 2


async def test_what_was_used_up_at_one_rate_says_nothing_of_another(
    deliveries: DeliveryStore,
) -> None:
    await enqueue(deliveries, "a.example", 4)
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.change_endpoint(endpoint.id, Change(rate=0.001))
    assert len(await claim(deliveries, wanted(1))) == 1
    assert await claim(deliveries, wanted(2)) == []
    await deliveries.change_endpoint(endpoint.id, Change(rate=0.01))
    assert len(await claim(deliveries, wanted(3))) == 1


async def test_the_limit_grows_to_what_an_operator_allows(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 20)
    endpoint = registration("a.example", deliveries.partitions)
    changed = await deliveries.change_endpoint(endpoint.id, Change(max_limit=2))
    assert changed is not None
    assert (changed.limit, changed.max_limit) == (2, 2)
    for sequence in range(1, 4):
        given = await claim(deliveries, wanted(sequence))
        assert len(given) == 2
        good = [over(each, Deliver(), limit="grow", breaker="good") for each in given]
        await deliveries.record(good)
    freed = await deliveries.change_endpoint(endpoint.id, Change(max_limit=None))
    assert freed is not None
    assert (freed.limit, freed.max_limit) == (2, None)
    [one, *_] = await claim(deliveries, wanted(4))
    await deliveries.record([over(one, Deliver(), limit="grow")])
    grown = await deliveries.read_endpoint(endpoint.id)
    assert grown is not None
    assert grown.limit == 3


# Order among the unproven


async def test_a_new_host_goes_before_one_that_failed_for_as_long_as_that_is_bearable(
    store: Store, deliveries: DeliveryStore
) -> None:
    [failed] = await enqueue(deliveries, "failed.example")
    [attempt] = await claim(deliveries, wanted(1))
    await deliveries.record([over(attempt, Retry(delay=0), breaker="bad")])
    waiting = key(attempt.endpoint, "ready:unproven", attempt.tenant)
    behind = await store.client.zscore(waiting, attempt.endpoint)
    partition = partition_of(attempt.endpoint)
    fresh = []
    for number in range(3):
        host = next(
            name
            for name in (f"new-{number}-{at}.example" for at in range(100))
            if partition_of(registration(name, deliveries.partitions).id) == partition
        )
        fresh += await enqueue(deliveries, host)
    [first] = await claim(deliveries, wanted(2, limit=1))
    assert first.id == fresh[0]
    # A minute later it is older than they are.
    await store.client.zadd(waiting, {attempt.endpoint: (behind or 0) - 61 * SECOND})
    [second] = await claim(deliveries, wanted(3, limit=1))
    assert second.id == failed


async def test_tenants_with_new_hosts_take_turns(deliveries: DeliveryStore) -> None:
    for number in range(20):
        await enqueue(deliveries, f"h{number}.example", tenant="bulk")
    for tenant in ("t1", "t2"):
        await enqueue(deliveries, "h1.example", 2, tenant=tenant)
    given = [
        each.tenant
        for at in range(1, 5)
        for each in await claim(deliveries, replace(wanted(at, limit=1), per_turn=1))
    ]
    shared = [each for each in given if each != "bulk"]
    # All of h1's tenants are in one partition, and there nobody comes twice before the others came.
    assert Counter(shared[:2]) == {"t1": 1, "t2": 1}
