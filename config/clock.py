"""Time as the gateway uses it: integer microseconds since the Unix epoch, UTC.

The durable store's clock decides every stored instant; a process only measures what passed
since the store last told it the time (see `StoreClock`), so that hosts with wrong clocks cannot
disagree about a deadline.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

MILLISECOND = 1_000
"""One millisecond, in microseconds."""

SECOND = 1_000_000
"""One second, in microseconds."""

HOUR = 3_600 * SECOND
"""One hour, in microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What logic asks for the time, so that tests can answer."""

    def now(self) -> int:
        """Return microseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def now(self) -> int:
        """Return microseconds since the Unix epoch."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


class StoreClock:
    """The store's time, carried forward by this host's monotonic clock.

    Every script returns the store's time; `heard` takes it in. A reply's time is older than the
    instant of its arrival by at most the way back, so the estimate runs late, never early.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset: float | None = None

    def heard(self, now: int) -> None:
        """Take in `now` (µs), the store's time in a reply that has just arrived."""
        self._offset = now - self._clock.monotonic() * SECOND

    def now(self) -> int:
        """Return the store's time in µs; before any reply, this host's."""
        if self._offset is None:
            return self._clock.now()
        return int(self._clock.monotonic() * SECOND + self._offset)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return self._clock.monotonic()


def rfc3339(us: int) -> str:
    """Return `us` (µs since the epoch) as RFC 3339 UTC with milliseconds, truncated.

    Raises:
        OverflowError: outside of the years 1 to 9999.
    """
    second, rest = divmod(us, SECOND)
    return f"{_to_the_second(second)}.{rest // MILLISECOND:03d}Z"


@lru_cache(maxsize=64)
def _to_the_second(second: int) -> str:
    """Most instants that are written lie within the same few seconds."""
    return (_EPOCH + timedelta(seconds=second)).isoformat()[: len("2026-01-01T00:00:00")]


def parse_rfc3339(text: str) -> int:
    """Return the instant that `text` names (RFC 3339, any offset), in µs since the epoch.

    Raises:
        ValueError: not a date and time with an offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, such as Z")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds
