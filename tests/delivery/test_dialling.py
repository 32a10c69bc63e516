"""What may be dialled: two gates, both on exactly the address that is used."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.transport import AiohttpTransport, Gate
from tests.delivery.sending import (
    OK,
    PUBLIC,
    Sockets,
    fails_with,
    post,
    replies,
    transport_for,
)

if TYPE_CHECKING:
    from tests.delivery.conftest import StartReceiver


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
        "[::1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
    ],
)
async def test_a_literal_is_denied_before_a_socket_is_made(host: str) -> None:
    sockets = Sockets()
    async with transport_for(Policy(), socket_factory=sockets) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, f"https://{host}/")
    assert sockets.asked == []


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        [PUBLIC, "::1"],
        ["2606:4700::1", "fe80::1"],
        [PUBLIC, "::ffff:8.8.8.8"],
        [PUBLIC, "not an address"],
    ],
    ids="+".join,
)
async def test_one_bad_record_denies_the_host(answers: list[str]) -> None:
    async def lookup(host: str) -> Sequence[str]:
        return answers

    sockets = Sockets()
    async with transport_for(Policy(), lookup, sockets) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == []


class Unchecked(AbstractResolver):
    """A resolver that lets everything through: what a hole in the first gate would look like."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's signature
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=0, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to release."""


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["10.0.0.1", "::1"], ["127.0.0.1", "10.0.0.1", "fe80::1"]]
)
async def test_the_second_gate_holds_without_the_first(addresses: list[str]) -> None:
    sockets = Sockets()
    async with AiohttpTransport(
        gate=Gate.under(Policy(), Unchecked(*addresses)), socket_factory=sockets
    ) as transport:
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == []


async def test_a_name_that_changes_is_looked_up_once_and_dialled_as_checked() -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def lookup(host: str) -> Sequence[str]:
        return answers.pop(0)

    sockets = Sockets()
    async with transport_for(Policy(), lookup, sockets) as transport:
        assert await fails_with(transport, "https://h.example/") == "connect"
        assert sockets.asked == [PUBLIC]
        assert len(answers) == 1
        with pytest.raises(DestinationDenied):
            await post(transport, "https://h.example/")
    assert sockets.asked == [PUBLIC]


async def test_localhost_needs_no_look_up(start_receiver: StartReceiver, loopback: Policy) -> None:
    receiver = await start_receiver(replies(OK))
    async with transport_for(loopback) as transport:
        response = await post(transport, f"http://localhost:{receiver.port}/")
    assert response.status_code == 200
