"""Notices to the operator: written with what they tell of, moved once, never about himself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from config.clock import rfc3339
from config.ids import partition_of
from config.scripts import partition_prefix
from config.sections import OperatorSettings
from config.store import Store
from delivery.egress import Policy
from delivery.models import Attempted, Bury, Claimed, Retry
from delivery.notices import Notices, Operator, OperatorUnusable, operator_of
from delivery.store import DeliveryStore
from tests.delivery.replaying import replay
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
    enqueue,
    message,
    over,
    registration,
    wanted,
)

URL = "https://operator.example/events?key=1"
KEPT = 1_000


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


@pytest.fixture
def operator() -> Operator:
    made = operator_of(OperatorSettings(url=URL, tenant="ops"), POLICY)
    assert made is not None
    return made


@pytest.fixture
async def notices(store: Store, deliveries: DeliveryStore, operator: Operator) -> Notices:
    made = Notices(store, deliveries, operator, RING)
    await made.begin()
    return made


class Attempts:
    """Claims what is due, records what is said to have come of it, and sees what is to be told."""

    def __init__(self, deliveries: DeliveryStore, store: Store) -> None:
        self._deliveries = deliveries
        self._store = store
        self._sequence = 0

    async def claim(self) -> list[Claimed]:
        self._sequence += 1
        return await claim(self._deliveries, wanted(self._sequence, limit=50))

    async def bury(self, reason: Any, status: int | None = 500) -> list[Attempted]:
        """Let everything that is due die; return what was recorded."""
        attempts = [
            replace(over(each, Bury(reason=reason)), status=status) for each in await self.claim()
        ]
        assert not await self._deliveries.record(attempts)
        return attempts

    async def exhaust(self, host: str = "a.example", tenant: str = "t1") -> str:
        """Let a new delivery die, and all that is due; return its identifier."""
        [dead] = await enqueue(self._deliveries, host, tenant=tenant)
        await self.bury("exhausted")
        return dead

    async def waiting(self) -> list[dict[str, Any]]:
        """Return the notices of all partitions."""
        found: list[dict[str, Any]] = []
        for partition in range(self._deliveries.partitions):
            key = f"{partition_prefix(partition)}operator:notices"
            found += [json.loads(each) for each in await self._store.client.lrange(key, 0, -1)]
        return found


@pytest.fixture
def attempts(deliveries: DeliveryStore, store: Store) -> Attempts:
    return Attempts(deliveries, store)


async def test_a_death_is_told_with_why(
    notices: Notices, operator: Operator, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    [dead] = await enqueue(deliveries, "a.example")
    await attempts.bury("exhausted", status=503)
    assert await notices.move(operator) == 1
    [told] = await attempts.claim()
    kept = await deliveries.read(dead)
    assert kept is not None
    assert kept.ended_at is not None
    assert (told.tenant, told.trigger) == ("ops", "schedule")
    assert json.loads(told.tags) == {"event": "delivery.exhausted"}
    assert RING.open(told.url, row=told.id) == URL.encode()
    assert json.loads(told.body) == {
        "type": "delivery.exhausted",
        "timestamp": rfc3339(kept.ended_at),
        "data": {
            "deliveryId": dead,
            "endpointId": kept.endpoint,
            "origin": "https://a.example",
            "tenant": "t1",
            "reason": "exhausted",
            "attempts": 1,
            "lastStatusCode": 503,
            "tags": {"jobId": "job_1"},
        },
    }
    assert b": " not in told.body
    assert await notices.move(operator) == 0


async def test_a_death_without_an_answer_has_no_status(
    notices: Notices, operator: Operator, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    await enqueue(deliveries, "a.example")
    await attempts.bury("destination_not_allowed", status=None)
    await notices.move(operator)
    [told] = await attempts.claim()
    data = json.loads(told.body)["data"]
    assert (data["reason"], data["lastStatusCode"]) == ("destination_not_allowed", None)


async def test_a_url_that_is_gone_is_told_once_and_what_it_takes_along_is_not(
    notices: Notices,
    operator: Operator,
    deliveries: DeliveryStore,
    attempts: Attempts,
    partitions: int,
) -> None:
    first, second = await enqueue(deliveries, "a.example", 2)
    endpoint = registration("a.example", partitions)
    other = message(endpoint, "/other")
    await deliveries.enqueue(other)
    await attempts.bury("gone", status=410)
    told = await attempts.waiting()
    assert [(each["event"], each["delivery"]) for each in told if each["delivery"] == first] == [
        ("endpoint.disabled", first),
        ("delivery.exhausted", first),
    ]
    disabled = [each["delivery"] for each in told if each["event"] == "endpoint.disabled"]
    assert disabled == [first, other.id], "one of each URL"
    exhausted = [each["delivery"] for each in told if each["event"] == "delivery.exhausted"]
    assert sorted(exhausted) == sorted([first, second, other.id])
    # What is owed to a disabled URL from now on dies at once, and nobody is told one by one.
    [late] = await enqueue(deliveries, "a.example")
    dead = await deliveries.read(late)
    assert dead is not None
    assert dead.reason == "disabled"
    assert len(await attempts.waiting()) == len(told)
    await notices.move(operator)
    assert len(await attempts.claim()) == len(told)


async def test_a_manual_attempt_that_finds_a_url_gone_tells_of_it(
    notices: Notices, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    dead = await attempts.exhaust()
    await deliveries.redeliver(dead, "wish")
    await attempts.bury("gone", status=410)
    events = [each["event"] for each in await attempts.waiting()]
    assert events == ["delivery.exhausted", "endpoint.disabled"]


async def test_nothing_is_told_of_the_operators_own_endpoint(
    notices: Notices, operator: Operator, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    await attempts.exhaust()
    await notices.move(operator)
    [died] = await attempts.bury("gone", status=410)
    assert (await deliveries.read(died.id)) is not None
    assert await attempts.waiting() == []
    # A callback of anybody's that goes to the same origin for the same tenant is no exception.
    await attempts.exhaust("operator.example", tenant="ops")
    assert await attempts.waiting() == []
    # Another tenant's endpoint is another endpoint.
    await attempts.exhaust("operator.example")
    assert len(await attempts.waiting()) == 1


async def test_without_an_operator_nothing_is_kept(
    notices: Notices, deliveries: DeliveryStore, attempts: Attempts, store: Store
) -> None:
    await attempts.exhaust()
    assert len(await attempts.waiting()) == 1
    await Notices(store, deliveries, None, RING).begin()
    assert await attempts.waiting() == []
    await attempts.exhaust()
    assert await attempts.waiting() == []


async def test_a_record_that_runs_twice_tells_once(
    notices: Notices, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    await enqueue(deliveries, "a.example")
    recorded = await attempts.bury("gone")
    assert not await deliveries.record(recorded)
    assert len(await attempts.waiting()) == 2


async def test_moved_twice_is_one_delivery(
    notices: Notices,
    operator: Operator,
    deliveries: DeliveryStore,
    attempts: Attempts,
    store: Store,
) -> None:
    dead = await attempts.exhaust()
    key = f"{partition_prefix(partition_of(dead))}operator:notices"
    kept = await store.client.lrange(key, 0, -1)
    await notices.move(operator)
    # As if the process had died before it dropped what it had moved.
    await store.client.rpush(key, *kept)
    assert await notices.move(operator) == 1
    assert len(await attempts.claim()) == 1
    assert await attempts.waiting() == []
    # A death after a replay is another one.
    await replay(deliveries, [dead])
    await attempts.bury("exhausted")
    await notices.move(operator)
    assert len(await attempts.claim()) == 1


async def test_the_oldest_make_room_and_are_counted(
    notices: Notices, deliveries: DeliveryStore, attempts: Attempts, store: Store
) -> None:
    [first, *_] = await enqueue(deliveries, "a.example", 3)
    prefix = partition_prefix(partition_of(first))
    await store.client.rpush(f"{prefix}operator:notices", *map(str, range(KEPT - 1)))
    await attempts.bury("exhausted")
    kept = await store.client.lrange(f"{prefix}operator:notices", 0, -1)
    assert len(kept) == KEPT
    assert kept[0] == b"2"
    assert await store.client.hget(f"{prefix}stats", "dropped") == b"2"


async def test_one_that_cannot_be_read_holds_up_no_other(
    notices: Notices,
    operator: Operator,
    deliveries: DeliveryStore,
    attempts: Attempts,
    store: Store,
) -> None:
    [dead] = await enqueue(deliveries, "a.example")
    key = f"{partition_prefix(partition_of(dead))}operator:notices"
    await store.client.rpush(key, "{", '{"event": "other", "at": "1"}', "[]")
    await attempts.bury("exhausted")
    await notices.move(operator)
    assert len(await attempts.claim()) == 1
    assert await attempts.waiting() == []


async def test_an_endpoint_that_was_removed_is_made_again(
    notices: Notices, operator: Operator, attempts: Attempts, store: Store, partitions: int
) -> None:
    mine = registration("operator.example", partitions, "ops").id
    await store.client.delete(f"{partition_prefix(partition_of(mine))}ep:{mine}")
    await attempts.exhaust()
    await notices.move(operator)
    assert len(await attempts.claim()) == 1


async def test_what_goes_on_is_not_told(
    notices: Notices, deliveries: DeliveryStore, attempts: Attempts
) -> None:
    await enqueue(deliveries, "a.example", 6)
    failed = [over(each, Retry(delay=1), breaker="bad") for each in await attempts.claim()]
    assert not await deliveries.record(failed)
    assert await attempts.waiting() == [], "an open breaker disables nothing"


def test_a_url_that_may_not_be_called_is_refused() -> None:
    with pytest.raises(OperatorUnusable, match=r"operator\.url: "):
        operator_of(OperatorSettings(url="http://ops.example/", tenant="default"), Policy())
    assert operator_of(OperatorSettings(url="", tenant="default"), Policy()) is None
