"""Replays: what they move, what they leave alone, and that each of it happens once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND, StoreClock, SystemClock
from config.ids import derived_id, new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.deadletters import PAGE
from delivery.egress import Policy, parse_destination
from delivery.endpoints import open_secrets, register
from delivery.letters import START, Filter
from delivery.models import Bury, Claimed, Decision, Deliver, Retry
from delivery.mover import DeliveryMover
from delivery.replay_steps import (
    BATCH,
    BITE,
    BRAKED_WINDOW,
    PACE,
    SAMPLE,
    WINDOW,
    Batch,
    Candidate,
    Complete,
    Finish,
    Move,
    Step,
    Stop,
    Wait,
    bites,
    choose,
    next_step,
    rest,
)
from delivery.replay_store import KEPT, Advanced, ReplayStore, Taken
from delivery.replays import Definition, Part, Progress, Replay, total
from delivery.rotation import change_secrets
from delivery.runner import LEASE, ReplayRunner
from delivery.sealing import KeyRing
from delivery.secrets import Secrets
from delivery.signing import generate_secret
from delivery.store import DeliveryStore
from tests.delivery.replaying import FAR, numbers_of, replays_beside
from tests.delivery.test_deadletters import LETTER, bury, walked_ids
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

ALL = Definition(filter=Filter())
ROUNDS = 200
"""In how many rounds a replay in a test must have come to its end."""

OTHER_URL = "https://other.example/hook?key=1"


@dataclass(slots=True)
class Side:
    """Deliveries, replays and a process that runs them."""

    store: Store
    deliveries: DeliveryStore
    replays: ReplayStore
    runner: ReplayRunner

    async def create(
        self,
        definition: Definition = ALL,
        *,
        named: Sequence[str] = (),
        to_url: str = "",
        tenant: str = "t1",
    ) -> Replay:
        replay_id = new_id("rpl", len(named) % self.deliveries.partitions, 0)
        sealed = RING.seal(to_url.encode(), row=replay_id) if to_url else b""
        if named:
            definition = replace(definition, filter=None, named=len(named))
        made = await self.replays.create(
            replay_id, tenant, "delivery", definition, to_url=sealed, named=named
        )
        assert made is not None
        return made

    async def carry_out(self, replay: Replay) -> Replay:
        """Run a replay, without waiting, until it runs no more."""
        for _ in range(ROUNDS):
            await self.go_on(replay)
            found = await self.replays.read(replay.id)
            assert found is not None
            if found.state != "running":
                return found
        pytest.fail(f"still running: {await self.progress(replay)}")

    async def go_on(self, replay: Replay, rounds: int = 1) -> None:
        for _ in range(rounds):
            await self.make_due(replay)
            await self.runner.round()

    async def progress(self, replay: Replay) -> Progress:
        return total((await self.replays.progress(replay.id)).values())

    async def states(self, ids: Sequence[str]) -> Counter[str]:
        kept = [await self.deliveries.read(each) for each in ids]
        return Counter(each.state if each else "unknown" for each in kept)

    async def claim_all(self, process: str) -> list[Claimed]:
        want = replace(wanted(1, limit=2_000, process=process), per_turn=2_000)
        return await claim(self.deliveries, want)

    async def make_due(self, replay: Replay) -> None:
        """Have the replay gone on with at once, whoever holds it and whatever its rate is."""
        prefix = partition_prefix(partition_of(replay.id))
        await self.store.client.zadd(f"{prefix}replaying:delivery", {replay.id: 1}, xx=True)
        await self.store.client.hdel(f"{prefix}rp:{replay.id}", "pacedAt")


def runner_of(store: Store, deliveries: DeliveryStore, policy: Policy = POLICY) -> ReplayRunner:
    replays = replays_beside(deliveries)
    return ReplayRunner(
        store=store,
        replays=replays,
        mover=DeliveryMover(deliveries, replays, ring=RING, policy=policy),
        clock=StoreClock(SystemClock()),
    )


@pytest.fixture
def side(store: Store, partitions: int) -> Side:
    unlimited = replace(DEFAULT_RETENTION, initial_limit=2_000, max_limit=2_000)
    deliveries = DeliveryStore(store, partitions, unlimited)
    return Side(store, deliveries, replays_beside(deliveries), runner_of(store, deliveries))


async def bury_some(side: Side, number: int = 6) -> list[str]:
    """Let deliveries to several hosts die."""
    return [
        each
        for host in range(3)
        for each in await bury(side.deliveries, f"host-{host}.example", number // 3)
    ]


# What becomes of dead letters


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


# What is counted


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


# To another URL


async def test_they_go_to_another_url_under_its_own_secret(side: Side) -> None:
    dead = await bury_some(side, 9)
    replay = await side.create(to_url=OTHER_URL)
    assert (await side.carry_out(replay)).state == "completed"
    own = registration("other.example", side.deliveries.partitions).id
    endpoint = await side.deliveries.read_endpoint(own)
    assert endpoint is not None
    secrets = open_secrets(endpoint.secrets["v1"], own, RING)
    claimed = await side.claim_all("dp-next")
    assert sorted(each.id for each in claimed) == sorted(dead)
    for each in claimed:
        assert RING.open(each.url, row=each.id).decode() == OTHER_URL
        assert open_secrets(each.secrets["v1"], each.endpoint, RING) == secrets
        assert partition_of(each.endpoint) == partition_of(each.id)
        assert each.endpoint == own or partition_of(own) != partition_of(each.id)
        kept = await side.deliveries.read(each.id)
        assert kept is not None
        assert kept.origin == "https://other.example"
        assert kept.url == each.url
    listed = [each.origin for each in await side.deliveries.list_endpoints("t1")]
    assert sorted(listed) == [
        *(f"https://host-{at}.example" for at in range(3)),
        "https://other.example",
    ]


async def test_a_mirror_follows_the_secrets_of_its_endpoint(side: Side) -> None:
    await bury_some(side, 3)
    await side.carry_out(await side.create(to_url=OTHER_URL))
    own = registration("other.example", side.deliveries.partitions).id
    endpoint = await side.deliveries.read_endpoint(own)
    assert endpoint is not None
    fresh = generate_secret()

    def rotate(kept: Secrets | None) -> Secrets:
        assert kept is not None
        return kept.rotated(fresh, now=0, overlap=0)

    await change_secrets(side.deliveries, RING, endpoint, "v1", rotate)
    claimed = await side.claim_all("dp-later")
    assert len(claimed) == 3
    for each in claimed:
        assert open_secrets(each.secrets["v1"], each.endpoint, RING).newest.text == fresh


async def test_there_they_are_signed_as_before(side: Side) -> None:
    destination = parse_destination("https://a.example/hook", POLICY)
    endpoint = register("t1", destination, RING, side.deliveries.partitions, "v1a")
    await side.deliveries.register_endpoint(endpoint)
    signed = replace(message(endpoint), scheme="v1a")
    await side.deliveries.enqueue(signed)
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.record([over(claimed, Bury(reason="exhausted"))])
    await side.carry_out(await side.create(to_url=OTHER_URL))
    [again] = await side.claim_all("dp-later")
    assert again.scheme == "v1a"
    secret = open_secrets(again.secrets["v1a"], again.endpoint, RING).newest.text
    assert secret.startswith("whsk_")


async def test_a_test_is_no_letter(side: Side) -> None:
    endpoint = registration("a.example", side.deliveries.partitions)
    await side.deliveries.register_endpoint(endpoint)
    sample = replace(message(endpoint), trigger="test")
    await side.deliveries.enqueue(sample)
    [claimed] = await side.claim_all("dp-next")
    await side.deliveries.record([over(claimed, Bury(reason="exhausted"))])
    assert await walked_ids(side.deliveries) == []
    replay = await side.create(named=[sample.id])
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"unknown": 1}


async def test_one_under_attempt_by_hand_does_not_change_its_url(side: Side) -> None:
    [waiting, held] = await bury(side.deliveries, "a.example", 2)
    await side.deliveries.redeliver(held, "wish")
    await side.claim_all("dp-next")
    replay = await side.create(to_url=OTHER_URL)
    await side.carry_out(replay)
    assert (await side.progress(replay)).skipped == {"attempted": 1}
    assert await side.states([waiting, held]) == {"pending": 1, "dead": 1}


async def test_another_url_that_cannot_be_used_stops_it(side: Side) -> None:
    dead = await bury_some(side, 3)
    strict = Policy()
    runner = runner_of(side.store, side.deliveries, strict)
    replay = await side.create(to_url="http://127.0.0.1/hook")
    side.runner = runner
    ended = await side.carry_out(replay)
    assert (ended.state, ended.reason) == ("stopped", "destination_not_allowed")
    other = KeyRing({"k2": bytes(32)})
    replay_id = new_id("rpl", 0, 0)
    sealed = other.seal(OTHER_URL.encode(), row=replay_id)
    made = await side.replays.create(replay_id, "t1", "delivery", ALL, to_url=sealed)
    assert made is not None
    assert (await side.carry_out(made)).reason == "unreadable"
    assert await side.states(dead) == {"dead": 3}


# What comes of them


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


# Rate, window, brake


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
    monkeypatch.setattr("delivery.replays.WINDOW", 4)
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
    monkeypatch.setattr("delivery.replays.WINDOW", 4)
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


# Who runs it


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


# The rules


def a_replay(**changes: Any) -> Replay:
    definition = Definition(**{"filter": Filter(), **changes})
    return Replay(
        id="rpl_1",
        tenant="t1",
        kind="delivery",
        definition=definition,
        to_url=b"",
        state="running",
        reason=None,
        created_at=0,
        updated_at=0,
        died_before=1_000,
        base=(0, 0),
    )


FRESH, DONE = Part(), Part(done=True)


def counted(**counts: int) -> Part:
    return Part(counts=counts)


@pytest.mark.parametrize(
    ("definition", "parts", "stalled", "step"),
    [
        ({}, [FRESH, FRESH], False, Move(partition=0, limit=BATCH)),
        ({}, [DONE, FRESH], False, Move(partition=1, limit=BATCH)),
        ({}, [DONE, DONE], False, Complete()),
        ({}, [FRESH, Part(plan=b"[]")], False, Finish(partition=1, plan=b"[]")),
        ({"most": 3}, [FRESH], False, Move(partition=0, limit=3)),
        ({"most": 3}, [counted(replayed=3)], False, Complete()),
        ({"most": 3, "dry_run": True}, [counted(matched=3)], False, Complete()),
        ({"rate": 100.0}, [FRESH], False, Move(partition=0, limit=50)),
        ({"rate": 0.1}, [FRESH], False, Move(partition=0, limit=1)),
        ({"rate": 0.1, "dry_run": True}, [FRESH], False, Move(partition=0, limit=BATCH)),
        ({}, [counted(replayed=WINDOW)], False, Wait()),
        ({}, [counted(replayed=WINDOW)], True, Move(partition=0, limit=BRAKED_WINDOW)),
        ({}, [counted(replayed=WINDOW, attempted=7)], False, Move(partition=0, limit=7)),
        ({"action": "purge"}, [counted(purged=WINDOW)], False, Move(partition=0, limit=BATCH)),
        ({"brake": 0.5}, [FRESH], False, Move(partition=0, limit=BRAKED_WINDOW)),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=SAMPLE - 1)],
            False,
            Move(partition=0, limit=19),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=SAMPLE)],
            False,
            Stop(reason="failure_rate"),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=20, delivered=11)],
            False,
            Move(partition=0, limit=20),
        ),
        (
            {"brake": 0.5},
            [counted(replayed=100, attempted=20), DONE],
            False,
            Stop(reason="failure_rate"),
        ),
    ],
)
def test_the_next_step(
    definition: dict[str, Any], parts: list[Part], stalled: bool, step: Step
) -> None:
    found = next_step(
        a_replay(**definition),
        dict(enumerate(parts)),
        batch=BATCH,
        tracked=True,
        stalled=stalled,
    )
    assert found == step


def test_a_brake_counts_from_where_it_began() -> None:
    replay = a_replay(brake=0.5)
    parts = {0: counted(replayed=100, attempted=40, delivered=0)}
    options: dict[str, Any] = {"batch": BATCH, "tracked": True, "stalled": False}
    for base in (None, (40, 40), (25, 25)):
        assert isinstance(next_step(replace(replay, base=base), parts, **options), Move)
    assert next_step(replay, parts, **options) == Stop(reason="failure_rate")


@given(st.floats(0, 100))
def test_a_replay_rests_at_least_as_long_as_it_takes(took: float) -> None:
    assert rest(took) >= took
    assert took + rest(took) >= PACE - 1e-9


Candidates = st.lists(
    st.builds(
        lambda gap, reason, why: (gap, reason, why),
        st.integers(0, 40),
        st.sampled_from(["exhausted", "gone"]),
        st.sampled_from([None, None, "unknown", "pending"]),
    ),
    max_size=60,
)


@given(Candidates, st.booleans(), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_batches_go_through_all_in_order(
    rows: list[tuple[int, str, str | None]], is_named: bool, limit: int, page: int, picky: bool
) -> None:
    """Whatever the limits are, those meant are chosen once each, in their order."""
    found, died_at = [], 0
    for number, (gap, reason, why) in enumerate(rows):
        died_at += gap
        place = (0, f"{number:03d}") if is_named else (died_at, f"{number:03d}")
        letter = replace(LETTER, id=place[1], reason=reason, died_at=died_at)
        found.append(Candidate(place=place, letter=letter, why=why if is_named else None))
    replay = a_replay(filter=None if is_named else Filter(reason="gone" if picky else None))
    place, chosen, counts = START, list[str](), Counter[str]()
    for _ in range(len(found) + 2):
        beyond = [each for each in found if each.place > place]
        reached = beyond[page - 1].place if len(beyond) > page else None
        batch = choose(replay, place, beyond[:page], reached, limit)
        assert batch.place == place
        assert batch.done or batch.to > place
        assert len(batch.chosen) <= limit
        chosen += batch.chosen
        counts.update(batch.counts)
        place = batch.to
        if batch.done:
            break
    else:
        pytest.fail("never done")
    meant = [
        each.place[1]
        for each in found
        if each.why is None
        and each.letter is not None
        and each.letter.died_at < replay.died_before
        and (is_named or not picky or each.letter.reason == "gone")
    ]
    assert chosen == meant
    assert counts["matched"] == len(meant)
    skipped = sum(count for name, count in counts.items() if name.startswith("skip:"))
    assert not is_named or counts["looked"] == len(found) == len(meant) + skipped


@given(Candidates, st.integers(1, 50), st.booleans(), st.booleans(), st.booleans())
def test_bites_are_a_batch_in_pieces(
    rows: list[tuple[int, str, str | None]],
    limit: int,
    more: bool,
    picky: bool,
    dry_run: bool,
) -> None:
    found, died_at = [], 0
    for number, (gap, reason, _) in enumerate(rows):
        died_at += gap
        letter = replace(LETTER, id=f"{number:03d}", reason=reason, died_at=died_at)
        found.append(Candidate(place=letter.place, letter=letter))
    reached = found[-1].place if found and more else None
    replay = a_replay(filter=Filter(reason="gone" if picky else None), dry_run=dry_run)
    whole = choose(replay, START, found, reached, limit)
    pieces = bites(replay, START, found, reached, limit)
    assert [START, *(each.to for each in pieces)] == [*(each.place for each in pieces), whole.to]
    assert [each.done for each in pieces] == [*[False] * (len(pieces) - 1), whole.done]
    assert tuple(each for piece in pieces for each in piece.chosen) == whole.chosen
    assert sum((Counter(each.counts) for each in pieces), Counter()) == whole.counts
    assert dry_run or all(len(each.chosen) <= BITE for each in pieces)
    assert all(each.chosen for each in pieces[:-1])
