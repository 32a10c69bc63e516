"""Jobs as they go on: event streams, WebSockets, and tickets for their watchers."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from config.clock import rfc3339
from gateway.access import Access, Reader
from gateway.api.eventstream import EventStream, last_event_id
from gateway.api.sights import (
    JobWatchers,
    Sight,
    abort,
    is_allowed,
    note_reading,
    while_connected,
)
from gateway.artifacts import ArtifactError
from gateway.models import Job, View
from gateway.problems import Problem
from gateway.reading import read_job
from gateway.resource import json_response, resource
from gateway.services import Services
from gateway.urls import Urls
from gateway.watching import Watch, WatchersClosed

log = logging.getLogger("api")

_IGNORED_MESSAGES = 16

_DONE, _REFUSED, _FAILED, _RESTARTS, _EXPIRED = 1000, 1008, 1011, 1012, 4410
"""Codes that a WebSocket is closed with (RFC 6455, 7.4); the last is our own, after HTTP's 410."""


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
        view, reader = await self._read_as_reader(request)
        last = last_event_id(request.headers.get("last-event-id"))
        if last is not None and last >= view.job.rev and view.job.is_terminal:
            # What makes an EventSource give up (HTML, 9.2.3).
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return EventStream(
            self._services.jobs,
            self._watchers,
            view,
            last=last,
            settings=self._settings,
            may_go_on=partial(self._access.still_reads, reader),
        )

    async def websocket(self, websocket: WebSocket) -> None:
        """The same documents as text frames; closed with 1000 after the one of the job's end."""
        self._check_origin(websocket)
        view, reader = await self._read_as_reader(websocket)
        async with self._watchers.watch(view.job.id) as watch:
            try:
                await websocket.accept()
                code, job = await while_connected(
                    self._push(websocket, watch, reader, view.job.rev - 1), _listen(websocket)
                )
                if job is not None:
                    await note_reading(self._services.jobs, job)
                async with asyncio.timeout(self._settings.send_timeout_seconds):
                    await websocket.close(code)
            except TimeoutError:
                abort(websocket.scope, view.job)
            except (ClientDisconnect, WebSocketDisconnect, OSError):
                return

    async def _push(
        self, websocket: WebSocket, watch: Watch[Sight], reader: Reader, seen: int
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
            if not await is_allowed(partial(self._access.still_reads, reader)):
                return _REFUSED, None
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

    async def _read_as_reader(self, connection: HTTPConnection) -> tuple[View, Reader]:
        reader = await self._access.reader(connection, connection.path_params["job_id"])
        return await self._read(connection, reader.tenant), reader

    async def _read(self, connection: HTTPConnection, tenant: str | None) -> View:
        return await read_job(
            self._services.jobs,
            connection.path_params["job_id"],
            tenant=tenant,
            partitions=self._services.settings.store.partitions,
        )


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


async def _listen(websocket: WebSocket) -> tuple[int, None]:
    """Pass over the little that a watcher may say, and return the code to close with after more.

    Raises:
        ClientDisconnect: it has gone.
    """
    for _ in range(_IGNORED_MESSAGES):
        if (await websocket.receive())["type"] == "websocket.disconnect":
            raise ClientDisconnect
    return _REFUSED, None
