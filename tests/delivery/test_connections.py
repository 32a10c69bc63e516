"""Connections: kept, bounded, counted, and hung up on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import uvloop

from delivery import engine
from delivery.egress import Policy
from tests.delivery.sending import (
    OK,
    fails_with,
    post,
    replies,
    transport_for,
)

if TYPE_CHECKING:
    from tests.delivery.conftest import Script, StartReceiver


async def test_times_tell_a_new_connection_from_a_kept_one(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(replies(OK))
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        first = (await post(transport, url)).extensions
        second = (await post(transport, url)).extensions
    assert 0 < first["connect"] <= first["first_byte"]
    assert second["connect"] is None
    assert second["first_byte"] > 0


async def test_idle_connections_are_kept_up_to_the_bound(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receivers = [await start_receiver(replies(OK)) for _ in range(4)]
    async with transport_for(loopback, connections=2) as transport:
        for receiver in receivers:
            await post(transport, f"http://127.0.0.1:{receiver.port}/")
        for receiver in receivers[2:]:
            await receiver.hung_up.wait()
        for receiver in receivers:
            await post(transport, f"http://127.0.0.1:{receiver.port}/")
    assert [receiver.connections for receiver in receivers] == [1, 1, 2, 2]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_closed_connections_do_not_count(
    new_loop: Callable[[], asyncio.AbstractEventLoop], loopback: Policy
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while head := await reader.readuntil(b"{}"):
            closes = b"/close" in head
            writer.write(OK.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n") if closes else OK)
            await writer.drain()
            if closes or b"/last" in head:
                break
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, transport_for(loopback, connections=2) as transport:
            for path in ("/close", "/close", "/close", "/kept", "/kept", "/last"):
                await post(transport, url + path)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    assert connections == 4


async def test_cancellation_passes_and_the_connection_goes(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    asked = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await writer.wait_closed()

    receiver = await start_receiver(script)
    async with transport_for(loopback) as transport:
        task = asyncio.ensure_future(post(transport, f"http://127.0.0.1:{receiver.port}/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        healthy = await start_receiver(replies(OK))
        await post(transport, f"http://127.0.0.1:{healthy.port}/")


async def test_a_closed_transport_says_so(loopback: Policy) -> None:
    async with transport_for(loopback) as transport:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await post(transport, "http://127.0.0.1:1/")


# Hung up on


def hangs_up_on(*numbers: int, after: bytes = b"") -> Script:
    """Answer requests, counted from 1, but for those of `numbers`: write `after` and hang up."""
    number = 0

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        if number in numbers:
            writer.write(after)
            writer.close()
        else:
            writer.write(OK)

    return script


async def test_a_request_that_crosses_a_hang_up_is_sent_once_more(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(hangs_up_on(2))
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        await post(transport, url)
        response = await post(transport, url)
    assert response.status_code == 200
    assert response.extensions["connect"] is not None
    assert (receiver.connections, len(receiver.requests)) == (2, 3)
    assert receiver.requests[1] == receiver.requests[2]


async def test_it_goes_over_a_new_connection_although_others_are_kept(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    both, gone = asyncio.Barrier(2), False

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal gone
        if gone and writer in old:
            writer.close()
            return
        old.append(writer)
        if len(old) <= 2:
            await both.wait()
        writer.write(OK)

    old: list[asyncio.StreamWriter] = []
    receiver = await start_receiver(script)
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        await asyncio.gather(post(transport, url), post(transport, url))
        gone = True
        response = await post(transport, url)
    assert response.status_code == 200
    assert receiver.connections == 3


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        pytest.param(hangs_up_on(2, 3), 3, id="twice"),
        pytest.param(hangs_up_on(2, after=b"HTTP/1.1 2"), 2, id="within-an-answer"),
        pytest.param(hangs_up_on(2, after=OK[:-1]), 2, id="within-a-body"),
    ],
)
async def test_any_other_hang_up_is_a_failure(
    script: Script, requests: int, start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(script)
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        await post(transport, url)
        assert await fails_with(transport, url) == "reset"
    assert len(receiver.requests) == requests


async def test_a_new_connection_that_is_hung_up_on_is_a_failure(
    start_receiver: StartReceiver, loopback: Policy
) -> None:
    receiver = await start_receiver(hangs_up_on(1))
    async with transport_for(loopback) as transport:
        assert await fails_with(transport, f"http://127.0.0.1:{receiver.port}/") == "reset"
    assert len(receiver.requests) == 1


async def test_a_hang_up_that_took_its_time_is_a_failure(
    start_receiver: StartReceiver, loopback: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CROSSING", 0.0)
    receiver = await start_receiver(hangs_up_on(2))
    async with transport_for(loopback) as transport:
        url = f"http://127.0.0.1:{receiver.port}/"
        await post(transport, url)
        assert await fails_with(transport, url) == "reset"
    assert len(receiver.requests) == 2
