"""The relay: from the outbox to the broker, and everything else that happens to jobs by the passing
of time.

It rings, which is to tell the broker of a job, for at most a window of jobs at once, so that the
broker's queue stays short and the order of the outbox is the order of work. It brings back jobs
whose lease ran out, ends those that have no attempts left, and turns expired jobs into tombstones.
Any number of relays may run: each step is one script, safe beside the others and safe to repeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dramatiq.brokers.redis import RedisBroker

from config.clock import SECOND
from config.errors import StoreError
from config.ids import random_float
from config.scripts import partition_prefix
from config.tasks import background, cancel_all
from delivery.runner import ReplayRunner
from gateway.artifacts import ArtifactError, file_prefix, job_prefix
from gateway.broker import BrokerUnavailable, queue_length, ring
from gateway.callbacks import Renderer
from gateway.jobmover import JobMover
from gateway.models import View, compact
from gateway.outbox import Overdue
from gateway.outcomes import Finish
from gateway.services import Services
from gateway.work import Changed

_log = logging.getLogger("gateway.relay")

_WINDOW_PER_THREAD = 2
_AT_ONCE = 100
_RENDERINGS = 5
_GAPS_PER_LEASE = 3
"""As `delivery/lua/quiet.lua` has it: after a longer time no lease is taken for lost."""

_SWEEPS_PER_GAP = 3
_GATHER = 0.002
"""Seconds between two rounds at the least, so that one round takes in several submits."""


class Relay:
    """One relay process."""

    def __init__(
        self,
        services: Services,
        broker: RedisBroker,
        renderer: Renderer,
        beat: Callable[[str], None] = lambda _loop: None,
    ) -> None:
        """Begin nothing yet; `beat` is told of each turn of the loops that must go on."""
        self._beat = beat
        self._services = services
        self._outbox = services.outbox
        self._broker = broker
        self._renderer = renderer
        self._replays = ReplayRunner(
            store=services.store,
            replays=services.replays,
            mover=JobMover(services),
            clock=services.clock,
        )
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._live: dict[str, int] = {}
        self._rung = dict.fromkeys(range(self._outbox.partitions), 0)

    @property
    def live_threads(self) -> int:
        """How many threads the live workers have, as of the last look."""
        return sum(self._live.values())

    def stop(self) -> None:
        """End `run` after the round under way."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Relay until `stop` is called."""
        limits = self._services.settings.jobs
        often = limits.lease_seconds / (_GAPS_PER_LEASE * _SWEEPS_PER_GAP)
        loops = [
            self._every(limits.sweep_seconds, self._muster),
            self._every(min(limits.sweep_seconds, often), self._sweep),
            self._every(limits.sweep_seconds, self._expire),
            self._every(limits.sweep_seconds, self._expire_files),
            self._every(limits.sweep_seconds, self._notify),
            self._listen(),
            *self._replays.loops(),
        ]
        beside = background(loops, self.stop)
        try:
            _log.info("relay.started")
            await self._ring_all()
        finally:
            await cancel_all(beside)
            _log.info("relay.stopped")

    async def _ring_all(self) -> None:
        while not self._stopping.is_set():
            self._beat("ring")
            self._wake.clear()
            try:
                wait = await self._ring_round()
            except (StoreError, BrokerUnavailable) as error:
                _log.warning("relay.unavailable", extra={"error": str(error)})
                wait = 0.5 + 0.5 * random_float()
            try:
                await asyncio.wait_for(self._wake.wait(), max(wait, _GATHER))
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER)

    async def _ring_round(self) -> float:
        """Ring for what the window has room for; return the seconds to the next round."""
        limits = self._services.settings.jobs
        window = _WINDOW_PER_THREAD * sum(self._live.values())
        queued = await asyncio.to_thread(queue_length, self._broker)
        # What the broker still holds was not lost: ringing for it again would only pile up.
        overdue = queued < max(1, window)
        rung = await self._outbox.ring(
            self._windows(window),
            again=int(limits.ring_again_seconds * SECOND),
            again_at_most=int(limits.ring_again_max_seconds * SECOND),
            overdue=overdue and window > 0,
        )
        self._rung = {partition: each.rung for partition, each in rung.items()}
        jobs = [job for each in rung.values() for job in each.jobs]
        if jobs:
            await asyncio.to_thread(ring, self._broker, jobs)
        due = [each.due_in / SECOND for each in rung.values() if each.due_in is not None]
        return min([limits.sweep_seconds, *(max(each, 0.01) for each in due)])

    def _windows(self, window: int) -> dict[int, int]:
        """Return how many jobs may be rung in each partition: what is, and a part of the rest."""
        room = window - sum(self._rung.values())
        part = max(1, room // len(self._rung)) if room > 0 else 0
        return {partition: rung + part for partition, rung in self._rung.items()}

    async def _muster(self) -> None:
        live = await self._outbox.muster()
        if sum(live.values()) > sum(self._live.values()):
            self._wake.set()
        self._live = live

    async def _sweep(self) -> None:
        self._beat("sweep")
        lease = int(self._services.settings.jobs.lease_seconds * SECOND)
        back, overdue = await self._outbox.sweep(self._live, lease=lease, at_most=_AT_ONCE)
        if back:
            _log.warning("relay.jobs_came_back", extra={"count": back})
            self._wake.set()
        for each in overdue:
            try:
                await self._end(each)
            except StoreError:
                raise
            except Exception:  # noqa: BLE001
                # One job that cannot be ended must not keep the others from it.
                _log.exception("relay.job_not_ended", extra={"job": each.view.job.id})

    async def _end(self, overdue: Overdue) -> None:
        """End a job that time has run out for, unless something else happened to it meanwhile."""
        held = overdue.view.job.claim or ""
        view = overdue.view
        for _ in range(_RENDERINGS):
            if (view.job.claim or "") != held or view.job.is_terminal:
                return
            end = self._renderer.end(
                view.job,
                _end_of(view, overdue.reason),
                claim=held,
                by=f"{overdue.reason}:{held}",
                at=self._services.clock.now(),
                attempt_record=compact({"outcome": "lost", "claim": held}),
            )
            result = await self._services.work.finish(view.job.id, end)
            if not isinstance(result, Changed):
                _log.warning(
                    "relay.job_ended", extra={"job": view.job.id, "reason": overdue.reason}
                )
                return
            view = result.view

    async def _expire(self) -> None:
        limits = self._services.settings.jobs
        more = True
        # In small steps, as long as there is more: jobs go as fast as they come.
        while more:
            more, doomed = await self._outbox.expire(
                tombstone_life=int(limits.tombstone_seconds * SECOND),
                after_callback=int(limits.result_ttl_seconds * SECOND),
                at_most=_AT_ONCE,
            )
            for job_id in doomed:
                await self._services.artifacts.delete_prefix(job_prefix(job_id))
                await self._outbox.forget_files(job_id)
            more = more or len(doomed) >= _AT_ONCE

    async def _expire_files(self) -> None:
        """Delete uploaded files that no job used in time."""
        files = self._services.files
        for file_id in await files.expire(at_most=_AT_ONCE):
            await self._services.artifacts.delete_prefix(file_prefix(file_id))
            await files.forget(file_id)

    async def _notify(self) -> None:
        """Owe a callback for each job whose results are about to go unread."""
        for view in await self._outbox.notices(at_most=_AT_ONCE):
            try:
                message = self._renderer.notice(view.job, at=self._services.clock.now())
                if message is not None:
                    # One that changed since is found again.
                    await self._outbox.notify(view.job.id, view.job.rev, message, "notice")
            except StoreError:
                raise
            except Exception:  # noqa: BLE001
                _log.exception("relay.job_not_told_of", extra={"job": view.job.id})

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except (StoreError, ArtifactError) as error:
                _log.warning("relay.unavailable", extra={"error": str(error)})
            except Exception:  # noqa: BLE001
                # One job that cannot be ended must not end the sweeping of all others.
                _log.exception("relay.step_failed")
            await asyncio.sleep(seconds * (0.9 + 0.2 * random_float()))

    async def _listen(self) -> None:
        channels = [
            f"{partition_prefix(partition)}wake:relay"
            for partition in range(self._outbox.partitions)
        ]

        async def wake(_channel: str) -> None:
            self._wake.set()

        await self._services.store.listen(channels, wake)


_REASONS = {
    "orphaned": "The worker that ran the job was lost, and no attempts are left.",
    "poison": "The job was stopped for good: too many worker processes died while they ran it.",
    "queue_timeout": "The job did not begin within the time it was given.",
}


def _end_of(view: View, reason: str) -> Finish:
    if view.job.cancel_requested:
        return Finish(status="cancelled")
    return Finish(status="failed", error=_REASONS[reason], error_code=reason)
