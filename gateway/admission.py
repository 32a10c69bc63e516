"""Whether there is room: for one more job that waits, and for more bytes outside the store.

What is new is refused before it is more than can be worked off or kept. Every api process counts
for itself once a second and adds what it accepted since, so a submission costs no round trip for
this. The limits may be passed by what all processes accept in a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from config.clock import Clock
from config.errors import StoreError
from config.settings import Settings
from gateway.problems import Problem
from gateway.store import JobStore

_log = logging.getLogger("api")

POLL_SECONDS = 1.0

RETRY_SECONDS = 5
"""When to ask again after a refusal."""

_TENANTS = 1_000
_REMEMBERED_SECONDS = 60.0


@dataclass(slots=True)
class _Count:
    """What there is: as the store counted it, and what was accepted since that count was begun."""

    known: int = 0
    since: int = 0

    @property
    def total(self) -> int:
        return self.known + self.since

    def replace(self, known: int, before: int) -> None:
        """Take over a count that was begun when `since` was `before`.

        What was accepted while it was under way may be in it or not: it counts twice until the
        next.
        """
        self.known, self.since = known, self.since - before


@dataclass(slots=True)
class _Tenant:
    pending: _Count = field(default_factory=_Count)
    kept: _Count = field(default_factory=_Count)
    seen_at: float = 0.0


class Admission:
    """The gauge of one api process.

    A tenant that was not seen lately is not counted until the next poll.

    Args:
        jobs: knows what there is.
        settings: `jobs.max_pending`, `jobs.max_pending_per_tenant` and
            `artifacts.max_bytes_per_tenant`.
        clock: forgets tenants that fell silent.
    """

    def __init__(self, jobs: JobStore, settings: Settings, clock: Clock) -> None:
        self._jobs = jobs
        self._limits = settings.jobs
        self._max_bytes = settings.artifacts.max_bytes_per_tenant
        self._clock = clock
        self._all = _Count()
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def check(self, tenant: str) -> None:
        """Pass when one more job of `tenant` may wait.

        Raises:
            Problem: `queue_full`, `too_many_pending` or `no_space_left`.
        """
        own = self._seen(tenant)
        if self._all.total >= self._limits.max_pending:
            detail = "as many jobs wait as this gateway takes"
            raise Problem("queue_full", detail, retry_after=RETRY_SECONDS)
        if own.pending.total >= self._limits.max_pending_per_tenant:
            limit = self._limits.max_pending_per_tenant
            detail = f"{limit} jobs of yours may wait at a time"
            raise Problem("too_many_pending", detail, retry_after=RETRY_SECONDS)
        if not self.room(tenant):
            raise self._no_space()

    def room(self, tenant: str) -> int:
        """Return how many bytes more may be kept for `tenant`."""
        return max(0, self._max_bytes - self._seen(tenant).kept.total)

    @contextmanager
    def space(self, tenant: str, limit: int) -> Iterator[int]:
        """Give how many bytes may be taken of `tenant` where `limit` are by themselves.

        Raises:
            Problem: `no_space_left`: there is no room, or it was what the block found too little.
        """
        room = self.room(tenant)
        if not room:
            raise self._no_space()
        try:
            yield min(room, limit)
        except Problem as problem:
            if problem.code == "body_too_large" and room < limit:
                raise self._no_space() from problem
            raise

    def _no_space(self) -> Problem:
        detail = (
            f"{self._max_bytes} bytes of yours may be kept; erase jobs or wait until some expire"
        )
        return Problem("no_space_left", detail)

    def accepted(self, tenant: str, given: int = 0) -> None:
        """Count a job of `tenant` that is kept now, and was given so many bytes."""
        own = self._seen(tenant)
        own.pending.since += 1
        own.kept.since += given
        self._all.since += 1

    def stored(self, tenant: str, size: int) -> None:
        """Count a file of `tenant` that is kept now."""
        self._seen(tenant).kept.since += size

    async def poll(self) -> None:
        """Count anew.

        Raises:
            StoreUnavailable: the last count stands.
        """
        self._forget_silent()
        counts = dict(self._tenants)
        before = {
            tenant: (count.pending.since, count.kept.since) for tenant, count in counts.items()
        }
        all_before = self._all.since
        total, own = await self._jobs.backlog(list(counts))
        self._all.replace(total, all_before)
        for tenant, count in counts.items():
            pending, kept = before[tenant]
            count.pending.replace(own[tenant].pending, pending)
            count.kept.replace(own[tenant].kept, kept)

    async def run(self, beat: Callable[[str], None] = lambda _loop: None) -> None:
        """Poll once a second, for ever; `beat` is told of each turn."""
        while True:
            beat("admission")
            try:
                await self.poll()
            except StoreError as error:
                _log.warning("admission.unavailable", extra={"error": str(error)})
            await asyncio.sleep(POLL_SECONDS)

    def _seen(self, tenant: str) -> _Tenant:
        count = self._tenants.setdefault(tenant, _Tenant())
        count.seen_at = self._clock.monotonic()
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > _TENANTS:
            self._tenants.popitem(last=False)
        return count

    def _forget_silent(self) -> None:
        limit = self._clock.monotonic() - _REMEMBERED_SECONDS
        for tenant in [each for each, count in self._tenants.items() if count.seen_at < limit]:
            del self._tenants[tenant]
