"""What is measured runs in: stores of its own, a sink, and the gateway's processes, one by one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.embedded import DataDirectory, EmbeddedServer, EmbeddedStores
from config.ids import random_bytes
from config.parent import PARENT_FD
from config.settings import Settings, environment, load_settings
from config.store import Store, connect
from scripts.supervise import last_lines
from tests.bench.machine import child_of

ROOT = Path(__file__).resolve().parent.parent.parent
API_KEY = "gwk_a-key-for-the-benchmark-only"
PATIENCE = 60.0
"""Seconds until something that should happen at once counts as not happening."""

_STORE_BYTES = 8 * 2**30


class BenchError(Exception):
    """A figure cannot be measured; the message says which step failed."""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """Stores that run, and where everything else is started from.

    Attributes:
        folder: for files and logs, gone at the end.
        store: the durable store; every write is flushed to disk before it is answered.
        store_pid: its server process.
        soft_url: the other store.
        environ: variables of the gateway's processes, for stores and secrets of this run.
        running: what has been started, by name; none of it ends by itself.
    """

    folder: Path
    store: Store
    store_pid: int
    soft_url: str
    environ: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def settings(self, **variables: str) -> Settings:
        """Return the settings that a process started with `variables` has."""
        return load_settings({**self.environ, **variables})

    async def empty(self) -> None:
        """Forget all that is in the durable store, its file on disk included."""
        await self.store.client.flushall()
        await self.store.client.bgrewriteaof()
        await self.settled()

    async def kept_bytes(self) -> int:
        """Return the bytes of what the durable store keeps, without those of its connections."""
        info = await self.store.client.info("memory")
        return int(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])

    async def settled(self) -> None:
        """Wait until the store does not rewrite its file, which it does by itself as that grows."""
        await self.until(self._rewritten, "the store's file is not rewritten")

    async def _rewritten(self) -> bool:
        info = await self.store.client.info("persistence")
        return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]

    async def until(
        self,
        holds: Callable[[], Awaitable[bool]],
        otherwise: str,
        *,
        patience: float = PATIENCE,
        every: float = 0.05,
    ) -> None:
        """Look until it holds.

        Raises:
            BenchError: it did not within `patience` seconds; says `otherwise`.
        """
        try:
            async with asyncio.timeout(patience):
                while not await holds():
                    self._check()
                    await asyncio.sleep(every)
        except TimeoutError:
            raise BenchError(f"{otherwise} after {patience:.0f} s") from None

    @contextmanager
    def process(
        self, name: str, command: Sequence[str], **variables: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a process inside the block; its log is `<name>.log`."""
        with (self.folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(int(self.environ[PARENT_FD]),),
                start_new_session=True,
            )
        self.running[name] = started
        try:
            yield started
        finally:
            del self.running[name]
            _end(started)

    def _check(self) -> None:
        for name, process in self.running.items():
            if process.poll() is not None:
                said = "\n".join(last_lines(self.folder / f"{name}.log"))
                raise BenchError(f"{name} ended with code {process.returncode}:\n{said}")

    def delivery(self, **variables: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a delivery process inside the block."""
        return self.process("delivery", _python("delivery"), **variables)


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", *arguments]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started, in order if it does that soon."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@asynccontextmanager
async def surroundings() -> AsyncIterator[Surroundings]:
    """Start stores and forget them afterwards."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        directory = stack.enter_context(DataDirectory(folder / "data"))
        stores = EmbeddedStores(directory)
        stack.callback(stores.close)
        durable = stores.durable(maxmemory_bytes=_STORE_BYTES)
        soft = stores.soft()
        read_end, write_end = os.pipe()
        stack.callback(os.close, read_end)
        stack.callback(os.close, write_end)
        environ = _environ(folder, durable, soft, read_end)
        guardian = _start_server(durable, folder / "durable.log", environ, stack)
        _start_server(soft, folder / "soft.log", environ, stack)
        store = connect(durable.url, max_connections=256, socket_timeout=60)
        stack.push_async_callback(store.close)
        made = Surroundings(
            folder=folder, store=store, store_pid=0, soft_url=soft.url, environ=environ
        )

        async def both_answer() -> bool:
            return durable.answers() and soft.answers()

        await made.until(both_answer, "the stores do not answer")
        made.store_pid = child_of(guardian.pid)
        yield made


def _start_server(
    server: EmbeddedServer, log: Path, environ: Mapping[str, str], stack: AsyncExitStack
) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        started = subprocess.Popen(
            server.command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(int(environ[PARENT_FD]),),
            start_new_session=True,
        )
    stack.callback(_end, started)
    return started


def _environ(
    folder: Path, durable: EmbeddedServer, soft: EmbeddedServer, read_end: int
) -> dict[str, str]:
    inherited = {
        name: value for name, value in environment().items() if not name.startswith("GATEWAY_")
    }
    (folder / "artifacts").mkdir()
    return inherited | {
        "PYTHONPATH": str(ROOT),
        PARENT_FD: str(read_end),
        "GATEWAY_PROFILE": "development",
        "GATEWAY_STORE_URL": durable.url,
        "GATEWAY_BROKER_URL": soft.url,
        "GATEWAY_ARTIFACTS_URL": (folder / "artifacts").as_uri(),
        "GATEWAY_SEALING_KEYS": "bench:" + base64.b64encode(random_bytes(32)).decode(),
        "GATEWAY_BOOTSTRAP_API_KEY": API_KEY,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkHandle:
    """The sink, in its own process.

    Attributes:
        places: `host:port` of each receiver.
    """

    places: Sequence[str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def tell(self, **wish: Any) -> dict[str, Any]:
        """Say one control line; see `tests.bench.sink`."""
        self.writer.write(json.dumps(wish).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer

    async def count(self) -> int:
        """Return how many requests have arrived since the last reset."""
        return int((await self.tell(look=True))["count"])


@asynccontextmanager
async def sink(receivers: int) -> AsyncIterator[SinkHandle]:
    """Run a sink inside the block."""
    process = await asyncio.create_subprocess_exec(
        *_python("tests.bench.sink", str(receivers)),
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**30,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(await process.stdout.readline())
        yield SinkHandle(places=said["places"], reader=process.stdout, writer=process.stdin)
    finally:
        process.stdin.close()
        await process.wait()
