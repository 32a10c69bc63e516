"""Dead letters: walked through whole and in order, filtered, and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import HOUR, SECOND
from config.ids import partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.deadletters import PAGE, read_dead, walk
from delivery.letters import START, Filter, Letter, Place, Tally, age_band, matches, most
from delivery.models import Bury, DeadDelivery, Reason
from delivery.store import DeliveryStore
from tests.delivery.test_store import claim, enqueue, over, wanted

LONG_AGO = 1_000


@pytest.fixture
def deliveries(store: Store, partitions: int) -> DeliveryStore:
    unlimited = replace(DEFAULT_RETENTION, initial_limit=2_000, max_limit=2_000)
    return DeliveryStore(store, partitions, unlimited)


async def bury(
    deliveries: DeliveryStore,
    host: str,
    number: int,
    *,
    reason: Reason = "exhausted",
    tenant: str = "t1",
) -> list[str]:
    """Let `number` deliveries to one host die, all in one script: at one instant."""
    await enqueue(deliveries, host, number, tenant)
    want = replace(wanted(1, limit=number, process=f"dp-{host}"), per_turn=number)
    claimed = await claim(deliveries, want)
    assert len(claimed) == number
    assert not await deliveries.record([over(each, Bury(reason=reason)) for each in claimed])
    return [each.id for each in claimed]


def place_of(dead: DeadDelivery) -> Place:
    return dead.letter.place


async def walked(
    deliveries: DeliveryStore, tenant: str = "t1", after: Place = START
) -> list[DeadDelivery]:
    read = read_dead(deliveries, tenant)
    return [each async for each in walk(read, deliveries.partitions, place_of, after=after)]


async def walked_ids(deliveries: DeliveryStore, tenant: str = "t1") -> list[str]:
    return [each.letter.id for each in await walked(deliveries, tenant)]


@pytest.mark.parametrize("number", [PAGE - 1, PAGE, PAGE + 1, 256, 300, 2 * PAGE + 1])
async def test_any_number_that_died_at_one_instant_is_walked_through(
    deliveries: DeliveryStore, number: int
) -> None:
    dead = await bury(deliveries, "a.example", number)
    found = await walked(deliveries)
    assert len({each.letter.died_at for each in found}) == 1
    assert [each.letter.id for each in found] == sorted(dead)


async def test_the_walk_is_in_the_order_of_deaths_over_all_partitions(
    deliveries: DeliveryStore,
) -> None:
    dead = [await bury(deliveries, f"host-{number}.example", 130) for number in range(5)]
    assert await walked_ids(deliveries) == [each for batch in dead for each in sorted(batch)]


async def test_a_walk_goes_on_after_any_place(deliveries: DeliveryStore) -> None:
    for number in range(4):
        await bury(deliveries, f"host-{number}.example", 7)
    whole = await walked(deliveries)
    for at, each in enumerate(whole):
        assert await walked(deliveries, after=each.letter.place) == whole[at + 1 :]


async def test_each_tenant_has_its_own(deliveries: DeliveryStore) -> None:
    mine = await bury(deliveries, "a.example", 3)
    theirs = await bury(deliveries, "b.example", 2, tenant="t2")
    assert sorted(await walked_ids(deliveries)) == sorted(mine)
    assert sorted(await walked_ids(deliveries, "t2")) == sorted(theirs)
    assert sorted(await walked_ids(deliveries, "")) == sorted(mine + theirs)
    assert (await deliveries.count_dead("t1"), await deliveries.count_dead("t2")) == (3, 2)


@pytest.mark.parametrize("number", [390, 2_500])
async def test_expired_ones_in_the_index_hide_nobody(
    store: Store, deliveries: DeliveryStore, number: int
) -> None:
    """The index forgets them a few at a time, as others die."""
    expired = await bury(deliveries, "a.example", 390)
    prefix = partition_prefix(partition_of(expired[0]))
    await store.client.delete(*(f"{prefix}d:{each}" for each in expired))
    ghosts = [*expired, *(f"{expired[0][:-6]}{at:06d}" for at in range(number - len(expired)))]
    for index in ("dead", "dead:t1"):
        await store.client.zadd(f"{prefix}{index}", dict.fromkeys(ghosts, LONG_AGO))
    dead = await bury(deliveries, "b.example", 2)
    assert await store.client.zcard(f"{prefix}dead:t1") > PAGE
    assert await walked_ids(deliveries) == sorted(dead)


async def test_the_last_attempt_comes_when_it_is_asked_for(deliveries: DeliveryStore) -> None:
    [dead] = await bury(deliveries, "a.example", 1)
    partition = partition_of(dead)
    for with_last in (False, True):
        [found], _ = await deliveries.list_dead(
            partition, tenant="t1", after=START, limit=9, with_last=with_last
        )
        assert found.last == ({"number": 1, "outcome": "bury"} if with_last else None)
        assert (found.attempts, found.last_status, found.state) == (1, 200, "dead")


LETTER = Letter(
    id="msg_1",
    tenant="t1",
    reason="exhausted",
    endpoint="ep_1",
    origin="https://a.example",
    died_at=100,
    tags={"jobType": "demo.echo", "jobId": "job_1", "number": 1},
)


@pytest.mark.parametrize(
    ("wanted", "is_meant"),
    [
        ({}, True),
        ({"reason": "exhausted"}, True),
        ({"reason": "gone"}, False),
        ({"endpoint": "ep_1"}, True),
        ({"endpoint": "https://a.example"}, True),
        ({"endpoint": "https://b.example"}, False),
        ({"endpoint": "ep_2"}, False),
        ({"tags": {"jobType": "demo.echo"}}, True),
        ({"tags": {"jobType": "demo.echo", "jobId": "job_1"}}, True),
        ({"tags": {"jobType": "demo.echo", "jobId": "job_2"}}, False),
        ({"tags": {"number": "1"}}, False),
        ({"tags": {"other": "x"}}, False),
        ({"died_after": 100}, True),
        ({"died_after": 101}, False),
        ({"died_before": 100}, False),
        ({"died_before": 101}, True),
        ({"reason": "exhausted", "died_before": 100}, False),
    ],
)
def test_what_a_filter_means(wanted: Mapping[str, Any], is_meant: bool) -> None:
    assert matches(Filter(**wanted), LETTER) is is_meant


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (-1, "1h"),
        (0, "1h"),
        (HOUR - 1, "1h"),
        (HOUR, "1d"),
        (24 * HOUR, "7d"),
        (7 * 24 * HOUR, "30d"),
        (30 * 24 * HOUR, "older"),
    ],
)
def test_ages_are_counted_in_bands(age: int, band: str) -> None:
    assert age_band(age) == band


Letters = st.lists(
    st.builds(
        lambda reason, endpoint, kind, died_at: replace(
            LETTER, reason=reason, endpoint=endpoint, tags={"jobType": kind}, died_at=died_at
        ),
        st.sampled_from(["exhausted", "gone"]),
        st.sampled_from(["ep_1", "ep_2", "ep_3"]),
        st.sampled_from(["a", "b", None]),
        st.integers(0, 40 * 24 * HOUR),
    )
)


@given(Letters)
def test_each_letter_counts_once_in_each_way(letters: list[Letter]) -> None:
    tally = Tally(now=40 * 24 * HOUR + SECOND, tag="jobType")
    for each in letters:
        tally.add(each)
    for counter in (tally.reasons, tally.endpoints, tally.tags, tally.ages):
        assert sum(counter.values()) == tally.total == len(letters)
        counts = [count for _, count in most(counter, 2)]
        assert counts == sorted(counter.values(), reverse=True)[:2]
