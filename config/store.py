"""The connection to a store and the scripts that run in it.

A store's every change is one Lua script, kept as `lua/<transition>.lua` in the package that owns
the transition. A line `-- include: <name>` is replaced by the fragment `lua/<name>.lua` of that
package, or of another by `-- include: <package>/<name>`; a fragment is included once however often
it is named.

What a script changed counts once it is kept: by the server that answered, or, where the store was
connected to with `replica_wait`, by one more that follows it. A script that says of itself that it
does not write (`no-writes` in its first line, which the server enforces) waits for nobody.

Errors:
    StoreError: the root.
        StoreUnavailable: no answer, or no replica that follows; the script may have run, so ask
            again with the same arguments.
        StoreFull: the store is at its memory limit and refused an admission; nothing was written.
        ScriptFailed: the script raised; a fault in our code or a wrong key's content.
        PartitionsDiffer: the store was made with another number of partitions.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import ceil
from typing import Any, Literal, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from config.sections import SENTINEL_SCHEMES
from config.sentinels import sentinel_pool

Argument = str | bytes | int | float

Outcome = Literal["answered", "unavailable", "full", "failed"]
"""What came of a call, for those who count them: an answer, or one of the errors."""

_READER = re.compile(r"#!lua flags=(?:[a-z-]+,)*no-writes\b")
_INCLUDE = re.compile(r"^-- include: (?:(?P<package>\w+)/)?(?P<name>\w+)\n", re.MULTILINE)


class StoreError(Exception):
    """The store did not do what was asked."""


class StoreUnavailable(StoreError):
    """No usable answer: whether the script ran is unknown, and asking again is safe."""


class StoreFull(StoreError):
    """The memory limit is reached: an admission was refused and nothing was written."""


class ScriptFailed(StoreError):
    """The script itself raised."""


class PartitionsDiffer(StoreError):
    """The store was made with another number of partitions than the settings ask for."""

    def __init__(self, *, kept: int, asked: int) -> None:
        super().__init__(
            f"store.partitions is {asked}, but this store was made with {kept}: "
            f"set it to {kept}, or start with an empty store"
        )


@dataclass(frozen=True, slots=True)
class Script:
    """One transition, ready to be run by its digest.

    Attributes:
        name: the package and the file.
        source: of it and of what it includes.
        sha: SHA-1 of the source, by which the server knows it.
        writes: whether it may change something.
    """

    name: str
    source: str
    sha: str
    writes: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A script with the partition it runs in and its arguments."""

    script: Script
    prefix: str
    args: Sequence[Argument]


@cache
def load_script(package: str, name: str) -> Script:
    """Return the script `lua/<name>.lua` of `package`, its includes resolved.

    Raises:
        FileNotFoundError: there is no such script or fragment.
    """
    source = _assemble(package, name, set())
    return Script(
        name=f"{package}/{name}",
        source=source,
        sha=hashlib.sha1(source.encode()).hexdigest(),  # noqa: S324
        writes=_READER.match(source) is None,
    )


def _assemble(package: str, name: str, seen: set[tuple[str, str]]) -> str:
    text = resources.files(package).joinpath("lua", f"{name}.lua").read_text("utf-8")

    def include(match: re.Match[str]) -> str:
        fragment = (match["package"] or package, match["name"])
        if fragment in seen:
            return ""
        seen.add(fragment)
        return _assemble(*fragment, seen)

    return _INCLUDE.sub(include, text)


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


def partition_prefix(partition: int) -> str:
    """Return what every key of `partition` begins with; its hash tag keeps them in one slot."""
    return f"gw:{{p{partition:02d}}}:"


def pairs(flat: Iterable[bytes]) -> dict[str, bytes]:
    """Return a hash from the flat list of names and values that a script replies with."""
    names = iter(flat)
    return {name.decode(): value for name, value in zip(names, names, strict=True)}


META_PREFIX = "gw:{meta}:"
"""What the few keys begin with that belong to no partition."""

_PARTITIONS = f"{META_PREFIX}partitions"


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
            StoreUnavailable, StoreFull, ScriptFailed: see the module.
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
            with _translated(step):
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
        with _translated("PING"):
            async with asyncio.timeout(patience):
                await waiting(self._ping)

    async def _ping(self) -> None:
        await self._client.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class Subscription:
    """Channels listened to over one connection; iterating gives the channel of each message."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub

    async def add(self, *channels: str) -> None:
        """Listen to more channels.

        Raises:
            StoreUnavailable: the connection is gone.
        """
        with _translated("SUBSCRIBE"):
            await self._pubsub.subscribe(*channels)

    async def drop(self, *channels: str) -> None:
        """Listen to these channels no longer.

        Raises:
            StoreUnavailable: the connection is gone.
        """
        with _translated("UNSUBSCRIBE"):
            await self._pubsub.unsubscribe(*channels)

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the channel of each message, for ever."""
        silent = 0
        while True:
            with _translated("SUBSCRIBE"):
                message = await self._pubsub.get_message(timeout=_LISTEN)
                if message is None:
                    # Nothing may have happened, or the connection is gone and nobody said so.
                    silent += 1
                    if silent > 1:
                        raise StoreUnavailable("SUBSCRIBE: the store fell silent")
                    await self._pubsub.ping()
                    continue
            silent = 0
            if message["type"] in {"subscribe", "message"}:
                yield message["channel"].decode()


_LISTEN = 30.0
"""Seconds that one read of a subscription waits."""


async def agree_on_partitions(store: Store, partitions: int) -> None:
    """Write the number of partitions into a new store, or demand that it is the one written there.

    Every identifier names its partition, so another number would look for objects where they are
    not.

    Raises:
        PartitionsDiffer: the store was made with another number.
        StoreUnavailable: no answer.
    """
    with _translated("SET"):
        await store.client.set(_PARTITIONS, partitions, nx=True)
    kept = await kept_partitions(store)
    if kept is not None and kept != partitions:
        raise PartitionsDiffer(kept=kept, asked=partitions)


async def kept_partitions(store: Store) -> int | None:
    """Return the number of partitions that the store was made with; None for a new one.

    Raises:
        StoreUnavailable: no answer.
    """
    with _translated("GET"):
        kept = await store.client.get(_PARTITIONS)
    return None if kept is None else int(kept)


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


class _translated:  # noqa: N801
    """Turns the driver's errors into ours, once, where they leave this module."""

    def __init__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case OutOfMemoryError():
                raise StoreFull(self._step) from error
            case ResponseError() if str(error).startswith("OOM"):
                raise StoreFull(self._step) from error
            case BusyLoadingError() | ConnectionError() | TimeoutError() | OSError():
                reason = str(error) or "no answer in time"
                raise StoreUnavailable(f"{self._step}: {reason}") from error
            case ReadOnlyError() | ClusterDownError() | TryAgainError():
                raise StoreUnavailable(f"{self._step}: {error}") from error
            case ResponseError() if str(error).startswith(_PASSING):
                raise StoreUnavailable(f"{self._step}: {error}") from error
            case RedisError():
                raise ScriptFailed(f"{self._step}: {error}") from error
            case _:
                return


_PASSING = ("BUSY", "NOREPLICAS", "MISCONF", "UNBLOCKED", "WAIT cannot")
"""Refusals that pass, and that the driver has no class for.

The last two are of a server that became a replica while somebody waited, or was about to.
"""
