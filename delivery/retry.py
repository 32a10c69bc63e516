"""When to try again: gaps that grow, with jitter, within an attempt budget and a maximum age.

The gaps are the webhook contract's; the strategies that step through them are tenacity's. Its own
jitter draws from a global generator, so the jitter is added here, from a number the caller drew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_chain, wait_fixed

from config.clock import SECOND

DEFAULT_GAPS: tuple[float, ...] = (
    0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600,
)  # fmt: skip
"""Seconds before each attempt, the first one included."""

DEFAULT_MAX_AGE = 96 * 3600.0
"""Seconds after which no further attempt is made."""

DEFAULT_JITTER = 0.2
"""The part of a gap that is added to it at most, so that who failed together comes back apart."""

_NO_CALL = Retrying(reraise=True)


def _chain(gaps: Sequence[float]) -> wait_base:
    return wait_chain(*(wait_fixed(gap) for gap in gaps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Waits that follow one another, the last one repeating.

    Attributes:
        gaps: seconds; at least one, none negative.
        jitter: the largest part of a gap that is added to it, 0 to 1.

    Raises:
        ValueError: naming the attribute that is out of its range.
    """

    gaps: tuple[float, ...]
    jitter: float = DEFAULT_JITTER
    _waits: wait_base = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.gaps or not all(0 <= gap < float("inf") for gap in self.gaps):
            raise ValueError("gaps: at least one, each a number of seconds from 0")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter: a part between 0 and 1")
        object.__setattr__(self, "_waits", _chain(self.gaps))

    def wait(self, step: int, rand: float) -> int:
        """Return the µs to wait.

        Args:
            step: how many gaps have been used up; past the end the last one repeats.
            rand: a number in [0, 1): where in the jitter's range this wait falls.
        """
        if step < 0:
            raise ValueError("step: counted from 0")
        state = RetryCallState(_NO_CALL, None, (), {})
        state.attempt_number = step + 1
        return round(self._waits(state) * (1 + self.jitter * rand) * SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Gaps):
    """The gaps between the attempts at a delivery.

    `gaps[0]` precedes the first attempt, so that ten gaps are ten attempts and no attempt follows
    the tenth; what is throttled outlives the budget, and then the last gap repeats. The budget and
    the age are judged by the caller, after an attempt.

    Attributes:
        max_age: seconds from the start of a delivery to its end.

    Raises:
        ValueError: naming the attribute that is out of its range.
    """

    gaps: tuple[float, ...] = DEFAULT_GAPS
    max_age: float = DEFAULT_MAX_AGE

    def __post_init__(self) -> None:
        Gaps.__post_init__(self)
        if not 0 < self.max_age < float("inf"):
            raise ValueError("max_age: a number of seconds above 0")

    @property
    def attempts(self) -> int:
        """The attempt budget: how many attempts a delivery gets."""
        return len(self.gaps)
