"""Fairness of the schedule: whatever the endpoints do, who is ready is served in turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.clock import SECOND
from config.ids import partition_of
from config.store import Store, connect
from delivery.models import Claimed, Deliver, Retry
from delivery.slots import Shares, Slots
from delivery.store import DeliveryStore, Wanted
from tests.conftest import RunningStores
from tests.delivery.test_store import (
    claim_all,
    enqueue,
    message,
    over,
    registration,
    wanted,
)

Behaviour = Literal["answers", "fails", "hangs"]


@dataclass(slots=True)
class Endpoint:
    """An endpoint as the test knows it.

    Attributes:
        behaviour: what becomes of its attempts; a failure is due again at once.
        waiting: how many of its deliveries wait.
        inflight: how many are being attempted.
        limit: how many may be.
        proven: whether it answered.
        passed: who was served since it last was, while it was ready all the time.
    """

    id: str
    behaviour: Behaviour
    waiting: int
    limit: int
    inflight: int = 0
    proven: bool = False
    passed: Counter[str] = field(default_factory=Counter)

    @property
    def is_ready(self) -> bool:
        return self.waiting > 0 and self.inflight < self.limit

    @property
    def queue(self) -> tuple[int, bool]:
        """The queue it waits in when it is ready."""
        return partition_of(self.id), self.proven


Mixes = st.lists(
    st.tuples(st.sampled_from(["answers", "fails", "hangs"]), st.integers(1, 20)),
    min_size=2,
    max_size=12,
)
Claims = st.lists(st.integers(1, 24), min_size=1, max_size=12)


@pytest.mark.timeout(300)  # making a failure small takes a while
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mix=Mixes, claims=Claims)
def test_nobody_is_served_twice_while_another_is_ready(
    stores: RunningStores, partitions: int, mix: list[tuple[Behaviour, int]], claims: list[int]
) -> None:
    asyncio.run(serve_in_turn(stores.durable_url, partitions, mix, claims))


async def serve_in_turn(
    url: str, partitions: int, mix: Sequence[tuple[Behaviour, int]], claims: Sequence[int]
) -> None:
    store = connect(url, max_connections=4, socket_timeout=5)
    try:
        await store.client.flushall()
        deliveries = DeliveryStore(store, partitions)
        endpoints = await endpoints_of(deliveries, mix)
        for sequence, limit in enumerate(claims, 1):
            batches = await claim_all(deliveries, wanted(sequence, limit=limit))
            for batch in batches.values():
                note_turns(endpoints, batch.deliveries)
            got = [each for batch in batches.values() for each in batch.deliveries]
            await end(deliveries, endpoints, got)
    finally:
        await store.close()


async def endpoints_of(
    deliveries: DeliveryStore, mix: Sequence[tuple[Behaviour, int]]
) -> dict[str, Endpoint]:
    made: dict[str, Endpoint] = {}
    for number, (behaviour, waiting) in enumerate(mix):
        registered = registration(f"host-{number}.example", deliveries.partitions)
        endpoint, _ = await deliveries.register_endpoint(registered)
        for _ in range(waiting):
            await deliveries.enqueue(message(registered))
        made[endpoint.id] = Endpoint(endpoint.id, behaviour, waiting, endpoint.limit)
    return made


def note_turns(endpoints: dict[str, Endpoint], given_out: Sequence[Claimed]) -> None:
    """Take in one batch, turn by turn, and fail when somebody's turn was passed over."""
    turns: list[tuple[Endpoint, int]] = []
    for claimed in given_out:
        endpoint = endpoints[claimed.endpoint]
        if turns and turns[-1][0] is endpoint:
            turns[-1] = (endpoint, turns[-1][1] + 1)
        else:
            turns.append((endpoint, 1))
    for served, number in turns:
        for other in endpoints.values():
            if other is not served and other.is_ready and other.queue == served.queue:
                other.passed[served.id] += 1
                assert other.passed[served.id] < 2, f"{other} was passed over"
        served.passed.clear()
        served.waiting -= number
        served.inflight += number


async def end(
    deliveries: DeliveryStore, endpoints: dict[str, Endpoint], attempts: Sequence[Claimed]
) -> None:
    """Let the attempts end as their endpoints have them end; those that hang do not."""
    for claimed in attempts:
        endpoint = endpoints[claimed.endpoint]
        match endpoint.behaviour:
            case "answers":
                await deliveries.record([over(claimed, Deliver(), breaker="good")])
                endpoint.inflight -= 1
                if not endpoint.proven:
                    endpoint.proven = True
                    endpoint.passed.clear()
            case "fails":
                await deliveries.record([over(claimed, Retry(delay=0))])
                endpoint.inflight -= 1
                endpoint.waiting += 1
            case "hangs":
                pass
    # Whoever was not ready begins anew, at the tail.
    for endpoint in endpoints.values():
        if not endpoint.is_ready:
            endpoint.passed.clear()


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


async def claim_for(deliveries: DeliveryStore, slots: Slots, sequence: int) -> list[Claimed]:
    """Claim from one partition after the other what the slots have room for; the slots fill."""
    got: list[Claimed] = []
    for partition in range(deliveries.partitions):
        want = Wanted(
            process="dp-1",
            sequence=sequence,
            limit=slots.free,
            lease=30 * SECOND,
            unproven=slots.free_for_unproven,
            replays=slots.free_for_replays,
            suspect=slots.may_take_suspect,
            per_turn=8,
            per_endpoint=slots.shares.per_endpoint,
            per_tenant=slots.shares.per_tenant,
            endpoints=slots.endpoints_left(slots.free),
            tenants=slots.tenants_left(slots.free),
            unproven_held=slots.unproven_held(1),
        )
        batches = await deliveries.claim({partition: want})
        for claimed in batches[partition].deliveries:
            slots.fill(claimed)
            got.append(claimed)
    return got


async def answer(deliveries: DeliveryStore, slots: Slots, claimed: Claimed) -> None:
    await deliveries.record([over(claimed, Deliver(), breaker="good")])
    slots.empty(claimed.id, claimed.claim)


async def test_a_thousand_hanging_hosts_hold_up_nobody_who_answers(
    deliveries: DeliveryStore,
) -> None:
    slots = Slots(Shares.of(64))
    [first] = await enqueue(deliveries, "healthy.example")
    [claimed] = await claim_for(deliveries, slots, 1)
    assert claimed.id == first
    await answer(deliveries, slots, claimed)
    for number in range(1000):
        await enqueue(deliveries, f"hanging-{number}.example", tenant=f"t{number % 50}")
    hanging = [each for at in range(2, 30) for each in await claim_for(deliveries, slots, at)]
    assert len(hanging) == len(slots) == slots.shares.unproven
    for sequence in range(30, 50):
        [fresh] = await enqueue(deliveries, "healthy.example")
        [claimed] = await claim_for(deliveries, slots, sequence)
        assert claimed.id == fresh
        await answer(deliveries, slots, claimed)


async def test_a_thousand_hanging_hosts_of_one_tenant_hold_up_no_other_tenants_new_ones(
    deliveries: DeliveryStore,
) -> None:
    slots = Slots(Shares.of(64))
    for number in range(1000):
        await enqueue(deliveries, f"hanging-{number}.example", tenant="stranger")
    held = [each for at in range(1, 20) for each in await claim_for(deliveries, slots, at)]
    assert len(held) == slots.shares.unproven // 2
    # Whoever comes is served at once, and again while what they got before hangs too.
    for sequence in (20, 21):
        fresh = [
            *await enqueue(deliveries, f"new-{sequence}.example", tenant=f"newcomer-{sequence}"),
            *await enqueue(deliveries, f"other-{sequence}.example", tenant="latecomer"),
        ]
        given = await claim_for(deliveries, slots, sequence)
        assert {each.id for each in given} == set(fresh)


Owed = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["answers", "fails", "hangs"])),
    min_size=1,
    max_size=40,
)


@pytest.mark.timeout(300)  # making a failure small takes a while
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(owed=Owed, total=st.sampled_from([4, 16, 64]))
def test_whoever_has_nothing_under_way_is_given_a_free_slot(
    stores: RunningStores, owed: list[tuple[str, Behaviour]], total: int
) -> None:
    asyncio.run(newcomers_are_served(stores.durable_url, owed, total))


async def newcomers_are_served(url: str, owed: Sequence[tuple[str, Behaviour]], total: int) -> None:
    """Whatever hangs: no tenant holds more new hosts than it leaves room for, and who comes goes.

    The slots are those of one process, and no tenant is ever proven.
    """
    store = connect(url, max_connections=4, socket_timeout=5)
    try:
        await store.client.flushall()
        deliveries, slots = DeliveryStore(store, 1), Slots(Shares.of(total))
        behaviours: dict[str, Behaviour] = {}
        for number, (tenant, behaviour) in enumerate(owed):
            [identifier] = await enqueue(deliveries, f"h{number}.example", tenant=tenant)
            behaviours[identifier] = behaviour
            had_one = {each.tenant for each in slots.held}
            free = slots.free_for_unproven
            given_out = await claim_for(deliveries, slots, number + 1)
            assert given_out or not free or tenant in had_one
            for count in Counter(each.tenant for each in slots.held).values():
                assert count == 1 or count <= slots.shares.unproven - count
            for each in given_out:
                if behaviours[each.id] != "hangs":
                    await deliveries.record([over(each, Retry(delay=3600 * SECOND))])
                    slots.empty(each.id, each.claim)
    finally:
        await store.close()
