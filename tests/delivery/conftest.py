"""A receiver that behaves as badly as a script says, over real loopback sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from config.store import Store
from delivery.egress import Policy
from tests.delivery.replay_side import Side, side_of

Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers one request; the connection is kept while the script keeps it."""


@dataclass(slots=True)
class Receiver:
    """A server on 127.0.0.1 that reads whole requests and answers each by its script."""

    script: Script
    port: int = 0
    connections: int = 0
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                self.requests.append((head, body))
                await self.script(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def end(self) -> None:
        """Cancel every connection still served."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class StartReceiver(Protocol):
    async def __call__(self, script: Script, tls: ssl.SSLContext | None = None) -> Receiver: ...


@pytest.fixture
async def start_receiver() -> AsyncIterator[StartReceiver]:
    """Start receivers that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(script: Script, tls: ssl.SSLContext | None = None) -> Receiver:
            receiver = Receiver(script)
            server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
            receiver.port = server.sockets[0].getsockname()[1]
            stack.push_async_callback(receiver.end)
            stack.callback(server.close)
            return receiver

        yield start


@pytest.fixture
def loopback() -> Policy:
    """The policy of a development profile."""
    return Policy(allow_http=True, allow_loopback=True, ports=None)


@pytest.fixture
def side(store: Store, partitions: int) -> Side:
    """Return deliveries, and what replays them."""
    return side_of(store, partitions)
