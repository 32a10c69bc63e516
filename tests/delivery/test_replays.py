"""Replays: what they move, what they leave alone, and that each of it happens once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.ids import derived_id, new_id, partition_of
from config.scripts import partition_prefix
from delivery.deadletters import PAGE
from delivery.letters import Filter
from delivery.models import Bury, Deliver
from delivery.replays import Definition
from tests.delivery.replay_side import ALL, OTHER_URL, ROUNDS, Side, bury_some
from tests.delivery.replaying import numbers_of
from tests.delivery.test_deadletters import bury, walked_ids
from tests.delivery.test_store import (
    enqueue,
    over,
    registration,
)


@pytest.mark.parametrize("number", [3, 3 * PAGE, 3 * PAGE + 3])
async def test_all_are_replayed_once(side: Side, number: int) -> None:
    dead = await bury_some(side, number)
    replay = await side.create()
    ended = await side.carry_out(replay)
    assert (ended.state, ended.reason) == ("completed", None)
    progress = await side.progress(replay)
    assert (progress.looked, progress.matched, progress.moved) == (number, number, number)
    assert (progress.attempted, progress.pending, progress.failed) == (0, number, 0)
    assert progress.reasons == {"exhausted": number}
    assert progress.skipped == {}
    assert await walked_ids(side.deliveries) == []
    claimed = await side.claim_all("dp-next")
    assert sorted(each.id for each in claimed) == sorted(dead)
    assert {(each.trigger, each.used, each.step) for each in claimed} == {("replay", 0, 0)}


async def test_what_dies_later_is_no_part_of_it(side: Side) -> None:
    before = await bury_some(side, 3)
    replay = await side.create()
    after = await bury(side.deliveries, "later.example", 4)
    await side.carry_out(replay)
    assert (await side.progress(replay)).moved == 3
    assert sorted(await walked_ids(side.deliveries)) == sorted(after)
    for each in await side.claim_all("dp-next"):
        await side.deliveries.record([over(each, Bury(reason="exhausted"))])
    again = await side.create(named=[*before, *after])
    await side.carry_out(again)
    assert (await side.progress(again)).moved == 7


async def test_its_own_failures_are_never_picked_again(side: Side) -> None:
    await bury_some(side, 9)
    replay = await side.create(replace(ALL, rate=6.0))
    for _ in range(ROUNDS):
        await side.go_on(replay)
        failed = await side.claim_all(new_id("dp", 0, 0))
        await side.deliveries.record([over(each, Bury(reason="exhausted")) for each in failed])
        found = await side.replays.read(replay.id)
        if found and found.state == "completed":
            break
    progress = await side.progress(replay)
    assert (progress.moved, progress.dead, progress.failed, progress.pending) == (9, 9, 9, 0)
    assert len(await walked_ids(side.deliveries)) == 9


@pytest.mark.parametrize(
    "wanted_filter",
    [
        Filter(reason="gone"),
        Filter(endpoint="https://gone.example"),
        Filter(endpoint=registration("gone.example", 1).id),
        Filter(reason="gone", tags={"jobId": "job_1"}),
    ],
)
async def test_a_filter_takes_those_that_it_means(side: Side, wanted_filter: Filter) -> None:
    kept = await bury_some(side, 6)
    meant = await bury(side.deliveries, "gone.example", 4, reason="gone")
    if wanted_filter.endpoint and wanted_filter.endpoint.startswith("ep_"):
        own = registration("gone.example", side.deliveries.partitions).id
        wanted_filter = replace(wanted_filter, endpoint=own)
    replay = await side.create(Definition(filter=wanted_filter))
    await side.carry_out(replay)
    progress = await side.progress(replay)
    assert (progress.looked, progress.matched, progress.moved) == (10, 4, 4)
    assert progress.reasons == {"gone": 4}
    assert await side.states(meant) == {"pending": 4}
    assert await side.states(kept) == {"dead": 6}


async def test_times_bound_what_is_taken(side: Side) -> None:
    await bury(side.deliveries, "a.example", 2)
    middle = await bury(side.deliveries, "b.example", 2)
    last = await bury(side.deliveries, "c.example", 2)
    ends = [await side.deliveries.read(each) for each in (middle[0], last[0])]
    after, before = [each.ended_at if each else None for each in ends]
    replay = await side.create(Definition(filter=Filter(died_after=after, died_before=before)))
    await side.carry_out(replay)
    assert (await side.progress(replay)).moved == 2
    assert await side.states(middle) == {"pending": 2}


async def test_of_those_named_the_others_are_left_alone(side: Side) -> None:
    dead = await bury_some(side, 6)
    theirs = await bury(side.deliveries, "b.example", 1, tenant="t2")
    pending = await enqueue(side.deliveries, "c.example", 2)
    unknown = derived_id("msg", 0, "nothing")
    replay = await side.create(named=[*dead[:4], *theirs, *pending, unknown])
    await side.carry_out(replay)
    progress = await side.progress(replay)
    assert (progress.looked, progress.matched, progress.moved) == (8, 4, 4)
    assert progress.skipped == {"pending": 2, "unknown": 2}
    assert await side.states(dead) == {"pending": 4, "dead": 2}
    assert await side.states(theirs) == {"dead": 1}


async def test_at_most_so_many(side: Side) -> None:
    await bury_some(side, 9)
    replay = await side.create(replace(ALL, most=5))
    assert (await side.carry_out(replay)).state == "completed"
    assert (await side.progress(replay)).moved == 5
    assert len(await walked_ids(side.deliveries)) == 4


async def test_a_dry_run_counts_and_moves_nothing(side: Side) -> None:
    dead = await bury_some(side, 6)
    await bury(side.deliveries, "gone.example", 3, reason="gone")
    for definition in (ALL, replace(ALL, brake=0.1, rate=1.0)):
        replay = await side.create(replace(definition, dry_run=True))
        assert (await side.carry_out(replay)).state == "completed"
        progress = await side.progress(replay)
        assert (progress.matched, progress.moved) == (9, 0)
        assert progress.reasons == {"exhausted": 6, "gone": 3}
    some = await side.create(replace(ALL, dry_run=True), named=[*dead[:2], new_id("msg", 0, 0)])
    await side.carry_out(some)
    assert (await side.progress(some)).matched == 2
    assert (await side.progress(some)).skipped == {"unknown": 1}
    assert len(await walked_ids(side.deliveries)) == 9
    assert await side.claim_all("dp-next") == []


async def test_what_is_purged_is_gone(side: Side) -> None:
    dead = await bury_some(side, 6)
    [kept] = await bury(side.deliveries, "b.example", 1, tenant="t2")
    replay = await side.create(replace(ALL, action="purge"))
    assert (await side.carry_out(replay)).state == "completed"
    assert (await side.progress(replay)).moved == 6
    assert await walked_ids(side.deliveries) == []
    assert await walked_ids(side.deliveries, "t2") == [kept]
    for each in dead:
        prefix = partition_prefix(partition_of(each))
        assert await side.deliveries.read(each) is None
        assert await side.deliveries.redeliver(each, "wish") is None
        # What its job is told of it.
        end = await side.store.client.get(f"{prefix}d:{each}:end")
        assert "dead " in repr(end)
        assert await side.store.client.zcard(f"{prefix}shelf:dead:t1") == 0
    again = await side.create(named=dead)
    await side.carry_out(again)
    assert (await side.progress(again)).skipped == {"unknown": 6}
    assert await side.claim_all("dp-next") == []


async def test_purging_ends_a_wish_for_a_manual_attempt(side: Side) -> None:
    [waiting, held] = await bury(side.deliveries, "a.example", 2)
    await side.deliveries.redeliver(held, "wish")
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.redeliver(waiting, "wish")
    replay = await side.create(replace(ALL, action="purge"))
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"attempted": 1}
    assert await side.claim_all("dp-other") == []
    await side.deliveries.record([over(claimed, Deliver())])
    assert await side.states([waiting, held]) == {"unknown": 1, "delivered": 1}


async def test_what_goes_nowhere_is_left_alone(side: Side) -> None:
    dead = await bury(side.deliveries, "a.example", 2)
    endpoint = registration("a.example", side.deliveries.partitions)
    assert await side.deliveries.delete_endpoint(endpoint.id)
    replay = await side.create()
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"endpoint_deleted": 2}
    assert await side.states(dead) == {"dead": 2}
    elsewhere = await side.create(to_url=OTHER_URL)
    await side.carry_out(elsewhere)
    assert (await side.progress(elsewhere)).moved == 2


async def test_how_far_they_are_is_counted(side: Side) -> None:
    assert await numbers_of(side.deliveries) == {}
    await bury_some(side, 9)
    quick = await side.create(Definition(filter=Filter(), total=9))
    slow = await side.create(Definition(filter=Filter(), total=9, rate=2.0))
    assert await numbers_of(side.deliveries) == {
        "replays_running delivery": 2,
        "replay_letters_left": 18,
    }
    while not (looked := (await side.progress(slow)).looked):  # a partition may hold none
        await side.go_on(slow)
    assert looked < 9
    assert (await numbers_of(side.deliveries))["replay_letters_left"] == 18 - looked
    await side.carry_out(quick)
    await side.replays.cancel(slow.id)
    assert await numbers_of(side.deliveries) == {
        "replays_ended_total completed": 1,
        "replays_ended_total cancelled": 1,
        "replay_letters_total replayed": 9,
    }


async def test_what_became_of_them_is_counted(side: Side) -> None:
    dead = await bury_some(side, 9)
    await side.carry_out(await side.create(named=[*dead[:3], new_id("msg", 0, 0)]))
    await side.carry_out(await side.create(replace(ALL, action="purge")))
    first, *others = await side.claim_all("dp-next")
    ends = [over(first, Deliver()), *(over(each, Bury(reason="exhausted")) for each in others)]
    for _ in range(2):  # the second time for a lost reply
        await side.deliveries.record(ends)
    assert await numbers_of(side.deliveries) == {
        "replays_ended_total completed": 2,
        "replay_letters_total replayed": 3,
        "replay_letters_total purged": 6,
        "replay_letters_total skipped": 1,
        "replay_letters_total delivered": 1,
        "replay_letters_total dead": 2,
    }


async def test_of_many_that_run_a_few_are_asked(side: Side) -> None:
    for _ in range(15):
        await side.create(Definition(filter=Filter(), total=1))
    now = await numbers_of(side.deliveries)
    assert now == {"replays_running delivery": 15, "replay_letters_left": 10}
