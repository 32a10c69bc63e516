"""What is known of an endpoint: its health, its disabled URLs, and when it may go."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice

import pytest

from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.endpoints import MAX_DISABLED_URLS, Change, Endpoint, Registration, disabled_url
from delivery.errors import SealError, TooManyEndpoints
from delivery.models import Bury, Deliver, Retry
from delivery.store import DeliveryStore
from tests.delivery.replaying import replay
from tests.delivery.test_store import (
    RING,
    claim,
    enqueue,
    message,
    over,
    registration,
    wanted,
)

LIMITS = {"bad": "keep", "good": "grow"}


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    """Return the deliveries of an empty store."""
    return DeliveryStore(store, partitions)


async def read(deliveries: DeliveryStore, endpoint: Registration) -> Endpoint:
    """Return an endpoint that must be there."""
    found = await deliveries.read_endpoint(endpoint.id)
    assert found is not None
    return found


def urls(endpoint: Endpoint) -> list[str]:
    """Return the disabled URLs, opened."""
    return [RING.open(each.url, row=each.row).decode() for each in endpoint.disabled]


async def state(deliveries: DeliveryStore, identifier: str) -> tuple[str, str | None]:
    """Return the state and the reason of a delivery."""
    kept = await deliveries.read(identifier)
    assert kept is not None
    return kept.state, kept.reason


# Health


async def test_the_last_failure_is_told_also_after_a_success(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example", 7)
    endpoint = registration("a.example", deliveries.partitions)
    before = await read(deliveries, endpoint)
    assert (before.breaker, before.last_failure, before.succeeded_at) == ("closed", None, None)
    given = await claim(deliveries, wanted(1))
    failed = over(given[0], Retry(delay=0), breaker="bad")
    await deliveries.record([replace(failed, status=503, outcome="throttled")])
    seen = await read(deliveries, endpoint)
    assert seen.last_failure is not None
    assert (seen.last_failure.outcome, seen.last_failure.status) == ("throttled", 503)
    assert (seen.breaker, seen.consecutive_failures) == ("closed", 1)

    silent = [over(each, Retry(delay=0), breaker="bad") for each in given[1:5]]
    await deliveries.record([replace(each, status=None, outcome="timeout") for each in silent])
    seen = await read(deliveries, endpoint)
    assert seen.last_failure is not None
    assert (seen.last_failure.outcome, seen.last_failure.status) == ("timeout", None)
    assert (seen.breaker, seen.consecutive_failures) == ("open", 5)
    assert seen.open_until is not None

    await deliveries.record([over(given[5], Deliver(), breaker="good")])
    healed = await read(deliveries, endpoint)
    assert (healed.breaker, healed.consecutive_failures, healed.open_until) == ("closed", 0, None)
    assert healed.last_failure == seen.last_failure
    assert healed.succeeded_at is not None
    # What says nothing of the receiver is no failure of its.
    await deliveries.record([replace(over(given[6], Retry(delay=0)), outcome="interrupted")])
    assert (await read(deliveries, endpoint)).last_failure == seen.last_failure


async def test_attempts_recorded_together_count_one_by_one(deliveries: DeliveryStore) -> None:
    """Four failures, a success and a failure in one script are one failure in a row."""
    await enqueue(deliveries, "a.example", 6)
    endpoint = registration("a.example", deliveries.partitions)
    given = await claim(deliveries, wanted(1))
    breakers = ["bad", "bad", "bad", "bad", "good", "bad"]
    await deliveries.record(
        [
            over(each, Retry(delay=0), limit=LIMITS[breaker], breaker=breaker)
            for each, breaker in zip(given, breakers, strict=True)
        ]
    )
    seen = await read(deliveries, endpoint)
    assert (seen.breaker, seen.consecutive_failures) == ("closed", 1)
    assert seen.limit == deliveries.retention.initial_limit + 1


# Disabled URLs


async def test_a_410_disables_the_url_and_shows_it(deliveries: DeliveryStore) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    endpoint = registration("a.example", deliveries.partitions)
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="gone"))])
    seen = await read(deliveries, endpoint)
    assert urls(seen) == ["https://a.example/hook"]
    [gone] = seen.disabled
    assert (gone.reason, gone.row) == ("gone", identifier)
    assert [each.disabled for each in await deliveries.list_endpoints("t1")] == [seen.disabled]


async def test_an_operator_says_which_urls_are_disabled(deliveries: DeliveryStore) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    await deliveries.enqueue(message(endpoint, "/gone"))
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="gone"))])
    [gone] = (await read(deliveries, endpoint)).disabled

    both = [
        disabled_url(endpoint.id, f"{endpoint.origin}{path}", RING)
        for path in ("/gone", "/unwanted")
    ]
    for _ in range(2):
        changed = await deliveries.change_endpoint(endpoint.id, Change(disabled=both))
        assert changed is not None
        assert urls(changed) == ["https://a.example/gone", "https://a.example/unwanted"]
        assert changed.disabled[0] == gone
        assert changed.disabled[1].reason == "operator"
    unwanted, wished = message(endpoint, "/unwanted"), message(endpoint, "/wished")
    for each in (unwanted, wished):
        await deliveries.enqueue(each)
    assert await state(deliveries, unwanted.id) == ("dead", "disabled")
    assert [each.id for each in await claim(deliveries, wanted(2))] == [wished.id]

    # A bound that is changed leaves them alone; none that is named enables all.
    await deliveries.change_endpoint(endpoint.id, Change(rate=5.0))
    assert len((await read(deliveries, endpoint)).disabled) == 2
    enabled = await deliveries.change_endpoint(endpoint.id, Change(disabled=[]))
    assert enabled is not None
    assert (enabled.disabled, enabled.rate) == ((), 5.0)
    again = message(endpoint, "/unwanted")
    await deliveries.enqueue(again)
    assert [each.id for each in await claim(deliveries, wanted(3))] == [again.id]


async def test_the_backlog_of_a_disabled_url_is_buried_a_few_at_a_time(
    deliveries: DeliveryStore,
) -> None:
    ids = await enqueue(deliveries, "a.example", 30)
    endpoint = registration("a.example", deliveries.partitions)
    url = disabled_url(endpoint.id, f"{endpoint.origin}/hook", RING)
    await deliveries.change_endpoint(endpoint.id, Change(disabled=[url]))
    assert (await read(deliveries, endpoint)).waiting == 30
    for sequence in count(1):
        assert await claim(deliveries, wanted(sequence, limit=1)) == []
        if (await read(deliveries, endpoint)).waiting == 0:
            break
    assert {await state(deliveries, each) for each in ids} == {("dead", "disabled")}


async def test_a_url_does_not_open_as_a_secret_nor_a_secret_as_a_url(
    deliveries: DeliveryStore,
) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    _, row, sealed = disabled_url(endpoint.id, f"{endpoint.origin}/hook", RING)
    with pytest.raises(SealError):
        RING.open(sealed, row=endpoint.id)
    with pytest.raises(SealError):
        RING.open(endpoint.secret, row=row)


async def test_too_many_disabled_urls_forget_the_410_of_longest_ago(
    deliveries: DeliveryStore,
) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    named = [
        disabled_url(endpoint.id, f"{endpoint.origin}/o{number}", RING)
        for number in range(MAX_DISABLED_URLS - 2)
    ]
    await deliveries.change_endpoint(endpoint.id, Change(disabled=named))
    for sequence, path in enumerate(("/first", "/second", "/third", "/third"), 1):
        await deliveries.enqueue(message(endpoint, path))
        for claimed in await claim(deliveries, wanted(sequence)):
            await deliveries.record([over(claimed, Bury(reason="gone"))])
    kept = urls(await read(deliveries, endpoint))
    assert len(kept) == MAX_DISABLED_URLS
    assert kept[-2:] == ["https://a.example/second", "https://a.example/third"]
    with pytest.raises(ValueError, match="more than 100"):
        await deliveries.change_endpoint(endpoint.id, Change(disabled=named + named))


async def test_a_410_changes_nothing_where_an_operator_named_all_there_may_be(
    deliveries: DeliveryStore,
) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    named = [
        disabled_url(endpoint.id, f"{endpoint.origin}/o{number}", RING)
        for number in range(MAX_DISABLED_URLS)
    ]
    await deliveries.change_endpoint(endpoint.id, Change(disabled=named))
    await deliveries.enqueue(message(endpoint, "/gone"))
    [claimed] = await claim(deliveries, wanted(1))
    assert await deliveries.record([over(claimed, Bury(reason="gone"))]) == []
    assert await state(deliveries, claimed.id) == ("dead", "gone")
    assert {each.reason for each in (await read(deliveries, endpoint)).disabled} == {"operator"}


# Deleting


async def test_an_endpoint_in_use_stays(deliveries: DeliveryStore) -> None:
    await enqueue(deliveries, "a.example")
    endpoint = registration("a.example", deliveries.partitions)
    assert not await deliveries.delete_endpoint(endpoint.id)  # waits
    [claimed] = await claim(deliveries, wanted(1))
    assert not await deliveries.delete_endpoint(endpoint.id)  # is being attempted
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    await replay(deliveries, [claimed.id])
    assert not await deliveries.delete_endpoint(endpoint.id)  # waits to be replayed
    [again] = await claim(deliveries, wanted(2))
    await deliveries.record([over(again, Deliver())])
    assert await deliveries.delete_endpoint(endpoint.id)
    assert await deliveries.delete_endpoint(endpoint.id)
    assert await deliveries.read_endpoint(endpoint.id) is None
    assert await deliveries.list_endpoints("t1") == []


async def everything(store: Store) -> set[bytes]:
    """Return every key but those of replays, which are nobody's endpoint."""
    return {key async for key in store.client.scan_iter() if b":rp:" not in key}


async def test_nothing_brings_a_deleted_endpoint_back_but_its_registration(
    store: Store, deliveries: DeliveryStore
) -> None:
    dead, delivered = await enqueue(deliveries, "a.example", 2)
    endpoint = registration("a.example", deliveries.partitions)
    for claimed in await claim(deliveries, wanted(1)):
        verdict = Bury(reason="exhausted") if claimed.id == dead else Deliver()
        await deliveries.record([over(claimed, verdict)])
    assert await deliveries.delete_endpoint(endpoint.id)
    before = await everything(store)
    assert await replay(deliveries, [dead]) == {dead: "endpoint_deleted"}
    for each in (dead, delivered):
        assert await deliveries.redeliver(each, "wish") == "endpoint_deleted"
    assert await deliveries.pause_endpoint(endpoint.id) is None
    assert await deliveries.change_endpoint(endpoint.id, Change(rate=1.0)) is None
    with pytest.raises(KeyError):
        await deliveries.enqueue(message(endpoint))
    assert await everything(store) == before
    assert await claim(deliveries, wanted(2)) == []
    assert await state(deliveries, dead) == ("dead", "exhausted")

    _, made = await deliveries.register_endpoint(endpoint)
    assert made
    assert await replay(deliveries, [dead]) == {dead: "dead"}
    assert [each.id for each in await claim(deliveries, wanted(3))] == [dead]


async def test_a_deleted_endpoint_leaves_no_key_of_its_own(
    store: Store, deliveries: DeliveryStore
) -> None:
    await enqueue(deliveries, "a.example")
    endpoint = registration("a.example", deliveries.partitions)
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="gone"))])
    await deliveries.change_endpoint(endpoint.id, Change(rate=1.0))
    await deliveries.pause_endpoint(endpoint.id)
    assert await deliveries.delete_endpoint(endpoint.id)
    assert {key for key in await everything(store) if endpoint.id.encode() in key} == set()


# How many


async def test_a_tenant_has_so_many_endpoints_and_no_more(store: Store, partitions: int) -> None:
    bounds = replace(DEFAULT_RETENTION, max_endpoints=2)
    deliveries = DeliveryStore(store, partitions, bounds)
    hosts = (registration(f"h{number}.example", partitions) for number in count())
    first, second, third = islice((each for each in hosts if partition_of(each.id) == 0), 3)
    for each in (first, second, first):
        await deliveries.register_endpoint(each)
    before = await everything(store)
    with pytest.raises(TooManyEndpoints):
        await deliveries.register_endpoint(third)
    assert await everything(store) == before
    theirs = registration(third.origin.removeprefix("https://"), partitions, tenant="t2")
    assert (await deliveries.register_endpoint(theirs))[1]
    await deliveries.delete_endpoint(first.id)
    assert (await deliveries.register_endpoint(third))[1]
    known = await store.client.smembers(f"{partition_prefix(0)}eps:t1")
    assert known == {second.id.encode(), third.id.encode()}
