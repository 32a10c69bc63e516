"""Who runs a replay: cancelled, resumed, taken over, and never done twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from config.clock import SECOND
from config.ids import new_id, partition_of
from delivery.letters import START
from delivery.models import Bury
from delivery.replay_steps import (
    Batch,
)
from delivery.replay_store import KEPT, Taken
from delivery.replays import Replay, total
from delivery.runner import LEASE
from tests.delivery.replay_side import ALL, Side, bury_some
from tests.delivery.replaying import FAR
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    over,
)


async def test_cancelled_it_goes_on_from_there(side: Side) -> None:
    dead = await bury_some(side, 9)
    replay = await side.create(replace(ALL, rate=6.0))
    await side.go_on(replay, side.deliveries.partitions)
    assert await side.replays.cancel(replay.id) == "cancelled"
    assert await side.replays.cancel(replay.id) == "cancelled"
    moved = (await side.progress(replay)).moved
    assert 0 < moved < 9
    await side.go_on(replay)
    assert (await side.progress(replay)).moved == moved
    for _ in range(2):
        assert await side.replays.resume(replay.id, "wish")
    await side.carry_out(replay)
    assert await side.states(dead) == {"pending": 9}
    assert (await side.progress(replay)).moved == 9
    assert await side.replays.resume(replay.id, "wish") is True
    assert await side.replays.resume(replay.id, "another") is False
    assert await side.replays.cancel(replay.id) == "completed"


async def test_unknown_ones(side: Side) -> None:
    unknown = new_id("rpl", 0, 0)
    assert await side.replays.read(unknown) is None
    assert await side.replays.cancel(unknown) is None
    assert await side.replays.resume(unknown, "wish") is None
    assert await side.progress(replace(await side.create(), id=unknown)) == total([])


async def take(side: Side, replay: Replay, holder: str) -> Taken:
    taken, _ = await side.replays.take(
        "delivery", holder, lease=LEASE, partitions=[partition_of(replay.id)]
    )
    [one] = taken
    return one


async def test_what_a_dead_process_held_another_goes_on_with(side: Side) -> None:
    dead = await bury_some(side, 6)
    replay = await side.create()
    held = await take(side, replay, "lost")
    await side.runner.round()
    assert (await side.progress(replay)).moved == 0
    await side.make_due(replay)  # its lease is over
    assert (await side.carry_out(replay)).state == "completed"
    assert await side.states(dead) == {"pending": 6}
    assert not await side.replays.settle(held, "stopped", base=(0, 0), reason="failure_rate")
    found = await side.replays.read(replay.id)
    assert found is not None
    assert found.state == "completed"


async def test_a_step_settled_twice_counts_once(side: Side) -> None:
    replay = await side.create(replace(ALL, rate=1.0))
    taken = await take(side, replay, "one")
    assert await side.replays.settle(taken, "running", base=(0, 0), spent=20 * SECOND)
    assert not await side.replays.settle(taken, "running", base=(0, 0), spent=20 * SECOND)
    home = partition_of(replay.id)
    again, _ = await side.replays.take("delivery", "two", lease=LEASE, partitions=[home])
    assert [each.replay.id for each in again] == [replay.id]
    assert 0 < again[0].replay.paced_at - replay.created_at < 30 * SECOND


async def test_a_batch_is_moved_once(side: Side) -> None:
    dead = await bury(side.deliveries, "a.example", 4)
    replay = await side.create()
    partition = partition_of(dead[0])
    batch = Batch(
        place=START, to=(7, dead[1]), done=False, chosen=tuple(dead[:2]), counts={"looked": 2}
    )
    options: dict[str, Any] = {"action": "replay", "tenant": "t1", "died_before": FAR}
    assert (await side.replays.move(replay.id, partition, batch, **options))[0] == "done"
    failed = await side.claim_all("dp-next")
    await side.deliveries.record([over(each, Bury(reason="exhausted")) for each in failed])
    # The reply was lost: what died again meanwhile stays dead.
    assert await side.replays.move(replay.id, partition, batch, **options) == ("before", {})
    stale = replace(batch, chosen=tuple(dead[2:]), to=(8, dead[3]))
    assert (await side.replays.move(replay.id, partition, stale, **options))[0] == "elsewhere"
    assert await side.states(dead) == {"dead": 4}
    progress = await side.progress(replay)
    assert (progress.looked, progress.moved, progress.dead) == (2, 2, 2)


async def test_places_and_plans_are_moved_once(side: Side) -> None:
    replay = await side.create()
    batch = Batch(place=START, to=(5, "a"), done=False, chosen=("a",), counts={"looked": 1})
    other = replace(batch, chosen=("b",))
    assert await side.replays.plan(replay.id, 0, batch) == batch
    assert await side.replays.plan(replay.id, 0, other) == batch
    assert Batch.decode((await side.replays.progress(replay.id))[0].plan or b"") == batch
    assert await side.replays.advance(replay.id, 0, batch) == "done"
    assert await side.replays.advance(replay.id, 0, batch) == "before"
    assert await side.replays.advance(replay.id, 0, replace(batch, to=(6, "a"))) == "elsewhere"
    assert await side.replays.plan(replay.id, 0, batch) is None
    part = (await side.replays.progress(replay.id))[0]
    assert (part.place, part.done, part.plan, part.counts) == ((5, "a"), False, None, {"looked": 1})
    end = Batch(place=(5, "a"), to=(5, "a"), done=True, chosen=(), counts={})
    assert await side.replays.advance(replay.id, 0, end) == "done"
    assert await side.replays.advance(replay.id, 0, end) == "before"
    assert (await side.replays.progress(replay.id))[0].done


async def test_made_twice_it_is_one(side: Side) -> None:
    replay = await side.create()
    again = await side.replays.create(replay.id, "t1", "delivery", replace(ALL, dry_run=True))
    assert again == replay
    assert await side.replays.list_replays("t1", 10) == [replay]
    assert await side.replays.list_replays("t2", 10) == []


async def test_they_are_listed_newest_first_and_the_oldest_make_room(side: Side) -> None:
    partitions = side.deliveries.partitions
    made = []
    for number in range(KEPT * partitions):
        replay_id = new_id("rpl", number % partitions, 0)
        assert await side.replays.create(replay_id, "t1", "delivery", ALL)
        made.append(replay_id)
    assert await side.replays.create(new_id("rpl", 0, 0), "t1", "delivery", ALL) is None
    assert await side.replays.create(new_id("rpl", 0, 0), "t2", "delivery", ALL) is not None
    await side.replays.cancel(made[0])
    last = new_id("rpl", 0, 0)
    assert await side.replays.create(last, "t1", "delivery", ALL) is not None
    listed = [each.id for each in await side.replays.list_replays("t1", 1_000)]
    assert listed == [last, *reversed(made[1:])]
    assert [each.id for each in await side.replays.list_replays("t1", 3)] == listed[:3]
    assert await side.replays.read(made[0]) is None
