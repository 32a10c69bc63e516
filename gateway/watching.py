"""Watching jobs: one subscription for all watchers of a process, and at most one read per change.

Messages carry nothing that is trusted: each says only that a job changed. A job is read when
somebody begins to watch it, again when the store has begun to listen for its changes, also after a
lost connection, and then on every change, so that no change falls between. However many watch a
job, it is read once per change and at most ten times a second, and a watcher that is slow gets the
newest state when it comes back, not all it missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from config.errors import StoreError
from config.ids import partition_of, random_float
from config.scripts import partition_prefix
from config.store import Store
from config.subscription import Subscription
from config.tasks import cancel_all
from gateway.errors import GatewayError
from gateway.problems import Problem

_log = logging.getLogger("gateway.watching")

READ_SECONDS = 0.1
"""Seconds between two reads of one job at the least."""

_BASE = "gw:watch"
"""A channel that nobody speaks on: a subscription needs one to begin with."""

_RETRY_SECONDS = 5

S = TypeVar("S")
"""What is read of a job."""


class WatchersClosed(GatewayError):
    """The process stops: nothing more will be seen."""


class Watch(Generic[S]):
    """One watcher's view of one job."""

    def __init__(self, topic: _Topic[S]) -> None:
        self._topic = topic
        self._seen = 0

    async def next(self, timeout: float | None = None) -> S:  # noqa: ASYNC109
        """Return the newest state that this watcher has not had; the first time, the present one.

        Args:
            timeout: seconds to wait for it; None for ever.

        Raises:
            TimeoutError: nothing changed meanwhile.
            WatchersClosed: nothing more will be seen.
        """
        async with asyncio.timeout(timeout):
            while self._topic.version == self._seen:
                if self._topic.closed:
                    raise WatchersClosed
                await self._topic.changed.wait()
        self._seen = self._topic.version
        return self._topic.state

    async def until(self, holds: Callable[[S], bool], seconds: float) -> S | None:
        """Return the first state that `holds`; without one in time, the last there was, or None."""
        last: S | None = None
        with suppress(TimeoutError, WatchersClosed):
            async with asyncio.timeout(seconds):
                while last is None or not holds(last):
                    last = await self.next()
        return last


class _Topic(Generic[S]):
    """A job that somebody watches."""

    state: S
    """Set as soon as `version` is above 0."""

    def __init__(self, job_id: str, read: Callable[[str], Awaitable[S]]) -> None:
        self.job_id = job_id
        self.channel = f"{partition_prefix(partition_of(job_id))}watch:{job_id}"
        self.watchers = 0
        self.version = 0
        self.closed = False
        self.changed = asyncio.Event()
        self.dirty = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._read = read

    async def follow(self) -> None:
        """Read whenever something changed, for ever."""
        while True:
            await self.dirty.wait()
            self.dirty.clear()
            try:
                self.state = await self._read(self.job_id)
            except StoreError as error:
                _log.warning("watching.not_read", extra={"error": str(error)})
                self.dirty.set()
            else:
                self.version += 1
                self._wake()
            await asyncio.sleep(READ_SECONDS)

    def close(self) -> None:
        """Let the watchers know that nothing more comes."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Watchers(Generic[S]):
    """Everyone who watches a job in this process."""

    def __init__(self, store: Store, read: Callable[[str], Awaitable[S]], limit: int) -> None:
        """Listen on `store`; `read` gives the state of a job; at most `limit` may watch."""
        self._store = store
        self._read = read
        self._limit = limit
        self._count = 0
        self._closed = False
        self._topics: dict[str, _Topic[S]] = {}
        self._channels: dict[str, _Topic[S]] = {}
        self._subscription: Subscription | None = None
        self._incomplete = False

    def __len__(self) -> int:
        return self._count

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch[S]]:
        """Watch a job for as long as the block runs.

        Raises:
            Problem: `too_many_watchers`.
        """
        if self._count >= self._limit:
            raise Problem(
                "too_many_watchers",
                f"{self._limit} watch jobs already",
                retry_after=_RETRY_SECONDS,
            )
        topic = self._topics.get(job_id) or self._begin(job_id)
        topic.watchers += 1
        self._count += 1
        try:
            if topic.watchers == 1:
                await self._listen_to(topic)
            yield Watch(topic)
        finally:
            topic.watchers -= 1
            self._count -= 1
            if topic.watchers == 0:
                await self._end(topic)

    def close(self) -> None:
        """Let everyone see what is known already, and nothing more, from now on."""
        self._closed = True
        for topic in self._topics.values():
            topic.close()

    def _begin(self, job_id: str) -> _Topic[S]:
        topic = _Topic(job_id, self._read)
        topic.closed = self._closed
        self._topics[job_id] = self._channels[topic.channel] = topic
        topic.task = asyncio.create_task(topic.follow())
        return topic

    async def _listen_to(self, topic: _Topic[S]) -> None:
        topic.dirty.set()
        # Without a connection there is nothing to add to: the next one begins with every topic.
        if self._subscription is not None:
            try:
                await self._subscription.add(topic.channel)
            except StoreError:
                # The driver makes the next connection without this channel.
                self._incomplete = True

    async def _end(self, topic: _Topic[S]) -> None:
        del self._topics[topic.job_id], self._channels[topic.channel]
        if topic.task is not None:
            topic.task.cancel()
        if self._subscription is not None:
            with suppress(StoreError):
                await self._subscription.drop(topic.channel)
        if topic.task is not None:
            await cancel_all([topic.task])

    async def run(self) -> None:
        """Listen for ever."""
        while True:
            try:
                await self._listen()
            except StoreError as error:
                _log.warning("watching.not_listening", extra={"error": str(error)})
            finally:
                self._subscription = None
            await asyncio.sleep(0.1 + 0.4 * random_float())

    async def _listen(self) -> None:
        channels = (_BASE, *self._channels)
        async with self._store.subscription(*channels) as subscription:
            self._subscription = subscription
            # Those who came while the connection was made.
            missing = self._channels.keys() - set(channels)
            if missing:
                await subscription.add(*missing)
            async for channel in subscription:
                if channel in self._channels:
                    self._channels[channel].dirty.set()
                if self._incomplete:
                    self._incomplete = False
                    await subscription.add(_BASE, *self._channels)
