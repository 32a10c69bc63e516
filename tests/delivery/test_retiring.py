"""What has ended is kept within bounds: by age, by count and by bytes, the oldest first."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from config.clock import SECOND, SystemClock
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION, Bound, Cause, Kind, Retention, Retired
from delivery.metrics import DeliveryMetrics
from delivery.models import Bury, Deliver
from delivery.retiring import Retirer
from delivery.store import DeliveryStore
from tests.delivery.test_store import claim, enqueue, message, over, registration, wanted

HOUR = 3600 * SECOND
DAY = 24 * HOUR
PLENTY = 1_000


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    """Return the deliveries of an empty store."""
    return DeliveryStore(store, partitions)


def bounded(store: Store, deliveries: DeliveryStore, **bounds: int) -> DeliveryStore:
    """Return the same deliveries under other bounds."""
    kept: Retention = replace(DEFAULT_RETENTION, **bounds)
    return DeliveryStore(store, deliveries.partitions, kept)


async def end(
    deliveries: DeliveryStore, number: int, verdict: Deliver | Bury, *, tenant: str = "t1"
) -> list[str]:
    """Make deliveries of a tenant that ended one after the other."""
    ended = []
    for _ in range(number):
        ended += await enqueue(deliveries, "a.example", tenant=tenant)
        [claimed] = await claim(deliveries, wanted(len(ended), process=f"dp-{ended[-1]}"))
        await deliveries.record([over(claimed, verdict)])
    return ended


def shelf(identifier: str, kind: str, tenant: str = "t1") -> str:
    return f"{partition_prefix(partition_of(identifier))}shelf:{kind}:{tenant}"


async def members(store: Store, name: str) -> list[str]:
    """Return the members of a zset, first to last."""
    found: list[bytes] = await store.client.zrange(name, 0, -1)  # type: ignore[assignment]
    return [each.decode() for each in found]


async def fields(store: Store, name: str) -> set[str]:
    """Return the names of a hash's fields."""
    found: list[bytes] = await store.client.hkeys(name)  # type: ignore[assignment]
    return {each.decode() for each in found}


async def age(store: Store, identifier: str, kind: str, by: int) -> None:
    """Let an ended delivery have ended `by` µs earlier, and its shelf be due."""
    name = shelf(identifier, kind)
    for member in await members(store, name):
        if member.startswith(identifier):
            await store.client.zincrby(name, -by, member)
    look = f"{partition_prefix(partition_of(identifier))}shelf:look"
    await store.client.zadd(look, {f"{kind}:t1": 1})


async def kept(deliveries: DeliveryStore, ids: list[str]) -> list[str]:
    """Return those that there still are."""
    return [each for each in ids if await deliveries.read(each) is not None]


async def dropped(
    deliveries: DeliveryStore, at_most: int = PLENTY
) -> dict[tuple[Kind, Cause], int]:
    """Retire; return how many were taken down."""
    total: dict[tuple[Kind, Cause], int] = {}
    for retired in (await deliveries.retire(PLENTY)).values():
        for cause, count in retired.dropped.items():
            total[cause] = total.get(cause, 0) + count
    return total


async def near(deliveries: DeliveryStore) -> list[Bound]:
    return [each for retired in (await deliveries.retire(PLENTY)).values() for each in retired.near]


async def test_a_test_that_failed_is_kept_with_what_was_delivered(
    store: Store, deliveries: DeliveryStore
) -> None:
    endpoint = registration("a.example", deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    sent = replace(message(endpoint), trigger="test")
    await deliveries.enqueue(sent)
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    assert await members(store, shelf(sent.id, "dead")) == []
    assert len(await members(store, shelf(sent.id, "delivered"))) == 1
    assert await dropped(bounded(store, deliveries, delivered_count=0)) == {
        ("delivered", "count"): 1
    }
    assert await deliveries.read(sent.id) is None


ENDS = [("dead", Bury(reason="exhausted")), ("delivered", Deliver())]


@pytest.mark.parametrize(("kind", "verdict"), ENDS)
async def test_what_is_too_old_goes_with_all_there_is_of_it(
    store: Store, deliveries: DeliveryStore, kind: str, verdict: Deliver | Bury
) -> None:
    old, young = await end(deliveries, 2, verdict)
    await age(store, old, kind, 31 * DAY)
    assert await dropped(deliveries) == {(kind, "age"): 1}
    assert await kept(deliveries, [old, young]) == [young]
    prefix = partition_prefix(partition_of(old))
    names = [f"{prefix}d:{old}", f"{prefix}d:{old}:body"]
    assert await store.client.exists(*names) == 0
    assert await store.client.zscore(f"{prefix}dead", old) is None
    assert await store.client.hget(f"{prefix}stats", f"retired:{kind}:age") == b"1"
    assert await dropped(deliveries) == {}


@pytest.mark.parametrize(("kind", "verdict"), ENDS)
async def test_of_too_many_the_oldest_go(
    store: Store, deliveries: DeliveryStore, kind: str, verdict: Deliver | Bury
) -> None:
    ids = await end(deliveries, 5, verdict)
    theirs = await end(deliveries, 3, verdict, tenant="t2")
    deliveries = bounded(store, deliveries, dead_count=3, delivered_count=3)
    assert await dropped(deliveries) == {(kind, "count"): 2}
    assert await kept(deliveries, ids) == ids[2:]
    assert await kept(deliveries, theirs) == theirs


@pytest.mark.parametrize(("kind", "verdict"), ENDS)
async def test_of_too_many_bytes_the_oldest_go(
    store: Store, deliveries: DeliveryStore, kind: str, verdict: Deliver | Bury
) -> None:
    ids = await end(deliveries, 4, verdict)
    total = int(await store.client.hget(shelf(ids[0], "bytes")[:-3], f"{kind}:t1") or 0)
    assert total > 4 * 512
    most = total * 5 // 8
    deliveries = bounded(store, deliveries, dead_bytes=most, delivered_bytes=most)
    assert await dropped(deliveries) == {(kind, "bytes"): 2}
    assert await kept(deliveries, ids) == ids[2:]
    left = int(await store.client.hget(shelf(ids[0], "bytes")[:-3], f"{kind}:t1") or 0)
    assert 0 < left <= most


async def test_one_script_takes_down_so_many_and_says_that_there_is_more(
    store: Store, deliveries: DeliveryStore
) -> None:
    ids = await end(deliveries, 7, Bury(reason="exhausted"))
    deliveries = bounded(store, deliveries, dead_count=2)
    looks = [(await deliveries.retire(2))[partition_of(ids[0])] for _ in range(4)]
    assert [sum(each.dropped.values()) for each in looks] == [2, 2, 1, 0]
    assert [each.more for each in looks] == [True, True, False, False]
    assert await kept(deliveries, ids) == ids[5:]


async def test_shelves_take_turns(store: Store, deliveries: DeliveryStore) -> None:
    """A tenant with much to take down does not keep the others' shelves full."""
    bulk = await end(deliveries, 8, Bury(reason="exhausted"), tenant="bulk")
    small = await end(deliveries, 2, Bury(reason="exhausted"), tenant="small")
    deliveries = bounded(store, deliveries, dead_count=1)
    for _ in range(2):
        await deliveries.retire(3)
    assert len(await kept(deliveries, small)) == 1
    assert len(await kept(deliveries, bulk)) > 1


async def test_what_a_person_asked_to_be_sent_again_stays_until_that_is_over(
    store: Store, deliveries: DeliveryStore
) -> None:
    first, second = await end(deliveries, 2, Bury(reason="exhausted"))
    await deliveries.redeliver(first, "wish")
    deliveries = bounded(store, deliveries, dead_count=1)
    assert await dropped(deliveries) == {("dead", "count"): 1}
    assert await kept(deliveries, [first, second]) == [first]
    [claimed] = await claim(deliveries, wanted(1))
    await deliveries.record([over(claimed, Deliver())])
    assert await dropped(deliveries) == {}
    found = await deliveries.read(first)
    assert found is not None
    assert found.state == "delivered"


async def test_those_that_stay_are_no_reason_to_look_again_at_once(
    store: Store, deliveries: DeliveryStore
) -> None:
    ids = await end(deliveries, 3, Bury(reason="exhausted"))
    for each in ids:
        await deliveries.redeliver(each, "wish")
    deliveries = bounded(store, deliveries, dead_count=1)
    for _ in range(2):
        assert not any(each.more for each in (await deliveries.retire(2)).values())
    assert await kept(deliveries, ids) == ids


async def test_those_that_can_be_sent_no_more_are_packed(
    store: Store, deliveries: DeliveryStore
) -> None:
    old, young = await end(deliveries, 2, Deliver())
    await age(store, old, "delivered", 2 * HOUR)
    deliveries = bounded(store, deliveries, redelivery=HOUR)
    assert await dropped(deliveries) == {}
    assert await deliveries.read_body(young)
    assert await deliveries.read_body(old) == b""
    assert await deliveries.redeliver(old, "wish") == "redelivery_over"
    assert await deliveries.redeliver(young, "wish") == "delivered"
    shown = await deliveries.read(old)
    assert shown is not None
    assert (shown.state, shown.attempts, len(shown.history)) == ("delivered", 1, 1)


async def test_a_delivered_one_keeps_no_more_than_is_needed(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await end(deliveries, 1, Deliver())
    name = f"{partition_prefix(partition_of(identifier))}d:{identifier}"
    assert await fields(store, name) == {
        "ep", "tenant", "url", "urlHash", "tags", "state", "createdAt", "bornAt", "n", "a1",
        "lastStatus", "settled", "endedAt", "shelved",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("used", "told"),
    [(3, []), (4, [("dead", "t1", "count", 4, 5)]), (6, [("dead", "t1", "count", 6, 5)])],
)
async def test_a_bound_that_is_nearly_used_up_is_told_of(
    store: Store, deliveries: DeliveryStore, used: int, told: list[tuple[str, str, str, int, int]]
) -> None:
    await end(deliveries, used, Bury(reason="exhausted"))
    found = await near(bounded(store, deliveries, dead_count=5))
    assert [(each.kind, each.tenant, each.name, each.used, each.allowed) for each in found] == told


async def test_an_end_that_left_early_is_remembered(
    store: Store, deliveries: DeliveryStore
) -> None:
    """Of those that were delivered at once, when that was is known without."""
    [dead] = await end(deliveries, 1, Bury(reason="exhausted"))
    [at_once, late] = await end(deliveries, 2, Deliver())
    name = f"{partition_prefix(partition_of(late))}d:{late}"
    await store.client.hincrby(name, "createdAt", -HOUR)
    ended = {each: await deliveries.read(each) for each in (dead, at_once, late)}
    await bounded(store, deliveries, dead_count=0, delivered_count=0).retire(PLENTY)
    assert await kept(deliveries, [dead, at_once, late]) == []

    async def note(identifier: str) -> object:
        key = f"{partition_prefix(partition_of(identifier))}d:{identifier}:end"
        return await store.client.get(key)

    for each, state in ((dead, b"dead"), (late, b"delivered")):
        delivery = ended[each]
        assert delivery is not None
        assert await note(each) == b"%s %d" % (state, delivery.ended_at or 0)
    assert await note(at_once) is None


async def test_counts_hold_although_keys_ran_out_of_time(
    store: Store, deliveries: DeliveryStore
) -> None:
    """No process of ours ran for so long that the keys went by themselves."""
    ids = await end(deliveries, 3, Bury(reason="exhausted"))
    prefix = partition_prefix(partition_of(ids[0]))
    for each in ids[:2]:
        await store.client.delete(f"{prefix}d:{each}", f"{prefix}d:{each}:body")
        await age(store, each, "dead", 31 * DAY)
    await deliveries.retire(PLENTY)
    [member] = await members(store, f"{prefix}shelf:dead:t1")
    _, record, body = member.rsplit(":", 2)
    total = await store.client.hget(f"{prefix}shelf:bytes", "dead:t1")
    assert int(total or 0) == int(record) + int(body)
    assert await members(store, f"{prefix}dead") == [ids[2]]


async def test_a_shelf_that_is_empty_leaves_nothing(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await end(deliveries, 1, Deliver())
    await bounded(store, deliveries, redelivery=0).retire(PLENTY)
    await age(store, identifier, "delivered", 0)
    await bounded(store, deliveries, delivered_count=0, ends=0).retire(PLENTY)
    assert [each async for each in store.client.scan_iter("*shelf*")] == []
    assert await deliveries.read(identifier) is None


class Clock(SystemClock):
    """Monotonic time that stands still."""

    seconds = 0.0

    def monotonic(self) -> float:
        """Return what the test says."""
        return self.seconds


async def test_an_operator_is_told_once_a_minute(
    store: Store, deliveries: DeliveryStore, caplog: pytest.LogCaptureFixture
) -> None:
    clock, registry = Clock(), CollectorRegistry()
    kept = bounded(store, deliveries, dead_count=2)
    retirer = Retirer(kept, clock, DeliveryMetrics(registry))
    caplog.set_level(logging.INFO, "delivery.retiring")

    async def told() -> list[tuple[str, int]]:
        caplog.clear()
        await end(deliveries, 1, Bury(reason="exhausted"))
        assert not await retirer.look()
        return [(each.getMessage(), each.levelno) for each in caplog.records]

    await end(deliveries, 1, Bury(reason="exhausted"))
    warned = ("delivery.bound_nearly_used_up", logging.WARNING)
    retired = ("delivery.retired", logging.INFO)
    assert await told() == [warned]
    assert await told() == [retired]
    clock.seconds = 61
    assert await told() == [warned, retired]
    name = "gateway_delivery_bounds_near_total"
    assert registry.get_sample_value(name, {"kind": "dead"}) == 2
    assert registry.get_sample_value(name, {"kind": "delivered"}) == 0


async def test_endpoints_of_what_was_taken_down_are_free_to_go(
    store: Store, deliveries: DeliveryStore
) -> None:
    await end(deliveries, 1, Bury(reason="exhausted"))
    endpoint = registration("a.example", deliveries.partitions)
    looks = await bounded(store, deliveries, dead_count=0).retire(PLENTY)
    assert all(isinstance(each, Retired) for each in looks.values())
    assert await deliveries.delete_endpoint(endpoint.id)
