"""Server-Sent Events about one job (HTML, 9.2): from where a client left off to the job's end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from config.ids import random_float
from config.sections import ApiSettings
from gateway.api.sights import (
    JobWatchers,
    Sight,
    abort,
    hung_up,
    is_allowed,
    note_reading,
    while_connected,
)
from gateway.artifacts import ArtifactError
from gateway.callbacks import NOTICE
from gateway.models import Job, View
from gateway.store import JobStore
from gateway.watching import Watch, WatchersClosed

log = logging.getLogger("api")

_PIECE = 65_536


def last_event_id(header: str | None) -> int | None:
    """Return the revision that a `Last-Event-ID` header names; None when it names none."""
    if header is None or not header.isascii() or not header.isdecimal() or len(header) > 15:
        return None
    return int(header)


class EventStream(Response):
    """Server-Sent Events about one job (HTML, 9.2), until its end."""

    def __init__(
        self,
        jobs: JobStore,
        watchers: JobWatchers,
        view: View,
        *,
        last: int | None,
        settings: ApiSettings,
        may_go_on: Callable[[], Awaitable[bool]],
    ) -> None:
        """Go on after the revision `last`; nothing older than `view` is sent.

        `may_go_on` is asked before anything is: the stream may outlast the key that opened it.
        """
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            media_type="text/event-stream",
        )
        # The length is unknown, and utf-8 the only charset there is.
        self.raw_headers = [(n, v) for n, v in self.raw_headers if n != b"content-length"]
        self.headers["content-type"] = "text/event-stream"
        self._jobs = jobs
        self._watchers = watchers
        self._job = view.job
        self._resumes = last is not None and last <= view.job.rev
        self._seen = view.job.rev - 1 if last != view.job.rev else last
        self._settings = settings
        self._may_go_on = may_go_on
        self._is_complete = False
        self._ended: Job | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI).

        Raises:
            Problem: `too_many_watchers`, before anything was sent.
        """
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        async with self._watchers.watch(self._job.id) as watch:
            await send(start)
            try:
                await while_connected(self._write(watch, send), hung_up(receive))
            except ClientDisconnect:
                # That is also how a complete answer looks.
                pass
            except TimeoutError:
                abort(scope, self._job)
                # An answer that ends before the connection has would count as a fault.
                with suppress(ClientDisconnect):
                    await hung_up(receive)
        if self._is_complete and self._ended is not None:
            await note_reading(self._jobs, self._ended)

    async def _write(self, watch: Watch[Sight], send: Send) -> None:
        async with aclosing(self._events(watch)) as events:
            async for part in events:
                for at in range(0, len(part), _PIECE):
                    await self._send(send, part[at : at + _PIECE], more=True)
        await self._send(send, b"", more=False)
        self._is_complete = True

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        # The server takes no more once the client lags by more than its buffer.
        async with asyncio.timeout(self._settings.send_timeout_seconds):
            await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _next(self, watch: Watch[Sight]) -> Sight | None:
        """Return what is seen next; None when nothing was for so long that a comment is due.

        Raises:
            WatchersClosed: nothing more is to be told, to nobody or not to this reader.
        """
        try:
            sight = await watch.next(self._settings.heartbeat_seconds)
        except TimeoutError:
            sight = None
        if not await is_allowed(self._may_go_on):
            raise WatchersClosed
        return sight

    async def _events(self, watch: Watch[Sight]) -> AsyncGenerator[bytes, None]:
        """Yield the stream in parts; `self._ended` is the job once its end is among them."""
        # Spread, so that the clients of a process that stops do not all come back at once.
        yield f"retry: {1000 + int(2000 * random_float())}\n\n".encode()
        while True:
            try:
                sight = await self._next(watch)
            except WatchersClosed:
                return
            if sight is None:
                yield b": \n\n"
                continue
            if sight.view is None:
                return
            if not sight.is_at(self._seen + 1):
                continue
            view, self._seen = sight.view, sight.view.job.rev
            try:
                data = await sight.document(view)
            except ArtifactError as error:
                log.warning("stream.not_rendered", extra={"job": view.job.id, "error": str(error)})
                return
            for event in event_names(view, is_first=not self._resumes):
                for part in _parts(event, data):
                    yield part
            self._resumes = True
            if view.job.is_terminal:
                self._ended = view.job
                return


def _parts(event: tuple[str, int | None], data: bytes) -> tuple[bytes, ...]:
    """Return one event as the stream has it; large data as it is, not copied for each client."""
    name, number = event
    head = (f"id: {number}\n" if number is not None else "") + f"event: {name}\ndata: "
    if len(data) <= _PIECE:
        return (head.encode() + data + b"\n\n",)
    return head.encode(), data, b"\n\n"


def event_names(view: View, *, is_first: bool) -> list[tuple[str, int | None]]:
    """Return the events that tell `view`, each with its identifier.

    What comes before the event of the job's end has none: a client that lost the connection in
    between must not seem to have had it.
    """
    job = view.job
    if not job.is_terminal:
        return [("snapshot" if is_first else "progress", job.rev)]
    names: list[tuple[str, int | None]] = [("snapshot", None)] if is_first else []
    if job.status == "completed" and job.read_at is None and job.expires_at is not None:
        due = job.expires_at - min(NOTICE, job.result_ttl // 4)
        names += [("expiring", None)] if due <= view.now else []
    return [*names, (job.status, job.rev)]
