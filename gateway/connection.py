"""HTTP connections that do not wait for ever, and heads that can be read in one way only."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable

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


_FRAMING = 8
"""Bytes of framing that a byte of body may cost: `1`, two line ends, and some more."""

_ONCE = (b"host", b"authorization", b"content-type")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]{1,255}")


class HeadTooLarge(Exception):
    """The head of a request is longer than is taken."""


class HeadAmbiguous(Exception):
    """The head of a request is one that another server may read otherwise."""


def check_head(method: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Return when whoever reads the head of a request reads the same; the parser asks for less.

    A server before this one may have looked at the other of two hosts or credentials, or taken
    another end of the body (RFC 9112, sections 3.2 and 6).

    Args:
        method: as sent.
        version: of HTTP, such as `1.1`.
        headers: names in lower case.

    Raises:
        HeadAmbiguous: it is not so.
    """
    fields = list(headers)
    counts = Counter(name for name, _ in fields)
    values = dict(fields)
    host, coding = values.get(b"host"), values.get(b"transfer-encoding")
    if (
        version not in {"1.0", "1.1"}
        or any(counts[name] > 1 for name in _ONCE)
        or (host is None and version == "1.1")
        or (host is not None and not _HOST.fullmatch(host))
        or (coding is not None and (version == "1.0" or coding.lower() != b"chunked"))
        or (values.get(b"upgrade", b"").lower() == b"websocket" and method != b"GET")
    ):
        raise HeadAmbiguous


def refusal(problem: Problem, urls: Urls) -> bytes:
    """Return the bytes of the answer that refuses what no application has seen, and is the last."""
    body, headers = render(problem, page=urls.problem(problem.code), instance=urls.instance("/"))
    headers |= {"Content-Length": str(len(body)), "Connection": "close"}
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {problem.status} {_REASONS[problem.status]}\r\n{fields}\r\n".encode() + body


def malformed() -> Problem:
    """Return what is said of a head that cannot be read."""
    return Problem("malformed_request", "this cannot be read as HTTP/1.1")


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
        self._in_body = self._is_fresh = False
        self._of_body = self._beside_body = 0

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
        self._of_body, self._is_fresh = 0, False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            # Nothing of it was the body, so all of it was the head, whole fields or not.
            self._head_size += len(data)
            if self._head_size > self.api.head_limit_bytes:
                self.send_400_response("too large")
        elif self._in_body and not self._is_fresh:
            # What is not the body stands around it: sizes and extensions of chunks, trailers.
            self._beside_body = max(0, self._beside_body + len(data) - _FRAMING * self._of_body)
            if self._beside_body > self.api.head_limit_bytes:
                self.send_400_response("too much beside the body")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0
        self._in_body, self._beside_body, self._is_fresh = False, 0, True
        if self._head_timer is None:
            self._wait_for_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those that come after the body would change what was read."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._of_body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._in_body = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Go on with a request whose head is there."""
        self._stop(self._head_timer)
        self._head_timer = None
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_size = len(self.url) + fields
        if self._head_size > self.api.head_limit_bytes:
            raise HeadTooLarge
        check_head(self.parser.get_method(), self.parser.get_http_version(), self.headers)
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what cannot be read, and close."""
        if self.transport.is_closing():
            return
        limit = self.api.head_limit_bytes
        if self._head_size > limit:
            problem = Problem(
                "head_too_large", f"the head of a request may be at most {limit} bytes"
            )
        else:
            problem = malformed()
        self._refuse(problem)

    def _refuse(self, problem: Problem) -> None:
        if not self._is_answering():
            self.transport.write(refusal(problem, self.urls))
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether the client would take a refusal for an answer to another request, or its end."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self._in_head or self.cycle.response_started

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
