"""What is written counts once a replica has it: the store on two real servers."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from importlib import resources

import pytest

from config.errors import StoreFull, StoreUnavailable
from config.scripts import Call, Script, load_script, partition_prefix
from config.store import Store, connect
from tests.processes import eventually
from tests.replicas import Pair, pair

WAIT = 0.3


def script_of(line: str, flags: str = " flags=allow-oom", *, writes: bool = True) -> Script:
    source = f"#!lua{flags}\n{line}"
    digest = hashlib.sha1(source.encode()).hexdigest()
    return Script(name="a script", source=source, sha=digest, writes=writes)


ONCE = script_of("return redis.call('SETNX', KEYS[1] .. ARGV[1], '1')")
"""Writes when it is run first, and nothing when it is run again."""
REFUSED_WHEN_FULL = script_of("return redis.call('SETNX', KEYS[1] .. ARGV[1], '1')", "")
READ = script_of(
    "return redis.call('EXISTS', KEYS[1] .. ARGV[1])", " flags=no-writes", writes=False
)


def call(script: Script, name: str, partition: int = 0) -> Call:
    return Call(script, partition_prefix(partition), (name,))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with pair(tmp_path_factory.mktemp("pair")) as both:
        yield both


@pytest.fixture
async def store(servers: Pair) -> AsyncIterator[Store]:
    """The primary, empty; what is written there waits for the replica."""
    connected = connect(servers.primary.url, max_connections=4, socket_timeout=5, replica_wait=WAIT)
    await connected.client.flushall()
    await connected.client.script_flush()
    assert eventually(servers.is_followed)
    yield connected
    await connected.close()


def is_on_the_replica(servers: Pair, *names: str) -> bool:
    with servers.replica.connection() as client:
        return all(client.exists(partition_prefix(0) + name) for name in names)


async def test_what_is_answered_is_on_the_replica(store: Store, servers: Pair) -> None:
    for at in range(50):
        assert await store.run(call(ONCE, f"one-{at}")) == 1
        assert is_on_the_replica(servers, f"one-{at}")


async def test_scripts_of_one_round_trip_are_on_the_replica(store: Store, servers: Pair) -> None:
    names = [f"many-{at}" for at in range(10)]
    assert await store.run_all([call(ONCE, name) for name in names]) == [1] * 10
    assert is_on_the_replica(servers, *names)


async def test_scripts_that_the_server_forgot_are_on_the_replica(
    store: Store, servers: Pair
) -> None:
    calls = [call(ONCE, "a"), call(READ, "a"), call(REFUSED_WHEN_FULL, "b"), call(ONCE, "a")]
    assert await store.run(call(READ, "a")) == 0
    # What it knows comes first.
    assert await store.run_all(calls) == [1, 0, 1, 0]
    assert is_on_the_replica(servers, "a", "b")


async def test_nothing_counts_while_no_replica_has_it(store: Store, servers: Pair) -> None:
    with servers.replica.paused():
        # The second time it writes nothing, and on a connection that never wrote anything.
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match=r"no replica had it within 0\.3 seconds"):
                await store.run(call(ONCE, "late"))
            with pytest.raises(StoreUnavailable, match="no replica"):
                await store.run_all([call(READ, "late"), call(ONCE, "late")])
            await store.client.connection_pool.disconnect()
        assert await store.run(call(READ, "late")) == 1
        assert await store.run_all([call(READ, "late")] * 2) == [1, 1]
    assert eventually(servers.is_followed)
    assert await store.run(call(ONCE, "late")) == 0
    assert is_on_the_replica(servers, "late")


async def test_a_server_that_counts_its_replicas_refuses_at_once(
    store: Store, servers: Pair
) -> None:
    await store.client.config_set("min-replicas-to-write", 2)
    try:
        with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
            await store.run(call(ONCE, "refused"))
    finally:
        await store.client.config_set("min-replicas-to-write", 0)
    assert await store.run(call(READ, "refused")) == 0
    assert await store.run(call(ONCE, "refused")) == 1


async def test_what_asks_for_no_replica_waits_for_none(store: Store, servers: Pair) -> None:
    other = connect(servers.primary.url, max_connections=1, socket_timeout=5)
    with servers.replica.paused():
        assert await other.run(call(ONCE, "alone")) == 1
        assert await other.run_all([call(ONCE, "alone"), call(ONCE, "more")]) == [0, 1]
    await other.close()


async def test_a_refusal_of_a_full_store_speaks_of_what_the_replica_has(
    store: Store, servers: Pair
) -> None:
    limit = (await store.client.config_get("maxmemory"))["maxmemory"]
    await store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull):
            await store.run(call(REFUSED_WHEN_FULL, "no-room"))
        # A first try that nobody heard of may have written; whoever looks now must not find it.
        with servers.replica.paused(), pytest.raises(StoreUnavailable, match="no replica"):
            await store.run(call(REFUSED_WHEN_FULL, "no-room"))
        assert eventually(servers.is_followed)
        # What was begun goes on.
        assert await store.run(call(ONCE, "room")) == 1
    finally:
        await store.client.config_set("maxmemory", limit or 0)


async def test_a_primary_that_is_deposed_has_not_kept_it(store: Store, servers: Pair) -> None:
    patient = connect(servers.primary.url, max_connections=1, socket_timeout=30, replica_wait=20)

    async def somebody_waits() -> bool:
        return int((await store.client.info("clients"))["blocked_clients"]) > 0

    with servers.primary.connection() as client:
        try:
            with servers.replica.paused():
                waiting = asyncio.create_task(patient.run(call(ONCE, "deposed")))
                async with asyncio.timeout(20):
                    while not await somebody_waits():  # noqa: ASYNC110  the server gives no signal
                        await asyncio.sleep(0.01)
                client.replicaof("127.0.0.1", "1")
                with pytest.raises(StoreUnavailable):
                    await waiting
                with pytest.raises(StoreUnavailable):
                    await store.run(call(ONCE, "after"))
        finally:
            client.replicaof("NO", "ONE")
    await patient.close()


def _scripts() -> list[tuple[str, str]]:
    return [
        (package, path.name.removesuffix(".lua"))
        for package in ("config", "delivery", "gateway")
        for path in resources.files(package).joinpath("lua").iterdir()
        if path.read_text("utf-8").startswith("#!lua")
    ]


@pytest.mark.parametrize(("package", "name"), _scripts())
def test_scripts_write_unless_they_say_otherwise(package: str, name: str) -> None:
    script = load_script(package, name)
    said = re.findall(r"[a-z-]+", script.source.partition("\n")[0])
    assert script.writes is ("no-writes" not in said)
