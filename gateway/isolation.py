"""Handlers of `isolation="process"`, seen from the worker; `gateway.zygote` is the other side.

One `Isolation` serves all threads of a worker process. It starts the zygote at the first such job
and again whenever it is gone. A run ends in one of these ways, and with no process left behind:

- the handler's own last word: its result, a JobError, or that it heeded the order to stop;
- its end without a word: a crash, an exit;
- its death at our hands: its time was up or it did not stop, and the grace is over.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from config.clock import Clock, SystemClock
from config.parent import PARENT_FD
from config.settings import environment
from config.sharedfiles import FOLDER
from gateway.isolated import IsolatedRun, Reports, not_started
from gateway.models import Job, JsonObject

_CLOSE_SECONDS: Final = 5.0

_ZYGOTE: Final = """
import json, sys
descriptor, given = int(sys.argv[1]), json.loads(sys.argv[2])
sys.path[:] = given.pop("path")
from gateway.zygote import main
main(descriptor, **given)
"""

_log = logging.getLogger("gateway.isolation")


class Isolation:
    """What a worker process needs to run handlers in child processes. Made after any fork.

    Args:
        modules: the handler modules, importable with this process's `sys.path`.
        profile: development or production.
        artifacts_url: of the artifact store.
        traces: whether handlers are to see the trace of their job.
        clock: whose monotonic time deadlines are in.
    """

    def __init__(
        self,
        *,
        modules: Sequence[str],
        profile: str,
        artifacts_url: str,
        traces: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._given = {
            "modules": list(modules),
            "profile": profile,
            "artifacts_url": artifacts_url,
            "traces": traces,
        }
        self._traces = traces
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None
        self._is_closed = False

    def run(
        self, job: Job, reports: Reports, *, deadline: float, stop: threading.Event
    ) -> JsonObject:
        """Run the handler in a process of its own, to the end of it and of all it started.

        Args:
            job: what to run, as it was claimed.
            reports: hears of progress and artifacts, in this thread.
            deadline: when its time is up, by the clock's monotonic time.
            stop: set when the handler should stop.

        Returns:
            The handler's result as JSON.

        Raises:
            JobCancelled: it was told to stop, and did or was killed.
            JobError: it raised that; or its time was up, it crashed, or could not be started.
        """
        with self._start(job, reports, deadline, stop) as run:
            return run.converse()

    def close(self) -> None:
        """Let the zygote go. Runs under way are not disturbed, and no new one can start."""
        with self._lock:
            self._is_closed = True
            self._discard()

    def _start(
        self, job: Job, reports: Reports, deadline: float, stop: threading.Event
    ) -> IsolatedRun:
        line, childs_line = socket.socketpair()
        life, keepers_life = socket.socketpair()
        with childs_line, keepers_life:
            try:
                self._send(childs_line, keepers_life)
                told = job if self._traces else replace(job, trace=None)
                return IsolatedRun(line, life, told, reports, deadline, stop, self._clock)
            except BaseException:
                line.close()
                life.close()
                raise

    def _send(self, line: socket.socket, life: socket.socket) -> None:
        with self._lock:
            try:
                self._living().send(line, life)
            except OSError as error:
                _log.exception("isolation.not_started")
                self._discard()
                raise not_started() from error

    def _living(self) -> _Zygote:
        if self._is_closed:
            raise OSError("the worker is about to leave")
        if self._zygote is not None and not self._zygote.is_alive:
            _log.warning("isolation.zygote_gone")
            self._discard()
        if self._zygote is None:
            self._zygote = _Zygote(self._given)
        return self._zygote

    def _discard(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None


class _Zygote:
    """The process that forks the others."""

    def __init__(self, given: JsonObject) -> None:
        """Start it.

        Raises:
            OSError: it cannot be started.
        """
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_CLOSE_SECONDS)
        environ = environment()
        # It does not inherit the pipe of that number, and ends with this process by its socket.
        environ.pop(PARENT_FD, None)
        # What a handler counts in a process of its own would be one more file for each attempt.
        environ.pop(FOLDER, None)
        command = [sys.executable, "-c", _ZYGOTE, str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    [*command, json.dumps({"path": sys.path, **given})],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environ,
                    # A terminal's Ctrl-C is for the worker, which then waits for its jobs.
                    start_new_session=True,
                )
            except BaseException:
                self._control.close()
                raise

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def send(self, line: socket.socket, life: socket.socket) -> None:
        """Have it fork a keeper with these sockets.

        Raises:
            OSError: it is gone, or does not read.
        """
        socket.send_fds(self._control, [b"+"], [line.fileno(), life.fileno()])

    def close(self) -> None:
        """See it end."""
        self._control.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
