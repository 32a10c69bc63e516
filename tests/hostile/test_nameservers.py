"""The row of DNS, one step further out: name servers that belong to whoever names a callback.

Real look-ups by c-ares, of a name server on loopback that answers as each case says.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

import pytest

from delivery.egress import Policy
from delivery.errors import DestinationDenied
from delivery.resolver import AresLookup, PolicyResolver

PUBLIC, OTHER = "93.184.215.14", "93.184.215.15"
V6, LOOPBACK_V6 = "2606:4700::1111", "::1"
A, CNAME, AAAA = 1, 5, 28
QUESTION = b"\xc0\x0c"
"""The name that was asked for, by a pointer to it."""


def name(text: str) -> bytes:
    """Return a name as messages have it (RFC 1035, section 3.1)."""
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def record(kind: int, data: bytes, owner: bytes = QUESTION, length: int | None = None) -> bytes:
    """Return a resource record; `length` may lie."""
    size = len(data) if length is None else length
    return owner + struct.pack("!HHIH", kind, 1, 1, size) + data


def address(text: str, owner: bytes = QUESTION) -> bytes:
    """Return an A or AAAA record."""
    family, kind = (socket.AF_INET6, AAAA) if ":" in text else (socket.AF_INET, A)
    return record(kind, socket.inet_pton(family, text), owner)


def alias(to: str, owner: bytes = QUESTION) -> bytes:
    """Return a CNAME record."""
    return record(CNAME, name(to), owner)


Answers = dict[int, list[bytes]]
"""The records of the answer, by the type that is asked for; without one for a type, none."""

ELSEWHERE = name("elsewhere.example")

# By the first label of the name: what is answered, and what must come of it: addresses, `dns` for
# none, or `denied`.
CASES: dict[str, tuple[Answers, str | set[str]]] = {
    "plain": ({A: [address(PUBLIC)]}, {PUBLIC}),
    "both": ({A: [address(PUBLIC)], AAAA: [address(V6)]}, {PUBLIC, V6}),
    "nothing": ({}, "dns"),
    "loopback": ({A: [address("127.0.0.1")]}, "denied"),
    "mixed": ({A: [address(PUBLIC), address("10.0.0.1"), address(OTHER)]}, "denied"),
    "mixed-families": ({A: [address(PUBLIC)], AAAA: [address(LOOPBACK_V6)]}, "denied"),
    "mapped": ({AAAA: [address("::ffff:93.184.215.14")]}, "denied"),
    "translated": ({AAAA: [address("64:ff9b::5db8:d70e")]}, "denied"),
    "unspecified": ({A: [address("0.0.0.0")]}, "denied"),
    "last-of-many": (
        {A: [*(address(f"93.184.216.{last}") for last in range(20)), address("169.254.169.254")]},
        "denied",
    ),
    "the-same": ({A: [address(PUBLIC)] * 20}, {PUBLIC}),
    "alias": (
        {A: [alias("elsewhere.example"), address(PUBLIC, ELSEWHERE)]},
        {PUBLIC},
    ),
    "alias-inwards": (
        {A: [alias("elsewhere.example"), address("192.168.0.1", ELSEWHERE)]},
        "denied",
    ),
    "alias-of-itself": ({A: [alias("alias-of-itself.example")]}, "dns"),
    "alias-in-a-circle": (
        {
            A: [
                alias("elsewhere.example"),
                alias("alias-in-a-circle.example", ELSEWHERE),
            ]
        },
        "dns",
    ),
    "alias-of-localhost": ({A: [alias("localhost")]}, "dns"),
    "alias-of-an-address": ({A: [alias("127.0.0.1")]}, "dns"),
    "hundred-aliases": (
        {
            A: [
                *(
                    alias(f"n{at + 1}.example", QUESTION if at == 0 else name(f"n{at}.example"))
                    for at in range(100)
                ),
                address("10.0.0.1", name("n100.example")),
            ]
        },
        "denied or dns",
    ),
    "many": ({A: [address(f"93.184.216.{last}") for last in range(65)]}, "dns"),
    "very-many": (
        {A: [address(f"93.{second}.216.{last}") for second in range(16) for last in range(250)]},
        "dns",
    ),
    "lying-length": ({A: [record(A, socket.inet_aton(PUBLIC), length=400)]}, "dns"),
    "short-address": ({A: [record(A, b"\x7f\0\0")]}, "dns"),
    "long-address": ({A: [record(A, b"\x7f\0\0\1\1")]}, "dns"),
    "v4-as-v6": ({AAAA: [record(AAAA, socket.inet_aton("127.0.0.1"))]}, "dns"),
    "pointer-to-itself": ({A: [address(PUBLIC, b"\xc0\x2e")]}, "dns or addresses"),
    "no-record": ({A: [b"\xff" * 40]}, "dns"),
    "endless-name": ({A: [record(CNAME, b"\x3f" + b"a" * 63 + b"\xc0\x0c")]}, "dns"),
}


def reply(asked: bytes, answers: Answers, *, fits: bool) -> bytes:
    """Return the message that answers `asked`; cut, where it does not fit and has to."""
    end = asked.index(b"\0", 12) + 5
    kind = struct.unpack("!H", asked[end - 4 : end - 2])[0]
    records = answers.get(kind, [])
    body = b"".join(records)
    if fits and len(body) > 1_100:
        return asked[:2] + b"\x83\x80" + struct.pack("!HHHH", 1, 0, 0, 0) + asked[12:end]
    counts = struct.pack("!HHHH", 1, len(records), 0, 0)
    return asked[:2] + b"\x81\x80" + counts + asked[12:end] + body


def answers_to(asked: bytes) -> Answers:
    """Return what the case says whose name is asked for."""
    return CASES[asked[13 : 13 + asked[12]].decode().lower()][0]


class OverUdp(asyncio.DatagramProtocol):
    """Answers one packet with one packet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer."""
        self.transport.sendto(reply(data, answers_to(data), fits=True), addr)


async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what did not fit into a packet."""
    try:
        while True:
            asked = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            said = reply(asked, answers_to(asked), fits=False)
            writer.write(len(said).to_bytes(2, "big") + said)
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def look_all_up() -> dict[str, str | set[str]]:
    """Return what comes of each case; all of them at once."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(OverUdp, ("127.0.0.1", port))
    lookup = AresLookup([f"127.0.0.1:{port}"])
    resolver = PolicyResolver(lookup, Policy())

    async def outcome(case: str) -> str | set[str]:
        try:
            return {each["host"] for each in await resolver.resolve(f"{case}.example", 443)}
        except DestinationDenied:
            return "denied"
        except OSError:
            return "dns"

    try:
        return dict(zip(CASES, await asyncio.gather(*map(outcome, CASES)), strict=True))
    finally:
        await resolver.close()
        await lookup.close()
        udp.close()
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | set[str]]:
    """Return what `look_all_up` does."""
    return asyncio.run(look_all_up())


@pytest.mark.parametrize("case", CASES)
def test_dns_of_a_hostile_name_server(case: str, outcomes: dict[str, str | set[str]]) -> None:
    expected, found = CASES[case][1], outcomes[case]
    if isinstance(expected, set):
        assert found == expected
    elif isinstance(found, set):
        # Only an address that it gave, and may be dialled.
        assert "addresses" in expected
        assert found <= {PUBLIC}
    else:
        assert found in expected.split(" or ")
