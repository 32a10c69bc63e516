"""Look-ups: shared, bounded, and delayed by nobody else's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, cast

import pytest
from aiohttp.abc import ResolveResult

from delivery.egress import Policy
from delivery.resolver import AresLookup, PolicyResolver
from tests.delivery.sending import (
    PUBLIC,
    fails_with,
    transport_for,
)

if TYPE_CHECKING:
    pass


async def test_one_look_up_serves_everybody_and_survives_who_gives_up() -> None:
    asked: list[str] = []
    begun = asyncio.Event()
    answer: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def lookup(host: str) -> Sequence[str]:
        asked.append(host)
        begun.set()
        return await answer

    resolver = PolicyResolver(lookup, Policy())
    first, *others = [asyncio.ensure_future(resolver.resolve("h.example", 443)) for _ in range(5)]
    await begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answer.set_result([PUBLIC])
    for result in await asyncio.gather(*others):
        assert [found["host"] for found in result] == [PUBLIC]
    assert asked == ["h.example"]


async def test_a_failed_look_up_nobody_waits_for_leaves_no_trace() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def lookup(host: str) -> Sequence[str]:
        begun.set()
        await end.wait()
        raise OSError(None, "no such name")

    resolver = PolicyResolver(lookup, Policy())
    waiter = asyncio.ensure_future(resolver.resolve("h.example"))
    await begun.wait()
    waiter.cancel()
    end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    with pytest.raises(OSError, match="no such name"):
        await resolver.resolve("h.example")
    await resolver.close()


@pytest.mark.parametrize(
    "answers",
    [pytest.param([], id="none"), pytest.param([PUBLIC] * 65, id="too-many")],
)
async def test_an_odd_number_of_addresses_is_a_dns_failure(answers: list[str]) -> None:
    async def lookup(host: str) -> Sequence[str]:
        return answers

    async with transport_for(Policy(), lookup) as transport:
        assert await fails_with(transport, "https://h.example/") == "dns"


async def test_a_look_up_ends_at_its_deadline() -> None:
    async def lookup(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    resolver = PolicyResolver(lookup, Policy(), deadline=0.05)
    with pytest.raises(OSError, match="too long"):
        await resolver.resolve("h.example")


async def test_look_ups_are_bounded_and_the_wait_counts() -> None:
    running: list[str] = []

    async def lookup(host: str) -> Sequence[str]:
        running.append(host)
        await asyncio.Event().wait()
        raise AssertionError

    resolver = PolicyResolver(lookup, Policy(), deadline=0.05, max_lookups=2)
    results = await asyncio.gather(
        *(resolver.resolve(f"h{number}.example") for number in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, OSError) for result in results)
    assert running == ["h0.example", "h1.example"]


class NameServer(asyncio.DatagramProtocol):
    """Answers A queries for one name with one address, others with silence or NXDOMAIN."""

    def __init__(self) -> None:
        self.silenced = asyncio.Semaphore(0)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        question, kind = data[12:end], data[end - 4 : end - 2]
        if question.startswith(b"\x05hangs"):
            self.silenced.release()
            return
        found = question.startswith(b"\x04good")
        answers = found and kind == b"\0\x01"
        flags = b"\x81\x80" if found else b"\x81\x83"
        record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + socket.inet_aton(PUBLIC)
        reply = data[:2] + flags + b"\0\x01" + (b"\0\x01" if answers else b"\0\0") + b"\0\0\0\0"
        assert self.transport is not None
        self.transport.sendto(reply + question + (record if answers else b""), addr)


@pytest.fixture
async def name_server() -> AsyncIterator[tuple[NameServer, AresLookup]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, ("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    lookup = AresLookup([f"127.0.0.1:{port}"])
    yield server, lookup
    await lookup.close()
    transport.close()


async def test_c_ares_finds_a_name(name_server: tuple[NameServer, AresLookup]) -> None:
    _, lookup = name_server
    assert list(await lookup("good.example")) == [PUBLIC]
    with pytest.raises(OSError, match="failed"):
        await lookup("bad.example")


async def test_names_that_never_answer_delay_nobody(
    name_server: tuple[NameServer, AresLookup],
) -> None:
    server, lookup = name_server
    resolver = PolicyResolver(lookup, Policy())
    hanging: list[asyncio.Future[list[ResolveResult]]] = []
    while len(hanging) < 1_000:
        name = f"hangs.n{len(hanging)}.example"
        hanging.append(asyncio.ensure_future(resolver.resolve(name)))
        for _ in ("A", "AAAA"):
            await server.silenced.acquire()
    found = await resolver.resolve("good.example")
    assert [result["host"] for result in found] == [PUBLIC]
    assert not hanging[-1].done()
    await resolver.close()
    await asyncio.gather(*hanging, return_exceptions=True)
