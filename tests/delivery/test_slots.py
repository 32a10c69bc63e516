"""Slots of a process and the shares of them: who may have how many, and who waits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.models import Claimed, Trigger
from delivery.slots import Shares, Slots
from delivery.store import DeliveryStore
from tests.delivery.test_store import claim, enqueue, lapse, wanted


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    return DeliveryStore(store, partitions)


def claimed(
    delivery_id: str,
    claim: str = "dp-1:1:1",
    *,
    endpoint: str = "ep_1",
    tenant: str = "t1",
    suspect: bool = False,
    proven: bool = True,
    trigger: Trigger = "schedule",
) -> Claimed:
    return Claimed(
        id=delivery_id,
        claim=claim,
        number=1,
        trigger=trigger,
        endpoint=endpoint,
        tenant=tenant,
        secrets={},
        url=b"",
        headers=b"",
        tags="{}",
        body=b"",
        used=0,
        step=0,
        born_at=0,
        suspect=suspect,
        proven=proven,
    )


@pytest.mark.parametrize(
    ("total", "unproven", "replays", "per_tenant", "per_endpoint"),
    [
        (1, 1, 1, 1, 1),
        (7, 1, 5, 1, 1),
        (8, 2, 6, 2, 1),
        (32, 8, 24, 8, 4),
        (256, 64, 192, 64, 32),
    ],
)
def test_every_share_is_at_least_one_slot(
    total: int, unproven: int, replays: int, per_tenant: int, per_endpoint: int
) -> None:
    assert Shares.of(total) == Shares(
        total=total,
        unproven=unproven,
        replays=replays,
        per_tenant=per_tenant,
        per_endpoint=per_endpoint,
    )


def test_what_is_replayed_leaves_slots_for_what_is_live() -> None:
    slots = Slots(Shares.of(8))
    replayed = [claimed(f"msg_{number}", trigger="replay") for number in range(6)]
    for each in replayed:
        assert slots.free_for_replays > 0
        slots.fill(each)
    assert (slots.free, slots.free_for_replays) == (2, 0)
    slots.fill(claimed("msg_live"))
    slots.empty(replayed[0].id, replayed[0].claim)
    assert (slots.free, slots.free_for_replays) == (2, 1)


def test_claims_of_two_partitions_may_read_the_same() -> None:
    """A process counts its batches in each partition: the delivery tells them apart."""
    slots = Slots(Shares.of(8))
    here, there = (claimed(new_id("msg", partition, 0), proven=False) for partition in (0, 1))
    slots.fill(here)
    slots.fill(there)
    assert (len(slots), slots.free, slots.free_for_unproven) == (2, 6, 0)
    slots.empty(here.id, here.claim)
    assert (len(slots), slots.free, slots.free_for_unproven) == (1, 7, 1)
    slots.empty(there.id, there.claim)
    assert (len(slots), slots.free, slots.free_for_unproven) == (0, 8, 2)


def test_a_slot_is_given_back_once() -> None:
    slots = Slots(Shares.of(8))
    slots.fill(claimed("msg_1", "dp-1:1:1", suspect=True))
    slots.fill(claimed("msg_1", "dp-1:2:1"))
    for _ in range(2):
        slots.empty("msg_1", "dp-1:1:1")
    slots.empty("msg_2", "dp-1:2:1")
    assert (len(slots), slots.free) == (1, 7)
    assert slots.may_take_suspect


def test_one_suspect_at_a_time() -> None:
    slots = Slots(Shares.of(8))
    healthy, suspect = claimed("msg_1"), claimed("msg_2", suspect=True)
    may_take = []
    for each in (healthy, suspect):
        slots.fill(each)
        may_take.append(slots.may_take_suspect)
    for each in (healthy, suspect):
        slots.empty(each.id, each.claim)
        may_take.append(slots.may_take_suspect)
    assert may_take == [True, False, False, True]


def test_only_what_bounds_is_told() -> None:
    slots = Slots(Shares.of(32))
    for number in range(3):
        slots.fill(claimed(f"msg_{number}", endpoint="ep_busy", tenant="bulk"))
    slots.fill(claimed("msg_3", endpoint="ep_quiet", tenant="small"))
    assert slots.endpoints_left(2) == {"ep_busy": 1}
    assert slots.endpoints_left(4) == {"ep_busy": 1, "ep_quiet": 3}
    assert slots.tenants_left(6) == {"bulk": 5}
    assert slots.tenants_left(5) == {}


_ATTEMPTS = st.lists(
    st.builds(
        claimed,
        st.sampled_from([f"msg_{number}" for number in range(6)]),
        st.sampled_from(["dp-1:1:1", "dp-1:1:2"]),
        endpoint=st.sampled_from(["ep_1", "ep_2"]),
        tenant=st.sampled_from(["t1", "t2"]),
        suspect=st.booleans(),
        proven=st.booleans(),
        trigger=st.sampled_from(["schedule", "replay"]),
    ),
    unique_by=lambda each: (each.id, each.claim),
    max_size=12,
)


@given(data=st.data(), attempts=_ATTEMPTS)
def test_when_all_is_over_every_slot_is_free(data: st.DataObject, attempts: list[Claimed]) -> None:
    slots, before = Slots(Shares.of(16)), Slots(Shares.of(16))
    for each in attempts:
        slots.fill(each)
    assert len(slots) == len(attempts)
    assert slots.may_take_suspect == (not any(each.suspect for each in attempts))
    for each in data.draw(st.permutations(attempts)):
        slots.empty(each.id, each.claim)
    assert len(slots) == 0
    assert slots.free_for_unproven == before.free_for_unproven
    assert slots.free_for_replays == before.free_for_replays
    assert slots.may_take_suspect
    assert slots.endpoints_left(100) == slots.tenants_left(100) == {}


# Shares, as the store keeps to them


async def test_a_tenant_at_its_share_hides_nobody(deliveries: DeliveryStore) -> None:
    """However many endpoints it has at the head of the turns."""
    for number in range(200 * deliveries.partitions):
        await enqueue(deliveries, f"bulk-{number}.example", tenant="bulk")
    [small] = await enqueue(deliveries, "small.example", tenant="small")
    want = replace(wanted(1, limit=8), per_tenant=2, tenants={"bulk": 0})
    assert small in {each.id for each in await claim(deliveries, want)}


async def test_a_tenant_at_its_share_is_served_when_nobody_else_waits(
    deliveries: DeliveryStore,
) -> None:
    for number in range(8 * deliveries.partitions):
        await enqueue(deliveries, f"bulk-{number}.example", tenant="bulk")
    want = replace(wanted(1, limit=100), per_tenant=2, tenants={"bulk": 0})
    given_out = await claim(deliveries, want)
    assert len(given_out) == 8 * deliveries.partitions


async def test_a_suspect_stays_one_although_this_time_its_process_lives(
    store: Store, deliveries: DeliveryStore
) -> None:
    [identifier] = await enqueue(deliveries, "a.example")
    for number in range(2):
        await claim(deliveries, wanted(1, process=f"dp-{number}"))
        await store.client.delete(f"{partition_prefix(partition_of(identifier))}procs")
        await lapse(store, deliveries)
    assert [each.suspect for each in await claim(deliveries, wanted(1, process="dp-2"))] == [True]
    await lapse(store, deliveries)
    want = wanted(2, process="dp-2")
    assert await claim(deliveries, replace(want, suspect=False)) == []
    [again] = await claim(deliveries, replace(want, sequence=3))
    assert (again.id, again.suspect) == (identifier, True)
