"""Jobs as they go on: event streams, WebSockets, held back answers, and tickets for watchers.

All of them wait at one set of `Watchers`, so waiting asks the store for nothing, and a state of a
job is rendered once however many are sent it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Never, TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from config.clock import rfc3339
from config.ids import random_float
from config.sections import ApiSettings
from config.store import StoreError
from config.tasks import cancel_all
from gateway.access import Access
from gateway.answers import Answers
from gateway.artifacts import ArtifactError
from gateway.callbacks import NOTICE
from gateway.models import Job, Tombstone, View, compact
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.store import JobStore
from gateway.urls import Urls
from gateway.watching import Watch, Watchers, WatchersClosed

log = logging.getLogger("api")

ABORT = "gateway.abort"
"""The ASGI extension that cuts the connection without waiting for what was written to it: ending
in order would wait for ever for a client that reads nothing."""

_PIECE = 65_536
_IGNORED_MESSAGES = 16

_DONE, _TALKATIVE, _FAILED, _RESTARTS, _EXPIRED = 1000, 1008, 1011, 1012, 4410
"""Codes that a WebSocket is closed with (RFC 6455, 7.4); the last is our own, after HTTP's 410."""

T = TypeVar("T")


class Sight:
    """A job at one revision, as everyone who watches it sees it.

    Attributes:
        view: None once the job is no more.
    """

    def __init__(self, view: View | None, answers: Answers) -> None:
        self.view = view
        self._answers = answers
        self._rendering = asyncio.Lock()
        self._document: bytes | None = None

    def is_at(self, rev: int) -> bool:
        """Whether this is the revision `rev`, or a later one, or the end of all."""
        return self.view is None or self.view.job.rev >= rev

    async def document(self, view: View) -> bytes:
        """Return the document of `view`, which is the one seen, as JSON; rendered once.

        Raises:
            ArtifactError: its results cannot be read.
        """
        async with self._rendering:
            if self._document is None:
                self._document = compact(await self._answers.document(view)).encode()
            return self._document


JobWatchers = Watchers[Sight]


def job_watchers(services: Services, urls: Urls) -> JobWatchers:
    """Return the watchers of a process; the caller's to run and to close."""
    answers = Answers(services=services, urls=urls)

    async def read(job_id: str) -> Sight:
        match await services.jobs.read(job_id):
            case View() as view:
                return Sight(view, answers)
            case Tombstone() | None:
                return Sight(None, answers)

    return Watchers(services.store, read, services.settings.api.max_watchers)


async def hold(
    watchers: JobWatchers,
    request: Request,
    view: View,
    *,
    seconds: int,
    holds: Callable[[View], bool],
) -> View | None:
    """Return the job once it `holds`, or as it stands after `seconds`; None once it is no more.

    Args:
        watchers: of this process.
        request: whose client must stay connected.
        view: the job as it was read last; nothing older is returned.
        seconds: to wait at the most.
        holds: what is waited for.

    Raises:
        Problem: `too_many_watchers`.
        ClientDisconnect: nobody waits any more.
    """
    if seconds == 0 or holds(view):
        return view

    def enough(sight: Sight) -> bool:
        return sight.is_at(view.job.rev) and (sight.view is None or holds(sight.view))

    async with watchers.watch(view.job.id) as watch:
        sight = await _while_connected(watch.until(enough, seconds), _hung_up(request.receive))
    return sight.view if sight is not None and sight.is_at(view.job.rev) else view


async def note_reading(jobs: JobStore, job: Job) -> None:
    """Note that the results of `job`, if it has any, went out."""
    if job.status != "completed" or job.read_at is not None:
        return
    try:
        await jobs.mark_read(job.id)
    except StoreError as error:
        # The next reading says it again; at worst somebody is told of results they have.
        log.warning("job.reading_not_noted", extra={"job": job.id, "error": str(error)})


class StreamsApi:
    """The event stream, the WebSocket and the tickets of jobs."""

    def __init__(
        self, services: Services, access: Access, urls: Urls, watchers: JobWatchers
    ) -> None:
        self._services = services
        self._access = access
        self._urls = urls
        self._watchers = watchers
        self._settings = services.settings.api

    def routes(self) -> list[BaseRoute]:
        """Return what is answered where."""
        return [
            resource("/v1/jobs/{job_id}/events", GET=self.events),
            resource("/v1/jobs/{job_id}/ticket", POST=self.ticket),
            WebSocketRoute("/v1/jobs/{job_id}", self.websocket),
            WebSocketRoute("/jobs/{job_id}", self.websocket),
        ]

    async def ticket(self, request: Request) -> Response:
        """`POST /v1/jobs/{jobId}/ticket`: 201 with a ticket and the addresses it opens."""
        principal = await self._access.principal(request, "read")
        job = (await self._read(request, principal.tenant)).job
        ticket, expires_at = self._access.ticket(job.id, self._settings.ticket_seconds)
        document = {
            "ticket": ticket,
            "expiresAt": rfc3339(expires_at),
            "url": self._urls.job(job.id, ticket),
            "resultUrl": self._urls.result(job.id, ticket),
            "eventsUrl": self._urls.events(job.id, ticket),
            "websocketUrl": self._urls.websocket(job.id, ticket),
        }
        return json_response(document, 201, {"Cache-Control": "no-store"})

    async def events(self, request: Request) -> Response:
        """`GET /v1/jobs/{jobId}/events`: the job document whenever it changes, up to its end."""
        view = await self._read_as_reader(request)
        last = last_event_id(request.headers.get("last-event-id"))
        if last is not None and last >= view.job.rev and view.job.is_terminal:
            # What makes an EventSource give up (HTML, 9.2.3).
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return EventStream(
            self._services.jobs, self._watchers, view, last=last, settings=self._settings
        )

    async def websocket(self, websocket: WebSocket) -> None:
        """The same documents as text frames; closed with 1000 after the one of the job's end."""
        self._check_origin(websocket)
        view = await self._read_as_reader(websocket)
        async with self._watchers.watch(view.job.id) as watch:
            try:
                await websocket.accept()
                code, job = await _while_connected(
                    self._push(websocket, watch, view.job.rev - 1), _listen(websocket)
                )
                if job is not None:
                    await note_reading(self._services.jobs, job)
                async with asyncio.timeout(self._settings.send_timeout_seconds):
                    await websocket.close(code)
            except TimeoutError:
                _abort(websocket.scope, view.job)
            except (ClientDisconnect, WebSocketDisconnect, OSError):
                return

    async def _push(
        self, websocket: WebSocket, watch: Watch[Sight], seen: int
    ) -> tuple[int, Job | None]:
        """Send each document after the revision `seen`.

        Returns:
            The code to close with, and the job if its end was sent.
        """
        while True:
            try:
                sight = await watch.next()
            except WatchersClosed:
                return _RESTARTS, None
            if sight.view is None:
                return _EXPIRED, None
            if not sight.is_at(seen + 1):
                continue
            view, seen = sight.view, sight.view.job.rev
            try:
                data = await sight.document(view)
            except ArtifactError as error:
                log.warning("stream.not_rendered", extra={"job": view.job.id, "error": str(error)})
                return _FAILED, None
            async with asyncio.timeout(self._settings.send_timeout_seconds):
                await websocket.send_text(data.decode())
            if view.job.is_terminal:
                return _DONE, view.job

    def _check_origin(self, websocket: WebSocket) -> None:
        origin = websocket.headers.get("origin")
        host = websocket.headers.get("host", "")
        if not origin_allowed(
            origin, host=host, public_url=self._urls.base, allowed=self._settings.ws_origins
        ):
            raise Problem("origin_not_allowed", "the Origin is not one that may watch jobs")

    async def _read_as_reader(self, connection: HTTPConnection) -> View:
        reader = await self._access.reader(connection, connection.path_params["job_id"])
        return await self._read(connection, reader.tenant)

    async def _read(self, connection: HTTPConnection, tenant: str | None) -> View:
        return await read_job(
            self._services.jobs,
            connection.path_params["job_id"],
            tenant=tenant,
            partitions=self._services.settings.store.partitions,
        )


def last_event_id(header: str | None) -> int | None:
    """Return the revision that a `Last-Event-ID` header names; None when it names none."""
    if header is None or not header.isascii() or not header.isdecimal() or len(header) > 15:
        return None
    return int(header)


def origin_allowed(
    origin: str | None, *, host: str, public_url: str, allowed: tuple[str, ...]
) -> bool:
    """Tell whether a page of `origin` may open a WebSocket (RFC 6455, 10.2).

    Args:
        origin: as the browser says; None for programs, which no page can make connect.
        host: the `Host` that was asked.
        public_url: the gateway's own.
        allowed: other origins; `*` is any.
    """
    if origin is None or "*" in allowed:
        return True
    origin = origin.lower()
    own = "/".join(public_url.lower().split("/", 3)[:3])
    return origin in {own, *allowed} or origin in {f"{s}://{host.lower()}" for s in _SCHEMES}


_SCHEMES = ("http", "https")


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
    ) -> None:
        """Go on after the revision `last`; nothing older than `view` is sent."""
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
                await _while_connected(self._write(watch, send), _hung_up(receive))
            except ClientDisconnect:
                # That is also how a complete answer looks.
                pass
            except TimeoutError:
                _abort(scope, self._job)
                # An answer that ends before the connection has would count as a fault.
                with suppress(ClientDisconnect):
                    await _hung_up(receive)
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

    async def _events(self, watch: Watch[Sight]) -> AsyncGenerator[bytes, None]:
        """Yield the stream in parts; `self._ended` is the job once its end is among them."""
        # Spread, so that the clients of a process that stops do not all come back at once.
        yield f"retry: {1000 + int(2000 * random_float())}\n\n".encode()
        while True:
            try:
                sight = await watch.next(self._settings.heartbeat_seconds)
            except TimeoutError:
                yield b": \n\n"
                continue
            except WatchersClosed:
                return
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


async def _while_connected(work: Coroutine[Any, Any, T], listen: Coroutine[Any, Any, T]) -> T:
    """Return what `work` does, or what `listen` does when that is first; the other is cancelled.

    Raises:
        ClientDisconnect: `listen` did, because the client has gone.
    """
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in (work, listen)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        result: T = next(task for task in tasks if task.done()).result()
        return result
    finally:
        await cancel_all(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hung_up(receive: Receive) -> Never:
    """Raise ClientDisconnect when the client has gone, or its answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


async def _listen(websocket: WebSocket) -> tuple[int, None]:
    """Pass over the little that a watcher may say, and return the code to close with after more.

    Raises:
        ClientDisconnect: it has gone.
    """
    for _ in range(_IGNORED_MESSAGES):
        if (await websocket.receive())["type"] == "websocket.disconnect":
            raise ClientDisconnect
    return _TALKATIVE, None


def _abort(scope: Scope, job: Job) -> None:
    log.warning("stream.slow_reader_dropped", extra={"job": job.id})
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is not None:
        abort()
