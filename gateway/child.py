"""The child's side of isolation: the processes in which handlers of `isolation="process"` run.

    worker
    └── zygote              imports the handler modules once, uses none of them, and forks
        └── keeper          one a run: sees the handler end, then ends whatever it left behind
            └── handler     calls the function; leads a session of its own

The worker and the handler speak over the *line*, a socket of length-prefixed JSON:

    worker  -> handler      job, go (the answer to progress), stop
    handler -> worker       progress, saved, and at last one of returned, raised, cancelled

The worker and the keeper speak over the *life*, a socket on which the keeper tells the handler's
process id and later its exit code. That the worker's end of it closes, however that comes about, is
the order to kill. The handler has no part in that, nor has any thread: C code may hold both up.

On Linux the keeper adopts what the handler's children leave behind, so that daemons are found too;
elsewhere only the handler's process group is killed. The handler's temporary directory is its own,
and goes with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import faulthandler
import gc
import inspect
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, BinaryIO, Final, NoReturn, Self

from config import log
from config.clock import SystemClock
from gateway.artifacts import ArtifactStore, output_path
from gateway.context import MAX_ARTIFACT, MAX_ARTIFACTS, MAX_MESSAGE
from gateway.errors import GatewayError
from gateway.handlers import (
    Artifact,
    FileInfo,
    FileRef,
    HandlersError,
    JobCancelled,
    JobError,
    Registry,
    artifact_uri,
)
from gateway.models import Job, JsonObject, StoredFile, compact

MAX_FRAME: Final = 64 * 1024**2
"""The longest message in either direction, in bytes: in effect, the largest result."""

NUMBER: Final = struct.Struct("!i")
"""How the keeper writes a process id or an exit code; as in `subprocess`, -n is signal n."""

_log = logging.getLogger("gateway.child")
_clock = SystemClock()

_LENGTH: Final = struct.Struct("!I")
_BLOCK: Final = 256 * 1024
_COMPLETE: Final = 100
_MAX_INPUT: Final = 64 * 1024**2
_IMPORT_SECONDS: Final = 120
_BURIAL_SECONDS: Final = 2.0
_IS_LINUX: Final = sys.platform == "linux"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_OOM_SCORE: Final = b"500"


class FrameError(GatewayError):
    """A message is too long, or is none."""


class Frames:
    """Messages out of a stream of bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        self._kept += data

    def take(self) -> JsonObject | None:
        """Return the next message, None while it is not complete.

        Raises:
            FrameError: it is longer than MAX_FRAME, or not a JSON object.
        """
        if len(self._kept) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._kept)
        if length > MAX_FRAME:
            raise FrameError(f"a message of {length} bytes; the limit is {MAX_FRAME}")
        end = _LENGTH.size + length
        if len(self._kept) < end:
            return None
        body = bytes(self._kept[_LENGTH.size : end])
        del self._kept[:end]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"a message is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("a message is not a JSON object")
        return message


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Return `message` as it travels.

    Raises:
        FrameError: it is longer than MAX_FRAME.
        ValueError: JSON cannot hold it.
    """
    body = compact(message).encode()
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes; the limit is {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildJob:
    """What a child is told of its job; the fields are those of `Job`."""

    id: str
    type: str
    attempt: int
    max_attempts: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    input_file: StoredFile | None = None
    files: Mapping[str, StoredFile] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return what a child is told of `job`, which was claimed."""
        return cls(
            id=job.id,
            type=job.type,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            metadata=job.metadata,
            input=job.input,
            input_file=job.input_file,
            files=job.files,
        )

    def encode(self) -> JsonObject:
        """Return the message that carries it."""
        return {
            "is": "job",
            "id": self.id,
            "type": self.type,
            "attempt": self.attempt,
            "maxAttempts": self.max_attempts,
            "metadata": dict(self.metadata),
            "input": self.input,
            "inputFile": self.input_file.encode() if self.input_file else None,
            "files": {part: file.encode() for part, file in self.files.items()},
        }

    @classmethod
    def decode(cls, message: JsonObject) -> Self:
        """Return what `encode` made a message of."""
        kept = message["inputFile"]
        return cls(
            id=message["id"],
            type=message["type"],
            attempt=message["attempt"],
            max_attempts=message["maxAttempts"],
            metadata=message["metadata"],
            input=message["input"],
            input_file=StoredFile.decode(kept) if kept else None,
            files={part: StoredFile.decode(file) for part, file in message["files"].items()},
        )


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
            _leave()

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
                _leave()
            if not data:
                _leave()
            self._frames.feed(data)
        return message


class IsolatedJob:
    """A `JobContext` in the handler's process. The worker answers for it to the store."""

    def __init__(self, job: ChildJob, line: Line, artifacts_url: str) -> None:
        self._job = job
        self._line = line
        self._artifacts_url = artifacts_url
        self._saved: set[str] = set()
        self._open = ExitStack()
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

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """The artifact store, first used here: it does not survive a fork."""
        return ArtifactStore(self._artifacts_url)

    def progress(self, percent: int, message: str) -> None:
        """Tell how far the job is; also the point at which a cancel or the deadline takes effect.

        Raises:
            JobCancelled: the job should stop now.
        """
        self._check()
        report = {
            "is": "progress",
            "percent": min(max(int(percent), 0), _COMPLETE),
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

    def open(self, file: FileRef) -> BinaryIO:
        """Open an uploaded file for reading, seekable; closed with the attempt at the latest."""
        return self._open.enter_context(self.artifacts.local_copy(self._upload(file).path))

    def file_info(self, file: FileRef) -> FileInfo:
        """Return what is known of an uploaded file."""
        upload = self._upload(file)
        return FileInfo(
            name=upload.name,
            content_type=upload.content_type,
            size=upload.size,
            sha256=upload.sha256,
        )

    def save(self, name: str, data: bytes | BinaryIO, content_type: str) -> Artifact:
        """Keep an output file under `name`, replacing what this job had there."""
        if name not in self._saved and len(self._saved) >= MAX_ARTIFACTS:
            raise JobError(f"The job saved more than {MAX_ARTIFACTS} artifacts.")
        path = output_path(self.id, name)
        stored = self.artifacts.save(path, data, limit=MAX_ARTIFACT)
        self._saved.add(name)
        kept = StoredFile(
            path=path,
            name=name,
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )
        self._line.send(encode_frame({"is": "saved", "file": kept.encode()}))
        return Artifact(
            name=name,
            href=artifact_uri(name),
            size=stored.size,
            sha256=stored.sha256,
            content_type=content_type,
        )

    def close(self) -> None:
        """Close every file the handler left open."""
        self._open.close()

    def _upload(self, file: FileRef) -> StoredFile:
        return self._job.files[file.key]

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
    try:
        return encode_frame({"is": "returned", "results": _call(job, registry, context)})
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


def _call(job: ChildJob, registry: Registry, context: IsolatedJob) -> JsonObject:
    kind = registry.get(job.type)
    given = kind.parse_input(_input(job, context))
    with _bounded_memory(kind.memory_bytes):
        result = kind.function(context, given)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        return kind.dump_result(result)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _input(job: ChildJob, context: IsolatedJob) -> Any:
    if job.input_file is None:
        return job.input
    with context.artifacts.local_copy(job.input_file.path) as kept:
        return json.loads(kept.read(_MAX_INPUT))


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
        sentence = f"The job needed more memory than its limit of {_mebibytes(limit)}."
        raise JobError(sentence) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _mapped() -> int:
    if not _IS_LINUX:
        return 0
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _leave() -> NoReturn:
    """End at once: nobody is left to hear of anything."""
    os._exit(1)


def _handle(line: socket.socket, registry: Registry, artifacts_url: str, keeper: int) -> None:
    """Be a handler's process, from just after the fork."""
    os.setsid()
    _die_with(keeper)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _offer_to_the_oom_killer()
    with suppress(RuntimeError):
        # Where a crash happened; there is no standard error under some supervisors.
        faulthandler.enable()
    me = os.getpid()
    wire = Line(line)
    message = wire.receive()
    if message is None:
        _leave()
    last = attempt(ChildJob.decode(message), registry, wire, artifacts_url)
    if os.getpid() != me:
        # A copy that the handler forked and let return; the original speaks for the job.
        _leave()
    wire.send(last)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent, where it does such a thing."""
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        _leave()


def _offer_to_the_oom_killer() -> None:
    """Have a machine that is out of memory end a handler rather than the gateway."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)


class _Brood:
    """The keeper's children: the handler, and on Linux whatever it leaves behind.

    Attributes:
        code: the handler's exit code, None while it runs.
        is_gone: whether no child is left.
    """

    def __init__(self, handler: int) -> None:
        self._handler = handler
        self.code: int | None = None
        self.is_gone = False

    def reap(self) -> None:
        """Take note of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.is_gone = True
                return
            if pid == 0:
                return
            if pid == self._handler:
                self.code = os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """Kill every child there is now; theirs become children of this process by that."""
        if self.code is None or not _IS_LINUX:
            # The number is the handler's until it is reaped, and its group's until that is empty.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._handler, signal.SIGKILL)
        if self.code is None:
            os.kill(self._handler, signal.SIGKILL)
        for pid in _children():
            os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    """Return this process's children. None of the numbers passes to another before it is reaped."""
    me = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat") if _IS_LINUX else ():
        with suppress(OSError):
            # The name of the program comes before, in brackets, and may hold anything.
            _, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if parent == me:
                found.append(int(stat.parent.name))
    return found


def _keep(line: socket.socket, life: socket.socket, handle: Callable[[int], None]) -> None:
    """Be the keeper of one run: fork the handler, see it end, and see to it that nothing stays."""
    wake, alarm = os.pipe()
    for descriptor in (wake, alarm):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, _noted)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    scratch = tempfile.mkdtemp(prefix="gateway-job-")
    me = os.getpid()
    handler = os.fork()
    if handler == 0:
        signal.set_wakeup_fd(-1)
        for descriptor in (wake, alarm):
            os.close(descriptor)
        life.close()
        tempfile.tempdir = scratch
        os.putenv("TMPDIR", scratch)
        _run_and_exit(lambda: handle(me))
    line.close()
    brood = _Brood(handler)
    _tell(life, handler)
    while brood.code is None and not _wait(wake, life):
        brood.reap()
    _bury(brood, wake)
    _tell(life, -signal.SIGKILL if brood.code is None else brood.code)
    shutil.rmtree(scratch, ignore_errors=True)


def _bury(brood: _Brood, wake: int) -> None:
    """End what is left, generation by generation. What the kernel holds for too long stays."""
    until = _clock.monotonic() + _BURIAL_SECONDS
    brood.reap()
    while not brood.is_gone and _clock.monotonic() < until:
        brood.kill()
        _wait(wake, seconds=0.05)
        brood.reap()


def _wait(wake: int, life: socket.socket | None = None, seconds: float | None = None) -> bool:
    """Wait until a child ends or the worker gives the order to kill; tell whether it did."""
    watched: list[int | socket.socket] = [wake] if life is None else [wake, life]
    ready, _, _ = select.select(watched, [], [], seconds)
    if wake in ready:
        with suppress(BlockingIOError):
            os.read(wake, _BLOCK)
    return life in ready


def _noted(_signal: int, _frame: FrameType | None) -> None:
    """Handle SIGCHLD: it only has to end a wait."""


def _tell(life: socket.socket, number: int) -> None:
    with suppress(ConnectionError):
        life.sendall(NUMBER.pack(number))


def _run_and_exit(function: Callable[[], None]) -> NoReturn:
    """Be a forked process: never return into the code that forked it."""
    code = 1
    try:
        function()
        code = 0
    except SystemExit as left:
        code = _exit_code(left)
    except BaseException:  # noqa: BLE001 - there is nobody to raise it to
        _log.exception("isolation.process_failed")
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exit_code(left: SystemExit) -> int:
    match left.code:
        case None:
            return 0
        case int():
            return left.code & 0xFF
        case _:
            return 1


def _zygote(control: socket.socket, registry: Registry, artifacts_url: str) -> None:
    """Fork a keeper for every pair of sockets that comes, until the worker is gone."""
    while True:
        byte, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if not byte:
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        line, life = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        with line, life:
            _fork_keeper(control, line, life, partial(_handle, line, registry, artifacts_url))


def _fork_keeper(
    control: socket.socket, line: socket.socket, life: socket.socket, handle: Callable[[int], None]
) -> None:
    try:
        pid = os.fork()
    except OSError:
        # The worker sees the life end before it began.
        _log.exception("isolation.no_fork")
        return
    if pid == 0:
        control.close()
        _run_and_exit(lambda: _keep(line, life, handle))


def _warm_up(registry: Registry) -> None:
    """Let handlers' modules load what every child would load anew: `warm_up()`, where they have it."""
    for module in dict.fromkeys(kind.function.__module__ for kind in registry.types()):
        warm_up = getattr(sys.modules[module], "warm_up", None)
        if warm_up is not None:
            warm_up()


def main(descriptor: int, *, modules: Sequence[str], profile: str, artifacts_url: str) -> None:
    """Be the zygote.

    Args:
        descriptor: of the socket to the worker, on which pairs of line and life arrive.
        modules: the handler modules.
        profile: development or production.
        artifacts_url: of the artifact store.

    Raises:
        DefinitionError: a module cannot be used.
    """
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    log.configure("worker")
    # Threads that libraries start at import, such as OpenBLAS's, see to forks themselves.
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    # Blocked signals outlive an exec, and the worker's thread may have blocked some.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Keepers are reaped by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A worker that dies goes unnoticed during the imports: they end.
    signal.alarm(_IMPORT_SECONDS)
    registry = Registry.load(modules, profile)
    _warm_up(registry)
    signal.alarm(0)
    # What is there now is shared with every child for as long as no collection touches it.
    gc.collect()
    gc.freeze()
    _zygote(control, registry, artifacts_url)
