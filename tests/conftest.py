"""What every test may use: real stores, started once, empty for each test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.embedded import DataDirectory, EmbeddedServer, EmbeddedStores
from config.settings import environment
from config.store import Store, connect
from tests.processes import eventually

pytest_plugins = ["tests.gateway.served"]


def pytest_configure() -> None:
    """Hear Ctrl-C, and let what the tests start hear it.

    A shell starts what runs in its background deaf to SIGINT (POSIX, 2.11 Signals and Error
    Handling), and every process would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStores:
    """Where the two embedded stores listen."""

    durable_url: str
    soft_url: str


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStores]:
    """Both embedded stores, for the whole run."""
    with DataDirectory(tmp_path_factory.mktemp("stores") / "data") as directory:
        embedded = EmbeddedStores(directory)
        servers = [embedded.durable(maxmemory_bytes=256 * 2**20), embedded.soft()]
        running = [_start(server, directory.path) for server in servers]
        try:
            for server in servers:
                assert eventually(server.answers)
            yield RunningStores(durable_url=servers[0].url, soft_url=servers[1].url)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(10)
            embedded.close()


def _start(server: EmbeddedServer, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / f"{server.socket.name}.log").open("wb") as log:
        return subprocess.Popen(server.command, stdout=log, stderr=log, env=environment())


@pytest.fixture
async def store(stores: RunningStores) -> AsyncIterator[Store]:
    """The durable store, empty."""
    connected = connect(stores.durable_url, max_connections=16, socket_timeout=5)
    await connected.client.flushall()
    yield connected
    await connected.close()


@pytest.fixture(params=[1, 4], ids=["one-partition", "four-partitions"])
def partitions(request: pytest.FixtureRequest) -> int:
    """How many partitions the store has."""
    return int(request.param)
