"""The jobs this process holds: their leases renewed, their progress written, their stops passed on.

A lease's length is judged from this process's monotonic clock at the moment its renewal was sent:
the store can only have begun it later.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from config.clock import SECOND, Clock
from config.errors import StoreError
from config.ids import partition_of, random_float, random_text
from config.scripts import partition_prefix
from config.store import Store
from gateway.models import Job, writable
from gateway.work import Report, WorkStore

if TYPE_CHECKING:
    from config.spans import Span

_log = logging.getLogger("gateway.leases")

_RENEWALS_PER_LEASE = 3

PROGRESS_SECONDS = 0.1
"""Seconds between two writes of progress: the last report of that time is the one written."""


class Held:
    """One job under this process's claim: what its handler's thread and the renewing loop share.

    Attributes:
        job: as it was claimed.
        claim: the fencing token.
        deadline: when the attempt's time is up, in seconds of the monotonic clock.
        stop: set when the handler should stop, for whichever of these reasons:
        is_lost: the claim is lost; whatever is written under it is void.
        is_cancelled: cancelling was asked for.
        is_released: the process stops and gives the job back.
        rev: the newest revision this process knows of.
        percent, message: the newest report of progress.
        span: of the attempt, where traces are recorded.
    """

    def __init__(self, job: Job, claim: str, deadline: float, span: Span | None = None) -> None:
        self.job = job
        self.claim = claim
        self.deadline = deadline
        self.stop = threading.Event()
        self.is_lost = False
        self.is_cancelled = job.cancel_requested
        self.is_released = False
        self.rev = job.rev
        self.percent = job.progress
        self.message = job.message
        self.span = span
        self._unwritten = False
        self._ending = False
        self._lock = threading.Lock()

    def report(self, percent: int, message: str) -> None:
        """Take in a report of progress, to be written with the next ones."""
        with self._lock:
            self.percent, self.message = percent, writable(message)
            self._unwritten = True

    def take_report(self) -> Report | None:
        """Return what is to be written, if anything is."""
        with self._lock:
            if not self._unwritten or self._ending:
                return None
            self._unwritten = False
            return Report(
                job_id=self.job.id,
                claim=self.claim,
                percent=self.percent,
                message=self.message or "",
            )

    def begin_ending(self) -> None:
        """Write no progress from here on: the end carries it."""
        with self._lock:
            self._ending = True

    def lose(self) -> None:
        """Note that the claim is lost."""
        self.is_lost = True
        self.stop.set()

    def cancel(self) -> None:
        """Note that cancelling was asked for."""
        self.is_cancelled = True
        self.stop.set()

    def release(self) -> None:
        """Note that the process stops."""
        self.is_released = True
        self.stop.set()


class SuspectPlace:
    """The one place of a process for a suspect, if it was free."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.is_ours = lock.acquire(blocking=False)

    def give_back(self) -> None:
        """Let another have it."""
        if self.is_ours:
            self.is_ours = False
            self._lock.release()


class Leases:
    """What a worker process holds. The threads of handlers enter and leave; one loop keeps."""

    def __init__(
        self,
        work: WorkStore,
        store: Store,
        clock: Clock,
        lease: float,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Renew leases of `lease` seconds through `work`; `on_lost` hears of each claim lost."""
        self.process = f"wp-{random_text(12)}"
        self._work = work
        self._store = store
        self._clock = clock
        self._lease = lease
        self._on_lost = on_lost
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self._suspect = threading.Lock()

    @property
    def length(self) -> int:
        """How long a lease is, in µs."""
        return int(self._lease * SECOND)

    def new_claim(self) -> str:
        """Return a fencing token that names this process and nothing else ever had."""
        return f"{self.process}:{random_text(12)}"

    @contextmanager
    def suspect_place(self) -> Iterator[SuspectPlace]:
        """Try for the process's one place for a job that processes died of.

        If the process dies of such a job, only that one is to blame.
        """
        place = SuspectPlace(self._suspect)
        try:
            yield place
        finally:
            place.give_back()

    @contextmanager
    def holding(self, held: Held) -> Iterator[None]:
        """Keep `held` renewed for as long as the block runs."""
        with self._lock:
            # By claim: a job may come back to this very process while a lost attempt goes on.
            self._held[held.claim] = held
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(held.claim, None)

    def all(self) -> list[Held]:
        """Return what is held now, in order of partitions."""
        with self._lock:
            held = list(self._held.values())
        return sorted(held, key=lambda each: partition_of(each.job.id))

    async def keep(self) -> None:
        """Renew for ever."""
        usual = self._lease / _RENEWALS_PER_LEASE
        wait = usual
        while True:
            await asyncio.sleep(wait * (0.8 + 0.2 * random_float()))
            try:
                await self.renew()
                wait = usual
            except StoreError as error:
                # Leases outlast a short outage, and nobody sweeps during a long one.
                _log.warning("leases.not_renewed", extra={"error": str(error)})
                wait = min(1.0, self._lease / 10)

    async def renew(self) -> None:
        """Renew every lease held now, and pass on what the store says of each.

        Raises:
            StoreError: none was renewed, as far as is known.
        """
        held = self.all()
        pairs = {
            partition: [(each.job.id, each.claim) for each in group]
            for partition, group in groupby(held, key=lambda each: partition_of(each.job.id))
        }
        renewals = await self._work.renew(pairs, lease=self.length)
        for each in held:
            match renewals[each.claim]:
                case "lost":
                    self._missing(each)
                case "cancel_requested":
                    each.cancel()
                case "held":
                    pass

    async def write_progress(self) -> None:
        """Write the newest reports of all handlers together, for ever."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            reported = [(held, held.take_report()) for held in self.all()]
            reports = [report for _, report in reported if report]
            if not reports:
                continue
            try:
                said = await self._work.progress(reports)
            except StoreError as error:
                # Progress is for people who watch; the work does not stop for want of it.
                _log.warning("leases.progress_not_written", extra={"error": str(error)})
                continue
            for held, answer in zip(
                (held for held, report in reported if report), said, strict=True
            ):
                if answer is None:
                    self._missing(held)
                    continue
                held.rev = answer.rev
                if answer.cancel_requested:
                    held.cancel()

    async def listen(self, partitions: int) -> None:
        """Look at once, for ever, when a script says that a job of this process should stop."""
        channels = [
            f"{partition_prefix(partition)}wake:worker:{self.process}"
            for partition in range(partitions)
        ]

        async def look(_channel: str) -> None:
            await self.renew()

        await self._store.listen(channels, look)

    def _missing(self, held: Held) -> None:
        with self._lock:
            still = self._held.get(held.claim) is held
        # A job that ended while the renewal was under way is not lost.
        if still:
            _log.warning("leases.claim_lost", extra={"job": held.job.id})
            self._on_lost()
            held.lose()
