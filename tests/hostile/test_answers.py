"""The rows of answers: what a receiver may cost, in memory above all, and that the sender lives."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from config.settings import environment
from delivery.outcomes import MAX_ANSWER_KEPT
from tests.delivery.conftest import Receiver, Script
from tests.running import ROOT

AT_ONCE = 32
CEILING = 16 * 2**20
"""Bytes that a process may grow by while 32 at a time do their worst: half a MiB each."""

READ = 16 * 1024
"""Bytes of a body that are read at most."""

JAR = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nset-cookie: a=b; domain=127.0.0.1\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


def says(*pieces: bytes) -> Script:
    """Return a script that says all of it."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return script


def floods(head: bytes, piece: bytes) -> Script:
    """Return a script that says `piece` for ever, as fast as it is read."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()

    return script


def drips(head: bytes, piece: bytes) -> Script:
    """Return a script that says `piece` for ever, slowly."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    return script


def hangs_up_after(*pieces: bytes) -> Script:
    """Return a script that says all of it and closes."""

    async def script(writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(writer)
        writer.close()

    return script


async def silence(writer: asyncio.StreamWriter) -> None:
    """Say nothing."""
    await writer.wait_closed()


def gzip_bomb() -> Script:
    """Return a script whose answer would be without end if it were decompressed."""
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(bytes(10_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    more = packer.compress(bytes(50_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return floods(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + start, more)


ANSWERS: dict[str, tuple[Script, str]] = {
    "gzip bomb": (gzip_bomb(), "delivered"),
    "deflate bomb": (
        floods(b"HTTP/1.1 500 X\r\ncontent-encoding: deflate\r\n\r\n", zlib.compress(bytes(10**7))),
        "rejected",
    ),
    "body without end": (floods(ENDLESS, b"x" * 65_536), "delivered"),
    "body of a terabyte": (
        floods(b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n", b"x" * 65_536),
        "delivered",
    ),
    "chunks without end": (floods(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"), "delivered"),
    "tiny chunks without end": (floods(CHUNKED, b"1\r\nx\r\n" * 5_000), "delivered"),
    "one chunk of a terabyte": (floods(CHUNKED + b"10000000000\r\n", b"x" * 65_536), "delivered"),
    "chunk extension bomb": (floods(CHUNKED + b"1;", b"x=y;" * 9_999), "malformed"),
    "trailer bomb": (floods(CHUNKED + b"0\r\n", b"x: y\r\n" * 9_999), "malformed or reset"),
    "endless 1xx": (floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999), "malformed"),
    "endless 1xx with headers": (
        floods(b"", b"HTTP/1.1 103 Early Hints\r\nlink: " + b"x" * 4_000 + b"\r\n\r\n"),
        "malformed",
    ),
    "1xx in drips": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    "header bomb": (floods(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 9_999), "malformed"),
    "one header without end": (floods(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65_536), "malformed"),
    "header name without end": (floods(b"HTTP/1.1 200 OK\r\n", b"y" * 65_536), "malformed"),
    "status line without end": (floods(b"HTTP/1.1 200 ", b"y" * 65_536), "malformed"),
    "folded header without end": (
        floods(b"HTTP/1.1 200 OK\r\nx: y", b"\r\n z" * 9_999),
        "malformed",
    ),
    "cookie bomb": (
        floods(b"HTTP/1.1 200 OK\r\n", b"set-cookie: a=" + b"b" * 4_000 + b"\r\n"),
        "malformed",
    ),
    "drip of the body": (
        drips(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n", b"x"),
        "timeout",
    ),
    "drip of the head": (drips(b"HTTP/1.1 200 OK\r\nx: ", b"y"), "timeout"),
    "drip of chunk sizes": (drips(CHUNKED, b"0"), "timeout"),
    "HTTP/0.9": (hangs_up_after(b"<html>hello</html>\r\n"), "malformed"),
    "HTTP/0.9 without end": (floods(b"", b"hello\r\n" * 9_999), "malformed"),
    "never any byte": (silence, "timeout"),
    "line ends without end": (floods(b"", b"\r\n" * 9_999), "malformed"),
    "close at once": (hangs_up_after(), "reset"),
    "close half-way in the head": (hangs_up_after(b"HTTP/1.1 200 OK\r\nconte"), "reset"),
    "close half-way in the body": (
        hangs_up_after(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf"),
        "reset",
    ),
    "close half-way in a chunk": (hangs_up_after(CHUNKED + b"5\r\nhal"), "reset"),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "malformed"),
    "TLS": (says(b"\x15\x03\x01\x00\x02\x02\x46"), "malformed"),
    "HTTP/2": (says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)), "malformed"),
    "two lengths": (
        says(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        "malformed",
    ),
    "101": (says(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"), "rejected"),
    "Retry-After of a thousand digits": (
        says(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nretry-after: " + b"9" * 1_000 + b"\r\n\r\n"),
        "throttled",
    ),
}


@asynccontextmanager
async def receiving(script: Script) -> AsyncIterator[Receiver]:
    """Start a receiver."""
    receiver = Receiver(script)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        receiver.port = server.sockets[0].getsockname()[1]
        yield receiver
        await receiver.end()


async def attempt_all() -> tuple[dict[str, Any], list[bytes]]:
    """Return what a sender in a process of its own says of all these, and what it sent."""
    async with AsyncExitStack() as stack:
        healthy = await stack.enter_async_context(receiving(says(JAR)))
        urls = {}
        for case, (script, _) in ANSWERS.items():
            receiver = await stack.enter_async_context(receiving(script))
            urls[case] = f"http://127.0.0.1:{receiver.port}/"
        slow = {case: url for case, url in urls.items() if ANSWERS[case][1] == "timeout"}
        rounds = [slow, *({case: url} for case, url in urls.items() if case not in slow)]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tests.hostile.sending", str(AT_ONCE)),
            cwd=ROOT,
            env=environment() | {"PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        asked = {"healthy": f"http://127.0.0.1:{healthy.port}/", "rounds": rounds}
        output, _ = await process.communicate(json.dumps(asked).encode())
        assert process.returncode == 0
        return json.loads(output), [head for head, _ in healthy.requests]


@pytest.fixture(scope="module")
def attempted() -> tuple[dict[str, Any], list[bytes]]:
    """Return what `attempt_all` does; one process for all of it, and one start."""
    return asyncio.run(attempt_all())


@pytest.mark.parametrize("case", ANSWERS)
def test_answer_costs_no_more_than_so_much_memory(
    case: str, attempted: tuple[dict[str, Any], list[bytes]]
) -> None:
    said = attempted[0][case]
    assert set(said["outcomes"]) <= set(ANSWERS[case][1].split(" or "))
    assert said["after"] == "delivered"
    assert said["read"] <= READ
    assert said["kept"] <= MAX_ANSWER_KEPT
    assert said["grown"] < CEILING


def test_state_no_cookie_goes_from_one_attempt_to_another(
    attempted: tuple[dict[str, Any], list[bytes]],
) -> None:
    heads = attempted[1]
    assert len(heads) > AT_ONCE
    assert not [head for head in heads if b"cookie" in head.lower()]
