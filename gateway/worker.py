"""A worker process: Dramatiq's threads run handlers, one thread of its own speaks with the store.

All of the process's traffic with the durable store goes through one event loop, so that there is
one client, one pool, and one place where leases are renewed while handlers keep their threads
busy.

A process that is told to stop takes no further job, gives those under way some time, and then hands
them back to be taken by another at once. One whose thread ignores its deadline ends that attempt in
its place, and then stops the same way: a thread cannot be ended any other way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from config.clock import SystemClock
from config.errors import StoreError
from config.settings import Settings
from config.tasks import background, cancel_all
from config.tracing import open_tracer
from delivery.configure import wait_for_store
from delivery.retry import Gaps
from gateway.callbacks import renderer_of
from gateway.isolation import Isolation
from gateway.leases import Held, Leases
from gateway.models import compact
from gateway.services import Services, open_services
from gateway.vitals import Vitals

_log = logging.getLogger("gateway.worker")

_ENLIST_SECONDS = 2.0
_WATCH_SECONDS = 1.0
_JOIN_SECONDS = 5.0

OVERTIME = 5.0
"""Seconds that a handler in a thread gets to notice that its time is up."""

_LAST_MOMENTS = 2.0
"""Seconds that handlers get to stop once they were told to, before their jobs are taken from them.
"""

T = TypeVar("T")


def _leave_service() -> None:
    """Stop this process in order: Dramatiq does on this signal, and its parent starts anew."""
    os.kill(os.getpid(), signal.SIGTERM)


class Worker:
    """What the threads of one worker process share. Made after any fork."""

    def __init__(self, settings: Settings, on_overtime: Callable[[Held], None]) -> None:
        """Open what handlers need.

        Args:
            settings: of this process.
            on_overtime: ends an attempt whose handler ignores its deadline; called in a thread.
        """
        self._loop = asyncio.new_event_loop()
        self.services: Services = open_services(settings)
        self.leases = Leases(
            self.services.work,
            self.services.store,
            self.services.clock,
            settings.jobs.lease_seconds,
            self.services.metrics.claim_lost,
        )
        self._vitals = Vitals(self.services.metrics.registry, SystemClock())
        self.tracer = open_tracer(settings.tracing, "worker")
        self.isolation = Isolation(
            modules=settings.jobs.modules,
            profile=settings.profile,
            artifacts_url=settings.artifacts.url,
            traces=self.tracer is not None,
            clock=self.services.clock,
        )
        self.renderer = renderer_of(self.services)
        self.gaps = Gaps(gaps=settings.jobs.retry_gaps_seconds)
        self._on_overtime = on_overtime
        self._threads = settings.worker.threads
        self._grace = settings.worker.grace_seconds
        self._stopping = threading.Event()
        self._consumes: Callable[[], bool] = lambda: True
        self._thread = threading.Thread(target=self._run_loop, name="store", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_stopping(self) -> bool:
        """Whether no further job is to be taken."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin to speak with the store.

        Raises:
            StoreError: it did not answer.
        """
        self._thread.start()
        self.call(self._begin())

    def attend(self, consumes: Callable[[], bool]) -> None:
        """Leave service once `consumes` says that Dramatiq's threads are not all alive."""
        self._consumes = consumes

    def wind_down(self) -> None:
        """Take no further job; see that those under way are over, or handed back, in time."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._vitals.draining()
            threading.Thread(target=self._hand_back, name="wind-down", daemon=True).start()

    def stop(self) -> None:
        """Leave the muster and close the connections."""
        self.isolation.close()
        self.call(self._end())
        if self.tracer is not None:
            self.tracer.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the process's event loop and return its result; for other threads."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _begin(self) -> None:
        await wait_for_store(self.services.store, self.services.settings)
        await self.services.outbox.enlist(self.leases.process, self._threads)
        loops = (
            self.leases.keep(),
            self.leases.write_progress(),
            self.leases.listen(self.services.work.partitions),
            self._stay_enlisted(),
            self._watch(),
        )
        self._tasks = background(loops, _leave_service)

    async def _stay_enlisted(self) -> None:
        while True:
            self._vitals.turned()
            await asyncio.sleep(_ENLIST_SECONDS)
            threads = 0 if self.is_stopping else self._threads
            try:
                await self.services.outbox.enlist(self.leases.process, threads)
            except StoreError as error:
                _log.warning("worker.not_enlisted", extra={"error": str(error)})

    async def _watch(self) -> None:
        """End attempts whose handlers ignore their deadline; take the process out of service."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = self.services.clock.monotonic()
            if not (self._consumes() or self.is_stopping):
                # Dramatiq starts a consumer that fails anew, but not a thread that died.
                _log.critical("worker.thread_died")
                _leave_service()
            for held in self.leases.all():
                if now > held.deadline + OVERTIME and not held.is_lost:
                    _log.error("worker.deadline_ignored", extra={"job": held.job.id})
                    try:
                        await asyncio.to_thread(self._on_overtime, held)
                    finally:
                        held.lose()
                        _leave_service()

    def _hand_back(self) -> None:
        """Wait for what is under way, then tell it to stop, then take it away."""
        if self._wait_for_handlers(self._grace):
            return
        for held in self.leases.all():
            held.release()
        if self._wait_for_handlers(_LAST_MOMENTS):
            return
        left = self.leases.all()
        _log.error("worker.jobs_taken_away", extra={"jobs": [held.job.id for held in left]})
        try:
            self.call(self._release(left))
        finally:
            # A thread that does not stop cannot be ended; what it held is somebody else's now.
            os._exit(0)

    def _wait_for_handlers(self, seconds: float) -> bool:
        end = self.services.clock.monotonic() + seconds
        pause = threading.Event()
        while self.leases.all():
            if self.services.clock.monotonic() > end:
                return False
            pause.wait(0.05)
        return True

    async def _release(self, left: list[Held]) -> None:
        record = compact({"outcome": "interrupted", "worker": self.leases.process})
        for held in left:
            if held.is_lost:
                continue
            try:
                await self.services.work.release(held.job.id, held.claim, attempt_record=record)
            except StoreError as error:
                _log.warning(
                    "worker.not_handed_back", extra={"job": held.job.id, "error": str(error)}
                )

    async def _end(self) -> None:
        await cancel_all(self._tasks)
        try:
            await self.services.outbox.enlist(self.leases.process, 0)
        except StoreError as error:
            _log.warning("worker.not_enlisted", extra={"error": str(error)})
        await self.services.store.close()
