"""The admin port of a process: `/livez`, `/readyz` and `/metrics`, for operators' machines only.

It is served by the event loop that does the work, so that a loop which hangs does not answer; and
to the very end, so that a process which is told to stop can be seen to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn

from config.health import Health
from config.metrics import Page
from config.ports import open_listener
from config.sections import AdminSettings
from config.tasks import background, cancel_all
from config.values import Role

_log = logging.getLogger("config.admin")

_CONNECTIONS: Final = 64
_STOP_SECONDS: Final = 2.0
_JSON: Final = "application/json"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, str, bytes]


class AdminApp:
    """What the admin port answers (ASGI)."""

    def __init__(self, health: Health, page: Page) -> None:
        """Answer for one process."""
        self._health = health
        self._page = page
        self._answers: dict[str, Callable[[Scope], Awaitable[Answer]]] = {
            "/livez": self._alive,
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self._answers.get(scope["path"])
        headers: list[tuple[bytes, bytes]] = [(b"cache-control", b"no-store")]
        if answer is None:
            status, kind, body = 404, "text/plain", b"/livez, /readyz or /metrics\n"
        elif scope["method"] not in {"GET", "HEAD"}:
            status, kind, body = 405, "text/plain", b"GET or HEAD\n"
            headers.append((b"allow", b"GET, HEAD"))
        else:
            status, kind, body = await answer(scope)
        headers += [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _alive(self, _scope: Scope) -> Answer:
        stalled = self._health.stalled()
        if stalled:
            return 503, _JSON, _document({"status": "stalled", "loops": stalled})
        return 200, _JSON, _document({"status": "alive"})

    async def _ready(self, _scope: Scope) -> Answer:
        reasons = await self._health.reasons()
        if reasons:
            told = [{"code": each.code, "detail": each.detail} for each in reasons]
            return 503, _JSON, _document({"status": "not_ready", "reasons": told})
        return 200, _JSON, _document({"status": "ready"})

    async def _metrics(self, scope: Scope) -> Answer:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        return 200, *await self._page.render(accept.decode("latin-1"))


def _document(members: dict[str, Any]) -> bytes:
    return json.dumps(members).encode() + b"\n"


@asynccontextmanager
async def admin_port(
    settings: AdminSettings,
    role: Role,
    health: Health,
    page: Page,
) -> AsyncIterator[None]:
    """Answer on the admin port of `role` inside the block; without one, do nothing.

    Should it stop to answer by a fault of ours, the process leaves service, as it does on SIGTERM.

    Raises:
        AdminPortError: it cannot be opened.
    """
    listener = open_listener(settings, role)
    if listener is None:
        yield
        return
    server = _Server(
        uvicorn.Config(
            AdminApp(health, page),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
        )
    )
    host, bound = listener.getsockname()[:2]
    _log.info("admin.opened", extra={"host": host, "port": bound})
    serving = background([server.serve(sockets=[listener])], _leave_service)
    try:
        yield
    finally:
        server.should_exit = True
        server.force_exit = True
        await asyncio.wait(serving, timeout=_STOP_SECONDS)
        await cancel_all(serving)
        listener.close()


def _leave_service() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class _Server(uvicorn.Server):
    """A server inside a process that minds its signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
