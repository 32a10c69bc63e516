"""One run of a handler in a process of its own, as its worker sees it, from start to burial.

The worker holds two sockets. Over the *line* it talks with the handler; over the *life* the
handler's keeper tells of its process, and hears that it is to kill it.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol, Self

from config.clock import Clock
from gateway.context import memory_is_used_up, time_is_up
from gateway.frames import NUMBER, ChildJob, FrameError, Frames, encode_frame
from gateway.jobcontext import JobCancelled, JobError
from gateway.models import Job, JsonObject, StoredFile

GRACE_SECONDS: Final = 1.5
"""How long a handler that was told to stop may take over it."""

_TICK_SECONDS: Final = 0.1
_LEAVE_SECONDS: Final = 1.0
_BURIAL_SECONDS: Final = 3.0
_BLOCK: Final = 256 * 1024
_BLOCKS: Final = 64

_log = logging.getLogger("gateway.isolation")


class Reports(Protocol):
    """Who hears, in the worker, what a handler in a child process reports."""

    def progress(self, percent: int, message: str) -> None:
        """Take in a progress report.

        Raises:
            JobCancelled: the job should stop now.
            JobError: its time is up.
        """

    def keep(self, file: StoredFile) -> None:
        """Take in that the handler saved an artifact, or replaced the one of that name."""


class IsolatedRun:
    """One run, from the first message to the burial. For one thread."""

    def __init__(
        self,
        line: socket.socket,
        life: socket.socket,
        job: Job,
        reports: Reports,
        deadline: float,
        stop: threading.Event,
        clock: Clock,
    ) -> None:
        self._job = job
        self._reports = reports
        self._deadline = deadline
        self._stop = stop
        self._clock = clock
        self._line = _Line(line)
        self._life = _Life(life)
        self._line.put(ChildJob.of(job).encode())
        self._reason: JobCancelled | JobError | None = None
        self._kill_at = float("inf")
        self._bound: int | None = None
        self._has_last_word = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left, and wait until the keeper has seen it end."""
        if self._has_last_word:
            self._await_end(_LEAVE_SECONDS)
        self._life.call_off()
        self._await_end(_BURIAL_SECONDS)
        if not self._life.is_over:
            _log.error("isolation.not_buried", extra={"job": self._job.id, "pid": self._life.pid})
        self._line.close()
        self._life.close()

    def converse(self) -> JsonObject:
        """Return the handler's result.

        Raises:
            JobCancelled, JobError: there is none.
        """
        try:
            while True:
                self._exchange()
                while (message := self._line.take()) is not None:
                    if (results := self._heed(message)) is not None:
                        return results
                if self._life.is_over and self._line.is_drained:
                    raise self._reason or self._verdict()
                self._mind_limits()
        except FrameError:
            _log.exception("isolation.no_frame", extra={"job": self._job.id})
            raise JobError("The job's process could not be understood.", retry=True) from None

    def _exchange(self) -> None:
        """Read and write what can be, or wait a moment for it."""
        poll = select.poll()
        self._line.register(poll)
        self._life.register(poll)
        poll.poll(_TICK_SECONDS * 1_000)
        # In this order: what the handler said, it said before it ended.
        self._life.read()
        self._line.exchange()

    def _heed(self, message: JsonObject) -> JsonObject | None:
        """Act on a message; returns the result when that is what it is."""
        match message:
            case {"is": "bounded", "bytes": int(limit)}:
                self._bound = limit
            case {"is": "progress", "percent": int(percent), "message": str(text)}:
                self._report(percent, text)
            case {
                "is": "saved",
                "file": {
                    "path": str(),
                    "name": str(),
                    "size": int(),
                    "sha256": str(),
                    "contentType": str(),
                },
            }:
                self._reports.keep(StoredFile.decode(message["file"]))
            case {"is": "returned", "results": dict(results)}:
                self._has_last_word = True
                return results
            case {"is": "raised", "error": str(error), "code": str(code), "retry": bool(retry)}:
                self._has_last_word = True
                raise self._reason or JobError(error, code=code, retry=retry)
            case {"is": "cancelled"}:
                self._has_last_word = True
                raise self._reason or JobCancelled()
            case _:
                raise FrameError(f"an unknown message: {message.get('is')!r}")
        return None

    def _report(self, percent: int, message: str) -> None:
        if self._reason is not None:
            return
        try:
            self._reports.progress(percent, message)
        except (JobCancelled, JobError) as reason:
            self._tell_to_stop(reason)
        else:
            self._line.put({"is": "go"})

    def _mind_limits(self) -> None:
        now = self._clock.monotonic()
        if self._reason is not None:
            if now >= self._kill_at:
                _log.warning("isolation.killed", extra={"job": self._job.id})
                raise self._reason
        elif self._stop.is_set():
            self._tell_to_stop(JobCancelled())
        elif now >= self._deadline:
            self._tell_to_stop(time_is_up(self._job))

    def _tell_to_stop(self, reason: JobCancelled | JobError) -> None:
        self._reason = reason
        self._kill_at = self._clock.monotonic() + GRACE_SECONDS
        self._line.put({"is": "stop"})

    def _verdict(self) -> JobError:
        """What to say of a handler that ended without a word."""
        if self._life.pid is None:
            return not_started()
        code = self._life.code
        if code is None:
            return JobError("The job's process was lost.", retry=True)
        if code >= 0:
            return JobError(
                f"The job's process ended without a result (exit code {code}).", retry=True
            )
        if code == -signal.SIGKILL:
            return JobError(
                "The job's process was killed (SIGKILL); the machine may be short of memory.",
                retry=True,
            )
        if code == -signal.SIGABRT and self._bound is not None:
            return memory_is_used_up(self._bound, by_abort=True)
        return JobError(f"The job's process crashed ({_signal_name(-code)}).", retry=True)

    def _await_end(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while not self._life.is_over and (left := until - self._clock.monotonic()) > 0:
            poll = select.poll()
            self._life.register(poll)
            poll.poll(left * 1_000)
            self._life.read()


class _Line:
    """The worker's end of the line. Never blocks.

    Attributes:
        is_drained: whether the last exchange took in all there was.
    """

    def __init__(self, line: socket.socket) -> None:
        line.setblocking(False)
        self._socket = line
        self._frames = Frames()
        self._unsent = bytearray()
        self._is_open = True
        self.is_drained = False

    def put(self, message: JsonObject) -> None:
        """Have a message sent."""
        self._unsent += encode_frame(message)

    def take(self) -> JsonObject | None:
        """Return the next message that is here.

        Raises:
            FrameError: what is here is no message.
        """
        return self._frames.take()

    def register(self, poll: select.poll) -> None:
        """Name what to wait for, if there is anything left to."""
        if self._is_open:
            wanted = select.POLLIN | (select.POLLOUT if self._unsent else 0)
            poll.register(self._socket, wanted)

    def exchange(self) -> None:
        """Send and receive what can be at this moment."""
        with suppress(BlockingIOError, ConnectionError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        self.is_drained = not self._is_open
        for _ in range(_BLOCKS):
            if self.is_drained:
                return
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_BLOCK)
        except BlockingIOError:
            self.is_drained = True
            return
        except ConnectionError:
            data = b""
        self._frames.feed(data)
        self._is_open = bool(data)
        self.is_drained = not data

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class _Life:
    """The worker's end of the life.

    Attributes:
        pid: of the handler's process, once it is there.
        code: its exit code, once it has ended; -n is signal n.
        is_over: whether the keeper is done.
    """

    def __init__(self, life: socket.socket) -> None:
        life.setblocking(False)
        self._socket = life
        self._kept = b""
        self.pid: int | None = None
        self.code: int | None = None
        self.is_over = False

    def register(self, poll: select.poll) -> None:
        """Name what to wait for."""
        poll.register(self._socket, select.POLLIN)

    def read(self) -> None:
        """Take in what the keeper has told by now."""
        try:
            data = self._socket.recv(_BLOCK)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self._kept += data
        numbers = [number for (number,) in NUMBER.iter_unpack(self._whole())]
        if numbers:
            self.pid = numbers[0]
        if len(numbers) > 1:
            self.code = numbers[1]
        self.is_over = not data or self.code is not None

    def call_off(self) -> None:
        """Order the keeper to kill."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it, which is an order to kill as well."""
        self._socket.close()

    def _whole(self) -> bytes:
        return self._kept[: len(self._kept) // NUMBER.size * NUMBER.size]


def not_started() -> JobError:
    return JobError("The job's process could not be started.", retry=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
