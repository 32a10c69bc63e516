"""The decision after an attempt, as a function of the delivery, the outcome and the time.

The rules are the webhook contract's ("Outcome of an attempt", "Gaps between attempts").
"""

from __future__ import annotations

from typing import Literal, assert_never

from config.clock import SECOND
from delivery.models import Bury, Claimed, Decision, Deliver, Retry, Verdict
from delivery.outcomes import (
    Delivered,
    Denied,
    Gone,
    Outcome,
    Rejected,
    Throttled,
    Unanswered,
    Unreachable,
)
from delivery.retry import Schedule

_OVERLOADED = frozenset({429, 502, 503, 504})


def decide(
    delivery: Claimed, outcome: Outcome, *, schedule: Schedule, now: int, rand: float
) -> Decision:
    """Return what becomes of `delivery` after `outcome`.

    Args:
        delivery: as it was claimed.
        outcome: of the attempt.
        schedule: gaps, budget and maximum age.
        now: the store's time, µs.
        rand: a number in [0, 1) that places the wait within its jitter.
    """
    used, step = delivery.used + 1, delivery.step + 1
    verdict: Verdict
    match outcome:
        case Delivered():
            verdict = Deliver()
        case Gone():
            verdict = Bury(reason="gone")
        case Denied():
            verdict = Bury(reason="destination_not_allowed")
        case Throttled(retry_after=hint):
            # The receiver asked for patience: only age ends it, the budget is kept for failures.
            used = delivery.used
            verdict = _wait_longer(delivery, schedule, step, now, rand, hint or 0)
        case Rejected() | Unanswered() | Unreachable():
            verdict = (
                Bury(reason="exhausted")
                if used >= schedule.attempts
                else _wait_longer(delivery, schedule, step, now, rand, 0)
            )
        case _:
            assert_never(outcome)
    return Decision(
        verdict=verdict, used=used, step=step, limit=_limit(outcome), breaker=_breaker(outcome)
    )


def _wait_longer(
    delivery: Claimed, schedule: Schedule, step: int, now: int, rand: float, at_least: int
) -> Verdict:
    # A test is one attempt: whoever asked for it looks at what came of that.
    if delivery.trigger == "test" or now - delivery.born_at >= schedule.max_age * SECOND:
        return Bury(reason="exhausted")
    return Retry(delay=max(schedule.wait(step, rand), at_least))


def _limit(outcome: Outcome) -> Literal["grow", "halve", "keep"]:
    match outcome:
        case Delivered():
            return "grow"
        case Throttled() | Unreachable(code="timeout"):
            return "halve"
        case _:
            return "keep"


def _breaker(outcome: Outcome) -> Literal["good", "bad", "neutral"]:
    match outcome:
        case Delivered():
            return "good"
        case Unreachable(code="dns" | "connect" | "tls" | "timeout" | "reset"):
            return "bad"
        case Throttled(status=status) if status in _OVERLOADED:
            return "bad"
        case _:
            return "neutral"
