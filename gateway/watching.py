"""Watching jobs: one subscription for all watchers of a process, and at most one read per change.

Messages carry nothing that is trusted: each says only that a job changed. The order is subscribe,
then read, then wait, so that no change falls between; after a lost connection everything is read
again. However many watch a job, it is read once per change and at most ten times a second, and a
watcher that is slow gets the newest state when it comes back, not all it missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from config.ids import partition_of, random_float
from config.store import Store, StoreError, Subscription, partition_prefix
from gateway.models import Tombstone, View

_log = logging.getLogger("gateway.watching")

READ_SECONDS = 0.1
"""Seconds between two reads of one job at the least."""

_BASE = "gw:watch"
"""A channel that nobody speaks on: a subscription needs one to begin with."""

State = View | Tombstone | None
Read = Callable[[str], Awaitable[State]]


class Watch:
    """One watcher's view of one job."""

    def __init__(self, topic: _Topic) -> None:
        self._topic = topic
        self._seen = 0

    async def next(self, timeout: float | None = None) -> State:  # noqa: ASYNC109
        """Return the newest state that this watcher has not had; the first time, the present one.

        Args:
            timeout: seconds to wait for it; None for ever.

        Raises:
            TimeoutError: nothing changed meanwhile.
        """
        async with asyncio.timeout(timeout):
            while self._topic.version == self._seen:
                await self._topic.changed.wait()
        self._seen = self._topic.version
        return self._topic.state


class _Topic:
    """A job that somebody watches."""

    def __init__(self, job_id: str, read: Read) -> None:
        self.job_id = job_id
        self.channel = f"{partition_prefix(partition_of(job_id))}watch:{job_id}"
        self.watchers = 0
        self.state: State = None
        self.version = 0
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
                self._tell(await self._read(self.job_id))
            except StoreError as error:
                _log.warning("watching.not_read", extra={"error": str(error)})
                self.dirty.set()
            await asyncio.sleep(READ_SECONDS)

    def _tell(self, state: State) -> None:
        self.state = state
        self.version += 1
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Watchers:
    """Everyone who watches a job in this process."""

    def __init__(self, store: Store, read: Read) -> None:
        """Listen on `store`; `read` gives the state of a job."""
        self._store = store
        self._read = read
        self._topics: dict[str, _Topic] = {}
        self._channels: dict[str, _Topic] = {}
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return sum(topic.watchers for topic in self._topics.values())

    @asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """Watch a job for as long as the block runs."""
        topic = self._topics.get(job_id)
        if topic is None:
            topic = self._begin(job_id)
        topic.watchers += 1
        try:
            if topic.watchers == 1:
                await self._listen_to(topic)
            yield Watch(topic)
        finally:
            topic.watchers -= 1
            if topic.watchers == 0:
                await self._end(topic)

    def _begin(self, job_id: str) -> _Topic:
        topic = _Topic(job_id, self._read)
        self._topics[job_id] = self._channels[topic.channel] = topic
        topic.task = asyncio.create_task(topic.follow())
        return topic

    async def _listen_to(self, topic: _Topic) -> None:
        # Without a connection there is nothing to add to: the next one begins with every topic.
        if self._subscription is not None:
            with suppress(StoreError):
                await self._subscription.add(topic.channel)
        topic.dirty.set()

    async def _end(self, topic: _Topic) -> None:
        del self._topics[topic.job_id], self._channels[topic.channel]
        if topic.task is not None:
            topic.task.cancel()
        if self._subscription is not None:
            with suppress(StoreError):
                await self._subscription.drop(topic.channel)

    async def run(self) -> None:
        """Listen for ever."""
        while True:
            try:
                await self._listen()
            except StoreError as error:
                _log.warning("watching.not_listening", extra={"error": str(error)})
            self._subscription = None
            await asyncio.sleep(0.1 + 0.4 * random_float())

    async def _listen(self) -> None:
        async with self._store.subscription(_BASE, *self._channels) as subscription:
            self._subscription = subscription
            # Nobody knows what was missed.
            for topic in self._topics.values():
                topic.dirty.set()
            async for channel in subscription:
                if channel in self._channels:
                    self._channels[channel].dirty.set()
