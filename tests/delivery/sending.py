"""A transport for a test, and receivers that answer it in every way."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from delivery.connections import open_socket
from delivery.deadlines import Deadlines
from delivery.egress import Policy
from delivery.guard import AddressInfo
from delivery.resolver import PolicyResolver
from delivery.transport import AiohttpTransport, Gate, TransportFailed

if TYPE_CHECKING:
    from tests.delivery.conftest import Script

PUBLIC = "93.184.215.14"
"""An address that may be dialled, and that nothing in these tests reaches."""

FOR_EVER = 1_000.0
"""Seconds that no test takes."""


async def no_lookup(host: str) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


class Sockets:
    """A socket factory that notes each address it was asked for, and makes none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, address: AddressInfo) -> socket.socket:
        self.asked.append(address[4][0])
        raise OSError(errno.ENETUNREACH, "no network in this test")


@asynccontextmanager
async def transport_for(
    policy: Policy,
    lookup: Callable[[str], Awaitable[Sequence[str]]] = no_lookup,
    socket_factory: Callable[[AddressInfo], socket.socket] = open_socket,
    deadlines: Deadlines | None = None,
    connections: int = 512,
) -> AsyncIterator[AiohttpTransport]:
    resolver = PolicyResolver(lookup, policy)
    async with AiohttpTransport(
        gate=Gate.under(policy, resolver),
        deadlines=deadlines,
        connections=connections,
        socket_factory=socket_factory,
    ) as transport:
        yield transport
    await resolver.close()


async def post(transport: AiohttpTransport, url: str) -> httpx.Response:
    return await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))


async def fails_with(transport: AiohttpTransport, url: str) -> str:
    with pytest.raises(TransportFailed) as caught:
        await post(transport, url)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value.code


def replies(*chunks: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(chunks)

    return script


def replies_and_closes(*chunks: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(chunks)
        await writer.drain()
        writer.close()

    return script


def replies_for_ever(head: bytes, piece: bytes, pause: float = 0) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return script


async def resets(writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def never_answers(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
