"""The handler's side of isolation: one attempt in a process of its own.

`gateway.zygote` makes that process, `gateway.isolation` is the worker's side, and `gateway.frames`
is what they tell each other.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from config.clock import SystemClock
from config.log import about
from config.tracing import within
from gateway.artifacts import ArtifactStore
from gateway.context import COMPLETE, MAX_MESSAGE, memory_is_used_up
from gateway.frames import MAX_FRAME, ChildJob, FrameError, Frames, encode_frame
from gateway.jobcontext import JobCancelled, JobError
from gateway.jobfiles import JobFiles
from gateway.jobtypes import HandlersError, Registry
from gateway.models import JsonObject, StoredFile

_log = logging.getLogger("gateway.child")
_clock = SystemClock()

_BLOCK: Final = 256 * 1024
_IS_LINUX: Final = sys.platform == "linux"


def leave() -> NoReturn:
    """End at once: nobody is left to hear of anything."""
    os._exit(1)


class Line:
    """The handler's end of the line. For one thread."""

    def __init__(self, line: socket.socket) -> None:
        self._socket = line
        self._frames = Frames()

    def send(self, frame: bytes) -> None:
        """Send an encoded message; waits for as long as the worker is busy."""
        try:
            self._socket.sendall(frame)
        except ConnectionError:
            leave()

    def receive(self, seconds: float | None = None) -> JsonObject | None:
        """Return the next message, None when there is none within `seconds`."""
        until = None if seconds is None else _clock.monotonic() + seconds
        while (message := self._frames.take()) is None:
            left = None if until is None else max(0.0, until - _clock.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            try:
                data = self._socket.recv(_BLOCK)
            except ConnectionError:
                leave()
            if not data:
                leave()
            self._frames.feed(data)
        return message


class IsolatedJob(JobFiles):
    """A `JobContext` in the handler's process. The worker answers for it to the store."""

    def __init__(self, job: ChildJob, line: Line, artifacts_url: str) -> None:
        # Not before it is needed, and never before the fork: the store does not survive one.
        super().__init__(job.id, job.files, partial(ArtifactStore, artifacts_url))
        self._job = job
        self._line = line
        self._is_stopped = False

    @property
    def id(self) -> str:
        """The job's identifier."""
        return self._job.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has in all."""
        return self._job.max_attempts

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the client attached to the job."""
        return MappingProxyType(dict(self._job.metadata))

    def progress(self, percent: int, message: str) -> None:
        """Tell how far the job is; also the point at which a cancel or the deadline takes effect.

        Raises:
            JobCancelled: the job should stop now.
        """
        self._check()
        report = {
            "is": "progress",
            "percent": min(max(int(percent), 0), COMPLETE),
            "message": message[:MAX_MESSAGE],
        }
        self._line.send(encode_frame(report))
        self._heed(self._line.receive())
        self._check()

    def sleep(self, seconds: float) -> None:
        """Wait, and be woken early by a cancel or the deadline.

        Raises:
            JobCancelled: the job should stop now.
        """
        self._check()
        self._heed(self._line.receive(max(0.0, seconds)))
        self._check()

    def keep(self, file: StoredFile) -> None:
        """Take note of an artifact, and tell the worker of it."""
        super().keep(file)
        self._line.send(encode_frame({"is": "saved", "file": file.encode()}))

    def _heed(self, message: JsonObject | None) -> None:
        if message is not None and message["is"] == "stop":
            self._is_stopped = True

    def _check(self) -> None:
        if self._is_stopped:
            raise JobCancelled


def unexpected(error: BaseException) -> str:
    """Return the sentence for an exception that no handler should let out.

    It names the exception's kind and no more: the text may hold what the client must not see.
    """
    return f"The job's handler failed unexpectedly ({type(error).__name__})."


def attempt(job: ChildJob, registry: Registry, line: Line, artifacts_url: str) -> bytes:
    """Call the handler; whatever it does becomes the last message."""
    context = IsolatedJob(job, line, artifacts_url)
    with about(job=job.id):
        return _attempt(job, registry, line, context)


def _attempt(job: ChildJob, registry: Registry, line: Line, context: IsolatedJob) -> bytes:
    try:
        return encode_frame({"is": "returned", "results": _call(job, registry, context, line)})
    except JobCancelled:
        return encode_frame({"is": "cancelled"})
    except JobError as error:
        return _raised(error.message, error.code, retry=error.retry)
    except FrameError:
        return _raised(f"The job's result is larger than the limit of {_mebibytes(MAX_FRAME)}.")
    except HandlersError as error:
        _log.exception("job.definition", extra={"job": job.id, "type": job.type})
        return _raised(str(error))
    except Exception as error:  # noqa: BLE001
        _log.exception("job.handler_raised", extra={"job": job.id, "type": job.type})
        return _raised(unexpected(error), retry=True)
    finally:
        context.close()


def _call(job: ChildJob, registry: Registry, context: IsolatedJob, line: Line) -> JsonObject:
    kind = registry.get(job.type)
    given = kind.parse_input(context.read_input(job.input, job.input_file))
    if kind.memory_bytes is not None:
        # Where C code gets no more it aborts, and nobody here is left to say why.
        line.send(encode_frame({"is": "bounded", "bytes": kind.memory_bytes}))
    with _bounded_memory(kind.memory_bytes), within(job.trace):
        return kind.run(context, given)


def _raised(error: str, code: str = "handler_error", *, retry: bool = False) -> bytes:
    return encode_frame({"is": "raised", "error": error, "code": code, "retry": retry})


def _mebibytes(size: int) -> str:
    return f"{size / 1024**2:g} MiB"


@contextmanager
def _bounded_memory(limit: int | None) -> Iterator[None]:
    """Bound the address space to what is mapped now and `limit` bytes beyond it.

    What the modules and their libraries have mapped is not the handler's to answer for. The hard
    limit stays, so that what comes after has room again.

    Raises:
        JobError: more was needed.
    """
    if limit is None:
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _mapped() + limit
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    try:
        yield
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            raise
        raise memory_is_used_up(limit) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _mapped() -> int:
    if not _IS_LINUX:
        return 0
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
