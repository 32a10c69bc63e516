"""A worker process: Dramatiq's threads run handlers, one thread of its own speaks with the store.

All of the process's traffic with the durable store goes through one event loop, so that there is
one client, one pool, and one place where leases are renewed while handlers keep their threads busy.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from config.settings import Settings
from config.store import StoreError
from delivery.configure import wait_for_store
from gateway.callbacks import Renderer
from gateway.leases import Leases
from gateway.models import StoredFile
from gateway.services import Services, open_services
from gateway.urls import Urls

_log = logging.getLogger("gateway.worker")

_ENLIST_SECONDS = 2.0
_JOIN_SECONDS = 5.0

T = TypeVar("T")


class Worker:
    """What the threads of one worker process share. Made after any fork."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self.services: Services = open_services(settings)
        self.leases = Leases(self.services.jobs, self.services.clock, settings.jobs.lease_seconds)
        self.renderer = Renderer(urls=Urls(settings.public_url), ring=self.services.ring)
        self._threads = settings.worker.threads
        self._thread = threading.Thread(target=self._run_loop, name="store", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to speak with the store.

        Raises:
            StoreError: it did not answer.
        """
        self._thread.start()
        self.call(self._begin())

    def stop(self) -> None:
        """Leave the muster and close the connections."""
        self.call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the process's event loop and return its result; for other threads."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def read_json(self, file: StoredFile, *, limit: int) -> Any:
        """Return the JSON that was too large for the store."""
        with self.services.artifacts.local_copy(file.path) as kept:
            return json.loads(kept.read(limit))

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _begin(self) -> None:
        await wait_for_store(self.services.store, self.services.settings)
        await self.services.jobs.enlist(self.leases.process, self._threads)
        self._tasks = [
            asyncio.create_task(self.leases.keep()),
            asyncio.create_task(self._stay_enlisted()),
        ]

    async def _stay_enlisted(self) -> None:
        while True:
            await asyncio.sleep(_ENLIST_SECONDS)
            try:
                await self.services.jobs.enlist(self.leases.process, self._threads)
            except StoreError as error:
                _log.warning("worker.not_enlisted", extra={"error": str(error)})

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.services.jobs.enlist(self.leases.process, 0)
        except StoreError as error:
            _log.warning("worker.not_enlisted", extra={"error": str(error)})
        await self.services.store.close()
