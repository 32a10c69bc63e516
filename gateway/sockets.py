"""WebSockets of clients that hold to nothing: what the library leaves without a bound has one here.

Nothing of what a watcher says is used (`gateway.api.streams`), so little of it is taken in.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from config.sections import ApiSettings
from gateway.connection import malformed, refusal
from gateway.urls import Urls

AT_ONCE = 64 * 1024
"""Bytes that a client may say; pings and pongs want a few a second beyond."""

_A_SECOND = 256
_SLICE = 4_096

MAX_FRAGMENTS = 64
"""Frames of one message; the library counts their bytes, and of an empty one there are none."""


class PatientSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with bounds on what comes from a client that reads or says nothing."""

    api: ApiSettings
    urls: Urls

    _write_timer: asyncio.TimerHandle | None = None
    _said = 0
    _since = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came in; first the whole head, which the library may pass over in silence."""
        if not self._since:
            self._since = self.loop.time()
            super().data_received(data)
            if not self.handshake_initiated and not self.transport.is_closing():
                self.transport.write(refusal(malformed(), self.urls))
                self.transport.close()
            return
        # A frame of six bytes takes as long to read as a long one: they are counted by little.
        for at in range(0, len(data), _SLICE):
            if self.transport.is_closing():
                return
            piece = data[at : at + _SLICE]
            self._said += len(piece)
            if self._said > AT_ONCE + _A_SECOND * (self.loop.time() - self._since):
                self._fail(CloseCode.POLICY_VIOLATION, "too much is said")
                self.transport.close()
            else:
                super().data_received(piece)

    def handle_cont(self, event: Frame) -> None:
        """Take a part of a message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand on a whole message; the library would log nonsense in it as a fault of ours."""
        try:
            if self.curr_msg_data_type == "text":
                b"".join(self.frames).decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
        else:
            super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """End a connection that broke the protocol; before it is open there is no way to say so."""
        if self.conn.close_sent is None:
            self.transport.abort()
        else:
            super().handle_parser_exception()
        # Else the library would call what the application says next a fault of the application.
        self.disconnected = True

    def keepalive_timeout(self) -> None:
        """End a connection whose client answers no ping."""
        super().keepalive_timeout()
        self.disconnected = True

    def pause_writing(self) -> None:
        """Nobody reads: what they send is not answered, pings neither, and not waited for long."""
        super().pause_writing()
        self.transport.pause_reading()
        self._stop_waiting()
        self._write_timer = self.loop.call_later(
            self.api.write_timeout_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        """Somebody reads again."""
        self._stop_waiting()
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        if not self.close_sent:
            if self.handshake_complete:
                self.conn.fail(code, reason)
            self.handle_parser_exception()

    def _stop_waiting(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
