"""What holds an endpoint back, and whom it must not hold back with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import Change, Registration
from delivery.models import Bury, Claimed, Deliver, Retry
from delivery.store import DeliveryStore
from tests.delivery.replaying import replay
from tests.delivery.test_store import (
    claim,
    claim_all,
    enqueue,
    lapse,
    message,
    over,
    registration,
    wanted,
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


# Hosts


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


# Suspects


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


# What is replayed


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
