"""Floods: what a client may cost an api process that sends, or does not read, for ever."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RunningStores
from tests.hostile.served import Api, api_process
from tests.hostile.test_requests import CHUNKED, CLOSE, JOB, asks, opens, tells
from tests.processes import resident_bytes

FLOOD = 64 * 2**20
"""Bytes of each; several times what the process may grow by."""

CEILING = 24 * 2**20
"""Bytes that an api process may grow by, all of these together."""

PATIENCE = 30


def framed(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return a frame from a client (RFC 6455, section 5.2), masked with zeros."""
    first = bytes([fin << 7 | rsv | opcode])
    size = len(data)
    if size < 126:
        return first + bytes([0x80 | size]) + bytes(4) + data
    return first + b"\xff" + struct.pack("!Q", size) + bytes(4) + data


CONT, TEXT, BINARY, PING = 0, 1, 2, 9
FORM = b"Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n'
WHOLE_FORM = PART + JOB + b'\r\n--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What is sent: `start` once, then `piece` again and again.

    Attributes:
        start: the beginning.
        piece: what comes for ever.
        ends: how the answer begins; empty where there need be none.
        reads: whether the client reads what comes back meanwhile.
        opens: the handshake of a WebSocket, whose answer is waited for before.
    """

    start: bytes
    piece: bytes
    ends: bytes = b""
    reads: bool = True
    opens: bytes = b""


FLOODS: dict[str, Flood] = {
    "one field without end": Flood(
        start=asks(b"/")[:-2] + b"X: ", piece=b"x" * 65_536, ends=b"HTTP/1.1 431"
    ),
    "fields without end": Flood(
        start=asks(b"/")[:-2], piece=b"x: y\r\n" * 9_999, ends=b"HTTP/1.1 431"
    ),
    "an address without end": Flood(start=b"GET /", piece=b"x" * 65_536, ends=b"HTTP/1.1 431"),
    "line ends without end": Flood(start=b"", piece=b"\r\n" * 9_999),
    "chunked JSON": Flood(
        start=tells(CHUNKED, body=b""), piece=b"2\r\n  \r\n" * 999, ends=b"HTTP/1.1 413"
    ),
    "an extension without end": Flood(
        start=tells(CHUNKED, body=b"1;"), piece=b"x" * 65_536, ends=b"HTTP/1.1 400"
    ),
    "extensions without end": Flood(
        start=tells(CHUNKED, body=b""),
        piece=b"1;" + b"x" * 9_999 + b"\r\n \r\n",
        ends=b"HTTP/1.1 400",
    ),
    "trailers without end": Flood(
        start=tells(CHUNKED, body=b"2a\r\n" + JOB + b"\r\n0\r\n"), piece=b"x: y\r\n" * 9_999
    ),
    "one trailer without end": Flood(
        start=tells(CHUNKED, body=b"2a\r\n" + JOB + b"\r\n0\r\nx: "), piece=b"y" * 65_536
    ),
    "zeros of a chunk size": Flood(
        start=tells(CHUNKED, body=b""), piece=b"0" * 65_536, ends=b"HTTP/1.1 400"
    ),
    "a body nobody wants": Flood(
        start=asks(b"/v1/jobs", b"Content-Length: 99999999999"),
        piece=b"x" * 65_536,
        ends=b"HTTP/1.1 200",
    ),
    "a packed body": Flood(
        start=tells(b"Content-Encoding: gzip", CHUNKED, body=b""),
        piece=b"%x\r\n%b\r\n" % (len(gzip.compress(bytes(2**20))), gzip.compress(bytes(2**20))),
        ends=b"HTTP/1.1 415",
    ),
    "a part without end": Flood(
        start=tells(b"Content-Length: 2000000000", label=FORM, body=PART),
        piece=b"x" * 65_536,
        ends=b"HTTP/1.1 413",
    ),
    "a part's field without end": Flood(
        start=tells(b"Content-Length: 2000000000", label=FORM, body=b"--b\r\nX: "),
        piece=b"x" * 65_536,
        ends=b"HTTP/1.1 400",
    ),
    "a part's fields without end": Flood(
        start=tells(b"Content-Length: 2000000000", label=FORM, body=b"--b\r\n"),
        piece=b"x: y\r\n" * 9_999,
        ends=b"HTTP/1.1 400",
    ),
    "fields of many parts": Flood(
        start=tells(b"Content-Length: 2000000000", label=FORM, body=WHOLE_FORM),
        piece=b"\r\n" + b'--b\r\nContent-Disposition: form-data; name="g"\r\n\r\n' * 999,
    ),
    "a file that nobody asked for": Flood(
        start=tells(b"Content-Length: 2000000000", label=FORM, body=WHOLE_FORM),
        piece=b"x" * 65_536,
    ),
    "requests whose answers nobody reads": Flood(
        start=b"",
        piece=asks(b"/openapi.json").replace(CLOSE + b"\r\n", b"") * 500,
        reads=False,
    ),
    "small requests whose answers nobody reads": Flood(
        start=b"", piece=asks(b"/livez").replace(CLOSE + b"\r\n", b"") * 500, reads=False
    ),
    "socket, pings whose answers nobody reads": Flood(
        opens=opens(), start=b"", piece=framed(PING, b"x" * 125) * 500, reads=False
    ),
    "socket, pings": Flood(
        opens=opens(),
        start=b"",
        piece=framed(PING, b"x" * 125) * 500,
    ),
    "socket, small pings": Flood(
        opens=opens(),
        start=b"",
        piece=framed(PING) * 9_999,
    ),
    "socket, pongs": Flood(
        opens=opens(),
        start=b"",
        piece=framed(10) * 9_999,
    ),
    "socket, empty fragments": Flood(
        opens=opens(),
        start=framed(TEXT, fin=False),
        piece=framed(CONT, fin=False) * 9_999,
    ),
    "socket, fragments": Flood(
        opens=opens(),
        start=framed(BINARY, fin=False),
        piece=framed(CONT, b"x", fin=False) * 9_999,
    ),
    "socket, one frame of an exbibyte": Flood(
        opens=opens(),
        start=b"\x82\xff" + struct.pack("!Q", 2**60) + bytes(4),
        piece=b"x" * 65_536,
    ),
    "socket, frames of 1 MiB": Flood(
        opens=opens(),
        start=b"",
        piece=framed(BINARY, bytes(2**20)),
    ),
    "socket, messages": Flood(
        opens=opens(),
        start=b"",
        piece=framed(TEXT, b"x" * 4_096) * 16,
    ),
    "socket, empty messages": Flood(
        opens=opens(),
        start=b"",
        piece=framed(TEXT) * 9_999,
    ),
    "socket, compressed": Flood(
        opens=opens(b"Sec-WebSocket-Extensions: permessage-deflate"),
        start=b"",
        piece=framed(TEXT, gzip.compress(bytes(2**20))[10:], rsv=0x40),
    ),
    "socket, no UTF-8": Flood(
        opens=opens(),
        start=b"",
        piece=framed(TEXT, b"\xff" * 100) * 99,
    ),
    "socket, unmasked": Flood(
        opens=opens(),
        start=b"",
        piece=b"\x81\x05hello" * 9_999,
    ),
    "socket, no frames": Flood(
        opens=opens(),
        start=b"",
        piece=b"GET / HTTP/1.1\r\n\r\n" * 999,
    ),
    "socket, pings before it is open": Flood(start=opens(), piece=framed(PING) * 9_999),
    "socket, nonsense before it is open": Flood(start=opens(), piece=b"x" * 65_536),
    "socket, pings where it never opens": Flood(
        start=opens(target=b"/v1/jobs/ENDED?ticket=x", by=b""), piece=framed(PING) * 9_999
    ),
}


async def flood(api: Api, sent: Flood, fill: Callable[[bytes], bytes]) -> tuple[int, bytes]:
    """Send until the connection is closed, or it was enough; return how much, and the answer."""
    reader, writer = await api.connect()
    got, size = b"", 0

    async def read() -> None:
        nonlocal got
        while piece := await reader.read(65_536):
            got = (got + piece)[:64]

    async def write() -> None:
        nonlocal size
        writer.write(fill(sent.start))
        while size < FLOOD:
            writer.write(sent.piece)
            await writer.drain()
            size += len(sent.piece)

    if sent.opens:
        writer.write(fill(sent.opens))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    if not sent.reads:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    reading, writing = asyncio.create_task(read()), asyncio.create_task(write())
    try:
        await asyncio.wait(
            {reading, writing}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        if sent.reads:
            # The answer may still be under way; who said all there was to say waits for it.
            await asyncio.wait({reading}, timeout=1)
    finally:
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)
        writer.transport.abort()
    return size, got


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a flood cost: by how much the process had grown, how much it took, and what it said."""

    grown: int
    taken: int
    answer: bytes


@pytest.fixture(scope="module")
def costs(stores: RunningStores, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cost]:
    """Return what each flood cost, one after the other, in one process."""
    return asyncio.run(flood_all(stores, tmp_path_factory.mktemp("floods")))


async def flood_all(stores: RunningStores, folder: Path) -> dict[str, Cost]:
    settings = {"GATEWAY_API_WRITE_TIMEOUT_SECONDS": "1", "GATEWAY_API_READ_TIMEOUT_SECONDS": "5"}
    async with api_process(stores, folder, **settings) as api:
        job = (await api.client.post("/v1/jobs", content=JOB, headers=LABEL)).json()["jobId"]

        def fill(start: bytes) -> bytes:
            return start.replace(b"/ENDED", b"/" + job.encode())

        # Modules are imported, pools are filled.
        for path in ("/openapi.json", "/v1/jobs", f"/v1/jobs/{job}"):
            await api.client.get(path)
        before = resident_bytes(api.pid)
        costs = {}
        for name, sent in FLOODS.items():
            taken, answer = await flood(api, sent, fill)
            grown = resident_bytes(api.pid) - before
            costs[name] = Cost(grown=grown, taken=taken, answer=answer)
            assert (await api.client.get(f"/v1/jobs/{job}")).status_code == 200, name
        return costs


LABEL = {"Content-Type": "application/json"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", FLOODS)
def test_flood_costs_no_more_than_so_much_memory(case: str, costs: dict[str, Cost]) -> None:
    cost, sent = costs[case], FLOODS[case]
    assert cost.grown < CEILING
    # Who goes on sending may lose the answer to a reset.
    if sent.ends and cost.answer:
        assert cost.answer.startswith(sent.ends)
    if sent.opens or not sent.reads:
        assert cost.taken < FLOOD
