"""The schedule of attempts: the contract's gaps, and its laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import SECOND
from delivery.retry import Schedule

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

GAPS = st.lists(st.floats(0, 1e6), min_size=1, max_size=12).map(tuple)
RAND = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("step", "wait"),
    [
        (0, 0),
        (1, 5 * SECOND),
        (2, 5 * MINUTE),
        (3, 30 * MINUTE),
        (4, 2 * HOUR),
        (5, 5 * HOUR),
        (6, 10 * HOUR),
        (7, 14 * HOUR),
        (8, 20 * HOUR),
        (9, 24 * HOUR),
        (10, 24 * HOUR),
        (1_000, 24 * HOUR),
    ],
)
def test_the_contract_s_gaps(step: int, wait: int) -> None:
    assert Schedule().wait(step, 0.0) == wait


def test_the_contract_s_budget() -> None:
    schedule = Schedule()
    assert schedule.attempts == 10
    assert schedule.max_age == 96 * 3600


def test_jitter_adds_up_to_a_fifth() -> None:
    assert Schedule().wait(1, 0.5) == 5_500_000
    assert Schedule().wait(1, math.nextafter(1, 0)) == 6 * SECOND


@given(gaps=GAPS, step=st.integers(0, 100), rand=RAND, jitter=st.floats(0, 1))
def test_a_wait_stays_within_its_gap_and_jitter(
    gaps: tuple[float, ...], step: int, rand: float, jitter: float
) -> None:
    gap = gaps[min(step, len(gaps) - 1)] * SECOND
    wait = Schedule(gaps=gaps, jitter=jitter).wait(step, rand)
    assert gap - 1 <= wait <= gap * (1 + jitter) + 1


@given(gaps=GAPS, rand=RAND, beyond=st.integers(0, 50))
def test_the_last_gap_repeats(gaps: tuple[float, ...], rand: float, beyond: int) -> None:
    schedule = Schedule(gaps=gaps)
    last = schedule.attempts - 1
    assert schedule.wait(last + beyond, rand) == schedule.wait(last, rand)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"gaps": ()}, "gaps"),
        ({"gaps": (0.0, -1.0)}, "gaps"),
        ({"gaps": (math.nan,)}, "gaps"),
        ({"gaps": (math.inf,)}, "gaps"),
        ({"max_age": 0.0}, "max_age"),
        ({"max_age": math.nan}, "max_age"),
        ({"jitter": 1.5}, "jitter"),
        ({"jitter": math.nan}, "jitter"),
    ],
)
def test_a_bad_schedule_is_refused_by_name(changes: dict[str, object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Schedule(**changes)  # type: ignore[arg-type]


def test_steps_are_counted_from_nought() -> None:
    with pytest.raises(ValueError, match="step"):
        Schedule().wait(-1, 0.0)
