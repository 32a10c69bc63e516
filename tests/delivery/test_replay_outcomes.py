"""What comes of what was replayed, and what that holds back: rate, window and brake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.clock import SECOND, StoreClock, SystemClock
from config.ids import new_id, partition_of
from delivery.models import Bury, Decision, Deliver, Retry
from delivery.mover import DeliveryMover
from delivery.replay_steps import (
    BITE,
    BRAKED_WINDOW,
    Batch,
)
from delivery.replay_store import Advanced
from delivery.replays import Replay
from delivery.runner import LEASE, ReplayRunner
from tests.delivery.replay_side import ALL, Side, bury_some, runner_of
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    POLICY,
    RING,
    message,
    over,
    registration,
)


async def test_outcomes_are_counted_once(side: Side) -> None:
    await bury_some(side, 6)
    replay = await side.create()
    await side.carry_out(replay)
    claimed = await side.claim_all("dp-next")
    verdicts: list[Deliver | Retry | Bury] = [Deliver(), Deliver(), Bury(reason="exhausted")]
    verdicts += [Retry(delay=0)] * 3
    results = [over(each, verdict) for each, verdict in zip(claimed, verdicts, strict=True)]
    for _ in range(2):  # the second time for a lost reply
        await side.deliveries.record(results)
        progress = await side.progress(replay)
        assert (progress.attempted, progress.delivered, progress.dead) == (6, 2, 1)
        assert (progress.failed, progress.pending) == (4, 3)
        assert {each.id for each in progress.failures} == {each.id for each in claimed[2:]}
        told = {each.id: (each.outcome, each.status, each.reason) for each in progress.failures}
        assert told[claimed[2].id] == ("bury", 200, "exhausted")
        assert told[claimed[3].id] == ("retry", 200, None)
    again = await side.claim_all("dp-later")
    await side.deliveries.record([over(each, Deliver()) for each in again])
    progress = await side.progress(replay)
    assert (progress.attempted, progress.delivered, progress.dead) == (6, 5, 1)
    assert (progress.failed, progress.pending) == (1, 0)


async def test_an_attempt_set_aside_says_nothing(side: Side) -> None:
    await bury_some(side, 3)
    replay = await side.create()
    await side.carry_out(replay)
    claimed = await side.claim_all("dp-next")
    aside = Decision(verdict=Retry(delay=0), used=0, step=0, limit="keep", breaker="neutral")
    await side.deliveries.record(
        [replace(over(each, Deliver()), decision=aside) for each in claimed]
    )
    progress = await side.progress(replay)
    assert (progress.attempted, progress.pending) == (0, 3)


async def test_one_that_dies_unattempted_counts_as_failed(side: Side) -> None:
    endpoint = registration("a.example", side.deliveries.partitions)
    await side.deliveries.register_endpoint(endpoint)
    gone = message(endpoint)
    await side.deliveries.enqueue(gone)
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.record([over(claimed, Bury(reason="gone"))])
    replay = await side.create()
    await side.carry_out(replay)
    assert await side.claim_all("dp-later") == []
    progress = await side.progress(replay)
    assert (progress.attempted, progress.dead, progress.failed) == (1, 1, 1)
    assert [each.reason for each in progress.failures] == ["disabled"]


async def test_a_rate_paces_it_whoever_goes_on(side: Side) -> None:
    await bury_some(side, 6)
    replay = await side.create(replace(ALL, rate=0.02))
    other = runner_of(side.store, side.deliveries)
    for _ in range(2 * side.deliveries.partitions):
        await side.runner.round()
        assert await other.round() <= 1.0
    assert (await side.progress(replay)).moved == 1
    home = partition_of(replay.id)
    _, due = await side.replays.take("delivery", "other", lease=LEASE, partitions=[home])
    wait = due[home]
    assert wait is not None
    assert 30 * SECOND < wait <= 50 * SECOND


async def test_few_are_moved_at_a_time(side: Side) -> None:
    moved: list[int] = []

    class Telling(DeliveryMover):
        async def move(self, replay: Replay, partition: int, batch: Batch) -> Advanced:
            moved.append(len(batch.chosen))
            return await super().move(replay, partition, batch)

    await bury(side.deliveries, "a.example", 2 * BITE + 3)
    mover = Telling(side.deliveries, side.replays, ring=RING, policy=POLICY)
    clock = StoreClock(SystemClock())
    side.runner = ReplayRunner(store=side.store, replays=side.replays, mover=mover, clock=clock)
    assert (await side.carry_out(await side.create())).state == "completed"
    assert moved == [BITE, BITE, 3]


async def test_what_is_moved_last_is_not_waited_for(side: Side) -> None:
    await bury(side.deliveries, "a.example", 1)
    replay = await side.create(replace(ALL, rate=0.01))
    for _ in range(2 * side.deliveries.partitions + 2):
        await side.runner.round()
    found = await side.replays.read(replay.id)
    assert found is not None
    assert (found.state, (await side.progress(replay)).moved) == ("completed", 1)


async def test_it_waits_until_what_it_moved_was_attempted(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.replay_steps.WINDOW", 4)
    await bury_some(side, 9)
    replay = await side.create()
    await side.go_on(replay, 10)
    assert (await side.progress(replay)).moved == 4
    first = await side.claim_all("dp-next")
    await side.deliveries.record([over(each, Retry(delay=SECOND)) for each in first])
    await side.go_on(replay, 10)
    assert (await side.progress(replay)).moved == 8


async def test_a_window_that_is_stalled_holds_nobody_up(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delivery.replay_steps.WINDOW", 4)
    monkeypatch.setattr("delivery.runner.STALLED", 0.0)
    await bury_some(side, 9)
    replay = await side.create()
    await side.carry_out(replay)
    assert (await side.progress(replay)).moved == 9


async def fail_all(side: Side) -> None:
    failed = await side.claim_all(new_id("dp", 0, 0))
    await side.deliveries.record([over(each, Retry(delay=3600 * SECOND)) for each in failed])


async def test_it_stops_when_too_much_is_not_taken(side: Side) -> None:
    await bury_some(side, 3 * BRAKED_WINDOW)
    replay = await side.create(replace(ALL, brake=0.5))
    await side.go_on(replay, 10)
    assert (await side.progress(replay)).moved == BRAKED_WINDOW
    await fail_all(side)
    ended = await side.carry_out(replay)
    assert (ended.state, ended.reason) == ("stopped", "failure_rate")
    assert (await side.progress(replay)).moved == BRAKED_WINDOW

    # Resumed, its brake begins to count anew.
    assert await side.replays.resume(replay.id, "wish")
    await side.go_on(replay, 10)
    assert (await side.progress(replay)).moved == 2 * BRAKED_WINDOW
    taken = await side.claim_all(new_id("dp", 0, 0))
    await side.deliveries.record([over(each, Deliver()) for each in taken])
    await side.go_on(replay, 10)
    assert (await side.progress(replay)).moved == 3 * BRAKED_WINDOW
    assert (await side.carry_out(replay)).state == "completed"
