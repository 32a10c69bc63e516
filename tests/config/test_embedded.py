"""The embedded stores: real servers, killed and damaged."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from config.embedded import (
    DataDirectory,
    DirectoryBusy,
    DirectoryForeign,
    EmbeddedServer,
    EmbeddedStores,
)
from tests.processes import PATIENCE, eventually

MAXMEMORY = 64 * 2**20

Start = Callable[[EmbeddedServer], subprocess.Popen[str]]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    with DataDirectory(tmp_path / "data") as directory:
        yield directory


@pytest.fixture
def stores(directory: DataDirectory) -> Iterator[EmbeddedStores]:
    stores = EmbeddedStores(directory)
    yield stores
    stores.close()


@pytest.fixture
def start(stores: EmbeddedStores) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(server: EmbeddedServer) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            server.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def await_answer(server: EmbeddedServer, process: subprocess.Popen[str]) -> None:
    assert eventually(lambda: server.answers() or process.poll() is not None)
    assert process.poll() is None


def test_the_durable_store_keeps_what_it_answered_across_a_kill(
    stores: EmbeddedStores, start: Start
) -> None:
    server = stores.durable(maxmemory_bytes=MAXMEMORY)
    first = start(server)
    await_answer(server, first)
    with Redis.from_url(server.url) as client:
        assert client.set("kept", "yes")
        server_pid = int(client.info("server")["process_id"])
        os.kill(server_pid, signal.SIGKILL)
    assert first.wait(PATIENCE) == 128 + signal.SIGKILL
    await_answer(server, start(server))
    with Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_the_durable_store_is_configured_to_keep(stores: EmbeddedStores, start: Start) -> None:
    server = stores.durable(maxmemory_bytes=MAXMEMORY)
    await_answer(server, start(server))
    with Redis.from_url(server.url) as client:
        assert (
            client.config_get()
            | {
                "appendonly": "yes",
                "appendfsync": "always",
                "maxmemory": str(MAXMEMORY),
                "maxmemory-policy": "noeviction",
                "hash-max-listpack-value": "1024",
                "save": "",
                "port": "0",
            }
            == client.config_get()
        )


def fill(client: Redis) -> int:
    """Writes values of 1 MiB until one is refused; how many were not."""
    for written in range(64):
        try:
            client.set(f"key{written}", bytes(2**20))
        except OutOfMemoryError:
            return written
    raise AssertionError("nothing was refused")


def test_a_full_store_refuses_and_evicts_nothing(stores: EmbeddedStores, start: Start) -> None:
    server = stores.durable(maxmemory_bytes=16 * 2**20)
    await_answer(server, start(server))
    with Redis.from_url(server.url) as client:
        written = fill(client)
        assert 0 < written < 16
        assert client.dbsize() == written


def test_the_soft_store_writes_nothing(
    stores: EmbeddedStores, start: Start, directory: DataDirectory
) -> None:
    server = stores.soft()
    process = start(server)
    await_answer(server, process)
    with Redis.from_url(server.url) as client:
        assert client.set("gone", "soon")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert [path.name for path in (directory.path / "soft").iterdir()] == ["lock"]


def test_both_are_ours_alone(
    stores: EmbeddedStores, start: Start, directory: DataDirectory
) -> None:
    servers = stores.durable(maxmemory_bytes=MAXMEMORY), stores.soft()
    for server in servers:
        await_answer(server, start(server))
    assert servers[0].url == stores.durable_url
    assert servers[1].url == stores.soft_url
    for path in (directory.path, directory.path / "durable", servers[0].socket.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for server in servers:
        assert len(str(server.socket)) < 104


def test_damaged_files_are_refused_with_the_servers_own_words(
    stores: EmbeddedStores, start: Start, directory: DataDirectory
) -> None:
    server = stores.durable(maxmemory_bytes=MAXMEMORY)
    process = start(server)
    await_answer(server, process)
    with Redis.from_url(server.url) as client:
        client.set("a", "b")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    for part in (directory.path / "durable" / "appendonlydir").glob("*.incr.aof"):
        part.write_bytes(b"not what it was\n" + part.read_bytes())
    again = start(server)
    said, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 1
    assert "Bad file format" in said


def test_a_directory_has_one_run(directory: DataDirectory) -> None:
    with pytest.raises(DirectoryBusy, match=str(directory.path)):
        DataDirectory(directory.path)


def test_a_closed_directory_can_be_had_again(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data").close()
    with DataDirectory(tmp_path / "data") as again:
        assert again.path == tmp_path / "data"


HOLDER = """
import sys, time
from pathlib import Path
from config.embedded import DataDirectory
held = DataDirectory(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(DirectoryBusy):
        DataDirectory(tmp_path / "data")
    holder.kill()
    holder.communicate()
    DataDirectory(tmp_path / "data").close()


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("private")
    tmp_path.chmod(0o755)
    with pytest.raises(DirectoryForeign, match="empty directory"):
        DataDirectory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryForeign, match="cannot use"):
        DataDirectory(tmp_path / "file")


def test_sockets_of_a_killed_run_are_removed(directory: DataDirectory) -> None:
    killed = EmbeddedStores(directory)
    left_behind = killed.soft().socket
    left_behind.touch()
    following = EmbeddedStores(directory)
    assert not left_behind.parent.exists()
    following.close()
    assert not following.soft().socket.parent.exists()
