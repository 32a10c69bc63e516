"""The connection to a store, in which scripts run.

What a script changed counts once it is kept: by the server that answered, or, where the store was
connected to with `replica_wait`, by one more that follows it. A script that says of itself that it
does not write (`no-writes` in its first line, which the server enforces) waits for nobody. What may
go wrong is in `errors`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Any, Literal, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    NoScriptError,
    RedisError,
)
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from config.errors import StoreError, StoreFull, StoreUnavailable, translated
from config.scripts import Argument, Call, load_script
from config.sentinels import sentinel_pool
from config.subscription import Subscription
from config.values import SENTINEL_SCHEMES

Outcome = Literal["answered", "unavailable", "full", "failed"]
"""What came of a call, for those who count them: an answer, or one of the errors."""


def _await_replica(pipe: Pipeline, wait: float, prefix: str) -> None:
    """End `pipe` with a wait until one replica has everything that was written so far.

    WAIT speaks of what its own connection wrote last, and passes at once where that is nothing. A
    script that is asked again may write nothing, while what it wrote the first time is on no
    replica yet. So a write of its own goes before the wait: it comes after all that the server ever
    wrote, and who has it has the rest.
    """
    pipe.execute_command("EVAL", load_script("config", "probe").source, 1, prefix)
    pipe.execute_command("WAIT", 1, ceil(wait * 1000))


def _raise_first(replies: Iterable[object]) -> None:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


class Store:
    """A store's scripts, run by digest over a bounded pool of connections."""

    def __init__(self, client: Redis, deadline: float, replica_wait: float | None = None) -> None:
        """Run what is asked over `client`, at most `deadline` seconds a call, retries included.

        What is written waits for one replica, at most `replica_wait` seconds; None waits for none.
        """
        self._client = client
        self._deadline = deadline
        self._replica_wait = replica_wait
        self._observe: Callable[[float, Outcome], None] = lambda _seconds, _outcome: None

    @property
    def deadline(self) -> float:
        """The seconds that a call takes at the most."""
        return self._deadline

    def watch(self, observe: Callable[[float, Outcome], None]) -> None:
        """Call `observe` with the seconds that each call took, and with what came of it."""
        self._observe = observe

    @property
    def client(self) -> Redis:
        """The connection itself, for what is no transition: PING, PUBLISH, SUBSCRIBE."""
        return self._client

    async def run(self, call: Call) -> Any:
        """Run one script and return its reply (bytes, integers and lists of them).

        Raises:
            StoreUnavailable, StoreFull, ScriptFailed: see `errors`.
        """
        async with self._bounded(call.script.name):
            if self._wait_after([call]) is not None:
                [reply] = await self._known([call])
                return reply
            try:
                return await self._evalsha(call)
            except NoScriptError:
                return await self._client.eval(call.script.source, 1, call.prefix, *call.args)

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip, in order, and return their replies in that order.

        They are not one transaction: each is atomic by itself. Scripts unknown to the store (it
        restarted) are sent once more with their source.

        Raises:
            StoreUnavailable, StoreFull, ScriptFailed: of the first that failed; others may
            have run.
        """
        if not calls:
            return []
        if len(calls) == 1:
            return [await self.run(calls[0])]
        async with self._bounded(calls[0].script.name):
            return await self._known(calls)

    @asynccontextmanager
    async def _bounded(self, step: str) -> AsyncIterator[None]:
        """Give up at the deadline; the retries of the driver alone would take up to a minute."""
        began = time.monotonic()
        outcome: Outcome | None = None
        try:
            with translated(step):
                async with asyncio.timeout(self._deadline):
                    yield
            outcome = "answered"
        except StoreUnavailable:
            outcome = "unavailable"
            raise
        except StoreFull:
            outcome = "full"
            raise
        except StoreError:
            outcome = "failed"
            raise
        finally:
            if outcome is not None:
                self._observe(time.monotonic() - began, outcome)

    async def command(self, *words: Argument) -> Any:
        """Run one command that is no transition, such as INFO; return its reply.

        Raises:
            StoreUnavailable: no answer.
            ScriptFailed: the server refused it.
        """
        async with self._bounded(str(words[0])):
            return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _evalsha(self, call: Call) -> Any:
        return await self._client.evalsha(call.script.sha, 1, call.prefix, *call.args)

    async def _known(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts by digest, and those that the store does not know once more by source."""
        wait = self._wait_after(calls)
        replies, kept = await self._pipelined(calls, wait, by_digest=True)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            rest = [calls[at] for at in unknown]
            again, kept = await self._pipelined(rest, wait, by_digest=False)
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        # First whether it is kept: a refusal may lead the caller to what was written before.
        _raise_first([*kept, *replies])
        return replies

    async def _pipelined(
        self, calls: Sequence[Call], wait: float | None, *, by_digest: bool
    ) -> tuple[list[Any], list[Any]]:
        """Return what the scripts reply, and what is replied of a replica, for one round trip."""
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                if by_digest:
                    pipe.execute_command("EVALSHA", call.script.sha, 1, call.prefix, *call.args)
                else:
                    pipe.execute_command("EVAL", call.script.source, 1, call.prefix, *call.args)
            if wait is not None:
                _await_replica(pipe, wait, calls[-1].prefix)
            replies = await pipe.execute(raise_on_error=False)
        if wait is None:
            return replies, []
        *replies, marked, reached = replies
        if reached == 0:
            reason = f"{calls[0].script.name}: no replica had it within {wait:g} seconds"
            reached = StoreUnavailable(reason)
        return replies, [marked, reached]

    def _wait_after(self, calls: Sequence[Call]) -> float | None:
        if self._replica_wait is None or not any(call.script.writes for call in calls):
            return None
        return self._replica_wait

    @asynccontextmanager
    async def subscription(self, *channels: str) -> AsyncIterator[Subscription]:
        """Hold a subscription to `channels`, on a connection of its own.

        Iterating gives a channel for each message on it, and also when the store has begun to
        listen for it. The driver connects again by itself, and what was said before that moment
        is lost, so it is the time to read what the messages speak of.

        Raises:
            StoreUnavailable: also while iterating, when the connection is gone.
        """
        pubsub = self._client.pubsub()
        subscription = Subscription(pubsub)
        try:
            async with self._bounded("SUBSCRIBE"):
                await subscription.add(*channels)
            yield subscription
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def listen(
        self, channels: Collection[str], heard: Callable[[str], Awaitable[None]]
    ) -> None:
        """Call `heard` with the channel of each message, for ever, whatever becomes of connections.

        It is also called for each channel whenever listening begins: what was said before is lost,
        so it is the time to read what the messages speak of. What `heard` raises as `StoreError`
        begins the listening anew.
        """
        again = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=2),
            retry=retry_if_exception_type((StoreError, OSError)),
        )
        async for attempt in again:
            with attempt:
                async with self.subscription(*channels) as subscription:
                    async for channel in subscription:
                        await heard(channel)

    async def hash_names(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Yield the names of hashes that match the glob `pattern`, about `count` at a time.

        Each that is there all the while is yielded at least once, perhaps more often; of one that
        comes or goes meanwhile, nothing is known.

        Raises:
            StoreUnavailable: beginning anew is safe.
        """
        cursor = 0
        while True:
            async with self._bounded("SCAN"):
                cursor, names = await self._client.scan(
                    cursor, match=pattern, count=count, _type="HASH"
                )
            yield cast("list[bytes]", names)
            if cursor == 0:
                return

    async def ready(self, patience: float) -> None:
        """Wait until the store answers, at most `patience` seconds.

        Raises:
            StoreUnavailable: it did not.
        """
        waiting = AsyncRetrying(
            stop=stop_after_delay(patience),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            retry=retry_if_exception_type((RedisError, OSError)),
            reraise=True,
        )
        with translated("PING"):
            async with asyncio.timeout(patience):
                await waiting(self._ping)

    async def _ping(self) -> None:
        await self._client.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def connect(
    url: str, *, max_connections: int, socket_timeout: float, replica_wait: float | None = None
) -> Store:
    """Return the store at `url`; connects at first use.

    Args:
        url: where it is, with credentials and a CA file if needed: `redis://`, `rediss://`,
            `unix://`, or the Sentinels that know, see `config.sentinels`.
        max_connections: bound of the pool; callers wait for a free one.
        socket_timeout: seconds until a silent server counts as gone.
        replica_wait: seconds within which a replica must have what was written, fewer than
            `socket_timeout`; None asks for no replica.
    """
    make = sentinel_pool if url.startswith(SENTINEL_SCHEMES) else BlockingConnectionPool.from_url
    pool = make(
        url,
        max_connections=max_connections,
        timeout=socket_timeout,
        socket_timeout=socket_timeout,
        socket_connect_timeout=socket_timeout,
        protocol=2,
        # A reply that never came is asked for again at once: scripts are safe to run twice.
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=3),
    )
    return Store(Redis.from_pool(pool), _TIMEOUTS_A_CALL * socket_timeout, replica_wait)


_TIMEOUTS_A_CALL = 2
"""How many silences a call outlasts: one to notice, one more to ask again."""
