"""Leaving with the parent: no process outlives the one that started it.

The parent keeps the write end of a pipe that nobody writes to; its children inherit the read end,
whose number is in GATEWAY_PARENT_FD. However the parent ends, the kernel closes its end, and the
children see it. A parent-death signal would not reach the processes that Dramatiq forks.
"""

import logging
import multiprocessing
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

PARENT_FD: Final = "GATEWAY_PARENT_FD"
GRACE_SECONDS: Final = 10.0
"""Time a process gets to leave in order once its parent is gone."""

_POLL_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


def watch_parent(
    environ: Mapping[str, str] | None = None,
    *,
    grace_seconds: float = GRACE_SECONDS,
    at_last: Callable[[], None] | None = None,
) -> bool:
    """Start to watch the parent, when one asked for it; tells whether it did.

    When the parent is gone this process gets a SIGTERM from itself, and if it is still there after
    `grace_seconds`, calls `at_last` and exits at once with 1. Threads do not survive a fork: each
    forked process calls this for itself. The pipe is never read, so any number may watch it.

    Args:
        environ: where GATEWAY_PARENT_FD is looked up; the process's own environment by default.
        grace_seconds: between the SIGTERM and the end.
        at_last: a last act before the hard exit.

    Raises:
        ValueError: GATEWAY_PARENT_FD is set and is not the number of an open pipe.
    """
    text = (os.environ if environ is None else environ).get(PARENT_FD, "")
    if not text:
        return False
    wait = _reparented if _is_spawned() else _pipe_closed(text)
    _leave_after(wait, grace_seconds, at_last)
    return True


def watch_forker(*, grace_seconds: float = GRACE_SECONDS) -> None:
    """Start to watch the process that forked this one, and leave with it as with a parent.

    It may be killed by itself, and what starts it anew would then have both.
    """
    _leave_after(_reparented, grace_seconds, None)


def _leave_after(
    wait: Callable[[], None], grace_seconds: float, at_last: Callable[[], None] | None
) -> None:
    def watch() -> None:
        wait()
        _log.warning("process.parent_gone")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        if at_last is not None:
            at_last()
        os._exit(1)

    start_deaf(watch, "parent-watch")


def start_deaf(run: Callable[[], None], name: str) -> None:
    """Start a daemon thread that hears no signals.

    They are for the main thread, which may hold them back for a while: a signal that another thread
    hears meanwhile ends the process all the same.
    """
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _is_spawned() -> bool:
    """Whether multiprocessing started this process anew: then it did not inherit the pipe."""
    if multiprocessing.parent_process() is None:
        return False
    return multiprocessing.get_start_method() != "fork"


def _pipe_closed(text: str) -> Callable[[], None]:
    try:
        descriptor = int(text)
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except (ValueError, OSError):
        is_pipe = False
    if not is_pipe:
        raise ValueError(f"{PARENT_FD}: {text!r} is not the number of an open pipe")

    def wait() -> None:
        poll = select.poll()
        # Nobody writes, so the only event is the hang-up; POLLIN is there for systems that
        # report the end of file as readable.
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        poll.poll()

    return wait


def _reparented() -> None:
    first = os.getppid()
    while os.getppid() == first:
        time.sleep(_POLL_SECONDS)
