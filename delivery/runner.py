"""Runs replays: takes one that is due, does one step of it, gives it back.

Any number of processes may do so. Each step is taken under a lease: when a process dies, another
goes on with its replays once that is over, from the place that the store knows. Several replays
take turns, step by step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from itertools import count
from typing import Any, assert_never

from config.clock import SECOND, StoreClock
from config.errors import StoreError
from config.ids import random_float, random_text
from config.scripts import partition_prefix
from config.store import Store
from delivery.errors import DestinationRefused, SealError, TooManyEndpoints
from delivery.mover import Mover
from delivery.replay_steps import (
    STALLED,
    Batch,
    Complete,
    Finish,
    Move,
    Stop,
    Wait,
    bites,
    cost,
    next_step,
    rest,
)
from delivery.replay_store import ReplayStore, Taken
from delivery.replays import Part, Progress, Replay, StopReason, total

_log = logging.getLogger("delivery.replays")

LOOK = 1.0
"""Seconds between looks for replays that nobody told of."""

LEASE = 10 * SECOND
"""How long a process may take for one step, µs."""

_WAIT = SECOND // 5
_AGAIN = 2 * SECOND
_WATCHED_AT_MOST = 1_000


class ReplayRunner:
    """Carries out replays of one kind, for as long as it runs."""

    def __init__(
        self, *, store: Store, replays: ReplayStore, mover: Mover, clock: StoreClock
    ) -> None:
        self._store = store
        self._replays = replays
        self._mover = mover
        self._clock = clock
        self._name = f"rr-{random_text(12)}"
        self._wishes = count()
        self._wake = asyncio.Event()
        self._watched: dict[str, tuple[int, float]] = {}

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to run for ever."""
        return [self._run(), self._listen()]

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait = await self.round()
            except StoreError as error:
                _log.warning("replays.store_unavailable", extra={"error": str(error)})
                wait = 0.5 + 0.5 * random_float()
            if wait > 0:
                await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def _listen(self) -> None:
        channels = [
            f"{partition_prefix(partition)}wake:replays:{self._mover.kind}"
            for partition in range(self._replays.partitions)
        ]

        async def wake(_channel: str) -> None:
            self._wake.set()

        await self._store.listen(channels, wake)

    async def round(self) -> float:
        """Do one step of each replay that is due, one a partition; return the seconds to wait.

        Raises:
            StoreError: what was not done is due again.
        """
        taken, due = await self._replays.take(
            self._mover.kind,
            f"{self._name}:{next(self._wishes)}",
            lease=LEASE,
            partitions=range(self._replays.partitions),
        )
        for each in taken:
            await self._go_on(each)
        if taken:
            return 0.0
        known = [each / SECOND for each in due.values() if each is not None]
        return max(0.01, min([LOOK, *known]))

    async def _go_on(self, taken: Taken) -> None:
        try:
            await self._step(taken)
        except StoreError:
            raise
        except DestinationRefused:
            await self._stop(taken, "destination_not_allowed")
        except TooManyEndpoints:
            await self._stop(taken, "too_many_endpoints")
        except SealError:
            await self._stop(taken, "unreadable")
        except Exception:  # noqa: BLE001
            # One replay that cannot go on must not keep the others from it.
            _log.exception("replays.step_failed", extra={"replay": taken.replay.id})
            await self._settle(taken, wait=_AGAIN)

    async def _step(self, taken: Taken) -> None:
        replay = taken.replay
        parts = await self._replays.progress(replay.id)
        progress = total(parts.values())
        step = next_step(
            replay,
            parts,
            batch=self._mover.batch,
            tracked=self._mover.is_tracked,
            stalled=self._is_stalled(replay.id, progress),
        )
        base = replay.base or (progress.attempted, progress.failed)
        match step:
            case Move(partition=partition, limit=limit):
                await self._move(taken, base, partition, parts[partition], limit)
            case Finish(partition=partition, plan=plan):
                await self._mover.finish(replay, partition, Batch.decode(plan))
                await self._settle(taken, base=base)
            case Wait():
                await self._settle(taken, base=base, wait=_WAIT)
            case Complete():
                await self._end(taken, progress)
            case Stop(reason=reason):
                await self._stop(taken, reason)
            case _:
                assert_never(step)

    async def _move(
        self, taken: Taken, base: tuple[int, int], partition: int, part: Part, limit: int
    ) -> None:
        replay = taken.replay
        at_most = min(limit, await self._mover.room(replay))
        if at_most <= 0:
            await self._settle(taken, base=base, wait=_AGAIN)
            return
        # One more than are taken tells whether there is more.
        page = await self._mover.select(replay, partition, part.place, at_most + 1)
        batches = bites(replay, part.place, page.rows, page.reached, at_most)
        moves = not replay.definition.dry_run and bool(batches[0].chosen)
        too_early = replay.paced_at - self._clock.now()
        if moves and too_early > 0:
            await self._settle(taken, base=base, wait=too_early)
            return
        moved = 0
        for batch in batches:
            if not await self._bite(replay, partition, batch):
                break
            moved += len(batch.chosen)
        await self._settle(taken, base=base, spent=cost(replay.definition, moved))

    async def _bite(self, replay: Replay, partition: int, batch: Batch) -> bool:
        """Move a batch, no sooner than live traffic bears it; False when somebody else did."""
        if replay.definition.dry_run or not batch.chosen:
            return await self._replays.advance(replay.id, partition, batch) != "elsewhere"
        began = self._clock.monotonic()
        advanced = await self._mover.move(replay, partition, batch)
        await asyncio.sleep(rest(self._clock.monotonic() - began))
        return advanced != "elsewhere"

    def _is_stalled(self, replay_id: str, progress: Progress) -> bool:
        """Tell whether nothing was attempted for a while."""
        now = self._clock.monotonic()
        attempted, since = self._watched.get(replay_id, (-1, now))
        if attempted != progress.attempted:
            if len(self._watched) >= _WATCHED_AT_MOST:
                self._watched.clear()
            self._watched[replay_id] = (progress.attempted, now)
            return False
        return now - since >= STALLED

    async def _settle(
        self, taken: Taken, *, base: tuple[int, int] | None = None, wait: int = 0, spent: int = 0
    ) -> None:
        kept = base or taken.replay.base or (0, 0)
        await self._replays.settle(taken, "running", base=kept, wait=wait, spent=spent)

    async def _end(self, taken: Taken, progress: Progress) -> None:
        replay = taken.replay
        if await self._replays.settle(taken, "completed", base=(0, 0)):
            self._watched.pop(replay.id, None)
            _log.info(
                "replay.completed",
                extra={
                    "replay": replay.id,
                    "tenant": replay.tenant,
                    "matched": progress.matched,
                    "moved": progress.moved,
                    "skipped": dict(progress.skipped),
                },
            )

    async def _stop(self, taken: Taken, reason: StopReason) -> None:
        replay = taken.replay
        if await self._replays.settle(taken, "stopped", base=(0, 0), reason=reason):
            self._watched.pop(replay.id, None)
            _log.warning(
                "replay.stopped",
                extra={"replay": replay.id, "tenant": replay.tenant, "reason": reason},
            )
