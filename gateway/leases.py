"""The jobs this process holds, and the renewing of their leases.

A lease's length is judged from this process's monotonic clock at the moment its renewal was sent:
the store can only have begun it later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from config.clock import SECOND, StoreClock
from config.ids import partition_of, random_float, random_text
from config.store import StoreError
from gateway.models import Job
from gateway.store import JobStore

_log = logging.getLogger("gateway.leases")

_RENEWALS_PER_LEASE = 3


class Held:
    """One job under this process's claim. Read by the handler's thread, written by the renewing
    one.

    Attributes:
        job: as it was claimed.
        claim: the fencing token.
        stop: set when the handler should stop: cancelling was asked for, or the claim is lost.
    """

    def __init__(self, job: Job, claim: str) -> None:
        self.job = job
        self.claim = claim
        self.stop = threading.Event()
        self.is_lost = False
        self.is_cancelled = False

    def lose(self) -> None:
        """Note that the claim is lost."""
        self.is_lost = True
        self.stop.set()

    def cancel(self) -> None:
        """Note that cancelling was asked for."""
        self.is_cancelled = True
        self.stop.set()


class Leases:
    """What a worker process holds."""

    def __init__(self, jobs: JobStore, clock: StoreClock, lease: float) -> None:
        """Renew leases of `lease` seconds in `jobs`."""
        self.process = f"wp-{random_text(12)}"
        self._jobs = jobs
        self._clock = clock
        self._lease = lease
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()

    @property
    def length(self) -> int:
        """How long a lease is, in µs."""
        return int(self._lease * SECOND)

    def new_claim(self) -> str:
        """Return a fencing token that names this process and nothing else ever had."""
        return f"{self.process}:{random_text(12)}"

    @contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """Keep `held` renewed for as long as the block runs."""
        with self._lock:
            self._held[held.job.id] = held
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(held.job.id, None)

    async def keep(self) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(self._lease / _RENEWALS_PER_LEASE * (0.8 + 0.2 * random_float()))
            try:
                await self.renew()
            except StoreError as error:
                # Leases outlast a short outage, and nobody sweeps during a long one.
                _log.warning("leases.not_renewed", extra={"error": str(error)})
                await asyncio.sleep(min(1.0, self._lease / 10))

    async def renew(self) -> None:
        """Renew every lease held now, and pass on what the store says of each.

        Raises:
            StoreError: none was renewed, as far as is known.
        """
        with self._lock:
            held = sorted(self._held.values(), key=lambda each: partition_of(each.job.id))
        pairs = {
            partition: [(each.job.id, each.claim) for each in group]
            for partition, group in groupby(held, key=lambda each: partition_of(each.job.id))
        }
        renewals = await self._jobs.renew(self.process, pairs, lease=self.length)
        for each in held:
            match renewals[each.job.id]:
                case "lost":
                    self._missing(each)
                case "cancel_requested":
                    each.cancel()
                case "held":
                    pass

    def _missing(self, held: Held) -> None:
        with self._lock:
            still = self._held.get(held.job.id) is held
        # A job that ended while the renewal was under way is not lost.
        if still:
            _log.warning("leases.claim_lost", extra={"job": held.job.id})
            held.lose()
