"""Deliveries in tests, with the process that replays them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from config.clock import StoreClock, SystemClock
from config.ids import new_id, partition_of
from config.scripts import partition_prefix
from config.store import Store
from delivery.bounds import DEFAULT_RETENTION
from delivery.egress import Policy
from delivery.letters import Filter
from delivery.models import Claimed
from delivery.mover import DeliveryMover
from delivery.replay_store import ReplayStore
from delivery.replays import Definition, Progress, Replay, total
from delivery.runner import ReplayRunner
from delivery.store import DeliveryStore
from tests.delivery.replaying import replays_beside
from tests.delivery.test_deadletters import bury
from tests.delivery.test_store import (
    POLICY,
    RING,
    claim,
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


def side_of(store: Store, partitions: int) -> Side:
    """Return deliveries and what replays them, with room for all at once."""
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
