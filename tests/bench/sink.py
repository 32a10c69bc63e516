"""A receiver faster than what it measures: `python -m tests.bench.sink RECEIVERS`, told by lines.

Its own process, on httptools. It prints its places as one JSON line, and ends with its standard
input. There it is told, one JSON line each, and answers each with one:

    {"reset": true}            count from nothing
    {"hold": [place, ...]}     answer these places no more; those before are answered now
    {"fail": [place, ...]}     answer 500 from these places, 200 from all others
    {"keep": true}             keep what arrives, with the instant, from now on
    {"look": true}             {"count": n, "held": n, "marks": [[count, monotonic s], ...]}
    {"take": true}             {"kept": [[monotonic s, place, body], ...]}, and keep no longer
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

_TAKEN = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_MARK_EACH = 50
_MOST_KEPT = 1_000_000


@dataclass(slots=True)
class Sink:
    """What has arrived, and what is to be done with it."""

    count: int = 0
    marks: list[tuple[int, float]] = field(default_factory=list)
    holding: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    held: list[Receiving] = field(default_factory=list)
    keeping: bool = False
    kept: list[tuple[float, str, str]] = field(default_factory=list)

    def received(self, by: Receiving) -> None:
        """Count a request, and answer it unless its place is held."""
        self.count += 1
        if self.count % _MARK_EACH == 0:
            self.marks.append((self.count, time.monotonic()))
        if self.keeping and len(self.kept) < _MOST_KEPT:
            self.kept.append((time.monotonic(), by.place, b"".join(by.body).decode()))
        if by.place in self.holding:
            self.held.append(by)
        else:
            by.answer(taken=by.place not in self.failing)

    def told(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Do as a control line says; return the answer."""
        match wish:
            case {"reset": True}:
                self.count, self.marks, self.kept = 0, [], []
            case {"hold": list(places)}:
                self.holding = frozenset(places)
                for each in self.held:
                    each.answer(taken=True)
                self.held = []
            case {"fail": list(places)}:
                self.failing = frozenset(places)
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
        self.place = ""
        self.body: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether the sender still waits."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("sockname")
        self.place = f"{host}:{port}"

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

    def answer(self, *, taken: bool) -> None:
        """Answer 200 or 500, unless the sender has gone."""
        if self._transport is not None:
            self._transport.write(_TAKEN if taken else _FAILED)


async def _serve(receivers: int) -> None:
    loop = asyncio.get_running_loop()
    sink = Sink()
    places = []
    for number in range(receivers):
        # A host each, since attempts are bounded per host.
        host = f"127.0.{1 + number // 250}.{1 + number % 250}"
        server = await loop.create_server(partial(Receiving, sink), host, 0, backlog=1_024)
        places.append(f"{host}:{server.sockets[0].getsockname()[1]}")
    _say({"places": places})
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(partial(asyncio.StreamReaderProtocol, told), sys.stdin)
    while line := await told.readline():
        _say(sink.told(json.loads(line)))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
