"""How long each part of an exchange may take, and the one timer that sees to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each part of an exchange may take.

    Attributes:
        dns: what the look-up may take; the resolver keeps to its own, this is added to the next for
            what comes before the first address is dialled.
        connect: from there until the connection, TLS included, over all addresses together.
        first_byte: from the connection until the final answer's head.
        total: everything, the body included.
    """

    dns: float = 3.0
    connect: float = 5.0
    first_byte: float = 15.0
    total: float = 20.0


class Timer(Protocol):
    """What is to happen at an instant, as long as nobody cancels it."""

    def cancel(self) -> None:
        """Let it not happen."""
        ...


class Timers(Protocol):
    """The part of an event loop that an alarm asks."""

    def time(self) -> float:
        """Return the instant, in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` at an instant."""
        ...


class Alarm:
    """Ends a block at an instant that may move: it is cancelled, and raises TimeoutError.

    `asyncio.Timeout` makes a timer for each move. Here one goes off early and looks again, so that
    the common case, each part in time, makes one in all. Instants are the event loop's, in seconds.
    """

    __slots__ = ("_cancelling", "_loop", "_rang", "_task", "_timer", "_until")

    def __init__(self, loop: Timers, until: float) -> None:
        """Ring at `until`, for the task that enters the block."""
        self._loop = loop
        self._until = until
        self._timer: Timer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._rang = False

    def __enter__(self) -> Alarm:
        """Begin the block."""
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("an alarm needs a task")
        self._cancelling = self._task.cancelling()
        self._timer = self._loop.call_at(self._until, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; a cancellation that was only ours becomes a TimeoutError."""
        task, timer, self._task, self._timer = self._task, self._timer, None, None
        if timer is not None:
            timer.cancel()
        if not self._rang or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def move(self, until: float) -> None:
        """Ring at `until` instead, unless it has rung."""
        earlier, self._until = until < self._until, until
        if earlier and self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_at(until, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        elif self._task is not None:
            self._rang = True
            self._task.cancel()


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far one exchange has come; times are the event loop's, in seconds.

    Attributes:
        host: that the connection is for, in lower case, without brackets.
        dialled: whether a socket was made for it.
        denied: whether an address may not be dialled.
        anew: whether no kept connection is to be used.
    """

    deadlines: Deadlines
    alarm: Alarm
    started: float
    host: str = ""
    dialled: bool = False
    denied: bool = False
    anew: bool = False
    connected: float | None = field(default=None, init=False)
    answered: float | None = field(default=None, init=False)

    @classmethod
    def begin(cls, deadlines: Deadlines) -> Progress:
        """Return an exchange that begins now; its alarm is to be entered by the task at once."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        until = now + min(deadlines.dns + deadlines.connect, deadlines.total)
        return cls(deadlines=deadlines, alarm=Alarm(loop, until), started=now)

    def on_dial(self, now: float) -> None:
        """Begin the connect deadline, at the first address only."""
        if not self.dialled:
            self.dialled = True
            self._allow(now + self.deadlines.connect)

    def on_connected(self, now: float) -> None:
        """Begin the deadline of the first byte."""
        self.connected = now
        self._allow(now + self.deadlines.first_byte)

    def on_hung_up(self, now: float) -> None:
        """Begin over with a new connection."""
        self.anew = True
        self.connected = None
        self._allow(now + self.deadlines.dns + self.deadlines.connect)

    def on_answered(self, now: float) -> None:
        """Leave only the deadline of everything."""
        self.answered = now
        self._allow(now + self.deadlines.total)

    def _allow(self, until: float) -> None:
        self.alarm.move(min(until, self.started + self.deadlines.total))

    def extensions(self) -> dict[str, Any]:
        """Return the times for a response, in µs from the start."""
        return {
            "connect": self._since_start(self.connected) if self.dialled else None,
            "first_byte": self._since_start(self.answered),
        }

    def _since_start(self, moment: float | None) -> int | None:
        return None if moment is None else round((moment - self.started) * _MICROSECONDS)


# Tasks that aiohttp starts for one connection inherit it, and so do the sockets they ask for.
PROGRESS: ContextVar[Progress] = ContextVar("delivery_progress")
"""Of the exchange under way in this task."""
