"""How many jobs may wait: refusing new ones before the backlog is more than can be worked off.

Every api process counts for itself once a second and adds what it accepted since, so a submission
costs no round trip for this. The limits may be passed by what all processes accept in a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from config.clock import Clock
from config.sections import JobsSettings
from config.store import StoreError
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
    """Pending jobs: as the store counted them, and those accepted since that count was begun."""

    known: int = 0
    since: int = 0
    seen_at: float = 0.0

    @property
    def total(self) -> int:
        return self.known + self.since


class Admission:
    """The gauge of one api process.

    A tenant that was not seen lately is not counted until the next poll.

    Args:
        jobs: knows the backlog.
        limits: `max_pending` and `max_pending_per_tenant`.
        clock: forgets tenants that fell silent.
    """

    def __init__(self, jobs: JobStore, limits: JobsSettings, clock: Clock) -> None:
        self._jobs = jobs
        self._limits = limits
        self._clock = clock
        self._all = _Count()
        self._tenants: OrderedDict[str, _Count] = OrderedDict()

    def check(self, tenant: str) -> None:
        """Pass when one more job of `tenant` may wait.

        Raises:
            Problem: `queue_full` or `too_many_pending`.
        """
        own = self._seen(tenant)
        if self._all.total >= self._limits.max_pending:
            detail = "as many jobs wait as this gateway takes"
            raise Problem("queue_full", detail, retry_after=RETRY_SECONDS)
        if own.total >= self._limits.max_pending_per_tenant:
            limit = self._limits.max_pending_per_tenant
            detail = f"{limit} jobs of yours may wait at a time"
            raise Problem("too_many_pending", detail, retry_after=RETRY_SECONDS)

    def accepted(self, tenant: str) -> None:
        """Count a job of `tenant` that is kept now."""
        self._seen(tenant).since += 1
        self._all.since += 1

    async def poll(self) -> None:
        """Count anew.

        Raises:
            StoreUnavailable: the last count stands.
        """
        self._forget_silent()
        counts = dict(self._tenants)
        before = {tenant: count.since for tenant, count in counts.items()}
        all_before = self._all.since
        total, own = await self._jobs.backlog(list(counts))
        # What was accepted while the count was under way may be in it or not: it counts twice until
        # the next.
        self._all.known, self._all.since = total, self._all.since - all_before
        for tenant, count in counts.items():
            count.known, count.since = own[tenant], count.since - before[tenant]

    async def run(self, beat: Callable[[str], None] = lambda _loop: None) -> None:
        """Poll once a second, for ever; `beat` is told of each turn."""
        while True:
            beat("admission")
            try:
                await self.poll()
            except StoreError as error:
                _log.warning("admission.unavailable", extra={"error": str(error)})
            await asyncio.sleep(POLL_SECONDS)

    def _seen(self, tenant: str) -> _Count:
        count = self._tenants.setdefault(tenant, _Count())
        count.seen_at = self._clock.monotonic()
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > _TENANTS:
            self._tenants.popitem(last=False)
        return count

    def _forget_silent(self) -> None:
        limit = self._clock.monotonic() - _REMEMBERED_SECONDS
        for tenant in [each for each, count in self._tenants.items() if count.seen_at < limit]:
            del self._tenants[tenant]
