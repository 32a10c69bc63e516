"""Replays in any order, cut off anywhere and run by several processes: what must hold after all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import connect
from delivery.bounds import DEFAULT_RETENTION
from delivery.letters import Filter
from delivery.models import Bury, Deliver, Retry
from delivery.mover import DeliveryMover
from delivery.replay_steps import Batch, choose
from delivery.replays import Definition, Progress, Replay, total
from delivery.runner import LEASE
from delivery.store import DeliveryStore
from tests.conftest import RunningStores
from tests.delivery.replay_side import runner_of
from tests.delivery.replaying import numbers_of, replays_beside
from tests.delivery.test_store import POLICY, RING, claim, enqueue, over, wanted

HOSTS = ("a.example", "b.example", "c.example")
VERDICTS: tuple[Deliver | Retry | Bury, ...] = (
    Deliver(),
    Bury(reason="exhausted"),
    Retry(delay=3600 * 1_000_000),
)
ROUNDS = 100

T = TypeVar("T")
Few = st.integers(1, 4)
Picks = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)


@dataclass(slots=True)
class Asked:
    """A replay, and what was dead when it was made."""

    replay: Replay
    meant: set[str]


@dataclass(slots=True)
class Pending:
    """A batch that a process has chosen and not moved yet: it may be late, or dead."""

    replay: Replay
    partition: int
    batch: Batch


class ReplayMachine(RuleBasedStateMachine):
    """Everything that may happen to replays, chosen at random."""

    url = ""
    partitions = 1

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = connect(self.url, max_connections=4, socket_timeout=5)
        retention = replace(DEFAULT_RETENTION, initial_limit=1_000, max_limit=1_000)
        self.deliveries = DeliveryStore(self.store, self.partitions, retention)
        self.replays = replays_beside(self.deliveries)
        self.runners = [runner_of(self.store, self.deliveries) for _ in range(2)]
        self.mover = DeliveryMover(self.deliveries, self.replays, ring=RING, policy=POLICY)
        self.ids: list[str] = []
        self.asked: list[Asked] = []
        self.batches: list[Pending] = []
        self.states: dict[str, str] = {}
        self.moves = 0
        self.do(self.store.client.flushall())

    def teardown(self) -> None:
        try:
            self.every_replay_comes_to_its_end()
        finally:
            self.do(self.store.close())
            self.loop.close()

    def do(self, step: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await step

        return self.loop.run_until_complete(awaited())

    def dead(self) -> set[str]:
        return {each for each, state in self.states.items() if state == "dead"}

    async def look(self) -> dict[str, str]:
        kept = [(each, await self.deliveries.read(each)) for each in self.ids]
        return {each: found.state for each, found in kept if found}

    def see(self) -> None:
        """Count what went from dead to pending since the last look."""
        now = self.do(self.look())
        self.moves += sum(
            self.states.get(each) == "dead" and state != "dead" for each, state in now.items()
        )
        self.states = now

    async def attempt(self, verdict: Deliver | Retry | Bury, limit: int) -> None:
        want = replace(wanted(1, limit=limit, process=new_id("dp", 0, 0)), per_turn=limit)
        claimed = await claim(self.deliveries, want)
        await self.deliveries.record([over(each, verdict) for each in claimed])

    # What happens to deliveries

    @rule(host=st.sampled_from(HOSTS), number=Few, tenant=st.sampled_from(["t1", "t2"]))
    def some_die(self, host: str, number: int, tenant: str) -> None:
        made = self.do(enqueue(self.deliveries, host, number, tenant))
        self.ids += made
        self.do(self.attempt(Bury(reason="exhausted"), 50))
        self.see()

    @rule(verdict=st.sampled_from(VERDICTS), number=Few)
    def some_are_attempted(self, verdict: Deliver | Retry | Bury, number: int) -> None:
        self.do(self.attempt(verdict, number))
        self.see()

    # What people ask for

    def ask(self, definition: Definition, named: Sequence[str], meant: set[str]) -> None:
        replay_id = new_id("rpl", len(self.asked) % self.partitions, 0)
        for _ in range(2):  # the second time for a lost reply
            replay = self.do(
                self.replays.create(replay_id, "t1", "delivery", definition, named=named)
            )
        assert replay is not None
        self.asked.append(Asked(replay, meant))

    @rule(host=st.sampled_from([None, *HOSTS]), rate=st.sampled_from([None, 2.0, 6.0]))
    def ask_for_all(self, host: str | None, rate: float | None) -> None:
        endpoint = f"https://{host}" if host else None
        kept = [self.do(self.deliveries.read(each)) for each in sorted(self.dead())]
        meant = {
            each.id
            for each in kept
            if each and each.tenant == "t1" and endpoint in {None, each.origin}
        }
        self.ask(Definition(filter=Filter(endpoint=endpoint), rate=rate), (), meant)

    @precondition(lambda self: self.ids)
    @rule(numbers=Picks)
    def ask_for_some(self, numbers: list[int]) -> None:
        named = sorted({self.ids[number % len(self.ids)] for number in numbers})
        kept = [self.do(self.deliveries.read(each)) for each in named]
        meant = {each.id for each in kept if each and each.tenant == "t1" and each.state == "dead"}
        self.ask(Definition(named=len(named)), named, meant)

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 100))
    def cancel(self, number: int) -> None:
        self.do(self.replays.cancel(self.asked[number % len(self.asked)].replay.id))

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 100))
    def resume(self, number: int) -> None:
        replay = self.asked[number % len(self.asked)].replay
        for _ in range(2):
            self.do(self.replays.resume(replay.id, "wish"))

    # What processes do

    async def make_all_due(self) -> None:
        for partition in range(self.partitions):
            index = f"{partition_prefix(partition)}replaying:delivery"
            for each in self.asked:
                await self.store.client.zadd(index, {each.replay.id: 1}, xx=True)
                if partition_of(each.replay.id) == partition:
                    hash_ = f"{partition_prefix(partition)}rp:{each.replay.id}"
                    await self.store.client.hdel(hash_, "pacedAt")

    @rule(runner=st.integers(0, 1), is_due=st.booleans())
    def run_a_step(self, runner: int, is_due: bool) -> None:
        if is_due:  # leases and rates are over
            self.do(self.make_all_due())
        self.do(self.runners[runner].round())
        self.see()

    @rule()
    def take_and_die(self) -> None:
        self.do(
            self.replays.take("delivery", "dead", lease=LEASE, partitions=range(self.partitions))
        )

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 100), limit=Few)
    def choose_a_batch(self, number: int, limit: int) -> None:
        self.do(self.chosen(self.asked[number % len(self.asked)].replay, limit))

    async def chosen(self, replay: Replay, limit: int) -> None:
        parts = await self.replays.progress(replay.id)
        for partition, part in parts.items():
            if not part.done:
                page = await self.mover.select(replay, partition, part.place, limit)
                batch = choose(replay, part.place, page.rows, page.reached, limit)
                self.batches.append(Pending(replay, partition, batch))
                return

    @rule(number=st.integers(0, 100), times=st.integers(1, 2))
    def move_a_batch_at_last(self, number: int, times: int) -> None:
        # Whether there is one hangs on the store's time, which is no condition for a rule.
        if not self.batches:
            return
        late = self.batches[number % len(self.batches)]
        for _ in range(times):
            self.do(self.mover.move(late.replay, late.partition, late.batch))
        self.see()

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 100), limit=Few, steps=Few)
    def one_process_overtakes_another(self, number: int, limit: int, steps: int) -> None:
        replay = self.asked[-1 - number % len(self.asked)].replay
        before = len(self.batches)
        self.do(self.chosen(replay, limit))
        for _ in range(steps):
            self.run_a_step(1, is_due=True)
        for late in self.batches[before:]:
            self.do(self.mover.move(late.replay, late.partition, late.batch))
        self.see()

    # What must hold

    async def progresses(self) -> list[Progress]:
        return [
            total((await self.replays.progress(each.replay.id)).values()) for each in self.asked
        ]

    @invariant()
    def each_move_is_counted_once(self) -> None:
        progresses = self.do(self.progresses())
        assert sum(each.moved for each in progresses) == self.moves
        for each in progresses:
            left = each.matched - each.moved
            assert 0 <= left <= sum(each.skipped.values())
            assert each.delivered + each.dead + each.pending == each.moved
            assert each.delivered <= each.attempted <= each.moved

    @invariant()
    def what_ended_is_no_longer_counted_as_pending(self) -> None:
        pending = sum(each.pending for each in self.do(self.progresses()))
        assert pending == sum(state == "pending" for state in self.states.values())

    @invariant()
    def what_all_come_to_is_counted(self) -> None:
        now, progresses = self.do(numbers_of(self.deliveries)), self.do(self.progresses())
        sums = {
            "replayed": sum(each.moved for each in progresses),
            "delivered": sum(each.delivered for each in progresses),
            "dead": sum(each.dead for each in progresses),
            "skipped": sum(sum(each.skipped.values()) for each in progresses),
        }
        assert {each: now.get(f"replay_letters_total {each}", 0) for each in sums} == sums
        found = [self.do(self.replays.read(each.replay.id)) for each in self.asked]
        running = sum(each is not None and each.state == "running" for each in found)
        assert now.get("replays_running delivery", 0) == running

    def every_replay_comes_to_its_end(self) -> None:
        for each in self.asked:
            self.do(self.replays.resume(each.replay.id, "last"))
        for _ in range(ROUNDS):
            self.do(self.make_all_due())
            self.do(self.runners[0].round())
        self.see()
        self.each_move_is_counted_once()
        for each in self.asked:
            found = self.do(self.replays.read(each.replay.id))
            assert found is not None
            assert found.state == "completed"
            progress = total(self.do(self.replays.progress(each.replay.id)).values())
            assert progress.matched <= len(each.meant)
            named = each.replay.definition.named
            assert not named or progress.looked == named
            for delivery_id in each.meant:
                kept = self.do(self.deliveries.read(delivery_id))
                assert kept is not None
                # Whoever moved it, it was: what is dead died since.
                is_new = kept.ended_at is not None and kept.ended_at >= each.replay.died_before
                assert kept.state != "dead" or is_new


@pytest.mark.timeout(300)  # making a failure small takes a while
def test_replays_move_each_once(stores: RunningStores, partitions: int) -> None:
    class Machine(ReplayMachine):
        url = stores.durable_url

    Machine.partitions = partitions
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
