"""HTTP connections that do not wait for ever: for a head, or for somebody to read the answer."""

from __future__ import annotations

import asyncio

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from config.sections import ApiSettings
from config.variables import allow_open_files
from gateway.problems import Problem, render
from gateway.urls import Urls

_OTHER_FILES = 256
"""Descriptors left for everything that is no client's connection."""

_REASONS = {
    400: "Bad Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class HeadTooLarge(Exception):
    """The head of a request is longer than is taken."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with bounds on what a client may take in time and in bytes.

    The library bounds idle connections only: a head could grow for ever, come in a byte at a time,
    and an answer could wait for ever to be read. What waits for a body is told so by
    `gateway.middleware`.
    """

    api: ApiSettings
    urls: Urls
    most: int
    """Connections at once, this one included."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_size = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection: its first head has to come in time."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > self.most:
            self._refuse(Problem("overloaded", "too many connections are open", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop(self._head_timer)
        self._stop(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came in."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # Nothing of it was the body, so all of it was the head, whole fields or not.
            self._head_size += len(data)
            if self._head_size > self.api.head_limit_bytes:
                self.send_400_response("too large")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        if self._head_timer is None:
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Go on with a request whose head is there."""
        self._stop(self._head_timer)
        self._head_timer = None
        self._in_head = False
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_size = len(self.url) + fields
        if self._head_size > self.api.head_limit_bytes:
            raise HeadTooLarge
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what cannot be read, and close."""
        if self.transport.is_closing():
            return
        limit = self.api.head_limit_bytes
        problem = (
            Problem("head_too_large", f"the head of a request may be at most {limit} bytes")
            if self._head_size > limit
            else Problem("malformed_request", "this cannot be read as HTTP/1.1")
        )
        self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        body, headers = render(
            problem, page=self.urls.problem(problem.code), instance=self.urls.instance("/")
        )
        headers |= {"Content-Length": str(len(body)), "Connection": "close"}
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        reason = _REASONS[problem.status]
        self.transport.write(f"HTTP/1.1 {problem.status} {reason}\r\n{fields}\r\n".encode() + body)
        self.transport.close()

    def pause_writing(self) -> None:
        """Nobody reads: wait for them, but not for ever."""
        super().pause_writing()
        self._stop(self._write_timer)
        self._write_timer = self.loop.call_later(
            self.api.write_timeout_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        """Somebody reads again."""
        self._stop(self._write_timer)
        super().resume_writing()

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.api.head_timeout_seconds, self.transport.abort)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def bounded(base: type[PatientProtocol], settings: ApiSettings, own: Urls) -> type[PatientProtocol]:
    """Return `base` with the bounds of `settings`; `own` builds the addresses in its refusals."""

    wanted = settings.max_connections + _OTHER_FILES

    class Bounded(base):  # type: ignore[misc, valid-type]
        api = settings
        urls = own
        most = max(1, min(wanted, allow_open_files(wanted)) - _OTHER_FILES)

    return Bounded
