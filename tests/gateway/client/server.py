"""A real HTTP server whose answers a test plans, for what no running gateway does on request."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.processes import eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One answer.

    Attributes:
        status: of HTTP.
        headers: names and values.
        pieces: of the body, sent one by one.
        breaks: whether the connection is cut after them, before the answer's end.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    breaks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Scripted:
    """Answers requests in their order; the last answer again and again."""

    url: str
    planned: deque[Planned] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)

    def plan(self, *answers: Planned) -> None:
        """Answer so from now on."""
        self.planned.clear()
        self.planned.extend(answers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        request = Request(scope, receive)
        query = f"?{request.url.query}" if request.url.query else ""
        self.received.append(
            Received(
                method=request.method,
                target=request.url.path + query,
                headers=dict(request.headers),
                body=await request.body(),
            )
        )
        answer = self.planned.popleft() if len(self.planned) > 1 else self.planned[0]
        headers = [
            (name.lower().encode(), value.encode()) for name, value in answer.headers.items()
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for piece in answer.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if answer.breaks:
            # An application that ends before its answer does makes the server cut the connection.
            return
        await send({"type": "http.response.body", "body": b""})


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Planned:
    """Plan an answer with `document` as JSON."""
    kind = "application/problem+json" if status >= 400 else "application/json"
    body = json.dumps(document).encode()
    return Planned(status=status, headers={"Content-Type": kind, **(headers or {})}, pieces=(body,))


def stream(*pieces: str, breaks: bool = False) -> Planned:
    """Plan an event stream."""
    return Planned(
        headers={"Content-Type": "text/event-stream"},
        pieces=tuple(piece.encode() for piece in pieces),
        breaks=breaks,
    )


@contextmanager
def scripted() -> Iterator[Scripted]:
    """Serve on a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = Scripted(f"http://127.0.0.1:{listening.getsockname()[1]}")
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", loop="asyncio")
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True
        )
        thread.start()
        assert eventually(lambda: server.started)
        try:
            yield app
        finally:
            server.should_exit = True
            thread.join(10)
