"""What follows from an attempt: the rows of the contract's table, for deliveries and for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from config.clock import SECOND
from delivery.decide import decide
from delivery.models import Bury, Claimed, Decision, Deliver, Reason, Retry, Trigger
from delivery.outcomes import (
    Delivered,
    Denied,
    Gone,
    Outcome,
    Rejected,
    Throttled,
    Unreachable,
    UnreachableCode,
)
from delivery.retry import Schedule

NOW = 1_795_000_000 * SECOND
SCHEDULE = Schedule(gaps=(0, 10, 20), max_age=3600)
FIRST = Claimed(
    id="msg_1",
    claim="dp-1:1:1",
    number=1,
    trigger="schedule",
    endpoint="ep_1",
    tenant="t1",
    secrets={},
    url=b"",
    headers=b"",
    tags="{}",
    body=b"",
    used=0,
    step=0,
    born_at=NOW,
    suspect=False,
    proven=True,
)

FAILURES: tuple[Outcome, ...] = (
    Rejected(status=302),
    Rejected(status=404),
    Rejected(status=500),
    *(Unreachable(code=code) for code in get_args(UnreachableCode)),
)
THROTTLED: tuple[Outcome, ...] = tuple(
    Throttled(status=status, retry_after=None) for status in (429, 502, 503, 504)
)


def decided(delivery: Claimed, outcome: Outcome) -> Decision:
    return decide(delivery, outcome, schedule=SCHEDULE, now=NOW, rand=0.0)


def test_what_is_taken_is_delivered() -> None:
    decision = decided(FIRST, Delivered(status=204))
    assert decision.verdict == Deliver()
    assert (decision.limit, decision.breaker) == ("grow", "good")


@pytest.mark.parametrize("outcome", FAILURES, ids=repr)
def test_a_failure_uses_one_attempt_and_waits_for_the_next(outcome: Outcome) -> None:
    decision = decided(FIRST, outcome)
    assert (decision.verdict, decision.used, decision.step) == (Retry(delay=10 * SECOND), 1, 1)
    last = decided(replace(FIRST, used=2, step=2), outcome)
    assert last.verdict == Bury(reason="exhausted")
    old = decided(replace(FIRST, born_at=NOW - 3600 * SECOND), outcome)
    assert old.verdict == Bury(reason="exhausted")


@pytest.mark.parametrize("outcome", THROTTLED, ids=repr)
def test_patience_uses_none_and_ends_by_age_alone(outcome: Outcome) -> None:
    worn = replace(FIRST, used=2, step=9)
    decision = decided(worn, outcome)
    assert (decision.verdict, decision.used, decision.step) == (Retry(delay=20 * SECOND), 2, 10)
    assert (decision.limit, decision.breaker) == ("halve", "bad")
    old = decided(replace(worn, born_at=NOW - 3600 * SECOND), outcome)
    assert old.verdict == Bury(reason="exhausted")


def test_a_hint_lengthens_a_wait_and_does_not_shorten_it() -> None:
    for hint, delay in ((15, 15), (5, 10)):
        outcome = Throttled(status=400, retry_after=hint * SECOND)
        decision = decided(FIRST, outcome)
        assert decision.verdict == Retry(delay=delay * SECOND)
        assert decision.breaker == "neutral"


TRIGGERS: tuple[Trigger, ...] = get_args(Trigger)


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize(
    ("outcome", "reason"), [(Gone(status=410), "gone"), (Denied(), "destination_not_allowed")]
)
def test_nothing_is_tried_after_these(trigger: Trigger, outcome: Outcome, reason: Reason) -> None:
    assert decided(replace(FIRST, trigger=trigger), outcome).verdict == Bury(reason=reason)


@pytest.mark.parametrize("outcome", [*FAILURES, *THROTTLED], ids=repr)
def test_a_test_is_one_attempt(outcome: Outcome) -> None:
    tested = replace(FIRST, trigger="test")
    assert decided(tested, outcome).verdict == Bury(reason="exhausted")
    assert decided(tested, Delivered(status=200)).verdict == Deliver()
