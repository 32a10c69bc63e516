"""The delivery process: with the real store and sender, and receivers over loopback sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from config.clock import SECOND, StoreClock, SystemClock
from config.errors import StoreUnavailable
from config.ids import partition_of
from config.log import Subjects
from config.scripts import partition_prefix
from config.store import Store
from delivery.attempt import Rules
from delivery.bounds import DEFAULT_RETENTION
from delivery.egress import parse_destination
from delivery.endpoints import Registration, register
from delivery.metrics import DeliveryMetrics
from delivery.models import Attempted, Batch, Bury, Deliver, Retry
from delivery.resolver import PolicyResolver
from delivery.retry import Schedule
from delivery.sender import Sender
from delivery.store import DeliveryStore, Wanted
from delivery.transport import AiohttpTransport, Gate
from delivery.worker import DeliveryWorker, Pace
from tests.delivery.conftest import Receiver, Script, StartReceiver
from tests.delivery.packing import pack
from tests.delivery.replaying import replay
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
    claim_all,
    enqueue,
    message,
    over,
    registration,
    wanted,
)
from tests.processes import PATIENCE

SWEEP = "delivery.worker.SWEEP"
NEVER = 3600.0
"""Seconds between sweeps in tests of what must not wait for one."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
ERROR = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"
WIDE = replace(DEFAULT_RETENTION, initial_limit=64, max_limit=64)
"""Endpoints that allow as many attempts at once as they ever may."""


def says(answer: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return script


class Held:
    """A receiver's script that answers only when it may, and counts what waits for that."""

    def __init__(self) -> None:
        self.waiting = 0
        self.peak = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        self.peak = max(self.peak, self.waiting)
        await self.may_answer.wait()
        self.waiting -= 1
        writer.write(OK)


class Watched(DeliveryStore):
    """The deliveries; what the process asks of them can be waited for, and made to fail.

    Attributes:
        claims: how often the process claimed.
        claimed: how many deliveries it was given.
        ended: every attempt that was recorded.
        refuses: called before every claim and every record; what it raises is what they raise.
    """

    def __init__(self, store: Store, partitions: int) -> None:
        super().__init__(store, partitions, WIDE)
        self.claims = 0
        self.claimed = 0
        self.ended: list[Attempted] = []
        self.refuses: Callable[[str], None] = lambda _: None
        self._changed = asyncio.Condition()

    async def claim(self, wanted: Mapping[int, Wanted]) -> dict[int, Batch]:
        self.refuses("claim")
        batches = await super().claim(wanted)
        async with self._changed:
            self.claims += 1
            self.claimed += sum(len(batch.deliveries) for batch in batches.values())
            self._changed.notify_all()
        return batches

    async def record(self, attempts: Sequence[Attempted]) -> list[str]:
        self.refuses("record")
        stale = await super().record(attempts)
        async with self._changed:
            self.ended += attempts
            self._changed.notify_all()
        return stale

    def has_claimed(self, number: int) -> bool:
        return self.claimed >= number

    def has_asked(self, times: int) -> bool:
        return self.claims >= times

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, looking after each claim and each record."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(condition)


@pytest.fixture
def deliveries(store: Store, partitions: int) -> Watched:
    return Watched(store, partitions)


class Process:
    """Makes workers on one store and one sender, and runs them."""

    def __init__(self, store: Store, deliveries: DeliveryStore, sender: Sender) -> None:
        self._store = store
        self._deliveries = deliveries
        self._sender = sender

    def worker(
        self,
        kind: type[DeliveryWorker] = DeliveryWorker,
        *,
        concurrency: int = 32,
        lease: float = 45.0,
        attempt_limit: float = 20.0,
        gaps: tuple[float, ...] = (0.0, NEVER),
    ) -> DeliveryWorker:
        return kind(
            store=self._store,
            deliveries=self._deliveries,
            sender=self._sender,
            rules=Rules(policy=POLICY, schedule=Schedule(gaps=gaps), ring=RING, user_agent="test"),
            clock=StoreClock(SystemClock()),
            pace=Pace(concurrency=concurrency, lease=lease, attempt_limit=attempt_limit),
            metrics=DeliveryMetrics(CollectorRegistry()),
        )

    @asynccontextmanager
    async def running(self, worker: DeliveryWorker) -> AsyncIterator[asyncio.Task[None]]:
        """Run `worker`, and see that it ends when it is told to."""
        task = asyncio.create_task(worker.run())
        try:
            yield task
        finally:
            worker.stop()
            async with asyncio.timeout(PATIENCE):
                await task


@pytest.fixture
async def process(store: Store, deliveries: Watched) -> AsyncIterator[Process]:
    """What runs workers whose every host is this one."""

    async def lookup(host: str) -> list[str]:
        return ["127.0.0.1"]

    async with AsyncExitStack() as stack:
        resolver = PolicyResolver(lookup, POLICY)
        stack.push_async_callback(resolver.close)
        transport = await stack.enter_async_context(
            AiohttpTransport(gate=Gate.under(POLICY, resolver))
        )
        yield Process(store, deliveries, Sender(transport, SystemClock()))


async def endpoint(
    deliveries: DeliveryStore, receiver: Receiver, name: str = "a", tenant: str = "t1"
) -> Registration:
    """Register the receiver under a host name of its own."""
    destination = parse_destination(f"http://{name}.example:{receiver.port}/hook", POLICY)
    registered = register(tenant, destination, RING, deliveries.partitions)
    await deliveries.register_endpoint(registered)
    return registered


async def owe(
    deliveries: DeliveryStore,
    receiver: Receiver,
    name: str = "a",
    number: int = 1,
    tenant: str = "t1",
) -> list[str]:
    """Owe the receiver `number` callbacks, as the host `name`."""
    to = await endpoint(deliveries, receiver, name, tenant)
    messages = [message(to) for _ in range(number)]
    for each in messages:
        assert await deliveries.enqueue(each)
    return [each.id for each in messages]


# Slots


async def test_many_new_hosts_all_get_what_they_are_owed(
    process: Process, deliveries: Watched, start_receiver: StartReceiver
) -> None:
    """Slots come back from every partition; what leaks would starve new hosts for ever."""
    held = Held()
    held.may_answer.set()
    receiver = await start_receiver(held)
    for number in range(40):
        await owe(deliveries, receiver, f"new-{number}")
    async with process.running(process.worker(concurrency=8)):
        await deliveries.until(lambda: len(deliveries.ended) == 40)
    assert len(receiver.requests) == 40
    assert held.peak <= 8


async def test_all_that_an_attempt_says_has_a_place_in_what_is_packed(
    process: Process, deliveries: Watched, store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(says(OK.replace(b"length: 0", b"length: 2") + b"ok"))
    [identifier] = await owe(deliveries, receiver)
    async with process.running(process.worker()):
        await deliveries.until(lambda: bool(deliveries.ended))
    before = await deliveries.read(identifier)
    assert before is not None
    assert {"at", "durationMs", "connectMs", "answer"} <= set(before.history[0])
    await pack(deliveries)
    after = await deliveries.read(identifier)
    assert after == replace(before, url=b"")
    name = f"{partition_prefix(partition_of(identifier))}d:{identifier}"
    packed = await store.client.hget(name, "packed")
    assert b"durationMs" not in cast("bytes", packed)


async def test_new_hosts_that_hang_fill_a_quarter_over_all_partitions(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SWEEP, 0.01)
    held = Held()
    receiver = await start_receiver(held)
    for number in range(60):
        await owe(deliveries, receiver, f"hanging-{number}", tenant=f"t{number}")
    async with process.running(process.worker(concurrency=32)):
        await deliveries.until(lambda: deliveries.claimed >= 8)
        asked = deliveries.claims
        await deliveries.until(lambda: deliveries.claims >= asked + 20)
        assert deliveries.claimed == 8
        held.may_answer.set()
        await deliveries.until(lambda: len(deliveries.ended) == 60)


async def test_a_tenants_new_hosts_that_hang_leave_room_for_anothers(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SWEEP, 0.01)
    held = Held()
    receiver = await start_receiver(held)
    for number in range(60):
        await owe(deliveries, receiver, f"hanging-{number}", tenant="stranger")
    async with process.running(process.worker(concurrency=32)):
        for others in range(3):
            await deliveries.until(partial(deliveries.has_claimed, 4 + others))
            await deliveries.until(partial(deliveries.has_asked, deliveries.claims + 20))
            assert deliveries.claimed == 4 + others
            assert not deliveries.ended
            await owe(deliveries, receiver, f"new-{others}", tenant=f"newcomer-{others}")
        held.may_answer.set()
        await deliveries.until(lambda: len(deliveries.ended) == 63)


@pytest.mark.parametrize(
    ("hosts", "each", "answer"),
    [(1, 60, OK), (60, 1, ERROR)],
    ids=["an-endpoint", "the-unproven"],
)
async def test_what_a_share_held_back_goes_on_as_slots_come_free(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
    hosts: int,
    each: int,
    answer: bytes,
) -> None:
    monkeypatch.setattr(SWEEP, NEVER)
    receiver = await start_receiver(says(answer))
    for number in range(hosts):
        await owe(deliveries, receiver, f"host-{number}", each)
    async with process.running(process.worker(concurrency=32)):
        await deliveries.until(lambda: len(deliveries.ended) == 60)
    assert len(receiver.requests) == 60


async def test_replays_to_slow_receivers_leave_slots_for_what_is_live(
    process: Process, deliveries: Watched, start_receiver: StartReceiver
) -> None:
    held = Held()
    slow, quick = await start_receiver(held), await start_receiver(says(OK))
    replayed: list[str] = []
    for number in range(12):
        await owe(deliveries, slow, f"slow-{number}", 2)
        # Neither new nor failing: nothing but the replay itself is to hold it back.
        good, bad = await claim(deliveries, wanted(1, process=f"dp-{number}"))
        await deliveries.record(
            [over(good, Deliver(), breaker="good"), over(bad, Bury(reason="exhausted"))]
        )
        replayed.append(bad.id)
    await replay(deliveries, replayed)
    deliveries.claimed, deliveries.ended = 0, []
    async with process.running(process.worker(concurrency=8)):
        await deliveries.until(lambda: deliveries.claimed >= 6)
        [live] = await owe(deliveries, quick, "quick")
        await deliveries.until(lambda: [each.id for each in deliveries.ended] == [live])
        held.may_answer.set()
        await deliveries.until(lambda: len(deliveries.ended) == 13)
    assert held.peak == 6


# Waking


class Listening(DeliveryWorker):
    """A worker that says when it has heard a wake-up."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.heard = asyncio.Event()

    def _mark_due(self, *partitions: int) -> None:
        super()._mark_due(*partitions)
        self.heard.set()


async def test_a_wake_up_during_a_claim_is_not_forgotten(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SWEEP, NEVER)
    receiver = await start_receiver(says(OK))
    worker = process.worker(Listening)
    assert isinstance(worker, Listening)
    ran, arrives = asyncio.Event(), asyncio.Event()
    claims = deliveries.claim

    async def slow_claim(asked: Mapping[int, Wanted]) -> dict[int, Batch]:
        batches = await claims(asked)
        if any(batch.deliveries for batch in batches.values()) and not ran.is_set():
            ran.set()
            await arrives.wait()
        return batches

    monkeypatch.setattr(deliveries, "claim", slow_claim)
    async with process.running(worker), asyncio.timeout(PATIENCE):
        await owe(deliveries, receiver)
        await ran.wait()
        worker.heard.clear()
        # The claim is answered already, but the answer is still under way.
        await owe(deliveries, receiver)
        await worker.heard.wait()
        arrives.set()
        await deliveries.until(lambda: len(deliveries.ended) == 2)


# Faults


async def test_an_attempt_that_fails_by_a_fault_of_ours_uses_up_the_budget(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = await start_receiver(says(OK))
    caplog.handler.addFilter(Subjects())
    to = await endpoint(deliveries, receiver)
    made = message(to)
    faulty = replace(made, headers=RING.seal(b"not JSON", row=made.id))
    await deliveries.enqueue(faulty)
    [healthy] = await owe(deliveries, receiver, "b")
    async with process.running(process.worker(gaps=(0.0, 0.0, 0.0))):
        await deliveries.until(lambda: len(deliveries.ended) == 4)
    kept = await deliveries.read(faulty.id)
    assert kept is not None
    assert (kept.state, kept.reason, kept.attempts) == ("dead", "exhausted", 3)
    assert {each["outcome"] for each in kept.history} == {"internal_error"}
    assert [head.count(healthy.encode()) for head, _ in receiver.requests] == [1]
    failed = [each for each in caplog.records if each.msg == "delivery.attempt_failed"]
    named = {"delivery": faulty.id, "tags": faulty.tags}
    assert [vars(each) | named for each in failed] == [vars(each) for each in failed]
    assert len(failed) == 3


async def test_a_process_that_cannot_record_stops(
    process: Process,
    deliveries: Watched,
    start_receiver: StartReceiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fall_over(what: str) -> None:
        if what == "record":
            raise LookupError("nobody foresaw this")

    deliveries.refuses = fall_over
    await owe(deliveries, await start_receiver(says(OK)))
    async with asyncio.timeout(PATIENCE):
        await process.worker().run()
    assert "process.loop_failed" in caplog.text


async def test_results_outlast_an_outage_longer_than_a_lease(
    store: Store, process: Process, deliveries: Watched, start_receiver: StartReceiver
) -> None:
    lease, clock = 2.0, SystemClock()
    began: list[float] = []

    def be_away(what: str) -> None:
        if what == "record":
            began.append(clock.monotonic())
        if began and clock.monotonic() < began[0] + 1.5 * lease:
            raise StoreUnavailable("away")

    deliveries.refuses = be_away
    receiver = await start_receiver(says(OK))
    [identifier] = await owe(deliveries, receiver)
    # As it is in a store that comes back: nothing is taken for lost at once.
    quiet = f"{partition_prefix(partition_of(identifier))}quiet:deliveries"
    await store.client.set(quiet, clock.now() + 3600 * SECOND)
    async with process.running(process.worker(lease=lease, attempt_limit=1.0)):
        await deliveries.until(lambda: len(deliveries.ended) == 1)
    assert len(receiver.requests) == 1
    kept = await deliveries.read(identifier)
    assert kept is not None
    assert (kept.state, kept.attempts) == ("delivered", 1)


# Stopping


@pytest.mark.parametrize("partitions", [1], indirect=True)
async def test_a_stop_right_after_the_start_ends_it(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancel that meets the listener connecting can be swallowed."""
    caplog.set_level(logging.CRITICAL)
    for turns in range(0, 400, 8):
        async with process.running(process.worker()):
            for _ in range(turns):
                await asyncio.sleep(0)
    assert not caplog.records


# What the store promises a process


async def test_a_batch_given_again_is_leased_anew(store: Store, deliveries: Watched) -> None:
    """Its holder counts the lease from the second request."""
    [identifier] = await enqueue(deliveries, "a.example")
    to = registration("a.example", deliveries.partitions)
    inflight = f"{partition_prefix(partition_of(to.id))}ep:{to.id}:inflight"
    first = await claim(deliveries, wanted(1))
    before = await store.client.zscore(inflight, identifier)
    again = await claim(deliveries, wanted(1))
    after = await store.client.zscore(inflight, identifier)
    assert again == first
    assert before is not None
    assert after is not None
    assert after > before


async def test_one_burst_of_failures_opens_the_breaker_once(deliveries: Watched) -> None:
    await enqueue(deliveries, "a.example", 16)
    to = registration("a.example", deliveries.partitions)
    claimed = [each for turn in (1, 2) for each in await claim(deliveries, wanted(turn, limit=64))]
    assert len(claimed) == 16
    await deliveries.record([over(each, Retry(delay=0), breaker="bad") for each in claimed])
    opened = await deliveries.read_endpoint(to.id)
    assert opened is not None
    assert opened.open_until is not None
    batches = await claim_all(deliveries, wanted(3))
    assert opened.open_until - batches[partition_of(to.id)].now <= 5 * SECOND
    assert opened.consecutive_failures == 16
