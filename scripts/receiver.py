"""A sample receiver of callbacks: a real HTTP server on loopback that verifies what it gets.

It does what the webhook contract asks of a receiver: raw bytes first, signature and timestamp
checked, answered within moments, a repeated `webhook-id` taken in once.
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from config.clock import SECOND, Clock, SystemClock
from gateway.receiving import VerificationFailed, verify

MAX_BODY_BYTES: Final = 1_048_576
KEPT: Final = 1000
"""Callbacks remembered, the oldest dropped first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One request as it was judged."""

    webhook_id: str
    event: str
    """`job.completed` and the like; empty when the body is not such an event."""
    job_id: str
    fault: str
    """What was wrong with the signature; empty when it verified."""
    repeated: bool
    """The same `webhook-id` had been received before."""

    @property
    def verified(self) -> bool:
        return not self.fault


class Receiver:
    """Listens on a free port of 127.0.0.1 while it is open."""

    def __init__(
        self, *, heard: Callable[[Callback], None] = lambda _: None, clock: Clock | None = None
    ) -> None:
        """Starts to listen. `heard` is called in a server thread, after each request's answer."""
        self._heard = heard
        self._clock = clock or SystemClock()
        self._secrets: tuple[str, ...] = ()
        self._callbacks: deque[Callback] = deque(maxlen=KEPT)
        self._news = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The callback URL."""
        return f"http://127.0.0.1:{self._server.server_port}/callbacks"

    def trust(self, secret: str) -> None:
        """Accept what is signed with `secret` (`whsec_…`) from now on."""
        self._secrets = (*self._secrets, secret)

    def wait_for(self, job_id: str, *, seconds: float) -> Callback | None:
        """The first callback about `job_id`; None when none came within `seconds`."""
        with self._news:
            self._news.wait_for(lambda: self._about(job_id) is not None, timeout=seconds)
            return self._about(job_id)

    def take_in(self, headers: dict[str, str], body: bytes) -> Callback:
        """Judge and record one request."""
        fault = ""
        try:
            verify(body, headers, self._secrets, now=self._clock.now() / SECOND)
        except VerificationFailed as error:
            # What is genuine is taken in, an event or not.
            fault = "" if error.part == "body" else str(error)
        event, job_id = _read_event(body)
        webhook_id = headers.get("webhook-id", "")
        with self._news:
            callback = Callback(
                webhook_id=webhook_id,
                event=event,
                job_id=job_id,
                fault=fault,
                repeated=any(known.webhook_id == webhook_id for known in self._callbacks),
            )
            self._callbacks.append(callback)
            self._news.notify_all()
        return callback

    def answered(self, callback: Callback) -> None:
        """Tell whoever listens, once the answer is on its way."""
        self._heard(callback)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _about(self, job_id: str) -> Callback | None:
        return next((known for known in self._callbacks if known.job_id == job_id), None)


def _read_event(body: bytes) -> tuple[str, str]:
    """The event's type and its job; empty texts where the body has none."""
    try:
        document: Any = json.loads(body)
        return str(document["type"]), str(document["data"]["jobId"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self._answer(413)
            self.close_connection = True
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver = self.server.receiver
        callback = receiver.take_in(headers, body)
        self._answer(204 if callback.verified else 401)
        receiver.answered(callback)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: `heard` is told instead."""
