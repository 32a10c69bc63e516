"""A receiver faster than what it measures: `python -m tests.bench.sink PORTS`, told by lines.

Its own process, on httptools. It prints its ports and that of its control connection as one JSON
line, and ends with its standard input. Over the control connection it is told, one JSON line each,
and answers with one:

    {"reset": true}            count from nothing
    {"hold": [port, ...]}      answer these ports no more; those before are answered now
    {"keep": true}             keep what arrives, with the instant, from now on
    {"look": true}             {"count": n, "held": n, "marks": [[count, monotonic s], ...]}
    {"take": true}             {"kept": [[monotonic s, port, body], ...]}, and keep no longer
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import httptools
import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_MARK_EACH = 50
_MOST_KEPT = 1_000_000


@dataclass(slots=True)
class Sink:
    """What has arrived, and what is to be done with it."""

    count: int = 0
    marks: list[tuple[int, float]] = field(default_factory=list)
    holding: frozenset[int] = frozenset()
    held: list[Receiving] = field(default_factory=list)
    keeping: bool = False
    kept: list[tuple[float, int, str]] = field(default_factory=list)

    def received(self, by: Receiving) -> None:
        """Count a request, and answer it unless its port is held."""
        self.count += 1
        if self.count % _MARK_EACH == 0:
            self.marks.append((self.count, time.monotonic()))
        if self.keeping and len(self.kept) < _MOST_KEPT:
            self.kept.append((time.monotonic(), by.port, b"".join(by.body).decode()))
        if by.port in self.holding:
            self.held.append(by)
        else:
            by.answer()

    def told(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Do as a control line says; return the answer."""
        match wish:
            case {"reset": True}:
                self.count, self.marks, self.kept = 0, [], []
            case {"hold": list(ports)}:
                self.holding = frozenset(ports)
                for each in self.held:
                    each.answer()
                self.held = []
            case {"keep": True}:
                self.kept, self.keeping = [], True
            case {"take": True}:
                taken, self.kept, self.keeping = self.kept, [], False
                return {"kept": taken}
            case {"look": True}:
                open_now = [each for each in self.held if each.is_open]
                return {"count": self.count, "held": len(open_now), "marks": self.marks}
            case _:
                return {"error": "not understood"}
        return {}


class Receiving(asyncio.Protocol):
    """One connection."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self.port = 0
        self.body: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether the sender still waits."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self.port = transport.get_extra_info("sockname")[1]

    def connection_lost(self, _exc: Exception | None) -> None:
        """End."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.body.clear()

    def on_body(self, body: bytes) -> None:
        """Take a piece of its body."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """Take it as received."""
        self._sink.received(self)

    def answer(self) -> None:
        """Answer 200, unless the sender has gone."""
        if self._transport is not None:
            self._transport.write(_ANSWER)


async def _control(sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(json.dumps(sink.told(json.loads(line))).encode() + b"\n")
        await writer.drain()
    writer.close()


async def _serve(ports: int) -> None:
    loop = asyncio.get_running_loop()
    sink = Sink()
    opened = []
    for _ in range(ports):
        server = await loop.create_server(partial(Receiving, sink), "127.0.0.1", 0, backlog=1_024)
        opened.append(server.sockets[0].getsockname()[1])

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _control(sink, reader, writer)

    told = await asyncio.start_server(control, "127.0.0.1", 0)
    line = {"ports": opened, "control": told.sockets[0].getsockname()[1]}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
