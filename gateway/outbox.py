"""The outbox, and what else happens to jobs by the passing of time: rung, swept, expired.

One method a transition, over all partitions in one round trip; the scripts in `lua/` demand the
states. Every method may be called again after `StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from config.clock import SECOND
from config.ids import partition_of
from config.scripts import pairs
from delivery.models import Message
from gateway.models import View
from gateway.transitions import Transitions

_SILENCE = 10 * SECOND
"""A worker process that has not been heard of for this long is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A job that time has run out for.

    Attributes:
        view: the job, to be ended as it is held.
        reason: `orphaned`, `poison` or `queue_timeout`.
    """

    view: View
    reason: Literal["orphaned", "poison", "queue_timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What the relay is to tell the broker of one partition.

    Attributes:
        jobs: to be rung now.
        rung: how many are rung and unclaimed, those included.
        waiting: whether more wait behind them.
        due_in: µs until one is to be rung again or falls due; None when none will be.
    """

    jobs: tuple[str, ...]
    rung: int
    waiting: bool
    due_in: int | None


class Outbox(Transitions):
    """The outboxes of all partitions, for relays."""

    async def enlist(self, process: str, threads: int) -> None:
        """Say that a worker process lives, with so many threads; 0 threads: it leaves."""
        self._clock.heard(await self._store.run(self._meta_call("enlist", process, threads)))

    async def muster(self) -> dict[str, int]:
        """Return the live worker processes, and how many threads each has."""
        reply = await self._store.run(self._meta_call("muster", _SILENCE))
        return {process: int(threads) for process, threads in pairs(reply).items()}

    async def ring(
        self, windows: Mapping[int, int], *, again: int, again_at_most: int, overdue: bool
    ) -> dict[int, Rung]:
        """Choose the jobs to tell the broker of, in one round trip.

        Args:
            windows: how many jobs may be rung and unclaimed, by partition.
            again: µs after which a rung job is rung once more; doubles each time.
            again_at_most: µs that this doubling ends at.
            overdue: whether rung jobs that are overdue may be rung again now.
        """
        replies = await self._store.run_all(
            [
                self._call("ring", partition, window, again, again_at_most, int(overdue))
                for partition, window in windows.items()
            ]
        )
        return {
            partition: Rung(
                jobs=tuple(job.decode() for job in jobs),
                rung=rung,
                waiting=bool(waiting),
                due_in=None if due_in < 0 else due_in,
            )
            for partition, (jobs, rung, waiting, due_in) in zip(windows, replies, strict=True)
        }

    async def sweep(
        self, live: Iterable[str], *, lease: int, at_most: int
    ) -> tuple[int, list[Overdue]]:
        """Bring back jobs whose lease ran out; return how many, and those to be ended instead.

        Args:
            live: the worker processes that live; a lease of another counts against its job.
            lease: µs.
            at_most: how many of each kind in each partition.
        """
        replies = await self._everywhere("sweep", lease, at_most, *live)
        back: int = 0
        overdue: list[Overdue] = []
        for now, came_back, ended in replies:
            self._clock.heard(now)
            back += came_back
            overdue += [
                Overdue(view=self._view(job_id.decode(), reply), reason=reason.decode())
                for job_id, reason, reply in ended
            ]
        return back, overdue

    async def expire(
        self, *, tombstone_life: int, after_callback: int, at_most: int
    ) -> tuple[bool, list[str]]:
        """Turn ended jobs into tombstones, `at_most` in each partition.

        Returns:
            Whether more may be due, and jobs whose files are to be deleted.
        """
        replies = await self._everywhere("expire", tombstone_life, after_callback, at_most)
        more = any(reply[0] == at_most for reply in replies)
        return more, [job.decode() for reply in replies for job in reply[1]]

    async def notices(self, *, at_most: int) -> list[View]:
        """Return jobs whose results are about to go unread, `at_most` of each partition."""
        replies = await self._everywhere("notices", at_most)
        return [self._view(job_id.decode(), view) for _, found in replies for job_id, view in found]

    async def notify(
        self, job_id: str, rev: int, message: Message, what: Literal["beginning", "notice"]
    ) -> bool:
        """Owe the message for the job at revision `rev`, once; False when the job changed since.

        Args:
            job_id: the job.
            rev: what the message was rendered from.
            message: what is owed.
            what: it tells: that the job has begun, or that its results are about to go.
        """
        done = await self._run(
            "notify",
            partition_of(job_id),
            job_id,
            rev,
            message.id,
            message.url,
            message.headers,
            message.tags,
            message.body,
            self._retention.dead,
            what,
            message.trace,
        )
        return bool(done)

    async def forget_files(self, job_id: str) -> None:
        """Note that the files of an expired job are deleted."""
        await self._run("forget_files", partition_of(job_id), job_id)
