"""What delivery counts is what happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from config.clock import SECOND, StoreClock, SystemClock
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.attempt import Rules
from delivery.egress import parse_destination
from delivery.endpoints import register
from delivery.metrics import DeliveryMetrics, delivery_numbers
from delivery.models import Bury, Deliver, Retry
from delivery.resolver import PolicyResolver
from delivery.retry import Schedule
from delivery.sender import Sender
from delivery.store import DeliveryStore
from delivery.transport import AiohttpTransport, Gate
from delivery.worker import DeliveryWorker, Pace
from tests.delivery.conftest import Receiver, StartReceiver
from tests.delivery.replaying import replay
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
    enqueue,
    message,
    over,
    wanted,
)
from tests.delivery.test_worker import OK, Watched, says

GONE = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n"
ERROR = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
CLOSED = 1


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def deliveries(store: Store, partitions: int) -> Watched:
    return Watched(store, partitions)


@pytest.fixture
async def worker(
    store: Store, deliveries: Watched, registry: CollectorRegistry
) -> AsyncIterator[DeliveryWorker]:
    """A delivery process whose every name is this host, but `inside` is a private one."""

    async def lookup(host: str) -> list[str]:
        return ["10.0.0.1" if host == "inside.example" else "127.0.0.1"]

    async with AsyncExitStack() as stack:
        resolver = PolicyResolver(lookup, POLICY)
        stack.push_async_callback(resolver.close)
        transport = await stack.enter_async_context(
            AiohttpTransport(gate=Gate.under(POLICY, resolver))
        )
        clock = StoreClock(SystemClock())
        yield DeliveryWorker(
            store=store,
            deliveries=deliveries,
            sender=Sender(transport, clock),
            rules=Rules(
                policy=POLICY,
                schedule=Schedule(gaps=(0.0, 3600.0)),
                ring=RING,
                user_agent="test",
            ),
            clock=clock,
            pace=Pace(concurrency=16, lease=45, attempt_limit=20),
            metrics=DeliveryMetrics(registry),
        )


async def owe(deliveries: DeliveryStore, name: str, port: int, number: int) -> list[str]:
    destination = parse_destination(f"http://{name}.example:{port}/hook", POLICY)
    endpoint = register("t1", destination, RING, deliveries.partitions)
    await deliveries.register_endpoint(endpoint)
    messages = [message(endpoint) for _ in range(number)]
    for each in messages:
        assert await deliveries.enqueue(each)
    return [each.id for each in messages]


async def test_attempts_are_counted_by_what_came_of_them(
    worker: DeliveryWorker,
    deliveries: Watched,
    registry: CollectorRegistry,
    start_receiver: StartReceiver,
) -> None:
    receivers: dict[str, tuple[Receiver, int]] = {}
    for name, answer, number in (("ok", OK, 7), ("oops", ERROR, 3), ("busy", BUSY, 2)):
        receivers[name] = (await start_receiver(says(answer)), number)
    gone = await start_receiver(says(GONE))
    for name, (receiver, number) in receivers.items():
        await owe(deliveries, name, receiver.port, number)
    await owe(deliveries, "gone", gone.port, 1)
    await owe(deliveries, "inside", 80, 4)
    await owe(deliveries, "nobody", CLOSED, 2)
    due = 7 + 3 + 2 + 1 + 4 + 2
    running = asyncio.create_task(worker.run())
    await deliveries.until(lambda: len(deliveries.ended) == due)
    assert registry.get_sample_value("gateway_delivery_slots") == 16
    worker.stop()
    await running

    counted = Counter(
        {
            (sample.labels["outcome"], sample.labels["status_class"]): int(sample.value)
            for family in registry.collect()
            if family.name == "gateway_delivery_attempts"
            for sample in family.samples
        }
    )
    assert counted == {
        ("delivered", "2xx"): 7,
        ("rejected", "5xx"): 3,
        ("throttled", "5xx"): 2,
        ("gone", "4xx"): 1,
        ("destination_not_allowed", "none"): 4,
        ("connect", "none"): 2,
    }
    assert {name: len(each.requests) for name, (each, _) in receivers.items()} == {
        name: number for name, (_, number) in receivers.items()
    }
    denied = "gateway_destinations_denied_total"
    assert registry.get_sample_value(denied, {"kind": "callback"}) == 4
    for name, value in (
        ("gateway_delivery_attempt_seconds_count", due - 4),
        ("gateway_delivery_end_to_end_seconds_count", 7),
        ("gateway_delivery_claims_lost_total", 0),
        ("gateway_delivery_in_flight", 0),
    ):
        assert registry.get_sample_value(name) == value, name


async def test_a_manual_attempt_tells_nothing_of_how_long_deliveries_take(
    worker: DeliveryWorker,
    deliveries: Watched,
    registry: CollectorRegistry,
    start_receiver: StartReceiver,
) -> None:
    receiver = await start_receiver(says(OK))
    await owe(deliveries, "ok", receiver.port, 1)
    running = asyncio.create_task(worker.run())
    await deliveries.until(lambda: len(deliveries.ended) == 1)
    assert await deliveries.redeliver(deliveries.ended[0].id, "wish") == "delivered"
    await deliveries.until(lambda: len(deliveries.ended) == 2)
    worker.stop()
    await running
    assert registry.get_sample_value("gateway_delivery_end_to_end_seconds_count") == 1
    delivered = {"outcome": "delivered", "status_class": "2xx"}
    assert registry.get_sample_value("gateway_delivery_attempts_total", delivered) == 2


async def test_a_record_that_comes_too_late_is_counted(
    worker: DeliveryWorker,
    deliveries: Watched,
    registry: CollectorRegistry,
    start_receiver: StartReceiver,
    store: Store,
) -> None:
    async def script(writer: asyncio.StreamWriter) -> None:
        [taken] = owed
        await store.client.hset(
            f"{partition_prefix(partition_of(taken))}d:{taken}", "claim", "somebody:1:1"
        )
        writer.write(OK)

    receiver = await start_receiver(script)
    owed = await owe(deliveries, "late", receiver.port, 1)
    running = asyncio.create_task(worker.run())
    await deliveries.until(lambda: len(deliveries.ended) == 1)
    worker.stop()
    await running
    assert registry.get_sample_value("gateway_delivery_claims_lost_total") == 1


class Numbers:
    """The numbers in the store, read whenever one is asked for."""

    def __init__(self, store: Store, partitions: int) -> None:
        self._store = store
        self._partitions = partitions

    async def value(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        await delivery_numbers(registry, self._store, self._partitions, SystemClock()).refresh()
        return registry.get_sample_value(f"gateway_{name}", labels)


@pytest.fixture
def numbers(store: Store, partitions: int) -> Numbers:
    return Numbers(store, partitions)


async def test_deaths_are_counted_by_reason_and_once(
    deliveries: DeliveryStore, numbers: Numbers
) -> None:
    assert await numbers.value("delivery_dead_letters") == 0
    reasons = ("exhausted", "exhausted", "destination_not_allowed", "gone")
    for number, _ in enumerate(reasons):
        await enqueue(deliveries, f"h{number}.example")
    claimed = await claim(deliveries, wanted(1))
    attempts = [
        over(each, Bury(reason=reason))  # type: ignore[arg-type]
        for each, reason in zip(claimed, reasons, strict=True)
    ]
    for _ in range(2):
        assert not await deliveries.record(attempts)
    assert await numbers.value("delivery_dead_total", reason="exhausted") == 2
    assert await numbers.value("delivery_dead_total", reason="destination_not_allowed") == 1
    assert await numbers.value("delivery_dead_total", reason="gone") == 1
    assert await numbers.value("delivery_dead_total", reason="poison") == 0
    assert await numbers.value("delivery_dead_letters") == 4
    await replay(deliveries, [claimed[0].id])
    assert await numbers.value("delivery_dead_letters") == 3
    assert await numbers.value("delivery_dead_total", reason="exhausted") == 2, "it never falls"


async def test_what_is_taken_down_is_counted_by_kind_and_cause(
    deliveries: DeliveryStore, numbers: Numbers, store: Store
) -> None:
    assert await numbers.value("delivery_retired_total", kind="dead", cause="count") == 0
    await enqueue(deliveries, "a.example", 3)
    for claimed in await claim(deliveries, wanted(1)):
        await deliveries.record([over(claimed, Bury(reason="exhausted"))])
    one = replace(deliveries.retention, dead_count=1)
    await DeliveryStore(store, deliveries.partitions, one).retire(10)
    assert await numbers.value("delivery_retired_total", kind="dead", cause="count") == 2
    assert await numbers.value("delivery_retired_total", kind="delivered", cause="age") == 0
    assert await numbers.value("delivery_dead_letters") == 1


async def test_open_breakers_are_counted_until_a_good_answer(
    deliveries: DeliveryStore, numbers: Numbers, store: Store
) -> None:
    for host in ("a.example", "b.example"):
        await enqueue(deliveries, host, 6)
    claimed = await claim(deliveries, wanted(1, limit=12))
    failed = [over(each, Retry(delay=0), breaker="bad") for each in claimed]
    assert not await deliveries.record(failed)
    assert await numbers.value("delivery_breakers_open") == 2
    [endpoint] = {each.endpoint for each in claimed if each.id == claimed[0].id}
    key = f"{partition_prefix(partition_of(endpoint))}ep:{endpoint}"
    await store.client.hset(key, "openUntil", 1)
    await enqueue(deliveries, "c.example")
    # The probe, once its time has come.
    await store.client.zadd(f"{partition_prefix(partition_of(endpoint))}agenda", {endpoint: 1})
    [probe] = [each for each in await claim(deliveries, wanted(2)) if each.endpoint == endpoint]
    assert not await deliveries.record([over(probe, Deliver(), breaker="good")])
    assert await numbers.value("delivery_breakers_open") == 1


async def test_what_is_due_and_not_taken_is_late(
    deliveries: DeliveryStore, numbers: Numbers, store: Store
) -> None:
    assert await numbers.value("delivery_due_lag_seconds") == 0
    [identifier] = await enqueue(deliveries, "a.example")
    prefix = partition_prefix(partition_of(identifier))
    assert await numbers.value("delivery_endpoints", place="unproven") == 1
    [endpoint] = await store.client.zrange(f"{prefix}ready:unproven", 0, -1)
    await store.client.zincrby(f"{prefix}ready:unproven", -90 * SECOND, cast("bytes", endpoint))
    lag = await numbers.value("delivery_due_lag_seconds")
    assert lag is not None
    assert 90 <= lag < 120
    await claim(deliveries, wanted(1))
    assert await numbers.value("delivery_due_lag_seconds") == 0
    assert await numbers.value("delivery_endpoints", place="agenda") == 1


async def test_a_lease_that_ran_out_is_counted(
    deliveries: DeliveryStore, numbers: Numbers, partitions: int
) -> None:
    await enqueue(deliveries, "a.example")
    assert len(await claim(deliveries, replace(wanted(1), lease=1))) == 1
    assert await numbers.value("delivery_leases_lost_total") == 0
    assert len(await claim(deliveries, wanted(2))) == 1
    assert await numbers.value("delivery_leases_lost_total") == 1


async def test_notices_that_wait_are_counted(
    deliveries: DeliveryStore, numbers: Numbers, store: Store, partitions: int
) -> None:
    for partition in range(partitions):
        await store.client.rpush(f"{partition_prefix(partition)}operator:notices", "1", "2")
    assert await numbers.value("operator_notices") == 2 * partitions
    assert await numbers.value("operator_notices_dropped_total") == 0
