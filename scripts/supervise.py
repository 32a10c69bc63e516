"""A small process tree: starts children in stages, restarts those that die, stops them in order.

Every child runs in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor
only, and so that what a child forked can be ended with it. Every child inherits the read end of a
pipe (`config.parent`): a supervisor that is killed takes its children along.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self, assert_never

from config.clock import Clock, SystemClock
from config.parent import PARENT_FD

TICK_SECONDS: Final = 0.05
STOP_GRACE_SECONDS: Final = 15.0
LOG_LIMIT_BYTES: Final = 16 * 2**20
"""A child's log is moved to `<role>.log.1` when it is larger."""

BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 5.0
QUICK_DEATH_SECONDS: Final = 10.0
QUICK_DEATHS_ALLOWED: Final = 5


class SuperviseError(Exception):
    """The tree cannot run; the message says which child and why, with its last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One child process."""

    role: str
    """Its name in messages, in `pids`, and of its log file."""
    command: Sequence[str]
    environment: Mapping[str, str]
    stage: int
    """Stages start in rising order, each when the last is ready, and stop in falling order."""
    ready: Callable[[], bool] = lambda: True
    """Probes the running child; returns within about a second."""
    ready_seconds: float = 60.0
    pass_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Start the child again after `delay` seconds."""

    delay: float
    quick_deaths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """It will not stay up; end the run."""

    quick_deaths: int


def after_death(*, lived: float, quick_deaths: int) -> Restart | GiveUp:
    """What to do with a child that died after `lived` seconds.

    `quick_deaths` counts the deaths within 10 s of starting, in a row, before this one: the delay
    doubles with them, and at five the run ends. A longer life starts the count again.
    """
    if lived >= QUICK_DEATH_SECONDS:
        return Restart(delay=BACKOFF_FIRST_SECONDS, quick_deaths=0)
    deaths = quick_deaths + 1
    if deaths >= QUICK_DEATHS_ALLOWED:
        return GiveUp(quick_deaths=deaths)
    delay = min(BACKOFF_FIRST_SECONDS * 2 ** (deaths - 1), BACKOFF_MAX_SECONDS)
    return Restart(delay=delay, quick_deaths=deaths)


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float | None = None
    quick_deaths: int = 0
    was_ready: bool = False


class Supervisor:
    """Runs the children of `specs` from `start` to `stop`; a context manager that always stops.

    Use it from one thread. `interrupt` is for a signal handler: it takes no lock, which a handler
    must not, and is seen at the next tick.
    """

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        log_dir: Path,
        report: Callable[[str], None] = lambda _line: None,
        changed: Callable[[Mapping[str, int]], None] = lambda _pids: None,
        clock: Clock | None = None,
        grace_seconds: float = STOP_GRACE_SECONDS,
    ) -> None:
        """Starts nothing yet.

        Args:
            specs: the children.
            log_dir: gets one `<role>.log` for each, beginning anew with this run.
            report: takes one line for the operator about each death and restart.
            changed: takes the process ids by role whenever they have changed.
            clock: measures lives and delays.
            grace_seconds: from SIGTERM to SIGKILL.
        """
        self._children = [
            _Child(spec, log_dir / f"{spec.role}.log") for spec in sorted(specs, key=_stage)
        ]
        self._report = report
        self._changed = changed
        self._clock = clock or SystemClock()
        self._grace = grace_seconds
        self._read_end, self._write_end = os.pipe()
        self._interrupts = 0
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for child in self._children:
            child.log.write_bytes(b"")

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that run, by role."""
        return {c.spec.role: c.process.pid for c in self._children if c.process is not None}

    @property
    def interrupted(self) -> bool:
        return self._interrupts > 0

    def interrupt(self) -> None:
        """Ask `start` and `run` to return; asked a second time, `stop` waits for nobody."""
        self._interrupts += 1

    def start(self) -> None:
        """Start every stage and wait until each child is ready, or until interrupted.

        Raises:
            SuperviseError: a child ended before it was ready, or took too long.
        """
        for _, stage in groupby(self._children, key=lambda child: child.spec.stage):
            children = list(stage)
            for child in children:
                self._launch(child)
            while not self.interrupted and not all(map(self._is_ready, children)):
                self._tick()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep the children running until interrupted or until `until`, asked at every tick.

        Raises:
            SuperviseError: a child died five times within ten seconds of starting.
        """
        while not self.interrupted and not until():
            self._tick()

    def stop(self) -> None:
        """Stop every child, last stage first: SIGTERM, after the grace SIGKILL. Safe to repeat."""
        for _, stage in groupby(reversed(self._children), key=lambda child: child.spec.stage):
            children = [child for child in stage if child.process is not None]
            for child in children:
                _signal(child, signal.SIGTERM)
            deadline = self._clock.monotonic() + self._grace
            while any(map(_is_running, children)):
                if self._interrupts > 1 or self._clock.monotonic() > deadline:
                    break
                time.sleep(TICK_SECONDS)
            for child in children:
                if _is_running(child):
                    self._report(f"{child.spec.role} {self._too_slow()}")
                _bury(child)
        self._changed(self.pids)

    def _too_slow(self) -> str:
        if self._interrupts > 1:
            return "was killed"
        return "did not stop in time and was killed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            os.close(self._write_end)
            os.close(self._read_end)

    def _tick(self) -> None:
        time.sleep(TICK_SECONDS)
        now = self._clock.monotonic()
        for child in self._children:
            if child.process is not None and not _is_running(child):
                self._died(child, now)
            elif child.restart_at is not None and now >= child.restart_at:
                self._launch(child)
            _bound_log(child.log)

    def _is_ready(self, child: _Child) -> bool:
        if child.process is None or not _is_running(child):
            return False
        if not child.was_ready:
            child.was_ready = child.spec.ready()
            waited = self._clock.monotonic() - child.started
            if not child.was_ready and waited > child.spec.ready_seconds:
                raise SuperviseError(
                    _with_log(child, f"{child.spec.role} was not ready within {waited:.0f} s")
                )
        return child.was_ready

    def _launch(self, child: _Child) -> None:
        child.restart_at = None
        child.started = self._clock.monotonic()
        with child.log.open("ab") as log:
            try:
                child.process = subprocess.Popen(  # noqa: S603
                    list(child.spec.command),
                    env={**child.spec.environment, PARENT_FD: str(self._read_end)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=(self._read_end, *child.spec.pass_fds),
                )
            except OSError as error:
                raise SuperviseError(f"cannot start {child.spec.role}: {error}") from error
        self._changed(self.pids)

    def _died(self, child: _Child, now: float) -> None:
        how = _describe(_bury(child))
        self._changed(self.pids)
        if not child.was_ready:
            raise SuperviseError(_with_log(child, f"{child.spec.role} {how} before it was ready"))
        match after_death(lived=now - child.started, quick_deaths=child.quick_deaths):
            case Restart(delay=delay, quick_deaths=deaths):
                child.quick_deaths = deaths
                child.restart_at = now + delay
                self._report(f"{child.spec.role} {how}; starting it again in {delay:g} s")
            case GiveUp(quick_deaths=deaths):
                raise SuperviseError(
                    _with_log(child, f"{child.spec.role} {how}, {deaths} times in a row")
                )
            case never:
                assert_never(never)


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The last lines of a log, control characters escaped."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 64 * 1024))
        tail = deque(file, maxlen=count)
        return [_printable(line.decode(errors="replace").rstrip()) for line in tail]
    return []


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _with_log(child: _Child, sentence: str) -> str:
    lines = last_lines(child.log)
    return "\n".join([sentence, *(f"  {line}" for line in lines), f"  (all of it: {child.log})"])


def _stage(spec: ChildSpec) -> int:
    return spec.stage


def _is_running(child: _Child) -> bool:
    """Looks without reaping: until it is reaped, its process group cannot become another's."""
    if child.process is None:
        return False
    ended = os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended is None


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process is not None and _is_running(child):
        os.kill(child.process.pid, number)


def _bury(child: _Child) -> int:
    """Kills what is left of the child's session and reaps it; returns its exit code."""
    if child.process is None:
        return 0
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    code = child.process.wait()
    child.process = None
    return code


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def _bound_log(log: Path) -> None:
    """Children hold their log open for appending, so it is copied aside and emptied in place."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


@contextlib.contextmanager
def interrupted_by_signals(supervisor: Supervisor) -> Iterator[None]:
    """SIGINT and SIGTERM interrupt `supervisor` inside the block."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda *_: supervisor.interrupt()) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
