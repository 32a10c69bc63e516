"""The processes in which handlers of `isolation="process"` run: forked, watched, and ended.

    worker
    └── zygote              imports the handler modules once, uses none of them, and forks
        └── keeper          one a run: sees the handler end, then ends whatever it left behind
            └── handler     calls the function; leads a session of its own

On Linux the keeper adopts what the handler's children leave behind, so that daemons are found too;
elsewhere only the handler's process group is killed. The handler's temporary directory is its own,
and goes with it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from config import log
from config.clock import SystemClock
from gateway.child import Line, attempt, leave
from gateway.frames import NUMBER, ChildJob
from gateway.jobtypes import Registry

_log = logging.getLogger("gateway.zygote")
_clock = SystemClock()

_BLOCK: Final = 256 * 1024
_IMPORT_SECONDS: Final = 120
_BURIAL_SECONDS: Final = 2.0
_IS_LINUX: Final = sys.platform == "linux"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_OOM_SCORE: Final = b"500"


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
        leave()
    last = attempt(ChildJob.decode(message), registry, wire, artifacts_url)
    if os.getpid() != me:
        # A copy that the handler forked and let return; the original speaks for the job.
        leave()
    wire.send(last)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent, where it does such a thing."""
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        leave()


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
    """Let handlers' modules load what every child would load anew: `warm_up()`, if they have it."""
    for module in dict.fromkeys(kind.function.__module__ for kind in registry.types()):
        warm_up = getattr(sys.modules[module], "warm_up", None)
        if warm_up is not None:
            warm_up()


def main(
    descriptor: int, *, modules: Sequence[str], profile: str, artifacts_url: str, traces: bool
) -> None:
    """Be the zygote.

    Args:
        descriptor: of the socket to the worker, on which pairs of line and life arrive.
        modules: the handler modules.
        profile: development or production.
        artifacts_url: of the artifact store.
        traces: whether handlers see the trace of their job.

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
    if traces:
        import_module("config.spans")
    signal.alarm(0)
    # What is there now is shared with every child for as long as no collection touches it.
    gc.collect()
    gc.freeze()
    _zygote(control, registry, artifacts_url)
