"""What follows from an attempt: rules as a table, and what holds for every job."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.retry import DEFAULT_JITTER, Gaps
from gateway.models import Job
from gateway.outcomes import (
    Abandoned,
    Again,
    AttemptOutcome,
    Finish,
    HandBack,
    Interrupted,
    Leave,
    NextStep,
    Raised,
    Returned,
    Stopped,
    decide,
)

GAPS = Gaps(gaps=(1.0, 10.0))


def a_job(attempt: int, max_attempts: int) -> Job:
    return Job(
        id="job_00test",
        tenant="t1",
        type="demo.echo",
        status="processing",
        rev=3,
        attempt=attempt,
        max_attempts=max_attempts,
    )


def raised(*, retry: bool) -> Raised:
    return Raised(error="It failed.", code="broken", retry=retry)


FAILED = Finish(status="failed", error="It failed.", error_code="broken")


@pytest.mark.parametrize(
    ("attempt", "outcome", "step"),
    [
        (1, Returned(results={"a": 1}), Finish(status="completed", results={"a": 1})),
        (3, Returned(results={}), Finish(status="completed", results={})),
        (1, Stopped(), Finish(status="cancelled")),
        (3, Stopped(), Finish(status="cancelled")),
        (1, Interrupted(), HandBack()),
        (3, Interrupted(), HandBack()),
        (1, Abandoned(), Leave()),
        (3, Abandoned(), Leave()),
        (1, raised(retry=True), Again(delay=1 * SECOND)),
        (2, raised(retry=True), Again(delay=10 * SECOND)),
        (3, raised(retry=True), FAILED),
        (4, raised(retry=True), FAILED),
        (1, raised(retry=False), FAILED),
        (3, raised(retry=False), FAILED),
    ],
)
def test_each_outcome_has_its_next_step(
    attempt: int, outcome: AttemptOutcome, step: NextStep
) -> None:
    assert decide(a_job(attempt, 3), outcome, gaps=GAPS, rand=0.0) == step


Seconds = st.lists(st.floats(0, 366 * 86_400), min_size=1, max_size=10)


@given(gaps=Seconds, attempt=st.integers(1, 100), rand=st.floats(0, 1, exclude_max=True))
def test_a_gap_is_its_own_length_and_a_little_more(
    gaps: list[float], attempt: int, rand: float
) -> None:
    step = decide(a_job(attempt, 101), raised(retry=True), gaps=Gaps(gaps=tuple(gaps)), rand=rand)
    assert isinstance(step, Again)
    gap = gaps[min(attempt, len(gaps)) - 1]
    assert round(gap * SECOND) <= step.delay <= round(gap * (1 + DEFAULT_JITTER) * SECOND)


Outcomes: st.SearchStrategy[Any] = st.one_of(
    st.just(Returned(results={})),
    st.just(Stopped()),
    st.booleans().map(lambda retry: raised(retry=retry)),
)


@given(outcome=Outcomes, attempt=st.integers(1, 50), more=st.integers(0, 50))
def test_a_job_goes_on_only_while_attempts_are_left(
    outcome: AttemptOutcome, attempt: int, more: int
) -> None:
    step = decide(a_job(attempt, attempt + more), outcome, gaps=GAPS, rand=0.5)
    goes_on = isinstance(outcome, Raised) and outcome.retry and more > 0
    assert isinstance(step, Again if goes_on else Finish)
